"""What goes in and out of an ONNX file, as told by whoever runs it, in the protocol's words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loadbench.engine import datatypes
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.spec import EngineSpec, parse_tensor


class Port(Protocol):
    """An input or output; ONNX Runtime's NodeArg is one. What is open in `shape` is no number."""

    @property
    def name(self) -> str: ...
    @property
    def type(self) -> str:  # "tensor(float)"
        ...
    @property
    def shape(self) -> Sequence[Any]: ...


def inputs(
    ports: Sequence[Port], settings: EngineSpec, path: Path, shapeless: frozenset[str]
) -> tuple[Tensor, ...]:
    """As the graph says; --input may close dimensions that it leaves open, and must give those of
    `shapeless` inputs."""
    said = []
    for node in ports:
        datatype = datatypes.ONNX.get(node.type)
        if datatype is None:
            raise SpecError(
                f"{path}: input {node.name!r} is a {node.type}, which cannot be served",
                "export it with tensor inputs of plain numbers",
            )
        shape = tuple(dim if isinstance(dim, int) and dim > 0 else -1 for dim in node.shape)
        said.append(Tensor(node.name, datatype, shape))
    given = {tensor.name: tensor for tensor in map(parse_tensor, settings.inputs)}
    for name in given.keys() - {tensor.name for tensor in said}:
        known = ", ".join(tensor.name for tensor in said)
        raise SpecError(f"{path} has no input {name!r}", f"its inputs: {known}")
    found = []
    for tensor in said:
        own = given.get(tensor.name)
        if tensor.name not in shapeless:
            found.append(_narrowed(tensor, own))
        elif own is None or own.datatype != tensor.datatype:
            raise SpecError(
                f"{path} does not say how many dimensions input {tensor.name!r} has",
                f"add --input {tensor.name}:{tensor.datatype}:DIMS, e.g. -1,3,224,224",
            )
        else:
            found.append(own)
    return tuple(found)


def _narrowed(said: Tensor, given: Tensor | None) -> Tensor:
    if given is None:
        return said
    fits = len(said.shape) == len(given.shape) and all(
        a in (-1, b) for a, b in zip(said.shape, given.shape, strict=True)
    )
    if said.datatype != given.datatype or not fits:
        dims = ",".join(map(str, said.shape))
        raise SpecError(
            f"--input {given.name} does not fit: the file says {said.datatype} [{dims}]",
            "leave it out, or close only dimensions that are -1",
        )
    return given


def outputs(ports: Sequence[Port], path: Path) -> tuple[list[str], tuple[Note, ...]]:
    """Names of the outputs that are tensors; a note for each other."""
    names, notes = [], []
    for node in ports:
        if node.type in datatypes.ONNX:
            names.append(node.name)
            continue
        text = f"output {node.name!r} is a {node.type} and is left out"
        notes.append(Note("output", text, "export it as a tensor (of scikit-learn: zipmap=False)"))
    if not names:
        raise SpecError(f"{path} has no output that is a tensor", notes[0].hint if notes else "")
    return names, tuple(notes)


def texts(array: NDArray[Any], datatype: str) -> NDArray[Any]:
    """ONNX Runtime's strings are str, the protocol's are bytes."""
    if datatype != "BYTES":
        return array
    try:
        flat = [item.decode() if isinstance(item, bytes) else str(item) for item in array.flat]
    except UnicodeDecodeError as error:
        raise SpecError("the model takes UTF-8 texts, and this input is none") from error
    found = np.empty(len(flat), np.object_)
    found[:] = flat
    return found.reshape(array.shape)


def typed(array: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    if array.dtype.kind in "OUS":
        flat = [str(item).encode() for item in array.flat]
        found = np.empty(len(flat), np.object_)
        found[:] = flat
        return "BYTES", found.reshape(array.shape)
    name = next(
        name for name, dtype in datatypes.NUMPY.items() if dtype == array.dtype and name != "BF16"
    )
    return name, array
