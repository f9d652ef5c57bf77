"""The torch backends: what a file gives equals what its author computed, in every precision."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loadbench.engine import zoo
from loadbench.engine.backends import precision
from loadbench.engine.backends.converted import save
from loadbench.engine.backends.prepare import place
from loadbench.engine.backends.torch_run import Program, TorchModel
from loadbench.engine.models import open_model
from loadbench.engine.signature import inputs_of
from loadbench.errors import SpecError
from loadbench.spec import EngineSpec

pytestmark = pytest.mark.long

INPUTS = {
    "mlp": ("input:FP32:-1,256",),
    "resnet-tiny": ("image:FP32:-1,3,-1,-1",),
    "encoder": ("input_ids:INT64:-1,-1", "attention_mask:INT64:-1,-1"),
}
TOLERANCE = {"fp32": 1e-5, "bf16": 0.02, "fp16": 0.005}  # of the largest output


def settings(**changed: Any) -> EngineSpec:
    return EngineSpec.model_validate({"precision": "fp32", "threads": 1} | changed)


def eager(name: str, arrays: dict[str, Any]) -> np.ndarray[Any, Any]:
    """The zoo's module called as its author would, without any of the engine."""
    module = zoo.build(name, 1).module.eval()
    with torch.no_grad():
        found: np.ndarray[Any, Any] = module(*map(torch.from_numpy, arrays.values())).numpy()
    return found


def deviation(found: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> float:
    assert found.shape == right.shape
    assert found.dtype == right.dtype
    return float(np.abs(found - right).max() / np.abs(right).max())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every zoo model as TorchScript (.pt) and torch.export (.pt2)."""
    path = tmp_path_factory.mktemp("exported")
    for name in zoo.NAMES:
        save(name, 1, path / f"{name}.pt")
        save(name, 1, path / f"{name}.pt2")
    return path


@pytest.mark.parametrize("name", zoo.NAMES)
@pytest.mark.parametrize("half", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("suffix", ["", ".pt", ".pt2"])
def test_outputs_equal_the_eager_model_s(folder: Path, name: str, half: str, suffix: str) -> None:
    path = f"{folder / name}{suffix}" if suffix else name
    inputs = INPUTS[name] if suffix == ".pt" else ()
    largest = 2 if half == "fp16" else 32  # fp16 is emulated on CPUs, and slow
    model = open_model(path, settings(precision=half, inputs=inputs), trust=True)
    assert model.batched
    assert model.precision == half
    for rows in (1, 3, largest):
        arrays = inputs_of(model, rows, seed=rows)
        found = model.run(arrays)
        assert list(found) == [tensor.name for tensor in model.outputs]
        (only,) = found.values()
        off = deviation(only, eager(name, arrays))
        assert off < TOLERANCE[half]
        assert half == "fp32" or off > 1e-7  # it really was in half precision
    codes = [note.code for note in model.notes[1:] if note.code != "packed"]
    assert codes == ([] if half == "fp32" else ["precision"])


@pytest.mark.parametrize("backend", ["torchscript", "torch-export"])
def test_the_zoo_runs_through_every_torch_backend(backend: str) -> None:
    model = open_model("resnet-tiny", settings(backend=backend))
    reference = open_model("resnet-tiny", settings())
    assert (model.inputs, model.outputs) == (reference.inputs, reference.outputs)
    assert model.metadata["sizes"] == reference.metadata["sizes"]
    arrays = inputs_of(reference, 3)
    assert deviation(model.run(arrays)["logits"], reference.run(arrays)["logits"]) < 1e-5


def test_an_exported_program_says_what_it_takes(folder: Path, tmp_path: Path) -> None:
    model = open_model(str(folder / "encoder.pt2"), settings(), trust=True)
    assert [(t.name, t.datatype, t.shape) for t in model.inputs] == [
        ("input_ids", "INT64", (-1,)), ("attention_mask", "INT64", (-1,)),
    ]  # fmt: skip
    assert model.platform == "pytorch_export"
    rows = torch.export.Dim("rows", max=6)
    program = torch.export.export(
        torch.nn.Linear(4, 2), (torch.ones(2, 4),), dynamic_shapes=({0: rows},)
    )
    torch.export.save(program, tmp_path / "a.pt2")
    bounded = open_model(str(tmp_path / "a.pt2"), settings(), trust=True)
    assert bounded.max_batch == 6
    with pytest.raises(SpecError, match="refuses this input"):
        bounded.run({bounded.inputs[0].name: np.ones((7, 4), np.float32)})
    with pytest.raises(SpecError, match="says itself"):
        open_model(str(tmp_path / "a.pt2"), settings(inputs=("x:FP32:-1,4",)), trust=True)


def test_a_torchscript_file_asks_for_its_inputs_by_name(folder: Path) -> None:
    with pytest.raises(SpecError) as caught:
        open_model(str(folder / "encoder.pt"), settings(), trust=True)
    assert "--input input_ids:DTYPE:DIMS --input attention_mask:DTYPE:DIMS" in caught.value.hint
    too_many = (*INPUTS["encoder"], "more:FP32:-1,2")
    with pytest.raises(SpecError, match="takes 2 inputs"):
        open_model(str(folder / "encoder.pt"), settings(inputs=too_many), trust=True)
    swapped = tuple(reversed(INPUTS["encoder"]))  # named as forward names them: order is free
    model = open_model(str(folder / "encoder.pt"), settings(inputs=swapped), trust=True)
    arrays = inputs_of(model, 2)
    ordered = {"input_ids": arrays["input_ids"], "attention_mask": arrays["attention_mask"]}
    assert deviation(model.run(arrays)["output0"], eager("encoder", ordered)) < 1e-5


def test_a_model_left_in_training_is_served_for_inference(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.BatchNorm1d(3))
    assert module.training
    torch.jit.save(torch.jit.script(module), tmp_path / "a.pt")
    model = open_model(str(tmp_path / "a.pt"), settings(inputs=("x:FP32:-1,3",)), trust=True)
    assert model.batched
    assert [note.code for note in model.notes] == ["backend"]
    x = np.full((2, 3), 5.0, np.float32)
    np.testing.assert_allclose(model.run({"x": x})["output0"], x, rtol=1e-4)


class Many(torch.nn.Module):
    """Two inputs of different types; outputs in a dict, a tuple and a number inside it."""

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> dict[str, Any]:
        return {"sum": x.sum(1), "pair": (x * 2, n + 1), "half": x.to(torch.bfloat16)}


class Scaled(torch.nn.Module):
    """A 0-d input beside rows, and a 0-d output."""

    def forward(self, x: torch.Tensor, by: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * by, x.sum()


class Mixed(torch.nn.Module):
    """Every row's answer depends on all rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0)


class Baked(torch.nn.Module):
    """Reshapes as if there were one row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(1, 4) * 2


class Noisy(torch.nn.Module):
    """Another answer each time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class Wide(torch.nn.Module):
    """Values that fp16 does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        torch.nn.init.constant_(self.layer.weight, 3e5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x.abs() + 1)
        return y


class Plain(torch.nn.Module):
    """Nothing that a half precision makes faster."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


MADE = {part.__name__: part for part in (Many, Scaled, Mixed, Baked, Noisy, Wide, Plain)}


def opened(tmp_path: Path, name: str, *inputs: str, **changed: Any) -> Any:
    """A module of this file, served as a checkpoint with a factory."""
    torch.save(MADE[name]().state_dict() or {"nothing": torch.ones(1)}, tmp_path / "a.pt")
    factory = f"{__name__}:made_{name}"
    return open_model(str(tmp_path / "a.pt"), settings(factory=factory, inputs=inputs, **changed))


def _maker(name: str) -> Any:
    def make() -> torch.nn.Module:
        module = MADE[name]()
        if not module.state_dict():
            module.register_buffer("nothing", torch.ones(1))
        return module

    return make


for _name in MADE:
    globals()[f"made_{_name}"] = _maker(_name)


def test_several_inputs_and_nested_outputs(tmp_path: Path) -> None:
    model = opened(tmp_path, "Many", "x:FP32:-1,4", "n:INT32:-1")
    assert model.batched
    assert [(t.name, t.datatype, t.shape) for t in model.outputs] == [
        ("sum", "FP32", ()), ("pair_0", "FP32", (4,)), ("pair_1", "INT32", ()),
        ("half", "BF16", (4,)),
    ]  # fmt: skip
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    found = model.run({"x": x, "n": np.array([4, 5], np.int32)})
    np.testing.assert_array_equal(found["sum"], [6, 22])
    np.testing.assert_array_equal(found["pair_0"], x * 2)
    np.testing.assert_array_equal(found["pair_1"], [5, 6])
    assert found["half"].dtype == np.uint16
    np.testing.assert_array_equal(
        (found["half"].astype(np.uint32) << 16).view(np.float32), x
    )  # small whole numbers are exact in bf16


def test_read_only_inputs_are_taken_as_they_are(tmp_path: Path) -> None:
    model = opened(tmp_path, "Plain", "x:BF16:-1,2")
    x = np.frombuffer(np.array([0x3F80, 0x4000], "<u2").tobytes(), "<u2").reshape(1, 2)
    assert not x.flags.writeable
    np.testing.assert_array_equal(model.run({"x": x})["output0"], [[0x4000, 0x4040]])


def test_scalars_are_served_one_request_at_a_time(tmp_path: Path) -> None:
    model = opened(tmp_path, "Scaled", "x:FP32:-1,2", "by:FP32:")
    assert not model.batched
    assert [t.shape for t in (*model.inputs, *model.outputs)] == [(-1, 2), (), (-1, 2), ()]
    found = model.run({"x": np.ones((5, 2), np.float32), "by": np.array(3, np.float32)})
    np.testing.assert_array_equal(found["output0"], np.full((5, 2), 3))
    assert found["output1"] == 10
    assert [note.code for note in model.notes] == ["backend", "unbatched"]


@pytest.mark.parametrize(
    ("name", "dims", "shape", "word"),
    [
        ("Mixed", "-1,4", (1, 4), "depends on the rows beside it"),
        ("Baked", "-1,4", (1, 4), "fails with 3 rows"),
        ("Baked", "1,4", (1, 4), "fixes the batch at 1"),
        ("Plain", "8,4", (8, 4), "fixes the batch at 8"),
        ("Plain", "", (), "no batch axis"),
    ],
)
def test_rows_that_cannot_be_batched_are_not(
    tmp_path: Path, name: str, dims: str, shape: tuple[int, ...], word: str
) -> None:
    model = opened(tmp_path, name, f"x:FP32:{dims}")
    assert not model.batched
    assert model.inputs[0].shape == model.outputs[0].shape == shape
    _, note = model.notes
    assert note.code == "unbatched"
    assert word in note.text
    assert model.run(inputs_of(model, 7))["output0"].shape == shape


def test_random_answers_are_doubted_but_batched(tmp_path: Path) -> None:
    model = opened(tmp_path, "Noisy", "x:FP32:-1,4")
    assert model.batched
    assert [note.code for note in model.notes] == ["backend", "random"]


def test_outputs_can_be_named(tmp_path: Path) -> None:
    model = opened(tmp_path, "Plain", "x:FP32:-1,2", outputs=("y:FP32:-1,2",))
    assert list(model.run({"x": np.zeros((1, 2), np.float32)})) == ["y"]


def test_an_input_that_the_model_refuses_is_the_client_s_fault(tmp_path: Path) -> None:
    model = open_model("encoder", settings())
    long = np.ones((1, zoo.LONGEST + 1), np.int64)
    with pytest.raises(SpecError, match="refuses this input"):
        model.run({"input_ids": long, "attention_mask": long})
    assert model.run(inputs_of(model, 1))  # and it goes on serving


def test_no_room_for_a_batch_is_a_memory_error() -> None:
    def call(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.empty(2**50)

    model = TorchModel(Program("big", "pytorch", torch.nn.Identity(), call, ()), "cpu")
    with pytest.raises(MemoryError, match="cpu has no room"):
        model.run({})


SCRIPTED = """The following operation failed in the TorchScript interpreter.
Traceback of TorchScript (most recent call last):
    return torch.zeros(9999999999999999, device="cuda:0")
RuntimeError: CUDA out of memory. Tried to allocate 37252902.99 GiB."""


def raising(error: Exception) -> TorchModel:
    def call(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        raise error

    return TorchModel(Program("broken", "pytorch", torch.nn.Identity(), call, ()), "cpu")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(SCRIPTED),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    ],
)
def test_a_card_without_room_is_a_memory_error_however_it_is_said(error: Exception) -> None:
    with pytest.raises(MemoryError, match="no room for this batch"):
        raising(error).run({})


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    ],
)
def test_a_fault_of_the_device_stays_one(error: Exception) -> None:
    with pytest.raises(type(error), match="CUDA error") as caught:
        raising(error).run({})
    assert caught.value is error


def test_a_card_too_full_to_be_used_at_all_is_one_error() -> None:
    class Full(torch.nn.Module):
        def to(self, *args: Any, **kwargs: Any) -> Any:
            raise torch.AcceleratorError("CUDA error: out of memory")

    with pytest.raises(MemoryError, match="out of memory"):
        place(Full(), "cuda:0")


def test_half_precision_that_overflows_is_told(tmp_path: Path) -> None:
    asked = opened(tmp_path, "Wide", "x:FP32:-1,4", precision="fp16")
    assert "NaN or infinity" in asked.notes[-1].text
    assert not np.isfinite(asked.run(inputs_of(asked, 2))["output0"]).all()
    fine = opened(tmp_path, "Wide", "x:FP32:-1,4", precision="bf16")
    assert np.isfinite(fine.run(inputs_of(fine, 2))["output0"]).all()


def test_auto_measures_and_says_what_it_chose(tmp_path: Path) -> None:
    model = opened(tmp_path, "Plain", "x:FP32:-1,4", precision="auto", max_batch=4)
    assert model.precision in ("fp32", "bf16")
    _, note = model.notes
    assert note.text.startswith(f"{model.precision}: ")
    assert "× as fast as fp32 at batch 4" in note.text


def test_auto_gives_the_fp32_weights_back_when_half_loses() -> None:
    module = zoo.build("mlp", 1).module.eval().requires_grad_(False)
    parameters = tuple(module.parameters())
    before = [parameter.clone() for parameter in parameters]

    def call(tensors: dict[str, torch.Tensor]) -> Any:
        found = module(tensors["input"])
        return found * torch.nan if found.dtype != torch.float32 else found

    entry = zoo.build("mlp", 1)
    model = TorchModel(Program("mlp", "pytorch", module, call, entry.inputs), "cpu")
    reference = open_model("mlp", settings())
    model.inputs, model.outputs = (
        reference.inputs,
        tuple(type(t)("output0", t.datatype, t.shape) for t in reference.outputs),
    )
    model.batched = True
    notes = precision.settle(model, parameters, settings(precision="auto", max_batch=2))
    assert model.precision == "fp32"
    assert "NaN or infinity" in notes[-1].text
    assert all(map(torch.equal, parameters, before))


def test_weights_are_cast_once_and_shared_ones_are_left() -> None:
    model = open_model("mlp", settings(precision="bf16"))
    full = open_model("mlp", settings())
    assert model.memory()["CPU"] == full.memory()["CPU"] // 2
    tied = torch.nn.ModuleDict({"words": torch.nn.Embedding(8, 4), "head": torch.nn.Linear(4, 8)})
    tied["head"].weight = tied["words"].weight
    from loadbench.engine.backends.eager import heavy

    assert [tuple(parameter.shape) for parameter in heavy(tied)] == [(8,)]


def test_weights_stored_in_half_are_run_as_they_are(tmp_path: Path) -> None:
    module = torch.nn.Linear(4, 2).to(torch.bfloat16).eval()
    torch.jit.save(torch.jit.script(module), tmp_path / "a.pt")
    inputs = ("x:BF16:-1,4",)
    model = open_model(
        str(tmp_path / "a.pt"), settings(inputs=inputs, precision="auto"), trust=True
    )
    assert model.precision == "bf16"
    assert model.outputs[0].datatype == "BF16"
    one = np.full((1, 4), 0x3F80, np.uint16)
    right = module(torch.ones(1, 4, dtype=torch.bfloat16)).detach().view(torch.uint16).numpy()
    np.testing.assert_array_equal(model.run({"x": one})["output0"], right)
    with pytest.raises(SpecError, match="its weights are bf16, not fp32"):
        open_model(str(tmp_path / "a.pt"), settings(inputs=inputs), trust=True)


def test_what_cannot_be_compiled_is_an_error_and_not_run_eagerly(tmp_path: Path) -> None:
    (tmp_path / "broken_graph.py").write_text(
        "import torch\n"
        "class Prints(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        torch._dynamo.graph_break()\n"
        "        return super().forward(x)\n"
        "def make():\n"
        "    return Prints(4, 2)\n"
    )
    torch.save(torch.nn.Linear(4, 2).state_dict(), tmp_path / "a.pt")
    sys.path.insert(0, str(tmp_path))
    how = settings(factory="broken_graph:make", inputs=("x:FP32:-1,4",), backend="torch-compile")
    try:
        with pytest.raises(SpecError, match="compile failed") as caught:
            open_model(str(tmp_path / "a.pt"), how)
    finally:
        sys.path.remove(str(tmp_path))
    assert 'engine.backend = "torch"' in caught.value.hint


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_models_answer_like_eager_ones_at_any_size(tmp_path: Path) -> None:
    model = opened(tmp_path, "Wide", "x:FP32:-1,4", backend="torch-compile", max_batch=16)
    plain = opened(tmp_path, "Wide", "x:FP32:-1,4")
    assert [note.code for note in model.notes] == ["backend", "compiled"]
    assert model.notes[0].text == "torch-compile · cpu · fp32 · 1 thread · dynamic batch"
    for rows in range(1, 17):  # more sizes than the compiler allows variants
        arrays = inputs_of(plain, rows)
        found, right = model.run(arrays)["output0"], plain.run(arrays)["output0"]
        assert deviation(found, right) < 1e-5


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_process_that_compiles_model_after_model_comes_to_no_limit(tmp_path: Path) -> None:
    with torch._dynamo.config.patch(recompile_limit=2):  # for one row and for many
        for width in (4, 5, 6):
            inputs = f"x:FP32:-1,{width}"
            model = opened(tmp_path, "Plain", inputs, backend="torch-compile", max_batch=4)
            assert model.notes[-1].code == "compiled"
            x = np.ones((3, width), np.float32)
            np.testing.assert_array_equal(model.run({"x": x})["output0"], x + 1)


@pytest.mark.parametrize("name", ["TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE"])
def test_a_compiler_that_is_switched_off_is_an_error(name: str) -> None:
    code = (
        "from loadbench.engine.models import open_model; from loadbench.spec import EngineSpec;"
        "open_model('mlp', EngineSpec(backend='torch-compile', precision='fp32'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {name: "1"}
    )
    assert "SpecError" in done.stderr
    assert "would run eagerly" in done.stderr
