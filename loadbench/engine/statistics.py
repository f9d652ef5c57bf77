"""What the engine has done since it started, in Triton's words and in ours.

Filled batch by batch and only from the event loop's thread, so nothing is locked. Values for the
histograms are gathered in plain arrays and counted when someone asks, or when there are many.
"""

import time
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from loadbench.engine.arrivals import ArrivalLog
from loadbench.engine.execution import Piece
from loadbench.engine.job import Job
from loadbench.engine.watch.slow import SlowLog
from loadbench.histogram import EMPTY, Histogram
from loadbench.inside import Batch, EngineStatistics
from loadbench.model import BatchSize, Note

GATHERED = 65_536
RECENT = 256
REMARKS = 64


class _Times:
    """A cumulative histogram that is filled in bulk."""

    def __init__(self) -> None:
        self.total_ns = 0
        self._folded = EMPTY
        self._values = array("q")

    def extend(self, values: Sequence[int]) -> int:
        """Gives their sum."""
        self._values.extend(values)
        added = sum(values)
        self.total_ns += added
        if len(self._values) >= GATHERED:
            self.histogram()
        return added

    def histogram(self) -> Histogram:
        if self._values:
            new = Histogram.of(np.array(self._values, np.int64))
            self._folded = Histogram.merged((self._folded, new))
            self._values = array("q")
        return self._folded


class _Size:
    """All batches of one size."""

    def __init__(self) -> None:
        self.batches = self.requests = self.queue_ns = self.batch_wait_ns = 0
        self.input_ns = self.infer_ns = self.between_ns = self.answer_ns = 0

    def frozen(self) -> BatchSize:
        return BatchSize(
            self.batches,
            self.requests,
            self.queue_ns,
            self.batch_wait_ns,
            self.input_ns + self.infer_ns,
            self.infer_ns,
            self.between_ns,
            self.answer_ns,
        )


class Account:
    """The engine's books. Every request that was asked of the model is in exactly one of
    `success`, `hits`, `failed` and `shed`."""

    def __init__(self, arrivals: ArrivalLog | None = None) -> None:
        self._arrivals = arrivals
        self.wasted_rows = 0  # ran, or run, for clients that were gone
        self.success = self.failed = self.rows = self.batches = self.padded_rows = self.lacks = 0
        self.success_ns = self.fail_ns = self.busy_ns = 0
        self.input_ns = self.infer_ns = 0  # summed over requests
        self.last_inference_ms = 0  # of the wall clock, as the protocol wants it
        self.shed: dict[str, int] = {}
        self.closed: dict[str, dict[int, int]] = {}
        self.queue, self.batch_wait, self.compute = _Times(), _Times(), _Times()
        self._sizes: dict[int, _Size] = {}
        self._recent: deque[Batch] = deque(maxlen=RECENT)
        self._remarks: dict[Note, None] = {}
        self.slow: SlowLog | None = None
        self.hits = self.hit_ns = self.misses = self.miss_ns = 0  # of the response cache

    def remark(self, note: Note) -> None:
        """Something came up that whoever reads the figures has to know. Each is told once; beyond
        the first 64 they are not kept."""
        if len(self._remarks) < REMARKS:
            self._remarks[note] = None

    def remarks(self) -> tuple[Note, ...]:
        """Whatever came up, the oldest first."""
        of_log = self._arrivals.notes if self._arrivals is not None else ()
        return (*self._remarks, *of_log)

    def ran(self, piece: Piece, good: Sequence[Job], reason: str, now: int) -> None:
        """A piece without a fault ran; `good` are those of its jobs that were answered well."""
        self.batches += 1
        self.last_inference_ms = time.time_ns() // 1_000_000
        sizes = self.closed.setdefault(reason, {})
        sizes[piece.rows] = sizes.get(piece.rows, 0) + 1
        size = self._sizes.get(piece.rows)
        if size is None:
            size = self._sizes[piece.rows] = _Size()
        number = len(good)
        size.batches += 1
        size.requests += number
        size.queue_ns += self.queue.extend([job.queue_ns for job in good])
        size.batch_wait_ns += self.batch_wait.extend([job.batch_wait_ns for job in good])
        size.input_ns += piece.input_ns
        size.infer_ns += piece.infer_ns
        size.answer_ns += now - piece.ended
        self.input_ns += piece.input_ns * number
        self.infer_ns += piece.infer_ns * number
        self.compute.extend([piece.compute_ns] * number)
        self.success += number
        self.rows += sum([job.rows for job in good])
        self.success_ns += now * number - sum([job.arrived for job in good])
        if self._arrivals is not None:
            self._arrivals.add(good, "done", piece.rows, now)
        if self.slow is not None:
            self.slow.look(piece, good, now)

    def recent(self) -> Sequence[Batch]:
        """The last batches, at most `RECENT`."""
        return tuple(self._recent)

    def batch(self, record: Batch) -> None:
        """A batch ended, well or not."""
        self._recent.append(record)
        self.padded_rows += record.padded
        self.lacks += record.lacks
        self.busy_ns += record.compute_ns
        if size := self._sizes.get(record.rows):
            size.between_ns += record.between_ns

    @property
    def answered(self) -> int:
        """Requests answered well, by the model or from the cache."""
        return self.success + self.hits

    def hit(self, job: Job, answered: bool, now: int) -> None:
        """A request was answered from the cache, well or not."""
        self.hits += answered
        self.hit_ns += (now - job.arrived) * answered
        if not answered:
            self.fail([job], 0, now)

    def missed(self, ns: int) -> None:
        """A request was looked for in the cache for so long, and goes to the model."""
        self.misses += 1
        self.miss_ns += ns

    def fail(self, jobs: Sequence[Job], rows: int, now: int) -> None:
        """Requests that ran in a batch of so many rows and got no good answer."""
        self.failed += len(jobs)
        self._lost(jobs, "failed", rows, now)

    def give_up(self, jobs: Sequence[Job], reason: str, outcome: str, now: int) -> None:
        """Requests that were refused or given up before they ran."""
        self.shed[reason] = self.shed.get(reason, 0) + len(jobs)
        self._lost(jobs, outcome, 0, now)

    def _lost(self, jobs: Iterable[Job], outcome: str, rows: int, now: int) -> None:
        self.fail_ns += sum([now - job.arrived for job in jobs])
        if self._arrivals is not None:
            self._arrivals.add(jobs, outcome, rows, now)

    def engine(self, **present: Any) -> EngineStatistics:
        """Our member `loadbench`; `present` are its fields that are not counted here. The log of
        arrivals is then as new as what is told here."""
        if self._arrivals is not None:
            self._arrivals.flush()
        return EngineStatistics(
            queue=self.queue.histogram(),
            batch_wait=self.batch_wait.histogram(),
            compute=self.compute.histogram(),
            sizes={rows: size.frozen() for rows, size in sorted(self._sizes.items())},
            closed={reason: dict(sizes) for reason, sizes in self.closed.items()},
            shed=dict(self.shed),
            failed=self.failed,
            wasted_rows=self.wasted_rows,
            busy_ns=self.busy_ns,
            padded_rows=self.padded_rows,
            lacks=self.lacks,
            recent=tuple(self._recent),
            remarks=self.remarks(),
            **present,
        )

    def kserve(self) -> dict[str, Any]:
        """The members of Triton's statistics extension that are counted here."""
        wait_ns = self.queue.total_ns + self.batch_wait.total_ns
        failed = self.failed + sum(self.shed.values())
        return {
            "last_inference": self.last_inference_ms,
            "inference_count": self.rows,
            "execution_count": self.batches,
            "inference_stats": {
                "success": _duration(self.answered, self.success_ns + self.hit_ns),
                "fail": _duration(failed, self.fail_ns),
                "queue": _duration(self.answered, wait_ns),
                "compute_input": _duration(self.success, self.input_ns),
                "compute_infer": _duration(self.success, self.infer_ns),
                "compute_output": _duration(self.success, 0),
                "cache_hit": _duration(self.hits, self.hit_ns),
                "cache_miss": _duration(self.misses, self.miss_ns),
            },
            "response_stats": {},
            "batch_stats": [
                {
                    "batch_size": rows,
                    "compute_input": _duration(size.batches, size.input_ns),
                    "compute_infer": _duration(size.batches, size.infer_ns),
                    "compute_output": _duration(size.batches, 0),
                }
                for rows, size in sorted(self._sizes.items())
            ],
        }


def _duration(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}
