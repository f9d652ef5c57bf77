"""A search as text: the rate that holds, the curve of latency over rate, each stage; of several
settings one table.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from msgspec.structs import replace

from loadbench import runlog
from loadbench.judge.search import Found
from loadbench.judge.searches import Hunt, Setting, front, read_hunt
from loadbench.judge.stage import BETWEEN, Claim, Seen
from loadbench.model import Note, plain
from loadbench.report.certain import within
from loadbench.report.columns import aligned
from loadbench.report.ticks import label, log_ticks
from loadbench.snapshots import sums
from loadbench.snapshots.foreign import believable
from loadbench.units import MS, SECOND, clock, count, duration, percent, significant

_HEADS = ("stage", "", "rate", "done/s", "p50 ms", "p90", "p99", "over the limit", "for")
_SETTING_HEADS = ("setting", "rate", "95 %", "p50 ms", "p99 ms", "batch", "", "what limits it")
_WIDTH, _HEIGHT = 64, 12
_LONGEST = 100  # characters of a line
_QUANTILE = {0.5: "p50", 0.1: "p90", 0.05: "p95", 0.01: "p99", 0.001: "p99_9"}


def find_text(folder: Path) -> str:
    """The page of a find, without a newline at its end. SpecError if its snapshot is damaged."""
    snapshot = runlog.read_snapshot(folder)
    hunt = read_hunt(snapshot)
    with believable(str(folder / runlog.SNAPSHOT)):
        return _page(folder, snapshot, hunt, sums.altered(folder, runlog.SNAPSHOT))


def results(folder: Path) -> list[str]:
    """What was found, a sentence for each setting. SpecError if the snapshot is damaged."""
    snapshot = runlog.read_snapshot(folder)
    hunt = _so_far(snapshot, read_hunt(snapshot))
    altered = bool(sums.altered(folder, runlog.SNAPSHOT))
    hunt = _unconfirmed(hunt) if altered else hunt
    with believable(str(folder / runlog.SNAPSHOT)):
        return [
            f"{f'{one.name}: ' if one.name else ''}{headline(hunt.result(one), altered)}"
            for one in hunt.settings
            if one.seen
        ]


def _so_far(snapshot: dict[str, Any], hunt: Hunt) -> Hunt:
    """One that goes on has not been stopped: what is known of it is told as that."""
    if runlog.state(snapshot) != "running":
        return hunt
    settings = (replace(one, found=hunt.result(one, "going on")) for one in hunt.settings)
    return replace(hunt, settings=tuple(settings))


def _unconfirmed(hunt: Hunt) -> Hunt:
    """As one that was altered since stands: nothing of it is a verdict."""
    found = (replace(hunt.result(setting), confirmed=False) for setting in hunt.settings)
    both = zip(hunt.settings, found, strict=True)
    return replace(hunt, settings=tuple(replace(setting, found=one) for setting, one in both))


def _page(folder: Path, snapshot: dict[str, Any], hunt: Hunt, doubt: Note | None) -> str:
    state = runlog.state(snapshot)
    lines = [
        f"loadbench {snapshot.get('run', folder.name)}   the highest rate with"
        f" {hunt.terms.claim.text}" + ("" if state == "done" else f"   {state}")
    ]
    lines += [f"  ✗ {snapshot['text']}"] if snapshot.get("text") else []
    broken_off = any(setting.found is None for setting in hunt.settings)
    hunt = _so_far(snapshot, hunt)
    if doubt:
        lines += [f"  ▲ no verdict: {doubt.text}: {doubt.hint}"]
        hunt = _unconfirmed(hunt)
    if len(hunt.settings) == 1:
        lines += ["", *_one(hunt, hunt.settings[0], bool(doubt))]
    else:
        lines += ["", *_several(hunt)]
    if broken_off and state != "running":
        lines += ["", f"  → it goes on with: loadbench find --resume {folder}"]
    return "\n".join([*lines, "", f"  {folder}"])


def find_facts(folder: Path) -> dict[str, Any]:
    """The same as one object. SpecError if the snapshot is damaged."""
    snapshot = runlog.read_snapshot(folder)
    hunt = read_hunt(snapshot)
    with believable(str(folder / runlog.SNAPSHOT)):
        doubt = sums.altered(folder, runlog.SNAPSHOT)
        return {**_facts(snapshot, hunt, bool(doubt)), "altered": doubt.text if doubt else ""}


def _facts(snapshot: dict[str, Any], hunt: Hunt, altered: bool) -> dict[str, Any]:
    names = ("run", "kind", "scenario", "repeats", "text")
    told = _so_far(snapshot, hunt)
    told = _unconfirmed(told) if altered else told
    settings = [
        {
            "setting": setting.over,
            "runs": setting.runs,
            "ended": setting.found is not None,
            **plain(found),
            "verdict": found.verdict and not altered,
            "unbounded": found.unbounded,
            "stages": [{**plain(seen), "share": seen.share} for seen in setting.seen],
        }
        for setting, found in zip(hunt.settings, map(told.result, told.settings), strict=True)
    ]
    return {
        **{name: snapshot.get(name) for name in names},
        "state": runlog.state(snapshot),
        "slo": hunt.terms.claim.text,
        "terms": plain(hunt.terms),
        "settings": settings,
        "front": [standing.name for standing in front(told) if standing.front],
    }


def _one(hunt: Hunt, setting: Setting, altered: bool) -> Iterator[str]:
    found, claim = hunt.result(setting), hunt.terms.claim
    yield f"  {headline(found, altered)}"
    yield from _folded(found.text)
    if found.changed:
        yield f"  ▲ {found.changed}"
    if found.knee is not None:
        knee = significant(found.knee)
        yield f"  knee: {knee}/s, above it waiting grows faster than what is done"
    if setting.seen:
        yield ""
        yield from (f"  {line}" for line in chart(setting.seen, found, claim))
        yield ""
        rows = [_HEADS, *(_row(seen) for seen in setting.seen)]
        yield from (f"  {line}" for line in aligned(rows, frozenset({0, 1})))
        yield from _folded(unbounded(setting.seen))
        yield from _about(claim)
        yield f"  in {duration(round(found.seconds) * SECOND)}"


def headline(found: Found, altered: bool = False) -> str:
    """The result in a line."""
    if found.rate is None:
        return f"{'▲' if altered else '✗'} no rate was found that holds it"
    sign, word = ("✓", "confirmed") if found.confirmed else ("▲", "not confirmed")
    return f"{sign} {significant(found.rate)}/s, {word}{_interval(found)}"


def _interval(found: Found) -> str:
    if found.low is None:
        return f"; {found.unbounded}" if found.unbounded else ""
    if found.high is None:
        return f"; the highest is {significant(found.low)}/s or above: {found.unbounded}"
    return f"; the highest lies in {significant(found.low)} to {significant(found.high)}/s (95 %)"


def stage_line(seen: Seen, claim: Claim) -> str:
    """A stage as it ends: a line of progress."""
    word = "holds" if seen.holds else "overloaded" if seen.overloaded else "does not hold"
    if seen.doubt and not seen.holds:
        word = f"says nothing: {seen.doubt.text}"
    return (
        f"{clock((seen.second + seen.seconds) * SECOND)}  {seen.kind:8}  "
        f"{significant(seen.rate):>6}/s  {_share(seen):>16} over"
        f"  {_title(claim)} {_told(seen, _name(claim))}  {word}"
    )


def _share(seen: Seen) -> str:
    return f"{percent(seen.share)} % of {count(seen.asked)}"


def _ms(seen: Seen, name: str) -> str:
    value = seen.latency_ms.get(name)
    return "failed" if value is None and seen.missed else significant(value)


def _told(seen: Seen, name: str) -> str:
    """With its unit, if it is a number."""
    told = _within(seen, name)
    return told if told == "failed" else f"{told} ms"


def _within(seen: Seen, name: str) -> str:
    """With its ±, where the stage was long enough for one."""
    return _ms(seen, name) + within(seen.latency_ms.get(name), seen.bands_ms.get(name))


def unbounded(seen: Sequence[Seen]) -> str:
    """What is to be said of the ± of percentiles in a table of stages."""
    told = (why for stage in seen for why in stage.no_bands.split(BETWEEN))
    whys = dict.fromkeys(filter(None, told))
    why = f"no ± of some: {'; '.join(whys)}" if whys else ""
    sure = "± holds at 95 %" if any(stage.bands_ms for stage in seen) else ""
    rule = "stages are judged by the share over the limit"
    return "; ".join(filter(None, (sure, why, rule)))


def _folded(text: str) -> list[str]:
    """A long line as several: on paper it would be cut off."""
    return wrap(text, _LONGEST, initial_indent="  ", subsequent_indent="    ")


def _about(claim: Claim) -> Iterator[str]:
    """What the percentiles of a table are of, where that is not the latency."""
    if claim.of:
        what = {"first_token": "the first token", "token_pace": "the mean time of a token"}
        yield f"  percentiles are of {what[claim.of]} of each answer"


def _name(claim: Claim) -> str:
    return next((n for s, n in _QUANTILE.items() if math.isclose(s, claim.share)), "p99")


def _title(claim: Claim) -> str:
    """`p99`, `first token p99`."""
    return f"{claim.of.replace('_', ' ')} {_name(claim)}".strip()


def _row(seen: Seen) -> tuple[str, ...]:
    sign = "✓" if seen.holds else "▲" if seen.doubt else "✗"
    return (
        seen.kind,
        sign,
        f"{significant(seen.rate)}/s",
        significant(seen.done_per_s),
        *(_within(seen, name) for name in ("p50", "p90", "p99")),
        _share(seen),
        duration(seen.seconds * SECOND),
    )


def _several(hunt: Hunt) -> Iterator[str]:
    best = {standing.name for standing in front(hunt) if standing.front}
    rows = [_SETTING_HEADS, *(_setting(hunt, one, one.name in best) for one in hunt.settings)]
    yield from (f"  {line}" for line in aligned(rows, frozenset({0, 6, 7})))
    held = [at for setting in hunt.settings if (at := _at_result(hunt, setting))]
    if held:
        yield ""
        yield from _folded(unbounded(held))
        yield from _about(hunt.terms.claim)
    if best:
        yield "  ◆ no other setting has both a higher rate and a lower p50 at it"


def _setting(hunt: Hunt, setting: Setting, best: bool) -> tuple[str, ...]:
    if not setting.seen:
        return (setting.name, "", "", "", "", "", "", "not begun")
    found = hunt.result(setting)
    at = _at_result(hunt, setting)
    interval = ""
    if found.low is not None:
        high = f"–{significant(found.high)}" if found.high is not None else " or above"
        interval = f"{significant(found.low)}{high}"
    sign = "◆" if best else "" if found.confirmed else "▲"
    why = found.limit if found.confirmed or found.rate is None else f"not confirmed: {found.limit}"
    return (
        setting.name,
        f"{significant(found.rate)}/s" if found.rate is not None else "none",
        interval,
        *((_within(at, "p50"), _within(at, "p99")) if at else ("", "")),
        significant(at.server["batch"]) if at and at.server.get("batch") else "",
        sign,
        why,
    )


def _at_result(hunt: Hunt, setting: Setting) -> Seen | None:
    """The last stage that held at the rate that is told of a setting."""
    rate = hunt.result(setting).rate
    return next((s for s in reversed(setting.seen) if s.rate == rate and s.holds), None)


def chart(seen: Sequence[Seen], found: Found, claim: Claim) -> list[str]:
    """Latency over rate, a sign for each stage; latencies on a logarithmic axis. What is beyond its
    top stands on it."""
    name = _name(claim)
    limit = claim.limit_ns / MS if claim.limit_ns else None
    known = [value for s in seen if (value := s.latency_ms.get(name)) and math.isfinite(value)]
    if not known:
        return []
    top = max(3 * limit, min(known)) if limit else max(known)
    low = min(known) / 1.5
    right = max(s.rate for s in seen) * 1.05
    height = math.log(top * 1.2 / low)

    def row_of(value: float | None) -> int:
        part = 1.0 if value is None else math.log(value / low) / height
        return _HEIGHT - 1 - min(_HEIGHT - 1, max(0, round(part * (_HEIGHT - 1))))

    def column_of(rate: float) -> int:
        return min(_WIDTH - 1, round(rate / right * (_WIDTH - 1)))

    cells = [[" "] * _WIDTH for _ in range(_HEIGHT)]
    if limit:
        cells[row_of(limit)] = ["┄"] * _WIDTH
    for stage in sorted(seen, key=lambda one: one.holds):  # what holds is drawn over the rest
        value = stage.latency_ms.get(name)
        sign = "●" if stage.holds else "▲" if value is None or value > top else "×"
        cells[row_of(value)][column_of(stage.rate)] = sign
    marks = {row_of(value): label(value) for value in log_ticks(low, top, 4)}
    if limit:
        marks[row_of(limit)] = label(limit)
    lines = [
        f"{marks.get(at, ''):>7} {'┤' if at in marks else '│'}{''.join(row)}"
        for at, row in enumerate(cells)
    ]
    return [f"{_title(claim)} ms", *lines, *_axis(found, column_of)]


def _axis(found: Found, column_of: Callable[[float], int]) -> list[str]:
    """The rate, and the knee beside it; below it where there is no room."""
    ticks = [(column_of(found.rate), significant(found.rate))] if found.rate else []
    if found.knee is not None:
        ticks.append((column_of(found.knee), f"{significant(found.knee)} knee"))
    line = "".join("┴" if at in dict(ticks) else "─" for at in range(_WIDTH))
    labels = ["0", ""]
    for at, text in ticks:
        taken = labels[0][max(0, at - 1) : at + len(text) + 1].strip()
        row = 1 if taken else 0
        labels[row] = labels[row][:at].ljust(at) + text + labels[row][at + len(text) :]
    first, second = (f"{'':>9}{row}" for row in labels)
    named = f"{first.ljust(9 + _WIDTH - 12)}   requests/s"
    return [f"{'':>7} └{line}", named, *filter(str.strip, [second])]
