"""A model that torch compiled meets inputs that it cannot compute, in a real engine."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.served import serving, settings


class Sum(torch.nn.Module):
    """Two inputs whose lengths are open and must be the same."""

    one: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("one", torch.ones(1))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * self.one + y


def asked(x: int, y: int) -> dict[str, Any]:
    tensors = {"x": np.ones((1, x)), "y": np.ones((1, y))}
    return {
        "inputs": [
            {"name": name, "datatype": "FP32", "shape": list(array.shape), "data": array.tolist()}
            for name, array in tensors.items()
        ]
    }


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_what_it_cannot_compute_fails_alone_and_the_next_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "sum.pt"
    torch.save(Sum().state_dict(), path)
    given = ("--factory", f"{__name__}:Sum", "--input", "x:FP32:-1,-1", "--input", "y:FP32:-1,-1")
    chosen = settings("backend=torch-compile", "precision=fp32", "max_batch=4", "threads=1")
    with serving(str(path), *given, *chosen) as engine:
        infer = "/v2/models/sum/infer"
        refused = engine.call(infer, asked(4, 5))
        assert refused.status == 500
        assert "the model failed" in refused.json["error"]
        answer = engine.call(infer, asked(4, 4))
        assert answer.json["outputs"][0]["data"] == [2] * 4
        assert engine.stop() == 0
