"""A load of several processes: real ones, on this host, with what can happen to them."""

import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import msgpack  # type: ignore[import-untyped]
import pytest
import zmq

from loadbench.histogram import Histogram
from loadbench.load.schedule import Schedule
from loadbench.model import Window
from loadbench.plan import Broken, Command, Finished, Noted, Plan, RequestPlan, Workers
from loadbench.shape import Steering, length_ns
from loadbench.units import MS, SECOND
from tests.crews import Crew, crew, free_port, wait_gone, wait_until, worker
from tests.lanes import Done, known_server, plan


def shared(port: int, rate: float = 400, seconds: float = 2, **changed: Any) -> Plan:
    fields = {"arrivals": "poisson", "workers": Workers(here=2), **changed}
    return plan(port, rate, seconds, **fields)


def asked(wanted: Plan) -> list[int]:
    """What falls due in each second, whoever offers it."""
    schedule = Schedule(wanted, 0)
    seconds = length_ns(wanted.phases) // SECOND
    return [schedule.asked(second * SECOND, (second + 1) * SECOND) for second in range(seconds)]


def stopped_when_whole(found: Crew) -> Done:
    """Stops a load as soon as a whole second of it is sent again."""
    found.until(lambda m: isinstance(m, Window) and bool(m.sent) and not m.unsent)
    found.load.command(Command("stop"))
    return found.done()


def loads(found: Crew) -> list[Window]:
    return [window for window in found.windows if window.stage == "load"]


def test_two_workers_offer_exactly_what_one_process_would() -> None:
    with known_server(service_ms=1) as server:
        wanted = shared(server.port, 400, 2, warmup_ns=SECOND, slowest=10_000)
        with crew(wanted) as found:
            done = found.done()
    assert [w.asked for w in loads(found)] == asked(wanted)
    assert [w.rate for w in loads(found)] == [400.0, 400.0]
    assert done.sum("done") == done.sum("asked")
    assert found.windows[0].stage == "warmup"
    assert server.counts["got"] == found.sum("asked")
    assert len(found.pids) == 2
    assert done.finished.cpu_ns > 0
    assert found.notes == {}
    # as many slow ones are asked for as there are requests, so the master tells each of them
    every = [sample for window in done.recorded for sample in window.slowest]
    assert len(every) == done.sum("asked")
    assert done.latency == Histogram.of([sample.done - sample.due for sample in every])


@pytest.mark.long
def test_a_closed_loop_is_dealt_out_too() -> None:
    """Of three workers one leaves, and one is killed."""
    with known_server(service_ms=20) as server:
        three = {"concurrency": 5, "workers": Workers(here=3)}
        with crew(shared(server.port, 0, 60, arrivals="closed", **three)) as found:
            found.until_second(0)
            os.kill(found.pids[0], signal.SIGINT)
            wait_gone([found.pids[0]])
            os.kill(found.pids[1], signal.SIGKILL)
            found.until(lambda m: isinstance(m, Noted) and m.note.code == "lost")
            found.until(lambda m: isinstance(m, Window) and not m.lost)
            done = stopped_when_whole(found)
    assert found.windows[0].in_flight == 5
    assert set(found.notes) == {"worker-left", "lost"}
    assert done.sum("lost") in (2, 3)
    assert loads(found)[-2].in_flight == 5, "all five places are taken again"
    assert done.sum("done") <= server.counts["got"] <= done.sum("sent") + 3 * 50


def test_a_worker_that_is_killed() -> None:
    """Its share is taken over; what it had told is kept; the rest of it is lost or unsent."""
    with known_server(service_ms=20) as server:
        wanted = shared(server.port, 1000, 3)
        with crew(wanted) as found:
            found.until_second(0)
            os.kill(found.pids[0], signal.SIGKILL)
            done = found.done()
    note = found.notes["lost"]
    assert f"pid {found.pids[0]}" in note.text
    assert "killed (signal 9)" in note.text
    assert f"{done.sum('lost')} requests" in note.text
    assert f"{done.sum('unsent')} were not sent" in note.text
    assert 0 < done.sum("lost") < 60
    assert 0 < done.sum("unsent") < 1000
    assert [w.asked for w in loads(found)] == asked(wanted)
    assert loads(found)[-1].unsent == 0, "taken over late"
    assert server.counts["got"] >= done.sum("sent") - done.sum("lost")


def test_a_worker_that_is_frozen_and_wakes_up() -> None:
    """Nothing is sent late: it notices that others have its share, and joins again."""
    with known_server(service_ms=1) as server:
        wanted = shared(server.port, 400, 60)
        with crew(wanted) as found:
            found.until_second(0)
            frozen = found.pids[0]
            os.kill(frozen, signal.SIGSTOP)
            note = found.until(lambda m: isinstance(m, Noted))
            assert isinstance(note, Noted)
            assert note.note.code == "lost"
            assert f"pid {frozen}" in note.note.text
            time.sleep(0.5)
            os.kill(frozen, signal.SIGCONT)
            joined = found.until(lambda m: isinstance(m, Noted))
            assert isinstance(joined, Noted)
            assert joined.note.code == "worker-joined"
            assert f"pid {frozen}" in joined.note.text
            done = stopped_when_whole(found)
    assert [w.asked for w in loads(found)][:-1] == asked(wanted)[: len(loads(found)) - 1]
    assert max((w.lateness.maximum or 0) for w in loads(found)) < SECOND
    told = done.sum("sent") - done.sum("lost")
    assert done.sum("unsent") > 300
    # the server has seen no more than what was sent between the last word of it and the freeze
    assert told <= server.counts["got"] < told + 150
    free = [w.second for w in loads(found) if w.unsent]
    assert max(free) <= 4, "its share was free for longer than 3 s"


def test_a_worker_that_joins_late_gets_its_share() -> None:
    port = free_port()
    with known_server(service_ms=1) as server:
        wanted = shared(server.port, 400, 60, workers=Workers(here=1, port=port))
        with crew(wanted) as found, worker(port) as late:
            joined = found.until(lambda m: isinstance(m, Noted))
            assert isinstance(joined, Noted)
            assert joined.note.code == "worker-joined"
            found.load.command(Command("steer", Steering(scale=2.0)))
            os.kill(found.pids[0], signal.SIGKILL)  # now all of it is the late one's
            found.until(lambda m: isinstance(m, Noted) and m.note.code == "lost")
            whole = found.until(lambda m: isinstance(m, Window) and not m.unsent)
            done = stopped_when_whole(found)
            assert late.wait(5) == 0
    assert isinstance(whole, Window)
    assert whole.sent > 600, "twice the load of the plan"
    assert done.sum("sent") - done.sum("lost") <= server.counts["got"]


def test_a_worker_that_is_asked_to_leave_loses_nothing() -> None:
    with known_server(service_ms=50) as server, crew(shared(server.port, 400, 60)) as found:
        found.until_second(0)
        os.kill(found.pids[1], signal.SIGINT)
        left = found.until(lambda m: isinstance(m, Noted))
        assert isinstance(left, Noted)
        assert left.note.code == "worker-left"
        wait_gone([found.pids[1]])
        done = stopped_when_whole(found)
    assert {window.unsent for window in loads(found)[:-1]} == {0}
    assert done.sum("lost") == 0
    assert done.sum("done") == done.sum("sent") == server.counts["got"]


def test_a_worker_that_is_asked_twice_leaves_at_once() -> None:
    with (
        known_server(misbehave="hang") as server,
        crew(shared(server.port, 100, 2, drain_ns=300 * MS)) as found,
    ):
        found.until_second(0)
        os.kill(found.pids[1], signal.SIGINT)
        time.sleep(0.2)
        os.kill(found.pids[1], signal.SIGINT)
        found.until(lambda m: isinstance(m, Noted) and m.note.code == "lost")
        wait_gone([found.pids[1]], 2.0)
        done = found.done()
    assert done.sum("lost") > 20


def test_steering_stopping_and_ending_reach_all() -> None:
    with known_server(service_ms=1) as server:
        wanted = shared(server.port, 200, 60, arrivals="constant")
        with crew(wanted) as found:
            assert found.started is not None
            found.load.command(Command("steer", Steering(rate=600)))  # before the first arrival
            wait_until(found.started.origin + 900 * MS)
            found.load.command(Command("steer", Steering(rate=600, paused=True)))
            wait_until(found.started.origin + 2900 * MS)
            found.load.command(Command("stop"))
            done = found.done()
    asked_for = [window.asked for window in loads(found)]
    assert (asked_for[0], asked_for[2]) == (600, 0)
    assert done.finished.reason == "stopped"
    assert done.sum("asked") == done.sum("done") == server.counts["got"]


def test_a_stop_during_warm_up_records_nothing() -> None:
    with known_server(service_ms=1) as server:
        wanted = shared(server.port, 100, 5, warmup_ns=5 * SECOND)
        with crew(wanted) as found:
            assert found.started is not None
            wait_until(found.started.origin - wanted.warmup_ns + 300 * MS)
            found.load.command(Command("stop"))
            done = found.done()
    assert {window.stage for window in found.windows} == {"warmup"}
    assert (done.finished.reason, done.finished.unfinished) == ("stopped", 0)


def test_ending_at_once_leaves_what_is_under_way_unfinished() -> None:
    with known_server(misbehave="hang") as server, crew(shared(server.port, 100, 60)) as found:
        assert found.started is not None
        wait_until(found.started.origin + SECOND)
        found.load.command(Command("kill"))
        done = found.done()
    assert done.finished.reason == "stopped"
    assert done.finished.unfinished == done.sum("sent") == server.counts["got"] > 50


def test_when_the_master_is_killed_nobody_goes_on() -> None:
    """A worker that is stopped and reads nothing is no exception; another host is one with IPv6."""
    port = free_port()
    with known_server(service_ms=1) as server:
        two = Workers(here=2, elsewhere=1, host="::1", port=port)
        with worker(port, host="[::1]") as remote, crew(shared(server.port, workers=two)) as found:
            os.kill(found.pids[1], signal.SIGSTOP)
            found.load.popen.kill()
            wait_gone(found.pids, 2.0)
            assert remote.wait(15) == 3
            assert remote.stderr is not None
            said = remote.stderr.read()  # whether it had got as far as the plan
            assert b"no master answered" in said or b"nothing is heard of the master" in said


def test_a_master_that_is_frozen_and_wakes_up() -> None:
    """Nobody goes on sending meanwhile, as nobody knows of whom others have the share."""
    with known_server(service_ms=1) as server:
        wanted = shared(server.port, 400, 60)
        with crew(wanted) as found:
            found.until_second(0)
            os.kill(found.load.popen.pid, signal.SIGSTOP)
            time.sleep(2)
            os.kill(found.load.popen.pid, signal.SIGCONT)
            found.until(lambda m: isinstance(m, Noted) and m.note.code == "worker-joined")
            done = stopped_when_whole(found)
    assert [w.asked for w in loads(found)][:-1] == asked(wanted)[: len(loads(found)) - 1]
    told = done.sum("sent") - done.sum("lost")
    assert told <= server.counts["got"] < told + 900, "sent without a master for longer than 1.3 s"


def test_strangers_do_not_disturb() -> None:
    """Whoever can connect can say anything; a run goes on nevertheless."""
    port = free_port()
    words = [b"", b"\xc1", b"GET / HTTP/1.1\r\n", msgpack.dumps(5), msgpack.dumps(("a", 1)),
             msgpack.dumps((5, None, [])), msgpack.dumps(("client_ready", 5, "x")),
             msgpack.dumps(("heartbeat", None, "x")), msgpack.dumps(("locustfile", {}, "x")),
             msgpack.dumps(("loadbench", b"{}", "x")),
             msgpack.dumps(("loadbench", 7, "x"))]  # fmt: skip
    with known_server(service_ms=1) as server:
        wanted = shared(server.port, 400, 2, workers=Workers(here=1, port=port))
        with crew(wanted) as found, zmq.Context() as context:
            stranger = context.socket(zmq.DEALER)
            stranger.setsockopt(zmq.IDENTITY, b"x")
            stranger.connect(f"tcp://127.0.0.1:{port}")
            for word in words:
                stranger.send(word)
            with socket.create_connection(("127.0.0.1", port)) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            done = found.done()
            stranger.close(0)
    assert [w.asked for w in loads(found)] == asked(wanted)
    assert (done.sum("lost"), done.sum("unsent"), done.finished.reason) == (0, 0, "done")


def test_when_stdin_closes_all_end() -> None:
    with known_server(service_ms=1) as server, crew(shared(server.port, 200, 60)) as found:
        found.until_second(0)
        assert found.load.popen.stdin is not None
        found.load.popen.stdin.close()
        last = found.rest()
        assert found.load.popen.wait(5) == 0
        wait_gone(found.pids)
    assert isinstance(last, Finished)


def test_what_cannot_be_made_ready_is_said_once() -> None:
    wanted = shared(1, requests=(RequestPlan("a", data="absent.npy"),))
    with crew(wanted) as found:
        (broken,) = found.messages
        assert found.load.popen.wait(8) == 2
    assert isinstance(broken, Broken)
    assert "absent.npy" in broken.message


def test_workers_that_do_not_come() -> None:
    wanted = shared(1, workers=Workers(elsewhere=2, port=free_port(), wait_ns=SECOND // 2))
    with crew(wanted) as found:
        broken = found.messages[-1]
        assert found.load.popen.wait(8) == 3
    assert isinstance(broken, Broken)
    assert "only 0 of 2 workers came" in broken.message
    assert "loadbench worker --master" in broken.hint


def test_a_port_that_is_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with crew(shared(1, workers=Workers(here=1, port=port))) as found:
            (broken,) = found.messages
            assert found.load.popen.wait(8) == 3
    assert isinstance(broken, Broken)
    assert f"127.0.0.1:{port}" in broken.message


@pytest.mark.parametrize("master", ["127.0.0.1:1", "no.such.host.invalid"])
def test_a_worker_without_a_master(master: str) -> None:
    command = [sys.executable, "-m", "loadbench", "worker", "--master", master, "--wait", "1s"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "loadbench: " in done.stderr
    assert "Traceback" not in done.stderr
