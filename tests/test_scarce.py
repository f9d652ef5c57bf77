"""What is chosen by measuring, where the largest batch finds no memory: smaller ones are measured.
The memory is a stand-in's: a module that takes so many rows and no more."""

from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo.utils

from loadbench.engine.backends import beside, compiled, precision
from loadbench.engine.backends.torch_run import TorchModel
from tests.test_streams import Net, net

WANT = "CUDA out of memory. Tried to allocate 2.00 GiB\nmore"


class Tight(Net):
    """Room for so many rows, and in half precision for another number."""

    def __init__(self, room: int, half: int = 1 << 30) -> None:
        super().__init__()
        self._room = {torch.float32: room, torch.bfloat16: half}

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> dict[str, torch.Tensor]:
        if len(x) > self._room[self.layer.weight.dtype]:
            raise torch.OutOfMemoryError(WANT)
        return super().forward(x, n)


def told(model: TorchModel) -> str:
    return next(note.text for note in model.notes if note.code == "precision")


def test_the_precision_is_chosen_by_the_largest_batch_that_fits() -> None:
    model = net(Tight(5), precision="auto", max_batch=64)
    assert "at batch 4, " in told(model)


@pytest.mark.parametrize("room", [0, 2])
def test_a_half_precision_that_finds_no_memory_is_not_taken(room: int) -> None:
    model = net(Tight(8, room), precision="auto", max_batch=8)
    assert told(model).startswith("fp32: bf16 does not work here (cpu has no room for this batch)")
    assert model.precision == "fp32"
    assert {weight.dtype for weight in model.weights()} == {torch.float32}


def test_no_memory_for_the_weights_in_half_precision_leaves_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError(WANT)

    monkeypatch.setattr(precision, "lower", full)
    model = net(precision="auto")
    assert told(model) == f"fp32: bf16 does not work here ({WANT.partition(chr(10))[0]})"
    assert model.precision == "fp32"


def test_a_model_without_room_for_one_row_is_still_an_error() -> None:
    model = net()
    model.program = model.program._replace(call=lambda _: Tight(0)(torch.ones(1, 4), None))
    with pytest.raises(MemoryError):
        beside.usual_rows(model, 8)


def test_two_models_are_compared_by_a_batch_that_both_can_run() -> None:
    found, full = net(Tight(3)), net(Tight(20))
    seen = beside.compare(found, full, 64)
    assert (seen.rows, seen.error) == (2, 0)


def test_a_model_is_compiled_for_as_many_rows_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "compiled", lambda program, batched: program)
    monkeypatch.setitem(torch._dynamo.utils.counters["stats"], "unique_graphs", 1)
    model = net(Tight(5))
    ran: list[int] = []
    call = model.program.call

    def noted(found: dict[str, torch.Tensor]) -> Any:
        ran.append(len(found["x"]))
        return call(found)

    model.program = model.program._replace(call=noted)
    compiled.compile_model(model, 16)
    assert ran == [1, 16, 8, 4, 1, 4]
    assert "one row and for any number" in model.notes[-1].text
    assert np.isfinite(model.run({"x": np.ones((4, 4), "f"), "n": np.ones((4, 1), int)})["y"]).all()
