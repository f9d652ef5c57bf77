"""ModelInferRequest and ModelInferResponse as bytes: what protobuf needs not look at, it does not.

The tensors are taken out of a request, and put into an answer, as they stand; what surrounds them
is read once and kept, since clients send the same over and over.
"""

from typing import Any, NamedTuple

import msgspec
import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from loadbench.engine.datatypes import NUMPY
from loadbench.engine.protocol import KEPT_HEADERS, KEPT_SIZE
from loadbench.engine.rpc.bridge import Heard
from loadbench.engine.rpc.messages import message
from loadbench.engine.shared import REGION
from loadbench.engine.tensors import NO_JSON, Refused, to_bytes

_NAME, _VERSION, _ID, _RAW = 0x0A, 0x12, 0x1A, 0x3A  # fields 1, 2, 3, 7: tags on the wire
_RAW_OUTPUT = b"\x32"  # field 6
_LENGTH_DELIMITED = 2
MOST_FIELDS = 4096  # of a message: inputs, outputs, parameters, tensors. An empty one has two bytes
_TYPED = {
    "BOOL": "bool_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}  # fmt: skip


class Parts(NamedTuple):
    """A ModelInferRequest taken apart. `header` is all of it but the id and the raw tensors."""

    model: bytes
    version: bytes
    id: bytes
    header: bytes
    raw: list[memoryview]


def take_apart(request: bytes) -> Parts:
    """The parts of a serialized ModelInferRequest. Raises Refused if it is none."""
    found: dict[int, bytes] = {}
    header: list[bytes] = []
    raw: list[memoryview] = []
    view = memoryview(request)
    at, end = 0, len(request)
    try:
        while at < end:
            start = at
            tag, length = request[at], request[at + 1]
            at += 2
            if length >= 0x80:
                length, at = _varint(request, at - 1)
            if tag & 7 != _LENGTH_DELIMITED or tag >= 0x80 or at + length > end:
                return _by_protobuf(request)
            at += length
            if len(raw) + len(header) >= MOST_FIELDS:
                raise _too_many()
            if tag == _RAW:
                raw.append(view[at - length : at])
                continue
            if tag != _ID:
                header.append(request[start:at])
            if tag <= _ID:
                found[tag] = request[at - length : at]
    except IndexError:
        return _by_protobuf(request)
    name, version, own = found.get(_NAME, b""), found.get(_VERSION, b""), found.get(_ID, b"")
    if own and not own.isascii():
        _require_text(own)  # protobuf never sees it, and its client could not read the answer
    return Parts(name, version, own, b"".join(header), raw)


def _require_text(own: bytes) -> None:
    try:
        own.decode()
    except UnicodeDecodeError as error:
        raise Refused(400, f"the request's id is no UTF-8: {error.reason}") from error


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError


def _by_protobuf(request: bytes) -> Parts:
    """The same for requests that are written unusually, or not at all."""
    asked = parse(request)
    members = (asked.inputs, asked.outputs, asked.parameters, asked.raw_input_contents)
    if sum(map(len, members)) > MOST_FIELDS:
        raise _too_many()
    raw = [memoryview(tensor) for tensor in asked.raw_input_contents]
    name, version, own = asked.model_name, asked.model_version, asked.id
    del asked.raw_input_contents[:]
    asked.ClearField("id")
    header = asked.SerializeToString(deterministic=True)
    return Parts(name.encode(), version.encode(), own.encode(), header, raw)


def _too_many() -> Refused:
    return Refused(400, f"a ModelInferRequest of more than {MOST_FIELDS} fields")


def parse(request: bytes) -> Any:
    """The message of the bytes. Raises Refused."""
    try:
        return message("inference.ModelInferRequest").FromString(request)
    except DecodeError as error:
        raise Refused(400, f"not a ModelInferRequest: {error}") from error


class Question(NamedTuple):
    """An infer request in the words of HTTP: the JSON before its tensors, and those."""

    header: bytes
    raw: list[memoryview]

    def body(self) -> bytes:
        """What is to be posted."""
        return b"".join((self.header, *self.raw))


class Translator:
    """Requests and answers of both protocols into each other, keeping the forms it has seen."""

    def __init__(self) -> None:
        self._questions: dict[tuple[Any, ...], bytes] = {}
        self._heads: dict[bytes, tuple[bytes, list[int]]] = {}

    def question(self, parts: Parts) -> Question:
        """What is asked for, but for the id. Raises Refused."""
        key = (parts.header, *map(len, parts.raw))
        header = self._questions.get(key)
        if header is not None:
            return Question(header, parts.raw)
        header, raw = _in_json(parse(parts.header), parts.raw)
        is_form = bool(parts.raw) or not raw  # else the header holds the tensors' numbers
        if is_form and len(parts.header) <= KEPT_SIZE:
            _keep(self._questions, key, header)
        return Question(header, raw)

    def answer(self, request_id: bytes, heard: Heard) -> bytes:
        """A serialized ModelInferResponse."""
        known = self._heads.get(heard.header)
        if known is None:
            known = _head(heard.header)
            if len(heard.header) <= KEPT_SIZE:
                _keep(self._heads, heard.header, known)
        head, sizes = known
        own = (b"\x1a", _as_varint(len(request_id)), request_id) if request_id else ()
        raw: list[bytes | memoryview] = []
        at = 0
        for size in sizes:
            # An output in shared memory keeps its place, so that the others can be counted off
            raw += (_RAW_OUTPUT, _as_varint(size), heard.tensors[at : at + size])
            at += size
        return b"".join((head, *own, *raw))


def _keep(kept: dict[Any, Any], key: Any, value: Any) -> None:
    if len(kept) >= KEPT_HEADERS:
        kept.clear()
    kept[key] = value


def _head(header: bytes) -> tuple[bytes, list[int]]:
    """The answer without id and tensors, and the tensors' bytes; 0 where one is elsewhere."""
    told = msgspec.json.decode(header)
    answer = message("inference.ModelInferResponse")(
        model_name=told["model_name"], model_version=told["model_version"]
    )
    sizes: list[int] = []
    for output in told["outputs"]:
        answer.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
        sizes.append(output.get("parameters", {}).get("binary_data_size", 0))
    packed: bytes = answer.SerializeToString()
    return packed, sizes


def _as_varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _in_json(asked: Any, raw: list[memoryview]) -> tuple[bytes, list[memoryview]]:
    """The JSON header that asks for the same over HTTP, and the tensors that follow it."""
    inputs: list[dict[str, Any]] = []
    written: list[memoryview] = []
    following = iter(raw)
    for tensor in asked.inputs:
        parameters = _parameters(tensor.parameters)
        if REGION not in parameters:
            if raw and tensor.HasField("contents"):
                raise Refused(400, f"input {tensor.name!r} has contents beside raw_input_contents")
            data = next(following, None) if raw else memoryview(_typed(tensor))
            if data is None:
                raise Refused(400, f"input {tensor.name!r} has no entry in raw_input_contents")
            written.append(data)
            parameters["binary_data_size"] = len(data)
        inputs.append({
            "name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype,
            "parameters": parameters,
        })  # fmt: skip
    if len(written) < len(raw):
        raise Refused(400, f"{len(raw)} raw_input_contents for {len(written)} inputs")
    header: dict[str, Any] = {
        "inputs": inputs,
        "parameters": _parameters(asked.parameters) | {"binary_data_output": True},
    }
    if asked.outputs:
        header["outputs"] = [
            {"name": output.name, "parameters": _parameters(output.parameters)}
            for output in asked.outputs
        ]
    return msgspec.json.encode(header), raw if raw else written


def _parameters(given: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in given.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is not None:
            found[name] = getattr(value, kind)
    return found


def _typed(tensor: Any) -> bytes:
    """The raw form of a tensor that is given as numbers. Raises Refused."""
    datatype = tensor.datatype
    if datatype in NO_JSON:
        raise Refused(400, f"input {tensor.name!r}: {datatype} can only be in raw_input_contents")
    field = _TYPED.get(datatype)
    if field is None:
        raise Refused(400, f"input {tensor.name!r}: there is no type {datatype!r}")
    values = getattr(tensor.contents, field)
    if datatype == "BYTES":
        elements = np.empty(len(values), object)
        elements[:] = list(values)
        return to_bytes(elements, datatype)
    kind = NUMPY[datatype]
    array = np.array(values)
    if kind.kind in "iu" and len(array):
        bounds = np.iinfo(kind)
        if int(array.min()) < bounds.min or int(array.max()) > bounds.max:
            raise Refused(400, f"input {tensor.name!r}: a value does not fit into {datatype}")
    return array.astype(kind).tobytes()
