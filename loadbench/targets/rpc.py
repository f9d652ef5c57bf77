"""KServe v2 over gRPC: tensors → the call, and whether its answer is what was asked for.

Counterpart of `kserve`. A prepared call is one HTTP/2 HEADERS frame, of no stream yet, and behind
it the message with gRPC's prefix; streams, flow control and the rest of HTTP/2 are the load's.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from loadbench.errors import SpecError
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets import kserve
from loadbench.targets.datatypes import DTYPES, width
from loadbench.targets.kserve import Given, Output
from loadbench.targets.messages import INFERENCE, message
from loadbench.targets.region import Region
from loadbench.targets.wire import BadAnswer, Form, Headers, OverLong, own_headers
from loadbench.units import MS, SECOND, US, hostport

PATH = f"/{INFERENCE}/ModelInfer"
STREAM = f"/{INFERENCE}/ModelStreamInfer"
CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
PREFIX = struct.Struct(">BI")  # of a message: compressed or not, its length
_OWN = ("content-type", "te", "keep-alive", "proxy-connection")
_MOST_BLOCK = 16_384 - 9  # what every server takes in one frame
_RAW = 0x32  # the tag of raw_output_contents
_FIELDS = 4096  # of an answer, at most
_MOST_HEAD = 16 << 20  # bytes of an answer beside its raw tensors
_ERROR, _ANSWER = 0x0A, 0x12  # the tags of a ModelStreamInferResponse
# Has Triton end a stream with the status of what went wrong, not only say it in words
_STATUS = {"triton_grpc_error": "true"}
_FINAL = b"triton_final_response"
_CHOICES = {"bool_param": bool, "int64_param": int, "double_param": float, "string_param": str}
_TYPED = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def request(
    endpoint: Endpoint, tensors: Mapping[str, Given], said: RequestPlan, region: Region | None
) -> bytes:
    """The call with these tensors: in shared memory if there is a region, else raw. SpecError for
    headers that cannot be sent, and for parameters that are too large."""
    asked = message("inference.ModelInferRequest")(
        model_name=endpoint.model, model_version=endpoint.version
    )
    for name, (datatype, array) in tensors.items():
        given = asked.inputs.add(name=name, datatype=datatype, shape=array.shape)
        raw = kserve.raw_bytes(datatype, array)
        if region is None:
            asked.raw_input_contents.append(raw)
        else:
            _put(given.parameters, region.keep(raw).parameters)
    for name, place in kserve.places(endpoint, tensors, region).items() if region else ():
        wanted = asked.outputs.add(name=name)
        _put(wanted.parameters, place.parameters if place else {})
    _put(asked.parameters, said.parameters)
    return call(endpoint, STREAM if endpoint.stream else PATH, said.headers, asked)


def call(endpoint: Endpoint, path: str, headers: Mapping[str, str], asked: Any) -> bytes:
    """A prepared call of any service with this message."""
    body: bytes = asked.SerializeToString(deterministic=True)
    return _head(endpoint, path, headers) + PREFIX.pack(0, len(body)) + body


def _put(into: Any, parameters: Mapping[str, bool | int | float | str]) -> None:
    for name, value in parameters.items():
        kind = next(word for word, types in _CHOICES.items() if isinstance(value, types))
        try:
            setattr(into[name], kind, value)
        except ValueError as error:
            raise SpecError(f"parameter {name!r} is {value!r}: {error}") from error


def path_of(data: bytes) -> str:
    """What a prepared call calls: it stands at the beginning of its headers."""
    name = _text(b":path")
    at = data.index(name, 9) + len(name)
    return data[at + 1 : at + 1 + data[at]].decode("latin-1")  # shorter than 127


def head_length(data: bytes | memoryview) -> int:
    """Where the message begins in a prepared call."""
    return 9 + int.from_bytes(data[:3], "big")


def _head(endpoint: Endpoint, path: str, headers: Mapping[str, str]) -> bytes:
    """A HEADERS frame whose stream is still 0."""
    given = {name.lower(): value for name, value in own_headers(endpoint)}
    given |= {name.lower(): value for name, value in headers.items()}
    for name in _OWN:
        if name in given:
            raise SpecError(f"header {name!r} is set by loadbench itself: leave it out")
    authority = given.pop("host", hostport(endpoint.host, endpoint.port))
    fields = {":path": path, ":authority": authority}
    if endpoint.stream:
        given = {**_STATUS, **given}
    if endpoint.deadline_ns is not None:
        fields["grpc-timeout"] = timeout(endpoint.deadline_ns)
    fields |= {"te": "trailers", "content-type": "application/grpc", "user-agent": "loadbench"}
    # :method POST and :scheme are in the table that everybody has; the rest is written out, so that
    # the block means the same on every connection
    block = bytes((0x83, 0x87 if endpoint.tls else 0x86))
    block += b"".join(_field(name, value) for name, value in (fields | given).items())
    if len(block) > _MOST_BLOCK:
        raise SpecError(f"the headers of a request have {len(block):,} bytes", "leave some out")
    return len(block).to_bytes(3, "big") + b"\1\4\0\0\0\0" + block


def _field(name: str, value: str) -> bytes:
    """A header literally, and never to be indexed by whom it passes (RFC 7541, 6.2.2)."""
    return b"\0" + _text(name.encode("latin-1")) + _text(value.encode("latin-1"))


def _text(data: bytes) -> bytes:
    left = len(data) - 127
    if left < 0:
        return bytes((len(data),)) + data
    size = bytearray(b"\x7f")
    while left >= 128:
        size.append(left % 128 + 128)
        left //= 128
    size.append(left)
    return bytes(size) + data


def timeout(limit_ns: int) -> str:
    """A value of `grpc-timeout`: eight digits at most, and a unit."""
    for unit, name in ((US, "u"), (MS, "m")):
        if limit_ns < 10**8 * unit:
            return f"{max(1, limit_ns // unit)}{name}"
    return f"{min(limit_ns // SECOND, 10**8 - 1)}S"


def within(message: bytes) -> tuple[str, bytes]:
    """(error in words, ModelInferResponse) of a message of a stream. Raises BadAnswer."""
    error, answer, at = b"", b"", 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag not in (_ERROR, _ANSWER):
            raise BadAnswer(f"not a ModelStreamInferResponse: field {tag >> 3}")
        size, at = _varint(message, at)
        found, at = message[at : at + size], at + size
        if at > len(message):
            raise BadAnswer("not a ModelStreamInferResponse: broken off")
        if tag == _ERROR:
            error = found
        else:
            answer = found
    return error.decode("utf-8", "replace"), answer


def only_ends(answer: bytes) -> bool:
    """Whether a ModelInferResponse of a stream says that no more come, and nothing else: Triton's
    last one, to whoever asks for it."""
    if _FINAL not in answer:
        return False
    head = _take_apart(answer).head
    if len(head) > _MOST_HEAD:
        return False
    try:
        found = message("inference.ModelInferResponse").FromString(head)
    except DecodeError:
        return False  # the check tells it
    return not found.outputs and bool(found.parameters[_FINAL.decode()].bool_param)


class _Parts(NamedTuple):
    """A ModelInferResponse taken apart: all but the raw tensors, and where those are."""

    head: bytes
    raw: list[tuple[int, int]]


def checker(endpoint: Endpoint, rows: int) -> Callable[[Headers, bytes], Form | None]:
    """The full check of answers to requests of so many rows: every output that the metadata
    promises is there with its datatype and shape, holds as many values, and nothing is over."""
    wanted, shared = kserve.promised(endpoint, rows), kserve.shared_outputs(endpoint)

    def check(_: Headers, body: bytes) -> Form | None:
        parts = _take_apart(body)
        outputs = _outputs(parts.head)
        kserve.kept(outputs, wanted)
        for output, place in zip(outputs, _raw(parts, outputs, shared), strict=True):
            _holds(output, body, place, output.name in shared)
        return _form(body, parts.raw, outputs)

    return check


def _raw(
    parts: _Parts, outputs: Sequence[Output], shared: set[str]
) -> list[tuple[int, int] | None]:
    """Where each output's raw tensor is; one in shared memory has none, or an empty one."""
    if not parts.raw:
        return [None] * len(outputs)
    if len(parts.raw) == len(outputs):
        return list(parts.raw)
    here = [output.name not in shared for output in outputs]
    if len(parts.raw) != sum(here):
        raise BadAnswer(f"{len(parts.raw)} raw tensors for {sum(here)} outputs")
    left = iter(parts.raw)
    return [next(left) if own else None for own in here]


def read(_: Headers, body: bytes) -> dict[str, NDArray[Any]]:
    """The outputs of an answer that has passed the check. BF16 as bit patterns; BYTES as
    objects."""
    parts = _take_apart(body)
    found = {}
    for index, output in enumerate(_outputs(parts.head)):
        if not parts.raw:
            values = list(output.data or ())
            array = (
                kserve.objects([bytes(value) for value in values])
                if output.datatype == "BYTES"
                else _typed(output, values)
            )
        elif output.datatype == "BYTES":
            start, end = parts.raw[index]
            array = kserve.objects(list(kserve.items(body[start:end])))
        else:
            start, end = parts.raw[index]
            array = np.frombuffer(body[start:end], DTYPES[output.datatype])
        found[output.name] = array.reshape(output.shape)
    return found


def _typed(output: Output, values: list[Any]) -> NDArray[Any]:
    try:
        return np.array(values, DTYPES[output.datatype])
    except (TypeError, ValueError, OverflowError) as error:
        text = f"{output.name} holds what is no {output.datatype}: {error}"
        raise BadAnswer(text) from error


def _take_apart(body: bytes) -> _Parts:
    """Raises BadAnswer for what is no message, OverLong for what would take too much to read."""
    others: list[bytes] = []
    raw: list[tuple[int, int]] = []
    at, end = 0, len(body)
    while at < end:
        start = at
        tag, at = _varint(body, at)
        if tag & 7 == 2:
            size, at = _varint(body, at)
            at += size
        elif tag & 7 == 0:
            _, at = _varint(body, at)
        else:
            at += {1: 8, 5: 4}.get(tag & 7, end + 1)
        if at > end:
            raise BadAnswer(f"not a ModelInferResponse: broken off after {start:,} bytes")
        if tag == _RAW:
            raw.append((at - size, at))
        else:
            others.append(body[start:at])
        if len(raw) + len(others) > _FIELDS:
            raise OverLong(f"a ModelInferResponse of more than {_FIELDS:,} fields")
    return _Parts(b"".join(others), raw)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends. Raises BadAnswer."""
    value = shift = 0
    while at < len(data) and shift <= 63:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise BadAnswer("not a ModelInferResponse: a number without an end")


def _outputs(head: bytes) -> list[Output]:
    """The outputs, with their values where those are written as numbers."""
    if len(head) > _MOST_HEAD:
        raise OverLong(f"{len(head):,} bytes of a ModelInferResponse are no raw tensors")
    try:
        answer = message("inference.ModelInferResponse").FromString(head)
    except DecodeError as error:
        raise BadAnswer(f"not a ModelInferResponse: {error}") from error
    found = []
    for output in answer.outputs:
        field = _TYPED.get(output.datatype)
        values: Any = getattr(output.contents, field) if field else []
        made = Output(output.name, list(output.shape), output.datatype, data=values)
        found.append(made)
    return found


def _holds(
    output: Output, body: bytes, place: tuple[int, int] | None, shared: bool = False
) -> None:
    """Raises BadAnswer unless it has as many values as its shape says."""
    elements = kserve.elements(output)
    if shared and not output.data and (place is None or place[0] == place[1]):
        return
    if place is None:
        found = len(output.data or ())
        if found != elements:
            raise BadAnswer(f"{output.name} has {found} values instead of {elements}")
        return
    start, end = place
    element = width(output.datatype)
    if element is None:
        whole = kserve.strings(body[start:end]) == elements
    else:
        whole = end - start == elements * element
    if not whole:
        text = f"{end - start} bytes do not hold {elements} {output.datatype}"
        raise BadAnswer(f"{output.name}: {text}")


def _form(body: bytes, raw: list[tuple[int, int]], outputs: list[Output]) -> Form | None:
    """What is alike in all good answers like this one: all but the contents of the tensors."""
    if not raw or any(width(output.datatype) is None for output in outputs):
        return None
    ends = [0, *(end for _, end in raw)]
    starts = [*(start for start, _ in raw), len(body)]
    first, *later = [(begin, body[begin:end]) for begin, end in zip(ends, starts, strict=True)]
    return Form(first[1], len(body), later=tuple(found for found in later if found[1]))
