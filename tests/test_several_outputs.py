"""A model that returns dicts and tuples within one another, all the way to HTTP."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.served import Engine, request_binary, serving

MODULE = """
import torch

class Nested(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return {"scaled": x * self.scale,
                "stats": (x.sum(1), {"best": x.argmax(1), "any": x > 2}),
                "none": None}
"""
X = np.array([[1, 5, 2], [7, 0, 1]], np.float32)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    import torch

    folder = tmp_path_factory.mktemp("nested")
    (folder / "nested_model.py").write_text(MODULE)
    torch.save({"scale": torch.tensor(3.0)}, folder / "nested.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        chosen = ["--factory", "nested_model:Nested", "--input", "x:FP32:-1,3"]
        with serving(str(folder / "nested.pt"), *chosen) as found:
            yield found


def test_every_tensor_is_an_output_named_by_its_place(engine: Engine) -> None:
    told = engine.call("/v2/models/nested").json["outputs"]
    assert [(found["name"], found["datatype"], found["shape"]) for found in told] == [
        ("scaled", "FP32", [-1, 3]), ("stats_0", "FP32", [-1]), ("stats_1_best", "INT64", [-1]),
        ("stats_1_any", "BOOL", [-1, 3]),
    ]  # fmt: skip


def test_all_of_them_are_answered_in_json(engine: Engine) -> None:
    entry = {"name": "x", "shape": [2, 3], "datatype": "FP32", "data": X.tolist()}
    answer = engine.call("/v2/models/nested/infer", {"inputs": [entry]}).json["outputs"]
    assert {found["name"]: found["data"] for found in answer} == {
        "scaled": (3 * X).ravel().tolist(),
        "stats_0": [8, 8],
        "stats_1_best": [1, 0],
        "stats_1_any": [False, True, False, True, False, False],
    }


def test_those_that_are_asked_for_are_answered_in_binary(engine: Engine) -> None:
    wanted = [{"name": "stats_1_best"}, {"name": "scaled"}]
    body, headers = request_binary(X, outputs=wanted, parameters={"binary_data_output": True})
    answer = engine.call("/v2/models/nested/infer", body, **headers)
    assert [found["name"] for found in answer.json["outputs"]] == ["stats_1_best", "scaled"]
    assert np.frombuffer(answer.tail[:16], np.int64).tolist() == [1, 0]
    assert (np.frombuffer(answer.tail[16:], np.float32).reshape(2, 3) == 3 * X).all()
