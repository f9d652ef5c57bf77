"""The lane against servers whose right answers are known. The accounting is checked in each run."""

import contextlib
import socket
import threading
import time

import msgspec
import numpy as np
import pytest

from loadbench.load.lane import Lane
from loadbench.model import Window
from loadbench.plan import RequestPlan
from loadbench.shape import Phase, arrivals
from loadbench.units import MS, SECOND
from tests.known_server import GOOD
from tests.lanes import drive, known_server, plan


def test_an_undisturbed_run_asks_what_the_shape_says_and_loses_nothing() -> None:
    phases = (Phase(200, 200, SECOND), Phase(200, 800, SECOND))
    with known_server(service_ms=2) as server:
        wanted = plan(server.port, arrivals="poisson", phases=phases, seed=5, warmup_ns=SECOND // 2)
        found = drive(wanted)
    found.check()
    due = np.concatenate(list(arrivals(phases, "poisson", 5)))
    asked = [window.asked for window in found.recorded if window.stage == "load"]
    assert asked == [int((due < SECOND).sum()), int((due >= SECOND).sum())]
    assert found.sum("done") == len(due)
    assert found.failed == {}
    assert found.finished.reason == "done"
    assert found.finished.unfinished == 0
    assert [window.phase for window in found.windows][:3] == [None, 0, 1]
    assert [window.rate for window in found.windows][:3] == [200, 200, 500]
    warm = sum(window.done + window.tail_done for window in found.windows) - len(due)
    assert warm == found.windows[0].asked > 50
    assert server.counts["got"] == len(due) + warm
    assert 1.5 * MS < (found.latency.quantile(0.5) or 0) < 20 * MS


def test_warm_up_hands_over_without_draining() -> None:
    with known_server(service_ms=300) as server:
        found = drive(plan(server.port, rate=100, seconds=1, warmup_ns=SECOND))
    found.check()
    warm, first = found.windows[:2]
    assert (warm.second, warm.stage, warm.asked) == (-1, "warmup", 100)
    assert warm.in_flight == first.tail_done == warm.sent - warm.done > 20
    assert first.asked == 100
    assert first.done + first.in_flight == first.sent


def test_a_stopped_run_asks_nothing_more_and_waits_for_what_it_sent() -> None:
    with known_server(service_ms=200) as server:
        found = drive(plan(server.port, rate=100, seconds=5), after=[(0.5, "stop")])
    found.check()
    assert found.finished.reason == "stopped"
    assert found.finished.unfinished == 0
    assert 45 < found.sum("asked") < 60
    assert found.sum("done") == found.sum("sent") == found.sum("asked") == server.counts["got"]


def test_a_stop_that_is_heard_late_leaves_nothing_unsent() -> None:
    def late(lane: Lane) -> None:
        time.sleep(0.2)
        lane.stop()

    with known_server() as server:
        found = drive(plan(server.port, rate=100, seconds=5), after=[(0.5, late)])
    found.check()
    assert found.sum("unsent") == 0
    assert found.sum("done") == found.sum("asked") == server.counts["got"] > 65


def test_what_falls_due_while_a_stop_is_obeyed_is_asked_for_too() -> None:
    """What is due by then is sent first, which takes a while."""

    def late(lane: Lane) -> None:
        time.sleep(0.001)
        lane.stop()

    with known_server() as server:
        wanted = plan(server.port, rate=20_000, seconds=5, connections=100)
        found = drive(wanted, after=[(0.02, late)])
    found.check()


def test_a_killed_run_ends_at_once_and_says_what_was_open() -> None:
    with known_server(misbehave="hang") as server:
        found = drive(plan(server.port, rate=100, seconds=5), after=[(0.5, "kill")])
    found.check()
    assert found.finished.reason == "stopped"
    assert found.finished.unfinished == found.sum("sent") > 40
    assert 0 <= found.sum("sent") - server.counts["got"] <= 1  # the last may still be on its way
    assert len(found.windows) == 1


def test_beyond_the_limit_of_connections_requests_wait_and_keep_their_due_time() -> None:
    with known_server(service_ms=20) as server:  # 2 connections carry at most 100/s
        found = drive(plan(server.port, rate=200, seconds=1, connections=2))
    found.check()
    assert server.counts["connections"] == 2
    assert found.sum("asked") == found.sum("done") == 200
    assert found.sum("held") > 150
    assert (found.latency.maximum or 0) > 0.8 * SECOND
    assert max(window.waiting for window in found.windows) > 50
    assert max(window.overdue for window in found.windows) > 50
    held = sum(window.lateness.count for window in found.windows) + found.sum("held")
    assert held == 200


def test_what_waits_when_a_limited_run_is_stopped_was_never_sent() -> None:
    with known_server(service_ms=50) as server:
        wanted = plan(server.port, rate=200, seconds=5, connections=2)
        found = drive(wanted, after=[(0.7, "stop")])
    found.check()
    assert found.sum("unsent") > 80
    assert found.sum("sent") == found.sum("done") == server.counts["got"]


def test_the_drain_ends_and_leaves_unfinished_what_never_came() -> None:
    with known_server(misbehave="hang", every=2) as server:
        found = drive(plan(server.port, rate=100, seconds=0.5, drain_ns=SECOND // 2))
    found.check()
    assert found.finished.reason == "done"
    assert found.finished.unfinished == server.counts["bad"] == 25


def test_a_closed_loop_keeps_its_number_in_flight() -> None:
    with known_server(service_ms=10) as server:
        wanted = plan(server.port, arrivals="closed", concurrency=8, warmup_ns=SECOND // 2)
        found = drive(wanted)
    found.check()
    window = found.recorded[0]
    assert server.counts["connections"] == 8
    assert window.rate is None
    assert window.in_flight + window.waiting <= 8
    assert 500 < window.done < 8 * 100
    assert found.sum("asked") == found.sum("done")
    assert server.counts["got"] == sum(w.done + w.tail_done for w in found.windows)


@pytest.mark.parametrize(
    ("misbehave", "failure", "kept"),
    [
        ("wrong", "bad_answer", False),
        ("garbage", "bad_answer", False),
        ("long", "over_long", False),
        ("short", "truncated", False),
        ("close", "closed", False),
        ("busy", "http_503", True),
        ("hang", "first_byte_timeout", False),
        ("trickle", "timeout", False),
        ("reset", "reset", False),
        ("reset_amid", "reset", False),
        ("half_closed", "closed", False),
        ("half_closed_amid", "truncated", False),
        ("chunked", "", True),
        ("continue", "", True),
        ("timing", "", True),
        ("until_close", "", False),
        ("last", "", False),
    ],
)
@pytest.mark.parametrize("arrivals", ["constant", "closed"])
def test_every_kind_of_answer(misbehave: str, failure: str, kept: bool, arrivals: str) -> None:
    with known_server(service_ms=2, misbehave=misbehave, every=4) as server:
        found = drive(
            plan(
                server.port, rate=200, seconds=0.3, arrivals=arrivals, concurrency=3,
                timeout_ns=150 * MS, connections=64,
            )
        )  # fmt: skip
    found.check()
    counts = server.counts
    assert counts["bad"] >= 5
    assert found.failed == ({failure: counts["bad"]} if failure else {})
    assert found.sum("sent") == counts["got"]  # nothing was sent again
    assert found.sum("done") == counts["good"] + (0 if failure else counts["bad"])
    assert set(found.examples) == set(found.failed)
    assert found.finished.unfinished == 0
    assert (counts["connections"] < 6) is kept


@pytest.mark.parametrize("arrivals", ["constant", "closed"])
def test_a_target_that_is_down_is_refused_and_used_again_when_it_is_back(arrivals: str) -> None:
    with socket.socket() as taken:  # bound, not listening: connecting to it is refused
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        found = drive(plan(port, rate=100, seconds=0.5, arrivals=arrivals, concurrency=2))
    found.check()
    assert set(found.failed) == {"refused"}
    assert found.sum("sent") == found.failed["refused"] == found.sum("asked")
    assert found.sum("asked") == 50 if arrivals == "constant" else found.sum("asked") < 15


def test_an_idle_connection_that_the_server_closes_costs_no_request() -> None:
    with known_server(idle_ms=20) as server:
        found = drive(plan(server.port, rate=10, seconds=1))
    found.check()
    assert found.failed == {}
    assert server.counts["connections"] == 10


def test_a_connection_is_not_used_again_when_the_server_is_about_to_close_it() -> None:
    """One that keeps idle connections for a second may be closing one when the next is due."""
    with known_server(kept_s=1) as server:
        done = drive(plan(server.port, rate=1.5, seconds=3.0))
    assert done.failed == {}
    assert server.counts["connections"] == server.counts["got"] > 3
    with known_server(kept_s=10) as server:
        drive(plan(server.port, rate=1.5, seconds=3.0))
    assert server.counts["connections"] == 1


@pytest.mark.parametrize("arrivals", ["constant", "closed"])
def test_a_server_that_always_closes_without_saying_so_gets_each_request_on_its_own_connection(
    arrivals: str,
) -> None:
    changed = {"concurrency": 2} if arrivals == "closed" else {"rate": 2000}
    with known_server(misbehave="hasty") as server:
        done = drive(plan(server.port, arrivals=arrivals, warmup_ns=SECOND, **changed))
    assert done.failed == {}
    assert done.sum("sent") > 100
    (note,) = [note for note in done.finished.notes if note.code == "unkept"]
    assert f"127.0.0.1:{server.port} closes each connection after one answer" in note.text


def test_a_server_that_is_restarted_is_not_taken_for_one_that_always_closes() -> None:
    with known_server(misbehave="hasty", every=50) as server:
        done = drive(plan(server.port, rate=500))
    assert not [note for note in done.finished.notes if note.code == "unkept"]
    assert server.counts["connections"] < 100


def test_a_server_that_ends_after_a_standstill_is_not_taken_for_one_that_always_closes() -> None:
    """It cuts many connections at once that had one answer, and is there again."""
    opened, first = [0], list[socket.socket]()
    fallen = threading.Event()

    def serve(one: socket.socket) -> None:
        with one, contextlib.suppress(OSError):
            while one.recv(65536):
                first.append(one)
                while not fallen.is_set() and len(first) < 20:
                    time.sleep(0.001)
                one.sendall(GOOD)
                time.sleep(0.02)
                if not fallen.is_set():
                    fallen.set()
                    for other in first:
                        other.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = listener.accept()
                opened[0] += 1
                threading.Thread(target=serve, args=(one,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        done = drive(plan(listener.getsockname()[1], rate=100, seconds=1))
        listener.shutdown(socket.SHUT_RDWR)
    assert fallen.is_set()
    assert not [note for note in done.finished.notes if note.code == "unkept"]
    assert opened[0] < 60


def test_requests_are_drawn_by_weight_and_told_apart_by_name() -> None:
    requests = (RequestPlan("small", weight=3), RequestPlan("large", weight=1, rows=1))
    with known_server() as server:
        found = drive(plan(server.port, rate=1000, seconds=1, requests=requests))
    found.check()
    done = {
        name: sum(w.requests[name].done for w in found.recorded if name in w.requests)
        for name in ("small", "large")
    }
    assert sum(done.values()) == 1000
    assert 700 < done["small"] < 800


def test_the_slowest_come_with_what_the_server_said_of_them() -> None:
    with known_server(service_ms=2, misbehave="timing") as server:
        found = drive(plan(server.port, rate=100, seconds=1, slowest=3))
    slowest = found.windows[0].slowest
    latencies = [sample.done - sample.due for sample in slowest]
    assert len(slowest) == 3
    assert latencies == sorted(latencies, reverse=True)
    assert abs(latencies[0] - (found.windows[0].latency.maximum or 0)) < latencies[0] / 500
    first = slowest[0]
    assert (first.queue_ns, first.compute_ns, first.batch) == (1_500_000, 2_000_000, 4)
    assert first.due <= first.begun <= first.sent <= first.done


def test_localhost_is_found_at_the_address_that_listens() -> None:
    with known_server() as server:
        wanted = plan(server.port, rate=50, seconds=0.2)
        where = msgspec.structs.replace(wanted.endpoint, host="localhost")
        found = drive(msgspec.structs.replace(wanted, endpoint=where))
    assert found.sum("done") == 10
    assert found.failed == {}


@pytest.mark.alone
def test_a_server_that_stands_still_is_seen_through() -> None:
    """500/s at 1 ms of service with standstills of a tenth of the time: the truth follows from
    the schedule and from when the server wrote each answer."""
    with known_server(service_ms=1, stall_ms=250, period_ms=2500, stamped=True) as server:
        found = drive(plan(server.port, rate=500, seconds=5))
    found.check()
    assert len(server.counts["stalls"]) == 2
    due = found.started.origin + np.arange(2500) * 2 * MS
    truth = np.sort(np.array(server.counts["stamps"])[:, 1] - due)
    for share in (0.95, 0.99):
        expected = truth[int(share * len(truth))]
        assert expected > 100 * MS
        assert found.latency.quantile(share) == pytest.approx(expected, rel=0.05)
    assert (found.latency.quantile(0.5) or 0) < 5 * MS
    oldest = max(window.oldest_ns for window in found.windows)
    assert oldest < 260 * MS


def test_windows_hold_what_their_seconds_did() -> None:
    """A run of 2.5 s: the last load window is a half, its arrivals are a half."""
    with known_server(service_ms=100) as server:
        found = drive(plan(server.port, rate=100, seconds=2.5))
    found.check()
    assert [(w.second, w.stage, w.asked) for w in found.windows] == [
        (0, "load", 100),
        (1, "load", 100),
        (2, "load", 50),
    ]
    first: Window = found.windows[0]
    assert 80 <= first.done <= 91
    assert first.in_flight == first.sent - first.done
