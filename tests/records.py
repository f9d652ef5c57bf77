"""Windows and logs for tests, written out as the load and the runner would."""

from collections.abc import Sequence
from typing import Any

from loadbench.histogram import Histogram
from loadbench.model import Requests, Rule, Start, Window
from loadbench.units import MS, SECOND


def window(
    second: int,
    latencies_ms: Sequence[float] = (),
    failed: dict[str, int] | None = None,
    **fields: Any,
) -> Window:
    """A second in which requests with these latencies were answered and others failed."""
    latency = Histogram.of([round(value * MS) for value in latencies_ms])
    failures = failed or {}
    ended = len(latencies_ms) + sum(failures.values())
    given: dict[str, Any] = {
        "stage": "load",
        "asked": ended,
        "sent": ended,
        "rate": float(ended),
        **fields,
    }
    return Window(
        second=second,
        requests={"infer": Requests(len(latencies_ms), failures, latency, latency)},
        **given,
    )


def start(**fields: Any) -> Start:
    given: dict[str, Any] = {
        "run": "0001-steady-mlp",
        "scenario": "steady",
        "target": "local:mlp",
        "planned_ns": 3 * SECOND,
        "warmup_ns": 0,
        "limit_ns": 100 * MS,
        "rules": (Rule("p99", "p99", True, 100.0, 5 * SECOND),),
        "wall_time": "2026-01-01T12:00:00+00:00",
        **fields,
    }
    return Start(**given)
