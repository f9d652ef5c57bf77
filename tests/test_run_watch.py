"""What an engine finds out only at its end reaches the run that started it."""

import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from loadbench import runlog
from tests.running import LOADBENCH, loadbench, scenario, summary

pytestmark = pytest.mark.long


def recording(folder: Path, path: str) -> Path:
    return scenario(folder, tables=f'[engine.watch]\nrecord = "{path}"')


def test_a_sample_is_written_at_the_end_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "scenarios").mkdir()
    own = recording(tmp_path / "scenarios", "reference.npz")  # from the current folder, not there
    summary(own, cwd=tmp_path)
    with np.load(tmp_path / "reference.npz") as found:
        assert found["input x"].shape[1:] == (16,)
        assert len(found["input x"]) >= 400
    drift = ("--set", "engine.watch.drift=reference.npz", "--set", "engine.watch.record=")
    other = ("--set", 'engine.fake={a = "2 ms", width = 8}')
    assert "drift" not in codes(summary(own, *drift, cwd=tmp_path))
    assert "drift" in codes(summary(own, *drift, *other, cwd=tmp_path))


def test_what_comes_up_at_the_end_is_noted(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    own = recording(tmp_path, "gone/reference.npz")
    command = [*LOADBENCH, "run", str(own), "--on-no-verdict", "warn"]
    with subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE) as process:
        end = time.monotonic() + 60
        while not list(tmp_path.glob(f"results/*/{runlog.LOG}")):
            assert time.monotonic() < end, "the run never began"
            time.sleep(0.1)
        (tmp_path / "gone").rmdir()
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert out.count("cannot write gone/reference.npz: No such file or directory") == 1


def test_a_sample_that_has_no_place_is_refused_at_once(tmp_path: Path) -> None:
    setting = "engine.watch.record=none/reference.npz"
    done = loadbench("run", scenario(tmp_path), "--set", setting, cwd=tmp_path, code=2)
    assert "engine.watch.record: cannot write none/reference.npz" in done.stderr
    (tmp_path / "notes.txt").write_text("mine")
    setting = "engine.watch.record=notes.txt"
    done = loadbench("serve", "fake", "--set", setting, cwd=tmp_path, code=2)
    assert "notes.txt is there, and is something else" in done.stderr
    setting = "engine.watch.record=reference.npz"
    done = loadbench("serve", "fake", "b=fake", "--set", setting, cwd=tmp_path, code=2)
    assert "for one model, not for 2" in done.stderr


def codes(found: dict[str, object]) -> list[str]:
    notes = found["notes"]
    assert isinstance(notes, list)
    return [note["code"] for note in notes]
