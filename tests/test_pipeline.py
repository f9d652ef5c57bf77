"""Pipelines: models one after the other, served as one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from loadbench.engine import open_model
from loadbench.engine.pipeline import Pipeline, Stage
from loadbench.engine.place import bucket_sizes
from loadbench.errors import LoadbenchError, SpecError
from loadbench.model import Tensor
from loadbench.spec import EngineSpec
from tests.batching import Gate
from tests.served import Engine, serving, settings

F32, I64, F64 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.DOUBLE


def onnx(path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    """A model; inputs and outputs as {name: (type, dims)}."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g",
        [info(name, *kind) for name, kind in inputs.items()],
        [info(name, *kind) for name, kind in outputs.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    path.write_bytes(proto.SerializeToString())


def write(folder: Path, text: str, name: str = "both.toml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize(
    ("recorded", "found"),
    [
        (([1, 2, 4, 8], [1, 2, 3, 4]), (1, 2, 4)),
        (([1, 2, 4, 8], None), (1, 2, 4, 8)),
        (([1, 8], [2]), ()),
        ((None, None), ()),
    ],
)
def test_batches_are_padded_to_sizes_for_which_all_stages_have_graphs(
    recorded: tuple[list[int] | None, list[int] | None], found: tuple[int, ...]
) -> None:
    stages = []
    for number, sizes in enumerate(recorded):
        model = Gate()
        if sizes is not None:
            model.metadata["buckets"] = sizes
        stages.append(Stage(f"s{number}", model, {"x": f"v{number}"}, {"y": f"v{number + 1}"}))
    assert bucket_sizes(Pipeline("both", "1", stages), EngineSpec()) == found


@pytest.mark.parametrize(("most", "found"), [(16, (8, 16)), (20, (8, 16)), (4, ())])
def test_batches_are_padded_to_no_more_rows_than_every_stage_takes(
    most: int, found: tuple[int, ...]
) -> None:
    recorded, bounded = Gate(), Gate()
    recorded.metadata["buckets"] = [8, 16, 32]
    bounded.max_batch = most
    stages = [
        Stage("recorded", recorded, {"x": "x"}, {"y": "y"}),
        Stage("bounded", bounded, {"x": "y"}, {"y": "z"}),
    ]
    assert bucket_sizes(Pipeline("both", "1", stages), EngineSpec()) == found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models: `features` x → double, total; `head` (h, bias) → best, score; `text`; `alone`."""
    path = tmp_path_factory.mktemp("models")
    node = helper.make_node
    three, one = (F32, ["b", 3]), (F32, ["b", 1])
    onnx(
        path / "features.onnx",
        [node("Add", ["x", "x"], ["double"]), node("ReduceSum", ["x"], ["sum"], keepdims=1),
         node("Identity", ["x"], ["same"])],
        {"x": three}, {"double": three, "same": three},
    )  # fmt: skip
    onnx(
        path / "head.onnx",
        [node("Add", ["h", "bias"], ["score"]), node("ArgMax", ["score"], ["best"], axis=1)],
        {"h": three, "bias": one}, {"best": (I64, ["b", 1]), "score": three},
    )  # fmt: skip
    onnx(path / "exact.onnx", [node("Neg", ["best"], ["minus"])],
         {"best": (F64, ["b", 1])}, {"minus": (F64, ["b", 1])})  # fmt: skip
    onnx(path / "wide.onnx", [node("Neg", ["double"], ["z"])],
         {"double": (F32, ["b", 4])}, {"z": (F32, ["b", 4])})  # fmt: skip
    onnx(path / "text.onnx", [node("Identity", ["double"], ["z"])],
         {"double": (TensorProto.STRING, ["b", 3])},
         {"z": (TensorProto.STRING, ["b", 3])})  # fmt: skip
    onnx(path / "alone.onnx", [node("Neg", ["double"], ["z"])],
         {"double": (F32, [1, 3])}, {"z": (F32, [1, 3])})  # fmt: skip
    onnx(path / "picky.onnx", [node("Gather", ["table", "best"], ["y"])],
         {"best": (I64, ["b", 1])}, {"y": (F32, ["b", 1])})  # fmt: skip
    return path


FEATURES = '[[stage]]\nmodel = "features.onnx"\n'
HEAD = '[[stage]]\nmodel = "head.onnx"\ntake = {h = "double"}\n'
BOTH = 'inputs = ["bias"]\n' + FEATURES + HEAD

X = np.array([[1, 5, 2], [7, 0, 1]], np.float32)
BIAS = np.array([[10], [20]], np.float32)


def test_values_go_from_stage_to_stage_by_name(folder: Path) -> None:
    model = open_model(write(folder, BOTH))
    assert model.model.inputs == (Tensor("x", "FP32", (3,)), Tensor("bias", "FP32", (1,)))
    assert model.model.outputs == (Tensor("best", "INT64", (1,)), Tensor("score", "FP32", (3,)))
    assert (model.model.name, model.model.batched) == ("both", True)
    found = model.run({"x": X, "bias": BIAS})
    assert found["best"].tolist() == [[1], [0]]
    assert (found["score"] == 2 * X + BIAS).all()


def test_any_stage_s_values_can_be_the_outputs_under_other_names(folder: Path) -> None:
    text = (
        'version = 7\ninputs = ["bias"]\noutputs = ["class", "features"]\n'
        '[[stage]]\nmodel = "features.onnx"\ngive = {double = "features"}\n'
        '[[stage]]\nmodel = "head.onnx"\ntake = {h = "features"}\ngive = {best = "class"}\n'
    )
    model = open_model(write(folder, text, "named.toml"))
    assert (model.model.name, model.model.version) == ("named", "7")
    found = model.run((X, BIAS))
    assert list(found) == ["class", "features"]
    assert (found["features"] == 2 * X).all()


def test_numbers_are_brought_to_the_type_of_the_next_stage(folder: Path) -> None:
    model = open_model(write(folder, BOTH + '[[stage]]\nmodel = "exact.onnx"\n'))
    assert model.run((X, BIAS))["minus"].tolist() == [[-1.0], [0.0]]


def test_a_stage_may_have_plugins_of_its_own_with_trust(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "between.py").write_text(
        'def flip(outputs):\n    return {**outputs, "double": outputs["double"][:, ::-1]}\n'
    )
    monkeypatch.syspath_prepend(str(folder))
    text = BOTH.replace('features.onnx"\n', 'features.onnx"\npostprocess = "between:flip"\n')
    path = write(folder, text, "flipped.toml")
    with pytest.raises(SpecError, match=r"stage 1 has code run: engine.postprocess") as error:
        open_model(path)
    assert "--trust" in error.value.hint
    model = open_model(path, trust=True)
    assert model.run((X, BIAS))["best"].tolist() == [[1], [2]]
    parts: dict[str, list[int]] = model.model.parts  # type: ignore[attr-defined]
    assert list(parts) == [
        "stage features", "features: model", "features: postprocess between:flip", "stage head",
    ]  # fmt: skip
    whole, inner = parts["stage features"][:], parts["features: model"][:]
    model.run((X, BIAS))
    parts = model.model.parts  # type: ignore[attr-defined]
    took = parts["stage features"][1] - whole[1]
    assert parts["stage features"][0] == whole[0] + 1
    assert took > parts["features: model"][1] - inner[1] > 0


def test_plugins_may_surround_a_pipeline_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "around_all.py").write_text("def best(outputs):\n    return {'b': outputs['best']}\n")
    monkeypatch.syspath_prepend(str(folder))
    model = open_model(write(folder, BOTH), postprocess="around_all:best")
    assert model.run((X, BIAS))["b"].tolist() == [[1], [0]]
    parts: dict[str, list[int]] = model.model.parts  # type: ignore[attr-defined]
    assert list(parts) == [
        "model", "postprocess around_all:best", "stage features", "stage head",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'stage' is missing"),
        ('[[stage]]\ntake = {a = "b"}\n', "'stage.0.model' is missing"),
        ("stage = 1", "stage"),
        (FEATURES + HEAD, "nothing gives 'bias' to head"),
        ('inputs = ["bias", "more"]\n' + FEATURES + HEAD, "no stage takes the input 'more'"),
        ('outputs = ["nope"]\n' + BOTH, "no stage gives 'nope'"),
        ('outputs = ["x"]\n' + FEATURES, "no stage gives 'x'"),
        (FEATURES + 'take = {y = "x"}\n', "features has no input 'y'"),
        (FEATURES + 'give = {y = "x"}\n', "features has no output 'y'"),
        (FEATURES + 'give = {double = "same"}\n', "two outputs of features have one name"),
        (FEATURES + '[[stage]]\nmodel = "wide.onnx"\n',
         r"wide takes 'double' as FP32 \[4\], but 'double' is FP32 \[3\]"),
        (FEATURES + '[[stage]]\nmodel = "text.onnx"\n',
         r"text takes 'double' as BYTES \[3\], but 'double' is FP32 \[3\]"),
        (FEATURES + '[[stage]]\nmodel = "alone.onnx"\n', "alone"),
        (FEATURES + "max_batch = 8\n", "max_batch is not a stage's to say"),
        (FEATURES + "color = 8\n", "unknown key 'color'"),
        ('[[stage]]\nmodel = "both.toml"\n', "is a pipeline itself"),
        ('[[stage]]\nmodel = "../a.onnx"\n', r"\.\./a\.onnx lies outside the folder"),
        ('[[stage]]\nmodel = "/a.onnx"\n', "outside the folder"),
        ('[[stage]]\nmodel = "gone.onnx"\n', "no such model file"),
        ('[[stage]]\nmodel = "mpl"\n', "there is no model 'mpl'"),
        (FEATURES + 'libraries = "libops.so"\n', "has code run: engine.libraries"),
        ("[[stage", "Expected ']]'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_found_when_it_is_loaded(
    folder: Path, text: str, words: str
) -> None:
    path = write(folder, text, "wrong.toml")
    with pytest.raises(SpecError, match=words) as error:
        open_model(path)
    assert "wrong.toml" in error.value.message


def test_settings_of_a_file_belong_to_a_stage(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"engine.inputs belongs to one of its stages"):
        open_model(write(folder, BOTH), inputs=["x:FP32:-1,3"])


def test_a_fault_names_the_stage(folder: Path) -> None:
    node = helper.make_node
    onnx(
        folder / "picky.onnx",
        [node("Constant", [], ["table"], value=helper.make_tensor("t", F32, [2], [3.0, 4.0])),
         node("Gather", ["table", "best"], ["y"])],
        {"best": (I64, ["b", 1])}, {"y": (F32, ["b", 1])},
    )  # fmt: skip
    model = open_model(write(folder, BOTH + '[[stage]]\nmodel = "picky.onnx"\n', "third.toml"))
    assert model.run((X, BIAS))["y"].tolist() == [[4.0], [3.0]]
    with pytest.raises(LoadbenchError, match="stage picky: the model refuses this input"):
        model.run((X[:, [0, 2, 1]], BIAS))


def staged(second: Gate, take: str) -> Pipeline:
    """`first` doubles x into y, the second takes one of them."""
    first = Gate()
    first.inputs = (Tensor("x", "INT64", (-1,)),)
    stages = [
        Stage("first", first, {"x": "x"}, {"y": "y"}),
        Stage("second", second, {"x": take}, {"y": "z"}),
    ]
    return Pipeline("both", "1", stages)


@pytest.mark.parametrize(("take", "client"), [("x", True), ("y", False)])
def test_a_value_that_does_not_fit_is_the_client_s_fault_only_if_the_client_sent_it(
    take: str, client: bool
) -> None:
    small = Gate()
    small.inputs = (Tensor("x", "INT8", (-1,)),)
    pipeline = staged(small, take)
    pipeline.run({"x": np.array([[7]])})
    with pytest.raises(LoadbenchError, match="stage second: input 'x' is int64") as error:
        pipeline.run({"x": np.array([[200]])})
    assert isinstance(error.value, SpecError) == client


class Panic(BaseException):
    """As Rust's in Python: no Exception."""


@pytest.mark.parametrize(
    ("raised", "seen", "words"),
    [
        (Panic("gone"), LoadbenchError, "stage second failed: Panic: gone"),
        (ValueError("gone"), LoadbenchError, "stage second failed: ValueError: gone"),
        (MemoryError("gone"), MemoryError, "^gone"),
        (KeyboardInterrupt("gone"), KeyboardInterrupt, "^gone"),
    ],
)
def test_whatever_a_stage_raises_names_it(
    raised: BaseException, seen: type[BaseException], words: str
) -> None:
    class Raising(Gate):
        def run(self, arrays: Any) -> Any:
            raise raised

    with pytest.raises(seen, match=words):
        staged(Raising(), "y").run({"x": np.array([[7]])})


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with serving(write(folder, BOTH, "served.toml"), *settings("max_batch=8")) as found:
        yield found


def test_it_is_served_like_any_model(engine: Engine) -> None:
    told = engine.call("/v2/models/served").json
    assert told["platform"] == "ensemble"
    assert [found["name"] for found in told["inputs"]] == ["x", "bias"]
    body = {
        "inputs": [
            {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": X.tolist()},
            {"name": "bias", "shape": [2, 1], "datatype": "FP32", "data": BIAS.tolist()},
        ],
        "outputs": [{"name": "score"}, {"name": "best"}],
    }
    answer = engine.call("/v2/models/served/infer", body)
    score, best = answer.json["outputs"]
    assert (score["name"], score["data"]) == ("score", (2 * X + BIAS).ravel().tolist())
    assert (best["name"], best["data"]) == ("best", [1, 0])
    parts = engine.stats("served")["loadbench"]["parts"]
    assert list(parts) == ["stage features", "stage head"]
    assert all(batches >= 1 and ns > 0 for batches, ns in parts.values())
