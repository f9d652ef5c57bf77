"""Model repositories on disk for the tests: ONNX models that tell which version they are."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def adding(path: Path, number: float, width: int = 4) -> Path:
    """Writes a model that adds `number` to each value of `x` [-1, width]."""
    term = numpy_helper.from_array(np.array([number], np.float32), "term")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", width])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])
    node = helper.make_node("Add", ["x", "term"], ["y"])
    made = helper.make_model(
        helper.make_graph([node], "adding", [x], [y], [term]),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    made.ir_version = 9
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, path)
    return path


def repository(folder: Path, *versions: int, name: str = "adder") -> Path:
    """A model repository with one model; each version adds its number."""
    for version in versions:
        adding(folder / name / str(version) / "model.onnx", version)
    return folder
