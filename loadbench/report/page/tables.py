"""Each kind of request, each kind of failure, each alert and when it fired."""

from collections.abc import Mapping
from typing import Any

from loadbench import units
from loadbench.alerts import QUANTITIES, condition, limit_text, show
from loadbench.episodes import LIKELY, TRY, Spell
from loadbench.histogram import Histogram
from loadbench.judge.bands import Bands
from loadbench.model import Requests, Window
from loadbench.report.certain import OF_ALERTS
from loadbench.report.markup import Child, Markup, joined, tag
from loadbench.report.page.figures import SHARES
from loadbench.report.page.material import Material
from loadbench.report.page.sections import (
    around,
    entries,
    quiet,
    section,
    signed,
    table,
    unbounded,
)
from loadbench.summary import Summary
from loadbench.units import MS, SECOND, clock, count, percent, significant

_REQUESTS, _FAILURES, _SPELLS = 30, 20, 20
_STATES = {
    "ok": ("✓", "ok"), "pending": ("◔", "warn"), "firing": ("▲", "warn"),
    "no data": ("○", "quiet"), "few data": ("○", "quiet"),
}  # fmt: skip


def requests(material: Material) -> Markup | None:
    """A row for each kind of request, and all of them."""
    whole = material.total.whole
    if not whole.requests:
        return None
    found = sorted(whole.requests.items(), key=lambda item: -item[1].done)
    rates, summary, limit_ns = _rates(material), material.summary, material.start.limit_ns
    rows = [
        _request(name, part, rates.get(name), limit_ns, _told(summary, name, "bands_ms"))
        for name, part in found[:_REQUESTS]
    ]
    if len(found) > 1:
        every = Requests(whole.done, whole.failed, whole.latency)
        # of all that was asked: where some of it was never sent, this row counts fewer
        bands = summary.bands_ms if summary.missed == sum(whole.failed.values()) else {}
        rows.append(_request("all", every, summary.rate["done"], limit_ns, bands))
    whys = (why for name, _ in found for why in _told(summary, name, "no_bands").values())
    heads = ("request", "done", "/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "max ms", "failed")
    more = len(found) - _REQUESTS
    return section(
        "Requests",
        table(heads, rows, total=len(rows) - 1 if len(found) > 1 else None, wide=(0,)),
        unbounded(whys),
        quiet(f"{count(more)} more kinds are in all.") if more > 0 else None,
        _failures(material),
        name="requests",
    )


def _rates(material: Material) -> dict[str, float]:
    """Answered in a second while the load was on, by kind; of what was answered after its end
    nobody knows a rate."""
    load, seconds = material.total.load, material.total.seconds
    if load is None or not seconds:
        return {}
    return {name: part.done / seconds for name, part in load.requests.items()}


def _told(summary: Summary, name: str, what: str) -> dict[str, Any]:
    """What the summary says of a kind of request."""
    found: dict[str, Any] = summary.requests.get(name, {}).get(what, {})
    return found


def _request(
    name: str, part: Requests, rate: float | None, limit_ns: int | None, bands: Bands
) -> list[Child]:
    failed = sum(part.failed.values())
    total = part.done + failed
    times = [
        around(_quantile(part.latency, SHARES[one], failed, limit_ns), bands.get(one))
        for one in ("p50", "p90", "p99", "p99_9")
    ]
    missed = f"{count(failed)} ({percent(failed / total)} %)" if failed else "0"
    longest = units.ms(part.latency.maximum)
    return [name, count(part.done), significant(rate), *times, longest, missed]


def _quantile(found: Histogram, share: float, failed: int, limit_ns: int | None) -> str:
    value = found.quantile_of_asked(share, failed)
    if value == float("inf"):
        return f"> {significant(limit_ns / MS)}" if limit_ns else "failed"
    return units.ms(value)


def _failures(material: Material) -> Markup | None:
    """Each kind: how often, first and last, and what came the first time."""
    summary = material.summary
    if not summary.failed:
        return None
    last = _last(material)
    found = sorted(summary.failed.items(), key=lambda item: -item[1])
    rows = [_failure(name, number, summary.examples, last) for name, number in found[:_FAILURES]]
    heads = ("failure", "requests", "first", "last", "the first of them")
    more = len(found) - _FAILURES
    about = "minute" if material.coarse else "second"
    return joined(
        tag("h3", "Failures by kind", class_="apart"),
        table(heads, rows, left=(0, 4), wide=(4,)),
        quiet(
            f"{count(more)} more kinds are not listed. " if more > 0 else "",
            f"Last: the {about} in which it was seen for the last time.",
        ),
    )


def _failure(
    name: str, number: int, examples: Mapping[str, Mapping[str, object]], last: dict[str, int]
) -> list[str]:
    example = examples.get(name)
    first, said = "n/a", ""
    if example is not None:
        first = clock(int(str(example["second"])) * SECOND)
        answer = f" · {example['answer']}" if example["answer"] else ""
        after = significant(float(str(example["after_ms"])))
        said = f"{example['request']} after {after} ms: {example['reason']}{answer}"
    until = clock(last[name] * SECOND) if name in last else "n/a"
    return [name, count(number), first, until, said]


def _last(material: Material) -> dict[str, int]:
    """The last second (or minute) in which each kind of failure came."""
    windows: tuple[Window, ...] = (*material.total.steady, *material.total.rest)
    return {name: window.second for window in windows for name in window.failed}


# ── alerts ───────────────────────────────────────────────────────────────────


def alerts(material: Material) -> Markup | None:
    """The rules with where they stood at the end, and each time that one fired, with its verdict
    in words."""
    view = material.view
    if not view.rules:
        return None
    fired = [spell for spell in view.spells if spell.fired is not None]
    rows = []
    for rule in view.rules:
        change = view.alerts.get(rule.name)
        sign, kind = _STATES[change.state if change else "ok"]
        state = joined(tag("span", f"{sign} ", class_=kind), change.state if change else "ok")
        value = show(rule, change.value) if change and change.value is not None else ""
        times = sum(spell.rule.name == rule.name for spell in fired)
        rows.append([QUANTITIES[rule.quantity].title, condition(rule), str(times), state, value])
    heads = ("alert", "fires when", "fired", "at the end", "when it last changed")
    return section(
        "Alerts",
        table(heads, rows, left=(0, 1, 3)),
        quiet(f"{OF_ALERTS[0].upper()}{OF_ALERTS[1:]}."),
        _episodes(material, fired),
        name="alerts",
    )


def _episodes(material: Material, fired: list[Spell]) -> Markup | None:
    if not fired:
        return quiet("None fired.")
    more = len(fired) - _SPELLS
    return joined(
        tag("h3", "When they fired", class_="apart"),
        entries(_episode(spell, material) for spell in fired[:_SPELLS]),
        quiet(f"{count(more)} more are in the log.") if more > 0 else None,
    )


def _episode(spell: Spell, material: Material) -> Markup:
    rule = spell.rule
    end = clock(spell.ended * SECOND) if spell.ended is not None else "the end"
    peak = f", peak {show(rule, spell.peak)}" if spell.peak is not None else ""
    length = units.duration(spell.seconds(material.view.newest or spell.began) * SECOND)
    head = (
        f"{QUANTITIES[rule.quantity].title} {'>' if rule.above else '<'} {limit_text(rule)}:"
        f" {clock(spell.began * SECOND)} to {end} ({length}{peak})"
    )
    measured = [line for line in spell.words if not line.startswith((LIKELY, TRY))]
    guessed = [line for line in spell.words if line.startswith((LIKELY, TRY))]
    body = [
        tag("div", " ".join(part), class_="small quiet") for part in (measured, guessed) if part
    ]
    if spell.context and not measured:
        body = [tag("div", spell.context, class_="small quiet")]
    return signed("▲", "warn", tag("b", head), *body)
