"""What files hold decides the work: other contents under the same names are other work."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadbench import inputfiles, runlog
from loadbench.inputfiles import digests, of_model
from loadbench.judge.differences import work
from loadbench.spec import Spec, check
from tests.ended import finished
from tests.foreign import said
from tests.running import loadbench
from tests.shelf import adding

TEXT = {
    "times.csv": "0\n0.5\n1\n",
    "x.npy": "anything",
    "y.npy": "else",
    "dims.txt": "3\n4\n",
    "shape.txt": "3\n4\n",
    "values.txt": "3\n4\n",
    "words.txt": "3\n4\n",
    "most.txt": "3\n4\n",
    "long.txt": "3\n4\n",
}


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spec:
    monkeypatch.chdir(tmp_path)
    for name, text in TEXT.items():
        Path(name).write_text(text)
    request: dict[str, Any] = {
        "name": "a", "data": "x.npy", "expect": "y.npy", "dims": {"d": "file(dims.txt)"},
        "shapes": {"x": ["d", "file('shape.txt') clipped 1..9"]}, "words": "file(words.txt)",
        "values": {"x": "file( values.txt )"}, "max_tokens": "file(most.txt)",
        "sequence": "file(long.txt)",
    }  # fmt: skip
    load = {"arrivals": "trace", "trace": "times.csv"}
    return check({"load": load, "request": [request, {"name": "b"}]}, "own.toml")


@pytest.mark.parametrize("changed", TEXT)
def test_each_file_that_decides_the_work_is_known_by_what_it_holds(
    spec: Spec, changed: str
) -> None:
    before = digests(spec)
    assert set(before) == set(TEXT)
    assert digests(spec) == before
    Path(changed).write_text(TEXT[changed].replace("n", "m").replace("3", "2") + " ")
    after = digests(spec)
    assert {name for name in TEXT if before[name] != after[name]} == {changed}
    (found,) = work({"files": before}, {"files": after})
    assert (found.key, found.a, found.b) == (f"files.{changed}", before[changed], after[changed])


def test_of_a_folder_names_and_contents_count_and_hidden_files_do_not(
    spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("images").mkdir()
    Path("images/a.png").write_bytes(b"a" * 100)
    request = spec.request[0].model_copy(update={"data": "images"})
    spec = spec.model_copy(update={"request": (request,)})
    known = [digests(spec)["images"]]
    Path("images/.hidden").write_text("x")
    assert digests(spec)["images"] == known[0]
    for change in (
        lambda: Path("images/a.png").write_bytes(b"b" * 100),
        lambda: Path("images/a.png").rename("images/b.png"),
        lambda: Path("images/c.png").write_bytes(b"c"),
        lambda: monkeypatch.setattr(inputfiles, "_MOST", 50),  # of the rest the size counts
        lambda: Path("images/c.png").write_bytes(b"cc"),
    ):
        change()
        found = digests(spec)["images"]
        assert found not in known
        known.append(found)
    Path("images/c.png").write_bytes(b"dd")
    assert digests(spec)["images"] == known[-1]


def test_files_that_rows_name_count_too(spec: Spec) -> None:
    Path("table.csv").write_text("image\na.png\nb.png\n")
    for name in ("a.png", "b.png"):
        Path(name).write_bytes(b"a")
    request = {"name": "a", "data": "table.csv", "form": {"file": "${image|file}"}}
    spec = check({"load": {"phases": [{"rate": 1, "for": "1s"}]}, "request": [request]}, "own.toml")
    before = digests(spec)
    assert set(before) == {"table.csv", "files of table.csv"}
    Path("b.png").write_bytes(b"b")
    after = digests(spec)
    assert {name for name in before if before[name] != after[name]} == {"files of table.csv"}
    Path("b.png").unlink()
    assert set(digests(spec)) == {"table.csv"}


def test_what_cannot_be_read_is_left_to_who_reads_it(spec: Spec) -> None:
    Path("x.npy").unlink()
    assert set(digests(spec)) == {*TEXT} - {"x.npy"}


def test_snapshots_of_older_versions_are_compared_as_they_were() -> None:
    assert work({}, {"files": {"x.npy": "a"}}) == []
    assert work({"files": {}}, {"files": {"x.npy": "a"}})


def test_another_file_under_the_same_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for digest in ("aa", "bb"):
        folder = finished(tmp_path, "steady", 50.0)
        runlog.write_snapshot(folder, {**runlog.read_snapshot(folder), "files": {"x.npy": digest}})
    code, _, err = said(["compare", "1", "2", "--out", str(tmp_path)], capsys)
    assert code == 2
    assert "different work (files.x.npy)" in err


@pytest.mark.long
def test_a_run_keeps_the_digests_and_a_gate_looks_at_them(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[target]\nurl = "local:fake"\n[load]\narrivals = "trace"\ntrace = "times.csv"\n'
        'warmup = "0s"\n[[request]]\nname = "known"\ndata = "x.npy"\n'
    )
    times = tmp_path / "times.csv"
    times.write_text("".join(f"{n / 50}\n" for n in range(60)))
    np.save(tmp_path / "x.npy", np.zeros((4, 16), np.float32))
    loadbench("run", "own.toml", cwd=tmp_path, code=None)
    loadbench("run", "own.toml", "--repeats", "2", cwd=tmp_path, code=None)
    one, series = (runlog.read_snapshot(path) for path in runlog.runs(tmp_path / "results"))
    assert set(one["files"]) == {"times.csv", "x.npy"}
    assert series["files"] == one["files"]
    np.save(tmp_path / "x.npy", np.ones((4, 16), np.float32))
    refused = loadbench("run", "own.toml", "--baseline", "1", cwd=tmp_path, code=2)
    assert "did different work: files.x.npy was" in refused.stderr


@pytest.mark.long
def test_another_model_under_the_same_name_is_a_setting_that_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.toml").write_text(
        '[target]\nurl = "local:adder.onnx"\n[load]\nwarmup = "0s"\n'
        'phases = [{ rate = 50, for = "1s" }]\n'
    )
    for number in (1.0, 1.0, 2.0):
        adding(Path("adder.onnx"), number)
        loadbench("run", "own.toml", cwd=tmp_path, code=None)
    assert "target.file" not in loadbench("compare", "1", "2", cwd=tmp_path).stdout
    assert "target.file: " in loadbench("compare", "1", "3", cwd=tmp_path).stdout


@pytest.mark.parametrize("data", ["model.onnx.data", "model.onnx_data", "model.onnx_data_1"])
def test_weights_beside_an_onnx_model_are_part_of_it(tmp_path: Path, data: str) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"graph")
    (tmp_path / "model.onnx.notes").write_text("nothing of the model")
    url = f"local:{model}"
    alone = of_model(url)
    (tmp_path / data).write_bytes(b"weights")
    (tmp_path / "other.onnx.data").write_bytes(b"of another")
    first = of_model(url)
    (tmp_path / data).write_bytes(b"trained")
    assert len({found["file"] for found in (alone, first, of_model(url))}) == 3
    (tmp_path / data).unlink()
    assert of_model(url) == alone


def test_a_model_in_a_folder_that_cannot_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"graph")
    alone = of_model(f"local:{model}")

    def refused(_: Path) -> Iterator[Path]:
        raise PermissionError(13, "permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    assert of_model(f"local:{model}") == alone


@pytest.mark.parametrize("url", ["local:mlp", "local:fake", "http://a:1", "local:none.onnx", ""])
def test_only_files_of_models_have_a_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mlp").mkdir()  # a folder that is called as a model of the zoo
    assert of_model(url) == {}


def test_the_schema_that_answers_are_to_fit_is_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = {"name": "a", "expect": {"schema": "answer.json"}}
    load = {"phases": [{"rate": 1, "for": "1s"}]}
    asked = check({"load": load, "request": [request]}, "own.toml")
    seen = set()
    for text in ("{}", '{"type": "object"}'):
        Path("answer.json").write_text(text)
        seen.add(digests(asked)["answer.json"])
    assert len(seen) == 2
