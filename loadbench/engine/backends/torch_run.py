"""Runs any torch program: eager modules, TorchScript, exported programs, compiled ones.

How a program is found in a file is its loader's business, how its signature and precision are
settled that of `prepare` and `precision`.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

import torch
from numpy.typing import NDArray

from loadbench.engine import datatypes
from loadbench.engine.backends import Arrays, Launcher
from loadbench.engine.device.broken import fault_of, lacks_memory
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Program(NamedTuple):
    """What a loader found: something to call, and what the file says of it."""

    name: str
    platform: str
    module: torch.nn.Module
    call: Callable[[dict[str, torch.Tensor]], Any]
    inputs: tuple[Tensor, ...]  # whole shapes, −1 in front for a batch axis
    outputs: tuple[str, ...] = ()  # their names; empty: as the program names or numbers them
    sizes: Mapping[str, tuple[int, ...]] = {}  # usual dimensions, without the batch
    metadata: Mapping[str, Any] = {}
    notes: tuple[Note, ...] = ()
    max_batch: int | None = None
    heavy: tuple[torch.nn.Parameter, ...] = ()  # weights that autocast would cast in every batch


class Runner(Launcher, Protocol):
    """A launcher that also runs batches to their end."""

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]: ...


class TorchModel:
    """A Model (see backends). `run` may be called from several threads."""

    def __init__(self, program: Program, where: str) -> None:
        self.name = program.name
        self.version = version(program.metadata)
        self.platform = program.platform
        self.metadata = dict(program.metadata)
        self.notes = program.notes
        self.max_batch = program.max_batch
        self.device = where
        self.precision = "fp32"
        self.stored = "fp32"  # the weights' own; autocast is on while `precision` is another
        self.packed = (
            0  # bytes of weights that are packed: all when torch quantised them, or a copy
        )
        self.packs: tuple[torch.nn.Module, ...] = ()  # layers that use such a copy (see `packed`)
        self.batched = False
        self.inputs = program.inputs
        self.outputs: tuple[Tensor, ...] = ()
        self.program = program
        self.launcher: Runner | None = None
        self._where = torch.device(where)

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        return self.launcher.run(arrays) if self.launcher is not None else self.plain(arrays)

    def plain(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """As `run`, on whatever stream is the thread's."""
        found = self.raw(arrays)
        return {
            tensor.name: datatypes.from_torch(found[tensor.name], tensor.datatype)
            for tensor in self.outputs
        }

    def raw(self, arrays: Arrays) -> dict[str, torch.Tensor]:
        """Outputs as the program gives them, on its device."""

        def placed() -> dict[str, torch.Tensor]:
            return {
                tensor.name: datatypes.to_torch(arrays[tensor.name], tensor.datatype).to(
                    self._where
                )
                for tensor in self.inputs
            }

        return self._called(placed)

    def computed(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Outputs in their datatypes, of inputs that are on the device."""
        found = self._called(lambda: tensors)
        with torch.inference_mode():
            return {
                tensor.name: found[tensor.name].to(dtype_of(tensor)).contiguous()
                for tensor in self.outputs
            }

    def _called(self, inputs: Callable[[], dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        with torch.inference_mode(), self._autocast():
            try:
                return named(self.program.call(inputs()), self.program.outputs)
            except (RuntimeError, IndexError, ValueError, AssertionError) as error:
                if not is_full(error):
                    refusal = _refusal(error)
                    if refusal is None:
                        raise
                    raise refusal from error
        # Left the except block: the traceback held the tensors that the room is needed for.
        raise MemoryError(f"{self.device} has no room for this batch")

    def memory(self) -> dict[str, int]:
        """The weights alone: what batches take is the allocator's, who tells it of all models."""
        own = (w for w in self.weights() if type(w) in (torch.Tensor, torch.nn.Parameter))
        storages = [weight.untyped_storage() for weight in own]
        held = sum({s.data_ptr(): s.nbytes() for s in storages}.values())
        return {"GPU" if self._where.type == "cuda" else "CPU": held + self.packed}

    def weights(self) -> list[torch.Tensor]:
        """All that the program holds: parameters and buffers."""
        return [*self.program.module.parameters(), *self.program.module.buffers()]

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == self.stored:
            return nullcontext()
        # Weights are cast already, and a graph must not be recorded with what a cache holds
        return torch.autocast(self._where.type, DTYPES[self.precision], cache_enabled=False)


def dtype_of(tensor: Tensor) -> torch.dtype:
    """Torch's type of a tensor of the protocol."""
    found: torch.dtype = getattr(torch, datatypes.TORCH[tensor.datatype])
    return found


def named(result: Any, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Tensors of whatever a program returns: called `names`, else by their keys, else output0…"""
    found: dict[str, torch.Tensor] = {}
    _collect(result, "", found)
    if not names:
        return found
    if len(names) != len(found):
        raise SpecError(
            f"the model has {len(found)} outputs ({', '.join(found)}), not {len(names)}",
            "name each with --output NAME:DTYPE:DIMS, or none",
        )
    return dict(zip(names, found.values(), strict=True))


def _collect(result: Any, path: str, found: dict[str, torch.Tensor]) -> None:
    if isinstance(result, torch.Tensor):
        found[path or "output0"] = result
    elif isinstance(result, Mapping):
        for key, part in result.items():
            _collect(part, f"{path}_{key}" if path else str(key), found)
    elif isinstance(result, list | tuple):
        for index, part in enumerate(result):
            _collect(part, f"{path}_{index}" if path else f"output{index}", found)
    elif isinstance(result, bool | int | float):
        found[path or "output0"] = torch.tensor(result)
    elif result is not None:
        raise SpecError(
            f"the model returns a {type(result).__name__}, not tensors",
            "let forward return a tensor, or a tuple, list or dict of tensors",
        )


def unshared(
    module: torch.nn.Module, wanted: Callable[[torch.nn.Module], bool]
) -> tuple[torch.nn.Parameter, ...]:
    """Parameters of the wanted parts, but for those that another part uses too."""
    held = [(wanted(part), p) for part in module.modules() for p in part.parameters(recurse=False)]
    uses: dict[int, int] = {}
    for _, parameter in held:
        uses[parameter.data_ptr()] = uses.get(parameter.data_ptr(), 0) + 1
    return tuple(p for right, p in held if right and uses[p.data_ptr()] == 1)


def version(metadata: Mapping[str, Any]) -> str:
    """The file's own version where it is a whole number, else 1: clients parse it as one."""
    told = str(metadata.get("version", ""))
    return told if told.isascii() and told.isdecimal() and len(told) < 19 else "1"


def is_full(error: Exception) -> bool:
    """Whether memory is what is lacking."""
    return isinstance(error, torch.OutOfMemoryError) or lacks_memory(str(error))


def _refusal(error: Exception) -> SpecError | None:
    """The program ran when it was loaded, so what it stumbles over is this input.

    None: a fault of the device or of the compiler is not the input's, and stays what it is.
    """
    if fault_of(error) or "_dynamo" in type(error).__module__:
        return None
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return SpecError(f"the model refuses this input: {lines[-1].strip()}")
