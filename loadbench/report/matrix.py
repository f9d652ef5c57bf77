"""Several sides in one table as text: the best of each, and what weakens the figures."""

from loadbench.judge.matrix import Matrix
from loadbench.report.columns import aligned
from loadbench.units import significant

FRONT = "★ no other run is as good in all of these and better in one"
NAMED = frozenset({"run", "best"})  # columns of words, besides the last


def matrix_text(found: Matrix) -> str:
    """All of it, without a newline at its end."""
    rows = matrix_rows(found)
    left = {at for at, head in enumerate(rows[0]) if head in NAMED} | {len(rows[0]) - 1}
    lines = aligned(rows, frozenset(left))
    lines += ["", FRONT]
    lines += [f"▲ {note.text}" + (f": {note.hint}" if note.hint else "") for note in found.notes]
    return "\n".join(f"  {line}".rstrip() for line in lines)


def matrix_rows(found: Matrix) -> list[tuple[str, ...]]:
    """Heads, then a row for each side."""
    heads = [f"{name} {unit}" for name, unit in zip(found.measures, found.units, strict=True)]
    first = found.entries[0].name
    rows: list[tuple[str, ...]] = [("run", "n", *heads, "best", f"vs {first}")]
    for entry in found.entries:
        words = ", ".join(f"{metric} {word}" for metric, word in entry.words.items())
        shown = [
            f"> {significant(limit)}" if (limit := _limit(found, entry.name, name)) else
            significant(value)
            for name, value in zip(found.measures, entry.values, strict=True)
        ]  # fmt: skip
        rows.append((entry.name, str(entry.repeats), *shown, "★" if entry.front else "", words))
    return rows


def _limit(found: Matrix, side: str, metric: str) -> float | None:
    """What a percentile without a number lies above."""
    for one in found.comparisons:
        for row in one.rows:
            if row.metric == metric and side in (one.a, one.b):
                return row.beyond[side == one.b]
    return None
