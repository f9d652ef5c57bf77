"""Runs that are steered while they go: by the command line, as a user would."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from loadbench import runlog
from loadbench.model import Mark, Remark, Start, Window
from loadbench.shape import Phase, Steering
from loadbench.units import SECOND
from tests import lanes
from tests.running import LOADBENCH, adds_up, loadbench, scenario
from tests.served import serving


@contextmanager
def running(folder: Path, *arguments: str, seconds: int, load: str = "") -> Iterator[Any]:
    """A run that goes on meanwhile; told what to do by its block."""
    path = scenario(folder, load=load, rate="400", s=seconds)
    command = [*LOADBENCH, "run", str(path), "--json", *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=-1, stderr=-1, text=True) as process:
        yield process
        process.communicate(timeout=60)


def wait_for(folder: Path, second: int) -> Path:
    """Until the run has recorded that second; its folder."""
    until = time.monotonic() + 40
    while time.monotonic() < until:
        for run in runlog.runs(folder / "results"):
            if any(isinstance(found, Window) and found.second >= second for found in log(run)):
                return run
        time.sleep(0.05)
    raise AssertionError(f"second {second} never came")


def told(folder: Path, *words: str) -> int:
    """Tells it and waits until the second after it is whole; which second it came in."""
    before = len(marks(folder))
    loadbench("tell", str(folder), *words, cwd=folder.parent)
    until = time.monotonic() + 40
    while len(marks(folder)) == before and time.monotonic() < until:
        time.sleep(0.05)
    second = marks(folder)[-1].second
    wait_for(folder.parent.parent, second + 1)
    return second


def marks(run: Path) -> list[Mark]:
    return [found for found in log(run) if isinstance(found, Mark)]


def log(run: Path) -> list[Any]:
    return list(runlog.read(run)) if (run / runlog.LOG).exists() else []


def test_the_load_follows_and_every_command_is_in_the_log(tmp_path: Path) -> None:
    with running(tmp_path, seconds=60):
        folder = wait_for(tmp_path, 0)
        rate = told(folder, "rate", "1000")
        pause = told(folder, "pause")
        resume = told(folder, "resume")
        told(folder, "scale", "1")  # as if no hand were on it
        scale = told(folder, "scale", "0.5")
        spike = told(folder, "spike", "1500", "1s")
        over = told(folder, "mark", "a", "word")
        loadbench("tell", str(folder), "stop", cwd=tmp_path)
    assert [mark.text for mark in marks(folder)] == [
        "rate 1000/s by hand", "arrivals paused", "arrivals resumed", "the scenario's load again",
        "the scenario's load × 0.5",
        "spike of 1500/s for 1 s", "a word", "stop asked for",
    ]  # fmt: skip
    notes = [found for found in log(folder) if isinstance(found, Remark)]
    steered = [found.second for found in notes if found.note.code == "steered"]
    assert steered == [marks(folder)[0].second]  # once, and not before its mark
    windows = {found.second: found for found in log(folder) if isinstance(found, Window)}
    assert windows[rate - 1].asked == 400
    assert windows[rate + 1].asked == 1000
    assert windows[rate + 1].rate == 1000
    assert windows[pause + 1].asked == 0
    assert windows[pause + 1].rate == 0
    assert windows[scale + 1].asked == 200
    assert windows[spike].asked + windows[spike + 1].asked > 1400
    assert windows[over + 1].asked == 200
    summary = runlog.read_snapshot(folder)["summary"]
    assert adds_up(summary)
    assert summary["failed"] == {}
    assert resume >= pause


def test_a_local_engine_is_changed_and_the_log_tells_from_what_to_what(tmp_path: Path) -> None:
    def tell(*words: str, code: int = 0) -> str:
        done = loadbench("tell", "last", *words, cwd=tmp_path, code=code)
        return str(done.stdout + done.stderr)

    with running(tmp_path, "--set", "engine.slo=5s", seconds=40):
        folder = wait_for(tmp_path, 0)
        told = tell("engine", "max_batch=4", "policy=fixed", "max_wait=3ms")
        assert told == "engine: max_batch 8 → 4, policy deadline → fixed, max_wait 3 ms\n"
        assert "up to 8 were warmed up" in tell("engine", "max_batch=9", code=2)
        assert "KEY=VALUE" in tell("engine", "max_batch", code=2)
        wait_for(tmp_path, 2)
        tell("scale", "0.5")
        tell("engine", "policy=deadline", "slo=2s")
        tell("stop")
    marks = [found for found in log(folder) if isinstance(found, Mark)]
    assert [mark.text for mark in marks] == [
        "engine: max_batch 8 → 4, policy deadline → fixed, max_wait 3 ms",
        "the scenario's load × 0.5",
        "engine: policy fixed → deadline, slo 5 s → 2 s, hold true",
        "stop asked for",
    ]
    stood = [mark.standing for mark in marks[:3]]
    assert all(found and found.engine and found.engine.max_batch == 4 for found in stood)
    assert [found.scale for found in stood if found] == [1, 0.5, 0.5]
    last = stood[2].engine if stood[2] else None
    assert last is not None
    assert last.slo_ns == 2 * SECOND
    notes = [found.note.code for found in log(folder) if isinstance(found, Remark)]
    assert notes.count("retuned") == 1
    told_of = {
        found.second: found.server.max_batch
        for found in log(folder)
        if isinstance(found, Window) and found.server
    }
    assert told_of[marks[0].second + 1] == 4
    summary = runlog.read_snapshot(folder)["summary"]
    assert adds_up(summary)
    assert summary["failed"] == {}
    optimum = json.loads(loadbench("optimum", "last", "--json", cwd=tmp_path).stdout)
    assert optimum["of"] >= summary["done"]  # what was left of the warm-up comes on top
    assert "retuned" in [note["code"] for note in optimum["notes"]]


def test_only_an_engine_of_the_run_s_own_is_changed(tmp_path: Path) -> None:
    with serving("fake") as engine:
        url = f"http://127.0.0.1:{engine.port}"
        with running(tmp_path, "--target", url, seconds=40):
            wait_for(tmp_path, 0)
            told = loadbench("tell", "last", "engine", "max_batch=4", cwd=tmp_path, code=2)
            loadbench("tell", "last", "stop", cwd=tmp_path)
        assert "no engine that this run started" in told.stderr
        assert engine.stats()["loadbench"]["max_batch"] == 32


@pytest.mark.long
def test_a_closed_loop_is_scaled_and_paused(tmp_path: Path) -> None:
    with running(tmp_path, "--set", "load.arrivals=closed", "--set", "load.concurrency=4",
                 seconds=60):  # fmt: skip
        folder = wait_for(tmp_path, 1)
        scaled, paused, resumed = (told(folder, *words) for words in (
            ("scale", "3"), ("pause",), ("resume",)
        ))  # fmt: skip
        loadbench("tell", str(folder), "stop", cwd=tmp_path)
    windows = {found.second: found for found in log(folder) if isinstance(found, Window)}
    start = next(found for found in log(folder) if isinstance(found, Start))
    assert "rate-ignored" in [note.code for note in start.notes]
    busy = {second: found.in_flight + found.waiting for second, found in windows.items()}
    assert (busy[scaled - 1], busy[scaled + 1]) == (4, 12)  # one may just have begun
    assert windows[paused + 1].in_flight == windows[paused + 1].done == 0
    assert windows[resumed + 1].done > 100
    assert adds_up(runlog.read_snapshot(folder)["summary"])


@pytest.mark.long
def test_a_spike_is_whole_with_workers_too(tmp_path: Path) -> None:
    """All act on it together, a moment after it was told: no part of it may be gone by then."""
    with running(tmp_path, "--workers", "2", seconds=4):
        folder = wait_for(tmp_path, 0)
        loadbench("tell", "last", "spike", "4400", "200ms", cwd=tmp_path)
    windows = [found for found in log(folder) if isinstance(found, Window)]
    asked = sum(found.asked for found in windows if found.stage == "load")
    assert asked == pytest.approx(4 * 400 + 0.2 * 4000, abs=200)  # 50 ms of it
    assert adds_up(runlog.read_snapshot(folder)["summary"])


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    with running(tmp_path, seconds=40):
        folder = wait_for(tmp_path, 0)
        refused = loadbench("tell", "last", "rate", "much", cwd=tmp_path, code=2)
        assert "much" in refused.stderr
        long = loadbench("tell", "last", "mark", "x" * 201, cwd=tmp_path, code=2)
        assert "a text of 1 to 200" in long.stderr
        steers = loadbench("tell", "last", "mark", "a\x1b[31mb", cwd=tmp_path, code=2)
        assert "a text of 1 to 200" in steers.stderr
        assert (
            "takes 2 words" in loadbench("tell", "last", "spike", "5", cwd=tmp_path, code=2).stderr
        )
        loadbench("tell", "last", "stop", cwd=tmp_path)
    assert "is over" in loadbench("tell", "last", "pause", cwd=tmp_path, code=3).stderr
    assert json.loads((folder / "run.json").read_text())["summary"]["reason"] == "stopped"


@pytest.mark.parametrize(("scale", "width"), [(0.25, 2), (2.0, 16), (0.0, 0)])
def test_a_closed_loop_has_as_many_places_as_are_wanted(scale: float, width: int) -> None:
    """The known server counts what it has open; the log what is under way."""
    with lanes.known_server(service_ms=2) as server:
        phases = (Phase(0, 0, 3 * SECOND),)
        wanted = lanes.plan(server.port, arrivals="closed", concurrency=8, phases=phases)
        steering = Steering(scale=scale)
        done = lanes.drive(wanted, [(1.2, lambda lane: lane.steer(steering))])
    done.check()
    before, after = (done.windows[second].in_flight for second in (0, 2))
    assert before in (7, 8)  # one may have been answered just then, and the next not begun
    assert max(0, width - 1) <= after <= width
    assert done.failed == {}
