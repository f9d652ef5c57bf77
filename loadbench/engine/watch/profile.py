"""A trace of the next batches, on request: Chrome's trace format, for ui.perfetto.dev.

What the batcher did is always in it: when each batch ran, how long its oldest request had waited,
why it closed. Of torch models torch's own profiler adds the operators, of one instance's batches.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from numpy.typing import NDArray

from loadbench.engine.backends import Arrays, Model
from loadbench.engine.batcher import Batcher, Loop
from loadbench.engine.statistics import RECENT
from loadbench.engine.tensors import Refused
from loadbench.inside import Batch
from loadbench.units import US

MOST_BATCHES = RECENT  # so many are remembered
MOST_S = 60.0
LOOK_S = 0.02
PROCESS = 1


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked for: so many batches, but no longer than that."""

    batches: int = 20
    seconds: float = 10.0


def wanted(body: bytes) -> Wanted:
    """Raises Refused for what is no sensible wish."""
    try:
        found = msgspec.json.decode(body or b"{}", type=Wanted)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, f"not a profile request: {error}") from error
    if not 1 <= found.batches <= MOST_BATCHES or not 0 < found.seconds <= MOST_S:
        raise Refused(400, f"batches goes up to {MOST_BATCHES}, seconds up to {MOST_S:g}")
    return found


class Profiler:
    """Takes one profile at a time of what a batcher does. For the event loop's thread."""

    def __init__(self, batcher: Batcher, loop: Loop) -> None:
        self._batcher = batcher
        self._loop = loop
        self._busy = False

    def take(self, wish: Wanted, answer: Callable[[bytes], None]) -> None:
        """`answer` gets the trace when it is whole. Raises Refused while another is taken."""
        if self._busy:
            raise Refused(503, "another profile is being taken")
        self._busy = True
        batcher = self._batcher
        before = batcher.account.recent()
        first = before[-1].number if before else -1
        until = time.monotonic() + wish.seconds
        recorder = Operators()
        batcher.replace(lambda model: Recorded(model, recorder))

        def look() -> None:
            batches = [batch for batch in batcher.account.recent() if batch.number > first]
            if len(batches) < wish.batches and time.monotonic() < until:
                self._loop.call_later(LOOK_S, look)
                return
            batcher.replace(lambda model: model.inner if isinstance(model, Recorded) else model)
            self._busy = False
            answer(trace(batches[: wish.batches], recorder.events))

        look()


class Operators:
    """torch's operators in batches that one thread runs."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._thread = 0

    def mine(self) -> bool:
        """Whether it is this thread whose operators are recorded: the first that asks."""
        with self._lock:
            self._thread = self._thread or threading.get_ident()
            return self._thread == threading.get_ident()


class Recorded:
    """A Model in place of another one while a profile is taken. torch's profiler is started anew
    for each batch: it must end in the thread in which it began, and a next batch may never come."""

    def __init__(self, inner: Model, operators: Operators) -> None:
        self.inner = inner
        self._operators = operators

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        if "pytorch" not in self.inner.platform or not self._operators.mine():
            return self.inner.run(arrays)
        import torch.profiler as torch_profiler

        untyped: Any = torch_profiler
        kinds = untyped.ProfilerActivity
        wanted = {kinds.CPU, kinds.CUDA} & untyped.supported_activities()
        with untyped.profile(activities=wanted) as profiler:
            found = self.inner.run(arrays)
        self._operators.events.extend(_operators(profiler))
        return found


def _operators(profiler: Any) -> Iterable[dict[str, Any]]:
    """On the monotonic clock, as the batches are; torch counts from its start, by the wall's."""
    offset = profiler.profiler.kineto_results.trace_start_ns() - time.time_ns()
    begun = (offset + time.monotonic_ns()) / US
    for event in profiler.events():
        span = event.time_range
        yield {
            "name": event.name, "cat": "torch", "ph": "X", "pid": PROCESS,
            "tid": 2 if str(event.device_type).endswith("CUDA") else 1,
            "ts": begun + span.start, "dur": span.elapsed_us(),
        }  # fmt: skip


def trace(batches: Iterable[Batch], operators: Iterable[dict[str, Any]]) -> bytes:
    """The trace as JSON. Times are µs."""
    events: list[dict[str, Any]] = [
        _named("process_name", 0, f"loadbench {' '.join(sys.argv[1:2])}".strip()),
        _named("thread_name", 0, "batches"),
        _named("thread_name", 1, "operators"),
        _named("thread_name", 2, "operators on the GPU"),
        _named("thread_name", 3, "the oldest request waits"),
    ]
    for batch in batches:
        about = {
            "rows": batch.rows, "requests": batch.requests, "padded": batch.padded,
            "reason": batch.reason, "number": batch.number, "shed": batch.shed,
            "predicted_ms": (batch.predicted_ns or 0) / 1e6,
        }  # fmt: skip
        name = f"{batch.rows} row{'s' if batch.rows != 1 else ''}, {batch.reason}"
        events.append(_span(name, 0, batch.started, batch.compute_ns, about))
        begun = batch.started - batch.oldest_wait_ns
        events.append(_span("waits", 3, begun, batch.oldest_wait_ns, {"number": batch.number}))
    return msgspec.json.encode({"traceEvents": [*events, *operators], "displayTimeUnit": "ms"})


def _span(name: str, row: int, start: int, length: int, about: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name, "cat": "batcher", "ph": "X", "pid": PROCESS, "tid": row,
        "ts": start / US, "dur": length / US, "args": about,
    }  # fmt: skip


def _named(kind: str, row: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": PROCESS, "tid": row, "args": {"name": name}}
