"""A run as a run of MLflow: settings as parameters, figures as metrics, the seconds as their steps.

By MLflow's REST interface, which every tracking server has, so that nothing of it has to be
installed here. The experiment is `loadbench/SCENARIO`; it is made if it is not there.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from loadbench import __version__
from loadbench.assurance import QUANTILES
from loadbench.environment import kept
from loadbench.errors import TargetError
from loadbench.judge.checks import unjudged
from loadbench.report.export.deliver import parted, send
from loadbench.report.export.source import Source
from loadbench.streams import PERCENTILES, TIMES

_API = "/api/2.0/mlflow"
_METRICS, _PARAMS = 1000, 100  # that MLflow takes at once
_BANDED = ("latency", "service", *TIMES)
_STATES = {"done": "FINISHED", "failed": "FAILED", "killed": "KILLED", "running": "RUNNING"}
_ODD = re.compile(r"[^A-Za-z0-9_. /-]")
Json = dict[str, Any]


class Server(NamedTuple):
    """A tracking server; `token` is sent to it and to nobody else."""

    url: str
    token: str = ""

    @property
    def shown(self) -> str:
        """Its address without a password."""
        return parted(self.url)[0]

    def call(self, path: str, body: Json) -> Json:
        """POSTs; what it answers. TargetError if that is no JSON object."""
        data = json.dumps(body, allow_nan=False).encode()
        url = self.url.rstrip("/") + _API + path
        return _object(send("POST", url, data, "application/json", self.token), self.shown)

    def experiment(self, name: str) -> str:
        """The number of an experiment, which is made if there is none of that name."""
        query = f"/experiments/get-by-name?experiment_name={quote(name, safe='')}"
        url = self.url.rstrip("/") + _API + query
        try:
            found = _object(send("GET", url, b"", "application/json", self.token), self.shown)
        except TargetError as error:
            if "RESOURCE_DOES_NOT_EXIST" not in error.message:
                raise
            return str(self.call("/experiments/create", {"name": name}).get("experiment_id"))
        inside = found.get("experiment")
        return str(inside.get("experiment_id") if isinstance(inside, dict) else None)


def log_run(found: Source, server: Server) -> str:
    """Makes the run there; its id. TargetError if the server does not take it, or not all of it:
    then nothing of it stays there, or it is said what does."""
    summary = found.summary
    began = round(found.began_s * 1000)
    made = server.call(
        "/runs/create",
        {
            "experiment_id": server.experiment(f"loadbench/{_name(summary.scenario)}"),
            "run_name": summary.run,
            "start_time": began,
            "tags": [{"key": key, "value": value} for key, value in tags(found).items()],
        },
    )
    run = made.get("run")
    info = run.get("info") if isinstance(run, dict) else None
    number = str(info.get("run_id") or "") if isinstance(info, dict) else ""
    if not number:
        raise TargetError(f"{server.shown} made no run", "is it a tracking server of MLflow?")
    try:
        for batch in batches(found, began):
            server.call("/runs/log-batch", {"run_id": number, **batch})
        ended = began + round(summary.seconds * 1000)
        state = _STATES.get(summary.reason, "FINISHED")
        server.call("/runs/update", {"run_id": number, "status": state, "end_time": ended})
    except TargetError as error:
        raise TargetError(f"{error.message}; {_withdrawn(server, number)}", error.hint) from error
    return number


def _withdrawn(server: Server, number: str) -> str:
    """Takes a run away that only a part of was taken; what has become of it."""
    try:
        server.call("/runs/delete", {"run_id": number})
    except TargetError:
        return f"the run {number} there is incomplete"
    return "nothing of the run is kept there"


def tags(found: Source) -> dict[str, str]:
    """Which run it was, and how far its figures can be trusted."""
    summary = found.summary
    told = {
        "mlflow.source.name": f"loadbench {__version__}",
        "mlflow.source.git.commit": str(found.snapshot.get("commit") or ""),
        "mlflow.note.content": "; ".join(note.text for note in summary.notes)[:4000],
        "loadbench.run": summary.run,
        "loadbench.target": summary.target,
        "loadbench.device": summary.device,
        "loadbench.trust": summary.trust,
        "loadbench.no_bands": _no_bands(found),
    }
    return {name: value for name, value in told.items() if value}


def _no_bands(found: Source) -> str:
    whys = [
        f"{name} {percentile}: {why}"
        for name in _BANDED
        if name not in TIMES or found.summary.tokens
        for percentile, why in found.why_none(
            f"{name}_ms", PERCENTILES if name in TIMES else QUANTILES
        ).items()
    ]
    return "; ".join([*whys, "single seconds: too short for one"])[:4000]


def batches(found: Source, began_ms: int) -> Iterator[Json]:
    """Parameters, then figures, then the seconds, so many at a time as MLflow takes."""
    params = [{"key": key, "value": value[:500]} for key, value in parameters(found).items()]
    for at in range(0, len(params), _PARAMS):
        yield {"params": params[at : at + _PARAMS]}
    ended = began_ms + round(found.summary.seconds * 1000)
    metrics = [
        {"key": key, "value": value, "timestamp": ended, "step": 0}
        for key, value in figures(found).items()
    ]
    for one in _seconds(found, began_ms):
        metrics.append(one)
        if len(metrics) >= _METRICS:
            yield {"metrics": metrics[:_METRICS]}
            metrics = metrics[_METRICS:]
    if metrics:
        yield {"metrics": metrics}


def parameters(found: Source) -> dict[str, str]:
    """The settings of target, engine and load, by their names in a scenario; no secrets."""
    spec = found.snapshot.get("spec")
    wanted = spec if isinstance(spec, dict) else {}
    parts = {key: wanted[key] for key in ("target", "engine", "load") if key in wanted}
    return {_name(key): str(value) for key, value in _leaves(kept(parts))}


def _leaves(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{key}.")
        elif value not in (None, "", [], {}):
            yield f"{before}{key}", value


def figures(found: Source) -> dict[str, float]:
    """What the run came to. A percentile among the failed has no number: it is left out."""
    summary = found.summary
    states = None if unjudged(summary) else [check.state for check in summary.checks]
    told: dict[str, float | None] = {
        "asked": summary.asked,
        "done": summary.done,
        "failed": sum(summary.failed.values()),
        "missed": summary.missed,
        "on_time": summary.on_time,
        **{f"{name}_per_s_mean": value for name, value in summary.rate.items()},
        **{f"latency_{name}_ms": value for name, value in summary.latency_ms.items()},
        **{f"service_{name}_ms": value for name, value in summary.service_ms.items()},
        **_tokens(summary.tokens or {}),
        **{
            f"{name}_{percentile}_{side}_ms": value
            for name in _BANDED
            for percentile, band in found.bands(f"{name}_ms").items()
            for side, value in zip(("low", "high"), band, strict=True)
        },
        "checks_passed": None if states is None else states.count("passed"),
        "checks_failed": None if states is None else states.count("failed"),
    }
    return {name: float(value) for name, value in told.items() if value is not None}


def _tokens(told: Mapping[str, Any]) -> dict[str, float | None]:
    """Of answers that come token by token."""
    if not told:
        return {}
    times = {
        f"{name}_{which}_ms": value for name in TIMES for which, value in told[f"{name}_ms"].items()
    }
    return {**times, "tokens_per_s_mean": told["per_s"], "tokens": told["generated"]}


def _seconds(found: Source, began_ms: int) -> Iterator[Json]:
    for window in found.windows():
        p99 = window.latency.quantile(0.99)
        told = {
            "second_done": window.done,
            "second_failed": sum(window.failed.values()),
            "second_in_flight": window.in_flight,
            "second_latency_p99_ms": None if p99 is None else p99 / 1_000_000,
        }
        when = began_ms + (window.second + 1) * 1000
        for key, value in told.items():
            if value is not None:
                yield {"key": key, "value": value, "timestamp": when, "step": window.second}


def _name(text: str) -> str:
    """As MLflow allows names to be."""
    return _ODD.sub("_", text)[:200] or "unnamed"


def _object(data: bytes, url: str) -> Json:
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise TargetError(
            f"{url} answered no JSON", "is it a tracking server of MLflow?"
        ) from error
    if not isinstance(found, dict):
        raise TargetError(f"{url} answered no object", "is it a tracking server of MLflow?")
    return found
