"""The end of a run: records in, one Summary out. Also for a run that was killed.

What was asked and not answered well lies beyond every percentile of `latency_ms`; `answered_ms` has
the percentiles of the answered ones alone.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from msgspec.structs import replace

from loadbench import tokens, units
from loadbench.account import Account, account
from loadbench.assurance import QUANTILES, Blocks, Certainty, assess, known
from loadbench.causes import plainly, slowest
from loadbench.evidence import Evidence
from loadbench.histogram import Histogram
from loadbench.judge.bands import Bands, Whys, about, of_blocks, of_request, of_the_rest
from loadbench.misfit import misfit, waits
from loadbench.model import (
    AlertChange,
    Check,
    Example,
    Machine,
    Note,
    Optimum,
    Part,
    Record,
    Requests,
    Rule,
    Trust,
    Value,
    Window,
    plain,
)
from loadbench.overload import overloaded
from loadbench.partly import partly
from loadbench.quantities import QUANTITIES, TOO_SHORT
from loadbench.streams import CHECKS
from loadbench.times import Times, ms, times
from loadbench.trust import grade

Reason = Literal["done", "stopped", "failed", "killed", "running"]
_SLOWEST = 3


class CheckResult(Value, frozen=True, omit_defaults=False):
    """A check on what this run measured. `value` is null where a percentile falls among the
    failed. `certainty` is "shown" or "not shown", whether it would hold again; null where nothing
    can be said, and `why`. `more`: requests that would show it, null if far too many."""

    name: str
    state: Literal["passed", "failed", "no data"]
    certainty: str | None
    value: float | None
    limit: float
    unit: str
    text: str
    more: int | None = None
    design_effect: float | None = None
    effective: int | None = None  # as many independent requests would say as much
    why: str = ""

    @property
    def sure(self) -> str:
        """`shown`, `not shown (≈ 12,000 more)`; "" where nothing can be said."""
        found = Certainty(self.certainty or "", self.more, why=self.why)
        return found.words if self.certainty else ""


class Episode(Value, frozen=True, omit_defaults=False):
    """One time that an alert fired. `ended` is null if it still did at the end."""

    rule: str
    began: int
    ended: int | None
    peak: float | None
    context: str
    limit: float | None = None  # that the rule had
    verdict: tuple[str, ...] = ()  # why, a sentence each
    no_band: str = ""  # why its peak has none, where that is a percentile


class Summary(Value, frozen=True, omit_defaults=False):
    """What a run came to; its JSON names are stable."""

    run: str
    scenario: str
    target: str
    device: str
    reason: Reason
    text: str
    seconds: float
    asked: int
    unsent: int
    sent: int
    done: int
    failed: dict[str, int]
    examples: dict[str, dict[str, Any]]  # failure → second, request, peer, after_ms, reason, answer
    unfinished: int
    lost: int
    missed: int  # asked and not answered well; while the run goes on without what still may be
    on_time: float | None  # share of the asked that was answered within limit_ms
    limit_ms: float | None
    rate: Times
    latency_ms: Times
    answered_ms: Times
    service_ms: Times
    lateness_ms: Times
    generator: dict[str, Any]  # its longest standstill, why, and how much of a core it used
    requests: dict[str, dict[str, Any]]
    server: dict[str, Any] | None
    machine: Machine | None
    checks: tuple[CheckResult, ...]
    alerts: tuple[Episode, ...]
    notes: tuple[Note, ...]
    trust: Trust
    # 95 % bands of the percentiles of latency_ms as [low, high]; high null: nothing bounds it
    bands_ms: Bands = {}
    more_bands_ms: dict[str, Bands] = {}  # of answered_ms, service_ms, lateness_ms, queue_ms …
    no_bands: dict[str, Whys] = {}  # latency_ms, answered_ms … → percentile → why it has none
    certainty: Certainty = Certainty()  # how far the requests depend on each other; why no bands
    slowest: tuple[dict[str, Any], ...] = ()  # requests, with where their time went and the cause
    optimum: dict[str, Any] | None = None  # what the batcher reached of the best possible
    tokens: dict[str, Any] | None = None  # of answers that come token by token

    @property
    def missed_share(self) -> float | None:
        """Of the asked; None where nothing was."""
        return self.missed / self.asked if self.asked else None


_BROKEN_OFF = "the log breaks off here: the run was killed, or could not write any more"
_GOES_ON = "the run goes on: these are its figures until now"


def summarise(records: Iterable[Record], running: bool = False) -> Summary | None:
    """The Summary of a log, complete or broken off; None if it has not even begun. `running` says
    that a log without an end has not broken off: its runner is alive."""
    total = account(records, running)
    return None if total is None else summary_of(total, running)


def summary_of(total: Account, running: bool = False) -> Summary:
    """The same of what was added up already."""
    whole, start = total.whole, total.start
    latency = whole.latency
    blocks = Blocks(total.steady, total.rest, total.missed)
    bands, whys = of_blocks(blocks)
    more, more_whys = of_the_rest(total)
    results = tuple(judge(check, total, blocks) for check in start.checks)
    seen = total.evidence
    if not running:  # nothing more will come: what was open stays so
        seen = replace(seen, unsent=total.unsent, missed=total.missed)
    trust, doubts = grade(seen, total.notes, running)
    doubts += filter(None, [overloaded(total.steady), tokens.together(total), misfit(total)])
    doubts += () if running else partly(total)  # a reading that is late may come yet
    reason: Reason = "running" if running else "killed"
    text = _GOES_ON if running else _BROKEN_OFF
    if total.end:
        reason, text = total.end.reason, total.end.text
    return Summary(
        run=start.run,
        scenario=start.scenario,
        target=start.target,
        device=start.device,
        reason=reason,
        text=text,
        seconds=total.seconds,
        asked=whole.asked,
        unsent=total.unsent,
        sent=whole.sent,
        done=whole.done,
        failed=whole.failed,
        examples={name: _example(found) for name, found in whole.examples.items()},
        unfinished=total.unfinished,
        lost=whole.lost,
        missed=total.missed,
        on_time=on_time(total, start.limit_ns) if start.limit_ns else None,
        limit_ms=start.limit_ns / units.MS if start.limit_ns else None,
        rate=_rates(total),
        latency_ms=times(latency, total.missed),
        answered_ms=times(latency),
        service_ms=times(Histogram.merged(part.service for part in whole.requests.values())),
        lateness_ms=times(whole.lateness),
        generator=_generator(total.evidence),
        requests={name: _request(name, part, total) for name, part in whole.requests.items()},
        server=_server(whole),
        machine=total.load.machine if total.load else None,
        checks=results,
        alerts=tuple(_unbounded(found, start.rules) for found in _episodes(total.alerts)),
        notes=(*total.notes, *doubts),
        trust=trust,
        bands_ms=bands,
        more_bands_ms=more,
        no_bands={"latency_ms": whys, **more_whys} if whys else more_whys,
        certainty=known(blocks),
        slowest=tuple(_slowest(total)),
        optimum=best_possible(total.end.optimum) if total.end else None,
        tokens=tokens.tokens(total),
    )


def _request(name: str, part: Requests, total: Account) -> dict[str, Any]:
    """One kind of request, with the bands of its percentiles."""
    bands, whys = of_request(total, name)
    return {
        "done": part.done,
        "failed": part.failed,
        "latency_ms": times(part.latency, sum(part.failed.values())),
        "bands_ms": bands,
        "no_bands": whys,
    }


def _example(found: Example) -> dict[str, Any]:
    fields = {key: getattr(found, key) for key in ("second", "request", "peer")}
    after = {"after_ms": found.after_ns / units.MS}
    return {**fields, **after, "reason": found.reason, "answer": found.answer}


def best_possible(found: Optimum | None) -> dict[str, Any] | None:
    """The yardstick with its shares, of the most that anyone could have served in time."""
    if found is None:
        return None
    return {
        "share": found.share,
        "scheduling": found.scheduling,
        "host": found.host,
        "slo_ms": found.slo_ns / units.MS,
        "arrivals": found.arrivals,
        "of": found.of,
        "reached": found.reached,
        "hosted": found.hosted,
        "best": found.best,
        "above": found.above,
        "exact": found.exact,
        "notes": plain(found.notes),
    }


def _generator(found: Evidence) -> dict[str, Any]:
    return {
        "stall_ms": found.stall_ns / units.MS,
        "stall_cause": found.stall_cause,
        "cpu": found.cpu,
        "held": found.held,
    }


def _rates(total: Account) -> Times:
    load, seconds = total.load, total.seconds
    if load is None or seconds * units.SECOND < units.MS:  # of less no rate can be told
        return {"asked": None, "sent": None, "done": None}
    counts = {"asked": load.asked, "sent": load.sent, "done": load.done}
    return {name: count / seconds for name, count in counts.items()}


def on_time(total: Account, limit_ns: int) -> float | None:
    """Share of the asked requests that were answered within the limit."""
    if not total.whole.asked:
        return None
    latency = total.whole.latency
    return (latency.count - latency.over(limit_ns)) / total.whole.asked


def _server(whole: Window) -> dict[str, Any] | None:
    server = whole.server
    if server is None:
        return None
    sizes = {size: found.batches for size, found in server.sizes.items()}
    return {
        "source": server.source,
        "mean_ms": _served_ms(whole),
        "queue_ms": _part(server.queue),
        "batch_wait_ms": _part(server.batch_wait),
        "compute_ms": _part(server.compute),
        "compute_parts_ms": server.compute_parts_ms,
        "batch": {
            "mean": server.mean_batch,
            "max": server.max_batch,
            "fill": server.fill,
            "sizes": sizes,
            "closed": {reason: sum(by.values()) for reason, by in server.closed.items()},
        },
        "requests": server.requests,
        "rows": server.rows,
        "batches": server.batches,
        "failed": server.failed,
        "shed": server.shed,
        "parts_ms": server.parts_ms,
        "cached": server.cached,
        "cache_misses": server.cache_misses,
    }


def _served_ms(whole: Window) -> float | None:
    """The mean of all requests that the server's means are of: warm-up's last ones, too."""
    answered, waited_ns = waits(whole)
    return waited_ns / answered / units.MS if answered else None


def _part(part: Part | None) -> Times | None:
    if part is None:
        return None
    if part.histogram is None:
        return {"mean": ms(part.mean_ns)}
    return {
        "mean": ms(part.mean_ns),
        "p50": ms(part.histogram.quantile(0.5)),
        "p99": ms(part.histogram.quantile(0.99)),
    }


def _episodes(changes: Sequence[AlertChange]) -> Iterable[Episode]:
    """A rule that fires twice in a row is the word of the run's end: how far it had gone."""
    firing: dict[str, Episode] = {}
    for change in changes:
        found = firing.pop(change.rule, None)
        if change.state == "firing":
            since = change.second if change.since is None else change.since
            begun = found or Episode(change.rule, since, None, None, change.context, change.limit)
            peak = change.peak if found else None
            firing[change.rule] = replace(begun, peak=peak, verdict=change.words or begun.verdict)
        elif found:
            words = change.words or found.verdict
            yield replace(found, ended=change.second, peak=change.peak, verdict=words)
    yield from firing.values()


def _unbounded(found: Episode, rules: Iterable[Rule]) -> Episode:
    """With why its peak has no band."""
    quantities = {rule.name: rule.quantity for rule in rules}
    quantity = QUANTITIES.get(quantities.get(found.rule, found.rule))
    return replace(found, no_band=TOO_SHORT) if quantity and quantity.of_order else found


def _slowest(total: Account) -> Iterable[dict[str, Any]]:
    windows = (*total.steady, *total.rest)
    for sample, cause in slowest(windows, total.whole, total.start, _SLOWEST):
        yield plainly(sample, cause, total.start)


def judge(check: Check, total: Account, blocks: Blocks) -> CheckResult:
    """One check on what was measured, over all requests asked, and whether that is shown."""
    value, unit = _measured(check.name, total)
    blocks = about(check, total.steady, total.rest, blocks, total.whole)
    if value is None:
        state: Literal["passed", "failed", "no data"] = "no data"
    else:
        state = "passed" if (value > check.limit) == check.above else "failed"
        if not check.above and value == check.limit:
            state = "failed" if not check.text.startswith("<=") else "passed"
    scale = units.MS if unit == "ms" else 1
    shown = None if value is None or math.isinf(value) else value / scale
    sure = Certainty() if value is None else _sure(check, state, total, blocks)
    return CheckResult(
        check.name,
        state,
        sure.state or None,
        shown,
        check.limit / scale,
        unit,
        check.text,
        sure.more,
        sure.effect,
        sure.effective,
        sure.why,
    )


def _sure(check: Check, state: str, total: Account, blocks: Blocks) -> Certainty:
    """What was shown while the run went on stays so, as long as what was measured is the same."""
    before = total.shown.get(check.name)
    if before is not None and before.state == state:
        return Certainty("shown", None, before.effect, round(blocks.total / before.effect))
    return assess(check, blocks, total.start.limit_ns)


def _measured(name: str, total: Account) -> tuple[float | None, str]:
    """The checked figure (inf: it falls among the failed) and its unit."""
    whole = total.whole
    if name == "throughput":
        return _rates(total)["done"], "/s"
    if name == "done":
        return float(whole.done), "requests"
    if name == "errors":
        return (total.missed / whole.asked if whole.asked else None), "%"
    if name == "on_time":
        limit = total.start.limit_ns
        return (on_time(total, limit) if limit else None), "%"
    if name == "asked_done":
        return (whole.done / whole.asked if whole.asked else None), "%"
    if name == "tokens":
        return tokens.per_s(total), "tokens/s"
    if name in CHECKS:
        return tokens.quantile(name, whole), "ms"
    latency = whole.latency
    if name == "mean":  # no mean includes what never came
        return (math.inf if total.missed else latency.mean), "ms"
    if name == "max":
        return (math.inf if total.missed else latency.maximum), "ms"
    return latency.quantile_of_asked(QUANTILES[name], total.missed), "ms"
