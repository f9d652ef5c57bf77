"""The lane with arrivals that do not come from a rate: a trace, and all at once."""

import numpy as np

from loadbench.shape import Phase, arrivals
from loadbench.units import MS, SECOND
from tests.lanes import drive, known_server, plan


def test_a_trace_is_sent_as_it_is() -> None:
    due = np.array([0, 1, 400, 401, 402, 1300, 1301, 1900]) * MS
    with known_server(service_ms=1) as server:
        found = drive(plan(
            server.port, arrivals="trace", trace=due.astype("<i8").tobytes(), rate=4, seconds=2,
        ))  # fmt: skip
    found.check()
    assert [window.asked for window in found.windows[:2]] == [5, 3]
    assert [window.rate for window in found.windows[:2]] == [None, None]
    assert found.sum("done") == len(due)
    assert found.failed == {}


def test_gamma_arrivals_have_their_variation_on_the_wire() -> None:
    phases = (Phase(400, 400, 2 * SECOND),)
    with known_server(service_ms=1) as server:
        found = drive(plan(server.port, arrivals="gamma", cv=3.0, phases=phases, seed=3))
    found.check()
    due = np.concatenate(list(arrivals(phases, "gamma", 3, 3.0)))
    assert [window.asked for window in found.windows[:2]] == [
        int((due < SECOND).sum()), int((due >= SECOND).sum()),
    ]  # fmt: skip
    assert found.sum("done") == len(due)
    assert found.windows[0].rate == 400


def test_all_at_once_ends_with_the_last_answer() -> None:
    with known_server(service_ms=20) as server:
        found = drive(plan(
            server.port, rate=50, seconds=20, arrivals="once", connections=50,
            warmup_ns=SECOND // 2,
        ))  # fmt: skip
    found.check()
    load = [window for window in found.windows if window.stage == "load"]
    assert found.recorded == load  # nothing is left for the drain
    assert load[0].asked == found.sum("asked") == found.sum("done") == 1000
    assert found.windows[0].rate == 50  # warm-up goes at the rate
    assert {window.rate for window in load} == {None}
    assert found.sum("held") == 1000
    assert not any(window.lateness.count for window in load)  # nothing can be on time here
    # 20 rounds of 50 at 20 ms each: far from the 20 s that the phase would have
    assert 1 <= len(load) < 10
    assert found.finished.reason == "done"
    assert found.finished.unfinished == 0


def test_all_at_once_goes_on_in_the_drain_when_the_time_is_too_short() -> None:
    with known_server(service_ms=50) as server:
        found = drive(plan(server.port, arrivals="once", rate=100, seconds=1, connections=4))
    found.check()
    stages = [window.stage for window in found.windows]
    assert stages == ["load", *["drain"] * (len(stages) - 1)]
    assert len(stages) >= 2
    assert found.sum("done") == 100
    assert found.windows[0].waiting > 0


def test_nothing_at_once_is_over_at_once() -> None:
    with known_server() as server:
        found = drive(plan(server.port, arrivals="once", rate=0, seconds=20, warmup_ns=SECOND // 5))
    found.check()
    assert found.sum("asked") == 0
    assert found.finished.reason == "done"
