"""Whether a model's outputs are numbers, and how far two precisions or backends are apart."""

from collections.abc import Sequence

import numpy as np

from loadbench.engine import datatypes
from loadbench.engine.backends import Arrays
from loadbench.model import Tensor
from loadbench.targets.datatypes import FLOATS


def nonfinite(arrays: Arrays, tensors: Sequence[Tensor]) -> dict[str, int]:
    """How many values are NaN or infinite, by output; only outputs that have any."""
    bad = {
        tensor.name: int(
            np.count_nonzero(~np.isfinite(datatypes.wide(arrays[tensor.name], tensor.datatype)))
        )
        for tensor in tensors
        if tensor.datatype in FLOATS
    }
    return {name: number for name, number in bad.items() if number}


def difference(found: Arrays, exact: Arrays, tensors: Sequence[Tensor]) -> float:
    """Largest deviation from `exact`, as a share of the largest value of that output."""
    worst = 0.0
    for tensor in tensors:
        if tensor.datatype not in FLOATS:
            continue
        true = datatypes.wide(exact[tensor.name], tensor.datatype)
        gap = np.abs(datatypes.wide(found[tensor.name], tensor.datatype) - true)
        known = np.isfinite(true) & np.isfinite(gap)
        scale = float(np.abs(true[known]).max(initial=0.0))
        if scale:
            worst = max(worst, float(gap[known].max(initial=0.0)) / scale)
    return worst
