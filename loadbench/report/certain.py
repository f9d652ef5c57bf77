"""How sure the figures of a run are, in words: percentiles with bands, and what these rest on."""

from loadbench.assurance import Band, Certainty
from loadbench.units import count, significant


def within(value: float | None, found: tuple[float, float | None] | None) -> str:
    """` ±1.1`, ` (≥ 44.1)` where nothing bounds it above; "" without a band. All in ms."""
    if value is None or found is None:
        return ""
    around = Band(*found).around(value)
    if around is None:
        return f" (≥ {significant(found[0])})"
    return f" ±{significant(around, 2)}"


def rests_on(found: Certainty, asked: int, bands: bool) -> str:
    """What the bands rest on, or why there are none."""
    if found.effect is None or found.effective is None:
        return f"no bands: {found.why}"
    said = f"{count(asked)} requests say as much as {count(found.effective)} independent ones"
    text = f"{said} (design effect {significant(found.effect, 2)})"
    return f"± holds at 95 %; {text}" if bands else f"no bands: too few, since {text}"
