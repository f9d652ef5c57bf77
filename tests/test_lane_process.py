"""`python -m loadbench.load` as a process: its pipes, its signals, its clock when it is stopped."""

import fcntl
import os
import signal
import termios
import time

import msgspec
import pytest

from loadbench.model import Tensor, Window, encode
from loadbench.plan import Broken, Command, Finished, Plan, RequestPlan, Started, Workers
from loadbench.units import MS, SECOND
from tests.lanes import Process, endpoint, known_server, plan, process, run_process


def wait_until(moment: int) -> None:
    time.sleep(max(0, moment - time.monotonic_ns()) / SECOND)


def test_a_whole_run_under_locust() -> None:
    with known_server(service_ms=1) as server:
        wanted = plan(server.port, rate=200, seconds=1, warmup_ns=SECOND // 2)
        found = run_process(wanted, lambda load, started: None)
    found.check()
    assert found.sum("done") == 200
    assert found.failed == {}
    assert server.counts["got"] == 300
    assert 0 < found.finished.cpu_ns < 5 * SECOND


def test_stop_ends_the_arrivals_and_kill_ends_at_once() -> None:
    def during(load: Process, started: Started) -> None:
        wait_until(started.origin + SECOND // 2)
        load.command(Command("stop"))
        time.sleep(0.1)
        load.command(Command("kill"))

    with known_server(misbehave="hang") as server:
        found = run_process(plan(server.port, rate=100, seconds=60), during)
    found.check()
    assert found.finished.reason == "stopped"
    assert 45 < found.finished.unfinished == found.sum("sent") < 200


def test_a_signal_stops_gently_and_a_second_one_at_once() -> None:
    def during(load: Process, started: Started) -> None:
        wait_until(started.origin + SECOND // 4)
        load.popen.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        load.popen.send_signal(signal.SIGINT)

    with known_server(misbehave="hang", every=2) as server:
        found = run_process(plan(server.port, rate=100, seconds=60), during)
    found.check()
    assert found.finished.reason == "stopped"
    assert found.sum("asked") < 200
    assert found.finished.unfinished == server.counts["bad"] > 5


def test_a_load_that_was_frozen_tells_all_seconds_by_their_schedule() -> None:
    """SIGSTOP for 2.2 s: nothing is skipped, nothing is shifted, and the blame is taken."""

    def during(load: Process, started: Started) -> None:
        wait_until(started.origin + SECOND // 2)
        os.kill(load.popen.pid, signal.SIGSTOP)
        time.sleep(2.2)
        os.kill(load.popen.pid, signal.SIGCONT)

    with known_server(service_ms=1) as server:
        found = run_process(plan(server.port, rate=200, seconds=4), during)
    found.check()
    load = [window for window in found.windows if window.stage == "load"]
    assert [window.asked for window in load] == [200] * 4
    assert load[1].sent == load[1].done == 0
    assert load[1].waiting > 250
    assert load[1].oldest_ns > SECOND
    assert load[1].overdue > 200
    assert load[2].sent > 400
    assert found.sum("done") == 800 == server.counts["got"]
    assert max(window.stall_ns for window in load) > 2.1 * SECOND
    assert (load[2].lateness.maximum or 0) > 2 * SECOND
    assert (found.latency.maximum or 0) > 2 * SECOND


def test_it_ends_when_its_stdin_does() -> None:
    with known_server(service_ms=1) as server, process(encode(plan(server.port, 50, 60))) as load:
        assert isinstance(load.next(), Started)
        assert load.popen.stdin is not None
        load.popen.stdin.close()
        last = load.rest()[-1]
        assert load.popen.wait(5) == 0
    assert isinstance(last, Finished)
    assert last.reason == "stopped"


@pytest.mark.parametrize("workers", [None, Workers(here=1)])
def test_it_ends_when_nobody_reads_it(workers: Workers | None) -> None:
    """Neither its messages nor its log."""
    with known_server(service_ms=1) as server:
        wanted = plan(server.port, 50, 60, workers=workers)
        with process(encode(wanted)) as load:
            assert isinstance(load.next(), Started)
            assert load.popen.stdout is not None
            assert load.popen.stderr is not None
            load.popen.stdout.close()
            load.popen.stderr.close()
            assert load.popen.wait(10) is not None


def test_a_reader_that_is_slow_makes_nobody_late() -> None:
    """Nothing is read while the run goes on, and the pipe has no room for its windows."""
    with known_server() as server:
        wanted = plan(server.port, 2000, 3, arrivals="poisson")
        with process(encode(wanted)) as load:
            assert load.popen.stdout is not None
            fcntl.fcntl(load.popen.stdout, fcntl.F_SETPIPE_SZ, 4096)
            time.sleep(4)
            waiting = fcntl.ioctl(load.popen.stdout, termios.FIONREAD, b"    ")
            *_, finished = found = load.rest()
            assert load.popen.wait(5) == 0
    windows = [message for message in found if isinstance(message, Window)]
    told = sum(len(encode(message)) for message in found)
    assert int.from_bytes(waiting, "little") < told, "the pipe took all of it"
    assert isinstance(finished, Finished)
    assert max(window.stall_ns for window in windows) < SECOND
    assert sum(window.done for window in windows) == sum(window.asked for window in windows)


BAD = {
    "no plan": (b"{}", "no plan"),
    "no JSON": (b"what?", "no plan"),
    "no data": (encode(plan(1, requests=(RequestPlan("a", data="absent.npy"),))), "absent.npy"),
    "wrong shape": (encode(plan(1, requests=(RequestPlan("a", shapes={"x": (5,)}),))), "[5]"),
    "no such input": (encode(plan(1, requests=(RequestPlan("a", shapes={"z": (5,)}),))), "'z'"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_run_is_said_once_and_nothing_is_sent(name: str) -> None:
    first, words = BAD[name]
    with process(first) as load:
        (message,) = load.rest()
        assert load.popen.wait(5) == 2
        assert load.popen.stderr is not None
        assert b"Traceback" not in load.popen.stderr.read()
    assert isinstance(message, Broken)
    assert message.exit_code == 2
    assert words in message.message


def test_an_unknown_host_is_the_targets_fault() -> None:
    wanted: Plan = plan(1)
    where = msgspec.structs.replace(endpoint(1), host="no.such.host.invalid")
    with process(encode(msgspec.structs.replace(wanted, endpoint=where))) as load:
        (message,) = load.rest()
        assert load.popen.wait(20) == 3
    assert isinstance(message, Broken)
    assert "no.such.host.invalid" in message.message


def test_made_up_dimensions_are_told() -> None:
    with known_server() as server:
        open_input = (Tensor("x", "FP32", (-1,)),)
        where = msgspec.structs.replace(endpoint(server.port), inputs=open_input)
        wanted = msgspec.structs.replace(plan(server.port, 20, 0.1), endpoint=where)
        found = run_process(wanted, lambda load, started: None)
    assert [note.code for note in found.started.notes] == ["assumed-shape"]
    assert "32" in found.started.notes[0].text


def test_a_stop_during_warm_up_records_nothing() -> None:
    with known_server(service_ms=1) as server:
        wanted = plan(server.port, 100, 5, warmup_ns=5 * SECOND)

        def during(load: Process, started: Started) -> None:
            wait_until(started.origin - wanted.warmup_ns + 300 * MS)
            load.command(Command("stop"))

        found = run_process(wanted, during)
    assert {window.stage for window in found.windows} == {"warmup"}
    assert found.finished.reason == "stopped"
    assert found.finished.unfinished == 0
