"""Models made on the spot, with seeded weights and no downloads: the same on every machine.

They stand for three kinds of serving work: `mlp` is all matrix products, `resnet-tiny` convolutions
with batch norm, `encoder` attention over sequences of any length. What they compute means nothing.
How they are run is the backends' business.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loadbench import model

WORDS = 8192
LONGEST = 512


class Entry(NamedTuple):
    """A zoo model and the tensors it works on, with the batch axis (−1) in front."""

    module: nn.Module
    inputs: tuple[model.Tensor, ...]
    outputs: tuple[model.Tensor, ...]
    sizes: Mapping[str, tuple[int, ...]]  # usual dimensions for those left open, without the batch


class Residual(nn.Module):
    """Two 3×3 convolutions and a way around them."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.around: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.around = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.around(x))


class ResNetTiny(nn.Module):
    """Six residual blocks; any height and width, since the last step averages over both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()
        )
        self.blocks = nn.Sequential(
            Residual(32, 32, 1),
            Residual(32, 32, 1),
            Residual(32, 64, 2),
            Residual(64, 64, 1),
            Residual(64, 128, 2),
            Residual(128, 128, 1),
        )
        self.head = nn.Linear(128, 10)

    def forward(self, image: Tensor) -> Tensor:
        y: Tensor = self.head(self.blocks(self.stem(image)).mean(dim=(2, 3)))
        return y


class Attention(nn.Module):
    """A pre-norm transformer layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        rows, length, width = x.shape
        mixed = self.mix(self.norm1(x)).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = mixed.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        x = x + self.out(y.transpose(1, 2).reshape(rows, length, width))
        z: Tensor = x + self.down(F.gelu(self.up(self.norm2(x))))
        return z


class Encoder(nn.Module):
    """Token ids and their mask → one vector per text. Texts of up to LONGEST tokens."""

    def __init__(self, width: int = 256, heads: int = 4, layers: int = 4) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.places = nn.Embedding(LONGEST, width)
        self.layers = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        # Modulo: any id is a word, so load made from the metadata alone is never out of range.
        x = self.words(input_ids.remainder(WORDS))
        x = x + self.places(torch.arange(input_ids.shape[1], device=input_ids.device))
        keep = (attention_mask != 0).to(torch.float32)
        bias = (keep - 1)[:, None, None, :] * 10_000.0  # finite: a row of only padding has no NaN
        for layer in self.layers:
            x = layer(x, bias)
        weights = keep[:, :, None]
        y: Tensor = (self.norm(x) * weights).sum(1) / weights.sum(1).clamp(min=1.0)
        return y


def _mlp() -> nn.Module:
    widths = (256, 2048, 2048, 2048, 10)
    layers: list[nn.Module] = []
    for width_in, width in pairwise(widths):
        layers += [nn.Linear(width_in, width), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _stir(module: nn.Module) -> None:
    """Batch norms as after training: with the defaults (0, 1) they would do nothing."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)


NAMES = ("mlp", "resnet-tiny", "encoder")


def build(name: str, seed: int) -> Entry:
    """One of NAMES in fp32 on the CPU. The global random state is left as it was."""
    image = model.Tensor("image", "FP32", (-1, 3, -1, -1))
    ids = model.Tensor("input_ids", "INT64", (-1, -1))
    mask = model.Tensor("attention_mask", "INT64", (-1, -1))
    logits = model.Tensor("logits", "FP32", (-1, 10))
    embedding = model.Tensor("text_embedding", "FP32", (-1, 256))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        if name == "mlp":
            return Entry(_mlp(), (model.Tensor("input", "FP32", (-1, 256)),), (logits,), {})
        if name == "resnet-tiny":
            resnet = ResNetTiny()
            _stir(resnet)
            # Measured on CPUs: 1.3 to 1.7 × as fast. torch declares no such overload.
            resnet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            return Entry(resnet, (image,), (logits,), {"image": (3, 64, 64)})
        sizes = {"input_ids": (64,), "attention_mask": (64,)}
        return Entry(Encoder(), (ids, mask), (embedding,), sizes)
