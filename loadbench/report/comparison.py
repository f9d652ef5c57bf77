"""A comparison as text: what differs first, then the figures, then what weakens them."""

import json
from itertools import groupby

from loadbench.judge.comparison import Comparison, Row
from loadbench.judge.differences import Difference
from loadbench.judge.metrics import BY_NAME
from loadbench.report.certain import within
from loadbench.report.columns import aligned
from loadbench.units import count, exact_duration, growth, percent, significant

HEADS = ("metric", "A", "B", "B vs A", "verdict", "n")
SIGNS = {"better": "▼", "same": "=", "ruled out": "✓", "worse": "▲", "inconclusive": "?"}
MEDIANS = (
    "medians of repeats have no ±: the repeats tell how much they move; the change from A to B is"
    " the median of that of all pairs of repeats, not that of the two medians"
)
_LONGEST = 80
_LETTERS, _TURNS = 48, 8  # of an order, on a line


def comparison_text(found: Comparison, width: int | None = None) -> str:
    """All of it, without a newline at its end; in few columns the table without its last parts."""
    lines = [f"A {found.a}   vs   B {found.b}", ""]
    if found.differences:
        lines.append("  Differs:")
        lines += [f"    {text}" for text in differences(found)]
    else:
        lines.append("  Same scenario, settings, versions and machine.")
    lines += ["", *_table(found, width), ""]
    lines += [f"  {text}" for text in sentences(found)]
    lines += [f"  ▲ {text}" for text in doubts(found)]
    return "\n".join(lines).rstrip()


def _table(found: Comparison, width: int | None) -> list[str]:
    """The figures. Least is lost without the bounds of the changes, then without the reasons of the
    verdicts (what is doubtful is told below), then without n and what sets it off to the right."""
    bounds, plain = ([cells(row, bounds=one) for row in found.rows] for one in (True, False))
    short = [(*row[:4], row[4].partition(" (")[0], row[5]) for row in plain]
    tables = [
        [
            f"{indent}{line}"
            for line in aligned([HEADS[:many], *(row[:many] for row in rows)], frozenset({0, 4}))
        ]
        for rows, many, indent in (
            (bounds, 6, "  "), (plain, 6, "  "), (short, 6, "  "), (short, 5, "  "), (short, 5, ""),
        )
    ]  # fmt: skip
    fitting = (one for one in tables if width is None or max(map(len, one)) <= width)
    return next(fitting, tables[-1])


def differences(found: Comparison) -> list[str]:
    """`engine.max_batch: 32 → 8`, each setting, version or part that is not the same."""
    return [_difference(one) for one in found.differences]


def _difference(one: Difference) -> str:
    if one.key.endswith("_ns"):  # of the load as it was planned: `phases[0].length: 3 m → 5 m`
        a, b = (exact_duration(v) if isinstance(v, int) else _value(v) for v in (one.a, one.b))
        return f"{one.key.removesuffix('_ns')}: {a} → {b}"
    return f"{one.key}: {_value(one.a)} → {_value(one.b)}"


def doubts(found: Comparison) -> list[str]:
    """What weakens the figures, and what to do about it."""
    return [note.text + (f": {note.hint}" if note.hint else "") for note in found.notes]


def cells(row: Row, bounds: bool = False) -> tuple[str, ...]:
    """A metric's line, as HEADS names its parts; with the bounds of the change, or without."""
    show = percent if row.unit == "%" else significant
    name = f"{row.metric} {row.unit}".rstrip()
    a, b = (
        show(value) + within(value, band) if beyond is None else f"> {show(beyond)}"
        for value, beyond, band in zip((row.a, row.b), row.beyond, row.bands, strict=True)
    )
    change = signed(row.shift)
    if bounds and (row.low is not None or row.high is not None):
        change += f" ({_end(row.low)} … {_end(row.high)})"
    return (name, a, b, change, verdict(row), f"{row.n[0]}+{row.n[1]}")


def verdict(row: Row) -> str:
    """`▲ worse`, `? inconclusive (1 run each)`; empty where nothing is judged."""
    if not row.word:
        return ""
    why = f" ({row.why})" if row.why else ""
    return f"{SIGNS[row.word]} {row.word}{why}"


def sentences(found: Comparison) -> list[str]:
    """What the verdicts rest on: margins, the smallest regression that would have been found, and
    what would settle what is open; whether both sides kept up."""
    lines = [text for row in found.gated if (text := rests_on(row))]
    if found.kept_up is not None:
        a, b = ("yes" if kept else "no" for kept in found.kept_up)
        lines.append(f"kept up with what was asked: A {a}, B {b}")
    if any(band for row in found.rows for band in row.bands):
        lines.append("± of a single run holds at 95 %; what it moves from run to run is not in it")
    if any(max(row.n) > 1 for row in found.rows):
        lines.append(MEDIANS)
    if len(found.order) > 2:
        lines.append(f"made in this order: {_order(found.order)}")
    return lines


def _order(letters: str) -> str:
    """As it is while it fits on a line; then `500 A, 500 B`, or of many turns the first letters."""
    if len(letters) <= _LETTERS:
        return letters
    turns = [f"{len(list(same))} {sign}" for sign, same in groupby(letters)]
    if len(turns) <= _TURNS:
        return ", ".join(turns)
    return f"{letters[:_LETTERS]} … ({count(len(letters))} in all)"


def rests_on(row: Row) -> str:
    """`p99: margin 5.0 %; a regression of 9.0 % would be found …`; empty without a margin."""
    if row.margin is None:
        return ""
    parts = [f"{row.metric}: margin {percent(row.margin)} %"]
    if row.word in ("same", "ruled out"):
        worse = row.inside_high if BY_NAME[row.metric].larger_is_worse else row.inside_low
        parts.append(f"at worst {signed(worse)} (95 %)")
    if row.mde is not None:
        parts.append(f"a regression of {percent(row.mde)} % would be found in 95 % of cases")
    if row.word == "inconclusive" and row.more:
        parts.append(f"some {row.more} further repeats a side would probably settle it")
    return "; ".join(parts)


def signed(share: float | None) -> str:
    """`+4.1 %`; empty for none."""
    return "" if share is None else f"{growth(share)} %"


def _end(share: float | None) -> str:
    return "?" if share is None else growth(share)


def _value(value: object) -> str:
    if isinstance(value, float):  # 435.2, not 435.20000000000005: a share of a rate, say
        value = float(f"{value:.12g}")
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}…"
