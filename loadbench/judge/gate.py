"""What a verdict is worth to a script: an exit code, and the sentence that goes with it."""

from typing import NamedTuple

from loadbench.judge.comparison import Comparison, Row
from loadbench.units import percent

FINE, WORSE, OTHER_WORK, UNDECIDED = 0, 1, 2, 4


class Decision(NamedTuple):
    """`code` is the exit code, before a warning makes 0 of a missing verdict; `missed` says how
    small a regression can have gone unseen."""

    code: int
    text: str
    missed: str = ""

    @property
    def words(self) -> str:
        return "; ".join(filter(None, (self.text, self.missed)))


def decision(found: Comparison, strict: bool = False) -> Decision:
    """1 if a gated metric is worse. 4 without a verdict: runs that are not to be trusted, different
    work, fewer than 5 + 5 repeats. A change that is not shown to be a regression passes; `strict`
    passes only where one beyond the margin is ruled out."""
    gated = found.gated
    worse = [row for row in gated if row.word == "worse"]
    if worse:
        return Decision(WORSE, f"worse than {found.a}: {', '.join(map(change, worse))}")
    if not gated:  # only how much was done was to be judged, and both did all that was asked
        return Decision(FINE, f"kept up as {found.a} did")
    barred = [row for row in gated if row.why]
    if barred:
        return Decision(UNDECIDED, f"no verdict against {found.a}: {barred[0].why}", _missed(gated))
    opened = [row for row in gated if row.word == "inconclusive"]
    if opened and strict:
        text = f"a regression against {found.a} is not ruled out: {', '.join(map(change, opened))}"
        return Decision(UNDECIDED, text, _missed(gated))
    words = ", ".join(f"{row.metric} {row.word}" for row in gated)
    return Decision(FINE, f"no regression shown against {found.a}: {words}", _missed(gated))


def held(found: Comparison, strict: bool = False) -> Decision:
    """Of a run against a baseline: `decision`, and 2 where it turned out to be other work. That is
    no missing verdict that could be let pass."""
    if found.comparable:
        return decision(found, strict)
    said = next(note.text for note in found.notes if note.code == "different-work")
    return Decision(OTHER_WORK, f"nothing is held against {found.a}: {said}")


def _missed(gated: tuple[Row, ...]) -> str:
    """The smallest regression that could have been missed, of each gated metric."""
    if any(row.mde is None for row in gated):
        return "a regression of any size can have been missed"
    known = ", ".join(f"{row.metric} {percent(row.mde)} %" for row in gated)
    return f"smaller regressions than these can have been missed: {known}"


def change(row: Row) -> str:
    """`p99 +7.2 % (+3.1 … +11.4)`."""
    if row.shift is None:
        return row.metric
    bounds = [f"{one * 100:+.1f}" for one in (row.low, row.high) if one is not None]
    between = f" ({' … '.join(bounds)})" if len(bounds) == 2 else ""
    return f"{row.metric} {row.shift * 100:+.1f} %{between}"
