"""A run as a table: one row a second, the columns that CSV and Parquet have in common.

Each event counts in the second in which it happened; latencies count from the due time and are of
the requests answered well in that second, so `failed` must be looked at beside them. What was not
measured is empty, never 0. Of several cards each has columns of its own, too.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from loadbench.histogram import Histogram
from loadbench.machine import Gpu, fullest, highest
from loadbench.model import Part, Window
from loadbench.report.export.source import Source
from loadbench.streams import TIMES, Stream
from loadbench.units import MS

Cell = int | float | str | None
Cards = Callable[[Window], Sequence[Gpu]]


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


def _of_cards(name: str, whose: tuple[str, str, str], cards: Cards) -> tuple[Column, ...]:
    """Three columns of the cards of a second; `whose` says how each chooses among them."""

    def busy(window: Window) -> Cell:
        card = highest(cards(window), lambda card: card.utilization)
        return card.utilization if card else None

    def used(window: Window) -> Cell:
        card = fullest(cards(window))
        return card.memory_used if card else None

    def power(window: Window) -> Cell:
        card = highest(cards(window), lambda card: card.power_w)
        return card.power_w if card else None

    return (
        Column(f"{name}_utilization", float, f"share of time, {whose[0]}", busy),
        Column(f"{name}_memory_bytes", int, f"used, {whose[1]}", used),
        Column(f"{name}_power_w", float, whose[2], power),
    )


def _serving(device: str) -> Cards:
    """Those that serve the model, or may; all where none is known to."""

    def cards(window: Window) -> Sequence[Gpu]:
        return (window.machine.on(device) or window.machine.gpus) if window.machine else ()

    return cards


def _called(title: str) -> Cards:
    def cards(window: Window) -> Sequence[Gpu]:
        return [one for one in window.machine.gpus if one.title == title] if window.machine else ()

    return cards


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
)
_SEVERAL = ("of several the busiest", "of several the fullest", "of several the highest")


def columns(found: Source) -> tuple[Column, ...]:
    """Those that all runs have, then those of each card where there are several."""
    machine = found.summary.machine
    titles = [card.title for card in machine.gpus] if machine else []
    each = [
        column
        for title in (titles if len(titles) > 1 else ())
        for column in _of_cards(_name(title), (f"GPU {title}",) * 3, _called(title))
    ]
    return (*COLUMNS, *_of_cards("gpu", _SEVERAL, _serving(found.summary.device)), *each)


def _name(title: str) -> str:
    """`gpu_0_mig_7`."""
    return re.sub(r"\W+", "_", f"gpu {title}".lower())


def names(found: Source) -> tuple[str, ...]:
    """Of what a row has."""
    return ("time", *(column.name for column in columns(found)))


def rows(found: Source) -> Iterator[tuple[Cell, ...]]:
    """The values as `names` has them; `time` is the second's beginning, ISO 8601 in UTC."""
    began, known = found.began_s, columns(found)
    for window in found.windows():
        yield (_time(began + window.second), *(column.of(window) for column in known))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
