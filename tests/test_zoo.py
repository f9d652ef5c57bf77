"""The zoo: seeded, as declared, and really the kinds of network that they are said to be."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from loadbench.engine import zoo
from loadbench.engine.models import open_model
from loadbench.engine.signature import example, inputs_of
from loadbench.model import Tensor
from loadbench.spec import EngineSpec

FP32 = EngineSpec(precision="fp32", threads=1)


def weights(name: str, seed: int) -> Iterator[torch.Tensor]:
    return iter(zoo.build(name, seed).module.state_dict().values())


@pytest.mark.parametrize("name", zoo.NAMES)
def test_the_seed_decides_every_weight(name: str) -> None:
    state = torch.get_rng_state()
    assert all(map(torch.equal, weights(name, 5), weights(name, 5)))
    assert not all(map(torch.equal, weights(name, 5), weights(name, 6)))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", zoo.NAMES)
def test_inputs_and_outputs_are_as_declared(name: str) -> None:
    entry = zoo.build(name, 1)
    model = open_model(name, FP32)
    assert model.batched
    assert [(t.name, t.datatype, (-1, *t.shape)) for t in model.inputs] == [
        (t.name, t.datatype, t.shape) for t in entry.inputs
    ]
    assert [(t.name, t.datatype, (-1, *t.shape)) for t in model.outputs] == [
        (t.name, t.datatype, t.shape) for t in entry.outputs
    ]
    found = model.run(inputs_of(model, 5))
    for tensor in model.outputs:
        assert found[tensor.name].shape == (5, *tensor.shape)
        assert found[tensor.name].dtype == np.float32
        assert found[tensor.name].std() > 0.01  # not all the same


def test_the_mlp_is_the_one_that_is_written_down() -> None:
    shapes = [tuple(w.shape) for w in weights("mlp", 1) if w.dim() == 2]
    assert shapes == [(2048, 256), (2048, 2048), (2048, 2048), (10, 2048)]


def test_the_resnet_has_shortcuts_and_batch_norms_that_matter() -> None:
    module = zoo.build("resnet-tiny", 1).module.eval()
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        right = module(image)
        norm = next(part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d))
        norm.running_mean = torch.zeros(32)
        assert not torch.allclose(module(image), right)
    block = zoo.Residual(4, 4, 1).eval()
    for part in (block.norm1, block.norm2):
        torch.nn.init.zeros_(part.weight)
    x = torch.rand(1, 4, 8, 8)
    assert torch.equal(block(x), x)  # with nothing in the branch only the way around is left


@pytest.mark.parametrize("size", [(32, 48), (64, 64), (97, 33)])
def test_the_resnet_takes_images_of_any_size(size: tuple[int, int]) -> None:
    model = open_model("resnet-tiny", FP32)
    image = Tensor("image", "FP32", (3, *size))
    assert model.run(example([image], 2))["logits"].shape == (2, 10)


def test_the_encoder_ignores_what_is_masked() -> None:
    model = open_model("encoder", FP32)
    random = np.random.default_rng(3)
    for length in (1, 7, 20, zoo.LONGEST):
        ids = random.integers(-(2**62), 2**62, (3, length))
        mask = np.ones_like(ids)
        plain = model.run({"input_ids": ids, "attention_mask": mask})["text_embedding"]
        assert plain.shape == (3, 256)
        if length + 9 > zoo.LONGEST:
            continue
        padded = model.run(
            {
                "input_ids": np.pad(ids, ((0, 0), (0, 9)), constant_values=77),
                "attention_mask": np.pad(mask, ((0, 0), (0, 9))),
            }
        )["text_embedding"]
        np.testing.assert_allclose(padded, plain, atol=1e-4)
    nothing = model.run({"input_ids": ids, "attention_mask": np.zeros_like(ids)})
    assert np.isfinite(nothing["text_embedding"]).all()
