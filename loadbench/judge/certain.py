"""Whether checks that passed are shown to: what `--certain` asks for before it calls it a pass."""

from collections.abc import Iterable

from loadbench.assurance import OTHER
from loadbench.summary import CheckResult


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
