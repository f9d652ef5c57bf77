"""What a comparison with a baseline adds to what a run has come to, for all that CI reads."""

from collections.abc import Iterable

from msgspec.structs import replace

from loadbench.judge.comparison import Comparison, Row
from loadbench.judge.gate import FINE, OTHER_WORK, UNDECIDED, WORSE, Decision
from loadbench.report.comparison import cells
from loadbench.report.conclusion import Conclusion, Finding, State
from loadbench.units import percent

_STATES: dict[int, State] = {
    FINE: "passed", WORSE: "failed", OTHER_WORK: "error", UNDECIDED: "no verdict",
}  # fmt: skip
_ORDER: tuple[State, ...] = ("error", "failed", "no verdict", "passed")  # the first that is so
_FINDINGS: dict[str, State] = {"worse": "failed", "inconclusive": "no verdict"}


def against(found: Conclusion, comparison: Comparison, made: Decision, warn: bool) -> Conclusion:
    """The checks' conclusion together with the comparison's. What failed in either fails; a missing
    verdict in either is none of both, and with `warn` exits with 0."""
    own = _STATES[made.code]
    state = min(found.state, own, key=_ORDER.index)
    codes = {"failed": 1, "no verdict": 0 if warn else 4, "passed": 0}
    if own == "error" and found.state != "error":  # a check that failed is not to be lost with it
        state = found.state if found.state == "failed" else own
        codes["error"] = OTHER_WORK
    asked = state == "error" or any(one.about == "check" for one in found.findings)
    said = [found.sentence] if found.state == state and asked else []
    said += [_sentence(comparison, made)] if own == state else []
    return replace(
        found,
        state=state,
        exit_code=codes.get(state, found.exit_code),
        sentence="; ".join(filter(None, said)),
        findings=(*found.findings, *findings(comparison)),
        missed=made.missed,
        comparison=comparison,
    )


def _sentence(comparison: Comparison, made: Decision) -> str:
    """The gate's, with the figures of what is worse."""
    worse = [words(row).removesuffix(": worse") for row in comparison.gated if row.word == "worse"]
    return f"worse than {comparison.a}: {'; '.join(worse)}" if worse else made.text


def findings(comparison: Comparison) -> Iterable[Finding]:
    """Each gated metric. One that is inconclusive has no verdict, whatever the gate makes of it."""
    for row in comparison.gated:
        state = _FINDINGS.get(row.word, "passed")
        assert state != "error"
        yield Finding("comparison", f"{row.metric} against {comparison.a}", state, words(row))


def words(row: Row) -> str:
    """`p99 46.2 → 53.1 ms, +15.0 % (+11.2 … +19.1), 6+6 repeats, margin 5 %: worse`."""
    _, a, b, change, _, n = cells(row, bounds=True)
    margin = "" if row.margin is None else f"margin {percent(row.margin)} %"
    said = f"{row.metric} {a} → {b} {row.unit}".rstrip()
    text = f"{', '.join(filter(None, (said, change, f'{n} repeats', margin)))}: {row.word}"
    if row.why:
        return f"{text} ({row.why})"
    if row.word == "inconclusive" and row.more:
        return f"{text}; some {row.more} further repeats a side would settle it"
    return text
