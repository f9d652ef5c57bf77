"""What a command has come to, as everything that CI reads is made from: the verdict in a sentence,
and each check and gated metric with what became of it.

Whether there is a verdict, and which, has been decided (`loadbench.judge`); here it gets its words.
A run that cannot be trusted, or was altered since, passes nothing and fails nothing.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from loadbench.judge.checks import unjudged, unshown, why_not
from loadbench.judge.comparison import Comparison
from loadbench.model import Value
from loadbench.printable import harmless
from loadbench.report.certain import bands_of, check_name, check_words, place
from loadbench.summary import CheckResult, Summary
from loadbench.trust import GRADES

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
    comparison: Comparison | None = None

    @property
    def sign(self) -> str:
        return {"passed": "✓", "failed": "✗", "no verdict": "▲", "error": "✗"}[self.state]

    @property
    def title(self) -> str:
        """`passed: p99 46.2 ms < 100 ms`: the state, unless the sentence begins with it."""
        if self.sentence.startswith(self.state):
            return self.sentence
        return f"{self.state}: {self.sentence}" if self.sentence else self.state


def not_made(scenario: str, message: str, hint: str, exit_code: int) -> Conclusion:
    """Of a run that could not be made, or could not begin."""
    name, message, hint = harmless(scenario), harmless(message), harmless(hint)
    return Conclusion(name, "", "error", exit_code, message, hint=hint)


def concluded(
    summaries: Sequence[Summary],
    exit_code: int,
    warn: bool,
    certain: bool,
) -> Conclusion:
    """Of the runs that were made, at least one. `exit_code` is the verdict's, before `warn` makes 0
    of a missing one."""
    state = _STATES.get(exit_code, "error")
    findings = tuple(checked(summaries, certain))
    return Conclusion(
        summaries[0].scenario,
        summaries[0].run.partition("/")[0],
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
        title = f"{check_name(name)} {found[0][1].text}"
        if doubt:
            yield Finding("check", title, "no verdict", f"{doubt}; measured: {_words(found[:1])}")
        elif failed := [one for one in found if one[1].state == "failed"]:
            yield Finding("check", title, "failed", _words(failed, len(found)))
        elif empty := [one for one in found if one[1].state == "no data"]:
            yield Finding("check", title, "no verdict", _words(empty, len(found)))
        elif certain and (open_ := [one for one in found if unshown([one[1]])]):
            summary, check = open_[0]
            text = f"{_measured(check, summary)}, but {why_not(check)}"
            yield Finding("check", title, "no verdict", text)
        else:
            yield Finding("check", title, "passed", _words(found, len(found)))


def unfit(summaries: Sequence[Summary]) -> str:
    """Why nothing can be said of these runs; "": they are fit."""
    return next(filter(None, map(unjudged, summaries)), "")


def _words(found: Sequence[tuple[Summary, CheckResult]], repeats: int = 1) -> str:
    """`p99 46.2 ms < 100 ms · shown`: of the worst, and how many of the repeats it stands for."""
    summary, check = max(found, key=lambda one: _badness(one[1]))
    what, percentile = place(check.name)
    why = summary.no_bands.get(what, {}).get(percentile, "")
    unbounded = f"no ±: {why}" if why and why != check.why else ""
    number = f"{len(found)} of {repeats} repeats, this the worst" if repeats > 1 else ""
    parts = (_measured(check, summary), check.sure or check.why, unbounded, number)
    return " · ".join(filter(None, parts))


def _badness(check: CheckResult) -> float:
    """What has no number lies among the failed."""
    if check.value is None:
        return math.inf
    return -check.value if check.text.startswith(">") else check.value


def _measured(check: CheckResult, summary: Summary) -> str:
    """`p99 46.2 ms < 100 ms`, `p99 153 ms, not < 100 ms`."""
    what, percentile = place(check.name)
    band = bands_of(summary, what).get(percentile)
    words = check_words(check, summary.missed_share, band).partition(" ")[2]
    if check.state != "failed":
        return words
    return f"{words.removesuffix(check.text).rstrip()}, not {check.text}"


def _sentence(state: State, findings: Sequence[Finding], summaries: Sequence[Summary]) -> str:
    if state == "error":
        return next((one.text for one in summaries if one.reason != "done"), "the run was stopped")
    wanted = [one.text for one in findings if one.state == state]
    if state == "no verdict":
        return unfit(summaries) or "; ".join(wanted)
    if state == "failed":
        return "; ".join(wanted)
    if not findings:
        return "nothing was asked of it: the scenario has no checks"
    return "; ".join(one.text for one in findings if one.state == "passed") or findings[0].text


def facts(found: Conclusion) -> dict[str, Any]:
    """What the head of every output says of the run."""
    if not found.summaries:
        return {}
    first = found.summaries[0]
    grades = [summary.trust for summary in found.summaries]
    return {
        "run": found.run,
        "target": first.target,
        "device": first.device,
        "seconds": sum(summary.seconds for summary in found.summaries),
        "repeats": len(found.summaries),
        "trust": max(grades, key=GRADES.index),
    }
