"""The top of a page: what was run, the verdict in a sentence, eight numbers, what weakens them."""

import math
from collections.abc import Sequence
from datetime import datetime

import numpy as np

from loadbench import certainty, runlog, units
from loadbench.judge.checks import unjudged
from loadbench.judge.metrics import in_time
from loadbench.model import Note, plain
from loadbench.report.certain import check_words, effect_words, of_notes
from loadbench.report.markup import Child, Markup, joined, tag
from loadbench.report.optimum import of_the_best
from loadbench.report.page.material import Material
from loadbench.report.page.sections import entries, section, signed
from loadbench.report.parts import mean_split
from loadbench.streams import UNTOLD
from loadbench.summary import CheckResult, Summary
from loadbench.trust import ASIDES, NOTED
from loadbench.units import SECOND, count, percent, significant

_KEPT = 0.99  # of what was asked, answered well
_KINDS = {"passed": ("✓", "ok"), "failed": ("✗", "bad"), "no data": ("○", "quiet")}
_STATES = {
    "done": ("■", "done"), "stopped": ("■", "stopped"), "failed": ("✗", "failed"),
    "killed": ("✗", "killed"), "running": ("●", "running"),
}  # fmt: skip


def head(material: Material) -> Markup:
    """Name, target, when, how it ended."""
    summary, snapshot = material.summary, material.snapshot
    sign, state = _STATES[summary.reason]
    length = units.duration(round(summary.seconds * SECOND))
    facts = [
        summary.target, summary.device, length, f"{sign} {state}", f"trust: {summary.trust}",
        _began(material.start.wall_time),
    ]  # fmt: skip
    title = str(snapshot.get("title") or summary.scenario or summary.run)
    return titled(f"run {runlog.called(material.folder)}", title, facts)


def _began(wall_time: str) -> str:
    """`2026-01-05 14:02:00 UTC+00:00`."""
    try:
        return f"{datetime.fromisoformat(wall_time):%Y-%m-%d %H:%M:%S %Z}".strip()
    except ValueError:
        return wall_time


def titled(what: str, title: str, facts: Sequence[str]) -> Markup:
    """The top of any page."""
    return tag(
        "header",
        tag("p", tag("span", "loadbench"), tag("span", what), class_="eyebrow"),
        tag("h1", title),
        tag("p", [tag("span", fact) for fact in facts if fact], class_="facts"),
    )


def verdict(material: Material) -> Markup:
    """The checks and one sentence; of a run that a search led that it was."""
    summary = material.summary
    if material.led:
        return section("The run", tag("p", sentence(material), class_="verdict"), name="run")
    sign, kind = headline(summary)
    checks = (_check(check, summary) for check in summary.checks)
    ended = None
    if summary.reason in ("killed", "failed", "running") and summary.text:
        ended = tag("p", summary.text, class_="bad" if summary.reason != "running" else "quiet")
    best = None
    if summary.optimum:
        best = tag(
            "p", f"The batcher reached {of_the_best(summary.optimum)}.", class_="small quiet"
        )
    return section(
        "Verdict",
        tag("p", f"{sign} {outcome(summary)}", class_=f"outcome {kind}"),
        tag("p", sentence(material), class_="verdict"),
        ended,
        entries(checks),
        best,
        name="verdict",
    )


def outcome(summary: Summary) -> str:
    """`2 of 3 checks failed`, in as many words."""
    states = [check.state for check in summary.checks]
    why = unjudged(summary)
    if why and (states or summary.reason == "done"):
        return f"No verdict: {why}"
    failed, unknown = states.count("failed"), states.count("no data")
    many = "1 check" if len(states) == 1 else f"{len(states)} checks"
    if not states:
        return "No checks were asked for"
    if failed:
        return f"{failed} of {many} failed"
    if unknown:
        return f"{unknown} of {many} without data"
    return f"{many} passed"


def headline(summary: Summary) -> tuple[str, str]:
    """The sign of the whole run and its class."""
    states = [check.state for check in summary.checks]
    if summary.reason == "failed":
        return "✗", "bad"
    if summary.reason == "done" and unjudged(summary):
        return "?", "warn"
    unfinished = summary.reason in ("killed", "running") or (summary.reason == "stopped" and states)
    if unfinished:
        return "○", "warn"
    if "failed" in states:
        return "✗", "bad"
    if "no data" in states:
        return "○", "warn"
    return ("✓", "ok") if states else ("·", "quiet")


def _check(check: CheckResult, summary: Summary) -> Markup:
    sign, kind = ("·", "quiet") if unjudged(summary) else _KINDS[check.state]
    words = check_words(check, summary.missed_share).partition(" ")[2]
    sure = (
        f" · {check.sure}"
        if check.sure
        else f" · whether it would again is not known: {check.why}"
        if check.why
        else ""
    )
    return signed(sign, kind, words, tag("span", sure, class_="quiet"))


def sentence(material: Material) -> str:
    """Did it keep up, how slow was it, where did the time go. A run that a search led was to fail
    at some of its rates: that says nothing."""
    summary = material.summary
    if not summary.asked:
        return "No requests were recorded."
    if material.led:
        rates = _asked(material)
        return f"A search led it, {rates}: what follows is of all these rates together."
    parts = [_kept(material), _tail(summary), *_tokens(summary)]
    split = mean_split(summary)
    if split:
        name = max(split, key=lambda name: split[name])
        share = percent(split[name] / (sum(split.values()) or 1))
        made = f"{share} % of the mean request"
        told = f"the server does not tell where {made} went" if name == UNTOLD else ""
        parts.append(told or f"{name} is {made}")
    return "; ".join(parts) + "."


def _kept(material: Material) -> str:
    summary = material.summary
    length = units.duration(round(summary.seconds * SECOND))
    asked = _asked(material)
    if not asked:
        done = significant(summary.rate["done"])
        return f"Did {done}/s for {length}, each request waiting for an answer before it"
    if summary.missed > (1 - _KEPT) * summary.asked:
        missed = percent(summary.missed_share)
        return f"Did not keep up with {asked} over {length}: {missed} % were not answered well"
    if any(note.code == "overloaded" for note in summary.notes):
        return f"Did not keep up with {asked} over {length}: its queue grew"
    if not in_time(plain(summary)):
        done = significant(summary.rate["done"])
        return f"Did {done}/s of {asked} over {length}, the rest when the load was over"
    return f"Kept up with {asked} for {length}"


def _asked(material: Material) -> str:
    """`300/s`, `20 to 300/s`; "" in a closed loop, which asks as it is answered. That a search
    waits for a queue to empty is no rate of it."""
    windows = material.total.steady
    rates = [window.rate for window in windows if window.rate is not None]
    if material.led:
        rates = [rate for rate in rates if rate]
    if rates:
        low, high = min(rates), max(rates)
        steady = high <= low * 1.05
        return (
            f"{significant(high)}/s" if steady else f"{significant(low)} to {significant(high)}/s"
        )
    if any(window.lateness.count for window in windows):  # a trace: due without a rate
        return f"{significant(material.summary.rate['asked'])}/s on average"
    return ""


def _tail(summary: Summary) -> str:
    value = summary.latency_ms.get("p99")
    if value is not None:
        return f"p99 {significant(value)} ms"
    limit = significant(summary.limit_ms) if summary.limit_ms else "any limit"
    return f"p99 lies above {limit}{' ms' if summary.limit_ms else ''}"


def _tokens(summary: Summary) -> list[str]:
    """Of answers that come token by token."""
    if summary.tokens is None:
        return []
    first, per_s = summary.tokens["first_token_ms"]["p99"], summary.tokens["per_s"]
    began = f"first token p99 {significant(first)} ms" if first is not None else ""
    return [*filter(None, [began]), f"{significant(per_s)} tokens/s"]


# ── eight numbers ────────────────────────────────────────────────────────────


def numbers(material: Material) -> Markup:
    """Each with its interval, or what it rests on."""
    summary = material.summary
    tiles = [_done(summary)]
    for name, title in (("p50", "p50"), ("p95", "p95"), ("p99", "p99"), ("p99_9", "p99.9")):
        tiles.append(_percentile(name, title, summary))
    tiles += [_longest(summary), _missed(material), _on_time(material)]
    why = effect_words(summary.certainty, summary.asked)
    said = "Intervals hold at 95 %, however often one looks. " if summary.bands_ms else ""
    if not summary.bands_ms:
        said = "No intervals: "
    note = f"{said}{why}. {_without(summary)}Latency counts from the moment each request was due."
    return section(
        "Numbers",
        tag("div", tiles, class_="tiles"),
        tag("p", note[:1].upper() + note[1:], class_="quiet small below"),
        name="numbers",
    )


def _without(summary: Summary) -> str:
    """Which percentiles have no interval though others have, and why."""
    by_why: dict[str, list[str]] = {}
    for name, why in summary.no_bands.get("latency_ms", {}).items() if summary.bands_ms else ():
        by_why.setdefault(why, []).append(name.replace("_", "."))
    return "".join(f"None of {', '.join(names)}: {why}. " for why, names in by_why.items())


def _tile(name: str, value: str, unit: str, *around: Child) -> Markup:
    return tag(
        "div",
        tag("div", name, class_="name"),
        tag("div", value, tag("span", f" {unit}", class_="unit"), class_="value"),
        tag("div", around, class_="around"),
        class_="tile",
    )


def _done(summary: Summary) -> Markup:
    around = joined("asked ", tag("b", f"{significant(summary.rate['asked'])}/s"))
    total = f" · {count(summary.done)} requests"
    return _tile("Done", significant(summary.rate["done"]), "/s", around, total)


def _percentile(name: str, title: str, summary: Summary) -> Markup:
    value, found = summary.latency_ms.get(name), summary.bands_ms.get(name)
    if value is None:
        if not summary.asked:
            return _tile(title, "n/a", "", "no requests")
        limit = f"> {significant(summary.limit_ms)}" if summary.limit_ms else "∞"
        answered = summary.answered_ms.get(name)
        among = f"among the failed; of the answered {significant(answered)} ms"
        return _tile(title, limit, "ms", among)
    n = f"n = {count(summary.asked)}"
    if found is None:
        return _tile(title, significant(value), "ms", n)
    low, high = found
    upper = f"to {significant(high)}" if high is not None else "upwards"
    words = tag("b", f"{significant(low)} {upper} ms")
    return _tile(title, significant(value), "ms", words, f" · {n}")


def _longest(summary: Summary) -> Markup:
    value = summary.latency_ms.get("max")
    if value is None and summary.asked:
        answered = significant(summary.answered_ms.get("max"))
        return _tile("Longest answered", answered, "ms", f"of {count(summary.done)}")
    return _tile("Longest", significant(value), "ms", f"of {count(summary.asked)}")


def _missed(material: Material) -> Markup:
    summary = material.summary
    share = summary.missed_share
    found = _believable(material, share, [int(number) for number in material.blocks.missed])
    many = f"{count(summary.missed)} of {count(summary.asked)}"
    return _tile("Not answered well", percent(share), "%", found, many)


def _on_time(material: Material) -> Markup:
    summary, limit_ns = material.summary, material.start.limit_ns
    if summary.on_time is None or limit_ns is None:
        mean = significant(summary.answered_ms.get("mean"))
        return _tile("Mean of the answered", mean, "ms", f"n = {count(summary.done)}")
    late = [int(number) for number in material.blocks.over(limit_ns)]
    found = _believable(material, 1 - summary.on_time, late, mirrored=True)
    within = f"within {significant(summary.limit_ms)} ms"
    return _tile("On time", _fine(summary.on_time), "%", found, within)


def _believable(
    material: Material, share: float | None, over: list[int], mirrored: bool = False
) -> Markup | None:
    """The interval of a share, where the run is one stretch of constant load."""
    blocks = material.blocks
    if share is None or blocks.why or not blocks.total:
        return None
    effect = blocks.effect(np.array(over, np.int64))
    found = certainty.believable(sum(over), blocks.total, effect) if effect else None
    if found is None:
        return None
    low, high = (1 - found[1], 1 - found[0]) if mirrored else found
    return joined(tag("b", f"{_fine(low)} to {_fine(high)} %"), " · ")


def _fine(share: float) -> str:
    """Like `percent`; near 100 % as fine as what is missing to it needs: 98.2, 99.97."""
    missing = (1 - share) * 100
    if not 0 < missing < 10:
        return percent(share)
    return f"{share * 100:.{min(6, max(1, 1 - math.floor(math.log10(missing))))}f}"


# ── what weakens them ────────────────────────────────────────────────────────


def notes(material: Material, of: str = "") -> Markup | None:
    """Doubts first, then what else is to be known; `of` one run of several."""
    doubts, others = _sorted(material)
    if not doubts and not others:
        return None
    grade = {
        "trusted": ("✓", "ok", "Trusted: nothing in how it was measured weakens the numbers."),
        "doubtful": ("▲", "warn", "Doubtful: read the numbers with what is said here."),
        "invalid": ("✗", "bad", "Invalid: the numbers cannot be trusted, so there is no verdict."),
    }[material.summary.trust]
    return section(
        f"{of} Notes".strip(),
        entries(
            [
                signed(grade[0], grade[1], tag("b", grade[2])),
                *(_note(*_sign(note), note) for note in doubts),
                *(_note("·", "quiet", note) for note in others),
                *(signed("·", "quiet", text) for text in of_notes(material.summary)),
            ]
        ),
        name=None if of else "notes",
    )


def _sorted(material: Material) -> tuple[list[Note], list[Note]]:
    own = {note.code for note in material.view.notes} - NOTED.keys()
    found = list(
        dict.fromkeys((note.code, note.text, note.hint) for note in material.summary.notes)
    )
    told = [Note(*parts) for parts in found]
    return [n for n in told if n.code not in own], [n for n in told if n.code in own]


def _sign(note: Note) -> tuple[str, str]:
    return ("·", "quiet") if note.code in ASIDES else ("▲", "warn")


def _note(sign: str, kind: str, note: Note) -> Markup:
    hint = tag("span", f" → {note.hint}", class_="quiet") if note.hint else None
    return signed(sign, kind, note.text, hint)
