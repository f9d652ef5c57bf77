"""What a command has come to, as everything that CI reads is made from: the verdict in a sentence,
and each check and gated metric with what became of it.

Whether there is a verdict, and which, has been decided (`loadbench.judge`); here it gets its words.
A run that cannot be trusted passes nothing and fails nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from loadbench.judge.checks import unshown, why_not
from loadbench.model import Value
from loadbench.printable import harmless
from loadbench.report.certain import check_name, check_words
from loadbench.summary import CheckResult, Summary
from loadbench.trust import SPOILING

State = Literal["passed", "failed", "no verdict", "error"]
_STATES: dict[int, State] = {0: "passed", 1: "failed", 4: "no verdict"}


class Finding(Value, frozen=True, omit_defaults=False):
    """One thing that was asked of a run: `about` "check" or "comparison", what became of it, and
    that in words."""

    about: Literal["check", "comparison"]
    name: str
    state: Literal["passed", "failed", "no verdict"]
    text: str


class Conclusion(Value, frozen=True, omit_defaults=False):
    """`exit_code` is what the command ends with: 0 for no verdict where that is only to be warned
    of. `missed` says how small a regression may have gone unseen, where something was compared.
    `summaries` are those of all repeats."""

    scenario: str
    run: str
    state: State
    exit_code: int
    sentence: str
    findings: tuple[Finding, ...] = ()
    missed: str = ""
    hint: str = ""  # what to do, where the run could not be made
    summaries: tuple[Summary, ...] = ()

    @property
    def sign(self) -> str:
        return {"passed": "✓", "failed": "✗", "no verdict": "▲", "error": "✗"}[self.state]

    @property
    def title(self) -> str:
        """`passed: both checks`: the state, and the sentence where it does not say it."""
        return f"{self.state}: {self.sentence}" if self.sentence else self.state


def not_made(scenario: str, message: str, hint: str, exit_code: int) -> Conclusion:
    """Of a run that could not be made, or could not begin."""
    name, message, hint = harmless(scenario), harmless(message), harmless(hint)
    return Conclusion(name, "", "error", exit_code, message, hint=hint)


def concluded(
    summaries: Sequence[Summary], exit_code: int, warn: bool, certain: bool
) -> Conclusion:
    """Of the runs that were made, at least one. `exit_code` is the verdict's, before `warn` makes 0
    of a missing one."""
    state = _STATES.get(exit_code, "error")
    findings = tuple(checked(summaries, certain))
    return Conclusion(
        summaries[0].scenario,
        summaries[0].run,
        state,
        0 if warn and state == "no verdict" else exit_code,
        _sentence(state, findings, summaries),
        findings,
        summaries=tuple(summaries),
    )


def checked(summaries: Sequence[Summary], certain: bool) -> Iterable[Finding]:
    """Each check over all repeats: all have to pass."""
    doubt = unfit(summaries)
    names = dict.fromkeys(check.name for summary in summaries for check in summary.checks)
    for name in names:
        found = [(s, check) for s in summaries for check in s.checks if check.name == name]
        text = "; ".join(dict.fromkeys(_words(check, summary) for summary, check in found))
        checks = [check for _, check in found]
        title = f"{check_name(name)} {checks[0].text}"
        if doubt:
            yield Finding("check", title, "no verdict", f"{doubt} ({text})")
        elif any(check.state == "failed" for check in checks):
            yield Finding("check", title, "failed", text)
        elif any(check.state == "no data" for check in checks):
            yield Finding("check", title, "no verdict", text)
        elif certain and (open_ := unshown(checks)):
            measured = _measured(open_[0], summaries[0])
            yield Finding("check", title, "no verdict", f"{measured}, but {why_not(open_[0])}")
        else:
            yield Finding("check", title, "passed", text)


def unfit(summaries: Sequence[Summary]) -> str:
    """Why nothing can be said of these runs; "": they are fit."""
    for summary in summaries:
        if summary.reason != "done":
            return f"the run was not finished: {summary.text}"
        if summary.trust == "invalid":
            why = next((note.text for note in summary.notes if note.code in SPOILING), "")
            return "the numbers cannot be trusted" + (f": {why}" if why else "")
    return ""


def _words(check: CheckResult, summary: Summary) -> str:
    """`p99 46.2 ms < 100 ms · shown`."""
    why = summary.no_bands.get("latency_ms", {}).get(check.name, "")
    unbounded = f"no ±: {why}" if why and why != check.why else ""
    return " · ".join(filter(None, (_measured(check, summary), check.sure or check.why, unbounded)))


def _measured(check: CheckResult, summary: Summary) -> str:
    """`p99 46.2 ms < 100 ms`, `p99 153 ms, not < 100 ms`."""
    share = summary.missed / summary.asked if summary.asked else None
    band = summary.bands_ms.get(check.name)
    words = check_words(check, share, band).partition(" ")[2]
    if check.state != "failed":
        return words
    return f"{words.removesuffix(check.text).rstrip()}, not {check.text}"


def _sentence(state: State, findings: Sequence[Finding], summaries: Sequence[Summary]) -> str:
    if state == "error":
        return next((one.text for one in summaries if one.reason != "done"), "the run was stopped")
    wanted = [one.text for one in findings if one.state == state]
    if state != "passed":
        return "; ".join(wanted) or unfit(summaries)
    if not findings:
        return "nothing was asked of it: the scenario has no checks"
    return "; ".join(one.text for one in findings)


def facts(found: Conclusion) -> dict[str, Any]:
    """What the head of every output says of the run."""
    if not found.summaries:
        return {}
    first = found.summaries[0]
    grades = [summary.trust for summary in found.summaries]
    order = ("invalid", "doubtful", "trusted")
    return {
        "run": found.run,
        "target": first.target,
        "device": first.device,
        "seconds": sum(summary.seconds for summary in found.summaries),
        "repeats": len(found.summaries),
        "trust": min(grades, key=order.index),
    }
