"""The commands that look back and compare, over run folders as a run leaves them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadbench import runlog
from loadbench.cli import main
from loadbench.model import End, Note, Remark, encode
from tests.ended import finished
from tests.running import loadbench


def test_help_names_every_command(tmp_path: Path) -> None:
    text = loadbench("--help", cwd=tmp_path).stdout
    for name in ("tui", "run", "serve", "list", "show", "doctor", "compare", "baseline"):
        assert f"\n  {name}" in text


@pytest.mark.parametrize(
    "command", ["tui", "run", "serve", "list", "show", "doctor", "compare", "baseline"]
)
def test_every_command_explains_itself(tmp_path: Path, command: str) -> None:
    assert "Usage:" in loadbench(command, "--help", cwd=tmp_path).stdout


def test_list_is_newest_first_and_names_what_was_killed(tmp_path: Path) -> None:
    text = loadbench("list", cwd=tmp_path).stdout
    assert "no runs in results yet: start one with: loadbench run steady" in text
    assert loadbench("list", "--json", cwd=tmp_path).stdout == ""
    for long in (["show", f"0001-{'a' * 400}"], ["list", "--out", "a" * 400]):
        assert "Traceback" not in loadbench(*long, cwd=tmp_path, code=None).stderr
    finished(tmp_path / "results", "one", 10.0)
    killed = finished(tmp_path / "results", "two", 12.0)
    snapshot = runlog.read_snapshot(killed)
    del snapshot["summary"]
    runlog.write_snapshot(killed, {**snapshot, "state": "running", "pid": 2**22 + 1})
    runlog.create(tmp_path / "results", "three")
    rows = loadbench("list", cwd=tmp_path).stdout.splitlines()
    assert [row.split()[0] for row in rows[1:-1]] == ["0003-three", "0002-two", "0001-one"]
    assert rows[-1].startswith("± holds at 95 %; where there is none, loadbench show RUN says why")
    assert "no readable run.json" in rows[1]
    assert rows[2].endswith("killed")
    assert "500  10.0  10.0" in rows[3]
    lines = loadbench("list", "--json", cwd=tmp_path).stdout.splitlines()
    assert json.loads(lines[2])["done_per_s"] == pytest.approx(500)


def test_a_percentile_among_the_failed_is_over_the_limit(tmp_path: Path) -> None:
    finished(tmp_path / "results", "one", 10.0)
    finished(tmp_path / "results", "two", 10.0, failed={"http_503": 400})
    assert "10.0  > 100" in loadbench("list", cwd=tmp_path).stdout.splitlines()[1]
    rows = loadbench("compare", "1", "2", cwd=tmp_path).stdout.splitlines()
    (row,) = (row for row in rows if row.strip().startswith("p99 ms"))
    assert row.split()[:5] == ["p99", "ms", "10.0", ">", "100"]


def test_what_others_put_into_a_log_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "\x1b]0;owned\x07\x9b2J\u202e"
    settings: dict[str, Any] = {hostile: 1}
    folder = finished(tmp_path, "one", 10.0, **settings)
    records = list(runlog.read(folder))
    note = Note("task-raised", f"answer {hostile}\nüber")
    raw = [*map(encode, records[:-1]), encode(Remark(2, note)), encode(End(2, "failed", hostile))]
    (folder / runlog.LOG).write_bytes(b"\n".join([*raw, b""]))
    for command in ("show", "compare", "list"):
        arguments = {"show": ["1"], "compare": ["1", "1"], "list": []}[command]
        for json_too in ([], ["--json"]):
            with pytest.raises(SystemExit):
                main([command, *arguments, *json_too, "--out", str(tmp_path)])
            text = capsys.readouterr().out
            assert text.replace("\n", "").isprintable(), command
            assert command != "show" or "owned\\x07\\x9b2J\\u202e" in text.replace("\\\\", "\\")
    with pytest.raises(SystemExit):
        main(["run", hostile])
    assert capsys.readouterr().err.replace("\n", "").isprintable()


def test_show_is_made_from_the_log(tmp_path: Path) -> None:
    folder = finished(tmp_path / "results", "one", 10.0)
    (folder / runlog.SNAPSHOT).unlink()
    text = loadbench("show", "1", cwd=tmp_path).stdout
    assert text.startswith("loadbench 0001-one")
    assert "p99 10.0" in text
    found = json.loads(loadbench("show", "last", "--json", cwd=tmp_path).stdout)
    assert found["done"] == 1500
    assert "there is no run '7'" in loadbench("show", "7", cwd=tmp_path, code=2).stderr
    (folder / runlog.LOG).write_text("")
    assert "nothing was recorded" in loadbench("show", "1", cwd=tmp_path, code=2).stderr


def test_compare_shows_settings_before_figures(tmp_path: Path) -> None:
    finished(tmp_path / "results", "one", 20.0)
    finished(tmp_path / "results", "two", 10.0, max_batch=8)
    text = loadbench("compare", "1", cwd=tmp_path).stdout
    settings, figures = text.index("engine.max_batch: 32 → 8"), text.index("p99 ms")
    assert settings < figures
    assert "-50.0 %  ? inconclusive (1 run each)  1+1" in text
    found = json.loads(loadbench("compare", "1", "2", "--json", cwd=tmp_path).stdout)
    assert found["comparable"] is True
    assert found["differences"] == [{"key": "engine.max_batch", "a": 32, "b": 8}]


def test_a_killed_run_can_be_compared(tmp_path: Path) -> None:
    finished(tmp_path / "results", "one", 20.0)
    folder = finished(tmp_path / "results", "two", 10.0)
    snapshot = runlog.read_snapshot(folder)
    del snapshot["summary"]
    runlog.write_snapshot(folder, snapshot)
    assert "p99 ms" in loadbench("compare", "1", "2", cwd=tmp_path).stdout


def test_a_scenarios_folder_of_ones_own_hides_none_of_those_that_ship(tmp_path: Path) -> None:
    """`python -m` has the working folder first on its path."""
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "mine.toml").write_text("[load]\n")
    command = [sys.executable, "-m", "loadbench", "shape", "tour"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_target_without_a_scenario_gets_a_command_line_that_is_whole(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9"
    done = loadbench("run", "--target", url, "--duration", "1 s", cwd=tmp_path, code=2)
    assert "run needs a scenario" in done.stderr
    assert f"→ loadbench run steady --target {url} --duration '1 s'\n" in done.stderr
    found = loadbench("find", "--target", url, cwd=tmp_path, code=2)
    assert f"loadbench find steady --target {url} --slo" in found.stderr
    alone = loadbench("run", url, cwd=tmp_path, code=2)
    assert f"{url} is a target, no scenario" in alone.stderr
    assert f"steady --target {url}" in alone.stderr


def test_settings_of_an_engine_are_refused_at_a_server_of_others(tmp_path: Path) -> None:
    own = ("--set", "engine.max_batch=8", "--target", "http://127.0.0.1:9")
    done = loadbench("run", "steady", *own, cwd=tmp_path, code=2)
    assert "http://127.0.0.1:9 is a server of others" in done.stderr
    assert not (tmp_path / "results").exists()
