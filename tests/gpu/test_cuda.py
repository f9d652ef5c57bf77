"""On a CUDA card: answers as on the CPU, speed beside a bare loop, memory that runs out, what the
driver tells. Written where there was no card.

    make gpu                      # or: python -m pytest tests/gpu

prints the table for tests/benchmarks/README.md. Elsewhere all of it is skipped.
"""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from loadbench.engine import zoo
from loadbench.engine.backends.streams import Streams
from loadbench.engine.backends.torch_run import Program, TorchModel
from loadbench.engine.device.cuda import open_card
from loadbench.engine.models import open_model
from loadbench.engine.signature import inputs_of
from loadbench.model import Tensor
from loadbench.spec import EngineSpec
from tests.gpu.driving import bare, drive, pictures
from tests.gpu.resnet import opened, resnet

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason=f"torch {torch.__version__} finds no CUDA card here: what a card does is untested",
)
CARD = "cuda:0"
SECONDS = 4.0  # of each measurement
TOLERANCE = {"fp32": 5e-3, "bf16": 0.04}  # of the largest output; TF32 is torch's own default
LEAST_SHARE, MOST_GAP_US = 0.90, 100.0
table: list[str] = []


@pytest.fixture(scope="module", autouse=True)
def figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Prints the table when all is done."""
    yield
    if table:
        reporter: Any = request.config.pluginmanager.get_plugin("terminalreporter")
        title = f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}"
        head = "| batch | graphs | images/s | bare loop | share | idle gap P50 |"
        reporter.write_line("\n".join(["", title, "", head, "|---|---|---|---|---|---|", *table]))


def settings(**changed: Any) -> EngineSpec:
    return EngineSpec.model_validate({"precision": "fp32", "device": CARD, "threads": 1} | changed)


def far(found: Any, right: Any) -> float:
    assert found.shape == right.shape
    return float(np.abs(found - right).max() / np.abs(right).max())


@pytest.mark.parametrize("name", zoo.NAMES)
@pytest.mark.parametrize("half", ["fp32", "bf16"])
@pytest.mark.parametrize("recorded", [False, "auto"])
def test_answers_are_those_of_the_cpu(name: str, half: str, recorded: bool | str) -> None:
    host = open_model(name, settings(device="cpu"))
    card = open_model(name, settings(precision=half, graphs=recorded, max_batch=8))
    assert card.device == CARD
    launcher = getattr(card, "launcher", None)
    assert isinstance(launcher, Streams), card.notes
    closed = all(-1 not in tensor.shape for tensor in card.inputs)
    assert (launcher.recorded is not None) == (closed and recorded == "auto"), card.notes
    for rows in (8, 3, 1, 8):
        arrays = inputs_of(host, rows, seed=rows)
        for output, right in host.run(arrays).items():
            assert far(card.run(arrays)[output], right) < TOLERANCE[half]


@pytest.mark.parametrize("recorded", [False, "auto"])
@pytest.mark.parametrize("batch", [32, 64, 128])
def test_images_per_second_beside_a_bare_loop(batch: int, recorded: bool | str) -> None:
    asked = settings(precision="bf16", graphs=recorded, max_batch=batch)
    model = resnet(asked, CARD)
    launcher = model.launcher
    assert isinstance(launcher, Streams), model.notes
    assert (launcher.recorded is not None) == (recorded == "auto"), model.notes
    before = bare(model, batch, SECONDS)
    found = asyncio.run(drive(model, asked, SECONDS))
    loop = (before + bare(model, batch, SECONDS)) / 2
    share = found.rate / loop
    table.append(
        f"| {batch} | {'on' if recorded else 'off'} | {found.rate:,.0f} | {loop:,.0f}"
        f" | {share:.3f} | {found.gap_us:.0f} µs |"
    )
    assert not found.failed
    alone = model.run({"image": pictures()[:4, 0]})["output0"]
    for number in range(4):
        assert far(found.answers[number][0], alone[number]) < 0.05  # other kernels by batch size
    if recorded:  # without graphs the host is busy launching kernels, in the bare loop as well
        assert share >= LEAST_SHARE
        assert found.gap_us <= MOST_GAP_US


class Deciding(torch.nn.Module):
    """Looks at values on the host, which no graph can."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv(image.to(torch.float32)).amax(dim=(2, 3))
        return found if found.sum().item() > 0 else -found


def test_a_model_that_cannot_be_recorded_runs_without_graphs() -> None:
    torch.manual_seed(1)
    module = Deciding()
    host = opened(module, settings(device="cpu", max_batch=8), "cpu")
    right = host.run({"image": pictures()[:8, 0]})["output0"]
    model = opened(module, settings(max_batch=8), CARD)
    assert [note.code for note in model.notes] == ["backend", "graphs"]
    assert isinstance(model.launcher, Streams)
    assert model.launcher.recorded is None
    for _ in range(3):
        assert far(model.run({"image": pictures()[:8, 0]})["output0"], right) < TOLERANCE["fp32"]


class Wide(torch.nn.Module):
    """48 MB for a picture while it runs, hardly anything beyond."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 240, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conv(image.to(torch.float32)).amax(dim=(2, 3))
        return found


def test_a_card_without_room_costs_nobody_an_answer() -> None:
    asked = settings(graphs=False, max_batch=64)
    torch.manual_seed(1)
    model = opened(Wide(), asked, CARD)
    right = model.run({"image": pictures()[:8, 0]})["output0"]
    torch.cuda.empty_cache()
    ballast: list[torch.Tensor] = []

    def squeeze() -> None:
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(0)
        ballast.append(torch.empty(max(0, free - (900 << 20)), dtype=torch.uint8, device=CARD))

    found = asyncio.run(drive(model, asked, SECONDS, squeeze))
    ballast.clear()
    torch.cuda.empty_cache()
    assert not found.failed
    assert found.most < 64
    for number in range(8):
        assert far(found.answers[number][0], right[number]) < 5e-3


class Greedy(torch.nn.Module):
    """Wants more than any card has."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.zeros(1 << 50, device=x.device).sum()


@pytest.mark.parametrize("scripted", [False, True])
def test_want_of_memory_is_known_for_what_it_is(scripted: bool) -> None:
    """TorchScript says it with an error of its own."""
    module = Greedy()
    called: Any = torch.jit.script(module) if scripted else module
    inputs = (Tensor("x", "FP32", (-1,)),)
    program = Program("greedy", "pytorch", module, lambda given: called(given["x"]), inputs)
    with pytest.raises(MemoryError):
        TorchModel(program, CARD).run({"x": np.zeros(1, np.float32)})


def test_a_share_of_the_card_is_what_may_be_had() -> None:
    torch.ones(1, device=CARD)
    card = open_card(0)
    before = card.memory()
    torch.cuda.set_per_process_memory_fraction(0.25, 0)
    try:
        after = card.memory()
        assert after.free <= 0.26 * before.total < before.total
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(before.total // 3, dtype=torch.uint8, device=CARD)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)


def test_a_card_tells_of_itself() -> None:
    torch.ones(1, device=CARD)
    card = open_card(0)
    assert card.title() == torch.cuda.get_device_name(0)
    assert card.uuid.startswith("GPU-")
    memory = card.memory()
    assert 1 << 30 < memory.total < 1 << 42
    assert 0 < memory.free <= memory.total
    assert 0 <= memory.used <= memory.held <= memory.total - memory.free
    card.begin_peak()
    kept = torch.empty(64 << 20, dtype=torch.uint8, device=CARD)
    assert kept.nbytes <= (card.peak() or 0) < 1.1 * kept.nbytes
    state = card.state()
    assert state.clock_mhz is not None
    assert 100 <= state.clock_mhz <= 4000
    assert os.getpid() not in state.others
