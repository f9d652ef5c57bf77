"""A run as a table: one row a second, the columns that CSV and Parquet have in common.

Each event counts in the second in which it happened; latencies count from the due time and are of
the requests answered well in that second, so `failed` must be looked at beside them. What was not
measured is empty, never 0.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from loadbench.histogram import Histogram
from loadbench.model import Part, Window
from loadbench.report.export.source import Source
from loadbench.streams import TIMES, Stream
from loadbench.units import MS

Cell = int | float | str | None


class Column(NamedTuple):
    """`kind` is the type of its values: int, float or str."""

    name: str
    kind: type
    meaning: str
    of: Callable[[Window], Cell]


def _latency(share: float) -> Callable[[Window], Cell]:
    return lambda window: _ms(window.latency.quantile(share))


def _part(name: str) -> Callable[[Window], Cell]:
    def mean(window: Window) -> Cell:
        part: Part | None = getattr(window.server, name) if window.server else None
        return _ms(part.mean_ns) if part else None

    return mean


def _server(name: str) -> Callable[[Window], Cell]:
    return lambda window: getattr(window.server, name) if window.server else None


def _gpu(name: str) -> Callable[[Window], Cell]:
    """Of the first card."""

    def reading(window: Window) -> Cell:
        cards = window.machine.gpus if window.machine else ()
        found: Cell = getattr(cards[0], name) if cards else None
        return found

    return reading


def _tokens(of: Callable[[Stream], Histogram], share: float) -> Callable[[Window], Cell]:
    return lambda window: _ms(of(window.stream).quantile(share)) if window.stream else None


def _stream(name: str) -> Callable[[Window], Cell]:
    return lambda window: getattr(window.stream, name) if window.stream else None


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / MS


_ALONE = "of a second alone, which is too short for a band"
COLUMNS = (
    Column("second", int, "of the run, from 0 when its load began", lambda w: w.second),
    Column("stage", str, "load, or drain when no more requests fall due", lambda w: w.stage),
    Column("phase", int, "of the load, from 0", lambda w: w.phase),
    Column("rate", float, "requests/s that the schedule asks for", lambda w: w.rate),
    Column("asked", int, "requests due", lambda w: w.asked),
    Column("unsent", int, "due and given up before they were sent", lambda w: w.unsent),
    Column("sent", int, "requests sent", lambda w: w.sent),
    Column("done", int, "answered well", lambda w: w.done),
    Column("failed", int, "answered badly, or not at all", lambda w: sum(w.failed.values())),
    Column("lost", int, "sent by a worker that died", lambda w: w.lost),
    Column("in_flight", int, "sent and unanswered at the end of the second", lambda w: w.in_flight),
    Column("waiting", int, "due and unsent at the end of the second", lambda w: w.waiting),
    Column("latency_mean_ms", float, "from due to done", lambda w: _ms(w.latency.mean)),
    Column("latency_p50_ms", float, _ALONE, _latency(0.5)),
    Column("latency_p90_ms", float, _ALONE, _latency(0.9)),
    Column("latency_p95_ms", float, _ALONE, _latency(0.95)),
    Column("latency_p99_ms", float, _ALONE, _latency(0.99)),
    Column("latency_p99_9_ms", float, _ALONE, _latency(0.999)),
    Column("latency_max_ms", float, "", lambda w: _ms(w.latency.maximum)),
    *(
        Column(f"{name}_{percentile}_ms", float, meaning, _tokens(TIMES[name], share))
        for name, meaning in (
            ("first_token", f"from due to the first token; {_ALONE}"),
            ("token_gap", f"from one token to the next of the same answer; {_ALONE}"),
        )
        for percentile, share in (("p50", 0.5), ("p99", 0.99))
    ),
    Column("pieces", int, "of streamed answers that came; most servers: tokens", _stream("pieces")),
    Column("tokens", int, "of answers done, as the server counts them", _stream("tokens")),
    Column(
        "lateness_p99_ms",
        float,
        f"of the generator; {_ALONE}",
        lambda w: _ms(w.lateness.quantile(0.99)),
    ),
    Column("oldest_ms", float, "age of the oldest unanswered", lambda w: _ms(w.oldest_ns)),
    Column("queue_ms", float, "mean in the server's queue", _part("queue")),
    Column("batch_wait_ms", float, "mean wait for a batch to close", _part("batch_wait")),
    Column("compute_ms", float, "mean in the model", _part("compute")),
    Column("batches", int, "that the server ran", _server("batches")),
    Column("batch_rows", float, "mean rows of a batch", _server("mean_batch")),
    Column("cached", int, "answered from the server's response cache", _server("cached")),
    Column("cache_misses", int, "looked for there in vain", _server("cache_misses")),
    Column("shed", int, "refused by the server to keep its promise", _server("shed")),
    Column("queued", int, "in the server's queue at the end", _server("waiting")),
    Column("cpu", float, "share of all cores", lambda w: w.machine.cpu if w.machine else None),
    Column("memory_bytes", int, "used", lambda w: w.machine.memory_used if w.machine else None),
    Column("gpu_utilization", float, "share of time, first card", _gpu("utilization")),
    Column("gpu_memory_bytes", int, "used, first card", _gpu("memory_used")),
    Column("gpu_power_w", float, "first card", _gpu("power_w")),
)
NAMES = ("time", *(column.name for column in COLUMNS))


def rows(found: Source) -> Iterator[tuple[Cell, ...]]:
    """The values as NAMES names them; `time` is the second's beginning, ISO 8601 in UTC."""
    began = found.began_s
    for window in found.windows():
        yield (_time(began + window.second), *(column.of(window) for column in COLUMNS))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
