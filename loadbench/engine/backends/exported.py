"""Programs saved by torch.export. They say all there is to know about their inputs.

Loading one may run code of the archive, so the caller has asked the user for trust.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils import _pytree as pytree

from loadbench.engine import datatypes, files
from loadbench.engine.backends import quantized
from loadbench.engine.backends.prepare import finish
from loadbench.engine.backends.torch_run import Program, TorchModel
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.spec import EngineSpec

_PRODUCTS = ("linear", "addmm", "conv1d", "conv2d", "conv3d", "convolution")
_TRAINING = {  # where an operation takes whether it is in training
    "aten.dropout.default": 2,
    "aten.feature_dropout.default": 2,
    "aten.alpha_dropout.default": 2,
    "aten.batch_norm.default": 5,
}
_LONGEST = 1 << 28  # bytes of a program's text
_MOST = 1 << 20  # bounds of symbols at or beyond this are no bounds


def open_exported(path: Path, settings: EngineSpec, where: str) -> TorchModel:
    """Loads the archive onto the device."""
    _require_operators(path)
    try:
        with quantized.quiet():
            program = torch.export.load(path)
    except ModuleNotFoundError as error:
        raise quantized.missing(error.name or "a module", str(path)) from error
    except (RuntimeError, ValueError, OSError, KeyError, EOFError, pickle.UnpicklingError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise files.broken(path, f"torch cannot load it ({lines[0]})") from error
    return from_program(program, files.name_of(path), settings, where, {"file": path.name})


def _require_operators(path: Path) -> None:
    """Operators that torch registers only when they are imported, looked for by their names."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not entry.filename.endswith(".json") or entry.file_size > _LONGEST:
                continue
            text = archive.read(entry)
            if b"quantized_decomposed." in text:
                quantized.require("torch.ao.quantization.fx._decomposed", str(path))
            if b"torchao" in text:
                quantized.require("torchao", str(path))


def from_program(
    exported: ExportedProgram,
    name: str,
    settings: EngineSpec,
    where: str,
    metadata: dict[str, Any],
) -> TorchModel:
    """An ExportedProgram as a Model."""
    if settings.inputs:
        raise SpecError(f"{name} says itself what its inputs are", "leave out --input")
    if where != "cpu":
        from torch.export.passes import move_to_device_pass

        exported = move_to_device_pass(exported, where)
    arguments = _arguments(exported)
    inputs, sizes = _inputs(arguments)
    module = exported.module()
    module.requires_grad_(False)
    notes = _evaluating(module)
    order = exported.call_spec.in_spec

    def call(tensors: dict[str, torch.Tensor]) -> Any:
        flat = [tensors.get(name, value) for name, value in arguments]
        args, kwargs = pytree.tree_unflatten(flat, order)
        return module(*args, **kwargs)

    program = Program(
        name,
        "pytorch_export",
        module,
        call,
        inputs,
        sizes=metadata.get("sizes", sizes),
        metadata={"format": "torch.export", **metadata},
        notes=notes,
        max_batch=_most_rows(exported, arguments),
        heavy=_heavy(module),
    )
    return finish(program, settings, where)


def _arguments(exported: ExportedProgram) -> list[tuple[str, Any]]:
    """What the program is called with, in order: an example tensor for each input. Anything else
    (None, a number, a text) became part of the program when it was exported, and is given back."""
    examples = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    found: list[tuple[str, Any]] = []
    for given in exported.graph_signature.input_specs:
        if given.kind is not InputKind.USER_INPUT:
            continue
        name, value = given.arg.name, examples.get(given.arg.name)
        if isinstance(given.arg, ConstantArgument):
            value = given.arg.value
        elif not isinstance(value, torch.Tensor):
            raise SpecError(
                f"the program's input {name!r} is a number that may vary, not a tensor",
                "export it with tensor inputs only",
            )
        found.append((name, value))
    return found


def _evaluating(module: torch.fx.GraphModule) -> tuple[Note, ...]:
    """Export writes the mode that the model was in into the program: takes training out again."""
    changed = 0
    for node in module.graph.nodes:
        place = _TRAINING.get(str(node.target))
        if place is not None and len(node.args) > place and node.args[place] is True:
            node.update_arg(place, False)
            changed += 1
    if not changed:
        return ()
    module.recompile()
    text = f"it was exported in training mode: {changed} operations are switched to inference"
    return (Note("training", text, "call model.eval() before torch.export.export"),)


def _inputs(
    arguments: list[tuple[str, Any]],
) -> tuple[tuple[Tensor, ...], dict[str, tuple[int, ...]]]:
    """The inputs with whole shapes, and the sizes of the example that it was exported with."""
    found, sizes = [], {}
    for name, value in arguments:
        if not isinstance(value, torch.Tensor):
            continue
        datatype = datatypes.of_torch(value.dtype)
        if datatype is None:
            raise SpecError(f"input {name!r} is {value.dtype}, which the protocol cannot carry")
        shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
        found.append(Tensor(name, datatype, shape))
        if -1 in shape[1:]:
            hints = [size if isinstance(size, int) else size.node.hint for size in value.shape]
            if all(isinstance(hint, int) for hint in hints):
                sizes[name] = tuple(hints[1:])
    return tuple(found), sizes


def _most_rows(exported: ExportedProgram, arguments: list[tuple[str, Any]]) -> int | None:
    """The upper bound of the first axis, where export was given one."""
    bounds: list[int] = []
    for _, value in arguments:
        if not isinstance(value, torch.Tensor):
            continue
        if value.dim() and not isinstance(value.shape[0], int):
            known = exported.range_constraints.get(value.shape[0].node.expr)
            upper = known.upper if known is not None else None
            if upper is not None and upper.is_number and upper.is_finite and upper < _MOST:
                bounds.append(int(upper))
    return min(bounds) if bounds else None


def _heavy(module: torch.fx.GraphModule) -> tuple[torch.nn.Parameter, ...]:
    """Weights and biases that only products and convolutions use."""
    known = dict(module.named_parameters())
    return tuple(
        known[str(node.target)]
        for node in module.graph.nodes
        if node.op == "get_attr" and str(node.target) in known and _only_products(node)
    )


def _only_products(node: torch.fx.Node) -> bool:
    """Whether nothing but `aten.linear.default` and its like uses the node."""
    return all(
        str(user.target).removeprefix("aten.").partition(".")[0] in _PRODUCTS for user in node.users
    )
