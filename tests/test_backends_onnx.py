"""ONNX files: served as their author exported them, and kept from reaching beyond themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from loadbench.engine import zoo
from loadbench.engine.backends.converted import save
from loadbench.engine.backends.onnx_run import OnnxModel
from loadbench.engine.models import open_model
from loadbench.engine.signature import inputs_of
from loadbench.errors import SpecError
from loadbench.spec import EngineSpec

pytestmark = pytest.mark.long


def opened(path: Path, **changed: Any) -> OnnxModel:
    model = open_model(str(path), EngineSpec.model_validate({"threads": 1} | changed))
    assert isinstance(model, OnnxModel)
    return model


def refused(path: Path, **changed: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        opened(path, **changed)
    return caught.value


def write(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, tuple[int, list[Any]]],
    weights: list[onnx.TensorProto] | None = None,
) -> Path:
    """A model by hand: types and dimensions of its inputs and outputs by name."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        weights or [],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    opsets += [
        helper.make_opsetid(d, 1) for d in {node.domain for node in nodes} - {"", "ai.onnx.ml"}
    ]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )
    return path


F32 = TensorProto.FLOAT


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every zoo model as ONNX."""
    path = tmp_path_factory.mktemp("onnx")
    for name in zoo.NAMES:
        save(name, 1, path / f"{name}.onnx")
    return path


@pytest.mark.parametrize("name", zoo.NAMES)
def test_outputs_equal_the_eager_model_s(folder: Path, name: str) -> None:
    model = opened(folder / f"{name}.onnx", precision="fp32")
    module = zoo.build(name, 1).module.eval()
    assert model.batched
    assert (model.platform, model.device, model.precision) == ("onnxruntime_onnx", "cpu", "fp32")
    (note,) = model.notes
    assert note.text == "onnxruntime · CPU provider · cpu · fp32 · 1 thread · dynamic batch"
    for rows in (1, 3, 32):
        arrays = inputs_of(model, rows, seed=rows)
        with torch.no_grad():
            right = module(*map(torch.from_numpy, arrays.values())).numpy()
        (found,) = model.run(arrays).values()
        np.testing.assert_allclose(found, right, atol=1e-5 * np.abs(right).max())


def test_the_zoo_runs_through_onnx_runtime() -> None:
    model = open_model("encoder", EngineSpec(backend="onnxruntime", threads=1))
    assert isinstance(model, OnnxModel)
    reference = open_model("encoder", EngineSpec(precision="fp32", threads=1))
    assert (model.inputs, model.outputs) == (reference.inputs, reference.outputs)
    assert model.metadata["sizes"] == reference.metadata["sizes"]
    arrays = inputs_of(reference, 2)
    np.testing.assert_allclose(
        model.run(arrays)["text_embedding"], reference.run(arrays)["text_embedding"], atol=1e-4
    )


def test_several_types_and_open_axes(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.onnx",
        [
            helper.make_node("Cast", ["n"], ["m"], to=F32),
            helper.make_node("Mul", ["x", "m"], ["y"]),
            helper.make_node("ReduceSum", ["x", "one"], ["s"], keepdims=0),
            helper.make_node("Identity", ["t"], ["u"]),
            helper.make_node("Not", ["b"], ["c"]),
        ],
        {
            "x": (F32, ["batch", "length"]),
            "n": (TensorProto.INT32, ["batch", 1]),
            "t": (TensorProto.STRING, ["batch"]),
            "b": (TensorProto.BOOL, ["batch", 2]),
        },
        {
            "y": (F32, None),  # type: ignore[dict-item]
            "s": (F32, ["batch"]),
            "u": (TensorProto.STRING, ["batch"]),
            "c": (TensorProto.BOOL, ["batch", 2]),
        },
        [numpy_helper.from_array(np.array([1]), "one")],
    )
    model = opened(path)
    assert model.batched
    assert {t.name: (t.datatype, t.shape) for t in (*model.inputs, *model.outputs)} == {
        "x": ("FP32", (-1,)), "n": ("INT32", (1,)), "t": ("BYTES", ()), "b": ("BOOL", (2,)),
        "y": ("FP32", (-1,)), "s": ("FP32", ()), "u": ("BYTES", ()), "c": ("BOOL", (2,)),
    }  # fmt: skip
    found = model.run(
        {
            "x": np.ones((2, 5), np.float32),
            "n": np.array([[2], [3]], np.int32),
            "t": np.array(["grüße".encode(), b""], object),
            "b": np.array([[True, False], [False, False]]),
        }
    )
    np.testing.assert_array_equal(found["y"], [[2] * 5, [3] * 5])
    np.testing.assert_array_equal(found["s"], [5, 5])
    assert found["u"].tolist() == ["grüße".encode(), b""]
    np.testing.assert_array_equal(found["c"], [[False, True], [True, True]])


def test_scalars(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.onnx",
        [helper.make_node("Mul", ["x", "by"], ["y"]), helper.make_node("Size", ["x"], ["n"])],
        {"x": (F32, ["rows", 2]), "by": (F32, [])},
        {"y": (F32, ["rows", 2]), "n": (TensorProto.INT64, [])},
    )
    model = opened(path)
    assert not model.batched
    assert [t.shape for t in (*model.inputs, *model.outputs)] == [(-1, 2), (), (-1, 2), ()]
    found = model.run({"x": np.ones((3, 2), np.float32), "by": np.array(4, np.float32)})
    np.testing.assert_array_equal(found["y"], np.full((3, 2), 4))
    assert found["n"] == 6


@pytest.mark.parametrize(
    ("first", "word"), [(1, "fixes the batch at 1"), ("batch", "fails with 3 rows")]
)
def test_a_batch_of_one_is_served_unbatched_and_said(tmp_path: Path, first: Any, word: str) -> None:
    path = write(
        tmp_path / "a.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],  # baked in, whatever is declared
        {"x": (F32, [first, 4])},
        {"y": (F32, [first, 2, 2])},
        [numpy_helper.from_array(np.array([1, 2, 2]), "shape")],
    )
    model = opened(path)
    assert not model.batched
    assert (model.inputs[0].shape, model.outputs[0].shape) == ((1, 4), (1, 2, 2))
    assert word in model.notes[1].text
    assert "fixed batch, one request at a time" in model.notes[0].text
    assert model.run(inputs_of(model, 9))["y"].shape == (1, 2, 2)


def test_inputs_may_close_what_the_file_leaves_open(folder: Path) -> None:
    path = folder / "resnet-tiny.onnx"
    model = opened(path, inputs=("image:FP32:-1,3,32,48",))
    assert model.inputs[0].shape == (3, 32, 48)
    assert "sizes" not in model.metadata
    wrong = refused(path, inputs=("image:FP32:-1,4,32,48",))
    assert "FP32 [-1,3,-1,-1]" in wrong.message
    assert "its inputs: image" in refused(path, inputs=("x:FP32:-1,3,9,9",)).hint
    named = refused(path, outputs=("logits:FP32:-1,11",))
    assert "--output logits:FP32:-1,10" in named.hint


def test_an_input_that_the_model_refuses_is_the_client_s_fault(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.onnx",
        [helper.make_node("Gather", ["table", "i"], ["y"])],
        {"i": (TensorProto.INT64, ["batch"])},
        {"y": (F32, ["batch"])},
        [numpy_helper.from_array(np.arange(4, dtype=np.float32), "table")],
    )
    model = opened(path)
    with pytest.raises(SpecError, match="refuses this input"):
        model.run({"i": np.array([1, 99])})
    assert model.run({"i": np.array([3])})["y"] == [3]


def test_outputs_that_are_no_tensors_are_left_out_and_said(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["y"]),
        helper.make_node("ZipMap", ["x"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
    ]
    path = write(tmp_path / "a.onnx", nodes, {"x": (F32, ["b", 2])}, {"y": (F32, ["b", 2])})
    proto = onnx.load(path)
    zipped = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(F32, []))
    proto.graph.output.append(helper.make_value_info("z", helper.make_sequence_type_proto(zipped)))
    onnx.save(proto, path)
    model = opened(path)
    assert [t.name for t in model.outputs] == ["y"]
    assert [note.code for note in model.notes] == ["backend", "output"]
    assert "zipmap" in model.notes[1].hint


def test_precision_is_that_of_the_file(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((4, 3), np.float16), "w")
    path = write(
        tmp_path / "a.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (TensorProto.FLOAT16, ["b", 4])},
        {"y": (TensorProto.FLOAT16, ["b", 3])},
        [weight],
    )
    model = opened(path)
    assert (model.precision, model.memory()) == ("fp16", {"CPU": 24})
    error = refused(path, precision="fp32")
    assert "holds fp16 weights" in error.message
    assert "export it in fp32" in error.hint


def test_a_card_asked_for_and_missing_is_an_error(folder: Path) -> None:
    path = folder / "mlp.onnx"
    assert "cuda:63" in refused(path, device="cuda:63").message
    assert 'engine.backend = "onnxruntime"' in refused(path, backend="torch").hint


def test_what_the_file_says_of_itself_is_handed_on(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.onnx", [helper.make_node("Neg", ["x"], ["y"])],
        {"x": (F32, ["b", 1])}, {"y": (F32, ["b", 1])},
    )  # fmt: skip
    proto = onnx.load(path)
    proto.model_version = 31
    proto.producer_name = "someone"
    helper.set_model_props(proto, {"preprocess_params": '{"mean": [1, 2]}'})
    onnx.save(proto, path)
    model = opened(path)
    assert model.version == "31"
    assert model.metadata["preprocess_params"] == {"mean": [1, 2]}
    assert model.metadata["producer"] == "someone"
    assert model.metadata["format"] == "ONNX opset 17"


def external(folder: Path, location: str, offset: int = 0, length: int | None = None) -> Path:
    """A model whose weight lies in another file."""
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    path = write(
        folder / "a.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (F32, ["b", 4])},
        {"y": (F32, ["b", 3])},
        [weight],
    )
    proto = onnx.load(path)
    tensor = proto.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location, offset, length)
    tensor.ClearField("raw_data")
    path.write_bytes(proto.SerializeToString())
    return path


def test_weights_beside_the_model_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.bin").write_bytes(np.full((4, 3), 2, np.float32).tobytes())
    model = opened(external(tmp_path, "sub/w.bin"))
    np.testing.assert_array_equal(model.run({"x": np.ones((1, 4), np.float32)})["y"], [[8, 8, 8]])


def test_weights_anywhere_else_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "real").mkdir(parents=True)
    secret = tmp_path / "secret"
    data = np.ones((4, 3), np.float32).tobytes()
    for path in (secret, folder / "real" / "w", folder / "w"):
        path.write_bytes(data)
    (folder / "link").symlink_to(secret)
    (folder / "inner").symlink_to(folder / "real")
    opened(external(folder, "w"))
    for location in (str(secret), "../secret", "real/../../secret", "", "..\\secret"):
        assert "outside the model's folder" in refused(external(folder, location)).message
    for location in ("link", "inner/w"):
        assert "points to a link" in refused(external(folder, location)).message
    assert "not there" in refused(external(folder, "gone")).message
    assert "not there" in refused(external(folder, "real")).message
    assert "beyond its end" in refused(external(folder, "w", offset=8, length=48)).message
    assert "beyond its end" in refused(external(folder, "w", offset=-1)).message


def test_external_tensors_inside_nodes_are_found_too(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(48))
    folder = tmp_path / "model"
    folder.mkdir()
    hidden = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    onnx.external_data_helper.set_external_data(hidden, "../secret")
    hidden.ClearField("raw_data")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["v"], value=hidden)], "branch", [],
        [helper.make_tensor_value_info("v", F32, [4, 3])],
    )  # fmt: skip
    path = write(
        folder / "a.onnx",
        [helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)],
        {"c": (TensorProto.BOOL, [])},
        {"y": (F32, [4, 3])},
    )
    assert "outside the model's folder" in refused(path).message


def test_operators_of_other_libraries_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Evil", ["x"], ["y"], domain="com.evil")
    path = write(tmp_path / "a.onnx", [node], {"x": (F32, ["b"])}, {"y": (F32, ["b"])})
    error = refused(path)
    assert "com.evil.Evil" in error.message
    assert "standard operators" in error.hint
    node = helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft")
    path = write(tmp_path / "b.onnx", [node], {"x": (F32, ["b"])}, {"y": (F32, ["b"])})
    assert "compiled for one device" in refused(path).message


def test_a_graph_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Neg", ["nowhere"], ["y"])
    path = write(tmp_path / "a.onnx", [node], {"x": (F32, ["b"])}, {"y": (F32, ["b"])})
    error = refused(path)
    assert "ONNX Runtime refuses it" in error.message
    assert "\n" not in error.message


def test_nothing_is_written_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save("encoder", 1, tmp_path / "a.onnx")  # torch's exporter is a talker
    model = opened(tmp_path / "a.onnx")
    with pytest.raises(SpecError):
        model.run(
            {
                "input_ids": np.ones((1, 5), np.int64),
                "attention_mask": np.ones((1, 9), np.int64),
            }
        )
    assert capfd.readouterr() == ("", "")
