"""Alert rules second by second: spans, hysteresis, and what does not count as data."""

import math
from typing import Any

import pytest

from loadbench import alerts
from loadbench.errors import SpecError
from loadbench.model import AlertChange, Gpu, Machine, Rule, Window
from loadbench.units import SECOND
from tests.records import window

P99 = alerts.parse_rule("p99 > 100 ms", 5 * SECOND)


def states(watch: alerts.Watch, windows: list[Window]) -> list[tuple[int, str]]:
    return [(c.second, c.state) for found in windows for c in watch.see(found)]


def steady(second: int, latency_ms: float = 5.0, **fields: Any) -> Window:
    return window(second, [latency_ms] * 100, **fields)


def test_a_rule_fires_after_its_time_and_ends_after_the_same() -> None:
    watch = alerts.Watch([P99], None)
    windows = [steady(s, 300.0 if 5 <= s < 15 else 5.0) for s in range(45)]
    assert states(watch, windows) == [
        (5, "pending"),
        (9, "firing"),  # beyond in the seconds 5 6 7 8 9
        # slow ones stay in the 10 s span until second 23; clean for 5 s: 24 … 28
        (28, "ok"),
    ]


def test_a_blip_that_leaves_the_span_in_time_does_not_fire() -> None:
    rule = alerts.parse_rule("p99 > 100 ms", 15 * SECOND)
    windows = [steady(s, 300.0 if s == 5 else 5.0) for s in range(40)]
    assert states(alerts.Watch([rule], None), windows) == [(5, "pending"), (15, "ok")]


def test_the_end_tells_beginning_and_peak() -> None:
    watch = alerts.Watch([P99], None)
    changes = [
        change
        for s in range(45)
        for change in watch.see(steady(s, {7: 450.0}.get(s, 300.0) if 5 <= s < 15 else 5.0))
    ]
    firing, ended = changes[1:]
    assert firing.state == "firing"
    assert firing.since == 5
    assert "100/s asked, 100/s done" in firing.context
    assert (ended.state, ended.since) == ("ok", 5)
    assert ended.peak == pytest.approx(450, rel=1e-3)
    assert ended.worst == 7  # the first second that it was read in


def test_among_the_failed_the_worst_second_is_that_with_most_of_them() -> None:
    watch = alerts.Watch([P99], None)
    failing = {second: {"http_503": 60 if second == 7 else 5} for second in range(9)}
    windows = [window(s, [5.0] * 95, failing.get(s)) for s in range(45)]
    ended = [change for found in windows for change in watch.see(found)][-1]
    assert (ended.state, ended.peak, ended.worst) == ("ok", None, 7)


def test_what_fires_at_the_end_is_told_with_its_peak() -> None:
    watch = alerts.Watch([P99], None)
    changes = [c for s in range(12) for c in watch.see(steady(s, 300.0 if s < 9 else 700.0))]
    assert changes[-1].peak == pytest.approx(300, rel=1e-3)
    (found,) = watch.standing(11)
    assert (found.second, found.rule, found.state, found.since) == (11, "p99", "firing", 0)
    assert found.peak == pytest.approx(700, rel=1e-3)
    assert alerts.Watch([P99], None).standing(0) == []


def test_few_requests_are_no_verdict() -> None:
    watch = alerts.Watch([P99], None)
    windows = [window(s, [500.0] * 5) for s in range(30)]
    assert states(watch, windows) == [(0, "few data")]


def test_failures_count_as_over_the_limit() -> None:
    watch = alerts.Watch([P99], None)
    windows = [window(s, [5.0] * 95, {"http_503": 5}) for s in range(10)]
    found = [change for w in windows for change in watch.see(w)]
    assert [(c.second, c.state) for c in found] == [(0, "pending"), (4, "firing")]
    assert found[1].value is None  # no number: it falls among the failed
    assert alerts.announce(P99, found[1]).startswith(
        "p99 latency > 100 ms for 5 s (> 100 ms; 100/s asked, 95.0/s done, 5.0 % failed"
    )


def test_a_server_that_hangs_raises_the_alert() -> None:
    watch = alerts.Watch([P99], None)
    good = [steady(s) for s in range(10)]
    hung = [
        window(s, asked=100, sent=100, in_flight=100 * (s - 9), overdue=max(0, 100 * (s - 10)))
        for s in range(10, 20)
    ]
    assert states(watch, good + hung)[-1] == (15, "firing")


def test_gpu_rules_follow_the_card_that_serves() -> None:
    def at(second: int, busy: float | None, **fields: Any) -> Window:
        cards = (
            Gpu(0, "other", utilization=0.99, memory_used=9, memory_total=10),
            Gpu(1, "ours", utilization=busy, memory_used=5, memory_total=10),
        )
        return steady(second, machine=Machine(gpus=cards), **fields)

    low = alerts.parse_rule("gpu_utilization < 30 %", 3 * SECOND)
    full = alerts.parse_rule("gpu_memory > 80 %", 3 * SECOND)
    windows = [at(s, 0.1) for s in range(5)]
    assert states(alerts.Watch([low, full], 1), windows) == [(0, "pending"), (2, "firing")]
    assert states(alerts.Watch([low, full], 0), windows) == [(0, "pending"), (2, "firing")]
    assert states(alerts.Watch([low, full], None), windows) == [(0, "no data"), (0, "no data")]
    hidden = [at(s, None) for s in range(5)]
    assert states(alerts.Watch([low], 1), hidden) == [(0, "no data")]
    idle = [at(s, 0.0, asked=0) for s in range(5)]
    assert states(alerts.Watch([low], 1), idle) == [(0, "no data")]


def test_of_cards_that_a_target_told_of_the_highest_counts() -> None:
    def at(second: int, *cards: tuple[float, int], told: bool = True) -> Window:
        gpus = tuple(
            Gpu(index, "one of them", utilization=busy, memory_used=used, memory_total=10)
            for index, (busy, used) in enumerate(cards)
        )
        return steady(second, machine=Machine(gpus=gpus, told=told))

    low = alerts.parse_rule("gpu_utilization < 30 %", 3 * SECOND)
    full = alerts.parse_rule("gpu_memory > 80 %", 3 * SECOND)
    busy = [at(s, (0.0, 1), (0.9, 9)) for s in range(5)]
    assert states(alerts.Watch([low], None), busy) == []
    watch = alerts.Watch([full], None)
    firing = [change for window in busy for change in watch.see(window)][-1]
    assert alerts.announce(full, firing).startswith("GPU memory > 80 % for 3 s (90 %; GPU 1, ")
    idle = [at(s, (0.0, 1), (0.2, 1)) for s in range(5)]
    assert states(alerts.Watch([low], None), idle) == [(0, "pending"), (2, "firing")]
    # this machine's, in the seconds before the target told of its own, are none of these
    late = [at(s, (0.0, 9), told=False) for s in range(3)] + [at(3, (0.5, 9)), at(4, (0.5, 9))]
    assert states(alerts.Watch([low, full], None), late) == [
        (0, "no data"), (0, "no data"), (3, "ok"), (3, "pending"),
    ]  # fmt: skip


def test_an_alert_whose_quantity_has_no_value_any_more_ends_after_its_own_time() -> None:
    rule = alerts.parse_rule("memory > 80 %", 3 * SECOND)
    full = Machine(memory_used=9, memory_total=10)
    watch = alerts.Watch([rule], None)
    assert states(watch, [steady(s, machine=full) for s in range(3)])[-1] == (2, "firing")
    assert states(watch, [steady(3), steady(4)]) == []  # a gap shorter than that is none
    assert states(watch, [steady(5, machine=full)]) == []
    assert states(watch, [steady(s) for s in range(6, 12)]) == [(8, "no data")]


def test_a_late_generator_of_which_nobody_can_tell_any_more_is_not_late_for_ever() -> None:
    """As when all connections are busy: nothing goes out at once."""
    rule = alerts.parse_rule("lateness > 5 ms", 5 * SECOND)
    late = [steady(s, lateness=window(0, [8.0] * 50).latency) for s in range(6)]
    watch = alerts.Watch([rule], None)
    assert states(watch, late)[-1] == (4, "firing")
    found = [change for s in range(6, 30) for change in watch.see(steady(s))]
    assert [(change.second, change.state) for change in found] == [(19, "no data")]
    assert alerts.announce(rule, found[0]) == "load generator late: no data"
    assert alerts.sign(found[0]) == "○"  # nobody knows whether it is over


def test_a_growing_queue_is_a_slope() -> None:
    rule = alerts.parse_rule("queue_growth > 20/s", 2 * SECOND)
    growing = [steady(s, in_flight=41 * s) for s in range(14)]
    found = [c for w in growing for c in alerts.Watch([rule], None).see(w)]
    assert found
    watch = alerts.Watch([rule], None)
    assert states(watch, growing) == [(0, "few data"), (9, "pending"), (10, "firing")]
    level = [steady(s, in_flight=1000 + s % 2) for s in range(14)]
    assert states(alerts.Watch([rule], None), level)[-1] == (9, "ok")


def test_silence_is_told_by_the_clock() -> None:
    rule = alerts.parse_rule("silence > 3 s", 0)
    watch = alerts.Watch([rule], None)
    assert states(watch, [steady(0)]) == []
    assert watch.silent(2, 2.5) == []
    assert [(c.second, c.state) for c in watch.silent(4, 3.5)] == [(4, "firing")]
    assert states(watch, [steady(6)]) == [(6, "ok")]


def test_errors_and_lateness() -> None:
    errors = alerts.parse_rule("errors > 1 %", 2 * SECOND)
    windows = [window(s, [5.0] * 97, {"reset": 3}) for s in range(3)]
    assert states(alerts.Watch([errors], None), windows) == [(0, "pending"), (1, "firing")]
    late = alerts.parse_rule("lateness > 5 ms", 2 * SECOND)
    windows = [steady(s, lateness=window(0, [8.0] * 50).latency) for s in range(3)]
    assert states(alerts.Watch([late], None), windows) == [(0, "pending"), (1, "firing")]


def test_the_monitoring_table_is_on_in_every_run() -> None:
    gpu = {(r.quantity, r.above, r.limit, r.for_ns) for r in alerts.built_in(gpu=True)}
    assert {
        ("p99", True, 100.0, 5 * SECOND),
        ("gpu_utilization", False, 0.3, 10 * SECOND),
        ("gpu_memory", True, 0.8, 5 * SECOND),
        ("errors", True, 0.01, 5 * SECOND),
        ("lateness", True, 5.0, 5 * SECOND),
        ("queue_growth", True, 20.0, 10 * SECOND),
        ("silence", True, 3.0, 0),
    } == gpu
    cpu = {rule.quantity for rule in alerts.built_in(gpu=False)}
    assert "memory" in cpu
    assert "gpu_memory" not in cpu


def test_a_scenario_changes_adds_and_silences() -> None:
    own = [
        (alerts.parse_rule("p99 > 20 ms", SECOND), False),
        (alerts.parse_rule("gpu_power > 400 W", SECOND), False),
        (alerts.parse_rule("errors > 5 %", SECOND), True),
    ]
    found = {rule.quantity: rule for rule in alerts.changed(alerts.built_in(True), own)}
    assert found["p99"].limit == 20
    assert found["gpu_power"].limit == 400
    assert "errors" not in found
    assert alerts.latency_limit(found.values(), ()) == 20_000_000
    other_side = [(alerts.parse_rule("p99 < 1 ms", SECOND), False)]
    names = [rule.name for rule in alerts.changed(alerts.built_in(True), other_side)]
    assert len(set(names)) == len(names)  # their states are kept by name
    assert names[-1] == "p99 <"


@pytest.mark.parametrize("text", ["p99", "p98 > 3 ms", "p99 > 3", "p99 = 3 ms", "errors > 3 ms"])
def test_rules_that_are_none(text: str) -> None:
    with pytest.raises(SpecError):
        alerts.parse_rule(text, SECOND)


def test_words() -> None:
    rule = Rule("gpu_memory", "gpu_memory", True, 0.8, 5 * SECOND)
    assert alerts.describe(rule) == "GPU memory > 80 % for 5 s"
    assert alerts.show(rule, None) == "n/a"
    assert alerts.show(P99, math.inf) == "> 100 ms"
    ended = AlertChange(9, "p99", "ok", 46.2, since=2)
    assert alerts.announce(P99, ended) == "p99 latency back under 100 ms"
    assert alerts.sign(ended) == "✓"
