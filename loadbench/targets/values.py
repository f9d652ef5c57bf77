"""Values of made-up inputs: from a distribution, else in a range that models take."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.distribution import Distribution
from loadbench.errors import SpecError
from loadbench.model import Tensor
from loadbench.targets.datatypes import DTYPES, FLOATS, bf16, narrow

_TOKENS = 100  # few enough for the smallest vocabularies


def make(
    tensor: Tensor, shape: tuple[int, ...], draw: np.random.Generator, of: Distribution | None
) -> NDArray[Any]:
    """An array of the tensor's type. Raises SpecError for values that it cannot hold."""
    return _usual(tensor, shape, draw) if of is None else _drawn(tensor, shape, draw, of)


def _usual(tensor: Tensor, shape: tuple[int, ...], draw: np.random.Generator) -> NDArray[Any]:
    """N(0, 1) for floats, tokens for integers (ones for a mask), words for strings."""
    if tensor.datatype == "BYTES":
        words = [b"word%d" % number for number in draw.integers(0, _TOKENS, math.prod(shape))]
        found = np.empty(len(words), object)
        found[:] = words
        return found.reshape(shape)
    if tensor.datatype in FLOATS:
        values = draw.standard_normal(shape, np.float32)
        return bf16(values) if tensor.datatype == "BF16" else values.astype(DTYPES[tensor.datatype])
    if tensor.datatype == "BOOL":
        return draw.integers(0, 2, shape).astype(np.bool_)
    dtype = DTYPES[tensor.datatype]
    if "mask" in tensor.name.lower():
        return np.ones(shape, dtype)
    top = min(int(np.iinfo(dtype).max) + 1, 256 if dtype == np.uint8 else _TOKENS)
    return draw.integers(0, top, shape).astype(dtype)


def _drawn(
    tensor: Tensor, shape: tuple[int, ...], draw: np.random.Generator, of: Distribution
) -> NDArray[Any]:
    number = math.prod(shape)
    if tensor.datatype == "BYTES":
        raise SpecError(f"values of {tensor.name!r}: numbers are no BYTES", "give data instead")
    if tensor.datatype in FLOATS:
        try:
            return narrow(of.draw(draw, number), tensor.datatype).reshape(shape)
        except OverflowError as error:
            text = f"values of {tensor.name!r}: {error}"
            raise SpecError(text, "smaller ones: … clipped -1000..1000") from error
    dtype = DTYPES[tensor.datatype]
    found = of.whole(draw, number)
    least, most = (0, 1) if tensor.datatype == "BOOL" else _range(dtype)
    if number and not least <= found.min() <= found.max() <= most:
        raise SpecError(
            f"values of {tensor.name!r}: {found.min()} … {found.max()} were drawn, which are no "
            f"{tensor.datatype}",
            f"add: clipped {least}..{most}",
        )
    return found.astype(dtype).reshape(shape)


def _range(dtype: np.dtype[Any]) -> tuple[int, int]:
    found = np.iinfo(dtype)
    return int(found.min), int(found.max)
