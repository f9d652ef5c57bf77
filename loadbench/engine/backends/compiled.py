"""torch.compile around a torch program. It compiles, or it is an error: never quietly eager.

Eager code hides in three places: parts that the compiler skips (refused by `fullgraph`), faults of
the compiler (raised), and more variants than its limit, which would come with every further batch
size if the batch axis were not marked as open (and then is raised too).
"""

import time
from collections.abc import Callable
from contextlib import suppress
from types import FunctionType
from typing import Any

import torch
import torch._dynamo
import torch._dynamo.utils

from loadbench import units
from loadbench.engine import outputs, signature
from loadbench.engine.backends import Arrays, beside
from loadbench.engine.backends.torch_run import Program, TorchModel
from loadbench.errors import SpecError
from loadbench.model import Note


def compiled(program: Program, batched: bool) -> Program:
    """The program, to be compiled when it is first called."""
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    torch._dynamo.config.suppress_errors = False
    inner: Any = torch.compile(_own(program.call), fullgraph=True)
    open_axes = {
        tensor.name: [axis for axis, size in enumerate(tensor.shape) if size == -1]
        for tensor in program.inputs
    }

    def call(tensors: dict[str, torch.Tensor]) -> Any:
        for name, tensor in tensors.items():
            for axis in open_axes[name]:
                if tensor.shape[axis] < 2:  # one row is compiled apart, whatever is marked
                    continue
                if axis == 0 and batched:
                    torch._dynamo.mark_dynamic(tensor, 0)
                else:
                    torch._dynamo.maybe_mark_dynamic(tensor, axis)
        return inner(tensors)

    return program._replace(call=call)


def _own(call: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a code object of its own: by that the compiler counts its variants, and a
    process that loads one model after the other would come to the limit."""
    assert isinstance(call, FunctionType)
    return FunctionType(
        call.__code__.replace(),
        call.__globals__,
        call.__name__,
        call.__defaults__,
        call.__closure__,
    )


def _eager(model: TorchModel, many: int) -> dict[int, Arrays]:
    """Outputs for one row and for many, or for as many as find memory."""
    wanted: dict[int, Arrays] = {1: model.run(signature.inputs_of(model, 1))}
    while many > 1 and len(wanted) == 1:
        with suppress(MemoryError):
            wanted[many] = model.run(signature.inputs_of(model, many))
        many //= 2
    return wanted


def compile_model(model: TorchModel, largest: int) -> None:
    """Compiles for one row and for many. SpecError if the compiler cannot, or answers otherwise."""
    if torch._dynamo.config.disable:
        raise SpecError(
            "torch.compile is switched off here (TORCHDYNAMO_DISABLE), and would run eagerly",
            'unset it, or set engine.backend = "torch"',
        )
    wanted = _eager(model, min(largest, model.max_batch or largest) if model.batched else 1)
    rows = list(wanted)
    begun = time.monotonic_ns()
    model.program = compiled(model.program, model.batched)
    try:
        found = {number: model.run(signature.inputs_of(model, number)) for number in rows}
    except (RuntimeError, SpecError, NotImplementedError, MemoryError) as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise SpecError(
            f"{model.name}: torch.compile failed: {reason}", 'engine.backend = "torch" does without'
        ) from error
    took = units.duration(time.monotonic_ns() - begun)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    if not graphs:  # of this process: instances share theirs
        raise SpecError(
            f"{model.name}: torch.compile compiled nothing, and would run eagerly",
            'is it switched off (TORCH_COMPILE_DISABLE)? engine.backend = "torch" does without',
        )
    worst = max(outputs.difference(found[number], wanted[number], model.outputs) for number in rows)
    if not worst <= beside.ERROR:
        raise SpecError(
            f"{model.name}: compiled, its outputs are {units.percent(worst)} % off eager ones",
            'engine.backend = "torch" serves it as it is',
        )
    off = "as eager ones" if worst < 1e-6 else f"off eager ones by up to {units.percent(worst)} %"
    what = "one row and for any number" if len(rows) > 1 else "one request"
    note = Note("compiled", f"torch.compile took {took} for {what}; outputs are {off}")
    model.notes = (*model.notes, note)
