"""Warm-up: the model runs every batch size that will be planned with before anyone is served.

The largest comes first, so that memory is taken once and not in growing steps, and a batch that
does not fit is found out now: smaller ones are made then. The times go into the plan of the place
where the model runs, and what batches took of its memory into the limit there.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from loadbench.engine.backends import Arrays, Model
from loadbench.engine.device.turns import Seat
from loadbench.engine.measure import sizes
from loadbench.engine.place import Place
from loadbench.engine.room import OOM
from loadbench.engine.signature import inputs_of
from loadbench.errors import LoadbenchError, RunError
from loadbench.model import Note
from loadbench.units import SECOND

REPEATS = 3
BUDGET_NS = 2 * SECOND  # for repeats; a size runs at least twice, unless it takes this long


class Warmth(NamedTuple):
    """The median times (ns) by rows, and what is to be said of the limits that were found."""

    median_ns: dict[int, int]
    notes: tuple[Note, ...]


class _Sizes:
    """What the sizes took on one place."""

    def __init__(self, place: Place, disturbed: bool) -> None:
        self.seat = Seat(place.turns)  # other models may serve there
        self.disturbed = disturbed
        # Peaks are those of all that runs on the device: one run of each size has it to itself
        self.apart = disturbed and place.device.peak() is not None
        self.ns: dict[int, list[int]] = {}
        self.peaks: dict[int, int] = {}
        self.lacking: list[int] = []


def warm_up(
    models: Sequence[Model], places: Sequence[Place], largest: int, *, free: bool = False,
    disturbed: bool = False,
) -> Warmth:  # fmt: skip
    """Runs every instance at every size of its place, or of `measure.sizes`; RunError if it cannot
    run one of them for another reason than memory, or not even the smallest. `free` says that
    nobody asked for `largest`, `disturbed` that other work takes the processor away meanwhile: then
    only the shortest time of each size counts."""
    until = time.monotonic_ns() + BUDGET_NS
    found = {place: _Sizes(place, disturbed) for place in places}
    for model, place in zip(models, places, strict=True):
        rising = place.sizes or sizes(largest if model.batched else 1)
        with found[place].seat:
            for rows in reversed(rising):
                _try(model, place, found[place], rows, until)
        if rising[0] in found[place].lacking:
            text = f"{model.name}: no memory for a batch of {rising[0]} on {place.device.name}"
            raise RunError(text, "free some, or serve it on a larger device")
    notes: list[Note] = []
    times: dict[int, list[int]] = {}
    for place, each in found.items():
        if each.lacking:
            notes.append(_lacking(place, each))
        fastest = {} if disturbed else {rows: min(ns) for rows, ns in each.ns.items()}
        notes += place.fit(each.peaks, fastest, free)
        for rows, ns in each.ns.items():
            times.setdefault(rows, []).extend(ns)
    median_ns = {rows: sorted(ns)[(len(ns) - 1) // 2] for rows, ns in sorted(times.items())}
    return Warmth(median_ns, tuple(dict.fromkeys(notes)))


def _lacking(place: Place, found: _Sizes) -> Note:
    """Limits batches to what ran, for as long as nothing better is known, and says so."""
    least = min(found.lacking)
    place.room.limit(OOM, max(rows for rows in found.ns if rows < least))
    text = f"no memory for batches of {least} rows on {place.device.name}: smaller ones are made"
    return Note("memory", text, "free some, or lower engine.max_batch")


def _try(model: Model, place: Place, found: _Sizes, rows: int, until: int) -> None:
    place.device.begin_peak()
    times = _times(model, found.seat, rows, until)
    peak = place.device.peak()
    if not times:
        found.lacking.append(rows)
        return
    if found.apart and rows not in found.peaks:
        alone = _alone(model, place, found, rows)
        peak = alone if found.apart else peak
    if peak is not None:
        found.peaks.setdefault(rows, peak)
    times = [min(times)] if found.disturbed else times
    for ns in times:
        place.service.observe(rows, ns)
    found.ns.setdefault(rows, []).extend(times)


def _alone(model: Model, place: Place, found: _Sizes, rows: int) -> int | None:
    """The peak of a batch that nothing runs beside; None: it found no memory, or the others did not
    come to an end. All others stand still meanwhile: nothing is to be run so for the first time."""
    arrays = inputs_of(model, rows)
    with found.seat.alone() as found.apart:
        place.device.begin_peak()
        ran = found.apart and _run(model, arrays, rows)
        peak = place.device.peak()
    found.seat.end()
    return peak if ran else None


def _times(model: Model, seat: Seat, rows: int, until: int) -> list[int]:
    """How long (ns) a batch of `rows` takes; empty: it does not fit. The first is slower (buffers,
    tuning) and counts only if there is no time for another."""
    arrays = inputs_of(model, rows)
    found: list[int] = []
    while len(found) <= REPEATS and (len(found) < 2 or time.monotonic_ns() < until):
        seat.begin()
        started = time.monotonic_ns()
        if not _run(model, arrays, rows):
            return []
        found.append(time.monotonic_ns() - started)
        if found[0] > BUDGET_NS:
            return found
    return found[1:]


def _run(model: Model, arrays: Arrays, rows: int) -> bool:
    """False: there was no memory."""
    try:
        model.run(arrays)
    except LoadbenchError:
        raise
    except MemoryError:
        return False
    except Exception as error:
        raise RunError(
            f"{model.name} fails on a batch of {rows}: {type(error).__name__}: {error}",
            "loadbench doctor MODEL tells more",
        ) from error
    return True
