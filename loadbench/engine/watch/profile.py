"""A trace of the next batches, on request: Chrome's trace format, for ui.perfetto.dev.

What the batcher did is always in it: when each batch ran, how long its oldest request had waited,
why it closed. Of torch models torch's own profiler adds the operators, of one instance's batches.
"""

import os
import sys
import threading
import time
from asyncio import get_running_loop
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from numpy.typing import NDArray

from loadbench.engine.backends import Arrays, Model
from loadbench.engine.batcher import Batcher
from loadbench.engine.exchange import Exchange, response
from loadbench.engine.forwarding import Forwarding
from loadbench.engine.statistics import RECENT
from loadbench.engine.tensors import Refused
from loadbench.engine.watch.finite import parts_of
from loadbench.inside import Batch
from loadbench.units import US

MOST_BATCHES = RECENT  # so many are remembered
MOST_S = 60.0
LOOK_S = 0.02
PROCESS = 1
T = TypeVar("T")


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


class Profiling(Forwarding):
    """The call that asks for one, as a connection hands it over."""

    busy = False  # torch has one profiler for the whole process

    def __init__(self, batcher: Callable[[], Batcher], *, allowed: bool) -> None:
        """`batcher` raises Refused if there is none."""
        self._batcher = batcher
        self._allowed = allowed

    def infer(self, exchange: Exchange, data: bytes, start: int) -> None:
        """The answer comes when the batches have run. Raises Refused."""
        if not self._allowed:
            raise Refused(403, "other machines reach this engine: it makes no profiles for them")
        if exchange.of_page:
            raise Refused(403, "no profiles are made for web pages, which may be anyone's")
        wish = wanted(data[start:])
        batcher = self._batcher()
        if Profiling.busy:
            raise Refused(503, "another profile is being taken")
        Profiling.busy = True
        loop = get_running_loop()
        torch = any(map(_is_torch, batcher.models))
        # torch's profiler takes seconds to begin for the first time: no batch is to wait for it
        ready = loop.run_in_executor(None, partial(_profiled, int) if torch else int)
        ready.add_done_callback(lambda _: _take(batcher, wish, exchange))

    def abandon(self, exchange: Exchange) -> None:
        """The profile ends by itself."""


def _take(batcher: Batcher, wish: Wanted, exchange: Exchange) -> None:
    """Answers with the trace when the batches have run."""
    loop = get_running_loop()
    first = max((batch.number for batch in batcher.account.recent()), default=-1)
    until = time.monotonic() + wish.seconds
    operators = Operators()
    batcher.replace(lambda model: Recorded(model, operators))

    def look() -> None:
        batches = [batch for batch in batcher.account.recent() if batch.number > first]
        if len(batches) < wish.batches and time.monotonic() < until:
            loop.call_later(LOOK_S, look)
            return
        batcher.replace(lambda model: model.inner if isinstance(model, Recorded) else model)
        Profiling.busy = False
        exchange.answer(response(200, trace(batches[: wish.batches], operators.events)))

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

    launcher = None  # its batches are run, one after the other: else they would go by `run`

    def __init__(self, inner: Model, operators: Operators) -> None:
        self.inner = inner
        self._operators = operators
        self._torch = _is_torch(inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        if not self._torch or not self._operators.mine():
            return self.inner.run(arrays)
        found, events = _profiled(lambda: self.inner.run(arrays))
        self._operators.events.extend(events)
        return found


def _is_torch(model: Model) -> bool:
    """Whether torch runs it, or a part of it."""
    return any("pytorch" in part.platform for part in parts_of(model))


def _profiled(work: Callable[[], T]) -> tuple[T, list[dict[str, Any]]]:
    """What the work gives, and the operators that it ran on this thread."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it tells of every batch on stderr otherwise
    import torch.profiler as torch_profiler

    untyped: Any = torch_profiler
    kinds = untyped.ProfilerActivity
    wanted = {kinds.CPU, kinds.CUDA} & untyped.supported_activities()
    with untyped.profile(activities=wanted) as profiler:
        found = work()
    return found, list(_operators(profiler))


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


def trace(batches: Sequence[Batch], operators: Iterable[dict[str, Any]]) -> bytes:
    """The trace as JSON. Times are µs."""
    events: list[dict[str, Any]] = [
        _named("process_name", 0, f"loadbench {' '.join(sys.argv[1:2])}".strip()),
        _named("thread_name", 0, "batches"),
        _named("thread_name", 1, "operators"),
        _named("thread_name", 2, "operators on the GPU"),
        _named("thread_name", 3, "the oldest request waits"),
    ]
    end = max((batch.started + batch.compute_ns for batch in batches), default=0) / US
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
    return msgspec.json.encode(
        {
            "traceEvents": [*events, *(one for one in operators if one["ts"] <= end)],
            "displayTimeUnit": "ms",
        }
    )


def _span(name: str, row: int, start: int, length: int, about: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name, "cat": "batcher", "ph": "X", "pid": PROCESS, "tid": row,
        "ts": start / US, "dur": length / US, "args": about,
    }  # fmt: skip


def _named(kind: str, row: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": PROCESS, "tid": row, "args": {"name": name}}
