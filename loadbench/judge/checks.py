"""What the checks of runs come to: an exit code, and what `--certain` asks for beyond it.

A run that cannot be trusted, was not finished, or was altered since, passes nothing and fails
nothing.
"""

from collections.abc import Iterable, Sequence

from loadbench.assurance import OTHER
from loadbench.model import Note
from loadbench.snapshots import sums
from loadbench.summary import CheckResult, Summary
from loadbench.trust import SPOILING

PASSED, CHECK_FAILED, NOT_MADE, NO_VERDICT = 0, 1, 3, 4


def verdict(summaries: Sequence[Summary], certain: bool) -> int:
    """The exit code of all repeats together. `certain`: what passed must be shown to."""
    if any(summary.reason == "failed" for summary in summaries):
        return NOT_MADE
    if any(summary.trust == "invalid" or altered(summary.notes) for summary in summaries):
        return NO_VERDICT
    checks = [check for summary in summaries for check in summary.checks]
    ends = {summary.reason for summary in summaries} - {"done"}
    if ends - {"stopped"} or (ends and checks):  # who stops a run that asks nothing has all of it
        return NO_VERDICT
    states = {check.state for check in checks}
    if "failed" in states:
        return CHECK_FAILED
    return NO_VERDICT if "no data" in states or (certain and unshown(checks)) else PASSED


def altered(notes: Iterable[Note]) -> str:
    """What of a run was altered since its end, so that it gets no verdict; "" if nothing was."""
    return next((note.text for note in notes if note.code == sums.CODE), "")


def unjudged(summary: Summary) -> str:
    """Why its checks pass nothing and fail nothing; "" where they do."""
    unfinished = not_finished(summary.text)
    if summary.reason == "running":
        unfinished = "the run goes on"
    return why_unjudged(summary.reason, summary.trust, summary.notes, unfinished)


def not_finished(text: str) -> str:
    """What is said of a run that was broken off; `text` is what its end says of it."""
    return f"the run was not finished: {text}".removesuffix(": ")


def why_unjudged(ended: str, trust: str | None, notes: Sequence[Note], unfinished: str) -> str:
    """The same of whatever has come to such an end, a run or repeats by their worst; `unfinished`
    is what is said of those that did not come to theirs."""
    if ended != "done":
        return unfinished
    if trust == "invalid":
        why = next((note.text for note in notes if note.code in SPOILING), "")
        return "the numbers cannot be trusted" + (f": {why}" if why else "")
    return altered(notes)


def unshown(checks: Iterable[CheckResult]) -> list[CheckResult]:
    """Those that passed and may not do so again. A figure that is no percentile and no share of
    requests (throughput, a mean, a number) tells of this run alone: nothing is asked of it."""
    return [
        check
        for check in checks
        if check.state == "passed" and check.certainty != "shown" and check.why != OTHER
    ]


def why_not(check: CheckResult) -> str:
    """`not shown (≈ 12,000 more)`, or why nothing can be shown."""
    return check.sure or f"not shown: {check.why}"
