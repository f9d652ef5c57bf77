"""Files as people really export them, with habits that the zoo's own exports do not have."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from loadbench.engine.backends import Model
from loadbench.engine.models import open_model
from loadbench.engine.signature import inputs_of
from loadbench.errors import SpecError
from loadbench.spec import EngineSpec


def opened(path: Path, *inputs: str) -> Model:
    settings = EngineSpec.model_validate({"precision": "fp32", "threads": 1, "inputs": inputs})
    return open_model(str(path), settings, trust=True)


def exported(path: Path, module: torch.nn.Module, shapes: dict[str, Any], *args: Any) -> Model:
    """Through torch.export; `shapes` are those of inputs other than `x`, whose rows are open."""
    rows = {"x": {0: torch.export.Dim("rows")}}
    torch.export.save(torch.export.export(module, args, dynamic_shapes=rows | shapes), path)
    return opened(path)


class Causal(torch.nn.Module):
    """The first axis is time: what comes later leaves earlier answers alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(x, 0)


class Anticausal(torch.nn.Module):
    """Likewise, backwards."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(x.flip(0), 0).flip(0)


@pytest.mark.parametrize("module", [Causal(), Anticausal()])
def test_an_axis_of_time_is_no_batch(tmp_path: Path, module: torch.nn.Module) -> None:
    path = tmp_path / "time.pt"
    torch.jit.script(module).save(str(path))  # type: ignore[no-untyped-call]
    model = opened(path, "x:FP32:-1,4")
    assert not model.batched
    _, note = model.notes
    assert "depends on the rows beside it" in note.text


class Regular(torch.nn.Module):
    """What behaves differently in training."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(4)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.drop(self.norm(x))
        return found


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("way", ["traced", "scripted", "exported"])
def test_what_was_saved_in_training_is_served_for_inference(tmp_path: Path, way: str) -> None:
    module = Regular().train()
    path = tmp_path / "a.pt"
    example = torch.randn(4, 4)
    if way == "exported":
        model = exported(path, module, {}, example)
    else:
        saved: Any = torch.jit.script(module)
        if way == "traced":
            saved = torch.jit.trace(module, (example,), check_trace=False)  # type: ignore[no-untyped-call]
        saved.save(str(path))
        model = opened(path, "x:FP32:-1,4")
    assert model.batched
    assert [note.code for note in model.notes[1:]] == ([] if way == "scripted" else ["training"])
    arrays = inputs_of(model, 5)
    with torch.no_grad():
        right = module.eval()(torch.from_numpy(arrays["x"])).numpy()
    for _ in range(2):  # and it learns nothing from what it is asked
        np.testing.assert_allclose(model.run(arrays)["output0"], right, rtol=1e-4)


class Choosing(torch.nn.Module):
    """Takes more than tensors."""

    def forward(
        self, x: torch.Tensor, mode: str, mask: torch.Tensor | None = None, by: float = 1.5
    ) -> torch.Tensor:
        found = {"mul": x * by, "sum": x + by}[mode]
        return found if mask is None else found * mask


def test_what_export_made_part_of_a_program_is_no_input(tmp_path: Path) -> None:
    constants = {"mode": "mul", "mask": None, "by": 2.5}
    example = torch.randn(2, 3)
    model = exported(
        tmp_path / "a.pt2", Choosing(), dict.fromkeys(constants), example, *constants.values()
    )
    assert [(t.name, t.shape) for t in model.inputs] == [("x", (3,))]
    assert model.batched
    x = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(model.run({"x": x})["output0"], x * 2.5)


def test_an_input_without_any_shape_asks_for_one(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    shapeless = [onnx.ValueInfoProto(name=name) for name in "xy"]
    for value in shapeless:
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "g", shapeless[:1], shapeless[1:])
    opsets = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )
    with pytest.raises(SpecError, match="does not say how many dimensions") as caught:
        opened(path)
    assert "--input x:FP32:DIMS" in caught.value.hint
    with pytest.raises(SpecError, match="does not say how many dimensions"):
        opened(path, "x:INT64:-1,4")
    model = opened(path, "x:FP32:-1,4")
    assert model.batched
    assert model.inputs[0].shape == (4,)
