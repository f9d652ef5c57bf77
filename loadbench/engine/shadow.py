"""A shadow: a new version runs what the old one is asked, its answers are compared and thrown away.

Whoever asks is answered by the old version and waits for nothing else; what the shadow cannot keep
up with is left out and counted. The comparison has a thread of its own, at a low priority.
"""

import threading
import time
from queue import Full, Queue
from typing import NamedTuple

import numpy as np

from loadbench import priority
from loadbench.engine.endpoint import Endpoint
from loadbench.engine.exchange import Exchange
from loadbench.engine.forwarding import Forwarding
from loadbench.engine.job import Job, Served
from loadbench.engine.tensors import Array, Refused
from loadbench.histogram import Histogram
from loadbench.inside import Shadow
from loadbench.judge.answers import compared

MOST = 64  # requests that the shadow may have in hand, and pairs that wait to be compared
MOST_BYTES = 4 << 20  # of outputs in one pair: larger ones are not kept for comparing


class _Half(NamedTuple):
    """One request's outputs from one version, and how long (ns) it took."""

    outputs: dict[str, Array]
    ns: int

    @classmethod
    def of(cls, outputs: dict[str, Array], ns: int) -> "_Half":
        """A copy: the batch that they are part of need not live on. Large ones are left out."""
        small = sum(array.nbytes for array in outputs.values()) <= MOST_BYTES
        return cls({name: array.copy() for name, array in outputs.items()} if small else {}, ns)


def _over(result: Served | Refused) -> bool:
    raise AssertionError("answered twice")


class Mirror(Forwarding):
    """Answers the requests that name no version by the old one, and asks the new one too."""

    def __init__(self, old: Endpoint, new: Endpoint) -> None:
        self.old, self.new = old, new
        self._outputs = tuple(new.signature.outputs.values())
        self._batched = new.signature.batched
        self._in_hand = 0
        self._dropped = self._failed = 0  # both by the event loop's thread only
        self._pairs: Queue[tuple[_Half, _Half] | None] = Queue(MOST)
        self._lock = threading.Lock()
        self._sums = Shadow()
        threading.Thread(target=self._compare, name="shadow", daemon=True).start()

    def infer(self, exchange: Exchange, data: bytes, start: int) -> None:
        """Passes a request on to the old version, and a twin of it to the new one. Raises Refused.
        """  # fmt: skip
        pair: dict[str, _Half] = {}
        began, reply = time.monotonic_ns(), exchange.reply

        def ended(side: str, result: Served | Refused) -> None:
            if isinstance(result, Served):
                pair[side] = _Half.of(result.outputs, time.monotonic_ns() - began)
                self._match(pair)

        def first(result: Served | Refused) -> bool:
            good = reply(result)
            exchange.reply = _over  # nothing holds itself
            ended("old", result)
            return good

        def second(result: Served | Refused) -> bool:
            self._in_hand -= 1
            self._failed += isinstance(result, Refused)
            ended("new", result)
            return isinstance(result, Served)

        exchange.endpoint = self.old
        if self._in_hand >= MOST:
            self._dropped += 1
            self.old.infer(exchange, data, start)
            return
        exchange.reply = first
        self.old.infer(exchange, data, start)
        if exchange.endpoint is not None:  # not refused at once
            # Copies: shared memory is the client's again once it has its answer
            arrays = {name: array.copy() for name, array in exchange.arrays.items()}
            self._ask(Job(arrays, exchange.rows, exchange.shapes, second), exchange)

    def _ask(self, twin: Job, exchange: Exchange) -> None:
        twin.size_bytes = exchange.size_bytes
        try:
            self.new.ask(twin, None)
        except Refused:
            self._dropped += 1
        else:
            self._in_hand += 1

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

    def _match(self, pair: dict[str, "_Half"]) -> None:
        if len(pair) < 2:
            return
        old, new = pair["old"], pair["new"]
        try:
            if not old.outputs or not new.outputs:
                raise Full
            self._pairs.put_nowait((old, new))
        except Full:
            self._dropped += 1

    def _compare(self) -> None:
        """On a thread of its own."""
        priority.lower()
        while (pair := self._pairs.get()) is not None:
            old, new = pair
            found = compared(old.outputs, new.outputs, self._outputs, batched=self._batched)
            latency, beside = Histogram.of([new.ns]), Histogram.of([old.ns])
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
