"""What people hand over as inputs: rows without a batch axis, lists, other types, images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from loadbench.engine import open_model
from loadbench.engine.inputs import cast, prepare
from loadbench.errors import SpecError
from loadbench.model import Tensor
from tests.batching import Gate
from tests.served import request_json, rows, serving, settings

F32 = TensorProto.FLOAT


class Two(Gate):
    inputs: tuple[Tensor, ...] = (Tensor("a", "FP32", (2,)), Tensor("b", "INT32", ()))


X = np.arange(16, dtype=np.float32)


@pytest.mark.parametrize(
    "given",
    [
        X, X[None], list(range(16)), [list(range(16))], X.astype(np.uint8), X.astype(np.float64),
        {"x": X}, (X,), [np.float32(n) for n in range(16)],
    ],
)  # fmt: skip
def test_one_row_in_every_form(given: Any) -> None:
    found = open_model("fake", fake={"a": "0 ms"}).run(given)["y"]
    assert found.dtype == np.float32
    assert found.shape == (1, 16)
    assert (found == X).all()


def test_nothing_is_an_example_row_and_many_rows_are_many() -> None:
    model = open_model("fake", fake={"a": "0 ms"})
    assert model.run()["y"].shape == (1, 16)
    assert model.run([X, X])["y"].shape == (2, 16)


def test_several_inputs_by_name_or_in_order() -> None:
    model = Two()
    for given in ({"b": 7, "a": [1, 2]}, ([1, 2], 7), {"a": [[1, 2]], "b": [7]}):
        found = prepare(given, model)
        assert {name: array.tolist() for name, array in found.items()} == {"a": [[1, 2]], "b": [7]}
        assert {name: array.dtype for name, array in found.items()} == {"a": "f4", "b": "i4"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([1, 2], "gate has 2 inputs: a, b"),
        ({"a": [1, 2]}, "missing b"),
        ({"a": [1, 2], "b": 1, "c": 1}, "not expected c"),
        ({"a": [1, 2, 3], "b": 1}, r"'a' has shape \[1, 3\], the model takes \[-1, 2\]"),
        ({"a": [[1, 2]] * 2, "b": [1]}, "differ in rows: a has 2, b has 1"),
        ({"a": [1, 2], "b": 1.5}, "'b' is float64, which does not fit into INT32"),
        ({"a": [1, 2], "b": 1 << 40}, "does not fit into INT32"),
        ({"a": [[1], [1, 2]], "b": 1}, "rows of different lengths"),
        ({"a": ["1", "2"], "b": 1}, "does not fit into FP32"),
        ({"a": [True, False], "b": 1}, "'a' is bool"),
        ({"a": np.zeros((0, 2)), "b": []}, r"shape \[0, 2\]"),
    ],
)
def test_what_does_not_fit_says_what_is_wanted(given: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        prepare(given, Two())


def test_types_are_changed_only_where_nothing_is_lost() -> None:
    assert cast("x", np.array([1.0, -2.0]), "BF16").tolist() == [0x3F80, 0xC000]
    bits = np.array([0x3F80], np.uint16)
    assert cast("x", bits, "BF16") is bits
    assert cast("x", np.array(["a", "é"]), "BYTES").tolist() == [b"a", "é".encode()]
    assert cast("x", np.array([True]), "BOOL").tolist() == [True]
    for value, datatype in ((1, "BOOL"), (-1, "UINT8"), (2.0, "INT64"), (1, "BYTES")):
        with pytest.raises(SpecError):
            cast("x", np.array([value]), datatype)


def picture(path: Path, **metadata: str) -> str:
    """A model that gives its picture back, channels first."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["p"], ["q"])],
        "g",
        [info("p", F32, ["b", 3, 4, 5])],
        [info("q", F32, ["b", 3, 4, 5])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(proto, metadata)
    path.write_bytes(proto.SerializeToString())
    return str(path)


MEAN, STD = [0.5, 0.25, 0.0], [0.5, 1.0, 2.0]
PARAMS = '{"image_mean": [0.5, 0.25, 0.0], "image_std": [0.5, 1.0, 2.0]}'
PIXELS = np.random.default_rng(1).integers(0, 256, (2, 4, 5, 3), np.uint8)
WANTED = np.moveaxis((PIXELS / 255 - MEAN) / STD, -1, 1)


def test_images_are_prepared_as_the_model_s_file_says(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.onnx", preprocess_params=PARAMS)
    model = open_model(path, preprocess=["image"])
    assert model.model.inputs == (Tensor("p", "UINT8", (4, 5, 3)),)
    np.testing.assert_allclose(model.run(PIXELS)["q"], WANTED, atol=1e-6)
    np.testing.assert_allclose(model.run(PIXELS[0])["q"], WANTED[:1], atol=1e-6)


def test_nothing_is_done_to_images_unless_it_is_asked_for(tmp_path: Path) -> None:
    model = open_model(picture(tmp_path / "a.onnx", preprocess_params=PARAMS))
    assert model.model.inputs == (Tensor("p", "FP32", (3, 4, 5)),)
    given = np.moveaxis(PIXELS, -1, 1)
    assert (model.run(given)["q"] == given).all()
    with pytest.raises(SpecError, match=r"shape \[2, 4, 5, 3\], the model takes \[-1, 3, 4, 5\]"):
        model.run(PIXELS)


def test_options_come_before_what_the_file_says(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.onnx", preprocess_params=PARAMS)
    options: Mapping[str, Any] = {"mean": 0, "std": 1, "scale": 1, "layout": "channels_first"}
    model = open_model(path, preprocess=[{"use": "image", "options": options}])
    given = np.ascontiguousarray(np.moveaxis(PIXELS, -1, 1))
    assert model.model.inputs == (Tensor("p", "UINT8", (3, 4, 5)),)
    assert (model.run(given)["q"] == given).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"std": [1, 0, 1]}, "std of 0"),
        ({"mean": [1, 2]}, r"mean is \[1, 2\]"),
        ({"mean": "grey"}, "mean is 'grey'"),
        ({"layout": "WHC"}, "layout is 'WHC'"),
        ({"size": 224}, "no option 'size'"),
        ({"input": "z"}, "has not input 'z'"),
    ],
)
def test_nonsense_about_images_is_refused(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError, match=words):
        open_model(picture(tmp_path / "a.onnx"), preprocess=[{"use": "image", "options": options}])


def test_a_request_without_its_batch_axis_is_one_row(tmp_path: Path) -> None:
    path = picture(tmp_path / "pictures.onnx", preprocess_params=PARAMS)
    with serving(path, *settings('preprocess="image"')) as engine:
        entry = {"name": "p", "shape": [4, 5, 3], "datatype": "UINT8"}
        body = {"inputs": [entry | {"data": PIXELS[1].tolist()}]}
        answer = engine.call("/v2/models/pictures/infer", body).json["outputs"][0]
        assert answer["shape"] == [1, 3, 4, 5]
        np.testing.assert_allclose(answer["data"], WANTED[1].ravel(), atol=1e-6)
        told = engine.call("/v2/models/pictures").json["inputs"]
        assert told == [{"name": "p", "datatype": "UINT8", "shape": [-1, 4, 5, 3]}]


def test_whole_numbers_in_json_do_for_floats() -> None:
    with serving("fake", *settings("fake.a=0 ms")) as engine:
        body = request_json(rows(1))
        body["inputs"][0] |= {"shape": [16], "data": list(range(16))}
        answer = engine.call("/v2/models/fake/infer", body).json["outputs"][0]
        assert (answer["shape"], answer["data"]) == ([1, 16], list(range(16)))
