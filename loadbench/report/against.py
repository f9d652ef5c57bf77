"""What a comparison with a baseline adds to what a run has come to, for all that CI reads."""

from collections.abc import Iterable

from msgspec.structs import replace

from loadbench.judge.comparison import Comparison
from loadbench.judge.gate import FINE, UNDECIDED, WORSE, Decision, change
from loadbench.report.conclusion import Conclusion, Finding, State
from loadbench.units import percent

_STATES: dict[int, State] = {FINE: "passed", WORSE: "failed", UNDECIDED: "no verdict"}
_ORDER: tuple[State, ...] = ("error", "failed", "no verdict", "passed")  # the first that is so


def against(found: Conclusion, comparison: Comparison, made: Decision, warn: bool) -> Conclusion:
    """The checks' conclusion together with the comparison's. What failed in either fails; a missing
    verdict in either is none of both, and with `warn` exits with 0."""
    own = _STATES[made.code]
    state = min(found.state, own, key=_ORDER.index)
    codes = {"failed": 1, "no verdict": 0 if warn else 4, "passed": 0}
    of_checks = found.sentence if any(one.about == "check" for one in found.findings) else ""
    said = [(found.state, found.sentence if state == "error" else of_checks), (own, made.text)]
    return replace(
        found,
        state=state,
        exit_code=codes.get(state, found.exit_code),
        sentence="; ".join(text for of, text in said if of == state and text),
        findings=(*found.findings, *_findings(comparison, made)),
        missed=made.missed,
    )


def _findings(comparison: Comparison, made: Decision) -> Iterable[Finding]:
    for row in comparison.gated:
        words = f"{change(row)}: {row.word}" + (f" ({row.why})" if row.why else "")
        title = f"{row.metric} against {comparison.a}"
        title += "" if row.margin is None else f", margin {percent(row.margin)} %"
        if row.word == "worse":
            yield Finding("comparison", title, "failed", words)
        elif row.word == "inconclusive" and made.code == UNDECIDED:
            yield Finding("comparison", title, "no verdict", words)
        else:
            yield Finding("comparison", title, "passed", words)
