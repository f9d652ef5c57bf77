"""The yardstick of a run: its folder in, what its batcher reached of the optimum out.

Arrivals and outcomes come from arrivals.bin, the times of a batch from the windows of the log: for
each size the median over the seconds of the mean in each second, which a standstill does not move.
A size that hardly ran takes what it took at the engine's warm-up times what the sizes next to it
took more in the run than there. Without that a batcher that only ever makes small batches would
look perfect. What is computed from these is in `optimum`.

Where the largest batch or the SLO were changed while the run went on, each part of the run is
judged by its own, as if it began idle.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from loadbench import arrivals, runlog, units
from loadbench.curve import interpolated, isotonic
from loadbench.errors import SpecError
from loadbench.logindex import LONGEST
from loadbench.model import (
    BatchSize,
    Mark,
    Note,
    Optimum,
    Record,
    Remark,
    Start,
    Window,
    decode_record,
)
from loadbench.optimum import EXACTLY, Costs, Times, Trace, judge, summed
from loadbench.snapshots import files
from loadbench.standing import Settings

_STEADY = 1.03  # mean time of the batches by their typical time, above which it is told
_ENOUGH = 8  # batches of a size before what they took is worth more than the warm-up
_WINDOWS = 600  # seconds that are looked at, evenly spread over a longer run
_WINDOW, _MINUTE = b'{"kind":"window"', b'{"kind":"minute"'
_SERVED = [arrivals.OUTCOMES.index(name) for name in ("done", "failed")]
_GOES_ON = "goes-on"
_CLOSER = "loadbench optimum RUN looks closer"
Typical = dict[int, tuple[float, int]]  # rows → (ns a batch, batches)


class Yardstick(NamedTuple):
    """The optimum, and the times of a batch by its rows that it rests on."""

    optimum: Optimum
    costs: Costs


class _Told(NamedTuple):
    """What a run's log and snapshot say that matters here."""

    start: Start
    windows: Sequence[Window]
    remarks: set[str]  # their codes
    state: str
    spec: dict[str, Any]
    changes: Sequence[Settings] = ()  # of the engine, by hand

    @property
    def slo_ns(self) -> int | None:
        slo = self.spec.get("engine", {}).get("slo")
        return units.parse_duration(slo) if slo else None


def at_end(folder: Path) -> Optimum | None:
    """The optimum of a run that is just over, in a second or two; None where there is none to tell:
    the target is no engine of ours, or nothing reached it."""
    if not (folder / arrivals.FILE).exists():
        return None
    try:
        found = yardstick(folder).optimum
    except SpecError:
        return None
    return replace(found, notes=tuple(note for note in found.notes if note.code != _GOES_ON))


def yardstick(folder: Path, slo_ns: int | None = None, exactly: int = EXACTLY) -> Yardstick:
    """Judges the requests that reached the engine while the run was recorded. SpecError says why
    that cannot be done."""
    told = _told(folder)
    if not (folder / arrivals.FILE).exists():
        raise SpecError(
            f"{folder.name} has no record of arrivals: {told.start.target} is no engine of ours",
            "only a local: target tells when each request reached its batcher",
        )
    start = told.start
    if start.origin_ns is None or not start.warm_ns:
        raise SpecError(
            f"{folder.name} does not tell how long batches take: an earlier loadbench made it",
            "run it again",
        )
    limit = slo_ns or told.slo_ns or start.limit_ns
    if not limit:
        raise SpecError(
            f"{folder.name} has neither an SLO nor a latency limit: nothing could be too late",
            "say what is in time: --slo 100ms",
        )
    found = arrivals.read(folder / arrivals.FILE)
    records = found.records[
        found.records["arrived_ns"].astype(np.int64) >= start.origin_ns - found.start_ns
    ]
    if not len(records):
        raise SpecError(f"{folder.name}: no request reached the engine while it was recorded")
    parts = _parts(told, slo_ns, limit, found.start_ns)
    rows = int(records["rows"].min())
    table = costs(told.windows, start.warm_ns, max(rows, *(part.largest for part in parts)))
    instances = int(start.settings.get("instances", 1))
    judged = [
        judge(_trace(some, part.limit), part.limit, _by_request(table, rows, part.largest),
              instances, exactly * len(some) // len(records))
        for part, some in _by_part(parts, records)
    ]  # fmt: skip
    optimum = summed(judged)
    notes = (*_asked(told, slo_ns, limit), *_bounds(told, records, optimum, instances),
             *_doubts(told, records, found.full, optimum), *_retuned(told, len(judged)),
             *_unsteady(told.windows, table))  # fmt: skip
    exact = optimum.exact and not any(note.code == "bound" for note in notes) and len(judged) == 1
    return Yardstick(replace(optimum, exact=exact, notes=notes), table)


# ---- parts


class _Part(NamedTuple):
    """What counts for those who arrive from a moment of the engine's clock on."""

    begin_ns: int
    limit: int
    largest: int


def _parts(told: _Told, slo_ns: int | None, limit: int, start_ns: int) -> list[_Part]:
    """The first from the beginning on."""
    start = told.start
    parts = [_Part(0, limit, int(start.settings.get("max_batch", max(start.warm_ns))))]
    for change in told.changes:
        own = slo_ns or change.slo_ns or start.limit_ns or limit
        if (own, change.max_batch) != parts[-1][1:]:
            parts.append(_Part((change.since_ns or 0) - start_ns, own, change.max_batch))
    return parts


def _by_part(parts: Sequence[_Part], records: NDArray[Any]) -> Iterable[tuple[_Part, NDArray[Any]]]:
    """Each part in which something arrived."""
    begins = [part.begin_ns for part in parts]
    cuts = np.searchsorted(records["arrived_ns"].astype(np.int64), begins).tolist()
    for part, low, high in zip(parts, cuts, [*cuts[1:], len(records)], strict=True):
        if low < high:
            yield part, records[low:high]


def _told(folder: Path) -> _Told:
    start: Start | None = None
    remarks: set[str] = set()
    changes: list[Settings] = []
    kept: list[bytes] = []
    stride, seen = 1, 0
    for line in _lines(folder):
        if line.startswith(_MINUTE):
            continue
        if line.startswith(_WINDOW):
            if seen % stride == 0:
                kept.append(line)
            seen += 1
            if len(kept) == 2 * _WINDOWS:
                kept, stride = kept[::2], 2 * stride
            continue
        record = _decoded(line, folder)
        if isinstance(record, Start):
            start = record
        if isinstance(record, Mark) and record.standing and record.standing.engine:
            changes.append(record.standing.engine)
        if isinstance(record, Remark):
            remarks.add(record.note.code)
    if start is None:
        raise SpecError(f"{folder}: its log has no beginning: nothing was recorded")
    windows = [record for line in kept if isinstance(record := _decoded(line, folder), Window)]
    snapshot = runlog.read_snapshot(folder)
    state, spec = runlog.state(snapshot), snapshot.get("spec", {})
    recorded = [window for window in windows if window.stage != "warmup"]
    return _Told(start, recorded, remarks, state, spec, tuple(dict.fromkeys(changes)))


def _lines(folder: Path) -> Iterable[bytes]:
    """The whole lines of a log."""
    path = folder / runlog.LOG
    try:
        with files.opened(path) as file:
            lines = files.lines(file, LONGEST)
            yield from (line for line in lines if line.endswith(b"\n"))
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from error
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error


def _decoded(line: bytes, folder: Path) -> Record:
    try:
        return decode_record(line)
    except (msgspec.MsgspecError, ValueError) as error:
        raise SpecError(f"{folder / runlog.LOG}: has a line that is no record: {error}") from error


# ---- what a batch costs


def costs(windows: Iterable[Window], warm_ns: dict[int, int], largest: int) -> Costs:
    """The times of a batch by its rows, from 0 to `largest`."""
    sizes = [window.server.sizes for window in windows if window.server]
    model = typical(sizes, lambda size: size.infer_ns)
    host = typical(sizes, _host)
    answer = typical(sizes, lambda size: size.answer_ns)
    return Costs(_model(model, warm_ns, largest), _line(host, largest), _line(answer, largest))


def _host(size: BatchSize) -> int | None:
    """Stacking rows, and getting from one batch to the next."""
    if size.infer_ns is None or size.between_ns is None:
        return None
    return size.compute_ns - size.infer_ns + size.between_ns


def typical(
    sizes: Iterable[dict[int, BatchSize]], time_of: Callable[[BatchSize], int | None]
) -> Typical:
    """For each size the median over its seconds of the mean of a second, weighted by batches."""
    seconds: dict[int, list[tuple[float, int]]] = {}
    for found in sizes:
        for rows, size in found.items():
            total = time_of(size)
            if total is not None and size.batches:
                seconds.setdefault(rows, []).append((total / size.batches, size.batches))
    return {rows: _median(means) for rows, means in sorted(seconds.items())}


def _median(means: list[tuple[float, int]]) -> tuple[float, int]:
    ordered = sorted(means)
    batches = list(accumulate(number for _, number in ordered))
    return ordered[bisect_left(batches, batches[-1] / 2)][0], batches[-1]


def _model(ran: Typical, warm_ns: dict[int, int], largest: int) -> Times:
    """The warm-up's curve, bent to what the sizes that ran took."""
    known = sorted(warm_ns)
    rising = isotonic([float(warm_ns[rows]) for rows in known], [1] * len(known))
    curve = np.array(interpolated(known, rising, largest), float)
    curve[0] = 0.0
    weights = np.ones(largest + 1, int)
    good = {rows: found for rows, found in ran.items() if found[1] >= _ENOUGH and rows <= largest}
    if good:
        at = np.array(list(good))
        slower = np.array([ns for ns, _ in good.values()]) / np.maximum(curve[at], 1.0)
        curve *= np.interp(np.arange(largest + 1), at, slower)
        curve[at] = [ns for ns, _ in good.values()]
        weights[at] = [batches for _, batches in good.values()]
    return np.array([0, *isotonic(curve[1:].tolist(), weights[1:].tolist())]).round().astype("i8")


def _line(ran: Typical, largest: int) -> Times:
    """A share for each batch and one for each row, neither below zero: least squares."""
    line = np.zeros(largest + 1, np.int64)
    if not ran:
        return line
    rows = np.array(list(ran), float)
    ns, weights = (np.array(column, float) for column in zip(*ran.values(), strict=True))
    mean_rows, mean = np.average(rows, weights=weights), np.average(ns, weights=weights)
    spread = np.average((rows - mean_rows) ** 2, weights=weights)
    slope = 0.0
    if spread:
        slope = float(np.average((rows - mean_rows) * (ns - mean), weights=weights) / spread)
    slope = min(max(slope, 0.0), float(mean / mean_rows))
    line[1:] = np.round(mean + slope * (np.arange(1, largest + 1) - mean_rows))
    return line


def _by_request(table: Costs, rows: int, largest: int) -> Costs:
    """By requests of so many rows each, instead of by rows."""
    most = max(1, largest // rows)
    return Costs(*(times[: most * rows + 1 : rows] for times in table))


def _trace(records: NDArray[Any], slo_ns: int) -> Trace:
    arrived = records["arrived_ns"].astype(np.int64)
    took = records["took_us"].astype(np.int64) * units.US
    return Trace(arrived, arrived + took, np.isin(records["outcome"], _SERVED) & (took <= slo_ns))


# ---- what is to be said of it


def _asked(told: _Told, slo_ns: int | None, limit: int) -> Iterable[Note]:
    """What counts as in time, where that is not the batcher's own SLO."""
    own, shown = told.slo_ns, units.duration(limit)
    if own is None:
        text = f"the engine had no SLO: in time is within {shown}"
        text += "" if slo_ns else ", the run's latency limit"
        yield Note("no-slo", text, "with engine.slo it gives up what cannot be in time")
    elif slo_ns not in (None, own):
        text = f"in time is within {shown}; the engine was run for {units.duration(own)}"
        yield Note("other-slo", text)


def _bounds(told: _Told, records: NDArray[Any], optimum: Optimum, instances: int) -> Iterable[Note]:
    """Why the optimum itself may lie below what is told as the best."""
    if instances > 1:
        text = f"{instances} instances: the best is a bound, as if their time could be shared out"
        yield Note("bound", text)
    elif optimum.arrivals < optimum.of:
        some, all_ = units.count(optimum.arrivals), units.count(optimum.of)
        text = f"{some} of {all_} arrivals were looked at, in blocks that each begin idle"
        yield Note("bound", text, _CLOSER)
    elif not optimum.exact:
        text = "to find the best itself would take long: it is a bound, as if time could be shared"
        yield Note("bound", f"{text} out", _CLOSER)
    if records["rows"].min() != records["rows"].max():
        least = int(records["rows"].min())
        yield Note("bound", f"requests differ in rows: the best is as if all had {least}")
    if _shapes_differ(told.spec.get("request") or ()):
        yield Note(
            "bound",
            "requests differ in shape: the best is as if all could ride together, and took as long",
        )


def _shapes_differ(requests: Sequence[dict[str, Any]]) -> bool:
    """Whether some cannot share a batch: several sets of shapes, or dimensions that are drawn."""
    found = [request.get("shapes", {}) for request in requests]
    drawn = any(
        isinstance(dim, str) for shapes in found for dims in shapes.values() for dim in dims
    )
    return drawn or any(shapes != found[0] for shapes in found)


def _doubts(told: _Told, records: NDArray[Any], full: bool, optimum: Optimum) -> Iterable[Note]:
    if told.spec.get("load", {}).get("arrivals") in ("closed", "journey"):
        yield Note(
            "closed-loop", "closed loop: who waited for answers would have come at other times",
            "an open loop (arrivals = poisson) asks the same of every batcher",
        )  # fmt: skip
    if "steered" in told.remarks:
        yield Note("steered", "the load was changed by hand: this is of what came, as it came")
    if told.state == "killed":
        yield Note("cut-short", "the run was killed: its last second may be missing")
    if told.state == "running":
        yield Note(_GOES_ON, "the run goes on: this is of what came until now")
    if full:
        most = units.count(arrivals.MOST)
        yield Note("cut-short", f"only the first {most} requests that ended were written down")
    if "arrivals-end" in told.remarks:
        yield Note("cut-short", "not all requests could be written down: its disk took no more")
    failed = int((records["outcome"] == arrivals.OUTCOMES.index("failed")).sum())
    if failed:
        text = f"{units.count(failed)} requests failed in the model: in a batch in time, they count"
        yield Note("failed", text)
    if optimum.best and optimum.above > 0.005 * optimum.best:
        share = units.percent(optimum.above / optimum.best)
        yield Note(
            "scatter", f"{share} % more was reached than the typical times of a batch allow",
            "they scatter by so much: take differences below that for noise",
        )  # fmt: skip


def _retuned(told: _Told, parts: int) -> Iterable[Note]:
    if not told.changes:
        return
    text = f"the engine's settings were changed by hand ({len(told.changes)}×)"
    if parts > 1:
        text += f": {parts} parts, each judged by its own max_batch and SLO, as if it began idle"
    yield Note("retuned", text, "compare runs of one setting")


def _unsteady(windows: Iterable[Window], table: Costs) -> Iterable[Note]:
    """Whether batches took longer than typically so often that it cost much: to the typical times
    that is a loss of scheduling, and it is none."""
    took = typically = 0
    for window in windows:
        for rows, size in (window.server.sizes if window.server else {}).items():
            if rows < len(table.model) and size.infer_ns is not None:
                took += size.infer_ns
                typically += size.batches * int(table.model[rows])
    if typically and took > _STEADY * typically:
        text = (
            f"batches took {units.percent(took / typically - 1)} % more on average than typically"
        )
        yield Note("unsteady", f"{text}: what that cost is told as lost to scheduling",
                   "a quieter machine tells the two apart")  # fmt: skip
