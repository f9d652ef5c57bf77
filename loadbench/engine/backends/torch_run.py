"""Runs any torch program: eager modules, TorchScript, exported programs, compiled ones.

The loaders hand over a `Program`; `serve` finds out its signature, chooses its precision and makes
it a Model. Kinds of files are the loaders' business.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from loadbench.engine import datatypes, device, signature
from loadbench.engine.backends import Arrays
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.spec import EngineSpec, parse_tensor

Call = Callable[[dict[str, torch.Tensor]], Any]


class Program(NamedTuple):
    """What a loader found: something to call, and what the file says of it."""

    name: str
    platform: str
    module: torch.nn.Module
    call: Call
    inputs: tuple[Tensor, ...]  # whole shapes, −1 in front for a batch axis
    outputs: tuple[Tensor, ...] = ()  # whole shapes; empty: found by running
    sizes: Mapping[str, tuple[int, ...]] = {}  # usual dimensions for inputs that leave some open
    metadata: dict[str, Any] = {}
    notes: tuple[Note, ...] = ()
    max_batch: int | None = None
    heavy: tuple[torch.nn.Parameter, ...] = ()  # weights of products and convolutions, for autocast


class TorchModel:
    """A Model (see backends). `run` may be called from several threads."""

    def __init__(self, program: Program, where: str) -> None:
        self.name = program.name
        self.version = version(program.metadata)
        self.platform = program.platform
        self.metadata = program.metadata
        self.notes = program.notes
        self.max_batch = program.max_batch
        self.device = where
        self.precision = "fp32"
        self.batched = False
        self.inputs = program.inputs
        self.outputs = program.outputs
        self._program = program
        self._where = torch.device(where)

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        found = self.raw(arrays)
        return {
            tensor.name: datatypes.from_torch(found[tensor.name], tensor.datatype)
            for tensor in self.outputs
        }

    def raw(self, arrays: Arrays) -> dict[str, torch.Tensor]:
        """Outputs as the program gives them, on its device."""
        given = {tensor.name: tensor.datatype for tensor in self.inputs}
        full = False
        with torch.inference_mode(), self._autocast():
            try:
                tensors = {
                    name: datatypes.to_torch(arrays[name], datatype).to(self._where)
                    for name, datatype in given.items()
                }
                return named(self._program.call(tensors), self._names())
            except (RuntimeError, IndexError, ValueError) as error:
                full = _is_full(error)
                if not full:
                    raise _refusal(error) from error
        # Left the except block: the traceback held the tensors that the room is needed for.
        raise MemoryError(f"{self.device} has no room for this batch")

    def memory(self) -> dict[str, int]:
        if self._where.type == "cuda":
            return {"GPU": int(torch.cuda.memory_reserved(self._where))}
        module = self._program.module
        weights = [*module.parameters(), *module.buffers()]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in weights}
        return {"CPU": sum(storages.values())}

    def _names(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self._program.outputs)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision in ("bf16", "fp16"):
            return torch.autocast(self._where.type, DTYPES[self.precision])
        return nullcontext()


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def declared(settings: EngineSpec, what: str) -> tuple[Tensor, ...]:
    """The inputs given by hand; SpecError that says what to add if there are none."""
    if not settings.inputs:
        raise SpecError(
            f"{what} does not say what its inputs are",
            "add --input NAME:DTYPE:DIMS for each, in order, e.g. --input x:FP32:-1,3,224,224"
            " (-1 in front is the batch)",
        )
    found = tuple(parse_tensor(text) for text in settings.inputs)
    for tensor in found:
        if tensor.datatype not in datatypes.TORCH:
            raise SpecError(f"input {tensor.name!r}: torch has no {tensor.datatype}")
    return found


def serve(program: Program, settings: EngineSpec, where: str) -> TorchModel:
    """Finds the signature by running, then the precision, and returns the Model."""
    model = TorchModel(program, where)

    def run(arrays: dict[str, NDArray[Any]]) -> dict[str, tuple[str, NDArray[Any]]]:
        return {name: _typed(name, tensor) for name, tensor in model.raw(arrays).items()}

    found = signature.probe(run, program.inputs, program.sizes)
    model.inputs, model.outputs, model.batched = found.inputs, found.outputs, found.batched
    model.notes = (*program.notes, *found.notes)
    return model


def _typed(name: str, tensor: torch.Tensor) -> tuple[str, NDArray[Any]]:
    datatype = datatypes.of_torch(tensor.dtype)
    if datatype is None:
        raise SpecError(
            f"output {name!r} is {tensor.dtype}, which the protocol cannot carry",
            "let the model turn it into a plain float or integer tensor",
        )
    return datatype, datatypes.from_torch(tensor, datatype)


def named(result: Any, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Tensors of whatever a program returns: by key, by position as output0…, or by `names`."""
    found: dict[str, torch.Tensor] = {}
    _collect(result, "", found)
    if names and len(names) == len(found):
        return dict(zip(names, found.values(), strict=True))
    return found


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


def version(metadata: Mapping[str, Any]) -> str:
    """The file's own version where it is a whole number, else 1: clients parse it as one."""
    told = str(metadata.get("version", ""))
    return told if told.isdecimal() else "1"


def _is_full(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _refusal(error: Exception) -> Exception:
    """The program ran when it was loaded, so what it stumbles over is this input.

    A fault of the device is not the input's: it stays what it is.
    """
    if isinstance(error, torch.AcceleratorError):
        return error
    line = str(error).strip().splitlines() or [type(error).__name__]
    return SpecError(f"the model refuses this input: {line[-1].strip()}")


def finite(arrays: Mapping[str, NDArray[Any]], outputs: tuple[Tensor, ...]) -> dict[str, int]:
    """How many values are NaN or infinite, by output; only outputs that have any."""
    bad = {
        tensor.name: int(
            np.count_nonzero(~np.isfinite(datatypes.wide(arrays[tensor.name], tensor.datatype)))
        )
        for tensor in outputs
        if tensor.datatype in datatypes.FLOATS
    }
    return {name: number for name, number in bad.items() if number}


def place(module: torch.nn.Module, settings: EngineSpec, where: str) -> torch.nn.Module:
    """The module on its device, for inference only."""
    _use_threads(device.threads(settings.threads, settings.instances))
    module.eval()
    module.requires_grad_(False)
    return module.to(where)


def _use_threads(number: int) -> None:
    if torch.get_num_threads() != number:  # costs a new pool even if nothing changes
        torch.set_num_threads(number)
