"""What `loadbench doctor` says of the machine."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from loadbench import ready, runlog, spec
from tests.ended import finished
from tests.running import loadbench


def subjects(findings: list[ready.Finding]) -> dict[str, ready.Finding]:
    return {finding.subject: finding for finding in findings}


def test_this_machine_can_make_a_run(tmp_path: Path) -> None:
    found = subjects(ready.check(results=tmp_path / "new" / "results"))
    assert {"gpu", "cores", "timer", "load", "port", "results", "files"} <= set(found)
    assert not [finding for finding in found.values() if finding.sign == "✗"]
    assert not (tmp_path / "new").exists()  # looking leaves nothing behind


def test_the_load_average_is_not_called_a_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for average, words in (
        (4.78, "the machine is busy: load average 4.78 on 2 cores"),
        (0.5, "the machine is quiet: load average 0.500 on 2 cores"),
    ):
        monkeypatch.setattr(os, "getloadavg", lambda average=average: (average, 0.0, 0.0))
        assert subjects(ready.check(results=tmp_path))["load"].text.startswith(words)


def test_results_that_cannot_be_written_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = subjects(ready.check(results=tmp_path / "file" / "results"))
    assert found["results"].sign == "✗"


def test_a_rate_beyond_one_process_is_told(tmp_path: Path) -> None:
    scenario = spec.load("steady", rate="500k/s")
    texts = [finding.text for finding in ready.check(scenario, tmp_path)]
    assert any("may not reach it" in text for text in texts)
    modest = spec.load("steady")
    assert not any("may not reach it" in f.text for f in ready.check(modest, tmp_path))


def test_a_scenario_that_cannot_be_run_here_is_told_before(tmp_path: Path) -> None:
    down = spec.load("steady", {"target.url": "http://127.0.0.1:9"})
    assert subjects(ready.check(down, tmp_path))["target"].sign == "✗"
    code = spec.load("steady")._replace(code='engine.factory = "own:make"')
    assert subjects(ready.check(code, tmp_path))["trust"].sign == "✗"
    assert "trust" not in subjects(ready.check(code, tmp_path, trust=True))


def test_another_run_that_goes_on_is_a_doubt(tmp_path: Path) -> None:
    folder = runlog.create(tmp_path, "other")
    runlog.write_snapshot(folder, {"state": "running", "pid": os.getpid()})
    found = subjects(ready.check(results=tmp_path))
    assert found["other-run"].sign == "▲"
    assert "0001-other" in found["other-run"].text
    runlog.write_snapshot(folder, {"state": "done", "pid": os.getpid()})
    assert "other-run" not in subjects(ready.check(results=tmp_path))


def doctor(*arguments: str, cwd: Path, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        loadbench("doctor", "--json", *arguments, cwd=cwd, code=code).stdout
    )
    return found


def test_the_doctor_tells_what_could_be_served(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "good.onnx").write_bytes(b"\x08\x08" + bytes(100))
    (tmp_path / "bad.pt").write_text("version https://git-lfs.github.com/spec/v1")
    (tmp_path / "stages.toml").write_text('[[stage]]\nmodel = "mlp"\n')
    (tmp_path / "other.toml").write_text("[load]\n")
    models = {model["url"]: model for model in doctor(cwd=tmp_path)["models"]}
    assert {"local:mlp", "local:resnet-tiny", "local:encoder", "local:fake"} < set(models)
    assert models["local:models/good.onnx"]["text"] == "an ONNX model"
    assert "Git LFS pointer" in models["local:bad.pt"]["fault"]
    assert models["local:stages.toml"]["text"] == "a pipeline of models"
    assert "local:other.toml" not in models


def test_the_doctor_looks_at_a_scenario_as_it_would_be_run(tmp_path: Path) -> None:
    def said(*arguments: str, code: int = 0) -> dict[str, str]:
        found = doctor("steady", *arguments, cwd=tmp_path, code=code)["findings"]
        return {finding["subject"]: finding["sign"] + finding["text"] for finding in found}

    assert said()["model"] == "✓local:mlp is there"
    assert said("--target", "local:gone.onnx", code=1)["model"].startswith("✗there is no model")
    assert "may not reach it" in said("--rate", "500000")["cores"]
    assert said("--set", "engine.device=cuda:99", code=1)["gpu"].startswith("✗")
    done = loadbench("doctor", "mlp", "--rate", "5", cwd=tmp_path, code=2)
    assert "mlp is no scenario" in done.stderr


def test_the_doctor_looks_whether_a_run_can_be_held_against_a_baseline(tmp_path: Path) -> None:
    folder = finished(tmp_path / "results", "one", 20.0)
    for name, said in (
        ("99", "✗ there is no run '99'"),
        (folder.name, f"✗ {folder.name} did different work"),
        ("baseline", "✗ there is no baseline 'steady'"),
    ):
        found = loadbench("doctor", "steady", "--baseline", name, cwd=tmp_path, code=1)
        assert said in found.stdout
    found = loadbench("doctor", "mlp", "--baseline", "99", cwd=tmp_path, code=2)
    assert "mlp is no scenario" in found.stderr
