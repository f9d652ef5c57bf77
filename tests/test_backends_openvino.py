"""OpenVINO: an optional backend, on the CPU, for files that ONNX Runtime serves too."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from loadbench.engine.backends import Model, openvino_run
from loadbench.engine.models import open_model
from loadbench.errors import SpecError
from loadbench.spec import EngineSpec


def opened(path: Path, **changed: Any) -> Model:
    settings = {"threads": 1, "backend": "openvino", "precision": "fp32"} | changed
    return open_model(str(path), EngineSpec.model_validate(settings))


def refused(path: Path, **changed: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        opened(path, **changed)
    return caught.value


def write(path: Path, kind: str = "Neg", *, twice: bool = False, text: bool = False) -> Path:
    """`x` [batch, 4] through one operator to `y`; `twice`: also an INT64 output `n`."""
    dtype = TensorProto.STRING if text else TensorProto.FLOAT
    nodes = [helper.make_node(kind, ["x"], ["y"])]
    outputs = [helper.make_tensor_value_info("y", dtype, ["batch", 4])]
    if twice:
        nodes.append(helper.make_node("Cast", ["x"], ["n"], to=TensorProto.INT64))
        outputs.insert(0, helper.make_tensor_value_info("n", TensorProto.INT64, ["batch", 4]))
    given = [helper.make_tensor_value_info("x", dtype, ["batch", 4])]
    graph = helper.make_graph(nodes, "g", given, outputs)
    opsets = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )
    return path


def test_several_outputs_come_by_name_and_are_the_caller_s_own(tmp_path: Path) -> None:
    model = opened(write(tmp_path / "a.onnx", twice=True))
    assert [(t.name, t.datatype, t.shape) for t in model.outputs] == [
        ("n", "INT64", (4,)), ("y", "FP32", (4,)),
    ]  # fmt: skip
    assert (model.platform, model.device, model.batched) == ("openvino_onnx", "cpu", True)
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    first = model.run({"x": x})
    model.run({"x": x + 100})  # must not overwrite what was given out
    np.testing.assert_array_equal(first["y"], -x)
    np.testing.assert_array_equal(first["n"], x)
    assert "openvino · latency hint, one stream · cpu · fp32 · 1 thread" in model.notes[0].text


def test_an_input_that_the_model_refuses_is_the_client_s_fault(tmp_path: Path) -> None:
    model = opened(write(tmp_path / "a.onnx"))
    with pytest.raises(SpecError, match="refuses this input") as caught:
        model.run({"x": np.ones((2, 9), np.float32)})
    assert "\n" not in caught.value.message
    np.testing.assert_array_equal(model.run({"x": np.ones((1, 4), np.float32)})["y"], [[-1] * 4])


def test_what_openvino_cannot_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.onnx")
    assert "runs on the CPU, not on cuda:0" in refused(path, device="cuda:0").message
    error = refused(write(tmp_path / "b.onnx", "Bernoulli_Nowhere"))
    assert "OpenVINO refuses it" in error.message
    assert "onnxruntime" in error.hint
    assert "cannot be served" in refused(write(tmp_path / "c.onnx", "Identity", text=True)).message
    assert "libraries are for other" in refused_with_library(path).message


def refused_with_library(path: Path) -> SpecError:
    settings = EngineSpec(backend="openvino", libraries=(str(path),))
    with pytest.raises(SpecError) as caught:
        open_model(str(path), settings, trust=True)
    return caught.value


def test_an_openvino_that_is_missing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    error = refused(write(tmp_path / "a.onnx"))
    assert "OpenVINO is not installed" in error.message
    assert error.hint == "pip install 'loadbench[openvino]'"


def test_a_half_that_this_cpu_lacks_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino = openvino_run.runtime()

    class Old(openvino.Core):  # type: ignore[name-defined,misc]
        """A CPU that calculates in fp32 only."""

        def get_property(self, device: str, name: str) -> Any:
            assert name == "OPTIMIZATION_CAPABILITIES"
            return ["FP32"]

    monkeypatch.setattr(openvino, "Core", Old)
    path = write(tmp_path / "a.onnx")
    assert "does not calculate in bf16" in refused(path, precision="bf16").message
    assert opened(path, precision="auto").precision == "fp32"


def test_auto_measures_and_says_what_it_chose(tmp_path: Path) -> None:
    if "BF16" not in openvino_run.runtime().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("CPU without bf16")
    model = opened(write(tmp_path / "a.onnx"), precision="auto", max_batch=4)
    assert "× as fast as fp32 at batch 4" in model.notes[-1].text
    assert model.notes[-1].text.startswith(f"{model.precision}: ")


def test_it_loads_without_torch_and_onnx_runtime_and_tells_nobody(tmp_path: Path) -> None:
    write(tmp_path / "a.onnx")
    code = (
        "import sys, threading; from loadbench.engine.models import open_model;"
        "from loadbench.spec import EngineSpec;"
        "open_model(sys.argv[1], EngineSpec(backend='openvino', precision='fp32'));"
        "print(sorted({'torch', 'onnxruntime', 'openvino_telemetry.main'} & set(sys.modules)),"
        "threading.active_count())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 1"  # what it sends, a thread sends
