"""KServe v2 over HTTP (Open Inference Protocol with Triton's binary tensors): tensors → request,
and whether an answer is what was asked for.

What the tensors hold is decided in `inputs`; connections and HTTP framing are the load's.
"""

import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadbench.errors import SpecError
from loadbench.model import Tensor
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets.datatypes import DTYPES, floats, width
from loadbench.targets.region import Place, Region
from loadbench.targets.wire import BadAnswer, Form, Headers, http_request

HEADER_LENGTH = "Inference-Header-Content-Length"
_NUMBERS = rb"\[[-+0-9.eE,\s]*\]"  # a JSON array of numbers, as far as its characters go
_DIGITS = 12  # of a length that is said
_MOST = 1 << 40  # elements of an output: nobody has so many
_SHOWN = 40  # characters of a value


class Given(NamedTuple):
    """One input of a request, batch axis included."""

    datatype: str
    array: NDArray[Any]


def request(
    endpoint: Endpoint, tensors: Mapping[str, Given], asked: RequestPlan, region: Region | None
) -> bytes:
    """The infer request for these tensors: in shared memory if there is a region, else binary where
    the server takes that."""
    own: dict[str, str] = {"Content-Type": "application/json"}
    if region is not None:
        body = _shared(endpoint, tensors, asked, region)
    elif endpoint.binary:
        head, tail = _binary(tensors, asked)
        own = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
        body = head + tail
    else:
        body = _json(tensors, asked)
    return http_request(endpoint, "POST", infer_path(endpoint), {**own, **asked.headers}, body)


def infer_path(endpoint: Endpoint) -> str:
    version = f"/versions/{quote(endpoint.version, safe='')}" if endpoint.version else ""
    return f"/v2/models/{quote(endpoint.model, safe='')}{version}/infer"


def _shared(
    endpoint: Endpoint, tensors: Mapping[str, Given], said: RequestPlan, region: Region
) -> bytes:
    """Outputs whose size is not known before come in binary."""
    inputs = []
    for name, (datatype, array) in tensors.items():
        place = region.keep(raw_bytes(datatype, array))
        inputs.append(_input(name, datatype, array) | {"parameters": place.parameters})
    outputs = [
        {"name": name, "parameters": place.parameters if place else {"binary_data": True}}
        for name, place in places(endpoint, tensors, region).items()
    ]
    asked: dict[str, Any] = {"inputs": inputs}
    if outputs:
        asked["outputs"] = outputs
    if said.parameters:
        asked["parameters"] = said.parameters
    return msgspec.json.encode(asked)


def places(
    endpoint: Endpoint, tensors: Mapping[str, Given], region: Region
) -> dict[str, Place | None]:
    """Where each output of a request with these tensors goes; None where its size is not known."""
    rows = len(next(iter(tensors.values())).array) if tensors and endpoint.batched else 1
    found: dict[str, Place | None] = {}
    for tensor in endpoint.outputs:
        size = rows * math.prod(tensor.shape) * (width(tensor.datatype) or 0)
        found[tensor.name] = region.output(tensor.name, size) if _of_known_size(tensor) else None
    return found


def shared_outputs(endpoint: Endpoint) -> set[str]:
    """The names of those that go into memory."""
    known = endpoint.outputs if endpoint.shared else ()
    return {tensor.name for tensor in known if _of_known_size(tensor)}


def _of_known_size(tensor: Tensor) -> bool:
    return width(tensor.datatype) is not None and min(tensor.shape, default=0) >= 0


def _binary(tensors: Mapping[str, Given], said: RequestPlan) -> tuple[bytes, bytes]:
    inputs, parts = [], []
    for name, (datatype, array) in tensors.items():
        raw = raw_bytes(datatype, array)
        parameters = {"binary_data_size": len(raw)}
        inputs.append(_input(name, datatype, array) | {"parameters": parameters})
        parts.append(raw)
    asked = {"inputs": inputs, "parameters": {**said.parameters, "binary_data_output": True}}
    return msgspec.json.encode(asked), b"".join(parts)


def raw_bytes(datatype: str, array: NDArray[Any]) -> bytes:
    """A tensor's elements as they are sent in binary."""
    if datatype != "BYTES":
        return np.ascontiguousarray(array, DTYPES[datatype]).tobytes()
    return b"".join(struct.pack("<I", len(item)) + item for item in array.ravel())


def _json(tensors: Mapping[str, Given], said: RequestPlan) -> bytes:
    inputs = []
    for name, (datatype, array) in tensors.items():
        if datatype == "BYTES":
            data = [_text(name, item) for item in array.ravel()]
        else:
            data = _numbers(name, floats(array) if datatype == "BF16" else array)
        inputs.append(_input(name, datatype, array) | {"data": data})
    asked: dict[str, Any] = {"inputs": inputs}
    if said.parameters:
        asked["parameters"] = said.parameters
    return msgspec.json.encode(asked)


def _numbers(name: str, array: NDArray[Any]) -> list[Any]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SpecError(
            f"input {name!r} holds NaN or infinity, which JSON cannot carry",
            "the target does not take binary tensors",
        )
    found: list[Any] = array.ravel().tolist()
    return found


def _text(name: str, item: bytes) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError as error:
        raise SpecError(
            f"input {name!r} holds bytes that are no UTF-8, which JSON cannot carry",
            "the target does not take binary tensors",
        ) from error


def _input(name: str, datatype: str, array: NDArray[Any]) -> dict[str, Any]:
    return {"name": name, "shape": list(array.shape), "datatype": datatype}


class Output(msgspec.Struct):
    """One output of an answer, as it is told; its values may stand elsewhere."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class _Answer(msgspec.Struct):
    outputs: list[Output]
    model_name: str = ""


_decode = msgspec.json.Decoder(_Answer).decode


def checker(endpoint: Endpoint, rows: int) -> Callable[[Headers, bytes], Form | None]:
    """The full check of answers to requests of so many rows: every output that the metadata
    promises is there with its datatype and shape, holds as many values, and nothing is over."""
    wanted, shared = promised(endpoint, rows), shared_outputs(endpoint)

    def check(headers: Headers, body: bytes) -> Form | None:
        head, tail = _split(headers, body)
        try:
            outputs = _decode(head).outputs
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadAnswer(f"not an inference response: {error}") from error
        kept(outputs, wanted)
        left = tail
        for output in outputs:
            left = _values(output, left, output.name in shared)
        if left:
            raise BadAnswer(f"{len(left)} bytes of binary data too many")
        return _form(head, tail, outputs)

    return check


def read(headers: Headers, body: bytes) -> dict[str, NDArray[Any]]:
    """The outputs of an answer that has passed the check. BF16 as bit patterns if it came in
    binary, else as floats; BYTES as objects."""
    head, data = _split(headers, body)
    tail = memoryview(data)
    found = {}
    for output in _decode(head).outputs:
        size = output.parameters.get("binary_data_size")
        if size is None:
            found[output.name] = _array(output)
            continue
        raw, tail = tail[:size], tail[size:]
        if output.datatype == "BYTES":
            array = objects(list(items(bytes(raw))))
        else:
            array = np.frombuffer(raw, DTYPES[output.datatype])
        found[output.name] = array.reshape(output.shape)
    return found


def _array(output: Output) -> NDArray[Any]:
    values = list(_flat(output.data))
    if output.datatype == "BYTES":
        array = objects([str(item).encode() for item in values])
    else:
        dtype = np.dtype(np.float32) if output.datatype == "BF16" else DTYPES[output.datatype]
        try:
            array = np.array(values, dtype)
        except (TypeError, ValueError, OverflowError) as error:
            text = f"{output.name} holds what is no {output.datatype}: {error}"
            raise BadAnswer(text) from error
    return array.reshape(output.shape)


def objects(elements: list[Any]) -> NDArray[Any]:
    """BYTES, or what stands for them, as an array."""
    found = np.empty(len(elements), object)
    found[:] = elements
    return found


def _split(headers: Headers, body: bytes) -> tuple[bytes, bytes]:
    """(JSON, binary data)."""
    text = headers.get(HEADER_LENGTH.lower().encode())
    if text is None:
        return body, b""
    length = int(text) if text.isdigit() and len(text) <= _DIGITS else len(body) + 1
    if length > len(body):
        shown = text[:_DIGITS].decode("latin-1")
        raise BadAnswer(f"{HEADER_LENGTH} is {shown!r}, the body {len(body)} long")
    return body[:length], body[length:]


# name → its shape (−1: any size) in an answer, and what else is known of it
Promised = Mapping[str, tuple[tuple[int, ...], Tensor]]


def promised(endpoint: Endpoint, rows: int) -> Promised:
    """What the metadata says of an answer to so many rows; empty where there is none."""
    return {
        tensor.name: ((rows, *tensor.shape) if endpoint.batched else tensor.shape, tensor)
        for tensor in endpoint.outputs
    }


def kept(outputs: Sequence[Output], wanted: Promised) -> None:
    """Raises BadAnswer unless just what was promised has come, each of its datatype and shape."""
    names = [output.name for output in outputs]
    if wanted and sorted(names) != sorted(wanted):
        raise BadAnswer(f"outputs {', '.join(names) or 'none'} instead of {', '.join(wanted)}")
    if not outputs:
        raise BadAnswer("no outputs")
    for output in outputs:
        if output.name in wanted:
            fits(output, *wanted[output.name])


def fits(output: Output, shape: tuple[int, ...], tensor: Tensor) -> None:
    """Raises BadAnswer if its datatype or shape (−1: any size) is another than was promised."""
    if output.datatype != tensor.datatype:
        raise BadAnswer(f"{output.name} is {output.datatype} instead of {tensor.datatype}")
    open_or_equal = [want in (-1, got) for want, got in zip(shape, output.shape, strict=False)]
    if len(output.shape) != len(shape) or not all(open_or_equal):
        raise BadAnswer(f"{output.name} has shape {output.shape} instead of {list(shape)}")


def elements(output: Output) -> int:
    """How many values its shape says. Raises BadAnswer for a shape that cannot be."""
    found = math.prod(output.shape)
    if any(dim < 0 for dim in output.shape) or found > _MOST:
        raise BadAnswer(f"{output.name} has shape {str(output.shape)[:200]}")
    return found


def _values(output: Output, tail: bytes, shared: bool) -> bytes:
    """Checks that the output holds its values; gives what is left of the binary data. Of one that
    is `shared`, which went into memory, an answer says no more."""
    wanted = elements(output)
    size = output.parameters.get("binary_data_size")
    if size is None and output.data is None and shared:
        return tail
    if size is None:
        values = [] if output.data is None else list(_flat(output.data))
        if output.data is None or len(values) != wanted:
            found = "no" if output.data is None else len(values)
            raise BadAnswer(f"{output.name} has {found} values instead of {wanted}")
        _of_type(output, values)
        return tail
    if not isinstance(size, int) or not 0 <= size <= len(tail):
        raise BadAnswer(f"{output.name} says {size} bytes, {len(tail)} are there")
    element = width(output.datatype)
    whole = strings(tail[:size]) == wanted if element is None else size == wanted * element
    if not whole:
        raise BadAnswer(f"{output.name}: {size} bytes do not hold {wanted} {output.datatype}")
    return tail[size:]


def _of_type(output: Output, values: list[Any]) -> None:
    """Raises BadAnswer unless they are what JSON has for the datatype, of integers and floats any
    number: the `Form` of later answers tells no more, and all are judged alike."""
    if output.datatype not in DTYPES:
        return
    kinds: dict[str, set[type]] = {"BYTES": {str}, "BOOL": {bool, int}}
    allowed = kinds.get(output.datatype, {int, float})
    if set(map(type, values)) <= allowed:
        return
    first = next(value for value in values if type(value) not in allowed)
    shown = msgspec.json.encode(first).decode()[:_SHOWN]
    raise BadAnswer(f"{output.name} holds {shown}, which is no {output.datatype}")


def _flat(data: Any) -> Any:
    for item in data:
        if isinstance(item, list):
            yield from _flat(item)
        else:
            yield item


def strings(raw: bytes) -> int:
    """How many length-prefixed strings these bytes are; −1 if they are none."""
    at = number = 0
    while at + 4 <= len(raw):
        at += 4 + int.from_bytes(raw[at : at + 4], "little")
        number += 1
    return number if at == len(raw) else -1


def items(raw: bytes) -> Iterator[bytes]:
    """The length-prefixed strings themselves."""
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        yield raw[at + 4 : end]
        at = end


def _form(head: bytes, tail: bytes, outputs: list[Output]) -> Form | None:
    """What is alike in all good answers like this one.

    Numbers in JSON are found by a pattern made of the text around them. Strings, booleans and
    nested arrays are left to the full check.
    """
    plain = [output for output in outputs if output.data is not None]
    if not plain:
        strings = any(width(output.datatype) is None for output in outputs)
        return None if strings else Form(prefix=head, length=len(head) + len(tail))
    if tail or any(not re.fullmatch("U?INT.*|FP.*|BF16", output.datatype) for output in plain):
        return None
    if any(isinstance(item, list) for output in plain for item in output.data or ()):
        return None
    parts = re.split(rb'("data"\s*:\s*)' + _NUMBERS, head)
    if len(parts) != 2 * len(plain) + 1:
        return None
    pattern = b""
    for literal, key in zip(parts[0::2], [*parts[1::2], b""], strict=True):
        pattern += re.escape(literal + key) + (b"(" + _NUMBERS + b")" if key else b"")
    counts = tuple(len(output.data or ()) for output in plain)
    return Form(pattern=re.compile(pattern), counts=counts)
