"""Plugins before and after a model: whose code runs when, what clients see, who fails for it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from loadbench import spec
from loadbench.engine import open_model
from loadbench.engine.backends import Model
from loadbench.engine.plugins import surround
from loadbench.errors import LoadbenchError, SpecError
from loadbench.model import Tensor
from loadbench.spec import EngineSpec
from tests.batching import Gate
from tests.served import Engine, request_json, rows, serving, settings

ARITHMETIC = """
import numpy as np

def double(arrays):
    return {"x": arrays["x"] * 2}

def add(arrays, number=1):
    return {"x": arrays["x"] + number}

def same(arrays):
    return arrays

def negate(outputs):
    return {"y": -outputs["y"]}

def label(outputs, inputs):
    return {"label": np.where(outputs["y"].sum(1) > 0, "up", "down"),
            "sent": inputs["x"][:, :1], "y": outputs["y"]}

def mixes(outputs):
    return {"y": outputs["y"] - outputs["y"].mean(0)}

def drops(arrays):
    return {"x": arrays["x"][1:]} if len(arrays["x"]) > 4 else arrays

def forgets(arrays):
    return {"z": arrays["x"]}

def array(arrays):
    return arrays["x"]

def narrow(arrays):
    return {"x": arrays["x"][:, :3]}

def in_place(arrays):
    arrays["x"] += 1
    return arrays

def picky(arrays):
    if (arrays["x"] == 666).any():
        raise ValueError("the number of the beast")
    if (arrays["x"] == 13).any():
        raise KeyError("thirteen")
    return arrays

class Panic(BaseException):
    pass

def clumsy(outputs):
    if (outputs["y"] == 99).any():
        raise ValueError("of all things")
    if (outputs["y"] == 98).any():
        raise Panic("called `Option::unwrap()`")
    if (outputs["y"] == 97).any():
        return outputs | {"y": np.array([["text"]] * (len(outputs["y"]) - 1) + [[None]], object)}
    return outputs

def parsed(arrays):
    text = [json.loads(row[0]) for row in arrays["json"]]
    return {"x": np.array(text, np.float64)}      # the engine makes FP32 of it

import json
parsed.inputs = "json:BYTES:-1,1"
parsed.example = {"json": np.array([[json.dumps([0.5] * 16).encode()]], object)}

class Counter:
    def __init__(self, first=0):
        self.calls = first
        self.inputs = ["n:INT64:-1,1"]

    def __call__(self, arrays):
        self.calls += 1
        return {"x": np.repeat(arrays["n"], 16, axis=1) + self.calls * 0}

class Broken:
    def __init__(self, missing):
        pass

class Exits:
    def __init__(self):
        raise SystemExit(2)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module of plugins in it."""
    (tmp_path / "arithmetic.py").write_text(ARITHMETIC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "arithmetic", raising=False)
    return tmp_path


def fake(**more: Any) -> Model:
    return open_model("fake", fake={"a": "0 ms"}, **more).model


def run(model: Model, x: Any) -> np.ndarray[Any, Any]:
    return model.run({"x": np.asarray(x, np.float32)})["y"]


def test_they_run_by_priority_and_then_as_listed() -> None:
    x = rows(2)
    double, add = {"use": "arithmetic:double"}, {"use": "arithmetic:add"}
    first = fake(preprocess=[double, add, {**add, "options": {"number": 3}}])
    assert (run(first, x) == x * 2 + 4).all()
    parts: dict[str, list[int]] = first.parts  # type: ignore[attr-defined]
    assert list(parts)[1:3] == ["preprocess arithmetic:add", "preprocess arithmetic:add #3"]
    second = fake(preprocess=[{**double, "priority": 10}, add, {**add, "priority": -1}])
    assert (run(second, x) == (x + 2) * 2).all()
    after = fake(postprocess=["arithmetic:negate", "arithmetic:label"])
    found = after.run({"x": x + 1})
    assert found["label"].tolist() == [b"down", b"down"]
    assert (found["sent"] == x[:, :1] + 1).all()
    assert after.outputs == (
        Tensor("label", "BYTES", ()), Tensor("sent", "FP32", (1,)), Tensor("y", "FP32", (16,))
    )  # fmt: skip


def test_clients_see_what_is_before_the_first_and_after_the_last() -> None:
    texts = fake(preprocess="arithmetic:parsed")
    assert texts.inputs == (Tensor("json", "BYTES", (1,)),)
    given = np.array([[json.dumps([n] * 16).encode()] for n in range(3)], object)
    assert (texts.run({"json": given})["y"] == np.arange(3)[:, None]).all()
    counted = fake(preprocess=["arithmetic:Counter"])
    assert counted.inputs == (Tensor("n", "INT64", (1,)),)
    said = fake(preprocess=[{"use": "arithmetic:Counter", "inputs": ["n:INT32:-1,1"]}])
    assert said.inputs == (Tensor("n", "INT32", (1,)),)


def test_each_part_s_time_is_told() -> None:
    model = fake(preprocess=["arithmetic:double"], postprocess=["arithmetic:negate"])
    parts: dict[str, list[int]] = model.parts  # type: ignore[attr-defined]
    names = ["preprocess arithmetic:double", "model", "postprocess arithmetic:negate"]
    assert list(parts) == names
    before = [list(part) for part in parts.values()]
    for _ in range(3):
        run(model, rows(1))
    more = [(n - m, ns - ms) for (n, ns), (m, ms) in zip(parts.values(), before, strict=True)]
    assert [batches for batches, _ in more] == [3, 3, 3]
    assert all(ns > 0 for _, ns in more)


def test_what_no_plugin_touches_reaches_the_model_as_it_came() -> None:
    class Writes(Gate):
        def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            assert arrays["x"].flags.writeable
            return super().run(arrays)

    spec = EngineSpec(preprocess=("arithmetic:same",), postprocess=("arithmetic:same",))
    model = surround(Writes(), spec)
    assert (model.run({"x": rows(2)})["y"] == 2 * rows(2)).all()


def test_rows_that_a_plugin_mixes_are_not_batched() -> None:
    model = fake(postprocess=["arithmetic:mixes"])
    assert not model.batched
    assert "depends on the rows beside it" in model.notes[0].text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("forgets", r"preprocess arithmetic:forgets gives no 'x', only 'z'"),
        ("array", "preprocess arithmetic:array returned a ndarray, not a dict"),
        ("narrow", r"does not give what fake takes: input 'x' has shape \[1, 3\]"),
        ("in_place", "preprocess arithmetic:in_place: .*read-only"),
        ("absent", "arithmetic has no function 'absent'"),
        ("Broken", "arithmetic:Broken failed: TypeError"),
        ("Exits", "arithmetic:Exits failed: SystemExit: 2"),
    ],
)
def test_one_that_cannot_work_is_found_when_it_is_loaded(name: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        fake(preprocess=[f"arithmetic:{name}"])


def test_a_result_of_other_rows_names_the_plugin() -> None:
    model = fake(preprocess=["arithmetic:drops"])
    with pytest.raises(LoadbenchError, match=r"arithmetic:drops returned 'x' of shape \[4, 16\] "
                       "for 5 rows"):  # fmt: skip
        run(model, rows(5))


def test_a_setting_that_is_no_plugin_says_what_one_looks_like() -> None:
    with pytest.raises(SpecError, match=r"'prep' is not package.module:function, nor 'image'"):
        fake(preprocess=["prep"])


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "arithmetic.py").write_text(ARITHMETIC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        chosen = settings(
            'preprocess=["arithmetic:picky", {use="arithmetic:add", options={number=1}}]',
            'postprocess="arithmetic:clumsy"', "fake.a=20 ms", "max_batch=8", "cache=1 MB",
        )  # fmt: skip
        with serving("fake", *chosen) as found:
            yield found


def test_a_fault_reaches_only_those_concerned(engine: Engine) -> None:
    from concurrent.futures import ThreadPoolExecutor

    values = [1.0, 666.0, 2.0, 13.0, 3.0, 98.0, 4.0, 97.0, 96.0, 5.0]

    def ask(value: float) -> Any:
        return engine.call(
            "/v2/models/fake/infer", request_json(np.full((1, 16), value), id=f"n{value:g}")
        )

    with ThreadPoolExecutor(len(values)) as pool:
        answers = dict(zip(values, pool.map(ask, values), strict=True))
    for value in (1.0, 2.0, 3.0, 4.0, 5.0):
        assert answers[value].json["outputs"][0]["data"] == [value + 1] * 16
    told = {value: (answers[value].status, answers[value].json) for value in values}
    assert told[666.0] == (
        400, {"error": "preprocess arithmetic:picky: the number of the beast"}
    )  # fmt: skip
    assert told[13.0] == (
        500, {"error": "preprocess arithmetic:picky failed: KeyError: 'thirteen'"}
    )  # fmt: skip
    assert told[98.0] == (500, {"error": "postprocess arithmetic:clumsy: of all things"})
    assert told[97.0] == (
        500, {"error": "postprocess arithmetic:clumsy failed: Panic: called `Option::unwrap()`"}
    )  # fmt: skip
    assert told[96.0] == (500, {"error": "output 'y' is object, not texts"})
    parts = engine.stats()["loadbench"]["parts"]
    assert next(iter(parts)) == "preprocess arithmetic:picky"
    assert parts["model"][1] >= 20e6 * parts["model"][0]
    assert engine.stats()["inference_stats"]["fail"]["count"] == 5


def test_a_scenario_s_plugins_need_trust_and_one_s_own_do_not(here: Path) -> None:
    text = '[load]\nphases = [{rate = 1, for = "1s"}]\n[target]\nurl = "local:fake"\n[engine]\n'
    path = here / "mine.toml"
    path.write_text(text + 'preprocess = ["arithmetic:double"]\n')
    assert spec.load(str(path)).code == "engine.preprocess = ['arithmetic:double']"
    assert not spec.load(str(path), {"engine.preprocess": "arithmetic:add"}).code
    path.write_text(text + 'factory = "arithmetic:double"\n')
    assert "factory" in spec.load(str(path)).code
    path.write_text(text + 'preprocess = ["image"]\n')  # comes with loadbench
    assert not spec.load(str(path)).code


def test_a_run_of_such_a_scenario_is_refused(here: Path) -> None:
    from loadbench.runner import Options, Run

    path = here / "theirs.toml"
    path.write_text(
        '[load]\nphases = [{rate = 1, for = "1s"}]\n[target]\nurl = "local:fake"\n'
        '[engine]\npostprocess = ["arithmetic:negate"]\n'
    )
    options = Options(results=here / "results", name="", command=())
    with pytest.raises(SpecError, match=r"has the engine run code: engine\.postprocess") as error:
        Run(spec.load(str(path)), options, lambda _: None).execute()
    assert "--trust" in error.value.hint
