"""A network of ResNet-50's size from torch's own parts, with weights drawn: nothing is downloaded.

It takes pictures as they are sent, 8 bits a channel, and turns them into numbers on the card: as
floats they would be four times the bytes, all of which the host has to copy.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loadbench import model
from loadbench.engine.backends.eager import caller, heavy
from loadbench.engine.backends.prepare import finish, place
from loadbench.engine.backends.torch_run import Program, TorchModel
from loadbench.spec import EngineSpec

SIDE = 224
IMAGE = model.Tensor("image", "UINT8", (-1, 3, SIDE, SIDE))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions, and a way around them."""

    def __init__(self, wide: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide, width, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(4 * width)
        self.around: nn.Module = nn.Identity()
        if stride != 1 or wide != 4 * width:
            self.around = nn.Sequential(
                nn.Conv2d(wide, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.norm3(self.conv3(y)) + self.around(x))


class ResNet50(nn.Module):
    """50 layers, 25.6 million weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        blocks: list[nn.Module] = []
        wide = 64
        for width, number, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for at in range(number):
                blocks.append(Bottleneck(wide, width, stride if at == 0 else 1))
                wide = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(wide, 1000)

    def forward(self, image: Tensor) -> Tensor:
        x = (image.to(torch.float32) - 118.0) / 58.0
        y: Tensor = self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))
        return y


def resnet(settings: EngineSpec, where: str) -> TorchModel:
    """As a Model on `where`, as the settings have it."""
    torch.manual_seed(1)
    return opened(ResNet50(), settings, where)


def opened(module: nn.Module, settings: EngineSpec, where: str) -> TorchModel:
    """A module that takes one image as a Model."""
    module = place(module, where)
    call = caller(module, (IMAGE.name,))
    program = Program("resnet50", "pytorch", module, call, (IMAGE,), heavy=heavy(module))
    return finish(program, settings, where)
