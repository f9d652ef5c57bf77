"""Readings of a server's statistics, and what came between two of them.

KServe's statistics extension counts since the server started: requests, rows, batches, and the time
spent in each part as totals, so a difference gives means. loadbench's own engine adds histograms
and close reasons (`model.EngineStatistics`). A restarted server counts from zero again, and any
count that has become less shows it; then all of the later reading is new. One that is not told at
all is a gap: what it counted meanwhile is in the reading in which it is back. Each version of a
model has counters of its own, so that what came between is found version by version: a run may see
one take over from another.
"""

from typing import Any

import msgspec

from loadbench import merge
from loadbench.histogram import Histogram
from loadbench.inside import Cache, EngineStatistics
from loadbench.model import BatchSize, Part, Server, Value, decode
from loadbench.units import percent

_COUNTS = ("fail", "hits", "misses")
_COMPUTE = ("compute_input", "compute_infer", "compute_output")
_TIMES = ("queue_ns", "compute_ns", "input_ns", "output_ns")
_WORDS = {
    "current": "answers from now on",
    "canary": "is a canary for {} % of the requests",
    "shadow": "is a shadow: it runs what is asked, and answers nobody",
    "loaded": "is loaded, for requests that name it",
    "unloaded": "was unloaded",
}


class _Duration(msgspec.Struct, frozen=True):
    count: int = 0
    ns: int = 0


class _Parts(msgspec.Struct, frozen=True):
    success: _Duration | None = None
    fail: _Duration | None = None
    queue: _Duration | None = None
    compute_input: _Duration | None = None
    compute_infer: _Duration | None = None
    compute_output: _Duration | None = None
    cache_hit: _Duration | None = None
    cache_miss: _Duration | None = None


class _Size(msgspec.Struct, frozen=True):
    batch_size: int
    compute_input: _Duration = _Duration()
    compute_infer: _Duration = _Duration()
    compute_output: _Duration = _Duration()


class _Model(msgspec.Struct, frozen=True):
    version: str = ""
    inference_count: int = 0
    execution_count: int = 0
    inference_stats: _Parts = _Parts()
    batch_stats: list[_Size] = []
    loadbench: msgspec.Raw = msgspec.Raw()


class _Statistics(msgspec.Struct, frozen=True):
    model_stats: list[_Model]


class Reading(Value, frozen=True):
    """What a model's server has counted so far: one version, or all of them and each in `parts`."""

    success: int = 0
    fail: int | None = 0  # like all with None: that is where it is not told
    rows: int = 0
    batches: int = 0
    queue_ns: int | None = 0
    compute_ns: int | None = 0
    input_ns: int | None = 0  # of compute
    output_ns: int | None = 0
    of_compute: tuple[str, ...] = ()  # the parts that compute_ns is made of
    hits: int | None = 0  # of `success`: answered from the response cache
    misses: int | None = 0  # looked for there in vain
    sizes: dict[int, tuple[int, int]] = {}  # rows → (batches, ns)
    engine: EngineStatistics | None = None
    parts: dict[str, "Reading"] = {}  # by version
    gone: tuple[str, ...] = ()  # of the counts: as they were told before, not in this reading

    @property
    def role(self) -> str:
        """What our engine has this version for."""
        return self.engine.role if self.engine else ""


def read(body: bytes) -> Reading:
    """The answer to GET /v2/models/M/stats; without `parts` if it counts no requests of the model.
    Raises msgspec.MsgspecError if it is none."""
    parts: dict[str, Reading] = {}
    for model in msgspec.json.decode(body, type=_Statistics).model_stats:
        if model.inference_stats.success is not None:
            parts[model.version] = _one(model)
    counted = [part for part in parts.values() if part.role != "shadow"]
    sizes: dict[int, tuple[int, int]] = {}
    for rows, (batches, ns) in (item for part in counted for item in part.sizes.items()):
        before = sizes.get(rows, (0, 0))
        sizes[rows] = (before[0] + batches, before[1] + ns)
    return Reading(
        success=sum(part.success for part in counted),
        fail=_sum([part.fail for part in counted]),
        rows=sum(part.rows for part in counted),
        batches=sum(part.batches for part in counted),
        queue_ns=_sum([part.queue_ns for part in counted]),
        compute_ns=_sum([part.compute_ns for part in counted]),
        input_ns=_sum([part.input_ns for part in counted]),
        output_ns=_sum([part.output_ns for part in counted]),
        hits=_sum([part.hits for part in counted]),
        misses=_sum([part.misses for part in counted]),
        sizes=sizes,
        engine=_foremost(parts),
        parts=parts,
    )


def _one(model: _Model) -> Reading:
    raw = bytes(model.loadbench)
    parts = model.inference_stats
    return Reading(
        success=parts.success.count if parts.success else 0,
        fail=_count(parts.fail),
        rows=model.inference_count,
        batches=model.execution_count,
        queue_ns=_ns(parts.queue),
        compute_ns=_compute(parts),
        input_ns=_ns(parts.compute_input),
        output_ns=_ns(parts.compute_output),
        of_compute=tuple(key for key in _COMPUTE if getattr(parts, key) is not None),
        hits=_count(parts.cache_hit),
        misses=_count(parts.cache_miss),
        sizes={
            size.batch_size: (size.compute_infer.count, _compute(size) or 0)
            for size in model.batch_stats
        },
        engine=decode(EngineStatistics, raw) if raw else None,
    )


def _foremost(parts: dict[str, Reading]) -> EngineStatistics | None:
    """Of the version that answers requests without a version."""
    found = [part for part in parts.values() if part.engine]
    chosen = next((part for part in found if part.role in ("current", "")), None)
    return (chosen or found[-1]).engine if found else None


def _count(told: _Duration | None) -> int | None:
    return told.count if told else None


def _ns(told: _Duration | None) -> int | None:
    return told.ns if told else None


def _compute(parts: _Parts | _Size) -> int | None:
    return _sum([_ns(getattr(parts, key)) for key in _COMPUTE])


def together(earlier: Reading, later: Reading) -> Reading:
    """The later one, with what is gone from it as it was: what it counted is not to be new when it
    is back."""
    parts = {
        version: _with_gone(earlier.parts[version], part) if version in earlier.parts else part
        for version, part in later.parts.items()
    }
    return msgspec.structs.replace(later, parts={**earlier.parts, **parts})


def _with_gone(earlier: Reading, later: Reading) -> Reading:
    """The same of one version."""
    if _began_anew(earlier, later):
        return later
    gone = tuple(key for key in _COUNTS if _gone(earlier, later, key))
    kept: dict[str, Any] = {key: getattr(earlier, key) for key in gone}
    if set(earlier.of_compute) - set(later.of_compute):
        kept |= {"of_compute": earlier.of_compute, "compute_ns": None}
    sizes = later.sizes or earlier.sizes
    return msgspec.structs.replace(later, gone=gone, sizes=sizes, **kept)


def _gone(earlier: Reading, later: Reading, key: str) -> bool:
    return getattr(later, key) is None and getattr(earlier, key) is not None


def difference(earlier: Reading, later: Reading) -> Server:
    """What the server did between two readings. What a shadow runs nobody has asked for."""
    found = [
        (part, _between(_before(earlier, version, part), part))
        for version, part in later.parts.items()
        if part.role != "shadow"
    ]
    whole = merge.servers([server for _, server in found])
    if whole is None:  # nothing is told of versions
        return _between(earlier, later)
    present = [server for part, server in found if part.role != "unloaded"]
    return msgspec.structs.replace(
        whole,
        waiting=_sum([server.waiting for server in present]),
        instances=_sum([server.instances for server in present]),
        max_batch=max((server.max_batch or 0 for server in present), default=0) or None,
        remarks=tuple(note for _, server in found for note in server.remarks),
        changes=_changes(earlier.parts, later.parts),
    )


def _before(earlier: Reading, version: str, later: Reading) -> Reading:
    """What a version had counted; nothing if it is new, or was a shadow: its books are new then."""
    known = earlier.parts.get(version)
    if known is None or known.role == "shadow":
        return Reading(engine=EngineStatistics() if later.engine else None)
    return known


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _changes(earlier: dict[str, Reading], later: dict[str, Reading]) -> tuple[str, ...]:
    """What became of the versions between two readings, in words."""
    found = []
    for version, part in later.items():
        before = earlier.get(version, Reading()).engine or EngineStatistics()
        if part.engine is None or (part.role == "unloaded" and version not in earlier):
            continue
        if part.engine.reason and part.engine.reason != before.reason:
            found.append(f"version {version} was {part.engine.reason}")
        elif part.role != before.role or (
            part.role == "canary" and part.engine.share != before.share
        ):
            text = _WORDS.get(part.role, part.role).format(percent(part.engine.share))
            found.append(f"version {version} {text}")
        elif part.engine.warm_ns != before.warm_ns:
            found.append(f"version {version} was loaded anew")
    return tuple(found)


def _between(earlier: Reading, later: Reading) -> Server:
    """What one version did between two readings."""
    if _began_anew(earlier, later):
        earlier = Reading(engine=EngineStatistics())
    counts: dict[str, Any] = {
        "requests": later.success - earlier.success,
        "rows": later.rows - earlier.rows,
        "batches": later.batches - earlier.batches,
    }
    if later.engine is not None:
        return _ours(earlier.engine or EngineStatistics(), later.engine, counts)
    sizes = {}
    for size, (batches, ns) in later.sizes.items():
        before, ns_before = earlier.sizes.get(size, (0, 0))
        if batches > before:
            sizes[size] = BatchSize(batches - before, compute_ns=ns - ns_before)
    hits = _more(earlier.hits, later.hits)
    # of the model: the cache's took none of its time; None where it is not known how many they are
    asked: int | None = max(0, counts["requests"] - (hits or 0))
    if _gone(earlier, later, "hits") or "hits" in earlier.gone:
        asked = None
    whole = earlier.of_compute in ((), later.of_compute)
    return Server(
        source="kserve statistics",
        queue=_time(asked, earlier.queue_ns, later.queue_ns),
        compute=_time(asked, earlier.compute_ns, later.compute_ns) if whole else None,
        compute_input=_time(asked, earlier.input_ns, later.input_ns),
        compute_output=_time(asked, earlier.output_ns, later.output_ns),
        sizes=sizes,
        failed=_more(earlier.fail, later.fail),
        cached=hits or 0,
        cache_misses=_more(earlier.misses, later.misses) or 0,
        **counts,
    )


def _time(requests: int | None, before: int | None, now: int | None) -> Part | None:
    """None where one of two readings did not tell it."""
    if requests is None or before is None or now is None:
        return None
    return Part(requests, now - before)


def _began_anew(earlier: Reading, later: Reading) -> bool:
    """Whether anything of it is less than before. One counter alone does not show it: a server that
    was restarted under load may soon have counted more of some than it had before."""
    now, before = _counters(later), _counters(earlier)
    untold = {key for key in (*_COUNTS, *_TIMES) if getattr(later, key) is None}
    if set(earlier.of_compute) - set(later.of_compute):
        untold.add("compute_ns")
    if not later.sizes:
        untold.add("size")
    if any(now.get(key, 0) < value for key, value in before.items() if key[0] not in untold):
        return True
    old, ours = earlier.engine, later.engine
    if old is None or ours is None:
        return False
    pairs = (
        (old.queue, ours.queue),
        (old.batch_wait, ours.batch_wait),
        (old.compute, ours.compute),
    )
    return any(was.count and new.minus(was) is new for was, new in pairs)


def _counters(reading: Reading) -> dict[tuple[object, ...], int]:
    """All that only grows while a version serves; its stages and its cache may be loaded anew."""
    found: dict[tuple[object, ...], int] = {
        (key,): value
        for key in ("success", "rows", "batches", *_COUNTS, *_TIMES)
        if (value := getattr(reading, key)) is not None
    }
    for size, counted in reading.sizes.items():
        found |= {("size", size, at): value for at, value in enumerate(counted)}
    ours = reading.engine
    if ours is None:
        return found
    found |= {("ours", key): getattr(ours, key) for key in ("failed", "padded_rows", "busy_ns")}
    found |= {("shed", reason): number for reason, number in ours.shed.items()}
    for reason, sizes in ours.closed.items():
        found |= {("closed", reason, size): number for size, number in sizes.items()}
    for size, batches in ours.sizes.items():
        parts = msgspec.structs.asdict(batches)
        found |= {("ours", size, key): value or 0 for key, value in parts.items()}
    return found


def _ours(earlier: EngineStatistics, later: EngineStatistics, counts: dict[str, Any]) -> Server:
    return Server(
        source="loadbench",
        queue=_part(earlier.queue, later.queue),
        batch_wait=_part(earlier.batch_wait, later.batch_wait),
        compute=_part(earlier.compute, later.compute),
        sizes=_sizes(earlier.sizes, later.sizes),
        closed=_closed(earlier.closed, later.closed),
        failed=later.failed - earlier.failed,
        shed=sum(later.shed.values()) - sum(earlier.shed.values()),
        padded_rows=later.padded_rows - earlier.padded_rows,
        waiting=later.waiting,
        instances=later.instances,
        busy_ns=later.busy_ns - earlier.busy_ns,
        max_batch=later.max_batch,
        grounds=later.grounds,
        remarks=tuple(note for note in later.remarks if note not in earlier.remarks),
        parts=_parts(earlier.parts, later.parts),
        cached=_grown(_cache(earlier).hits, _cache(later).hits),
        cache_misses=_grown(_cache(earlier).misses, _cache(later).misses),
        **counts,
    )


def _part(earlier: Histogram, later: Histogram) -> Part:
    new = later.minus(earlier)
    return Part(new.count, round(new.total), new)


def _cache(engine: EngineStatistics) -> Cache:
    return engine.cache or Cache(0, 0, 0, 0, 0)


def _grown(before: int, now: int) -> int:
    """By how much; a version that was loaded anew may have a new cache, or none."""
    return now - before if now >= before else now


def _parts(
    earlier: dict[str, tuple[int, int]], later: dict[str, tuple[int, int]]
) -> dict[str, Part]:
    found = {}
    for name, (batches, ns) in later.items():
        before, ns_before = earlier.get(name, (0, 0))
        if batches < before or ns < ns_before:  # the version was loaded anew: so were its stages
            before, ns_before = 0, 0
        found[name] = Part(batches - before, ns - ns_before)
    return found


def _sizes(earlier: dict[int, BatchSize], later: dict[int, BatchSize]) -> dict[int, BatchSize]:
    found = {}
    for size, now in later.items():
        before = earlier.get(size, BatchSize(0, queue_ns=0, batch_wait_ns=0))
        if now.batches > before.batches:
            found[size] = BatchSize(
                batches=now.batches - before.batches,
                requests=now.requests - before.requests,
                queue_ns=(now.queue_ns or 0) - (before.queue_ns or 0),
                batch_wait_ns=(now.batch_wait_ns or 0) - (before.batch_wait_ns or 0),
                compute_ns=now.compute_ns - before.compute_ns,
                infer_ns=_more(before.infer_ns, now.infer_ns),
                between_ns=_more(before.between_ns, now.between_ns),
                answer_ns=_more(before.answer_ns, now.answer_ns),
            )
    return found


def _more(before: int | None, now: int | None) -> int | None:
    return None if now is None else now - (before or 0)


def _closed(
    earlier: dict[str, dict[int, int]], later: dict[str, dict[int, int]]
) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for reason, sizes in later.items():
        before = earlier.get(reason, {})
        new = {size: number - before.get(size, 0) for size, number in sizes.items()}
        new = {size: number for size, number in new.items() if number}
        if new:
            found[reason] = new
    return found
