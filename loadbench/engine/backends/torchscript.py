"""TorchScript archives. Loading one runs its code, so the caller has asked the user for trust.

The archive says how many inputs there are and what they are called, not their types or shapes.
"""

import warnings
from pathlib import Path
from typing import Any

import torch

from loadbench.engine import files
from loadbench.engine.backends.prepare import declared, finish
from loadbench.engine.backends.torch_run import Program, TorchModel, unshared
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.spec import EngineSpec

_TRAINING = {"aten::dropout": 2, "aten::batch_norm": 5}  # where they take whether it is training
_PRODUCTS = ("Linear", "Conv1d", "Conv2d", "Conv3d")


def open_torchscript(path: Path, settings: EngineSpec, where: str) -> TorchModel:
    """Loads the archive onto the device."""
    try:
        with warnings.catch_warnings():
            # TorchScript is deprecated, and this stays the one way to serve the files people have.
            warnings.filterwarnings("ignore", ".*torch.jit.*deprecated", DeprecationWarning)
            module = torch.jit.load(str(path), map_location=where)  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        lines = str(error).strip().splitlines() or [""]
        raise files.broken(path, f"torch cannot load it ({lines[0]})") from error
    return from_script(module, files.name_of(path), settings, where, {"file": path.name})


def from_script(
    module: Any, name: str, settings: EngineSpec, where: str, metadata: dict[str, Any]
) -> TorchModel:
    """A ScriptModule as a Model."""
    module.eval()
    notes = _evaluating(module)
    for parameter in module.parameters():  # script modules have no requires_grad_ of their own
        parameter.requires_grad_(False)
    names = [argument.name for argument in module.forward.schema.arguments[1:]]
    inputs = _inputs(settings, names, name)
    given = [tensor.name for tensor in inputs]

    def call(tensors: dict[str, torch.Tensor]) -> Any:
        if set(given) <= set(names):
            return module(**tensors)
        return module(*(tensors[name] for name in given))

    program = Program(
        name,
        "pytorch_torchscript",
        module,
        call,
        inputs,
        sizes=metadata.get("sizes", {}),
        metadata={"format": "torchscript", **metadata},
        notes=notes,
        heavy=unshared(module, lambda part: getattr(part, "original_name", "") in _PRODUCTS),
    )
    return finish(program, settings, where)


def _evaluating(module: Any) -> tuple[Note, ...]:
    """Tracing writes the mode that the model was in into the code, beyond the reach of `eval`:
    takes training out of it."""
    changed = 0
    graphs = [getattr(getattr(part, "forward", None), "graph", None) for part in module.modules()]
    for graph in filter(None, graphs):
        for kind, place in _TRAINING.items():
            for node in graph.findAllNodes(kind):
                if list(node.inputs())[place].toIValue() is True:
                    with graph.insert_point_guard(node):
                        node.replaceInput(place, graph.insertConstant(False))
                    changed += 1
    if not changed:
        return ()
    text = f"it was traced in training mode: {changed} operations are switched to inference"
    return (Note("training", text, "call model.eval() before torch.jit.trace"),)


def _inputs(settings: EngineSpec, names: list[str], what: str) -> tuple[Tensor, ...]:
    listed = ", ".join(names) or "none"
    if not settings.inputs and names:
        each = " ".join(f"--input {name}:DTYPE:DIMS" for name in names)
        raise SpecError(
            f"{what}: a TorchScript archive does not say the types and shapes of its inputs"
            f" ({listed})",
            f"add {each}, e.g. --input {names[0]}:FP32:-1,3,224,224 (-1 in front is the batch)",
        )
    inputs = declared(settings, what)
    if len(inputs) > len(names):
        raise SpecError(f"{what} takes {len(names)} inputs ({listed}), not {len(inputs)}")
    return inputs
