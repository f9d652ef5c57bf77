"""The search for a rate against simulated servers whose answer is known."""

import math
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.histogram import Histogram
from loadbench.judge.crossing import Crossing, Point
from loadbench.judge.search import LEAST_S, Found, Probe, Terms, ended, following, knee
from loadbench.judge.searches import Hunt, Setting, front, parse_over
from loadbench.judge.stage import Claim, Seen, claim, judged
from loadbench.model import Check, Note, Requests, Window, plain
from loadbench.report.find import find_text, stage_line, unbounded
from tests.leading import led
from tests.queues import Server, Simulated, highest_rate, latencies, waits_longer
from tests.test_assurance import seconds

P99 = Claim("p99 < 40 ms", 0.01, 40_000_000)
FIXED = Server(a=0.008, c=0.0005, largest=32, wait_s=0.005)
TERMS = Terms(P99, start=0.5 * FIXED.capacity, stage_s=60, budget_s=900)
TRUTH = 1030.7  # of FIXED, by 10⁶ requests each: tests/benchmarks/verdicts/find.py

pytestmark = pytest.mark.long


def test_the_simulation_is_right_where_the_answer_is_known_exactly() -> None:
    """M/D/1, by Erlang's formula."""
    service = 0.002
    for load in (0.5, 0.8):
        found = latencies(Server(service), load / service, 300_000, 3) - service
        for times in (1.5, 4.0):
            share = float((found > times * service).mean())
            assert share == pytest.approx(waits_longer(load, times), rel=0.1)


def test_the_rate_that_is_told_is_the_highest_that_holds() -> None:
    off = []
    for seed in range(4):
        found, seen = led(FIXED, TERMS, seed)
        assert found.confirmed
        assert found.limit == "latency"
        assert found.rate is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low <= found.rate
        assert seen[-1].kind == "confirm"
        assert seen[-1].seconds == 60
        assert seen[-1].rate == pytest.approx(found.rate)
        assert found.seconds < 400
        off.append(found.rate / TRUTH - 1)
    assert max(map(abs, off)) < 0.05
    assert abs(float(np.mean(off))) < 0.025


def test_the_same_stages_give_the_same_next_one_so_a_search_can_be_gone_on_with() -> None:
    whole, seen = led(FIXED, TERMS, 1)
    for until in range(1, len(seen)):
        step = following(TERMS, seen[:until], 0.0)
        assert isinstance(step, Probe)
        assert step.rate == pytest.approx(seen[until].rate, rel=1e-9)
    again, stages = led(FIXED, TERMS, 2, tuple(seen[:-1]))
    assert stages[: len(seen) - 1] == seen[:-1]
    assert again.confirmed
    assert again.rate == pytest.approx(whole.rate or 0, rel=0.06)


def test_what_is_clear_is_left_early_and_a_full_stage_that_holds_is_not() -> None:
    _, seen = led(FIXED, replace(TERMS, start=3 * FIXED.capacity), 1)
    assert seen[0].shown
    assert not seen[0].holds
    assert seen[0].seconds == LEAST_S < TERMS.short_s


def test_a_start_that_is_too_high_goes_down() -> None:
    found, seen = led(FIXED, replace(TERMS, start=8 * FIXED.capacity), 1)
    assert [stage.kind for stage in seen[:3]] == ["up", "down", "down"]
    assert found.confirmed
    assert found.rate == pytest.approx(TRUTH, rel=0.05)


def test_a_cap_is_confirmed_and_said_to_be_the_limit() -> None:
    found, _ = led(FIXED, replace(TERMS, most=500.0, start=100.0), 1)
    assert (found.rate, found.confirmed, found.limit) == (500.0, True, "cap")


def test_a_cap_that_nobody_asked_for_says_whose_it_is() -> None:
    capped = replace(TERMS, most=500.0, capped="target.max_rate is 500/s")
    found = ended(capped, [stage(500.0, kind="confirm")], 60.0, "cap")
    assert found.text == "no higher rate was to be tried: target.max_rate is 500/s"
    asked = ended(replace(capped, capped=""), [stage(500.0, kind="confirm")], 60.0, "cap")
    assert asked.text == "no higher rate was to be tried than 500/s"


def test_a_knee_has_a_higher_rate_above_it() -> None:
    """The power may rise until the highest rate that was tried: nothing is known of what is above
    it, but for an overload."""
    rising = [stage(rate) for rate in (50.0, 100.0, 150.0)]
    assert knee(rising) is None
    assert knee([*rising, stage(200.0, holds=False, overloaded=True)]) == 150.0
    bent = stage(200.0, latency_ms={"p50": 10.0, "p99": 90.0, "mean": 30.0})
    assert knee([*rising, bent]) == 150.0


def test_a_limit_below_the_service_time_holds_nowhere() -> None:
    terms = Terms(Claim("p99 < 5 ms", 0.01, 5_000_000), start=50.0, stage_s=10, budget_s=3600)
    found, _ = led(FIXED, terms, 1)
    assert (found.rate, found.limit, found.verdict) == (None, "nothing holds", True)


def test_a_search_ends_within_its_budget_and_says_that_it_is_not_confirmed() -> None:
    found, seen = led(FIXED, replace(TERMS, budget_s=60, stage_s=45), 1)
    assert found.limit == "budget"
    assert not found.confirmed
    assert not found.verdict
    assert sum(stage.seconds for stage in seen) <= 60
    assert found.rate is not None  # what held in short


def test_what_is_too_little_to_confirm_is_not_left_unused() -> None:
    held = stage(100.0, kind="up", seconds=60, asked=6000)
    failed = replace(held, rate=105.0, over=80, holds=False)
    seen = [held, failed, replace(held, kind="re-check")]
    wanted = following(TERMS, seen, 900 - 62)
    assert isinstance(wanted, Probe)
    assert wanted.kind == "confirm"
    assert following(TERMS, seen, 900 - 50) == Probe("narrow", wanted.rate, 48)
    found = following(TERMS, seen, 900 - 11)  # no room for the shortest
    assert isinstance(found, Found)
    assert (found.rate, found.confirmed) == (wanted.rate, False)  # and not the highest that held
    assert found.rate != held.rate


def test_an_overload_that_leaves_a_server_slower_is_noticed() -> None:
    def broken_by_overload(run: Simulated, seen: list[Seen]) -> None:
        if any(not stage.holds for stage in seen):
            run.line.slower = 1.5

    found, seen = led(FIXED, TERMS, 1, each=broken_by_overload)
    assert [stage.kind for stage in seen if stage.kind == "re-check"]
    assert "not after it" in found.changed
    slower = Server(0.012, 0.00075, 32, 0.005)
    truth = highest_rate(slower, 0.04, 0.01, 100_000)
    assert found.rate == pytest.approx(truth, rel=0.06)


def stage(rate: float = 100.0, holds: bool = True, **changes: object) -> Seen:
    found = Seen(
        kind="up", rate=rate, second=0, seconds=10, asked=1000, over=0 if holds else 500,
        missed=0, effect=1.0, holds=holds, shown=True, eased=False, overloaded=False,
        done_per_s=rate, latency_ms={"p50": 10.0, "p99": 30.0, "mean": 12.0},
    )  # fmt: skip
    return replace(found, **changes)


def test_a_generator_at_its_end_is_no_verdict_about_the_target() -> None:
    late = stage(200.0, holds=False, doubt=Note("generator-late", "late by 80 ms"))
    again = following(TERMS, [stage(), late], 20.0)
    assert isinstance(again, Probe)
    assert again.rate == 200.0
    found = following(TERMS, [stage(), late, late], 30.0)
    assert not isinstance(found, Probe)
    assert found.limit == "generator"
    assert not found.verdict
    assert "late by 80 ms" in found.text


def test_what_failed_or_hangs_is_over_the_limit() -> None:
    def second(number: int, failed: int, overdue: int) -> Window:
        quick = Requests(
            done=99, failed={"shed": failed} if failed else {}, latency=Histogram.of([10**6] * 99)
        )
        return Window(
            second=number, stage="load", rate=100.0, asked=99 + failed, requests={"infer": quick},
            overdue=overdue, in_flight=overdue,
        )  # fmt: skip

    fine = judged("up", [second(at, 0, 0) for at in range(6)], P99)
    shed = judged("up", [second(at, 2, 0) for at in range(6)], P99)
    hangs = judged("up", [second(at, 0, 30) for at in range(6)], P99)
    assert (fine.holds, fine.over) == (True, 0)
    assert (shed.holds, shed.over, shed.missed) == (False, 12, 12)
    assert (hangs.holds, hangs.over, hangs.asked) == (False, 30, 6 * 99 + 30)


def test_the_percentiles_of_a_stage_have_bands_or_it_is_said_why_not() -> None:
    short, long = (judged("confirm", seconds(number), P99) for number in (10, 160))
    assert short.bands_ms == {}
    assert "80 seconds" in short.no_bands
    low, high = long.bands_ms["p90"]
    assert high is not None
    assert low < (long.latency_ms["p90"] or 0.0) < high
    one, both = unbounded([short]), unbounded([short, long])
    assert "±" in stage_line(long, replace(P99, share=0.1))
    assert "±" not in stage_line(short, P99)
    assert ("80 seconds" in one, "holds at 95 %" in one) == (True, False)
    assert ("80 seconds" in both, "holds at 95 %" in both) == (True, True)


def test_a_crossing_is_where_the_counts_change_sides() -> None:
    points = [Point(rate, 100 * (rate / 500) ** 15, 10_000) for rate in (440, 480, 520, 560)]
    found = Crossing(points, 0.01)
    assert found.quantile(0.5) == pytest.approx(500, rel=0.01)
    assert found.quantile(0.025) < 500 < found.quantile(0.975)
    few = Crossing([point._replace(over=point.over / 20, asked=500) for point in points], 0.01)
    width, wide = (math.log(c.quantile(0.975) / c.quantile(0.025)) for c in (found, few))
    assert wide > 2 * width


def test_what_can_be_searched_for() -> None:
    found = claim(Check("p95", False, 2e7, "< 20 ms"))
    assert (found.text, found.limit_ns) == ("p95 < 20 ms", 20_000_000)
    assert found.share == pytest.approx(0.05)
    assert claim(Check("errors", False, 0.001, "< 0.1 %")).limit_ns is None
    for check in (Check("mean", False, 2e7, "< 20 ms"), Check("p99", True, 2e7, "> 20 ms")):
        with pytest.raises(SpecError, match="cannot be searched for"):
            claim(check)
    for check in (Check("p99", False, 0, "< 0 ms"), Check("errors", False, 0, "< 0 %")):
        with pytest.raises(SpecError, match="never holds"):
            claim(check)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("seen", "rate", 0),
        ("seen", "rate", -5.0),
        ("seen", "seconds", 10**17),
        ("seen", "asked", -1),
        ("seen", "effect", 0),
        ("seen", "latency_ms", {"p99": -4.0}),
        ("claim", "share", 7.0),
        ("claim", "limit_ns", -1),
        ("terms", "start", 0),
        ("found", "rate", -1e300),
    ],
)
def test_a_search_that_cannot_have_been_is_one_error(
    tmp_path: Path, part: str, key: str, value: object
) -> None:
    seen = [stage(), stage(200.0, holds=False)]
    found = ended(TERMS, seen, 20.0, "latency") if part == "found" else None
    folder = runlog.create(tmp_path, "find")
    hunt = plain(Hunt(TERMS, (Setting(seen=tuple(seen), found=found),)))
    known = {"schema": runlog.SCHEMA, "kind": runlog.FIND, "run": "0001-find", "state": "done"}
    runlog.write_snapshot(folder, {**known, "find": hunt})
    assert "200/s" in find_text(folder)
    setting = hunt["settings"][0]
    parts = {"seen": setting["seen"][0], "found": setting["found"]}
    parts |= {"terms": hunt["terms"], "claim": hunt["terms"]["claim"]}
    parts[part][key] = value
    runlog.write_snapshot(folder, {**known, "find": hunt})
    with pytest.raises(SpecError, match=r"cannot be read|cannot be:"):
        find_text(folder)


def test_settings_are_combined_and_the_front_is_what_no_other_beats() -> None:
    overs = parse_over(["engine.max_batch=8, 16", "engine.policy=fixed,deadline"])
    assert overs[0] == {"engine.max_batch": 8, "engine.policy": "fixed"}
    assert len(overs) == 4
    for wrong in (["engine.max_batch"], ["a=1,,2"], ["a=1", "a=2"], ["a=1,1"], ["a=" + ",".join(map(str, range(300)))]):  # fmt: skip  # noqa: E501
        with pytest.raises(SpecError):
            parse_over(wrong)

    def setting(over: dict[str, object], rate: float, p50: float) -> Setting:
        seen = stage(rate, kind="confirm", latency_ms={"p50": p50, "p99": 35.0, "mean": p50})
        fails = stage(rate * 1.2, holds=False)
        found = following(TERMS, [fails, seen], 10.0)
        assert not isinstance(found, Probe)
        return Setting(over, ("1",), 1.0, (fails, seen), 10.0, found)

    hunt = Hunt(
        TERMS,
        (setting(overs[0], 100, 5), setting(overs[1], 200, 9), setting(overs[2], 150, 9.5)),
    )
    assert [standing.front for standing in front(hunt)] == [True, True, False]


def test_of_a_target_that_an_overload_changed_no_rate_is_told_that_nothing_held_since() -> None:
    overload = stage(130, holds=False, overloaded=True)
    seen = [stage(100), overload, replace(overload, kind="re-check", rate=100.0)]
    found = ended(TERMS, seen, 30.0, "stopped")
    assert found.changed
    assert (found.rate, found.low, found.high) == (None, None, None)
    found = ended(TERMS, [*seen, stage(77, kind="down")], 40.0, "stopped")
    assert found.rate is not None
    assert 77 < found.rate < 100
