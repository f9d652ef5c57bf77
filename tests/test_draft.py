"""A run that is being put together: what was typed, as a command line and as faults; what there is
to choose from."""

import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from dashboard import editor
from dashboard.draft import FIELDS, Draft, check, for_doctor, shape_line
from dashboard.shelf import scenarios, used
from dashboard.starting import command_line
from loadbench import runlog, spec
from loadbench.report.shape import chart_lines, shape_text

CLOSED = '[load]\narrivals = "closed"\nconcurrency = 3\nphases = [{ for = "30s" }]\n'


def test_what_is_typed_becomes_the_command_that_is_run() -> None:
    values = {
        "rate": "300",
        "slo": "100 ms",
        "workers": "2",
        "more": "engine.hold=false; load.seed=8",
    }
    draft = Draft("ramp", "http://h:1", values, trust=True, out="else where")
    arguments = draft.arguments(check(draft).fields)
    assert shlex.split(command_line(arguments)) == ["loadbench", "run", *arguments]
    assert command_line(arguments) == (
        "loadbench run ramp --target http://h:1 --rate 300 --set 'engine.slo=100 ms' --workers 2"
        " --set engine.hold=false --set load.seed=8 --out 'else where' --trust"
    )
    told = for_doctor(arguments)
    assert "--workers" not in told
    assert [word for word in arguments if word not in ("--workers", "2")] == told


def test_the_command_does_what_was_typed(tmp_path: Path) -> None:
    values = {
        "rate": "300",
        "duration": "20s",
        "max_batch": "8",
        "p99": "< 50 ms",
        "policy": "none",
    }
    found = check(Draft("ramp", "local:fake", values)).scenario
    assert found is not None
    assert found.spec.engine.max_batch == 8
    assert found.spec.target.url == "local:fake"
    assert [check.text for check in found.spec.checks if check.name == "p99"] == ["< 50 ms"]
    assert shape_line(found.spec).endswith("requests in 20 s")
    arguments = Draft("ramp", "local:fake", values).arguments(FIELDS)
    shown = subprocess.run(
        [sys.executable, "-m", "loadbench", "doctor", *arguments],
        capture_output=True, text=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [("max_batch", "9999", "engine.max_batch: 9999 cannot be taken: write 4096 or less"),
     ("rate", "fast", "'fast' is not a rate"),
     ("duration", "soon", "'soon' is not a duration"),
     ("duration", "0s", "a duration of '0s' is none"),
     ("rate", "0", "a rate of '0' asks for nothing"),
     ("p99", "100 ms", 'write it like "< 100 ms"'),
     ("policy", "best", "engine.policy: 'best' cannot be taken: write 'deadline'"),
     ("workers", "many", "--workers: 'many' is not a number"),
     ("more", "engine.max_batsh=3", "did you mean 'max_batch'?"),
     ("more", "hold", "is not key=value")],
)  # fmt: skip
def test_a_fault_is_told_beside_the_field_with_its_key(field: str, text: str, words: str) -> None:
    found = check(Draft("ramp", values={field: text, "slo": "90 ms"}))
    assert found.scenario is None
    assert list(found.faults) == [field]
    assert words in found.faults[field]
    assert "ramp.toml" not in found.faults[field]
    assert "line" not in found.faults[field].split(":")[0]


def test_what_is_wrong_only_together_is_a_fault_of_the_whole() -> None:
    found = check(Draft("steady", values={"policy": "fixed", "more": "engine.hold=false"}))
    assert found.faults == {}
    wrong = check(Draft("nothing"))
    assert "there is no scenario 'nothing'" in wrong.faults[""]


def test_where_there_is_no_rate_the_first_field_is_what_stands_for_it(tmp_path: Path) -> None:
    closed = tmp_path / "closed.toml"
    closed.write_text(CLOSED)
    found = check(Draft(str(closed), values={"rate": "12"}))
    assert found.fields[0].label == "in flight"
    assert found.present["rate"] == "3"
    assert found.scenario is not None
    assert found.scenario.spec.load.concurrency == 12


def test_present_values_are_those_of_the_scenario() -> None:
    found = check(Draft("ramp")).present
    assert found["rate"] == "20 … 300/s"
    assert found["duration"] == "1m 30s"
    assert found["p99"] == "< 100 ms"
    assert check(Draft("tour")).present["rate"] == "40 … 130 %"


def test_the_shape_is_the_one_that_the_command_draws() -> None:
    load = spec.load("ramp").spec.load
    lines = chart_lines(load, None, 80, 10)
    assert "\n".join(line.rstrip() for line in lines) in shape_text(load, None, 80, 10)
    assert chart_lines(spec.load("mlperf-single-stream").spec.load, None, 80, 10) == []


def test_files_are_listed_with_their_faults_in_place(tmp_path: Path) -> None:
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "own.toml").write_text('[load]\nphases = [{ rate = 5, for = "9s" }]\n')
    (tmp_path / "scenarios" / "mixed.toml").write_text("[target]\n\n[load]\nrampp = 3\n")
    (tmp_path / "cut.toml").write_text("[load]\nphases = [\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n')
    (tmp_path / "users.py").write_text("from locust import HttpUser\n")
    (tmp_path / "other.py").write_text("raise SystemExit(1)\n")
    found = {one.name: one for one in scenarios(tmp_path)}
    assert set(found) - set(spec.shipped()) == {
        "own.toml", "scenarios/mixed.toml", "cut.toml", "users.py",
    }  # fmt: skip
    assert found["own.toml"].text == "5/s for 9 s"
    assert found["scenarios/mixed.toml"].fault.startswith("line 4: unknown key 'load.rampp'")
    assert "cut.toml" not in found["cut.toml"].fault
    assert found["cut.toml"].fault
    assert found["users.py"].fault == ""
    assert found["users.py"].text == "1 user for as long as its file says"
    assert not any(found[name].fault for name in spec.shipped())


def test_a_locust_file_with_a_fault_of_syntax_cannot_be_run_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "users.py"
    path.write_text("from locust import HttpUser\n\nclass A(HttpUser)\n    pass\n")
    wrong = "line 3: SyntaxError: expected ':'"
    assert scenarios(tmp_path)[-1].fault == wrong
    assert check(Draft(str(path))).faults == {"": wrong}
    path.write_text("from locust import HttpUser\n\nescaped = '\\d'\nraise SystemExit(1)\n")
    with warnings.catch_warnings(action="error"):
        assert scenarios(tmp_path)[-1].fault == ""  # it is parsed and not run


def test_a_file_that_is_no_text_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "latin.toml").write_bytes(b'title = "gr\xfc"\n[load]\n')
    assert scenarios(tmp_path)[-1].fault == "byte 12 is not UTF-8: save it as UTF-8"


def test_targets_of_former_runs_come_newest_first(tmp_path: Path) -> None:
    for url in ("http://a:1", "local:mlp", "http://b:2", "http://a:1"):
        folder = runlog.create(tmp_path, "x")
        runlog.write_snapshot(folder, {"spec": {"target": {"url": url}}})
    runlog.create(tmp_path, "broken").joinpath(runlog.SNAPSHOT).write_text('{"spec": [')
    runlog.write_snapshot(runlog.create(tmp_path, "odd"), {"spec": {"target": "none"}})
    assert [(one.url, one.run) for one in used(tmp_path)] == [
        ("http://a:1", "0004-x"), ("http://b:2", "0003-x"), ("local:mlp", "0002-x"),
    ]  # fmt: skip
    assert used(tmp_path / "nowhere") == []


def test_the_editor_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", "code --wait")
    monkeypatch.setenv("EDITOR", "vi")
    assert editor.command() == ["code", "--wait"]
    monkeypatch.delenv("VISUAL")
    assert editor.command() == ["vi"]
    monkeypatch.delenv("EDITOR")
    monkeypatch.setenv("PATH", os.devnull)
    assert editor.command() == []
