"""int8 made of ONNX files: what it is calibrated with, what it costs, and what cannot be."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from loadbench.engine.backends import Model
from loadbench.engine.models import open_model
from loadbench.errors import SpecError
from loadbench.spec import EngineSpec

pytestmark = pytest.mark.long  # a minute and more


F32 = TensorProto.FLOAT


def opened(path: Path, precision: str = "int8-static", **changed: Any) -> Model:
    found = {"threads": 1, "max_batch": 4, "precision": precision} | changed
    return open_model(str(path), EngineSpec.model_validate(found))


def refused(path: Path, precision: str = "int8-static", **changed: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        opened(path, precision, **changed)
    return caught.value


def write(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, Any]) -> Path:
    """`x` [batch, 4, 6, 6] through the nodes to `y`."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", F32, ["batch", 4, 6, 6])],
        [helper.make_tensor_value_info("y", F32, None)],
        [numpy_helper.from_array(np.asarray(array, np.float32), name)
         for name, array in weights.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )
    return path


@pytest.fixture
def convolution(tmp_path: Path) -> Path:
    weight = np.random.default_rng(1).standard_normal((5, 4, 3, 3))
    return write(tmp_path / "a.onnx", [helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight})


def rows(number: int = 40, scale: float = 1.0) -> Any:
    drawn = np.random.default_rng(2).standard_normal((number, 4, 6, 6)).astype(np.float32)
    return drawn * scale


def test_true_rows_calibrate_better_than_made_up_ones(convolution: Path) -> None:
    """Inputs ten times as large as made-up ones are clipped unless calibration has seen them."""
    np.save(convolution.parent / "rows.npy", rows(scale=10))
    np.savez(convolution.parent / "rows.npz", x=rows(scale=10).astype(np.float64))
    full = opened(convolution, "fp32")
    x = {"x": rows(8, 10)}
    right = full.run(x)["y"]

    def off(model: Model) -> float:
        return float(np.abs(model.run(x)["y"] - right).max() / np.abs(right).max())

    assert off(opened(convolution)) > 0.3
    for name in ("rows.npy", "rows.npz"):
        model = opened(convolution, calibration=str(convolution.parent / name))
        assert off(model) < 0.03
        assert f"40 rows, {convolution.parent / name}" in model.notes[-1].text
        assert "1 of 1 products" in model.notes[-1].text
    assert "made up at random" in opened(convolution).notes[-1].text


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (rows()[:, :3], "40×3×6×6 of float32"),
        (rows()[:0], "0×4×6×6"),
        (np.array(1.0), "of float64"),
        (rows().astype(str), "of <U"),
        (rows() * np.nan, "NaN or infinity"),
        (rows().astype(object), "cannot be read"),  # a pickle
    ],
)
def test_rows_that_do_not_fit_are_refused(convolution: Path, array: Any, word: str) -> None:
    np.save(convolution.parent / "rows.npy", array, allow_pickle=True)
    error = refused(convolution, calibration=str(convolution.parent / "rows.npy"))
    assert word in error.message
    assert error.hint


def test_rows_that_are_missing_are_told(convolution: Path) -> None:
    gone = convolution.parent / "gone.npz"
    assert "cannot be read" in refused(convolution, calibration=str(gone)).message
    np.savez(gone, image=rows())
    error = refused(convolution, calibration=str(gone))
    assert "no rows for input 'x'" in error.message
    assert "image" in error.hint


def test_what_cannot_be_quantised_is_an_error_and_not_run_in_fp32(
    tmp_path: Path, convolution: Path
) -> None:
    error = refused(convolution, "int8")
    assert "nothing to quantise" in error.message
    assert "int8-static" in error.hint
    path = write(tmp_path / "b.onnx", [helper.make_node("Neg", ["x"], ["y"])], {})
    for precision in ("int8", "int8-static"):
        assert "nothing to quantise" in refused(path, precision).message
    half = onnx.load(convolution)
    half.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.ones((5, 4, 3, 3), np.float16), "w")
    )
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(half, convolution)
    assert "fp16 weights: int8 is made of fp32 ones" in refused(convolution).message


def test_a_file_that_is_int8_already_is_served_as_it_is(convolution: Path, tmp_path: Path) -> None:
    from loadbench.engine.backends.onnx_int8 import quantise

    quantise(convolution, tmp_path / "done.onnx", [{"x": rows(4)}], "cpu")
    for precision in ("auto", "int8"):
        model = opened(tmp_path / "done.onnx", precision)
        assert model.precision == "int8"
        assert " · int8 · " in model.notes[0].text
    assert "holds int8 weights" in refused(tmp_path / "done.onnx", "fp32").message


def test_an_answer_that_is_rounded_with_its_batch_is_batched_and_said(tmp_path: Path) -> None:
    weight = np.random.default_rng(1).standard_normal((6, 5))
    path = write(
        tmp_path / "a.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight}
    )
    model = opened(path, "int8")
    assert model.batched
    assert [note.code for note in model.notes] == ["backend", "rounded", "precision"]


def test_settings_without_a_use_are_refused() -> None:
    for wrong in (
        {"calibration": "rows.npz"},
        {"calibration": "rows.npz", "precision": "int8"},
        {"provider": "cuda", "backend": "openvino"},
        {"graphs": True, "backend": "openvino"},
    ):
        with pytest.raises(ValueError, match="only"):
            EngineSpec.model_validate(wrong)


def test_int8_of_what_is_no_onnx_says_what_to_do() -> None:
    with pytest.raises(SpecError, match="int8 is made of ONNX models only") as caught:
        open_model("mlp", EngineSpec(backend="torch", precision="int8", threads=1))
    assert "torch.onnx.export" in caught.value.hint
