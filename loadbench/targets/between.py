"""What a server did between two readings of its statistics.

A restarted server counts from zero again, and any count that has become less shows it; then all of
the later reading is new. One that is not told at all is a gap: what it counted meanwhile is in the
reading in which it is back. What came between is found version by version: a run may see one take
over from another.
"""

from typing import Any

import msgspec

from loadbench import merge
from loadbench.histogram import Histogram
from loadbench.inside import Cache, EngineStatistics
from loadbench.model import BatchSize, Part, Server
from loadbench.targets.statistics import Reading, total
from loadbench.units import percent

_COUNTS = ("rows", "batches", "fail", "hits", "misses")
_TIMES = ("queue_ns", "compute_ns", "input_ns", "output_ns")
_WORDS = {
    "current": "answers from now on",
    "canary": "is a canary for {} % of the requests",
    "shadow": "is a shadow: it runs what is asked, and answers nobody",
    "loaded": "is loaded, for requests that name it",
    "unloaded": "was unloaded",
}


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
    untold = _untold_sizes(earlier, later)
    kept["sizes"] = {**later.sizes, **{size: earlier.sizes[size] for size in untold}}
    made_of = {size: earlier.of_sizes.get(size, ()) for size in untold}
    kept["of_sizes"] = {**later.of_sizes, **made_of}
    return msgspec.structs.replace(later, gone=gone, **kept)


def _gone(earlier: Reading, later: Reading, key: str) -> bool:
    return getattr(later, key) is None and getattr(earlier, key) is not None


def _untold_sizes(earlier: Reading, later: Reading) -> set[int]:
    """The sizes of batches of which not all is told any more; all, where none is told."""
    if not later.sizes:
        return set(earlier.sizes)
    return {
        size
        for size, parts in earlier.of_sizes.items()
        if size in later.sizes and set(parts) - set(later.of_sizes.get(size, ()))
    }


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
        waiting=total(server.waiting for server in present),
        instances=total(server.instances for server in present),
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
        "rows": _more(earlier.rows, later.rows),
        "batches": _more(earlier.batches, later.batches),
    }
    if later.engine is not None:
        return _ours(earlier.engine or EngineStatistics(), later.engine, counts)
    sizes, untold = {}, _untold_sizes(earlier, later)
    for size, (batches, ns) in later.sizes.items():
        before, ns_before = earlier.sizes.get(size, (0, 0))
        if batches > before and size not in untold:
            sizes[size] = BatchSize(batches - before, compute_ns=ns - ns_before)
    hits = _more(earlier.hits, later.hits)
    # of the model: the cache's took none of its time; None where it is not known how many they are.
    # Triton's queue has the cache's as well, but only until it is looked for there: µs of no model
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


def began_anew(earlier: Reading, later: Reading) -> bool:
    """Whether a version that both tell of was restarted. Of our own engine's their changes tell."""
    return any(
        part.engine is None and _began_anew(earlier.parts[version], part)
        for version, part in later.parts.items()
        if version in earlier.parts
    )


def _began_anew(earlier: Reading, later: Reading) -> bool:
    """Whether anything of it is less than before. One counter alone does not show it: a server that
    was restarted under load may soon have counted more of some than it had before."""
    now, before = _counters(later), _counters(earlier)
    untold = {key for key in (*_COUNTS, *_TIMES) if getattr(later, key) is None}
    if set(earlier.of_compute) - set(later.of_compute):
        untold.add("compute_ns")
    sizes = {("size", size, at) for size in _untold_sizes(earlier, later) for at in (0, 1)}
    told = {key: value for key, value in before.items() if key[0] not in untold}
    if any(now.get(key, 0) < value for key, value in told.items() if key not in sizes):
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
        for key in ("success", *_COUNTS, *_TIMES)
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
