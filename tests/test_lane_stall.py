"""The loop stands still: each cause is brought about for real, and told by its name."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadbench.plan import Started
from loadbench.units import MS, SECOND
from tests.lanes import Done, Process, known_server, plan, run_process

pytestmark = pytest.mark.alone

ROOT = Path(__file__).parent.parent
CPU_GROUPS = Path("/sys/fs/cgroup/cpu")  # of the first cgroups: the second may not be divided here


def causes(done: Done) -> dict[str, int]:
    """The longest standstill (ns) of each cause."""
    found: dict[str, int] = {}
    for window in done.recorded:
        found[window.stall_cause] = max(found.get(window.stall_cause, 0), window.stall_ns)
    return found


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("gc", "gc"),
        ("own", "own"),
        ("hub", "hub: __main__.later.<locals>.hold_up"),
        ("thread", "hub: another thread"),
        ("wait", "paused"),
    ],
)
def test_what_happens_in_the_process_is_told_by_its_name(kind: str, cause: str) -> None:
    for _ in range(5):  # on a busy machine others may have the core meanwhile, and that is told
        with known_server(service_ms=1) as server:
            command = [sys.executable, "-m", "tests.stalling", kind, str(server.port)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        stall, found, cpu = max(json.loads(done.stdout)["windows"])
        assert stall > 40 * MS
        assert 0 < cpu < 3 * SECOND
        if found != "cpu":
            break
    assert found == cause


def started(load: Process, told: Started, after_s: float) -> int:
    """The load's process id, once it has run for so long."""
    time.sleep(max(0.0, (told.origin - time.monotonic_ns()) / SECOND + after_s))
    return load.popen.pid


def crowded(core: int) -> Done:
    """Two seconds of load on a core, and of two processes that want it in the middle of them."""

    def meanwhile(load: Process, told: Started) -> None:
        pid = started(load, told, 0.4)
        os.sched_setaffinity(pid, {core})
        os.setpriority(os.PRIO_PROCESS, pid, 10)  # so that it waits for more than a time slice
        with crowd(core, 2):
            time.sleep(1.2)

    with known_server() as server:
        wanted = plan(server.port, 200, 2, arrivals="closed", concurrency=4)
        return run_process(wanted, meanwhile)


@contextlib.contextmanager
def crowd(core: int, number: int) -> Iterator[None]:
    """So many processes that want one core."""
    burn = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(burn) for _ in range(number)]
    try:
        for process in running:
            os.sched_setaffinity(process.pid, {core})
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_a_core_that_others_have_is_told() -> None:
    found = causes(crowded(min(os.sched_getaffinity(0))))
    assert found["cpu"] > 10 * MS


def test_a_process_that_is_stopped_is_told() -> None:
    def freeze(load: Process, told: Started) -> None:
        pid = started(load, told, 0.4)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(pid, signal.SIGCONT)

    with known_server(service_ms=1) as server:
        found = causes(run_process(plan(server.port, 200, 1), freeze))
    assert found["paused"] > 280 * MS


def test_a_quota_that_is_used_up_is_told() -> None:
    group = CPU_GROUPS / f"loadbench-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cpu.cfs_quota_us").write_text("20000")  # of 100 ms
    except OSError as error:
        pytest.skip(f"no CPU quota can be set here: {error}")
    try:
        with known_server() as server:
            (group / "cgroup.procs").write_text(str(os.getpid()))  # and so what it starts
            wanted = plan(server.port, 200, 2, arrivals="closed", concurrency=4)
            found = causes(run_process(wanted, lambda load, told: None))
    finally:
        (CPU_GROUPS / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()
    assert found["quota"] > 20 * MS
