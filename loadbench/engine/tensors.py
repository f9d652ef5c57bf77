"""Tensors to and from the two forms that they have on the wire: raw bytes and JSON.

BF16 is carried as uint16 bit patterns and BYTES as object arrays of `bytes`. What does not fit is a
`Refused`, whose text the client gets.
"""

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.engine.datatypes import NUMPY

Array = NDArray[Any]

NO_JSON = ("FP16", "BF16")  # the protocol has no JSON form for them
MOST_TEXT = 1000  # characters of an error


class Refused(Exception):
    """A request that gets no answer but this: an HTTP status and a text for the client.

    `cause` tells apart what HTTP has one status for: of a 503 "full" (the queue), "deadline" (given
    up before it ran), or neither. Of a text that repeats very much of what was asked, only the
    beginning is kept: gRPC has it in a header, which clients do not take in any size.
    """

    def __init__(self, status: int, message: str, cause: str = "") -> None:
        if len(message) > MOST_TEXT:
            message = message[:MOST_TEXT] + "…"
        super().__init__(message)
        self.status = status
        self.message = message
        self.cause = cause


def elements(shape: tuple[int, ...]) -> int:
    """How many values a tensor of this shape has."""
    number = 1
    for dimension in shape:
        number *= dimension
    return number


def from_bytes(name: str, datatype: str, raw: memoryview, shape: tuple[int, ...]) -> Array:
    """The tensor whose little-endian, row-major bytes are `raw`, without copying if possible."""
    if datatype == "BYTES":
        return _objects(_strings(name, raw, elements(shape)), shape)
    require_size(name, datatype, len(raw), shape)
    if datatype == "BOOL":
        flags: Array = np.frombuffer(raw, np.uint8) != 0
        return flags.reshape(shape)
    return np.frombuffer(raw, NUMPY[datatype]).reshape(shape)


def require_size(name: str, datatype: str, size: int, shape: tuple[int, ...]) -> None:
    """Raises Refused if so many bytes cannot be the tensor; those of BYTES tell their own."""
    if datatype == "BYTES":
        return
    wanted = elements(shape) * NUMPY[datatype].itemsize
    if size != wanted:
        raise Refused(
            400,
            f"input {name!r} has {size} bytes; {datatype} of shape {list(shape)} takes {wanted}",
        )


def memory_of(array: Array) -> int:
    """Bytes, those of texts included: each is an object of its own."""
    texts = sum(len(text) + 49 for text in array.ravel()) if array.dtype.hasobject else 0
    return array.nbytes + texts


def _strings(name: str, raw: memoryview, number: int) -> list[bytes]:
    """The elements of a BYTES tensor: each a 4-byte length and that many bytes."""
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise Refused(400, f"input {name!r} ends in the middle of an element's length")
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4 + length
        if at > len(raw):
            raise Refused(400, f"input {name!r} ends in the middle of element {len(found)}")
        found.append(bytes(raw[at - length : at]))
    if len(found) != number:
        raise Refused(400, f"input {name!r} has {len(found)} elements instead of {number}")
    return found


def _objects(values: list[bytes], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


def from_json(name: str, datatype: str, data: Any, shape: tuple[int, ...]) -> Array:
    """The tensor written as a JSON list, flat or nested, in row-major order."""
    if datatype in NO_JSON:
        raise Refused(400, f"input {name!r}: {datatype} has no JSON form, send it as binary data")
    if not isinstance(data, list):
        raise Refused(400, f"input {name!r}: data is not a list")
    if datatype == "BYTES":
        flat = _flatten(data)
        if not all(isinstance(value, str) for value in flat):
            raise Refused(400, f"input {name!r}: BYTES takes texts")
        _count(name, len(flat), shape)
        return _objects([value.encode() for value in flat], shape)
    try:
        array = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise Refused(400, f"input {name!r}: rows of different lengths, or no numbers") from error
    _count(name, array.size, shape)
    return _converted(name, datatype, array, data).reshape(shape)


def _count(name: str, number: int, shape: tuple[int, ...]) -> None:
    if number != elements(shape):
        raise Refused(
            400,
            f"input {name!r} has {number} values; shape {list(shape)} takes {elements(shape)}",
        )


def _converted(name: str, datatype: str, array: Array, data: list[Any]) -> Array:
    """Values in the asked type, if it can hold every one of them."""
    kind = NUMPY[datatype]
    if kind.kind in "iu" and array.dtype.kind in "fO":
        # numpy makes floats of integers that no type of 64 bits holds together
        array = np.array(_flatten(data), object)
        if not all(type(value) is int for value in array):
            raise Refused(400, f"input {name!r}: data is not all of type {datatype}")
    elif array.dtype.kind not in {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}[kind.kind]:
        raise Refused(400, f"input {name!r}: data is not all of type {datatype}, or too large")
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        if int(array.min()) < bounds.min or int(array.max()) > bounds.max:
            raise Refused(400, f"input {name!r}: a value does not fit into {datatype}")
    with np.errstate(over="ignore"):
        converted = array.astype(kind)
    if kind.kind == "f" and not np.isfinite(converted).all():
        raise Refused(400, f"input {name!r}: a value does not fit into {datatype}")
    return converted


def _flatten(data: list[Any]) -> list[Any]:
    flat: list[Any] = []
    stack: list[Any] = [data]
    while stack:
        value = stack.pop()
        if isinstance(value, list):
            stack.extend(reversed(value))
        else:
            flat.append(value)
    return flat


def to_bytes(array: Array, datatype: str) -> bytes:
    """The tensor's raw form."""
    if datatype != "BYTES":
        return array.tobytes()
    parts: list[bytes] = []
    for value in array.ravel():
        raw = value.encode() if isinstance(value, str) else bytes(value)
        parts += (struct.pack("<I", len(raw)), raw)
    return b"".join(parts)


def to_json(array: Array, datatype: str) -> list[Any]:
    """The tensor as a flat JSON list; bytes that are no UTF-8 raise UnicodeDecodeError."""
    flat: list[Any] = array.ravel().tolist()
    if datatype == "BYTES":
        return [value if isinstance(value, str) else bytes(value).decode() for value in flat]
    return flat
