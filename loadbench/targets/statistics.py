"""Readings of a server's statistics, and what came between two of them.

KServe's statistics extension counts since the server started: requests, rows, batches, and the time
spent in each part as totals, so a difference gives means. loadbench's own engine adds histograms
and close reasons (`model.EngineStatistics`). A restarted server counts from zero again; then all of
the later reading is new.
"""

from typing import Any

import msgspec

from loadbench.histogram import Histogram
from loadbench.inside import EngineStatistics
from loadbench.model import BatchSize, Part, Server, Value, decode


class _Duration(msgspec.Struct, frozen=True):
    count: int = 0
    ns: int = 0


class _Parts(msgspec.Struct, frozen=True):
    success: _Duration = _Duration()
    fail: _Duration = _Duration()
    queue: _Duration = _Duration()
    compute_input: _Duration = _Duration()
    compute_infer: _Duration = _Duration()
    compute_output: _Duration = _Duration()


class _Size(msgspec.Struct, frozen=True):
    batch_size: int
    compute_input: _Duration = _Duration()
    compute_infer: _Duration = _Duration()
    compute_output: _Duration = _Duration()


class _Model(msgspec.Struct, frozen=True):
    inference_count: int = 0
    execution_count: int = 0
    inference_stats: _Parts = _Parts()
    batch_stats: list[_Size] = []
    loadbench: msgspec.Raw = msgspec.Raw()


class _Statistics(msgspec.Struct, frozen=True):
    model_stats: list[_Model]


class Reading(Value, frozen=True):
    """What a model's server has counted so far, over all versions of the model."""

    success: int = 0
    fail: int = 0
    rows: int = 0
    batches: int = 0
    queue_ns: int = 0
    compute_ns: int = 0
    sizes: dict[int, tuple[int, int]] = {}  # rows → (batches, ns)
    engine: EngineStatistics | None = None


def read(body: bytes) -> Reading:
    """The answer to GET /v2/models/M/stats. Raises msgspec.MsgspecError if it is none."""
    models = msgspec.json.decode(body, type=_Statistics).model_stats
    parts = [model.inference_stats for model in models]
    sizes: dict[int, tuple[int, int]] = {}
    for size in (size for model in models for size in model.batch_stats):
        batches, ns = sizes.get(size.batch_size, (0, 0))
        sizes[size.batch_size] = (batches + size.compute_infer.count, ns + _compute(size))
    ours = [decode(EngineStatistics, raw) for model in models if (raw := bytes(model.loadbench))]
    return Reading(
        success=sum(part.success.count for part in parts),
        fail=sum(part.fail.count for part in parts),
        rows=sum(model.inference_count for model in models),
        batches=sum(model.execution_count for model in models),
        queue_ns=sum(part.queue.ns for part in parts),
        compute_ns=sum(map(_compute, parts)),
        sizes=sizes,
        engine=ours[0] if ours else None,
    )


def _compute(parts: _Parts | _Size) -> int:
    return parts.compute_input.ns + parts.compute_infer.ns + parts.compute_output.ns


def difference(earlier: Reading, later: Reading) -> Server:
    """What the server did between two readings."""
    if later.success < earlier.success or later.batches < earlier.batches:
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
    return Server(
        source="kserve statistics",
        queue=Part(counts["requests"], later.queue_ns - earlier.queue_ns),
        compute=Part(counts["requests"], later.compute_ns - earlier.compute_ns),
        sizes=sizes,
        failed=later.fail - earlier.fail,
        **counts,
    )


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
        **counts,
    )


def _part(earlier: Histogram, later: Histogram) -> Part:
    new = later.minus(earlier)
    return Part(new.count, round(new.total), new)


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
