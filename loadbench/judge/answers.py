"""Two answers to the same request: how far they lie apart.

Where the answers come from is left to others: two versions in one engine (`engine.shadow`), or two
targets beside each other (`experiments.shadowing`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench.model import Tensor
from loadbench.targets.datatypes import DTYPES, wide

Arrays = Mapping[str, NDArray[Any]]


class Difference(NamedTuple):
    """Between two versions' outputs of one request. `relative` is of the largest value of the
    output; `changed` of `rows` have another largest value, or are another text."""

    rows: int
    changed: int
    absolute: float
    relative: float


def compared(old: Arrays, new: Arrays, outputs: tuple[Tensor, ...], *, batched: bool) -> Difference:
    """The largest differences over all outputs. A value that is no number on one side only, or
    another shape, is an infinite difference."""
    rows = changed = 0
    absolute = relative = 0.0
    for tensor in outputs:
        a, b = old[tensor.name], new[tensor.name]
        if not batched:
            a, b = a[None], b[None]
        rows = max(rows, len(a))
        if a.shape != b.shape:
            return Difference(len(a), len(a), np.inf, np.inf)
        if DTYPES[tensor.datatype] == np.object_:
            changed = max(changed, sum(not np.array_equal(x, y) for x, y in zip(a, b, strict=True)))
            continue
        x = np.asarray(wide(a, tensor.datatype), np.float64)
        y = np.asarray(wide(b, tensor.datatype), np.float64)
        if not x.size:
            continue
        with np.errstate(invalid="ignore"):
            gaps = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
        largest = float(np.nan_to_num(gaps, nan=np.inf).max())
        scale = float(np.abs(x[np.isfinite(x)]).max(initial=0.0))
        absolute = max(absolute, largest)
        relative = max(relative, largest / scale if scale else (np.inf if largest else 0.0))
        if x.ndim > 1 and x.shape[-1] > 1:
            other = x.argmax(-1) != y.argmax(-1)
            changed = max(changed, int(other.reshape(len(x), -1).any(1).sum()))
    return Difference(rows, changed, absolute, relative)
