"""Several sides in one table as text: what differs between them first, the best of each, what the
verdicts rest on, and what weakens the figures."""

from loadbench.judge.gate import change
from loadbench.judge.matrix import Matrix, row_of
from loadbench.report.certain import within
from loadbench.report.columns import aligned
from loadbench.report.comparison import MEDIANS, differences, rests_on
from loadbench.units import significant

FRONT = "★ no other run is as good in all of these and better in one"
NAMED = frozenset({"run", "best"})  # columns of words, besides the last


def matrix_text(found: Matrix) -> str:
    """All of it, without a newline at its end."""
    first = found.entries[0].name
    differing = matrix_differences(found)
    if differing:
        lines = [f"Differs from {first}:", *(f"  {text}" for text in differing)]
    else:
        lines = ["Same scenario, settings, versions and machine."]
    rows = matrix_rows(found)
    left = {at for at, head in enumerate(rows[0]) if head in NAMED} | {len(rows[0]) - 1}
    lines += ["", *aligned(rows, frozenset(left)), "", FRONT, *matrix_sentences(found)]
    lines += [f"▲ {note.text}" + (f": {note.hint}" if note.hint else "") for note in found.notes]
    return "\n".join(f"  {line}".rstrip() for line in lines)


def matrix_differences(found: Matrix) -> list[str]:
    """`0148-steady: engine.max_batch: 32 → 8`, each setting of a side that is not as in the
    first."""
    return [f"{one.b}: {text}" for one in found.comparisons for text in differences(one)]


def matrix_sentences(found: Matrix) -> list[str]:
    """What each verdict rests on: the change with its bounds, its margin, and the smallest
    regression that would have been found; why medians have no ±."""
    told = [
        f"{one.b}: {change(row)}; {text.removeprefix(f'{row.metric}: ')}"
        for one in found.comparisons
        for row in one.gated
        if (text := rests_on(row))
    ]
    return [*told, MEDIANS] if any(entry.repeats > 1 for entry in found.entries) else told


def matrix_rows(found: Matrix) -> list[tuple[str, ...]]:
    """Heads, then a row for each side."""
    heads = [f"{name} {unit}" for name, unit in zip(found.measures, found.units, strict=True)]
    first = found.entries[0].name
    rows: list[tuple[str, ...]] = [("run", "n", *heads, "best", f"vs {first}")]
    for at, entry in enumerate(found.entries):
        words = ", ".join(f"{metric} {word}" for metric, word in entry.words.items())
        values = zip(found.measures, entry.values, strict=True)
        shown = [_cell(found, at, name, value) for name, value in values]
        rows.append((entry.name, str(entry.repeats), *shown, "★" if entry.front else "", words))
    return rows


def _cell(found: Matrix, at: int, metric: str, value: float | None) -> str:
    """With its ± where it is of a single run; what has no number lies above the limit."""
    row, side = row_of(found.comparisons, at, metric)
    if row is None:
        return significant(value)
    if row.beyond[side] is not None:
        return f"> {significant(row.beyond[side])}"
    return significant(value) + within(value, row.bands[side])
