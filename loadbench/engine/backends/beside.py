"""A model in another precision beside the same one in fp32: how far off it is, and how much faster.

Which of the two is then served is decided elsewhere.
"""

from collections.abc import Sequence
from typing import NamedTuple

from loadbench import units
from loadbench.engine import outputs, signature
from loadbench.engine.backends import Arrays, Model
from loadbench.engine.measure import Timing, timed
from loadbench.model import Tensor
from loadbench.units import MS

GAIN = 1.1  # a half must be this much faster at the largest batch …
LOSS = 0.9  # … and may lose no more than this with one row
ERROR = 0.05  # of the largest output value: beyond, `auto` stays with fp32
_BUDGET = 150 * MS  # for each timing
_LONGEST = 200 * MS  # a batch that takes longer is too large to choose by


class Beside(NamedTuple):
    """`error` as in outputs.difference; how many times as fast at batch `rows`, and with one row,
    by the fastest runs: what else the machine does at that moment slows only some. `nonfinite`: it
    gives NaN or infinity where fp32 gives numbers."""

    error: float
    nonfinite: bool
    rows: int
    gain: float
    gain_one: float

    @property
    def speed(self) -> str:
        """In words."""
        return (
            f"{self.gain:.2g} × as fast as fp32 at batch {self.rows}, "
            f"{self.gain_one:.2g} × with one row"
        )

    @property
    def off(self) -> str:
        """In words."""
        if self.nonfinite:
            return "outputs are NaN or infinite where fp32 gives numbers"
        return f"outputs differ from fp32 by up to {units.percent(self.error)} %"


def compare(found: Model, full: Model, largest: int, arrays: Arrays | None = None) -> Beside:
    """Both on `arrays` (made up where none are given) and timed. SpecError if one refuses them."""
    rows, slow = usual_rows(full, largest if found.batched else 1)
    fitting, quick = usual_rows(found, rows)
    if fitting < rows:  # beside fp32's weights it has less room
        rows, slow = fitting, time(full, fitting)
    one, slow_one = time(found, 1), time(full, 1)
    arrays = arrays or signature.inputs_of(full, min(rows, 32), seed=99)
    exact, other = full.run(arrays), found.run(arrays)
    return Beside(
        outputs.difference(other, exact, full.outputs),
        broken(other, exact, full.outputs),
        rows,
        slow.fastest_ns / quick.fastest_ns,
        slow_one.fastest_ns / one.fastest_ns,
    )


def verdict(half: str, seen: Beside) -> tuple[str, bool]:
    """Whether `auto` takes the half precision, and why, in words."""
    if seen.nonfinite:
        return f"fp32: {half} gives NaN or infinity", False
    if seen.error > ERROR:
        return f"fp32: in {half} outputs are {units.percent(seen.error)} % off", False
    if seen.gain < GAIN or seen.gain_one < LOSS:
        return f"fp32: {half} is only {seen.speed}", False
    return f"{half}: {seen.speed}; {seen.off}", True


def broken(found: Arrays, exact: Arrays, tensors: Sequence[Tensor]) -> bool:
    """Whether there are NaN or infinity where fp32 gives numbers."""
    return bool(outputs.nonfinite(found, tensors)) and not outputs.nonfinite(exact, tensors)


def usual_rows(model: Model, largest: int) -> tuple[int, Timing]:
    """The largest batch that finds memory and is quick enough to be tried a few times, and its
    time. MemoryError if not even one row finds any."""
    rows = min(largest, model.max_batch or largest) if model.batched else 1
    while True:
        timing = None
        try:
            timing = time(model, rows)
        except MemoryError:
            if rows == 1:
                raise
        if timing is not None and (timing.median_ns <= _LONGEST or rows == 1):
            return rows, timing
        rows //= 2


def time(model: Model, rows: int) -> Timing:
    """A few runs of that many rows."""
    arrays = signature.inputs_of(model, rows)
    return timed(lambda: model.run(arrays), rows, _BUDGET, least=2)
