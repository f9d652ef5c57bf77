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


@pytest.mark.parametrize(
    ("url", "cores", "rate", "text"),
    [
        ("local:mlp", 2, "50000/s", "2 CPU cores, shared with the engine: load generator may not"),
        ("local:mlp", 1, "20000/s", "1 CPU core, shared with the engine: load generator may not"),
        ("local:mlp", 8, "500k/s", "8 CPU cores: load generator may not reach 500,000/s"),
        ("http://127.0.0.1:9", 2, "50000/s", "2 CPU cores, shared with the target: load generator"),
        (
            "http://LOCALHOST.:9",
            2,
            "50000/s",
            "2 CPU cores, shared with the target: load generator",
        ),
        ("http://127.models.example:9", 2, "50000/s", ""),
        ("http://10.0.0.9:9", 2, "60000/s", "2 CPU cores: load generator may not reach 60,000/s"),
        ("http://10.0.0.9:9", 2, "50000/s", ""),
        ("local:mlp", 8, "50000/s", ""),
        ("local:mlp", 2, "1200/s", ""),
    ],
)
def test_a_rate_beyond_what_this_machine_sends_is_told(
    url: str, cores: int, rate: str, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ready, "versions", lambda _: {"usable_cores": str(cores)})
    monkeypatch.setattr(ready, "_scenario", lambda *_: ())  # nobody is asked
    found = subjects(ready.check(spec.load("steady", {"target.url": url}, rate=rate), tmp_path))
    assert found["cores"].text.startswith(text or f"{cores} CPU cores")
    assert found["cores"].sign == ("▲" if text else "✓")


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
    assert "may not reach 500,000/s" in said("--rate", "500000")["cores"]
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
