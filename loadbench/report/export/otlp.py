"""A run as OpenTelemetry metrics: OTLP in its JSON form, with a point for every second.

That form of the protocol is documented and stable, so a collector takes it at /v1/metrics without
the SDK being here (which could not give points their past times). Counts and histograms are deltas
of one second; 64-bit numbers are texts, as OTLP/JSON wants them.
"""

import json
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

from loadbench import __version__
from loadbench.histogram import Histogram
from loadbench.model import Window
from loadbench.report.export.prometheus import BOUNDS_S
from loadbench.report.export.source import Source
from loadbench.units import SECOND

PATH = "/v1/metrics"
_SECONDS = 600  # of a run in one message: below what collectors take
_DELTA = 1  # AGGREGATION_TEMPORALITY_DELTA
Json = dict[str, Any]


def otlp_messages(found: Source) -> Iterator[bytes]:
    """ExportMetricsServiceRequests, each one line of JSON; ten minutes of the run each."""
    began = round(found.began_s * SECOND)
    windows = found.windows()
    while part := list(islice(windows, _SECONDS)):
        yield json.dumps(_message(found, part, began), ensure_ascii=False).encode()


def otlp_bytes(found: Source) -> bytes:
    """The same as a file, a line each: what the collector's file receiver reads."""
    return b"".join(message + b"\n" for message in otlp_messages(found))


def _message(found: Source, windows: list[Window], began: int) -> Json:
    scope = {"name": "loadbench", "version": __version__}
    metrics = list(_metrics(windows, began))
    resource = {"attributes": _attributes(_identity(found))}
    return {
        "resourceMetrics": [
            {"resource": resource, "scopeMetrics": [{"scope": scope, "metrics": metrics}]}
        ]
    }


def _identity(found: Source) -> dict[str, str]:
    summary = found.summary
    told = {
        "service.name": "loadbench",
        "service.version": __version__,
        "loadbench.run": summary.run,
        "loadbench.scenario": summary.scenario,
        "loadbench.target": summary.target,
        "loadbench.device": summary.device,
        "loadbench.trust": summary.trust,
        "vcs.ref.head.revision": str(found.snapshot.get("commit") or ""),
    }
    return {name: value for name, value in told.items() if value}


def _metrics(windows: list[Window], began: int) -> Iterator[Json]:
    asked = [{**_span(window, began), **_count(window.asked)} for window in windows]
    yield _sum("loadbench.asked", "Requests that fell due.", asked)
    points = [
        {**_span(window, began), **_count(number), **_of("outcome", outcome)}
        for window in windows
        for outcome, number in _outcomes(window).items()
    ]
    yield _sum("loadbench.requests", "Requests that ended, by what came of them.", points)
    failed = [
        {**_span(window, began), **_count(number), **_of("failure", failure)}
        for window in windows
        for failure, number in window.failed.items()
    ]
    if failed:
        yield _sum("loadbench.failures", "Requests that failed, by how.", failed)
    yield _times(
        "loadbench.latency",
        "From the due time to the answer, of requests answered well.",
        [(window, window.latency) for window in windows],
        began,
    )
    streams = [(window, window.stream) for window in windows if window.stream]
    if streams:
        first = [(window, stream.first) for window, stream in streams]
        yield _times("loadbench.first_token", "From the due time to the first.", first, began)
        gaps = [(window, stream.gaps) for window, stream in streams]
        yield _times("loadbench.token_gap", "From one token to the next.", gaps, began)
        points = [{**_span(window, began), **_count(stream.pieces)} for window, stream in streams]
        yield _sum("loadbench.pieces", "Pieces of answers, most often tokens.", points, "{token}")
    now = [{**_span(window, began), **_count(window.in_flight)} for window in windows]
    yield {
        "name": "loadbench.in_flight",
        "description": "Requests sent and unanswered at the end of the second.",
        "unit": "{request}",
        "gauge": {"dataPoints": now},
    }


def _outcomes(window: Window) -> dict[str, int]:
    failed = sum(window.failed.values())
    return {"done": window.done, "failed": failed, "unsent": window.unsent, "lost": window.lost}


def _sum(name: str, meaning: str, points: list[Json], unit: str = "{request}") -> Json:
    told = {"aggregationTemporality": _DELTA, "isMonotonic": True, "dataPoints": points}
    return {"name": name, "description": meaning, "unit": unit, "sum": told}


def _times(name: str, meaning: str, found: list[tuple[Window, Histogram]], began: int) -> Json:
    points = [_histogram(window, values, began) for window, values in found]
    told = {"aggregationTemporality": _DELTA, "dataPoints": points}
    return {"name": name, "description": meaning, "unit": "s", "histogram": told}


def _span(window: Window, began: int) -> Json:
    start = began + window.second * SECOND
    return {"startTimeUnixNano": str(start), "timeUnixNano": str(start + SECOND)}


def _count(number: int) -> Json:
    return {"asInt": str(number)}


def _of(name: str, value: str) -> Json:
    return {"attributes": _attributes({name: value})}


def _attributes(told: dict[str, str]) -> list[Json]:
    return [{"key": name, "value": {"stringValue": value}} for name, value in told.items()]


def _histogram(window: Window, values: Histogram, began: int) -> Json:
    below = [values.count - values.over(round(bound * SECOND)) for bound in BOUNDS_S]
    edges = [0, *below, values.count]
    counts = [high - low for low, high in pairwise(edges)]
    return {
        **_span(window, began),
        "count": str(values.count),
        "sum": values.total / SECOND,
        "bucketCounts": [str(number) for number in counts],
        "explicitBounds": list(BOUNDS_S),
    }
