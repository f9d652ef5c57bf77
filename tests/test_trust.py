"""How far a run can be trusted: each rule at its bound, in words, live as at the end."""

import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from loadbench import limits, trust
from loadbench.evidence import Evidence
from loadbench.histogram import Histogram
from loadbench.model import Check, End, Note, Record, Remark, Server, Start, Window
from loadbench.runner import clocks
from loadbench.summary import Summary, summarise
from loadbench.units import MS, SECOND
from loadbench.view import View, fold
from tests.records import start, window


def run(windows: Sequence[Window], first: Start | None = None, *notes: Note) -> Summary:
    """The summary; the screen must have come to the same grade on the way."""
    remarks = [Remark(0, note) for note in notes]
    records: list[Record] = [first or start(), *windows, *remarks, End(len(windows), "done")]
    found = summarise(records)
    assert found is not None
    view = View()
    for record in records:
        view = fold(view, record)
    assert view.trust[0] == found.trust
    return found


def seconds(number: int = 60, first: dict[str, Any] | None = None, **fields: Any) -> list[Window]:
    """So many seconds of 100 requests each; the first has its own fields."""
    after = [window(second, [5.0] * 100, **fields) for second in range(1, number)]
    return [window(0, [5.0] * 100, **{**fields, **(first or {})}), *after]


def codes(found: Summary) -> list[str]:
    return [note.code for note in found.notes]


def note(found: Summary, code: str) -> Note:
    return next(note for note in found.notes if note.code == code)


def test_an_undisturbed_run_is_trusted() -> None:
    late = Histogram.of([MS // 10] * 100)
    found = run(seconds(lateness=late, cpu_ns=SECOND // 2, stall_ns=3 * MS))
    assert (found.trust, found.notes) == ("trusted", ())
    assert found.generator == {"stall_ms": 3.0, "stall_cause": "", "cpu": 0.5, "held": 0}


def test_one_standstill_is_a_doubt_from_the_limit_on_and_its_cause_is_told() -> None:
    def once(ms: int, cause: str) -> Summary:
        return run(seconds(first={"stall_ns": ms * MS, "stall_cause": cause}))

    assert once(99, "cpu").trust == "trusted"
    found = once(141, "cpu")
    assert found.trust == "doubtful"
    told = note(found, "generator-stall")
    assert told.text.endswith("stood still for 141 ms: the kernel gave the core to others")
    assert "core of its own" in told.hint
    assert "(locust.stats.history)" in note(once(141, "hub: locust.stats.history"), told.code).text
    for cause in ("gc", "hub", "own", "cpu", "quota", "steal", "paused", ""):
        assert once(141, cause).trust == "doubtful"
        assert trust.CAUSES[cause][0] in note(once(141, cause), told.code).text


def test_many_standstills_are_a_doubt_by_what_falls_into_them() -> None:
    some = seconds(first={"stall_ns": 90 * MS}, stall_ns=9 * MS)  # 9 ms do not matter to 100 ms
    assert run(some).trust == "trusted"
    assert run(seconds(stall_ns=14 * MS)).trust == "trusted"  # 0.4 % is late by more than 10 ms
    each = run(seconds(stall_ns=16 * MS, stall_cause="gc"))
    assert each.trust == "doubtful"
    assert "1.6 % of the time (960 ms: Python looked" in note(each, "generator-stalls").text
    once = run(seconds(10, first={"stall_ns": 300 * MS}))
    assert (once.trust, codes(once)) == ("invalid", ["generator-stall"])
    assert run(seconds(stall_ns=59 * MS)).trust == "doubtful"
    long = run(seconds(stall_ns=61 * MS))  # 1.1 % is late by more than 50 ms
    assert long.trust == "invalid"
    assert codes(long) == ["generator-stalls"]


def test_one_standstill_of_a_short_run_does_not_make_it_invalid() -> None:
    found = run(seconds(5, first={"stall_ns": 90 * MS}))
    assert (found.trust, codes(found)) == ("doubtful", ["generator-stall"])
    assert run(seconds(5, first={"stall_ns": 30 * MS})).trust == "trusted"


def test_a_finer_percentile_that_is_checked_is_judged_by_itself() -> None:
    fine = start(checks=(Check("p99_9", False, 1e8, "< 100 ms"),))
    late = Histogram.of([MS] * 995 + [70 * MS] * 5)
    assert run(seconds(lateness=late)).trust == "trusted"
    found = run(seconds(lateness=late), fine)
    assert found.trust == "invalid"
    assert "late by 70.1 ms (p99.9)" in note(found, "generator-late").text
    assert run(seconds(first={"stall_ns": 99 * MS})).trust == "trusted"
    assert run(seconds(first={"stall_ns": 99 * MS}), fine).trust == "doubtful"


def test_short_limits_leave_room_for_less_lateness() -> None:
    def late(limit_ms: float, late_ms: float) -> str:
        first = start(limit_ns=int(limit_ms * MS))
        return run(seconds(lateness=Histogram.of([int(late_ms * MS)] * 100)), first).trust

    assert [late(4, ms) for ms in (0.9, 1.5, 3)] == ["trusted", "doubtful", "invalid"]
    assert [late(40, ms) for ms in (4.9, 6)] == ["trusted", "doubtful"]


def test_the_generators_cpu_is_its_own_word() -> None:
    assert run(seconds(cpu_ns=880 * MS)).trust == "trusted"
    full = run(seconds(cpu_ns=960 * MS))
    assert full.trust == "doubtful"
    assert "96 % of a core" in note(full, "generator-full").text


def test_what_this_machine_ran_out_of_is_no_failure_of_the_target() -> None:
    def failing(number: int, failure: str) -> Summary:
        broken = window(0, [5.0] * 100, {failure: number})
        return run([broken, *(window(s, [5.0] * 100) for s in range(1, 60))])

    assert failing(5, "refused").trust == "trusted"
    few = failing(5, "no_ports")
    assert few.trust == "doubtful"
    assert "5 requests for want of ports" in note(few, "own-failures").text
    assert failing(90, "no_files").trust == "invalid"


@pytest.mark.parametrize(("name", "need"), [("p90", 44), ("p99", 459), ("p99_9", 4603)])
def test_the_checked_percentile_says_how_many_requests_it_needs(name: str, need: int) -> None:
    first = start(checks=(Check(name, False, 1e9, "< 1 s"),))

    def asked(number: int) -> Summary:
        return run([window(0, [5.0] * number)], first)

    assert asked(need).trust == "trusted"
    short = asked(need - 1)
    assert short.trust == "doubtful"
    assert f"{need:,}" in note(short, "few-samples").text


def test_a_run_that_goes_on_is_not_blamed_for_being_short() -> None:
    records: list[Record] = [start(), window(0, [5.0] * 10, waiting=3)]
    found = summarise(records, running=True)
    assert found is not None
    assert found.trust == fold(fold(View(), records[0]), records[1]).trust[0] == "trusted"


def test_a_generator_that_cannot_keep_up_says_what_it_sent() -> None:
    late = Histogram.of([70 * MS] * 100)
    found = run([window(s, [5.0] * 50, asked=100, sent=50, waiting=50, lateness=late)
                 for s in range(10)])  # fmt: skip
    assert found.trust == "invalid"
    assert "sent 50.0/s of 100/s asked" in note(found, "generator-late").text


def test_what_was_held_or_lost_or_noted() -> None:
    held = run(seconds(first={"held": 40, "connections": 8, "oldest_ns": 2 * SECOND}))
    assert held.trust == "trusted"  # the target was slow: no doubt about the generator
    assert "40 requests waited for one of 8 connections" in note(held, "held").text
    cached = run(seconds(first={"server": Server(source="loadbench", requests=100, cached=25)}))
    assert note(cached, "cached").text.startswith("25 % of the answers came from the response")
    lost = [window(0, [5.0] * 90, asked=100, sent=100, lost=10), *seconds()[1:]]
    assert run(lost).trust == "doubtful"
    assert codes(run(lost, None, Note("lost", "worker 2 died"))).count("lost") == 1
    for code in trust.NOTED:
        assert run(seconds(), None, Note(code, "so it was")).trust == "doubtful"


def queue(rate: float, capacity: float, length: int, seed: int) -> list[Window]:
    """A queue of one server with constant service, its Poisson arrivals on their own clock."""
    random = np.random.default_rng(seed)
    due = np.cumsum(random.exponential(1 / rate, round(rate * length * 1.2)))
    due = due[due < length]
    done, free = [], 0.0
    for at in due:
        free = max(free, at) + 1 / capacity
        done.append(free)
    ends = np.array(done)
    found = []
    for second in range(length):
        mine = (ends >= second) & (ends < second + 1)
        asked = int(((due >= second) & (due < second + 1)).sum())
        left = int((due < second + 1).sum() - (ends < second + 1).sum())
        latencies = ((ends - due)[mine] * 1000).tolist()
        found.append(window(second, latencies, asked=asked, sent=asked, in_flight=left, rate=rate))
    return found


def test_overload_is_told_and_high_load_is_not() -> None:
    for seed in range(8):
        over = run(queue(200, 170, 12, seed))
        assert "overloaded" in codes(over)
        assert over.trust == "trusted"  # of the generator there is no doubt
    assert "overloaded at 200/s" in note(over, "overloaded").text
    told = [
        "overloaded" in codes(run(queue(200, 200 / load, length, seed)))
        for load in (0.5, 0.9, 0.97)
        for length in (10, 30)
        for seed in range(15)
    ]
    assert not any(told)


def test_a_ramp_a_freeze_and_a_closed_loop_are_no_overload() -> None:
    ramp = [window(s, [5.0 + s] * 50, in_flight=20 * s, rate=100.0 * s) for s in range(20)]
    freeze = [window(s, [5.0] * 100) for s in range(19)]
    freeze.append(window(19, [5.0], asked=100, sent=100, in_flight=99))
    closed = [window(s, [5.0 + s] * 50, in_flight=20 * s, rate=None) for s in range(20)]
    for windows in (ramp, freeze, closed):
        assert "overloaded" not in codes(run(windows))


def test_files_are_raised_to_what_the_machine_allows() -> None:
    code = (
        "import resource as r; from loadbench.limits import raise_files; n = r.RLIMIT_NOFILE;"
        "r.setrlimit(n, (100, r.getrlimit(n)[1])); print(raise_files(), *r.getrlimit(n))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(out.stdout.split()) == {str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])}


def test_what_will_run_out_is_said_before() -> None:
    found = limits.ports()
    assert found is not None
    assert limits.doubts(found, 0.0, found + 64) == []
    assert [note.code for note in limits.doubts(found, 0.0, found + 63)] == ["few-files"]
    (ports,) = limits.doubts(found + 1, 0.0, found + 100)
    assert "do not fit" in ports.text
    (closing,) = limits.doubts(10, found / 30, 1000)
    assert "may run out in 30 s" in closing.text
    assert limits.doubts(10, found / 61, 1000) == []


def test_what_the_clocks_say_of_a_run() -> None:
    before = clocks.read()
    time.sleep(0.02)
    after = clocks.read()
    assert clocks.doubts(before, after) == []
    assert after.boot - before.boot > 20 * MS

    def later(wall: float = 0, boot: float = 0, raw: float = 0) -> list[str]:
        past = clocks.Clocks(0, 0, 0, 0)
        ends = (60 + wall, 60, 60 + boot, 60 + raw)
        return [n.code for n in clocks.doubts(past, clocks.Clocks(*(int(s * 1e9) for s in ends)))]

    assert later(raw=0.03) == []  # half a thousandth: as time servers do
    assert later(raw=0.07) == ["clock-drift"]
    assert later(wall=-3) == ["clock-set"]
    assert later(wall=30, boot=30) == ["suspended"]


def test_whatever_the_figures_are_blamed_for_is_known_to_weaken_them() -> None:
    assert {doubt.tell(Evidence()).code for doubt in trust.DOUBTS} <= trust.WEAKENING
    assert not {"no-gpu", "calibrated", "held", "cached"} & trust.WEAKENING
