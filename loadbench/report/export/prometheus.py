"""A run in Prometheus's text format: for the textfile collector of node_exporter, or a Pushgateway.

What is told is the result of one run, so all but the histogram are gauges. Units are Prometheus's
base units, seconds and ratios; a percentile that falls among the failed is +Inf. Scenario and
target are on every sample, what else identifies the run is on `loadbench_run_info`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

from loadbench.judge.checks import unjudged
from loadbench.report.export.source import Source
from loadbench.streams import PERCENTILES
from loadbench.times import Times
from loadbench.units import MS, SECOND

# of the histogram, in seconds: Prometheus's own usual buckets, finer at the lower end
BOUNDS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    10.0,
)  # fmt: skip
_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}
Labels = Mapping[str, str]
Sample = tuple[str, Labels, float | int]  # what follows the metric's name, labels, value
Metric = tuple[str, str, str, list[Sample]]  # name, kind, meaning


def prometheus_bytes(found: Source) -> bytes:
    """The text: HELP, TYPE and samples of each metric."""
    common = {"scenario": found.summary.scenario, "target": found.summary.target}
    lines: list[str] = []
    for name, kind, meaning, samples in _metrics(found):
        told = [
            f"{name}{suffix}{_labels({**common, **labels})} {_number(value)}"
            for suffix, labels, value in samples
        ]
        if told:
            lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *told]
    return ("\n".join(lines) + "\n").encode()


def push_path(found: Source) -> str:
    """Where a Pushgateway keeps the last run of a scenario; a newer one takes its place."""
    scenario = found.summary.scenario or "unnamed"
    return f"/metrics/job/loadbench/scenario/{quote(scenario.replace('/', '_'), safe='')}"


def _metrics(found: Source) -> Iterator[Metric]:
    summary = found.summary
    ended = found.began_s + summary.seconds
    yield "loadbench_run_info", "gauge", "Which run this is.", [("", _identity(found), 1)]
    yield (
        "loadbench_run_end_timestamp_seconds", "gauge", "When its load ended.", [("", {}, ended)]
    )  # fmt: skip
    yield (
        "loadbench_run_duration_seconds", "gauge", "How long its load was.",
        [("", {}, summary.seconds)],
    )  # fmt: skip
    outcomes = {
        "done": summary.done, "failed": sum(summary.failed.values()), "unsent": summary.unsent,
        "unfinished": summary.unfinished, "lost": summary.lost,
    }  # fmt: skip
    counted: list[Sample] = [("", {"outcome": name}, value) for name, value in outcomes.items()]
    yield "loadbench_run_requests", "gauge", "Requests asked, by what came of them.", counted
    kinds: list[Sample] = [("", {"failure": name}, n) for name, n in summary.failed.items()]
    yield "loadbench_run_failures", "gauge", "Requests that failed, by how.", kinds
    yield (
        "loadbench_run_requests_per_second", "gauge", "Mean rates of the load.",
        _known((("kind", name), value) for name, value in summary.rate.items()),
    )  # fmt: skip
    yield (
        "loadbench_run_latency_quantile_seconds", "gauge",
        "Percentiles of all requests asked, from their due time.",
        _quantiles(summary.latency_ms) if summary.asked else [],
    )  # fmt: skip
    yield (
        "loadbench_run_answered_seconds", "histogram",
        "Latency of the requests answered well, from their due time.", _buckets(found),
    )  # fmt: skip
    yield from _bands(found, "latency", _PERCENTILES)
    yield from _tokens(found)
    late = summary.lateness_ms["p99"]
    yield (
        "loadbench_run_lateness_p99_seconds", "gauge", "How late the generator itself was.",
        _known([(("", ""), None if late is None else late / 1000)]),
    )  # fmt: skip
    yield from _bands(found, "lateness", {"p99": 0.99} if late is not None else {})
    yield (
        "loadbench_run_on_time_ratio", "gauge", "Share answered within the latency limit.",
        _known([(("", ""), summary.on_time)]),
    )  # fmt: skip
    checks: list[Sample] = [
        ("", {"check": check.name, "limit": check.text}, int(check.state == "passed"))
        for check in summary.checks
        if check.state != "no data" and not unjudged(summary)
    ]
    yield "loadbench_run_check_passed", "gauge", "1 where a check passed, 0 where not.", checks
    yield (
        "loadbench_run_trusted", "gauge", "1 where nothing weakens the figures.",
        [("", {"grade": summary.trust}, int(summary.trust == "trusted"))],
    )  # fmt: skip


def _identity(found: Source) -> Labels:
    summary = found.summary
    commit = str(found.snapshot.get("commit") or "")
    told = {"run": summary.run, "device": summary.device, "state": summary.reason, "commit": commit}
    return {name: value for name, value in told.items() if value}


def _known(given: Iterable[tuple[tuple[str, str], float | None]]) -> list[Sample]:
    """Samples of what has a value; a label without a name is none."""
    return [
        ("", {label[0]: label[1]} if label[0] else {}, value)
        for label, value in given
        if value is not None
    ]


def _tokens(found: Source) -> Iterator[Metric]:
    """Of answers that come token by token."""
    told = found.summary.tokens
    if told is None:
        return
    for name, meaning in (
        ("first_token", "From the due time to the first token."),
        ("token_gap", "From one token to the next of the same answer."),
        ("token_pace", "Mean time of a token in each answer, after its first."),
    ):
        metric, times = f"loadbench_run_{name}_quantile_seconds", told[f"{name}_ms"]
        among_the_failed = name == "first_token" and found.summary.asked
        known = among_the_failed or times["p50"] is not None
        yield metric, "gauge", meaning, _quantiles(times) if known else []
        yield from _bands(found, name, {one: _PERCENTILES[one] for one in PERCENTILES})
    yield (
        "loadbench_run_tokens_per_second", "gauge", "Tokens of all answers together.",
        _known([(("", ""), told["per_s"])]),
    )  # fmt: skip
    yield (
        "loadbench_run_tokens", "gauge", "Tokens generated, and those of the prompts if told.",
        _known([(("kind", "generated"), told["generated"]), (("kind", "prompt"), told["prompt"])]),
    )  # fmt: skip


def _quantiles(times: Times) -> list[Sample]:
    samples: list[Sample] = []
    for name, share in _PERCENTILES.items():
        value = times[name]
        seconds = math.inf if value is None else value * MS / SECOND
        samples.append(("", {"quantile": str(share)}, seconds))
    return samples


def _bands(found: Source, what: str, wanted: Mapping[str, float]) -> Iterator[Metric]:
    """How sure percentiles are, or why that is not known; +Inf where nothing bounds one above."""
    if not found.summary.asked:
        return
    bands = found.bands(f"{what}_ms")
    sides: list[Sample] = []
    for name, (low, high) in bands.items():
        if name in wanted:
            above = math.inf if high is None else high * MS / SECOND
            for side, value in (("low", low * MS / SECOND), ("high", above)):
                sides.append(("", {"quantile": str(wanted[name]), "side": side}, value))
    yield (
        f"loadbench_run_{what}_band_seconds", "gauge",
        f"95 % bands of the percentiles of {what}.", sides,
    )  # fmt: skip
    whys = found.why_none(f"{what}_ms", wanted)
    none: list[Sample] = [
        ("", {"quantile": str(wanted[name]), "why": why}, 1) for name, why in whys.items()
    ]
    yield f"loadbench_run_{what}_no_band", "gauge", "1 for a percentile without a band.", none


def _buckets(found: Source) -> list[Sample]:
    latency = found.latency()
    samples: list[Sample] = [
        ("_bucket", {"le": str(bound)}, latency.count - latency.over(round(bound * SECOND)))
        for bound in BOUNDS_S
    ]
    return [
        *samples,
        ("_bucket", {"le": "+Inf"}, latency.count),
        ("_sum", {}, latency.total / SECOND),
        ("_count", {}, latency.count),
    ]


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float | int) -> str:
    return "+Inf" if math.isinf(value) else repr(value)
