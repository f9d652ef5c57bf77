"""A shadow: a new version runs what the old one is asked, its answers are compared and thrown away.

Whoever asks is answered by the old version and waits for nothing else; what the shadow cannot keep
up with is left out and counted. The comparison has a thread of its own, at the lowest priority.
"""

import threading
import time
from queue import Full, Queue
from typing import NamedTuple

import numpy as np

from loadbench.engine import priority
from loadbench.engine.datatypes import NUMPY, wide
from loadbench.engine.endpoint import Endpoint
from loadbench.engine.http import Exchange
from loadbench.engine.job import Job, Served
from loadbench.engine.tensors import Array, Refused
from loadbench.histogram import Histogram
from loadbench.inside import Shadow
from loadbench.model import Tensor

MOST = 64  # requests that the shadow may have in hand, and pairs that wait to be compared
MOST_BYTES = 4 << 20  # of outputs in one pair: larger ones are not kept for comparing


class _Pair(NamedTuple):
    """One request's outputs of both versions, and how long (ns) each took."""

    old: dict[str, Array]
    new: dict[str, Array]
    old_ns: int
    new_ns: int


class Mirror:
    """Answers the requests that name no version by the old one, and asks the new one too."""

    def __init__(self, old: Endpoint, new: Endpoint) -> None:
        self.old, self.new = old, new
        self._outputs = tuple(new.signature.outputs.values())
        self._batched = new.signature.batched
        self._in_hand = 0
        self._dropped = self._failed = 0  # both by the event loop's thread only
        self._pairs: Queue[_Pair | None] = Queue(MOST)
        self._lock = threading.Lock()
        self._sums = Shadow()
        threading.Thread(target=self._compare, name="shadow", daemon=True).start()

    def infer(self, exchange: Exchange, body: bytes) -> None:
        """Passes a request on to the old version, and a twin of it to the new one. Raises Refused.
        """  # fmt: skip
        exchange.endpoint = self.old
        self.old.infer(exchange, body)
        job: Job | None = exchange.job
        if job is None:
            return
        if self._in_hand >= MOST:
            self._dropped += 1
            return
        found: dict[str, tuple[dict[str, Array], int]] = {}
        reply = job.reply

        def ended(side: str, of: Job, result: Served | Refused) -> None:
            if isinstance(result, Served):
                small = sum(array.nbytes for array in result.outputs.values()) <= MOST_BYTES
                kept = {name: array.copy() for name, array in result.outputs.items()}
                found[side] = (kept if small else {}, time.monotonic_ns() - of.arrived)
                if len(found) == 2:
                    self._match(found)

        def first(result: Served | Refused) -> bool:
            good = reply(result)
            ended("old", job, result)
            return good

        def second(result: Served | Refused) -> bool:
            self._in_hand -= 1
            self._failed += isinstance(result, Refused)
            ended("new", twin, result)
            return isinstance(result, Served)

        twin = Job(job.arrays, job.rows, job.shapes, second)
        twin.size_bytes = job.size_bytes
        try:
            self.new.batcher.submit(twin, None)
        except Refused:
            self._dropped += 1
            return
        self._in_hand += 1
        job.reply = first

    def abandon(self, exchange: Exchange) -> None:
        """Never called: the exchange is told who really has it."""
        raise AssertionError("the exchange belongs to the old version")

    def close(self) -> None:
        """Ends the thread that compares, when it has compared what it has."""
        threading.Thread(target=self._pairs.put, args=(None,), daemon=True).start()

    def told(self) -> Shadow:
        """What came of it so far."""
        with self._lock:
            sums = self._sums
        return Shadow(
            compared=sums.compared, rows=sums.rows, changed=sums.changed,
            dropped=self._dropped, failed=self._failed,
            absolute=sums.absolute, relative=sums.relative,
            latency=sums.latency, beside=sums.beside,
        )  # fmt: skip

    def _match(self, found: dict[str, tuple[dict[str, Array], int]]) -> None:
        (old, old_ns), (new, new_ns) = found["old"], found["new"]
        try:
            if not old or not new:
                raise Full
            self._pairs.put_nowait(_Pair(old, new, old_ns, new_ns))
        except Full:
            self._dropped += 1

    def _compare(self) -> None:
        """On a thread of its own."""
        priority.lower()
        while (pair := self._pairs.get()) is not None:
            found = compared(pair.old, pair.new, self._outputs, batched=self._batched)
            latency, beside = Histogram.of([pair.new_ns]), Histogram.of([pair.old_ns])
            with self._lock:
                sums = self._sums
                self._sums = Shadow(
                    compared=sums.compared + 1,
                    rows=sums.rows + found.rows,
                    changed=sums.changed + found.changed,
                    absolute=_larger(sums.absolute, found.absolute),
                    relative=_larger(sums.relative, found.relative),
                    latency=Histogram.merged((sums.latency, latency)),
                    beside=Histogram.merged((sums.beside, beside)),
                )


def _larger(known: float | None, found: float) -> float | None:
    return None if known is None or np.isinf(found) else max(known, found)


class Difference(NamedTuple):
    """Between two versions' outputs of one request. `relative` is of the largest value of the
    output; `changed` of `rows` have another largest value, or are another text."""

    rows: int
    changed: int
    absolute: float
    relative: float


def compared(
    old: dict[str, Array], new: dict[str, Array], outputs: tuple[Tensor, ...], *, batched: bool
) -> Difference:
    """The largest differences over all outputs. A value that is no number on one side only, or
    another shape, is an infinite difference."""
    rows = changed = 0
    absolute = relative = 0.0
    for tensor in outputs:
        a, b = old[tensor.name], new[tensor.name]
        if not batched:
            a, b = a[None], b[None]
        rows = max(rows, len(a))
        if a.shape != b.shape:
            return Difference(len(a), len(a), np.inf, np.inf)
        if NUMPY[tensor.datatype] == np.object_:
            changed = max(changed, sum(not np.array_equal(x, y) for x, y in zip(a, b, strict=True)))
            continue
        x = np.asarray(wide(a, tensor.datatype), np.float64)
        y = np.asarray(wide(b, tensor.datatype), np.float64)
        if not x.size:
            continue
        with np.errstate(invalid="ignore"):
            gaps = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
        largest = float(np.nan_to_num(gaps, nan=np.inf).max())
        scale = float(np.abs(x[np.isfinite(x)]).max(initial=0.0))
        absolute = max(absolute, largest)
        relative = max(relative, largest / scale if scale else (np.inf if largest else 0.0))
        if x.ndim > 1 and x.shape[-1] > 1:
            other = x.argmax(-1) != y.argmax(-1)
            changed = max(changed, int(other.reshape(len(x), -1).any(1).sum()))
    return Difference(rows, changed, absolute, relative)
