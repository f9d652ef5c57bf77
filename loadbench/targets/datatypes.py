"""KServe's tensor datatypes in numpy's terms. BF16 travels as uint16 bit patterns and BYTES as
arrays of bytes objects: numpy has neither."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
NO_JSON = ("FP16", "BF16")  # the protocol has no JSON form for them
FLOATS = ("FP16", "BF16", "FP32", "FP64")


def width(datatype: str) -> int | None:
    """Bytes of one element; None where they differ (BYTES) or the type is unknown."""
    found = DTYPES.get(datatype)
    return None if found is None or found.hasobject else found.itemsize


def bf16(values: NDArray[Any]) -> NDArray[np.uint16]:
    """The bit patterns of the nearest bfloat16s (ties to even)."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded >> 16).astype(np.uint16)


def floats(patterns: NDArray[np.uint16]) -> NDArray[np.float32]:
    """The values of bfloat16 bit patterns."""
    return (patterns.astype(np.uint32) << 16).view(np.float32)


def narrow(values: NDArray[Any], datatype: str) -> NDArray[Any]:
    """The nearest floats of that type. OverflowError for a number that would become infinite."""
    short = datatype == "BF16"
    with np.errstate(over="ignore", invalid="ignore"):
        found: NDArray[Any] = bf16(values) if short else values.astype(DTYPES[datatype])
    large = np.isfinite(values) & ~np.isfinite(floats(found) if short else found)
    if large.any():
        raise OverflowError(f"{values[large][0]:g} is beyond what {datatype} holds")
    return found


def wide(array: NDArray[Any], datatype: str) -> NDArray[Any]:
    """Numbers as float64, to be compared or looked through for NaN."""
    return (floats(array) if datatype == "BF16" else array).astype(np.float64)
