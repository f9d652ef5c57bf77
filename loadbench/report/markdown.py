"""A conclusion as Markdown for a comment of a pull request: the verdict first, then what it rests
on.

Names and texts may be of anybody's making: names stand in code, where nothing is interpreted, and
in sentences whatever Markdown, HTML or a forge would act on (links, mentions, references) is broken
up. It is meant for GitHub and GitLab.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from loadbench.judge.comparison import Row
from loadbench.printable import harmless
from loadbench.report.certain import bands_of, of_notes, within
from loadbench.report.comparison import MEDIANS, cells, differences, doubts
from loadbench.report.conclusion import Conclusion, Finding, facts
from loadbench.summary import Summary
from loadbench.units import SECOND, duration, percent, significant

LARGEST = 60_000  # characters: GitHub takes 65,536 in a comment
_LONGEST = 300  # of one text
_ACTIVE = re.compile(r"([\\`*_\[\]<>|~$#!])")
_MENTION = re.compile(r"([@!#%&~$])(?=\w)|(:)(?=//)|(www)(?=\.)", re.IGNORECASE)
_JOINER = "\u2060"  # has no width, and what it stands in is no mention and no link any more
_SIGNS = {"passed": "✓", "failed": "✗", "no verdict": "▲"}
_TIMES = (("first_token_ms", "first"), ("token_gap_ms", "gap"), ("token_pace_ms", "mean"))
_OF_TOKENS = ("p50", "p99")
_NAMES = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p99_9": "p99.9", "max": "max"}


def markdown(found: Conclusion) -> str:
    """The whole comment, cut where it would be too long for one."""
    lines = [f"### {found.sign} loadbench {code(found.scenario)}: {prose(found.title)}", ""]
    if found.hint:
        lines += [prose(found.hint), ""]
    if found.missed:
        lines += [prose(found.missed), ""]
    parts = (_head(found), _checks(found), _gated(found), _rest(found), _latency(found))
    for part in (*parts, _tokens(found), _differences(found), _notes(found)):
        if part:
            lines += [*part, ""]
    text = "\n".join(lines).rstrip() + "\n"
    if len(text) <= LARGEST:
        return text
    kept = text[:LARGEST].rpartition("\n")[0]
    return f"{kept}\n\n… cut here: the whole of it is in the run's folder\n"


def prose(text: str) -> str:
    """A sentence in which nothing is acted upon."""
    text = " ".join(harmless(text[:_LONGEST]).split())
    text = _MENTION.sub(lambda match: match[0] + _JOINER, text)
    text = text.replace("&", "&amp;")
    return _ACTIVE.sub(r"\\\1", text).replace(r"\<", "&lt;").replace(r"\>", "&gt;")


def code(text: str) -> str:
    """A name as code, which can stand in a table too."""
    text = " ".join(harmless(text[:_LONGEST]).split()) or " "
    runs = [len(run) for run in re.findall(r"`+", text)]
    fence = "`" * next(n for n in range(1, len(runs) + 2) if n not in runs)
    pad = " " if text[0] == "`" or text[-1] == "`" else ""
    return f"{fence}{pad}{text}{pad}{fence}".replace("|", r"\|")


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Of cells that are Markdown already."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *map(list, rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def folded(title: str, lines: list[str]) -> list[str]:
    """Lines that are seen when one asks for them."""
    return [f"<details><summary>{title}</summary>", "", *lines, "", "</details>"]


def _head(found: Conclusion) -> list[str]:
    known = facts(found)
    if not known:
        return []
    length = duration(round(known["seconds"] * SECOND))
    parts = [code(known["target"]), code(known["device"]) if known["device"] else "", length]
    if known["repeats"] > 1:
        parts.append(f"{known['repeats']} repeats")
    sign = "" if known["trust"] == "trusted" else "▲ "
    parts += [f"run {code(known['run'])}", f"{sign}{known['trust']}"]
    return [" · ".join(filter(None, parts))]


def _checks(found: Conclusion) -> list[str]:
    checks = [one for one in found.findings if one.about == "check"]
    if not checks:
        return []
    return table(("check", "", "measured"), map(_check, checks))


def _check(one: Finding) -> tuple[str, str, str]:
    return code(one.name), f"{_SIGNS[one.state]} {one.state}", prose(one.text)


def _gated(found: Conclusion) -> list[str]:
    """The metrics that decide, against the baseline."""
    against = found.comparison
    if against is None:
        return []
    lines = [f"Against {code(against.a)} (A):", ""]
    heads = ("metric", "A", "B", "change", "margin", "verdict", "would be found", "repeats")
    rows = [_row(row) for row in against.gated]
    why = ["", f"{prose(MEDIANS)}."] if any(max(row.n) > 1 for row in against.rows) else []
    return lines + (table(heads, rows) if rows else ["Nothing of it is gated."]) + why


def _row(row: Row) -> tuple[str, ...]:
    name, a, b, change, said, n = cells(row, bounds=True)
    margin = "" if row.margin is None else f"{percent(row.margin)} %"
    least = "" if row.mde is None else f"{percent(row.mde)} %"
    return code(name), prose(a), prose(b), change, margin, prose(said), least, n


def _rest(found: Conclusion) -> list[str]:
    """The other metrics, which decide nothing."""
    rows = [row for row in found.comparison.rows if not row.word] if found.comparison else []
    if not rows:
        return []
    shown = [cells(row, bounds=True) for row in rows]
    lines = table(
        ("metric", "A", "B", "change", "repeats"),
        ((code(name), prose(a), prose(b), change, n) for name, a, b, change, _, n in shown),
    )
    return folded("Other metrics (no verdict)", lines)


def _differences(found: Conclusion) -> list[str]:
    """Settings, versions and parts of the machine that are not the same as the baseline's."""
    if found.comparison is None:
        return []
    differing = differences(found.comparison)
    if not differing:
        return ["Same scenario, settings, versions and machine as the baseline."]
    return folded(
        f"Differs from the baseline ({len(differing)})", [f"- {code(text)}" for text in differing]
    )


def _latency(found: Conclusion) -> list[str]:
    """The percentiles of each repeat with what they are sure to; of a single run what that rests
    on."""
    if not found.summaries:
        return []
    heads = ("", "done/s", *_NAMES.values())
    rows = [_times(number, summary) for number, summary in enumerate(found.summaries, 1)]
    lines = table(heads, rows)
    if any(one.bands_ms for one in found.summaries):
        lines += ["", "Latency in ms from the time each request was due; ± holds at 95 %."]
    else:
        lines += ["", "Latency in ms from the time each request was due."]
    return folded("Latency", [*lines, *_unbounded(found.summaries, ("latency_ms",))])


def _unbounded(summaries: Iterable[Summary], names: Iterable[str]) -> list[str]:
    """Why some percentiles have no ±."""
    names = tuple(names)
    whys = dict.fromkeys(
        why for one in summaries for name in names for why in one.no_bands.get(name, {}).values()
    )
    return [f"No ± of some: {prose('; '.join(whys))}."] if whys else []


def _times(number: int, summary: Summary) -> tuple[str, ...]:
    cells = [f"{number}", significant(summary.rate["done"])]
    for key in _NAMES:
        value = summary.latency_ms.get(key)
        if value is None and summary.missed and summary.limit_ms is not None:
            share = percent(summary.missed_share)
            cells.append(f"&gt; {significant(summary.limit_ms)} ({share} % not answered well)")
        else:
            cells.append(f"{significant(value)}{within(value, summary.bands_ms.get(key))}")
    return tuple(cells)


def _tokens(found: Conclusion) -> list[str]:
    """Of each repeat whose answers come token by token."""
    told = [(at, one) for at, one in enumerate(found.summaries, 1) if one.tokens]
    if not told:
        return []
    heads = ("", "tokens/s", *(f"{title} {which}" for _, title in _TIMES for which in _OF_TOKENS))
    lines = table(heads, [_of_tokens(at, one, one.tokens or {}) for at, one in told])
    said = "Times in ms; the first token counts from the time its request was due."
    why = _unbounded((one for _, one in told), (name for name, _ in _TIMES))
    return folded("Tokens", [*lines, "", said, *why])


def _of_tokens(number: int, summary: Summary, tokens: dict[str, Any]) -> tuple[str, ...]:
    cells = [f"{number}", significant(tokens["per_s"])]
    for name, _ in _TIMES:
        bands = bands_of(summary, name)
        for which in _OF_TOKENS:
            value = tokens[name][which]
            cells.append(f"{significant(value)}{within(value, bands.get(which))}")
    return tuple(cells)


def _notes(found: Conclusion) -> list[str]:
    texts = [*_texts(found.summaries), *(doubts(found.comparison) if found.comparison else ())]
    return [f"- {prose(text)}" for text in dict.fromkeys(texts)]


def _texts(summaries: Iterable[Summary]) -> Iterator[str]:
    for summary in summaries:
        for note in summary.notes:
            yield note.text + (f": {note.hint}" if note.hint else "")
        yield from of_notes(summary)
