"""Readings of a server's statistics; what came between two of them is told by `between`.

KServe's statistics extension counts since the server started: requests, rows, batches, and the time
spent in each part as totals, so a difference gives means. loadbench's own engine adds histograms
and close reasons (`inside.EngineStatistics`). Each version of a model has counters of its own. What
is not told at all is None.
"""

from collections.abc import Iterable
from typing import Annotated

import msgspec

from loadbench.inside import EngineStatistics
from loadbench.model import Value, decode

_COMPUTE = ("compute_input", "compute_infer", "compute_output")


Count = Annotated[int, msgspec.Meta(ge=0)]  # less than nothing was never counted


class _Duration(msgspec.Struct, frozen=True):
    count: Count = 0
    ns: Count = 0


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
    compute_input: _Duration | None = None
    compute_infer: _Duration | None = None
    compute_output: _Duration | None = None


class _Model(msgspec.Struct, frozen=True):
    version: str = ""
    inference_count: Count | None = None
    execution_count: Count | None = None
    inference_stats: _Parts = _Parts()
    batch_stats: list[_Size] = []
    loadbench: msgspec.Raw = msgspec.Raw()


class _Statistics(msgspec.Struct, frozen=True):
    model_stats: list[_Model]


class Reading(Value, frozen=True):
    """What a model's server has counted so far: one version, or all of them and each in `parts`."""

    success: int = 0
    fail: int | None = 0  # like all with None: that is where it is not told
    rows: int | None = 0
    batches: int | None = 0
    queue_ns: int | None = 0
    compute_ns: int | None = 0
    input_ns: int | None = 0  # of compute
    output_ns: int | None = 0
    of_compute: tuple[str, ...] = ()  # the parts that compute_ns is made of
    hits: int | None = 0  # of `success`: answered from the response cache
    misses: int | None = 0  # looked for there in vain
    sizes: dict[int, tuple[int, int]] = {}  # rows → (batches, ns)
    of_sizes: dict[int, tuple[str, ...]] = {}  # as of_compute, of each size
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
        fail=total(part.fail for part in counted),
        rows=total(part.rows for part in counted),
        batches=total(part.batches for part in counted),
        queue_ns=total(part.queue_ns for part in counted),
        compute_ns=total(part.compute_ns for part in counted),
        input_ns=total(part.input_ns for part in counted),
        output_ns=total(part.output_ns for part in counted),
        hits=total(part.hits for part in counted),
        misses=total(part.misses for part in counted),
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
        of_compute=_told(parts),
        hits=_count(parts.cache_hit),
        misses=_count(parts.cache_miss),
        sizes={
            size.batch_size: (_count(size.compute_infer) or 0, _compute(size) or 0)
            for size in model.batch_stats
        },
        of_sizes={size.batch_size: _told(size) for size in model.batch_stats},
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


def _told(parts: _Parts | _Size) -> tuple[str, ...]:
    return tuple(key for key in _COMPUTE if getattr(parts, key) is not None)


def _compute(parts: _Parts | _Size) -> int | None:
    return total(_ns(getattr(parts, key)) for key in _COMPUTE)


def total(values: Iterable[int | None]) -> int | None:
    """Of those that are told; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
