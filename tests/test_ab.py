"""`loadbench ab`: two engines in turns, from the command line and from within."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadbench import catalogue, runlog, spec
from loadbench.cli import main
from loadbench.errors import RunError, SpecError
from loadbench.experiments.ab import Interleaved, Plans, _together
from loadbench.experiments.sides import one_rate, side
from loadbench.judge.blocks import Layout
from loadbench.judge.session import Terms
from loadbench.model import Window
from loadbench.report.ab import read_session, session_text
from loadbench.report.html import report
from loadbench.report.sides import snapshots
from loadbench.runner import Options
from tests.running import LOADBENCH, loadbench, scenario

pytestmark = pytest.mark.long


def windows(folder: Path) -> list[Window]:
    return [record for record in runlog.read(folder) if isinstance(record, Window)]


def test_two_engines_take_turns_and_the_slower_one_is_seen(tmp_path: Path) -> None:
    file = str(scenario(tmp_path, 'a = "5 ms"', rate="50"))
    fast, slow = spec.load(file), spec.load(file, {"engine.fake.a": "60 ms"})
    plan = Layout(one_rate(fast, slow), warm_s=0, block_s=2, pairs=2)
    sides = (side(fast, ""), side(slow, sys.executable))  # "another build" is this one, too
    said: list[str] = []
    session = Interleaved(sides, Plans(plan, Terms()), Options(tmp_path / "results"), said.append)
    folder = session.execute()
    found = read_session(folder)
    assert (found.state, found.pairs, len(said) >= 4) == ("done", 2, True)
    p50 = found.rows[0]
    assert p50.word == "inconclusive"  # of two pairs
    assert all(a is not None and b is not None and a < b for a, b in p50.values)
    assert ["engine.fake.a", "5 ms", "60 ms"] in runlog.read_snapshot(folder)["differs"]
    logs = {name: windows(folder / name) for name in "ab"}
    for name, turns in (("a", {0, 1, 6, 7}), ("b", {2, 3, 4, 5})):
        asked = {window.second for window in logs[name] if window.asked}
        assert asked == turns
    one, other = ([w.asked for w in logs[name] if w.asked] for name in "ab")
    assert one == other  # the same arrivals
    assert set(found.idle_cpu) == {"a", "b"}
    text = session_text(folder)
    assert "A B B A" in text
    assert "p50 ms" in text
    assert "without ±" in text
    assert runlog.find("1/b", tmp_path / "results") == folder / "b"
    page = report([folder])
    assert "A B B A" in page
    assert page.count('class="line run') >= 2  # a curve of each side
    path = folder / runlog.SNAPSHOT
    path.write_text(path.read_text() + " ")
    log = folder / "b" / runlog.LOG
    log.write_bytes(log.read_bytes().replace(b'"done":', b'"done": ', 1))
    assert "altered" not in text
    text = session_text(folder)
    assert "▲ run.json was altered after the run" in text
    assert "▲ B: log.ndjson was altered after the run" in text


@contextmanager
def started(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*LOADBENCH, "ab", "own.toml", "own.toml", "--json", *options],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def measured(results: Path, process: subprocess.Popen[str], seconds: int) -> Path:
    """Waits until both sides have told so many seconds."""
    limit = time.monotonic() + 60
    folder = results / "0001-ab-own"
    while time.monotonic() < limit:
        assert process.poll() is None, process.communicate()
        logs = [folder / name / runlog.LOG for name in "ab"]
        if all(
            log.exists() and log.read_text().count('"kind":"window"') >= seconds for log in logs
        ):
            return folder
        time.sleep(0.1)
    raise AssertionError("nothing was measured")


def test_a_signal_leaves_a_whole_result_and_no_process(tmp_path: Path) -> None:
    """And a shadow finds an engine that answers wrong."""
    scenario(tmp_path, rate="40")
    wrong = ("--shadow", "1s", "--b-set", "engine.fake.mistakes=100 %")
    with started(tmp_path, "--set", "load.warmup=0s", "--block", "2s", *wrong) as process:
        folder = measured(tmp_path / "results", process, 4)
        children = psutil.Process(process.pid).children(recursive=True)
        assert sum("serve" in child.cmdline() for child in children) == 2
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert not psutil.wait_procs(children, timeout=10)[1]
    found: dict[str, Any] = json.loads(out)
    assert (found["state"], found["pairs"]) == ("stopped", 1)
    answers = found["answers"]
    assert answers["compared"] == answers["rows"] > 20
    assert answers["absolute"] == pytest.approx(1.0)
    assert answers["failed"] == [0, 0]
    shown = loadbench("show", "1", cwd=tmp_path).stdout
    assert "■ stopped" in shown
    assert "largest difference: 1.00" in shown
    assert "1 of" in loadbench("show", str(folder), cwd=tmp_path).stdout
    assert loadbench("show", "1/a", cwd=tmp_path).stdout.startswith("loadbench 0001-ab-own/a")
    (listed,) = catalogue.entries(tmp_path / "results")
    assert (listed.state, listed.scenario) == ("stopped", "own vs own")
    assert listed.text.startswith("p50 ")
    with pytest.raises(SpecError, match="has two sides"):
        snapshots(folder)


def test_a_killed_session_is_readable_and_its_processes_end(tmp_path: Path) -> None:
    scenario(tmp_path, rate="40")
    with started(tmp_path) as process:
        measured(tmp_path / "results", process, 1)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert len(children) == 4
    assert not psutil.wait_procs(children, timeout=10)[1]
    found = json.loads(loadbench("show", "1", "--json", cwd=tmp_path).stdout)
    assert (found["kind"], found["state"], found["pairs"]) == ("ab", "killed", 0)


def test_loads_that_begin_apart_are_no_session() -> None:
    _together(None, 5)  # one of them is not known yet
    _together(1_000_000, 200_000_000)
    with pytest.raises(RunError, match="began 800 ms apart"):
        _together(0, 800_000_000)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--b-set", "load.seed=8"], "asked different things: load.seed"),
        (["--set", "load.arrivals=closed"], "has no rate"),
        (["--budget", "20s"], "--budget 34s"),
        (["--metric", "p42"], "no metric of an A/B"),
        (["--margin", "2"], "is not a share"),
        (["--shadow", "100 ms"], "whole seconds"),
        (["--b-python", "/no/such/python"], "/no/such/python cannot start a loadbench"),
        (["--b-set", "target.url=http://127.0.0.1:9", "--b-python", "x"], "not started by"),
        (
            ["--set", "target.url=http://127.0.0.1:9", "--b-set", "engine.max_batch=4"],
            "engine.max_batch is of an engine that loadbench starts",
        ),
    ],
)
def test_bad_input_is_told_and_leaves_nothing(
    tmp_path: Path,
    options: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scenario(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["ab", "own.toml", "own.toml", *options])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_side_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    scenario(tmp_path)
    url = "target.url=http://127.0.0.1:9"
    done = loadbench("ab", "own.toml", "own.toml", "--b-set", url, cwd=tmp_path, code=3)
    assert "127.0.0.1:9" in done.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("layout", "pairs", 10**9),
        ("layout", "pairs", 0),
        ("layout", "block_s", 0),
        ("layout", "warm_s", -10),
        ("layout", "rate", 0),
        ("terms", "metrics", []),
        ("terms", "metrics", ["nope"]),
        ("terms", "margin", -3),
        ("snapshot", "differs", [[1, 2]]),
        ("snapshot", "sides", {}),
    ],
)
def test_a_session_that_cannot_have_been_is_one_error(
    tmp_path: Path, part: str, key: str, value: object
) -> None:
    folder = runlog.create(tmp_path, "ab")
    known: dict[str, Any] = {
        "schema": runlog.SCHEMA, "kind": runlog.AB, "run": "0001-ab", "state": "done",
        "layout": {"rate": 50.0, "warm_s": 0, "block_s": 2, "pairs": 8},
        "terms": {"metrics": ["p50"], "margin": 0.02},
        "sides": {"a": {"name": "one"}, "b": {"name": "two"}},
    }  # fmt: skip
    runlog.write_snapshot(folder, known)
    assert "0 of 8 pairs" in session_text(folder)
    (known if part == "snapshot" else known[part])[key] = value
    runlog.write_snapshot(folder, known)
    with pytest.raises(SpecError, match=r"is no A/B session|cannot be:"):
        session_text(folder)
