"""What a verdict is worth to a script: an exit code, and the sentence that goes with it."""

from typing import NamedTuple

from loadbench.judge.comparison import Comparison, Row
from loadbench.units import percent

FINE, WORSE, UNDECIDED = 0, 1, 4


class Decision(NamedTuple):
    """`undecided` says that it would be 4 if warnings did not pass."""

    code: int
    text: str
    undecided: bool = False


def decision(found: Comparison, strict: bool = False, warn: bool = False) -> Decision:
    """1 if a gated metric is worse. 4 without a verdict (0 for who is only to be warned): runs
    that are not to be trusted, different work, fewer than 5 + 5 repeats. A change that is not
    shown to be a regression passes; `strict` passes only where one beyond the margin is ruled out.
    """
    worse = [row for row in found.gated if row.word == "worse"]
    if worse:
        return Decision(WORSE, f"worse than {found.a}: {', '.join(map(_change, worse))}")
    barred = [row for row in found.gated if row.why]
    if barred or (not found.gated and not _nothing_to_judge(found)):
        why = barred[0].why if barred else "nothing to compare"
        text = f"no verdict against {found.a}: {why}"
        return Decision(FINE if warn else UNDECIDED, text, undecided=True)
    opened = [row for row in found.gated if row.word == "inconclusive"]
    if opened and strict:
        text = (
            f"not ruled out against {found.a}: {', '.join(map(_change, opened))}; {missed(found)}"
        )
        return Decision(FINE if warn else UNDECIDED, text, undecided=True)
    words = ", ".join(f"{row.metric} {row.word}" for row in found.gated) or "kept up"
    text = f"no regression shown against {found.a}: {words}"
    return Decision(FINE, "; ".join(filter(None, (text, missed(found)))))


def _nothing_to_judge(found: Comparison) -> bool:
    """Where throughput alone is gated and both sides did all that was asked."""
    return found.kept_up == (True, True)


def missed(found: Comparison) -> str:
    """The smallest regression that could have been missed, of each gated metric."""
    known = [f"{row.metric} {percent(row.mde)} %" for row in found.gated if row.mde is not None]
    return f"smaller regressions than these can be missed: {', '.join(known)}" if known else ""


def _change(row: Row) -> str:
    if row.shift is None:
        return row.metric
    bounds = [f"{one * 100:+.1f}" for one in (row.low, row.high) if one is not None]
    between = f" ({' … '.join(bounds)})" if len(bounds) == 2 else ""
    return f"{row.metric} {row.shift * 100:+.1f} %{between}"
