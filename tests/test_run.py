"""Whole runs against the known-answer engine: what is measured, kept and told, however they end."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadbench import control, runlog
from loadbench.errors import RunError
from loadbench.model import AlertChange, End, Mark, Note, Remark, Server, Start, Window, plain
from loadbench.runner.children import Child
from loadbench.runner.recorder import Recorder
from loadbench.snapshots import sums
from loadbench.summary import summarise
from tests.records import start, window
from tests.running import LOADBENCH, adds_up, loadbench, scenario, summary


@contextlib.contextmanager
def running(cwd: Path, *arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run in the background, once its second second is in the log."""
    with subprocess.Popen(
        [*LOADBENCH, "run", *map(str, arguments), "--print-folder"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    ) as process:
        assert process.stdout is not None
        folder = cwd / process.stdout.readline().split()[1]
        try:
            wait_for(lambda: seconds(folder) >= 2)
            yield process, folder
        finally:
            process.kill()


def wait_for(true: Any, limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def seconds(folder: Path) -> int:
    """How many recorded windows the log has."""
    if not (folder / runlog.LOG).exists():
        return 0
    return sum(isinstance(r, Window) and r.stage == "load" for r in runlog.read(folder))


def shown(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        loadbench("show", folder, "--json", cwd=folder.parent).stdout
    )
    return found


def test_an_undisturbed_run(tmp_path: Path) -> None:
    found = summary(scenario(tmp_path), cwd=tmp_path)
    assert (found["asked"], found["done"], found["reason"]) == (400, 400, "done")
    assert adds_up(found)
    assert (found["unsent"], found["unfinished"], found["lost"]) == (0, 0, 0)
    (folder,) = runlog.runs(tmp_path / "results")
    assert found["run"] == folder.name == "0001-own-fake"
    snapshot = runlog.read_snapshot(folder)
    assert snapshot["state"] == "done"
    assert snapshot["summary"] == found == shown(folder)
    for name in (runlog.SNAPSHOT, runlog.LOG):
        assert (folder / sums.FILE).exists()
        assert sums.altered(folder, name) is None
    windows = [record for record in runlog.read(folder) if isinstance(record, Window)]
    assert [w.second for w in windows if w.stage == "warmup"] == [-1]
    assert [w.second for w in windows if w.stage == "load"] == [0, 1]
    # the server counted exactly what the log says was sent to it, warm-up included
    counted = sum(window.server.requests or 0 for window in windows if window.server)
    assert counted == sum(window.sent + window.tail_sent for window in windows) == 600


@pytest.mark.alone
def test_known_answer(tmp_path: Path) -> None:
    """P50 is the service time plus transport, which the same run without it measures. Neighbours
    on the machine can only add to a latency, so the best of a few tries counts. The tail is held
    to its answer by tests/benchmarks/known_answer.py, on a quiet machine."""
    one = ("--set", "engine.max_batch=1")

    def p50(a: str) -> float:
        found = summary(scenario(tmp_path, f'a = "{a}"', rate="50", s=4), *one, cwd=tmp_path)
        assert found["done"] == 200
        return float(found["latency_ms"]["p50"])

    off = [abs(p50("5 ms") - p50("0 ms") - 5.0)]
    while min(off) >= 1 and len(off) < 4:
        off.append(abs(p50("5 ms") - p50("0 ms") - 5.0))
    assert min(off) < 1


def test_checks_decide_the_exit_code(tmp_path: Path) -> None:
    passed = '[checks]\np50 = "< 1 s"\nerrors = "< 1 %"\n'
    failed = '[checks]\np50 = "< 1 ms"\n'
    loadbench("run", scenario(tmp_path, tables=passed), cwd=tmp_path, code=0)
    done = loadbench("run", scenario(tmp_path, tables=failed), cwd=tmp_path, code=1)
    assert "✗ p50" in done.stdout


def test_failures_of_every_kind_are_counted(tmp_path: Path) -> None:
    fake = 'a = "1 ms", errors = "10 %", wrong = "10 %", hangups = "10 %"'
    found = summary(
        scenario(tmp_path, fake, rate="300"), "--set", "engine.max_batch=1", cwd=tmp_path
    )
    assert adds_up(found)
    assert found["asked"] == 600
    assert set(found["failed"]) == {"http_500", "bad_answer", "truncated"}
    for number in found["failed"].values():
        assert 25 < number < 110  # 10 % of 600, ± 5 standard deviations
    assert found["latency_ms"]["p99"] is None
    assert found["answered_ms"]["p50"] > 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_has_a_complete_snapshot(tmp_path: Path, number: int) -> None:
    with running(tmp_path, scenario(tmp_path, s=60)) as (process, folder):
        process.send_signal(number)
        assert process.wait(20) == 128 + number
    found = shown(folder)
    assert found["reason"] == "stopped"
    assert adds_up(found)
    assert found["unfinished"] == 0
    assert 300 < found["asked"] < 12_000
    assert runlog.read_snapshot(folder)["summary"] == found


def test_a_run_outlives_whoever_read_its_progress(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*LOADBENCH, "run", scenario(tmp_path, s=7), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.readline()
        process.stderr.close()  # there are lines at its start and after 5 s
        found = json.loads(process.stdout.read())
        assert process.wait(30) == 0
    assert (found["reason"], found["asked"]) == ("done", 1400)


def test_a_killed_run_is_readable_and_leaves_no_process(tmp_path: Path) -> None:
    with running(tmp_path, scenario(tmp_path, 'a = "100 ms"', s=60)) as (process, folder):
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    found = shown(folder)
    assert found["reason"] == "killed"
    assert adds_up(found)
    assert found["unfinished"] > 0  # 100 ms each: some were in flight
    text = loadbench("show", folder, cwd=tmp_path).stdout
    assert "✗ killed" in text


def test_a_limit_of_connections_holds_and_is_told(tmp_path: Path) -> None:
    tables = '[[alert]]\nwhen = "lateness > 5 ms"\noff = true\nfor = "5s"\n'
    path = scenario(tmp_path, 'a = "200 ms"', 'drain = "1s"', tables, rate="100")
    found = summary(path, "--set", "target.connections=4", cwd=tmp_path)
    assert adds_up(found)
    assert found["asked"] == 200
    assert found["unsent"] > 100  # 4 connections × 5/s each for 3 s
    assert any(note["code"] == "unsent" for note in found["notes"])
    assert found["trust"] != "trusted"


def test_an_engine_that_dies_ends_the_run_with_what_was_measured(tmp_path: Path) -> None:
    with running(tmp_path, scenario(tmp_path, s=60)) as (process, folder):
        engines = [
            child for child in psutil.Process(process.pid).children() if "serve" in child.cmdline()
        ]
        engines[0].kill()
        assert process.wait(30) == 3
    found = shown(folder)
    assert found["reason"] == "failed"
    assert f"engine stopped (killed: out of memory?); see results/{folder.name}/" in found["text"]
    assert adds_up(found)
    assert found["done"] > 100


def test_a_load_that_something_stops_is_no_whole_run(tmp_path: Path) -> None:
    with running(tmp_path, scenario(tmp_path, s=60)) as (process, folder):
        (load,) = (
            child
            for child in psutil.Process(process.pid).children()
            if "loadbench.load" in child.cmdline()
        )
        load.terminate()
        assert process.wait(30) == 3
    found = shown(folder)
    assert found["reason"] == "failed"
    assert "stopped by a signal from outside" in found["text"]
    assert adds_up(found)
    assert found["rate"]["asked"] == pytest.approx(200, rel=0.02)


def test_a_stop_during_warm_up_leaves_nothing_unfinished(tmp_path: Path) -> None:
    """Warm-up is in no figure, so neither is what it had in flight when the server is read last."""
    recorder = Recorder(tmp_path, start(), None, print)
    recorder.window(window(-1, [5.0], stage="warmup", asked=17, sent=17, in_flight=16))
    recorder.rest(Server("loadbench", requests=9))
    recorder.end(End(-1, "stopped"))
    found = summarise(runlog.read(tmp_path))
    assert found is not None
    assert adds_up(plain(found))
    assert (found.asked, found.unfinished) == (0, 0)


def test_what_the_engine_remarks_stands_in_the_log(tmp_path: Path) -> None:
    said: list[str] = []
    recorder = Recorder(tmp_path, start(), None, said.append)
    note = Note("drifting", "the buffer bn.running_mean changes", "call model.eval()")
    recorder.window(window(0, [5.0], asked=1, sent=1, server=Server("loadbench", remarks=(note,))))
    recorder.window(window(1, [5.0], asked=1, sent=1, server=Server("loadbench")))
    recorder.end(End(1, "done"))
    found = list(runlog.read(tmp_path))
    assert [record for record in found if isinstance(record, Remark)] == [Remark(0, note)]
    assert said == [note.text]
    windows = [record for record in found if isinstance(record, Window)]
    assert [bool(w.server and w.server.remarks) for w in windows] == [False, False]
    summary = summarise(found)
    assert summary is not None
    assert note in summary.notes


def test_commands_stop_and_mark(tmp_path: Path) -> None:
    with running(tmp_path, scenario(tmp_path, s=60)) as (process, folder):
        assert "● running" in loadbench("show", folder, cwd=tmp_path).stdout.splitlines()[0]
        assert "the run goes on" in shown(folder)["text"]
        path = runlog.read_snapshot(folder)["control"]
        control.send(path, {"command": "mark", "text": "contention started"})
        control.send(path, {"command": "stop"})
        assert process.wait(20) in (0, 4)  # a busy machine is not trusted
    marks = [record.text for record in runlog.read(folder) if isinstance(record, Mark)]
    assert marks == ["contention started", "stop asked for"]
    assert shown(folder)["reason"] == "stopped"
    assert not os.path.exists(path)


def test_an_alert_fires_and_is_kept(tmp_path: Path) -> None:
    tables = '[[alert]]\nwhen = "p99 > 50 ms"\nfor = "1s"\n'
    path = scenario(tmp_path, 'a = "60 ms"', tables=tables, s=4)
    done = loadbench("run", path, "--set", "engine.max_batch=16", cwd=tmp_path, code=None)
    assert "▲ p99 latency > 50 ms" in done.stderr
    (folder,) = runlog.runs(tmp_path / "results")
    states = [
        r.state for r in runlog.read(folder) if isinstance(r, AlertChange) and r.rule == "p99"
    ]
    assert states[-1] == "firing"
    assert [alert["rule"] for alert in shown(folder)["alerts"]].count("p99") == 1


def test_rates_in_percent_follow_a_calibration(tmp_path: Path) -> None:
    load = 'calibrate = "1s"'
    path = scenario(tmp_path, 'a = "10 ms"', load, rate='"50 %"')
    bare = ("--set", "engine.max_batch=1", "--set", "load.warmup=0s")
    found = summary(path, *bare, cwd=tmp_path, code=None)
    assert found["server"]["requests"] == found["done"]  # the calibration's are not counted in
    # one at a time, 10 ms each: 100/s at most
    assert 70 < 2 * found["rate"]["asked"] < 101
    assert any(note["code"] == "calibrated" for note in found["notes"])
    start = next(iter(runlog.read(runlog.runs(tmp_path / "results")[0])))
    assert isinstance(start, Start)


def test_two_runs_at_once_doubt_each_other(tmp_path: Path) -> None:
    with running(tmp_path, scenario(tmp_path, s=60)) as (process, folder):
        found = summary(scenario(tmp_path), cwd=tmp_path, code=None)
        process.send_signal(signal.SIGINT)
        process.wait(20)
    for result in (found, shown(folder)):
        assert "other-run" in {note["code"] for note in result["notes"]}
        assert result["trust"] != "trusted"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["stedy"], 2, "did you mean 'steady'"),
        (["steady", "--set", "engine.max_bach=3"], 2, "unknown key 'engine.max_bach'"),
        (["steady", "--rate", "fast"], 2, "'fast' is not a rate"),
        (["steady", "--duration", "5"], 2, "is not a duration"),
        (["steady", "--target", "local:nowhere.onnx"], 2, "nowhere.onnx"),
        (["steady", "--target", "local:notes.onnx"], 2, "notes.onnx"),
        (["steady", "--target", "http://127.0.0.1:9"], 3, "127.0.0.1:9"),
        (["steady", "--target", "ftp://x"], 2, "ftp://x"),
        (["steady", "--out", "notes.onnx/results"], 3, "cannot be written"),
        (["steady", "--no-such-option"], 2, "No such option"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    (tmp_path / "notes.onnx").write_text("these are notes, no model\n" * 10)
    done = loadbench("run", *arguments, cwd=tmp_path, code=code)
    assert message in done.stderr
    assert done.stdout == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.onnx"]


def test_a_log_that_cannot_be_opened_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"engine\.log: cannot be written"):
        Child("engine", ["loadbench", "--version"], tmp_path / "gone" / "engine.log")
