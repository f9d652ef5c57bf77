"""How a load gives the memory back that it shares with its server, however it ends."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest
from gevent.event import AsyncResult
from msgspec.structs import replace

from loadbench.load.memory import Memory
from loadbench.model import Tensor, encode
from loadbench.plan import Command, Endpoint, Noted, Plan, Waiting, Workers
from tests import rpc_server
from tests.crews import alive, crew, free_port, wait_gone
from tests.lanes import endpoint, plan, process
from tests.running import LOADBENCH
from tests.test_memory import Forgetful, forgetful, written
from tests.test_shared_target import FOLDER, left

SLOW_S = 0.8  # longer than the last words of a worker take, shorter than its master waits


def shared(server: Forgetful, seconds: float = 1, **changed: Any) -> Plan:
    port, output = server.server_address[1], Tensor("y", "FP32", (1,))
    where = replace(endpoint(port), shared=True, outputs=(output,))
    return plan(port, 20, seconds, endpoint=where, **changed)


def wait_for(true: Callable[[], object], limit_s: float = 20.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_is_still_told_does_not_wait_for_a_frozen_server() -> None:
    """It takes connections, and says nothing. Over gRPC, which knows no hub."""
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        memory = Memory(rpc_server.endpoint(frozen.getsockname()[1]))
        ending = gevent.spawn(memory.close)
        frozen.settimeout(0)
        begun, asked = time.monotonic(), None
        while asked is None and time.monotonic() < begun + 10:
            gevent.sleep(0.01)  # that long the hub must not stand still
            try:
                asked, _ = frozen.accept()
            except BlockingIOError:
                continue
        assert asked is not None
        assert time.monotonic() - begun < 4
        assert not ending.dead
    asked.close()
    ending.join(10)
    assert ending.successful()


def test_workers_stay_until_a_slow_server_has_closed_it() -> None:
    with forgetful(times=0, last_s=SLOW_S) as server:
        with crew(shared(server, workers=Workers(here=2))) as found:
            done = found.done()
            assert found.load.popen.wait(10) == 0
        assert len(server.names) == 2
        assert server.known == set()
    assert done.sum("done") == done.sum("asked") > 0
    assert done.sum("lost") == 0


def test_workers_that_never_begin_give_it_back() -> None:
    with forgetful(times=0, last_s=SLOW_S) as server:
        workers = Workers(here=1, elsewhere=1, port=free_port())  # the other one does not come
        with process(encode(shared(server, workers=workers))) as load:
            wait_for(lambda: server.known)
            load.command(Command("stop"))
            load.popen.wait(10)
        assert server.known == set()


def test_a_load_that_is_not_told_to_begin_gives_it_back() -> None:
    with forgetful(times=0, last_s=SLOW_S) as server:
        with process(encode(shared(server, waits=True))) as load:
            assert isinstance(load.next(), Waiting)
            assert server.known
            assert load.popen.stdin is not None
            load.popen.stdin.close()
            assert load.popen.wait(10) == 0
        assert server.known == set()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_load_whose_runner_is_killed_gives_it_back(stopped: bool) -> None:
    code = (
        "import subprocess, sys, time\n"
        "command = [sys.executable, '-m', 'loadbench.load']\n"
        "load = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)\n"
        "load.stdin.write(sys.stdin.buffer.readline())\n"
        "load.stdin.flush()\n"
        "print(load.pid, file=sys.stderr, flush=True)\n"
        "time.sleep(60)"
    )
    pipe = subprocess.PIPE
    with forgetful(times=0) as server:
        with subprocess.Popen(
            [LOADBENCH[0], "-c", code], stdin=pipe, stdout=pipe, stderr=pipe
        ) as runner:
            assert runner.stdin is not None
            assert runner.stdout is not None
            assert runner.stderr is not None
            runner.stdin.write(encode(shared(server, 60)) + b"\n")
            runner.stdin.flush()
            load = int(runner.stderr.readline())
            runner.stdout.readline()  # it goes on
            assert server.known
            if stopped:
                os.kill(load, signal.SIGSTOP)
            runner.kill()
        wait_gone([load])
        assert server.known == set()


@pytest.mark.long
def test_a_worker_that_starts_anew_gives_it_back_first() -> None:
    with forgetful(times=0) as server, crew(shared(server, 60, workers=Workers(here=2))) as found:
        found.until_second(0)
        first = set(server.known)
        os.kill(found.pids[0], signal.SIGSTOP)
        found.until(lambda m: isinstance(m, Noted) and m.note.code == "lost")
        os.kill(found.pids[0], signal.SIGCONT)
        found.until(lambda m: isinstance(m, Noted) and m.note.code == "worker-joined")
        own = {name for name in server.names if name.split("-")[1] == str(found.pids[0])}
        assert len(own) == 2
        assert len(own & first & server.known) == 0
        assert len(server.known) == 2


def test_the_hub_itself_can_drop_it_and_waits_for_no_server() -> None:
    before = left()
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        memory = Memory(Endpoint(host="127.0.0.1", port=frozen.getsockname()[1], protocol="kserve"))
        took: AsyncResult[float] = AsyncResult()

        def drop() -> None:
            begun = time.monotonic()
            memory.drop()
            took.set(time.monotonic() - begun)

        gevent.get_hub().loop.run_callback(drop)
        assert 0.9 < took.get(timeout=10) < 4
    memory.region.forget()
    assert left() == before


def test_a_thread_that_comes_late_shows_it_no_more() -> None:
    before = left()
    memory = Memory(Endpoint(host="127.0.0.1", port=1, protocol="kserve"))
    late = memory._under_way = AsyncResult()
    ending = gevent.spawn(memory.close)
    gevent.sleep(0)  # it waits now for that one
    showing = threading.Thread(target=memory.region.show)
    showing.start()
    showing.join()
    assert left() == before
    late.set()
    ending.join(10)
    assert ending.successful()


@pytest.mark.parametrize("more", [(), pytest.param(("--workers", "1"), marks=pytest.mark.long)])
def test_a_run_that_is_given_up_amid_the_first_registration_leaves_no_name(
    more: tuple[str, ...], tmp_path: Path
) -> None:
    with forgetful() as server:
        server.takes = ["never"]
        command = [*LOADBENCH, "run", str(written(tmp_path, server, 30)), *more]
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as run:
            wait_for(lambda: server.held or run.poll() is not None)
            family = [child.pid for child in psutil.Process(run.pid).children(recursive=True)]
            (name,) = server.names
            assert (FOLDER / name).exists()
            assert any(map(alive, family))
            run.send_signal(signal.SIGINT)
            assert run.wait(20) == 130
    wait_gone(family)
    assert not (FOLDER / name).exists()
