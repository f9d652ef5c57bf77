"""Models that were quantised with torch before they came here: torch.ao's and torchao's.

They are served as they are. torch.ao's operators run on the CPU alone; torchao's are tensors of its
own kinds, which torch knows only once torchao is imported.
"""

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from loadbench.engine.backends.torch_run import TorchModel
from loadbench.errors import SpecError
from loadbench.model import Note
from loadbench.spec import EngineSpec

_AO = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized", "torch.nn.quantized")
_OPERATORS = ("quantized::", "quantized.", "quantized_decomposed.", "torchao.")
_WIDTHS = {"int4": "int4", "int8": "int8", "float8": "fp8", "fp8": "fp8"}  # in names of kinds
ROUNDS = "dynamic quantisation measures a batch as a whole"


def precision_of(module: torch.nn.Module) -> str:
    """What its weights are quantised to: "int8", "int4", "fp8"; empty if they are not."""
    kinds = [type(tensor).__name__.lower() for tensor in _foreign(module)]
    for kind in kinds:
        return next((word for part, word in _WIDTHS.items() if part in kind), "int8")
    return "int8" if _native(module) else ""


def settle(model: TorchModel, quantised: str, settings: EngineSpec) -> Note:
    """Says that it is served as it is; SpecError where it cannot be, or was asked for otherwise."""
    if settings.precision not in ("auto", quantised):
        raise SpecError(
            f"{model.name}: its weights are quantised to {quantised}, not {settings.precision}",
            'set engine.precision = "auto"',
        )
    if model.device != "cpu" and _native(model.program.module):
        raise SpecError(
            f"{model.name}: torch's quantised operators run on the CPU only, not on {model.device}",
            'set engine.device = "cpu"',
        )
    return Note("precision", f"{quantised}: as the weights of the file are")


def weight_bytes(module: torch.nn.Module) -> int:
    """Of weights that lie in no storage of their own: packed ones, and those of torchao."""
    total = sum(_size(part) for tensor in _foreign(module) for part in _inside(tensor))
    for part in module.modules():
        packed = getattr(part, "_packed_params", None)
        if isinstance(packed, torch.ScriptObject):
            total += sum(map(_size, _tensors(packed.__getstate__())))
    return total


def require(library: str, what: str) -> None:
    """Imports what a file's weights or operators belong to; SpecError if it is not installed."""
    try:
        with quiet():
            importlib.import_module(library)
    except ImportError as error:
        raise missing(library, what) from error


def missing(module: str, what: str) -> SpecError:
    """The error for a file that needs a module which is not here."""
    name = module.partition(".")[0]
    made = f"{what} was quantised with torchao" if name == "torchao" else f"{what} needs {name}"
    hint = "pip install 'loadbench[torchao]'" if name == "torchao" else f"pip install {name}"
    return SpecError(f"{made}, which is not installed", hint)


def is_foreign(tensor: Any) -> bool:
    """Whether it is a tensor of torchao's own kinds, which a plain weight cannot take over."""
    return type(tensor).__module__.startswith("torchao")


@contextmanager
def quiet() -> Iterator[None]:
    """Without torchao's remarks on kernels for other cards, and torch.export's tracebacks of files
    that are then refused in a sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _foreign(module: torch.nn.Module) -> list[torch.Tensor]:
    return [t for t in (*module.parameters(), *module.buffers()) if is_foreign(t)]


def _inside(tensor: Any) -> Iterator[torch.Tensor]:
    """The plain tensors that one of torchao's is made of."""
    for name in tensor.__tensor_flatten__()[0]:
        part = getattr(tensor, name)
        if is_foreign(part):
            yield from _inside(part)
        else:
            yield part


def _native(module: torch.nn.Module) -> bool:
    """Whether torch's own quantised parts or operators are in it."""
    if isinstance(module, torch.jit.ScriptModule):
        names = torch.jit.export_opnames(module)  # type: ignore[no-untyped-call]
        return any(name.startswith(_OPERATORS) for name in names)
    if isinstance(module, torch.fx.GraphModule):
        return any(str(node.target).startswith(_OPERATORS) for node in module.graph.nodes)
    return any(type(part).__module__.startswith(_AO) for part in module.modules())


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, torch.ScriptObject):
        yield from _tensors(state.__getstate__())
    elif isinstance(state, list | tuple):
        for part in state:
            yield from _tensors(part)


def _size(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
