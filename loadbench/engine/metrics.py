"""/metrics: the engine's statistics and the machine's readings in Prometheus' text format.

What Triton measures too has Triton's names, so that its dashboards and perf_analyzer's
--collect-metrics find it; what only this engine knows begins with `loadbench_`. Everything counts
from the start of the engine, as its statistics do.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from loadbench.histogram import Histogram
from loadbench.inside import EngineStatistics
from loadbench.model import Machine
from loadbench.units import SECOND, US

KIND = "text/plain; version=0.0.4; charset=utf-8"
_TIMES_NS = tuple(  # bounds of the buckets of times: 100 µs to 10 s
    round(step * 10**decade)
    for decade in range(5, 11)
    for step in ((1, 2.5, 5) if decade < 10 else (1,))
)
_SIZES = tuple(1 << bit for bit in range(13))
_REASONS = {"cancelled": "CANCELED"}  # of Triton's failures; the engine's others are "REJECTED"

Labels = Mapping[str, Any]


class Page:
    """A page in the making: families of samples, each family in one piece."""

    def __init__(self) -> None:
        self._families: dict[str, list[str]] = {}

    def add(self, kind: str, name: str, text: str, labels: Labels, value: float) -> None:
        """One sample of a counter or gauge."""
        self._family(kind, name, text).append(_sample(name, labels, value))

    def histogram(
        self, name: str, text: str, labels: Labels, bounds: Sequence[float], counts: Sequence[int],
        total: float,
    ) -> None:  # fmt: skip
        """A histogram: `counts` of the values up to each bound, and one more of all of them."""
        family = self._family("histogram", name, text)
        for bound, count in zip((*bounds, "+Inf"), counts, strict=True):
            edge = bound if isinstance(bound, str) else f"{bound:g}"
            family.append(_sample(f"{name}_bucket", {**labels, "le": edge}, count))
        family.append(_sample(f"{name}_sum", labels, total))
        family.append(_sample(f"{name}_count", labels, counts[-1]))

    def _family(self, kind: str, name: str, text: str) -> list[str]:
        family = self._families.get(name)
        if family is None:
            family = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            self._families[name] = family
        return family

    def text(self) -> str:
        """The page."""
        return "".join(f"{line}\n" for family in self._families.values() for line in family)


def _sample(name: str, labels: Labels, value: float) -> str:
    inner = ",".join(f'{key}="{_escaped(str(text))}"' for key, text in labels.items())
    number = f"{value:d}" if isinstance(value, int) else f"{value:.9g}"
    return f"{name}{{{inner}}} {number}" if inner else f"{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def page(models: Iterable[Mapping[str, Any]], machine: Machine) -> bytes:
    """The whole page. `models` are statistics as `Endpoint.statistics` gives them."""
    found = Page()
    for entry in models:
        labels = {"model": entry["name"], "version": entry["version"]}
        _as_triton(found, entry, labels)
        ours = entry["loadbench"]
        _batches(found, ours, labels)
        _waits(found, ours, labels)
    _machine(found, machine)
    return found.text().encode()


def _as_triton(found: Page, entry: Mapping[str, Any], labels: Labels) -> None:
    stats, ours = entry["inference_stats"], entry["loadbench"]
    failures = {"REJECTED": 0, "CANCELED": 0, "BACKEND": ours.failed, "OTHER": 0}
    for reason, count in ours.shed.items():
        failures[_REASONS.get(reason, "REJECTED")] += count
    success = "Number of successful inference requests, all batch sizes"
    found.add("counter", "nv_inference_request_success", success, labels, stats["success"]["count"])
    for reason, count in failures.items():
        found.add(
            "counter", "nv_inference_request_failure",
            "Number of failed inference requests, all batch sizes",
            {**labels, "reason": reason}, count,
        )  # fmt: skip
    for name, text, value in (
        ("count", "Number of inferences performed (does not include cached requests)",
         entry["inference_count"]),
        ("exec_count", "Number of model executions performed (does not include cached requests)",
         entry["execution_count"]),
        ("request_duration_us", "Cumulative inference request duration in microseconds",
         stats["success"]["ns"] // US),
        ("queue_duration_us", "Cumulative inference queuing duration in microseconds",
         stats["queue"]["ns"] // US),
        ("compute_input_duration_us", "Cumulative compute input duration in microseconds",
         stats["compute_input"]["ns"] // US),
        ("compute_infer_duration_us", "Cumulative compute inference duration in microseconds",
         stats["compute_infer"]["ns"] // US),
        ("compute_output_duration_us", "Cumulative inference compute output duration in "
         "microseconds", stats["compute_output"]["ns"] // US),
    ):  # fmt: skip
        found.add("counter", f"nv_inference_{name}", text, labels, value)
    if ours.cache is not None:
        _cache(found, stats, labels)
    text = "Instantaneous number of pending requests awaiting execution per-model."
    found.add("gauge", "nv_inference_pending_request_count", text, labels, ours.waiting)


def _cache(found: Page, stats: Mapping[str, Any], labels: Labels) -> None:
    for what, part in (("hit", stats["cache_hit"]), ("miss", stats["cache_miss"])):
        plural = {"hit": "hits", "miss": "misses"}[what]
        text = f"Number of cache {plural} per model"
        found.add("counter", f"nv_cache_num_{plural}_per_model", text, labels, part["count"])
        text = f"Total cache {what} duration per model, in microseconds"
        found.add("counter", f"nv_cache_{what}_duration_per_model", text, labels, part["ns"] // US)


def _batches(found: Page, ours: EngineStatistics, labels: Labels) -> None:
    for reason, sizes in sorted(ours.closed.items()):
        counts = [sum(n for size, n in sizes.items() if size <= bound) for bound in _SIZES]
        rows = sum(size * n for size, n in sizes.items())
        found.histogram(
            "loadbench_batch_rows", "Rows of the batches that ran, by why they were closed",
            {**labels, "reason": reason}, _SIZES, [*counts, sum(sizes.values())], rows,
        )  # fmt: skip
    for reason, count in sorted(ours.shed.items()):
        text = "Requests refused or given up before they ran, by why"
        found.add("counter", "loadbench_shed_total", text, {**labels, "reason": reason}, count)
    for kind, name, text, value in (
        ("counter", "failed_total", "Requests that ran and got no good answer", ours.failed),
        ("counter", "padded_rows_total", "Rows that were run only to fill a batch up",
         ours.padded_rows),
        ("counter", "wasted_rows_total", "Rows that ran for clients that were gone",
         ours.wasted_rows),
        ("counter", "busy_seconds_total", "Time in which batches ran, over all instances",
         ours.busy_ns / SECOND),
        ("gauge", "instances", "Batches that can run at once", ours.instances),
        ("gauge", "max_batch_rows", "Rows of a batch at most", ours.max_batch),
    ):  # fmt: skip
        found.add(kind, f"loadbench_{name}", text, labels, value)
    info = {"policy": ours.policy, "device": ours.device, "precision": ours.precision}
    text = "What the model runs on, and by which policy; always 1"
    found.add("gauge", "loadbench_model_info", text, {**labels, **info}, 1)


def _waits(found: Page, ours: EngineStatistics, labels: Labels) -> None:
    for name, text, values in (
        ("queue", "Time requests waited while every instance was busy", ours.queue),
        ("batch_wait", "Time requests waited for others while an instance was free",
         ours.batch_wait),
        ("compute", "Time from the start of a request's batch to its outputs", ours.compute),
    ):  # fmt: skip
        bounds = [bound / SECOND for bound in _TIMES_NS]
        total = values.total / SECOND
        name = f"loadbench_{name}_seconds"
        found.histogram(name, text, labels, bounds, _up_to(values, _TIMES_NS), total)


def _up_to(values: Histogram, bounds: Sequence[int]) -> list[int]:
    """How many values do not exceed each bound, and how many there are."""
    edges, counts = values.buckets()
    summed = np.concatenate(([0], np.cumsum(counts)))
    return [*summed[np.searchsorted(edges, bounds, side="right")].tolist(), values.count]


def _machine(found: Page, machine: Machine) -> None:
    for name, text, value in (
        ("utilization", "CPU utilization rate [0.0 - 1.0]", machine.cpu),
        ("memory_total_bytes", "CPU total memory (RAM), in bytes", machine.memory_total),
        ("memory_used_bytes", "CPU used memory (RAM), in bytes", machine.memory_used),
    ):
        if value is not None:
            found.add("gauge", f"nv_cpu_{name}", text, {}, value)
    for card in machine.gpus:
        for name, text, value in (
            ("utilization", "GPU utilization rate [0.0 - 1.0)", card.utilization),
            ("memory_total_bytes", "GPU total memory, in bytes", card.memory_total),
            ("memory_used_bytes", "GPU used memory, in bytes", card.memory_used),
            ("power_usage", "GPU power usage in watts", card.power_w),
        ):
            if value is not None:
                found.add("gauge", f"nv_gpu_{name}", text, {"gpu_uuid": card.uuid}, value)
