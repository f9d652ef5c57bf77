"""Every way to run a model gives the eager fp32 model's answers, but for its precision's share."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loadbench.engine import device, zoo
from loadbench.engine.backends import openvino_run
from loadbench.engine.backends.converted import save
from loadbench.engine.models import open_model
from loadbench.engine.signature import inputs_of
from loadbench.spec import EngineSpec
from tests import served

pytestmark = pytest.mark.long

LARGEST = 8
TOLERANCE = {"fp32": 1e-5, "bf16": 0.02, "int8": 0.05, "int8-static": 0.05}  # of the largest output
HALF = "BF16" in openvino_run.runtime().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
WAYS = [
    ("onnxruntime", "int8"),
    ("onnxruntime", "int8-static"),
    ("openvino", "fp32"),
    pytest.param("openvino", "bf16", marks=pytest.mark.skipif(not HALF, reason="CPU without bf16")),
    ("openvino", "int8-static"),
    pytest.param("torch-compile", "fp32", marks=pytest.mark.skipif(
        shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")),
]  # fmt: skip


def settings(**changed: Any) -> EngineSpec:
    return EngineSpec.model_validate({"threads": 1, "max_batch": LARGEST} | changed)


def eager(name: str, arrays: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The zoo's module called as its author would, without any of the engine."""
    module = zoo.build(name, 1).module.eval()
    with torch.no_grad():
        found: np.ndarray[Any, Any] = module(*map(torch.from_numpy, arrays.values())).numpy()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every zoo model as ONNX."""
    path = tmp_path_factory.mktemp("onnx")
    for name in zoo.NAMES:
        save(name, 1, path / f"{name}.onnx")
    return path


@pytest.mark.parametrize("name", zoo.NAMES)
@pytest.mark.parametrize(("backend", "precision"), WAYS)
def test_outputs_equal_the_eager_model_s(
    folder: Path, name: str, backend: str, precision: str
) -> None:
    path = name if backend == "torch-compile" else str(folder / f"{name}.onnx")
    model = open_model(path, settings(backend=backend, precision=precision))
    assert model.batched
    assert model.precision == precision.removesuffix("-static")
    for rows in (1, 3, LARGEST):
        arrays = inputs_of(model, rows, seed=rows)
        right = eager(name, arrays)
        (found,) = model.run(arrays).values()
        assert (found.shape, found.dtype) == (right.shape, right.dtype)
        off = np.abs(found - right).max() / np.abs(right).max()
        assert off < TOLERANCE[precision]
        assert precision == "fp32" or off > 1e-5  # it really was in another precision
    said = [note.text for note in model.notes]
    assert said[0].startswith(f"{backend} · ")
    assert f" · cpu · {model.precision} · 1 thread · dynamic batch" in said[0]
    if precision != "fp32":
        assert "outputs differ from fp32 by up to" in said[-1]


@pytest.mark.parametrize(
    ("changed", "backend"),
    [
        ({"backend": "openvino", "precision": "fp32"}, "openvino"),
        ({"precision": "int8-static"}, "onnxruntime"),
        ({"provider": "cpu"}, "onnxruntime"),
    ],
)
def test_the_zoo_takes_the_backend_that_the_settings_call_for(
    changed: dict[str, Any], backend: str
) -> None:
    model = open_model("mlp", settings(**changed))
    assert model.notes[0].text.startswith(f"{backend} · ")
    arrays = inputs_of(model, 3)
    (found,) = model.run(arrays).values()
    right = eager("mlp", arrays)
    assert np.abs(found - right).max() / np.abs(right).max() < 0.05


def test_what_was_chosen_is_said_wherever_one_looks(folder: Path) -> None:
    path = str(folder / "mlp.onnx")
    asked = served.settings("backend=openvino", "precision=fp32", "threads=1")
    with served.serving(path, *asked) as engine:
        notes = engine.call("/health").json["notes"]
        engine.stop()
        assert engine.process.stderr is not None
        errors = engine.process.stderr.read()
    text = "openvino · latency hint, one stream · cpu · fp32 · 1 thread · dynamic batch"
    assert (notes[0]["code"], notes[0]["text"]) == ("backend", text)
    assert f"note: {text}" in errors
    command = [sys.executable, "-m", "loadbench", "doctor", path]
    done = subprocess.run([*command, *asked], capture_output=True, text=True, check=True)
    assert f"· {text}" in done.stdout


def test_a_provider_that_is_missing_ends_the_engine_with_what_to_do(folder: Path) -> None:
    if device.Nvml().is_available():
        pytest.skip("there is a card, and CUDA may work")
    command = [sys.executable, "-m", "loadbench", "serve", str(folder / "mlp.onnx"), "--port", "0"]
    for provider in ("cuda", "tensorrt"):
        asked = served.settings(f"provider={provider}")
        done = subprocess.run([*command, *asked], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, "")
        assert "Traceback" not in done.stderr
        assert "CUDA" in done.stderr
