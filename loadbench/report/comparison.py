"""A comparison as text: what differs first, then the figures, then what weakens them."""

import json

from loadbench.compare import Comparison, Row
from loadbench.report.columns import aligned
from loadbench.units import percent, significant

HEADS = ("metric", "A", "B", "B vs A", "verdict", "n")
_LONGEST = 80


def comparison_text(found: Comparison) -> str:
    """All of it, without a newline at its end."""
    lines = [f"A {found.a}   vs   B {found.b}", ""]
    if found.differences:
        lines.append("  Differs:")
        lines += [f"    {text}" for text in differences(found)]
    else:
        lines.append("  Same scenario, settings, versions and machine.")
    rows = [HEADS, *(cells(row) for row in found.rows)]
    lines += ["", *(f"  {line}" for line in aligned(rows, frozenset({0, 4}))), ""]
    lines += [f"  ▲ {text}" for text in doubts(found)]
    return "\n".join(lines)


def differences(found: Comparison) -> list[str]:
    """`engine.max_batch: 32 → 8`, each setting, version or part that is not the same."""
    return [f"{one.key}: {_value(one.a)} → {_value(one.b)}" for one in found.differences]


def doubts(found: Comparison) -> list[str]:
    """What weakens the figures, and what to do about it."""
    return [note.text + (f": {note.hint}" if note.hint else "") for note in found.notes]


def cells(row: Row) -> tuple[str, ...]:
    """A metric's line, as HEADS names its parts."""
    show = percent if row.unit == "%" else significant
    name = f"{row.metric} {row.unit}".rstrip()
    delta = "" if row.delta is None else f"{row.delta * 100:+.1f} %"
    a, b = (
        show(value) if beyond is None else f"> {show(beyond)}"
        for value, beyond in zip((row.a, row.b), row.beyond, strict=True)
    )
    return (name, a, b, delta, f"? {row.verdict}", f"{row.n[0]}+{row.n[1]}")


def _value(value: object) -> str:
    if isinstance(value, float):  # 435.2, not 435.20000000000005: a share of a rate, say
        value = float(f"{value:.12g}")
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}…"
