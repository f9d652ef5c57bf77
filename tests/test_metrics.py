"""/metrics: valid in Prometheus' text format, and the same figures as the statistics."""

import re
from typing import Any

import numpy as np

from loadbench.engine import metrics
from loadbench.histogram import Histogram
from loadbench.inside import EngineStatistics
from loadbench.model import Gpu, Machine
from tests.served import Answer, request_binary, rows, serving, settings

Labels = frozenset[tuple[str, str]]
Family = dict[tuple[str, Labels], float]

_SAMPLE = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*",?)*)\})?'
    r" (-?[0-9.e+-]+|\+Inf|NaN)"
)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def parsed(text: str) -> dict[str, tuple[str, Family]]:
    """name → (type, samples). Holds the page to the format: every family said once, before its
    samples and in one piece; no sample twice; histograms rising up to +Inf, which is their count.
    """
    assert text.endswith("\n")
    families: dict[str, tuple[str, Family]] = {}
    lines = iter(text.splitlines())
    name = ""
    for line in lines:
        if line.startswith("# HELP "):
            name = line.split()[2]
            kind = next(lines).split()
            assert kind[:3] == ["#", "TYPE", name]
            assert name not in families, f"{name} comes in two pieces"
            assert kind[3] in ("counter", "gauge", "histogram")
            families[name] = (kind[3], {})
            continue
        found = _SAMPLE.fullmatch(line)
        assert found, line
        sample, labels, value = found.groups()
        kind_of, samples = families[name]
        endings = ("_bucket", "_sum", "_count") if kind_of == "histogram" else ("",)
        assert sample in [name + ending for ending in endings], line
        key = (sample, frozenset(_LABEL.findall(labels or "")))
        assert key not in samples, f"twice: {line}"
        samples[key] = float(value)
    for name, (kind_of, samples) in families.items():
        if kind_of == "histogram":
            rises(name, samples)
    return families


def rises(name: str, samples: Family) -> None:
    series: dict[Labels, list[tuple[float, float]]] = {}
    for (sample, labels), value in samples.items():
        if sample == f"{name}_bucket":
            edge = dict(labels)["le"]
            rest = labels - {("le", edge)}
            series.setdefault(rest, []).append((float(edge.replace("+Inf", "inf")), value))
    for labels, buckets in series.items():
        counts = [count for _, count in sorted(buckets)]
        assert counts == sorted(counts)
        assert max(buckets)[0] == float("inf")
        assert counts[-1] == samples[f"{name}_count", labels]
        assert (f"{name}_sum", labels) in samples


def value(families: dict[str, tuple[str, Family]], name: str, **labels: str) -> float:
    """The one sample that has these labels among its own."""
    family = families.get(name) or families[re.sub("_(bucket|sum|count)$", "", name)]
    found = [
        number
        for (sample, own), number in family[1].items()
        if sample == name and labels.items() <= dict(own).items()
    ]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_a_running_engine_tells_its_statistics() -> None:
    arguments = settings("fake.a=2 ms", "max_batch=4")
    with serving("fake", *arguments) as engine:
        for number in (1, 3, 6):
            body, headers = request_binary(rows(number))
            assert engine.call("/v2/models/fake/infer", body, **headers).status == 200
        late = engine.call("/v2/models/fake/infer", *impatient())
        assert late.status == 503
        page: Answer = engine.call("/metrics")
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        found = parsed(page.body.decode())
        told = engine.stats()
        assert engine.call("/metrics", b"").status == 405
    own = {"model": "fake", "version": "1"}
    success = told["inference_stats"]["success"]
    assert value(found, "nv_inference_request_success", **own) == success["count"]
    assert value(found, "nv_inference_count", **own) == told["inference_count"] == 10
    assert value(found, "nv_inference_exec_count", **own) == told["execution_count"] == 4
    assert value(found, "nv_inference_request_duration_us", **own) == success["ns"] // 1000
    infer_us = told["inference_stats"]["compute_infer"]["ns"] // 1000
    assert value(found, "nv_inference_compute_infer_duration_us", **own) == infer_us > 0
    assert value(found, "nv_inference_request_failure", reason="REJECTED") == 1
    assert value(found, "nv_inference_pending_request_count", **own) == 0
    assert value(found, "loadbench_batch_rows_count", reason="idle") >= 2
    assert value(found, "loadbench_compute_seconds_count", **own) == success["count"]
    (reason,) = told["loadbench"]["shed"]
    assert value(found, "loadbench_shed_total", reason=reason) == 1
    assert 0 <= value(found, "nv_cpu_utilization") <= 1
    assert value(found, "nv_cpu_memory_total_bytes") > 1 << 28


def impatient() -> tuple[bytes]:
    """A request that gives the engine 1 µs."""
    return (
        b'{"inputs": [{"name": "x", "shape": [1, 16], "datatype": "FP32", "data": '
        b'[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}], "parameters": {"timeout": 1}}',
    )


def page(**ours: Any) -> dict[str, tuple[str, Family]]:
    """The page of one model with such statistics of ours, on a machine with two cards."""
    duration = {"count": 3, "ns": 5_000}
    stats = dict.fromkeys(
        ("success", "queue", "compute_input", "compute_infer", "compute_output"), duration
    )
    entry = {
        "name": 'a"b\\c\nd', "version": "2", "inference_count": 7, "execution_count": 2,
        "inference_stats": stats, "loadbench": EngineStatistics(**ours),
    }  # fmt: skip
    cards = (
        Gpu(0, "H200", "GPU-1", 0.5, 1 << 30, 1 << 37, 350.5),
        Gpu(1, "H200", "GPU-2", memory_used=5, memory_total=6),
    )
    machine = Machine(cpu=0.25, memory_used=3, memory_total=4, gpus=cards)
    return parsed(metrics.page([entry, entry | {"name": "other"}], machine).decode())


def test_names_are_escaped_and_models_are_told_apart() -> None:
    found = page()
    assert value(found, "nv_inference_count", model=r"a\"b\\c\nd") == 7
    assert value(found, "nv_inference_count", model="other") == 7


def test_times_fall_into_the_buckets_that_hold_them() -> None:
    times = Histogram.of(np.array([90_000, 200_000, 200_000, 3_000_000, 20_000_000_000]))
    found = page(queue=times)
    own = {"model": "other"}
    below = {le: value(found, "loadbench_queue_seconds_bucket", **own, le=le)
             for le in ("0.0001", "0.00025", "0.0025", "0.005", "10", "+Inf")}  # fmt: skip
    assert list(below.values()) == [1, 3, 3, 4, 4, 5]
    assert abs(value(found, "loadbench_queue_seconds_sum", **own) / 20.00349 - 1) < 1e-3


def test_batches_by_size_and_reason_and_failures_by_kind() -> None:
    found = page(
        closed={"full": {8: 5}, "idle": {1: 2, 3: 1}},
        shed={"cancelled": 2, "queue full": 3, "expired": 4},
        failed=6,
    )
    own = {"model": "other", "reason": "idle"}
    assert value(found, "loadbench_batch_rows_bucket", **own, le="1") == 2
    assert value(found, "loadbench_batch_rows_bucket", **own, le="2") == 2
    assert value(found, "loadbench_batch_rows_bucket", **own, le="4") == 3
    assert value(found, "loadbench_batch_rows_sum", **own) == 5
    failures = {reason: value(found, "nv_inference_request_failure", model="other", reason=reason)
                for reason in ("CANCELED", "REJECTED", "BACKEND", "OTHER")}  # fmt: skip
    assert failures == {"CANCELED": 2, "REJECTED": 7, "BACKEND": 6, "OTHER": 0}


def test_cards_are_told_by_uuid_and_what_they_hide_is_left_out() -> None:
    found = page()
    assert value(found, "nv_gpu_utilization", gpu_uuid="GPU-1") == 0.5
    assert value(found, "nv_gpu_power_usage", gpu_uuid="GPU-1") == 350.5
    assert value(found, "nv_gpu_memory_used_bytes", gpu_uuid="GPU-2") == 5
    assert len(found["nv_gpu_utilization"][1]) == 1
    assert value(found, "nv_cpu_utilization") == 0.25
