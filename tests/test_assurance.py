"""What is said to be shown of a run: of its windows, with what failed among them."""

import math

import numpy as np
import pytest
from msgspec.structs import replace

from loadbench.assurance import CHANGED, OTHER, SHORT, UNPACED, Blocks, assess, band, known
from loadbench.histogram import Histogram
from loadbench.model import Check, End, Record, Window
from loadbench.report.text import summary_text
from loadbench.summary import Summary, summarise
from loadbench.units import MS
from loadbench.value import plain
from tests.records import start, window

P99 = Check("p99", False, 100 * MS, "< 100 ms")
ERRORS = Check("errors", False, 0.01, "< 1 %")


def seconds(
    number: int, each: int = 200, over: float = 0.0, failed: int = 0, **fields: object
) -> list[Window]:
    """Windows of independent requests: `over` of them take 150 ms, the others about 20."""
    rng = np.random.default_rng(1)
    found = []
    for second in range(number):
        values = rng.lognormal(3.0, 0.2, each)
        values[rng.random(each) < over] = 150.0
        lost = {"http_503": failed} if failed else {}
        given = {"rate": 200.0, **fields}
        found.append(window(second, values.tolist(), lost, **given))
    return found


def summary(records: list[Record], checks: tuple[Check, ...] = (P99, ERRORS)) -> Summary:
    found = summarise([start(checks=checks, planned_ns=None), *records, End(0, "done")])
    assert found is not None
    return found


def test_a_check_far_from_its_limit_is_shown_and_its_figures_stand_beside() -> None:
    found = summary(list(seconds(320, over=0.001)))
    p99, errors = found.checks
    assert (p99.state, p99.certainty, errors.state, errors.certainty) == (
        "passed", "shown", "passed", "shown",
    )  # fmt: skip
    assert p99.design_effect is not None
    assert p99.effective is not None
    assert 1.0 <= p99.design_effect < 2.5
    assert p99.effective == round(320 * 200 / p99.design_effect)
    text = summary_text(found)
    assert "< 100 ms · shown" in text
    assert "CERTAIN   ± holds at 95 %: 64,000 requests say as much as" in text
    low, high = found.bands_ms["p99"]
    p99_ms = found.latency_ms["p99"]
    assert p99_ms is not None
    assert high is not None
    assert low < p99_ms < high
    assert f"p99 {p99_ms:.1f} ±{max(high - p99_ms, p99_ms - low):.2g}" in text


def test_one_near_its_limit_is_not_and_says_how_many_more() -> None:
    p99, _ = summary(list(seconds(320, over=0.0092))).checks
    assert (p99.state, p99.certainty) == ("passed", "not shown")
    assert p99.more is not None
    assert p99.more > 10_000
    assert p99.sure.startswith("not shown (≈ ")
    assert p99.sure.endswith(" more)")


def test_what_depends_on_each_other_can_be_written_down() -> None:
    """The summary of such a run has the design effect in it: as a number that JSON has."""
    clumped = [seconds(1, over=0.1 if second % 7 == 0 else 0.0)[0] for second in range(320)]
    found = summary([replace(window, second=at) for at, window in enumerate(clumped)])
    assert found.checks[0].design_effect is not None
    assert found.checks[0].design_effect > 2
    assert plain(found)["checks"][0]["design_effect"] == found.checks[0].design_effect


def test_one_that_failed_is_shown_to_fail() -> None:
    p99, _ = summary(list(seconds(320, over=0.03))).checks
    assert (p99.state, p99.certainty) == ("failed", "shown")


def test_what_was_not_answered_counts_as_over_the_limit() -> None:
    """Fast answers, and 4 of 204 refused: both claims are shown to be wrong."""
    p99, errors = summary(list(seconds(320, failed=4))).checks
    assert (p99.state, p99.value, p99.certainty) == ("failed", None, "shown")
    assert (errors.state, errors.certainty) == ("failed", "shown")


def test_nothing_is_said_of_a_short_run_but_what_it_lacks() -> None:
    found = summary(list(seconds(79)))
    assert {check.certainty for check in found.checks} == {"not shown"}
    assert {check.why for check in found.checks} == {SHORT}
    assert found.checks[0].sure == "not shown (≥ 200 more)"
    assert found.bands_ms == {}
    assert f"no bands: {SHORT}" in summary_text(found)


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([*seconds(120), *seconds(120, rate=300.0)], CHANGED),
        (seconds(320, rate=None, lateness=Histogram.of([MS])), UNPACED),
        ([*seconds(120, rate=None, users=5), *seconds(120, rate=None, users=9)], CHANGED),
    ],
)
def test_of_a_changing_load_a_check_is_a_count(records: list[Window], why: str) -> None:
    blocks = Blocks(records)
    found = assess(P99, blocks, None)
    assert (found.state, found.why, found.words) == ("", why, why)
    assert band(blocks, 0.99) is None
    assert known(blocks).why == why


def test_a_closed_loop_has_a_constant_load() -> None:
    assert assess(P99, Blocks(seconds(320, rate=None)), None).state == "shown"


def test_each_check_claims_a_share_of_its_own() -> None:
    blocks = Blocks(seconds(320, over=0.03, failed=2))
    late = Check("on_time", True, 0.99, "> 99 %")
    assert assess(late, blocks, 100 * MS).state == "shown"  # to fail: 4 % are late or failed
    assert assess(Check("on_time", True, 0.9, "> 90 %"), blocks, 100 * MS).state == "shown"
    done = Check("asked_done", True, 0.99, "> 99 %")
    assert assess(done, blocks, None).state == "not shown"  # 0.99 % failed
    for name in ("mean", "max", "throughput", "done"):
        assert assess(Check(name, False, 1.0, "< 1"), blocks, None).why == OTHER
    assert assess(Check("errors", False, 0.0, "<= 0 %"), blocks, None).why == OTHER


def test_a_percentile_among_the_failed_has_no_band() -> None:
    blocks = Blocks(seconds(320, failed=4))
    assert band(blocks, 0.99) is None
    assert band(blocks, 0.5) is not None


def test_what_came_after_the_last_second_and_what_never_came_is_counted() -> None:
    windows = seconds(100)
    rest = window(100, [150.0] * 7, stage="drain")
    blocks = Blocks(windows, [rest], missed=5)
    assert blocks.total == 100 * 200 + 7 + 5
    assert int(blocks.over(100 * MS).sum()) == 12
    assert blocks.asked[-1] == 200 + 12


def test_a_long_run_is_looked_at_in_longer_blocks() -> None:
    one = Histogram.of([20 * MS])
    windows = [window(0, [20.0], rate=1.0)] * 5000
    blocks = Blocks(windows)
    assert len(blocks.asked) == 1667
    assert blocks.total == 5000
    assert blocks.whole.quantile(0.5) == one.quantile(0.5)


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_bands_hold_the_truth(share: float) -> None:
    """Of a lognormal distribution, whose percentiles are known, in 95 % of runs and more."""
    rng = np.random.default_rng(3)
    z = {0.5: 0.0, 0.99: 2.3263479}[share]
    true = math.exp(3.0 + 0.4 * z) * MS
    held, runs = 0, 120
    for _ in range(runs):
        rows = (rng.lognormal(3.0, 0.4, (96, 100)) * MS).astype(np.int64)
        blocks = Blocks([])
        blocks.why, blocks.latency = "", [Histogram.of(row) for row in rows]
        blocks.missed = np.zeros(96, np.int64)
        blocks.asked = np.full(96, 100)
        blocks.total, blocks.whole = 9600, Histogram.merged(blocks.latency)
        found = band(blocks, share)
        if found is None or (found.low <= true and (found.high is None or true <= found.high)):
            held += 1
        if found is not None and found.high is not None:
            assert found.high < 1.2 * true  # it says something
    assert held / runs >= 0.95
