"""Verdicts on pairs of blocks: known answers, and how often looking after each pair is wrong."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadbench.cli.ab import _gated
from loadbench.errors import SpecError
from loadbench.experiments.ab import Interleaved, Plans, Tail
from loadbench.judge import blocks, paired
from loadbench.judge.blocks import METRICS, Layout, layout, side_of
from loadbench.judge.paired import bounds, judge, limits, walsh
from loadbench.judge.session import Seen, Terms, session
from loadbench.model import Machine, Process, Window, plain
from loadbench.shape import arrivals
from loadbench.units import SECOND
from loadbench.value import decode, encode
from tests.records import window


def test_walsh_averages_and_their_bounds() -> None:
    values = [3.0, 1.0, 2.0]
    means = walsh(values, 0.0)
    assert means.tolist() == [1.0, 1.5, 2.0, 2.0, 2.5, 3.0]
    assert bounds(values, 6) == (1.0, 3.0)  # all of them have to be on one side
    assert bounds(values, 5) == (1.5, 2.5)
    assert bounds(values, None) == (-math.inf, math.inf)


def test_infinite_differences_are_larger_than_all_and_against_each_other_unknown() -> None:
    inf = math.inf
    assert walsh([inf, 1.0], 0.0).tolist() == [1.0, inf, inf]
    assert walsh([inf, -inf], 0.0).tolist() == [-inf, 0.0, inf]
    assert walsh([math.nan, 1.0], -inf).tolist() == [-inf, -inf, 1.0]
    assert bounds([math.nan, 1.0], 3) == (-inf, inf)


def test_the_first_look_that_can_show_something_is_where_all_pairs_agree() -> None:
    sure = limits(9).sure
    assert sure[:7] == (None,) * 7  # 2⁻⁷ is more than 0.5 % allows
    assert sure[7] == 36  # 2⁻⁸ = 0.39 % is within 8/9 of it, the next sum is not
    assert sure[8] == 45


@pytest.mark.parametrize("spread", ["uniform", "laplace"])
def test_looking_after_each_pair_stays_within_the_level(spread: str) -> None:
    """Nothing differs: how often is any look wrong? Of other differences than those by which the
    limits were found. One look's limits at each look would be wrong three times as often."""
    most, sessions = 14, 40_000
    draw = np.random.Generator(np.random.PCG64(3))
    shape = (most, sessions)
    values = draw.uniform(-1, 1, shape) if spread == "uniform" else draw.laplace(0, 1, shape)
    wrong = np.zeros((2, sessions), bool)
    total = np.zeros(sessions, int)
    sure = limits(most).sure
    for n in range(1, most + 1):
        total += (values[:n] > -values[n - 1]).sum(0)
        limit = sure[n - 1]
        if limit is not None:
            wrong[0] |= total >= limit
            wrong[1] |= n * (n + 1) // 2 - total >= limit
    share = wrong.any(0).mean()
    assert 0.006 < share < 0.0115  # 1 % within three deviations, and not far below what is allowed


def test_more_metrics_share_the_level() -> None:
    one, two = limits(14).sure, limits(14, 2).sure
    assert [limit is None for limit in two].count(True) > [limit is None for limit in one].count(
        True
    )


def values(ratio: float, spread: float, pairs: int = 14) -> list[tuple[float | None, float | None]]:
    """Pairs of about 10 ms with B at a ratio; the same deviations in all of them."""
    deviations = np.resize([0.0, 1.0, -1.0, 0.5, -0.5, 0.25, -0.25], pairs) * spread
    return [(10.0, 10.0 * ratio * math.exp(d)) for d in deviations]


@pytest.mark.parametrize(
    ("ratio", "spread", "word"),
    [
        (1.05, 0.01, "worse"),
        (0.95, 0.01, "better"),
        (1.00, 0.01, "same"),
        (1.012, 0.002, "same"),  # surely slower, but not by more than matters
        (0.985, 0.02, "ruled out"),  # not worse; whether better or the same is not known
        (1.05, 0.12, "inconclusive"),
        (1.019, 0.01, "inconclusive"),
    ],
)
def test_words(ratio: float, spread: float, word: str) -> None:
    found = judge("p50", values(ratio, spread), 0.02, limits(14))
    assert found.word == word
    assert found.shift == pytest.approx(ratio - 1, abs=0.004)
    assert found.decided == (word in ("worse", "better", "same"))
    assert (found.more is not None) == (word == "inconclusive")


def test_too_few_pairs_say_nothing() -> None:
    found = judge("p50", values(2.0, 0.001, 7), 0.02, limits(14))
    assert (found.word, found.low, found.high) == ("inconclusive", None, None)
    assert judge("p50", [], 0.02, limits(14)).word == "inconclusive"


def test_what_lies_among_the_failed_is_worse_than_any_number() -> None:
    found = judge("p99", [(10.0, None)] * 14, 0.02, limits(14))
    assert found.word == "worse"
    assert (found.a, found.b, found.shift) == (10.0, None, None)
    assert judge("p99", [(None, 10.0)] * 14, 0.02, limits(14)).word == "better"
    assert judge("p99", [(None, None)] * 14, 0.02, limits(14)).word == "inconclusive"
    assert judge("p99", [(0.0, 1.0)] * 14, 0.02, limits(14)).word == "worse"
    assert judge("p99", [(0.0, 0.0)] * 14, 0.02, limits(14)).word == "same"


@pytest.mark.parametrize(("pairs", "metrics"), [(8, 1), (9, 2), (14, 1), (30, 1)])
def test_the_smallest_detectable_change_is_found_in_nineteen_of_twenty(
    pairs: int, metrics: int
) -> None:
    draw = np.random.Generator(np.random.PCG64(5))
    spread, allowed = 0.03, limits(pairs, metrics)
    sample = draw.normal(0, 1, pairs)
    sample *= spread / sample.std(ddof=1)
    told = judge("p50", [(1.0, math.exp(d)) for d in sample], 0.02, allowed).mde
    assert told is not None
    hits = 0
    for differences in draw.normal(math.log1p(told), spread, (300, pairs)):
        drawn = [(1.0, math.exp(d)) for d in differences]
        hits += any(
            judge("p50", drawn[:n], 0.02, allowed).word == "worse" for n in range(8, pairs + 1)
        )  # as a session looks
    assert 0.92 < hits / 300 < 0.98


def test_of_several_metrics_fewer_pairs_show_nothing() -> None:
    assert [paired.fewest(n) for n in (1, 2, 3, 4, 5)] == [8, 9, 10, 10, 11]
    for metrics in range(1, len(METRICS) + 1):
        few = paired.fewest(metrics)
        all_worse = [(10.0, 20.0)] * few
        assert judge("p50", all_worse, 0.02, limits(few, metrics)).word == "worse"
        if metrics > 3:
            continue
        allowed = limits(few - 1, metrics)
        found = judge("p50", all_worse[1:], 0.02, allowed)
        assert (found.word, found.mde) == ("inconclusive", None)
    with pytest.raises(SpecError, match="fewer than 9 pairs never give a verdict on 2 metrics"):
        layout(100.0, 34 * SECOND, SECOND, 2 * SECOND, 0.5, metrics=2)


def test_turns_are_a_b_b_a_and_both_get_the_same_arrivals() -> None:
    plan = Layout(rate=37.0, warm_s=1, block_s=3, pairs=4)
    assert "".join(map(side_of, range(8))) == "abbaabba"
    due = {}
    for side in "ab":
        phases = plan.phases(side)
        times = np.concatenate(list(arrivals(phases, "poisson", 7)))
        own = [plan.begin(plan.block(pair, side)) * SECOND for pair in range(plan.pairs)]
        length = plan.block_s * SECOND
        due[side] = [times[(times >= at) & (times < at + length)] - at for at in own]
        warm = (0 if side == "a" else 1) * SECOND
        inside = sum(map(len, due[side])) + ((times >= warm) & (times < warm + SECOND)).sum()
        assert inside == len(times)  # nothing falls due while the other has its turn
    for one, other in zip(due["a"], due["b"], strict=True):
        assert len(one) > 50
        assert np.abs(one - other).max() <= 2  # ns


def second(number: int, ms: list[float], failed: int = 0) -> Window:
    engine = Process(cpu=0.25 if ms else 0.02, memory=None)
    machine = Machine(processes={"engine": engine})
    return window(number, ms, {"refused": failed} if failed else {}, machine=machine)


def test_a_block_leaves_its_beginning_out_and_counts_what_failed_as_slowest() -> None:
    plan = Layout(rate=4.0, warm_s=0, block_s=3, pairs=2)  # a: 0–2 and 9–11, b: 3–8
    a = [second(0, [90.0]), second(1, [1.0, 2.0]), second(2, [3.0]), second(3, [], failed=1)]
    (first,) = blocks.blocks(a, plan, "a")
    assert (first.latency.count, first.missed) == (3, 1)
    assert first.value("p50") == pytest.approx(2.0, rel=0.001)
    assert first.value("p99") == math.inf
    b = [second(at, [5.0]) for at in range(3, 8)]
    assert len(list(blocks.blocks(b, plan, "b"))) == 1  # the second is not over yet
    ((left, right),) = blocks.pairs([first], list(blocks.blocks(b, plan, "b")), "p99")
    assert left is None
    assert right == pytest.approx(5.0, rel=0.001)


def told(pairs: int, failed: dict[str, list[int]]) -> tuple[dict[str, Any], dict[str, Seen]]:
    """A session's snapshot and sides: 100 answers of 5 ms in each second, and what failed."""
    plan = Layout(rate=100.0, warm_s=0, block_s=2, pairs=pairs)
    seen = {}
    for side in "ab":
        own = {plan.block(pair, side): pair for pair in range(pairs)}
        windows = [
            second(at, [5.0] * 100, failed[side][own[at // 2]])
            if at // 2 in own
            else second(at, [])
            for at in range(4 * pairs)
        ]
        seen[side] = Seen(windows, {"trust": "trusted", "asked": 1, "done": 1})
    facts = {
        "run": "1", "sides": {"a": {"name": "one"}, "b": {"name": "two"}}, "state": "done",
        "layout": plain(plan), "terms": {"metrics": ["p50"], "margin": 0.02},
    }  # fmt: skip
    return facts, seen


def test_failures_that_move_no_median_are_seen_by_the_signs_of_the_pairs() -> None:
    facts, seen = told(10, {"a": [0] * 10, "b": [5] * 10})
    found = session(facts, seen["a"], seen["b"])
    assert [row.word for row in found.gated] == ["same"]
    assert (found.fails_more, _gated(found)) == (True, 1)
    assert "in 10 of 10 pairs" in found.notes[0].text
    assert "the blocks" in plain(found)["no_bands"]
    for a, b in (
        ([0] * 10, [0] * 10),
        ([5] * 10, [0] * 10),  # A's: no reason to fail B
        ([3, 5] * 5, [5, 3] * 5),
        ([0] * 10, [5] * 5 + [0] * 5),  # five that differ, and all say so: by chance 1 in 32
    ):
        facts, seen = told(10, {"a": a, "b": b})
        found = session(facts, seen["a"], seen["b"])
        assert (found.fails_more, _gated(found), found.notes) == (False, 0, ())


@pytest.mark.parametrize(("failed", "ended"), [(0, True), (5, False)])
def test_a_session_does_not_end_early_while_b_fails_more_often(failed: int, ended: bool) -> None:
    facts, seen = told(10, {"a": [0] * 10, "b": [failed] * 10})
    interleaved = Interleaved.__new__(Interleaved)
    interleaved._plans = Plans(decode(Layout, encode(facts["layout"])), Terms())
    interleaved._say = lambda _: None
    tails = [Tail(Path("nowhere")) for _ in "ab"]
    for tail, side in zip(tails, "ab", strict=True):
        tail.windows = list(seen[side].windows)
    assert interleaved._look(10, tails) is ended


def test_what_an_engine_uses_while_it_waits() -> None:
    plan = Layout(rate=4.0, warm_s=0, block_s=2, pairs=1)  # a: 0–1, b: 2–3
    seen = [second(at, [1.0] if at < 2 else []) for at in range(4)]
    assert blocks.idle_cpu(seen, plan, "a") == pytest.approx(0.02)  # of its last second
    assert blocks.idle_cpu([Window(second=3, stage="load")], plan, "a") is None


def test_a_budget_of_a_minute_holds_enough_pairs() -> None:
    plan = layout(100.0, 60 * SECOND, 2 * SECOND, None, 0.5)
    assert (plan.block_s, plan.pairs) == (2, 14)
    slow = layout(2.0, 60 * SECOND, 2 * SECOND, None, 0.5)
    assert slow.pairs >= paired.fewest()
    assert slow.block_s > plan.block_s  # for more requests in each
    longer = layout(100.0, 600 * SECOND, 2 * SECOND, None, 0.99)
    assert longer.block_s * 100 * 0.01 > 20  # requests beyond the percentile
    assert layout(100.0, 7200 * SECOND, 0, 2 * SECOND, 0.5).pairs == paired.MOST_PAIRS


@pytest.mark.parametrize(
    ("budget_s", "block_ns", "told"),
    [(20, None, "fewer than 8 pairs"), (60, 1_500_000_000, "1.5 s"), (60, SECOND, "blocks of 1 s")],
)
def test_what_holds_no_pairs_is_refused(budget_s: int, block_ns: int | None, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        layout(100.0, budget_s * SECOND, 2 * SECOND, block_ns, 0.5)
