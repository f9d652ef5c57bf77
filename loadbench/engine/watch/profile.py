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
from loadbench.engine.tensors import Refused
from loadbench.inside import Batch
from loadbench.units import US

MOST_BATCHES = 1000
MOST_S = 60.0
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


class Profiled:
    """A Model in place of another one, for so many batches; `done` is called once, from whatever
    thread, after the last one or by `end`."""

    def __init__(self, inner: Model, batches: int, done: Callable[[], None]) -> None:
        self.inner = inner
        self.operators: list[dict[str, Any]] = []
        self._left = batches
        self._done = done
        self._lock = threading.Lock()
        self._profiler: Any = None
        self._thread = 0  # the one whose operators are recorded

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        with self._lock:
            if self._left > 0 and not self._thread:
                self._thread = threading.get_ident()
                self._profiler = _started() if "torch" in self.inner.platform else None
        try:
            return self.inner.run(arrays)
        finally:
            with self._lock:
                self._left -= 1
                last = self._left == 0
            if self._left <= 0 and self._thread == threading.get_ident():
                self._stop()
            if last:
                self._done()

    def _stop(self) -> None:
        profiler, self._profiler = self._profiler, None
        if profiler is not None:
            profiler.__exit__(None, None, None)
            self.operators = list(_operators(profiler))


def _started() -> Any:
    """torch's profiler, recording this thread."""
    import torch.profiler as torch_profiler

    untyped: Any = torch_profiler
    kinds = untyped.ProfilerActivity
    wanted = {kinds.CPU, kinds.CUDA} & untyped.supported_activities()
    return untyped.profile(activities=wanted).__enter__()


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
