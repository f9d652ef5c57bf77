"""People's own files: told by their content, filled in by a factory, refused with one clear
error. The backends that run them have tests of their own."""

import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from loadbench.engine import files
from loadbench.engine.models import open_instances, open_model
from loadbench.errors import LoadbenchError, SpecError
from loadbench.spec import EngineSpec

FACTORY = """
import torch

def small():
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout())

def larger():
    return torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout())

def needs_an_argument(width):
    return small()

def parses():
    argparse.ArgumentParser(prog="theirs").parse_args(["--wrong"])

import argparse
nothing = 3
"""


def small() -> torch.nn.Module:
    torch.manual_seed(1)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout())
    torch.nn.init.normal_(module[1].weight)  # type: ignore[arg-type]
    return module


class Touch:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a factory in it."""
    (tmp_path / "ours.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "ours", raising=False)
    return tmp_path


def settings(**changed: Any) -> EngineSpec:
    given = {"factory": "ours:small", "inputs": ("x:FP32:-1,4",), "precision": "fp32", "threads": 1}
    return EngineSpec.model_validate(given | changed)


def refused(name: str | Path, how: EngineSpec | None = None, trust: bool = False) -> SpecError:
    with pytest.raises(SpecError) as caught:
        open_model(str(name), how or EngineSpec(), trust=trust)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    return caught.value


STATES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "plain": lambda state: state,
    "nested": lambda state: {"epoch": 12, "model_state_dict": state, "optimizer": {"lr": 0.1}},
    "lightning": lambda state: {"state_dict": state, "version": "2.4.1", "hparams": {"a": 1}},
    "parallel": lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
    "compiled": lambda state: {"model": {f"_orig_mod.module.{k}": v for k, v in state.items()}},
    "twice": lambda state: {"model": {"state_dict": state}},
}


@pytest.mark.parametrize("form", STATES)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin", ""])
def test_checkpoints_of_every_form_are_filled_into_the_factory_s_module(
    here: Path, form: str, suffix: str
) -> None:
    module = small()
    path = here / f"weights{suffix}"
    torch.save(STATES[form](module.state_dict()), path)
    model = open_model(str(path), settings())
    x = np.random.default_rng(1).standard_normal((3, 4), np.float32)
    with torch.no_grad():
        right = module.eval()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(model.run({"x": x})["output0"], right, atol=1e-6)
    assert (model.platform, model.batched) == ("pytorch", True)
    assert model.outputs[0].shape == (3,)


def test_version_and_preprocessing_are_handed_on(here: Path) -> None:
    told = {"mean": [0.5, 0.4], "size": 224, "std": torch.tensor([1.0, 2.0])}
    state = small().state_dict()
    torch.save({"model_state_dict": state, "epoch": 12, "preprocess_params": told}, "a.pt")
    model = open_model("a.pt", settings())
    assert model.version == "12"
    assert model.metadata["version"] == "12"
    assert model.metadata["preprocess_params"] == {
        "mean": [0.5, 0.4], "size": 224, "std": [1.0, 2.0],
    }  # fmt: skip
    torch.save({"state_dict": state, "version": "2.4.1", "epoch": 3}, "b.pt")
    model = open_model("b.pt", settings())
    assert (model.version, model.metadata["version"]) == ("1", "2.4.1")


def test_safetensors_need_no_trust(here: Path) -> None:
    module = small().eval()
    save_file(
        module.state_dict(),
        here / "a.safetensors",
        {"version": "7", "preprocess_params": '{"size": 32}'},
    )
    model = open_model("a.safetensors", settings())
    x = np.ones((1, 4), np.float32)
    with torch.no_grad():
        right = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(model.run({"x": x})["output0"], right, atol=1e-6)
    assert model.version == "7"
    assert model.metadata["preprocess_params"] == {"size": 32}


def test_a_pickle_that_runs_code_does_not(here: Path) -> None:
    bait = here / "executed"
    state = small().state_dict()
    torch.save({"model_state_dict": state, "extra": Touch(bait)}, "zip.pt")
    torch.save(Touch(bait), "old.pt", _use_new_zipfile_serialization=False)
    (here / "bare.pt").write_bytes(pickle.dumps(Touch(bait)))
    for name in ("zip.pt", "old.pt", "bare.pt"):
        error = refused(name, settings())
        assert "run code" in error.message, error.message
        assert "--trust" in error.hint
        assert not bait.exists(), name
    open_model("zip.pt", settings(), trust=True)
    assert bait.exists()  # so the bait would have been taken


def test_a_whole_module_needs_trust_and_no_factory(here: Path) -> None:
    module = small().eval()
    torch.save(module, "whole.pt")
    how = settings(factory="")
    assert "torch.nn" in refused("whole.pt", how).message
    model = open_model("whole.pt", how, trust=True)
    x = np.ones((2, 4), np.float32)
    with torch.no_grad():
        right = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(model.run({"x": x})["output0"], right, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"factory": ""}, "--factory package.module:function"),
        ({"factory": "ours"}, "'ours' is not package.module:function"),
        ({"factory": "theirs:small"}, "No module named 'theirs'"),
        ({"factory": "ours:other"}, "ours has no function 'other'"),
        ({"factory": "ours:nothing"}, "ours has no function 'nothing'"),
        ({"factory": "ours:needs_an_argument"}, "TypeError"),
        ({"factory": "ours:parses"}, "--factory ours:parses failed: SystemExit: 2"),
        ({"factory": "builtins:dict"}, "returned a dict"),
        ({"factory": "ours:larger"}, "size mismatch for 0.weight"),
        ({"inputs": ()}, "--input NAME:DTYPE:DIMS"),
        ({"inputs": ("x:FP32:-1,9",)}, "--input NAME:DTYPE:DIMS"),
        ({"inputs": ("x:BYTES:-1,4",)}, "torch has no BYTES"),
        ({"inputs": ("x:FP32:-1,4", "y:FP32:-1,4")}, "TypeError"),
        ({"outputs": ("a:FP32:-1,3", "b:FP32:-1,3")}, "has 1 outputs"),
        ({"outputs": ("a:FP32:-1,7",)}, "a:FP32:-1,3"),
        ({"outputs": ("a:INT64:-1,3",)}, "a:FP32:-1,3"),
        ({"backend": "onnxruntime"}, 'engine.backend = "torch"'),
        ({"device": "cuda:9"}, "cuda:9"),
    ],
)
def test_what_does_not_fit_is_said_with_what_to_do(
    here: Path, changed: dict[str, Any], word: str
) -> None:
    torch.save(small().state_dict(), "a.pt")
    error = refused("a.pt", settings(**changed))
    assert word in f"{error.message} {error.hint}"


def test_a_module_that_exits_when_it_is_imported_ends_nothing_else(here: Path) -> None:
    torch.save(small().state_dict(), "a.pt")
    (here / "exits.py").write_text("raise SystemExit(2)\n")
    (here / "stopped.py").write_text("raise KeyboardInterrupt\n")
    error = refused("a.pt", settings(factory="exits:make"))
    assert "importing exits failed: SystemExit: 2" in error.message
    with pytest.raises(KeyboardInterrupt):  # whoever starts an engine may change their mind
        open_model("a.pt", settings(factory="stopped:make"))


def test_missing_and_unknown_weights_are_named(here: Path) -> None:
    state = small().state_dict()
    state["9.weight"] = state.pop("0.bias")
    torch.save(state, "a.pt")
    message = refused("a.pt", settings()).message
    assert "missing 0.bias" in message
    assert "not expected 9.weight" in message


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.onnx", "a.ts", "a.pt2"])
@pytest.mark.parametrize("keep", [0, 7, 0.5, 0.97])
def test_files_that_are_cut_off_are_refused(here: Path, name: str, keep: float) -> None:
    module = small().eval()
    if name == "a.pt":
        torch.save(module.state_dict(), name)
    elif name == "a.safetensors":
        save_file(module.state_dict(), name)
    elif name == "a.onnx":
        write_onnx(here / name)
    elif name == "a.ts":
        torch.jit.save(torch.jit.script(module), name)
    else:
        torch.export.save(torch.export.export(module, (torch.ones(2, 4),)), name)
    whole = (here / name).read_bytes()
    (here / name).write_bytes(whole[: int(keep * len(whole)) if keep < 1 else int(keep)])
    how = settings(factory="" if name in ("a.onnx", "a.ts", "a.pt2") else "ours:small")
    refused(name, how, trust=True)


def write_onnx(path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)


STRANGERS = {
    "text.onnx": b"this is no model\n" * 40,
    "text.pt": b"this is no model\n" * 40,
    "noise.onnx": bytes(range(8, 256)) * 9,
    "noise.safetensors": bytes(range(1, 256)) * 9,
    "long.safetensors": b"\xff\xff\xff\xff\xff\xff\xff\x7f{}",
    "brace.safetensors": b"\x02\x00\x00\x00\x00\x00\x00\x00{]",
    "llama.gguf": b"GGUF" + bytes(64),
    "lfs.onnx": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "zeros.pt": bytes(4096),
    "pickle.pt": pickle.dumps([1, 2, 3]),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_files_that_hold_no_model_are_refused(here: Path, name: str) -> None:
    (here / name).write_bytes(STRANGERS[name])
    assert name in refused(name, settings()).message


def test_paths_that_lead_nowhere_are_refused(here: Path) -> None:
    (here / "folder").mkdir()
    with zipfile.ZipFile("other.zip", "w") as archive:
        archive.writestr("a/readme", "hello")
    with zipfile.ZipFile("bomb.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.getinfo("a/data.pkl").file_size = 10**15
    torch.save({"epoch": 3}, "empty.pt")
    torch.save([torch.ones(2)], "list.pt")
    how = settings()
    assert "no such model file" in refused("gone.onnx").message
    assert "is a folder" in refused("./folder").message
    assert "archive without a model" in refused("other.zip", how).message
    assert "GB" in refused("bomb.pt", how).message
    assert "only 'epoch'" in refused("empty.pt", how).message
    assert "a list" in refused("list.pt", how).message
    assert "did you mean 'resnet-tiny'" in refused("resnet_tiny").hint
    assert "needs no --factory" in refused("mlp", how).message
    assert "runs no model" in refused("mlp", EngineSpec(backend="fake")).message


def test_the_kind_is_told_by_the_content_not_the_name(here: Path) -> None:
    module = small().eval()
    torch.save(module.state_dict(), "1.onnx")
    torch.jit.save(torch.jit.script(module), "2.safetensors")
    torch.export.save(torch.export.export(module, (torch.ones(2, 4),)), here / "3.pt")
    save_file(module.state_dict(), "4.pth")
    write_onnx(here / "5.bin")
    torch.save(module.state_dict(), "6.pt", _use_new_zipfile_serialization=False)
    kinds = [files.detect(path) for path in sorted(here.glob("[1-6].*"))]
    assert kinds == ["checkpoint", "torchscript", "export", "safetensors", "onnx", "checkpoint"]


def test_code_in_archives_needs_trust(here: Path) -> None:
    module = small().eval()
    torch.jit.save(torch.jit.script(module), "a.ts")
    torch.export.save(torch.export.export(module, (torch.ones(2, 4),)), here / "a.pt2")
    for name in ("a.ts", "a.pt2"):
        error = refused(name, settings(factory=""))
        assert "runs code" in error.message
        assert "--trust" in error.hint


def test_instances_agree_on_the_precision() -> None:
    models = open_instances("mlp", EngineSpec(instances=2, max_batch=2, threads=1))
    assert len(models) == 2
    assert len({model.precision for model in models}) == 1
    assert "as fast as fp32" in " ".join(
        note.text for note in models[0].notes
    )  # the first one measured,
    assert not any("× as fast" in note.text for note in models[1].notes)  # and it alone
    assert len({"packed" in model.metadata for model in models}) == 1


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/my model (2).onnx", "my-model-2"), ("v1.2-final.pt", "v1.2-final"), ("é.pt", "model")],
)
def test_names_need_no_escapes_in_urls(path: str, name: str) -> None:
    assert files.name_of(Path(path)) == name


def test_the_fake_engine_is_a_model_too() -> None:
    model = open_model("fake", EngineSpec())
    assert model.platform == "fake"


def test_an_onnx_model_loads_without_torch(here: Path) -> None:
    write_onnx(here / "a.onnx")
    code = (
        "import sys; from loadbench.engine.models import open_model;"
        "from loadbench.spec import EngineSpec;"
        "model = open_model('a.onnx', EngineSpec());"
        "print(model.outputs[0].shape, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "(3,) False"
    assert done.stderr == ""


def test_no_room_is_an_error_of_the_run(here: Path) -> None:
    torch.save(torch.nn.Linear(4, 3).state_dict(), "a.pt")
    (here / "huge.py").write_text(
        "import torch\n"
        "class Huge(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x) + torch.empty(2**50)[:3]\n"
        "def make():\n"
        "    return Huge(4, 3)\n"
    )
    with pytest.raises(LoadbenchError) as caught:
        open_model("a.pt", settings(factory="huge:make"))
    assert caught.value.exit_code == 3
    assert "does not fit into the memory" in caught.value.message
