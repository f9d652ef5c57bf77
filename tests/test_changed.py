"""Which change by hand is said to be behind an alert, and which cannot be."""

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from loadbench import alerts
from loadbench.diagnoses import diagnoses
from loadbench.model import AlertChange, Machine, Mark, Process, Rule, Window
from loadbench.runner.verdicts import Verdicts
from loadbench.situation import Changed, Stretch, changed
from loadbench.standing import Standing, more
from loadbench.units import SECOND
from loadbench.words import explain
from tests.records import window
from tests.test_words import BUSY, P99, calm, episode, late, look, server

ENGINE = Mark(69, "engine: max_batch 8 → 2", Standing())
SPIKE = Mark(75, "spike of 900/s for 3 s", Standing(spike=900, spike_until_s=78))
LATENESS = alerts.parse_rule("lateness > 5 ms", 5 * SECOND)
CPU = alerts.parse_rule("cpu > 90 %", 5 * SECOND)
FIRES = AlertChange(78, "p99", "firing", 184.0, 72, 184.0, worst=77)


def unknown(part: Stretch) -> Sequence[Window]:
    return ()


def named(change: AlertChange, *marks: Mark, rule: Rule = P99, rate: float = 100.0) -> Any:
    found = changed(change, rule, marks, rate, unknown)
    return found and (found.mark, found.during)


def at(second: int, mark: Mark) -> Mark:
    return replace(mark, second=second)


def test_the_last_change_shortly_before_an_episode_is_named() -> None:
    far, none = at(40, ENGINE), replace(at(70, ENGINE), standing=None)
    assert named(FIRES, far, ENGINE, none) == (ENGINE, False)
    assert named(FIRES, ENGINE, at(71, ENGINE)) == (at(71, ENGINE), False)
    assert named(FIRES, far) is None


def test_settings_that_were_changed_once_the_trouble_had_begun_are_no_cause_of_it() -> None:
    assert named(FIRES, at(72, ENGINE)) is None  # the same second
    assert named(FIRES, at(75, ENGINE)) is None  # a remedy, more likely
    assert named(FIRES, ENGINE, at(75, ENGINE)) == (ENGINE, False)


def test_what_was_done_during_an_episode_is_named_where_its_worst_came_after_it() -> None:
    ended = replace(FIRES, state="ok", second=95)
    assert named(ended, ENGINE, SPIKE) == (SPIKE, True)
    assert named(FIRES, SPIKE) == (SPIKE, True)
    assert named(FIRES, ENGINE, at(77, SPIKE)) == (ENGINE, False)  # as late as the worst
    assert named(FIRES, at(72, SPIKE)) == (at(72, SPIKE), True)
    long = replace(FIRES, state="ok", second=400, worst=300)  # 281 to 311 are looked at
    assert named(long, ENGINE, at(280, ENGINE)) == (at(280, ENGINE), True)
    assert named(long, ENGINE, at(281, ENGINE)) == (ENGINE, False)
    assert named(long, ENGINE, at(200, SPIKE)) == (ENGINE, False)  # not shortly before


def test_less_load_explains_only_what_is_too_low_and_an_engine_no_late_generator() -> None:
    less, paused = (Mark(70, "", Standing(rate=50)), Mark(70, "", Standing(paused=True)))
    throughput = alerts.parse_rule("throughput < 80/s", 5 * SECOND)
    for mark in (less, paused):
        assert named(FIRES, mark) is None
        assert named(replace(FIRES, peak=40.0), mark, rule=throughput) == (mark, False)
    resumed = Mark(71, "", Standing())
    assert named(FIRES, paused, resumed) == (resumed, False)
    assert named(FIRES, SPIKE, Mark(76, "", Standing(rate=50))) == (SPIKE, True)
    assert named(FIRES, ENGINE, rule=LATENESS) is None
    assert more(Standing(), Standing(scale=2.0), 9, None)  # a closed loop
    assert not more(Standing(), Standing(scale=0.5), 9, None)
    assert not more(Standing(), SPIKE.standing or Standing(), 78, 100.0)  # it is over


def test_what_was_nearly_as_bad_before_a_change_is_no_work_of_it() -> None:
    def before(ms: float, cpu: float = 0.5, failed: int = 0) -> Any:
        one = window(0, [ms] * 100, {"http_503": failed}, machine=Machine(cpu=cpu))
        return lambda part: [one] if part == Stretch(59, 69) else []

    assert changed(FIRES, P99, [ENGINE], 100.0, before(97.0)) == Changed(ENGINE, False)
    close = replace(FIRES, peak=115.0)
    assert changed(close, P99, [ENGINE], 100.0, before(97.0)) is None
    among = replace(FIRES, peak=None)
    assert changed(among, P99, [ENGINE], 100.0, before(97.0)) == Changed(ENGINE, False)
    assert changed(among, P99, [ENGINE], 100.0, before(97.0, failed=9)) is None
    full = replace(FIRES, peak=0.98)
    assert changed(full, CPU, [at(69, SPIKE)], 100.0, before(9.0, cpu=0.97)) is None
    assert changed(full, CPU, [at(69, SPIKE)], 100.0, before(9.0, cpu=0.3)) is not None


def test_the_change_comes_first_and_is_the_guess() -> None:
    taken = Machine(cpu=0.98, processes={"engine": Process(1.7, 1)})
    slow = replace(calm(80.0, server=server(70.0, **BUSY), machine=taken), asked=160)
    found = explain(look(slow, changed=Changed(ENGINE, during=False)), P99, FIRES)
    assert "Shortly before, at 01:09, this was changed: engine: max_batch 8 → 2." in found.said
    assert found.likely == "that change"
    during = explain(look(slow, changed=Changed(SPIKE, during=True)), P99, FIRES)
    told = "Shortly before its worst, at 01:15, this was changed: spike of 900/s for 3 s."
    assert told in during.said


def test_where_a_verdict_tells_its_quantity_again_it_says_of_which_seconds() -> None:
    fires = AlertChange(76, "lateness", "firing", 14.0, 72, 14.0)
    now = calm(80.0, lateness=late(24))
    head, again, *_ = explain(look(now, "lateness"), LATENESS, fires).said
    told = "load generator late: up to 14.0 ms in 10 s (limit 5 ms) for the last 5 s"
    assert head == f"{told}; what follows is of 01:12-01:17."
    assert again.startswith("The load generator is 24.0 ms late (p99)")
    errors = alerts.parse_rule("errors > 1 %", 5 * SECOND)
    ended = AlertChange(95, "errors", "ok", 0.0, 72, 0.25, worst=73)
    failing = window(0, [5.0] * 47, {"http_503": 53})
    head, again, *_ = explain(look(failing, "errors"), errors, ended).said
    assert (
        head == "errors: up to 25 % in 10 s (limit 1 %) for 23 s; what follows is of 01:12-01:21."
    )
    assert again.startswith("53 % fail")
    memory = alerts.parse_rule("memory > 80 %", 5 * SECOND)
    full = calm(machine=Machine(memory_used=31, memory_total=32))
    assert " in 10 s" not in explain(look(full, "memory"), memory, replace(ended, peak=0.9)).said[0]


def test_a_change_is_not_behind_what_the_generator_explains() -> None:
    known: dict[str, Any] = {"changed": Changed(ENGINE, during=False)}
    slow = calm(80.0, lateness=late(60))
    assert diagnoses(look(slow, **known))[0].code == "generator-late"
    assert "that change" not in " ".join(explain(look(slow, **known), P99, FIRES).lines)
    more_load: dict[str, Any] = {
        "changed": Changed(SPIKE, during=False)
    }  # makes a generator late, and fails
    assert diagnoses(look(slow, "lateness", **more_load))[0].code == "changed"
    failing = window(0, [80.0] * 60, {"http_503": 40}, lateness=late(60))
    for quantity in ("errors", "p99"):  # nor is a percentile among the failed its doing
        codes = [found.code for found in diagnoses(look(failing, quantity, **more_load))]
        assert codes[:2] == ["changed", "errors"], quantity
    assert "generator-late" not in codes
    few = window(0, [80.0] * 97, {"http_503": 3}, lateness=late(60))
    assert diagnoses(look(few, "p95"))[0].code == "generator-late"


def crashed(until: int) -> Iterable[Window]:
    """Slow from 100 on; from the spike on most of it fails, for three seconds."""
    for one in episode(until):
        if 106 <= one.second < 109:
            one = replace(window(one.second, [150.0] * 90, {"http_503": 500}), rate=900.0)
        yield one


def test_the_log_names_the_change_that_made_the_worst() -> None:
    watch, verdicts = alerts.Watch([P99], 0), Verdicts("cuda:0")
    verdicts.mark(at(99, ENGINE))
    verdicts.mark(replace(at(105, SPIKE), standing=Standing(spike=900, spike_until_s=108)))
    told: list[AlertChange] = []
    for one in crashed(110):
        verdicts.see(one, [(P99, on) for on in watch.standing(one.second)])
        told += [replace(on, words=verdicts.words(P99, on)) for on in watch.see(one)]
    fires, ended = (on.words for on in told if on.limit is not None)
    assert "Shortly before, at 01:39, this was changed: engine: max_batch 8 → 2." in fires
    assert any("before its worst, at 01:45, this was changed: spike" in line for line in ended)
    assert [line for line in ended if line.startswith("Likely")] == ["Likely: that change."]
