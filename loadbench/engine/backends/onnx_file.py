"""Reads an ONNX file before ONNX Runtime does, and refuses what could reach beyond it.

External data may only lie beside the model, in plain files; operators may only come from ONNX
Runtime itself. Nothing is executed here.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from loadbench.engine import files
from loadbench.errors import SpecError
from loadbench.spec import parse_tensor

Sizes = Mapping[str, tuple[int, ...]]
Shapes = dict[str, tuple[int, ...]]

_DOMAINS = {  # whose operators ONNX Runtime brings itself
    "", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview", "ai.onnx.preview.training",
    "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc", "com.microsoft.experimental",
}  # fmt: skip
_PRECISIONS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.UINT8: "int8",
}
_DYNAMIC = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"}
DYNAMIC = "dynamic quantisation measures a batch as a whole"
_WIDTHS: dict[int, int] = {
    onnx.TensorProto.FLOAT16: 2,
    onnx.TensorProto.BFLOAT16: 2,
    onnx.TensorProto.INT8: 1,
    onnx.TensorProto.UINT8: 1,
    onnx.TensorProto.BOOL: 1,
    onnx.TensorProto.INT64: 8,
    onnx.TensorProto.DOUBLE: 8,
}


def read(path: Path, custom: bool = False) -> onnx.ModelProto:
    """The model without its external data, once that is known to be safe to load. `custom`: the
    user has given libraries that bring operators of other domains."""
    try:
        model = onnx.ModelProto()
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise files.broken(path, "it is no ONNX model") from error
    if model.ir_version <= 0 or not model.graph.node:
        raise files.broken(path, "there is no ONNX graph in it")
    _require_known_operators(model, path, custom)
    total = 0
    for tensor in tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            total += _require_beside(tensor, path)
    files.require_size(total, f"the external data of {path}")
    return model


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every constant of the model: of its graph, of graphs inside nodes, of its functions."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def precision(model: onnx.ModelProto) -> str:
    """What most of the weights are stored in; fp32 where there are none."""
    count = dict.fromkeys(_PRECISIONS.values(), 0)
    for tensor in tensors(model):
        name = _PRECISIONS.get(tensor.data_type)
        if name is not None:
            count[name] += _elements(tensor)
    return max(count, key=lambda name: count[name])


def shapeless(model: onnx.ModelProto) -> frozenset[str]:
    """Inputs of which not even the number of dimensions is said."""
    return frozenset(
        value.name for value in model.graph.input if not value.type.tensor_type.HasField("shape")
    )


def data_files(model: onnx.ModelProto, path: Path) -> list[Path]:
    """The files of its external data, which `read` has looked at."""
    places = {
        entry.value
        for tensor in tensors(model)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [path.resolve().parent / place for place in sorted(places)]


def profile(
    model: onnx.ModelProto, rows: int, sizes: Sizes, given: Sequence[str]
) -> tuple[Shapes, Shapes, Shapes] | None:
    """The least, usual and largest shapes of inputs with open axes; None where all are closed.

    The first open axis in front is the batch, of up to `rows`; another one is as in `sizes`, else
    16, and may be a quarter to twice that. `given` are inputs as the user declared them.
    """
    declared = {tensor.name: tensor.shape for tensor in map(parse_tensor, given)}
    constants = {tensor.name for tensor in model.graph.initializer}
    least, usual, most = {}, {}, {}
    for value in model.graph.input:
        if value.name in constants:
            continue
        dims = tuple(dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim)
        shape = declared.get(value.name, dims)
        known = (rows, *sizes.get(value.name, ())) if len(shape) else ()
        if len(known) != len(shape):
            known = (rows, *(16 for _ in shape[1:])) if len(shape) else ()
        pairs = list(zip(shape, known, range(len(shape)), strict=True))
        least[value.name] = tuple(
            d if d != -1 else max(1, k // 4) if axis else 1 for d, k, axis in pairs
        )
        usual[value.name] = tuple(d if d != -1 else k for d, k, _ in pairs)
        most[value.name] = tuple(d if d != -1 else 2 * k if axis else k for d, k, axis in pairs)
    return (least, usual, most) if least != most else None


def rounds(model: onnx.ModelProto) -> str:
    """Why a row's answer may depend a little on the rows beside it; empty if nothing says so."""
    kinds = {node.op_type for node in _nodes(model.graph.node)}
    return DYNAMIC if kinds & _DYNAMIC else ""


def weight_bytes(model: onnx.ModelProto) -> int:
    """The size of all constants in memory."""
    return sum(_elements(t) * _WIDTHS.get(t.data_type, 4) for t in tensors(model))


def metadata(model: onnx.ModelProto) -> dict[str, Any]:
    """What the file says of itself."""
    said = {prop.key: prop.value for prop in model.metadata_props}
    if model.model_version > 0:
        said.setdefault("version", str(model.model_version))
    found = files.told(said)
    producer = f"{model.producer_name} {model.producer_version}".strip()
    opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    found["format"] = f"ONNX opset {opsets[0]}" if opsets else "ONNX"
    if producer:
        found["producer"] = producer
    return found


def _elements(tensor: onnx.TensorProto) -> int:
    number = 1
    for dim in tensor.dims:
        number *= dim
    return number


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Any) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for graph in (attribute.g, *attribute.graphs):
                yield from _of_graph(graph)


def _nodes(nodes: Any) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _require_known_operators(model: onnx.ModelProto, path: Path, custom: bool) -> None:
    own = {function.domain for function in model.functions}
    every = list(_nodes(model.graph.node))
    for function in model.functions:
        every += _nodes(function.node)
    for node in every:
        if node.op_type == "EPContext":
            raise SpecError(
                f"{path} holds code compiled for one device (EPContext)",
                "serve the model that it was compiled from",
            )
        if not custom and node.domain not in _DOMAINS | own:
            raise SpecError(
                f"{path} needs operator {node.domain}.{node.op_type} from a custom library",
                "export the model with standard operators, or name the library, if you trust it: "
                "--set engine.libraries=libops.so --trust",
            )


def _require_beside(tensor: onnx.TensorProto, path: Path) -> int:
    """The size of a tensor's external data; SpecError unless it lies in the model's folder."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    folder = path.resolve().parent
    inside = Path(location)
    what = f"{path}: tensor {tensor.name!r}"
    if not location or inside.is_absolute() or ".." in inside.parts or "\\" in location:
        raise SpecError(
            f"{what} points to {location!r}, outside the model's folder",
            "external data must lie beside the model",
        )
    found = folder
    for part in inside.parts:
        found = found / part
        if found.is_symlink():
            raise SpecError(f"{what} points to a link, {location!r}", "copy the file itself there")
    if not found.is_file():
        raise SpecError(
            f"{what} lies in {location!r}, which is not there",
            "copy the model together with its data files",
        )
    try:
        offset, length = int(said.get("offset", 0)), int(said.get("length", -1))
    except ValueError as error:
        raise files.broken(path, f"the place of tensor {tensor.name!r} is no number") from error
    size = found.stat().st_size
    if offset < 0 or offset > size or length > size - offset:
        raise files.broken(found, f"tensor {tensor.name!r} lies beyond its end")
    return length if length >= 0 else size - offset
