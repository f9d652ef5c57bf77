"""The figures that runs are compared by: where each stands in a summary, and when it is bad."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from msgspec import convert

from loadbench.machine import Gpu, Machine, fullest
from loadbench.streams import TIMES

Summary = Mapping[str, Any]


class Metric(NamedTuple):
    """`unit` is "%" for what is a share: that has no shift, and no verdict."""

    name: str
    unit: str
    path: tuple[str, ...]
    larger_is_worse: bool = True

    @property
    def of_order(self) -> bool:
        """Whether it is a percentile."""
        return self.path[-1] in _PERCENTILES


_PERCENTILES = ("p50", "p90", "p95", "p99", "p99_9")


METRICS = (
    Metric("throughput", "/s", ("rate", "done"), larger_is_worse=False),
    Metric("p50", "ms", ("latency_ms", "p50")),
    Metric("p90", "ms", ("latency_ms", "p90")),
    Metric("p95", "ms", ("latency_ms", "p95")),
    Metric("p99", "ms", ("latency_ms", "p99")),
    Metric("p99.9", "ms", ("latency_ms", "p99_9")),
    Metric("tokens", "/s", ("tokens", "per_s"), larger_is_worse=False),
    *(
        Metric(f"{name}_{percentile}", "ms", ("tokens", f"{name}_ms", percentile))
        for name in TIMES
        for percentile in ("p50", "p99")
    ),
    Metric("on time", "%", ("on_time",), larger_is_worse=False),
    Metric("failed", "%", ("failed",)),
    Metric("queue", "ms", ("server", "queue_ms", "mean")),
    Metric("batch wait", "ms", ("server", "batch_wait_ms", "mean")),
    Metric("compute", "ms", ("server", "compute_ms", "mean")),
    Metric("per batch", "", ("server", "batch", "mean")),
    Metric("CPU", "%", ("machine", "cpu")),
    Metric("memory", "MiB", ("memory",)),
    Metric("energy", "J/request", ("energy",)),
    Metric("lateness p99", "ms", ("lateness_ms", "p99")),
)
BY_NAME = {metric.name: metric for metric in METRICS}
# what a margin can be given for: measured of the served, and larger or smaller by a factor
GATED = tuple(
    metric.name for metric in METRICS if metric.unit not in ("", "%") and metric.path[0] != "server"
)


_IN_TIME = 0.97  # of the rate that was asked for
_UNDER_WAY = 1.5  # times what is open by Little's law: of a queue that grows it is twice as much


def at(tree: Any, path: Iterable[str]) -> Any:
    """What stands at a path of keys in plain values; None where there is nothing."""
    for key in path:
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(key)
    return tree


def value(metric: Metric, summary: Summary) -> float | None:
    """The figure; None if the run has none, infinite if it is among the requests not answered
    well."""
    match metric.name:
        case "failed":
            asked = summary["asked"]
            return 1 - summary["done"] / asked if asked else None
        case "memory":
            return _memory(summary)
        case "energy":
            return _energy(summary)
    found = at(summary, metric.path)
    if found is None:
        return float("inf") if _among_the_failed(metric, summary) else None
    return float(found)


def _among_the_failed(metric: Metric, summary: Summary) -> bool:
    """Whether a percentile that has no number has none because too many did not get there."""
    if metric.path[0] == "latency_ms":
        return bool(summary["asked"])
    return metric.path[:2] == ("tokens", "first_token_ms") and bool(summary.get("tokens"))


def band(metric: Metric, summary: Summary) -> tuple[float, float | None] | None:
    """Where a percentile lies at 95 %, in ms; None where that is not known, and of what is none."""
    if metric.path[0] == "latency_ms":
        found = at(summary, ("bands_ms", metric.path[1]))
    else:
        found = at(summary, ("more_bands_ms", *metric.path[-2:]))
    return None if found is None else (found[0], found[1])


def why_no_band(metric: Metric, summary: Summary) -> str:
    """Why a percentile has none; "" where that was not told, and of what is no percentile."""
    return str(at(summary, ("no_bands", *metric.path[-2:])) or "") if metric.of_order else ""


def kept_up(summary: Summary) -> bool:
    """Whether what was asked was served: no queue grew, nothing was left out or failed, and it was
    done while it was asked, not only when the load was over."""
    overloaded = any(note["code"] == "overloaded" for note in summary["notes"])
    whole = summary["done"] >= 0.99 * summary["asked"]
    return whole and not overloaded and in_time(summary)


def in_time(summary: Summary) -> bool:
    """Whether as much was done while the load was on as was asked then, but for what is always
    under way as it ends: of a short run with slow answers that is much of it."""
    asked, done = (at(summary, ("rate", name)) for name in ("asked", "done"))
    if asked is None or done is None or done >= _IN_TIME * asked:
        return True
    seconds, mean_ms = summary.get("seconds"), at(summary, ("answered_ms", "mean"))
    if not seconds or mean_ms is None:
        return False
    return bool((asked - done) * seconds <= _UNDER_WAY * done * mean_ms / 1000)


def _memory(summary: Summary) -> float | None:
    """MiB: of the card that serves, of several the fullest; else of the engine's own process."""
    card = fullest(serving(summary))
    used = card.memory_used if card else None
    if used is None:
        used = at(summary, ("machine", "processes", "engine", "memory"))
    return None if used is None else used / 2**20


def _energy(summary: Summary) -> float | None:
    """Joules of the cards that serve for each request: watts by requests per second."""
    cards, rate = serving(summary), at(summary, ("rate", "done"))
    known = [card.power_w for card in cards if card.power_w is not None]
    watts = sum(known) if len(known) == len(cards) else None
    return watts / rate if watts and rate else None


def serving(summary: Summary) -> tuple[Gpu, ...]:
    """The cards that serve the model, or may; none on a CPU."""
    cards = convert(at(summary, ("machine", "gpus")) or (), tuple[Gpu, ...])
    told = bool(at(summary, ("machine", "told")))
    return Machine(gpus=cards, told=told).on(str(at(summary, ("device",)) or ""))
