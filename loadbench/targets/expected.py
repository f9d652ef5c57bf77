"""Outputs that are expected of a KServe model, and the comparison of an answer with them.

A value is right if it is off by no more than the tolerance times (its own size plus the usual size
of its output: the root mean square over all that is expected). What is not of a float type must be
equal. Of a large output so many elements are compared as do not hold up the load, evenly spread.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench.model import Note, Tensor
from loadbench.plan import Expected, RequestPlan
from loadbench.targets import columns
from loadbench.targets.datatypes import FLOATS, floats
from loadbench.targets.wire import Check, Form, Headers, WrongOutput

COMPARED = 16_384  # elements of one output at most: some 0.1 ms
_SHARE = 0.01  # of a model's answers are compared, as these may be large
_TOLERANCE = {"FP16": 1e-2, "BF16": 3e-2}
_USUAL_TOLERANCE = 1e-3

# (headers, body) → the arrays of a good answer
Read = Callable[[Headers, bytes], Mapping[str, NDArray[Any]]]


class Column(NamedTuple):
    """What is expected of one output: a row for each row of the data."""

    tensor: Tensor
    rows: NDArray[Any]
    tolerance: float  # 0: equal
    scale: float


def share(request: RequestPlan) -> float:
    """Of the answers, how many are compared."""
    if request.check is not None:
        return request.check
    # what a service's answer says is how one knows whether it is one
    return 1.0 if isinstance(request.expect, Expected) else _SHARE


def note(request: RequestPlan, source: object) -> Note:
    """What is compared, so that nobody takes few failures for few mistakes."""
    part = share(request)
    what = "every answer is" if part == 1 else f"{part * 100:g} % of the answers are"
    hint = "" if part == 1 else "the others are checked for their form alone; set check for more"
    return Note("compared", f"{request.name!r}: {what} compared with {source}", hint)


def column(tensor: Tensor, rows: NDArray[Any], tolerance: float | None) -> Column:
    """`rows` in the tensor's own type."""
    if tensor.datatype not in FLOATS:
        return Column(tensor, rows, 0.0, 1.0)
    values = columns.apply(lambda row: _values(tensor, row), rows)
    usual = columns.flat(values)
    usual = usual[np.isfinite(usual)].astype(np.float64)
    scale = math.sqrt(float(np.mean(usual**2))) if len(usual) else 0.0
    if tolerance is None:
        tolerance = _TOLERANCE.get(tensor.datatype, _USUAL_TOLERANCE)
    return Column(tensor, values, tolerance, scale or 1.0)


def strict(
    ordinary: Check, read: Read, expected: Sequence[Column], index: NDArray[np.int64]
) -> Check:
    """The check of answers to the request with these rows of the data. It teaches nothing, so that
    each such answer is looked at in full."""

    def check(headers: Headers, body: bytes) -> Form | None:
        ordinary(headers, body)
        found = read(headers, body)
        for wanted in expected:
            _compare(wanted, index, found[wanted.tensor.name])
        return None

    return check


def _compare(wanted: Column, index: NDArray[np.int64], answer: NDArray[Any]) -> None:
    """Raises WrongOutput naming the first element that is off."""
    name = wanted.tensor.name
    right = columns.take(wanted.rows, index)
    if right.size != answer.size:
        raise WrongOutput(f"{name} has shape {list(answer.shape)} instead of {list(right.shape)}")
    step = -(-answer.size // COMPARED) or 1
    first = int(index[0]) % step
    got = _values(wanted.tensor, answer.reshape(-1)[first::step])
    want = right.reshape(-1)[first::step]
    off = got != want
    if wanted.tolerance and off.any():
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(got.astype(np.float64) - want)
            allowed = wanted.tolerance * (np.abs(want.astype(np.float64)) + wanted.scale)
            off &= ~(apart <= allowed) | ~np.isfinite(want)
            off &= ~(np.isnan(got) & np.isnan(want))
    if off.any():
        worst = int(np.argmax(off))
        place = np.unravel_index(first + worst * step, answer.shape)
        where = ", ".join(str(int(axis)) for axis in place)
        more = int(off.sum()) - 1
        others = f", and {more:,} more of {len(off):,} compared" if more else ""
        shown = f"{name}[{where}] is {_show(got[worst])} instead of {_show(want[worst])}"
        raise WrongOutput(shown + others)


def _values(tensor: Tensor, array: NDArray[Any]) -> NDArray[Any]:
    return floats(array) if tensor.datatype == "BF16" and array.dtype == np.uint16 else array


def _show(value: Any) -> str:
    if isinstance(value, bytes):
        return repr(value[:40])
    return f"{value:.6g}" if isinstance(value, np.floating) else str(value)
