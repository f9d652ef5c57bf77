"""Weights packed for oneDNN: the same answers, in whatever way a layer is called."""

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from loadbench.engine import signature
from loadbench.engine.assembly import Wanted
from loadbench.engine.backends import packed
from loadbench.engine.loader import _as_chosen
from loadbench.engine.models import open_model
from loadbench.errors import LoadbenchError
from loadbench.spec import EngineSpec


def opened(name: str, **settings: Any) -> Any:
    given = {"precision": "fp32", "threads": 1, **settings}
    return open_model(name, EngineSpec(**given), trust=False)


def noted(model: Any) -> str:
    return " ".join(note.text for note in model.notes if note.code == "packed")


@pytest.mark.parametrize("name", ["mlp", "resnet-tiny", "encoder"])
def test_answers_are_those_of_the_layers_as_they_are(name: str) -> None:
    plain, quick = opened(name, packed=False), opened(name, packed=True)
    assert not plain.packs
    assert quick.packs
    for rows in (1, 3, 32):
        arrays = signature.inputs_of(plain, rows, seed=rows)
        for output in plain.outputs:
            exact, found = plain.run(arrays)[output.name], quick.run(arrays)[output.name]
            np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)


def test_it_holds_in_half_precision() -> None:
    exact, quick = opened("encoder", packed=False), opened("encoder", packed=True, precision="bf16")
    assert quick.packs
    assert {layer.weight.dtype for layer in quick.packs} == {torch.bfloat16}
    arrays = signature.inputs_of(exact, 4, seed=2)
    (name,) = (output.name for output in exact.outputs)
    gap = np.abs(quick.run(arrays)[name] - exact.run(arrays)[name]).max()
    assert 0 < gap < 0.05 * np.abs(exact.run(arrays)[name]).max()


def test_what_is_chosen_is_said() -> None:
    left, asked, chosen = opened("mlp", packed=False), opened("mlp", packed=True), opened("mlp")
    assert noted(left) == ""
    assert noted(asked) == "weights of 4 layers packed for oneDNN, as asked"
    assert bool(chosen.packs) is ("× as fast" in noted(chosen) and "only" not in noted(chosen))
    assert "batch 32" in noted(chosen)


def test_the_copy_counts_as_memory() -> None:
    plain, quick = opened("mlp", packed=False), opened("mlp", packed=True)
    weights = sum(layer.weight.nbytes for layer in quick.packs)
    assert quick.memory()["CPU"] == plain.memory()["CPU"] + weights


@pytest.mark.parametrize("name", ["mlp", "resnet-tiny"])
def test_the_copy_goes_with_the_model_although_nobody_collects(name: str) -> None:
    model = opened(name, packed=True)
    layers = [weakref.ref(layer) for layer in model.packs]
    gc.collect()
    gc.freeze()  # as when the engine begins to serve
    try:
        del model
        gc.collect()
        assert not any(layer() for layer in layers)
    finally:
        gc.unfreeze()


def test_unpacked_layers_are_themselves_again() -> None:
    model = opened("mlp", packed=True)
    layers = model.packs
    packed.unpack(model)
    assert model.packed == 0
    assert all("forward" not in vars(layer) for layer in layers)


def test_changed_weights_are_packed_anew() -> None:
    model = opened("mlp", packed=True)
    arrays = signature.inputs_of(model, 2, seed=3)
    for layer in model.packs:
        layer.weight.data = layer.weight.data * 0.5
    stale = model.run(arrays)["logits"]
    packed.renew(model)
    fresh = model.run(arrays)["logits"]
    packed.unpack(model)
    np.testing.assert_allclose(model.run(arrays)["logits"], fresh, rtol=1e-4, atol=1e-6)
    assert np.abs(stale - fresh).max() > 1e-3


def test_layers_that_someone_watches_or_that_are_small_are_left() -> None:
    model = opened("mlp", packed=True)
    packed.unpack(model)
    module = model.program.module
    handle = module[2].register_forward_hook(lambda *_: None)
    assert {layer.weight.numel() for layer in packed._layers(model)} == {
        module[0].weight.numel(), module[4].weight.numel(), module[6].weight.numel(),
    }  # fmt: skip
    handle.remove()
    model.program = model.program._replace(module=nn.Sequential(nn.Linear(8, 8)))
    assert list(packed._layers(model)) == []


def test_what_a_packed_layer_cannot_do_the_plain_one_does() -> None:
    linear, images = nn.Linear(64, 64), nn.Conv2d(3, 64, 5)
    for layer in (linear, images):
        layer.requires_grad_(False)
    row, image = torch.rand(64), torch.rand(3, 9, 9)
    with torch.inference_mode():
        quick, convolved = packed._linear(linear), packed._convolution(images)
        torch.testing.assert_close(quick(row), linear(row))
        torch.testing.assert_close(quick(torch.rand(0, 64)), torch.empty(0, 64))
        torch.testing.assert_close(convolved(image), images(image))
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            quick(torch.rand(2, 63))
        with pytest.raises(RuntimeError, match="same dtype"):
            quick(torch.rand(2, 64).double())


def test_there_must_be_room_for_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def memory(self) -> Any:
            return type("Memory", (), {"free": 30_000_000})

    monkeypatch.setattr("loadbench.engine.device.open_device", lambda *_: Full())
    model = opened("mlp", packed=True)
    assert not model.packs
    assert "a second copy takes" in noted(model)


def test_a_new_version_is_packed_as_the_one_that_serves() -> None:
    for served, expected in (
        (opened("mlp", packed=True), True),
        (opened("mlp", packed=False), False),
    ):
        wanted = Wanted("mlp", "2", "mlp", EngineSpec(), trust=False)
        assert _as_chosen(wanted, served).packed is expected


def test_files_of_code_say_that_they_are_left(tmp_path: Path) -> None:
    path = tmp_path / "linear.pt"
    torch.jit.save(torch.jit.script(nn.Sequential(nn.Linear(256, 256))), str(path))
    settings = EngineSpec(packed=True, inputs=("x:FP32:-1,256",), precision="fp32", threads=1)
    assert "not for cards or files of code" in noted(open_model(str(path), settings, trust=True))


def test_it_is_refused_where_it_has_no_meaning() -> None:
    with pytest.raises((LoadbenchError, ValueError), match="packed is for backend"):
        EngineSpec(backend="onnxruntime", packed=True)
