"""Runs that go on until their checks are decided; and what `--certain` makes of the others."""

from pathlib import Path

import numpy as np
import pytest

from loadbench import spec
from loadbench.errors import SpecError
from loadbench.judge.checks import CHECK_FAILED, NO_VERDICT, PASSED, unshown, verdict
from loadbench.model import Check, End, Mark, Record, Shown, Window
from loadbench.runner.decision import Decision, decidable
from loadbench.summary import Summary, summarise
from loadbench.units import MS, SECOND
from tests.records import start, window
from tests.running import loadbench, scenario

P99 = Check("p99", False, 100 * MS, "< 100 ms")
ERRORS = Check("errors", False, 0.01, "< 1 %")
NUMBER = Check("done", True, 10, "> 10")


def seconds(number: int, over: float, rate: float = 200.0) -> list[Window]:
    """Independent requests: a share of `over` takes 150 ms, the others about 20."""
    rng = np.random.default_rng(1)
    found = []
    for second in range(number):
        values = rng.lognormal(3.0, 0.2, 200)
        values[rng.random(200) < over] = 150.0
        found.append(window(second, values.tolist(), rate=rate))
    return found


def watched(windows: list[Window], *checks: Check) -> tuple[Decision, list[Record]]:
    """A decision on these windows, and the log as it would be when the run ends with it."""
    found = Decision(start(checks=checks, planned_ns=600 * SECOND))
    log: list[Record] = [start(checks=checks, planned_ns=600 * SECOND)]
    for one in windows:
        marks = found.see(one)
        log += [one, *marks]
        if found.made:
            break
    return found, log


def test_a_run_is_decided_once_every_check_is_shown() -> None:
    found, log = watched(seconds(400, over=0.001), P99, ERRORS, NUMBER)
    assert found.made
    count = sum(isinstance(record, Window) for record in log)
    assert 80 <= count < 250
    assert found.words.startswith("decided after")
    shown = [record.shown for record in log if isinstance(record, Mark)]
    assert {one.check: one.state for one in shown if one} == {"p99": "passed", "errors": "passed"}


def test_one_that_is_shown_to_fail_is_decided_too() -> None:
    found, log = watched(seconds(400, over=0.03), P99)
    assert found.made
    marks = [record for record in log if isinstance(record, Mark)]
    assert [mark.shown and mark.shown.state for mark in marks] == ["failed"]
    assert marks[0].text == "p99 is shown: it failed"


def test_near_the_limit_it_goes_on_to_the_most_and_says_what_is_open() -> None:
    found, log = watched(seconds(200, over=0.0095), P99, ERRORS)
    assert not found.made
    assert found.words == "not decided within 10m: p99 not shown"
    assert any(isinstance(record, Mark) and "errors" in record.text for record in log)


def test_what_was_shown_stays_so_and_the_broken_second_is_no_rate() -> None:
    """Windows that show nothing by themselves: only the mark tells it; and of the last second,
    in which the run was ended, only the requests count."""
    log: list[Record] = [start(checks=(P99,), planned_ns=600 * SECOND), *seconds(20, over=0.0)]
    log.append(Mark(19, "p99 is shown", shown=Shown("p99", "passed", 2.0)))
    log.append(window(20, [20.0] * 50, rate=200.0))
    found = summarise([*log, End(20, "done", "decided after 20s", early=True)])
    assert found is not None
    assert (found.checks[0].certainty, found.checks[0].effective) == ("shown", 4050 / 2)
    assert (found.asked, found.seconds, found.rate["done"]) == (4050, 20.0, 200.0)
    late = [window(second, [150.0] * 200, rate=200.0) for second in range(20, 40)]
    other = summarise([*log, *late, End(40, "done")])
    assert other is not None
    assert (other.checks[0].state, other.checks[0].certainty) == ("failed", "not shown")


def test_the_rate_must_be_one_or_nothing_is_ever_shown() -> None:
    found, _ = watched([*seconds(150, 0.0), *seconds(150, 0.0, rate=300.0)][140:], P99)
    assert not found.made


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"load.phases": [{"from": 1, "to": 9, "for": "5s"}]}, "the rate of the load changes"),
        ({"load.phases": [{"rate": 1, "for": "1s"}, {"rate": 2, "for": "1s"}]}, "rate of the load"),
        ({"checks": {"throughput": "> 5"}}, "no check of this scenario can be decided"),
        ({"checks": {}}, "no check of this scenario can be decided"),
    ],
)
def test_what_can_never_be_decided_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        decidable(spec.load("steady", changes))


def test_one_rate_and_a_closed_loop_can_be_decided() -> None:
    decidable(spec.load("steady"))
    decidable(spec.load("steady", {"load.arrivals": "closed", "load.phases": [{"for": "9s"}]}))


def of(*checks: Check, over: float = 0.0, number: int = 20) -> Summary:
    records: list[Record] = [*seconds(number, over)]
    found = summarise([start(checks=checks, planned_ns=None), *records, End(number, "done")])
    assert found is not None
    return found


def test_certain_wants_what_passed_to_be_shown() -> None:
    short, long = of(P99, NUMBER), of(P99, NUMBER, number=320)
    assert verdict([short], certain=False) == PASSED
    assert verdict([short], certain=True) == NO_VERDICT
    assert [check.name for check in unshown(short.checks)] == ["p99"]
    assert verdict([long], certain=True) == PASSED  # a number is what it is: nobody asks more
    assert verdict([long, short], certain=True) == NO_VERDICT
    assert verdict([of(P99, over=0.5)], certain=True) == CHECK_FAILED


@pytest.mark.long
def test_on_the_command_line(tmp_path: Path) -> None:
    own = scenario(tmp_path, tables='[checks]\np99 = "< 10s"', s=1)
    done = loadbench("run", own, "--certain", cwd=tmp_path, code=4)
    assert "no verdict: p99" in done.stderr
    assert "not shown" in done.stderr
    asked = ("--until-decided", "1m", "--duration", "5s")
    wrong = loadbench("run", own, *asked, cwd=tmp_path, code=2)
    assert "--until-decided says how long" in wrong.stderr
    reached = loadbench("run", own, "--until-decided", "2s", cwd=tmp_path, code=4)
    assert "not decided within 2 s: p99 not shown" in reached.stdout
