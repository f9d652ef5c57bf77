"""`loadbench run --workers N`: whole runs, what is told of them, and that nothing outlives them."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from loadbench import runlog
from loadbench.model import Remark
from loadbench.units import SECOND, clock
from tests.crews import wait_gone
from tests.running import adds_up, loadbench, scenario, summary
from tests.test_run import running, shown, wait_for

pytestmark = pytest.mark.long


def workers_of(pid: int) -> list[int]:
    """The workers of a run by its runner's pid."""
    found = psutil.Process(pid).children(recursive=True)
    return [child.pid for child in found if "loadbench.load.worker" in child.cmdline()]


def test_an_undisturbed_run_with_workers(tmp_path: Path) -> None:
    found = summary(scenario(tmp_path), "--workers", "2", cwd=tmp_path)
    assert adds_up(found)
    assert (found["asked"], found["done"], found["reason"]) == (400, 400, "done")
    assert set(found["machine"]["processes"]) == {"load", "load 1", "load 2", "runner", "engine"}
    (folder,) = runlog.runs(tmp_path / "results")
    assert runlog.read_snapshot(folder)["workers"]["here"] == 2


def test_a_worker_that_is_killed_is_named_in_the_summary(tmp_path: Path) -> None:
    with running(tmp_path, scenario(tmp_path, rate="400", s=3), "--workers", "2") as (run, folder):
        workers = workers_of(run.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        assert run.wait(30) == 0
    found = shown(folder)
    assert adds_up(found)
    assert found["asked"] == 1200
    assert 0 < found["unsent"] < 800
    assert found["trust"] != "trusted"
    (note,) = [note for note in found["notes"] if note["code"] == "lost"]
    assert f"pid {workers[0]}" in note["text"]
    (logged,) = [r for r in runlog.read(folder) if isinstance(r, Remark) and r.note.code == "lost"]
    seconds = (logged.second, logged.second - 1)  # it takes a moment to tell
    assert any(f"at {clock(second * SECOND)}:" in logged.note.text for second in seconds)


def test_the_last_worker_is_killed(tmp_path: Path) -> None:
    """The run has failed; what it had told is kept, and its account is whole."""
    with running(tmp_path, scenario(tmp_path, s=60), "--workers", "1") as (run, folder):
        os.kill(workers_of(run.pid)[0], signal.SIGKILL)
        assert run.wait(30) == 3
    found = shown(folder)
    assert adds_up(found)
    assert found["reason"] == "failed"
    assert "no worker is left" in found["text"]
    assert found["done"] > 100
    assert found["unsent"] > 500


def test_a_runner_that_is_killed_leaves_no_worker_behind(tmp_path: Path) -> None:
    with running(tmp_path, scenario(tmp_path, s=60), "--workers", "2") as (run, _):
        family = [child.pid for child in psutil.Process(run.pid).children(recursive=True)]
        workers = workers_of(run.pid)
        assert len(workers) == 2
        os.kill(psutil.Process(workers[0]).ppid(), signal.SIGSTOP)  # the load cannot tell them
        run.kill()
        wait_gone(family)


def test_ctrl_c_stops_all_workers_gently(tmp_path: Path) -> None:
    with running(tmp_path, scenario(tmp_path, s=60), "--workers", "2") as (run, folder):
        family = [child.pid for child in psutil.Process(run.pid).children(recursive=True)]
        run.send_signal(signal.SIGINT)
        assert run.wait(30) == 130
        wait_gone(family)
    found = shown(folder)
    assert adds_up(found)
    assert found["reason"] == "stopped"
    assert found["done"] == found["asked"] > 300
    wait_for(lambda: runlog.read_snapshot(folder)["state"] == "stopped")


def test_what_does_not_go_together(tmp_path: Path) -> None:
    """Said before anything is started, with exit code 2."""
    journey = tmp_path / "people.py"
    journey.write_text(
        "from locust import HttpUser\nclass Person(HttpUser):\n    host = 'http://a'"
    )
    mine = scenario(tmp_path)
    for what, options, words in (
        (mine, ("--expect-workers", "1"), "--master-bind"),
        (mine, ("--master-bind", "192.0.2.1"), "listens on this host alone"),
        (mine, ("--workers", "1", "--master-bind", "127.0.0.1:x"), "no HOST:PORT"),
        (mine, ("--workers", "-1"), "-1"),
        (journey, ("--workers", "2"), "one load process"),
    ):
        done = loadbench("run", what, *options, cwd=tmp_path, code=2)
        assert words in done.stderr
    assert not (tmp_path / "results").exists()
