"""Model files under load by path: served, driven, and giving the eager model's answers."""

import json
import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from loadbench.engine.backends.converted import save
from loadbench.engine.models import open_model
from loadbench.spec import EngineSpec
from tests.running import adds_up, loadbench, summary
from tests.served import serving, settings


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo's mlp as other people's tools would have written it."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("mlp.onnx", "mlp.pt"):
        save("mlp", 1, folder / name)
    return folder


@pytest.mark.parametrize("name", ["mlp.onnx", "mlp.pt"])
def test_a_file_runs_under_load(files: Path, tmp_path: Path, name: str) -> None:
    told = ["--set", 'engine.inputs=["input:FP32:-1,256"]'] if name.endswith(".pt") else []
    found = summary(
        "steady", "--target", f"local:{files / name}", "--trust", "--duration", "2s", *told,
        "--set", "load.warmup=1s", "--set", "checks.p99=< 5 s", cwd=tmp_path,
    )  # fmt: skip
    assert adds_up(found)
    assert found["failed"] == {}
    assert found["done"] == found["asked"] > 100
    assert found["server"]["compute_ms"]["p50"] > 0


@pytest.mark.parametrize("name", ["mlp.onnx", "mlp.pt"])
def test_what_is_served_is_what_the_eager_model_says(files: Path, name: str) -> None:
    rows = np.random.default_rng(5).standard_normal((3, 256)).astype(np.float32)
    eager = open_model("mlp", EngineSpec(precision="fp32"))
    expected = eager.run({eager.inputs[0].name: rows})[eager.outputs[0].name]
    told = ['inputs=["input:FP32:-1,256"]'] if name.endswith(".pt") else []
    with serving(str(files / name), "--trust", *settings("precision=fp32", *told)) as engine:
        metadata = engine.call(f"/v2/models/{Path(name).stem}").json
        tensor = {
            "name": metadata["inputs"][0]["name"],
            "datatype": "FP32",
            "shape": [3, 256],
            "parameters": {"binary_data_size": rows.nbytes},
        }
        request = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
        head = json.dumps(request).encode()
        answer = engine.call(
            f"/v2/models/{Path(name).stem}/infer",
            head + rows.tobytes(),
            Inference_Header_Content_Length=str(len(head)),
        )
    assert answer.status == 200
    served = np.array(struct.unpack("<30f", answer.tail), np.float32).reshape(3, 10)
    np.testing.assert_allclose(served, expected, rtol=1e-4, atol=1e-5)


def test_a_model_that_refuses_its_inputs_is_told_before_the_run(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.ones((50, 8), np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"])],
        "lookup",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["rows", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 64, 8])],
        [weights],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
              tmp_path / "lookup.onnx")  # fmt: skip
    done = loadbench("run", "steady", "--target", "local:lookup.onnx", cwd=tmp_path, code=2)
    assert "refuses the inputs of 'infer'" in done.stderr
    assert "[[request]] with data" in done.stderr
    assert not (tmp_path / "results").exists()
