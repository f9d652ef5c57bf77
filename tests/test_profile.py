"""A profile has the operators of torch, however it is run: launched, or as a stage."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from loadbench.engine.statistics import Account
from loadbench.engine.watch.profile import Operators, Recorded
from tests.batching import DEADLINE, Asked, Gate, run
from tests.served import serving, settings
from tests.test_ahead import Launching
from tests.test_watch import mlp_request


def test_a_model_that_launches_is_recorded() -> None:
    class Torch(Launching):
        platform = "pytorch"

        def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            return {"y": torch.from_numpy(super().run(arrays)["y"]).add(0).numpy()}

    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        assert isinstance(gate, Launching)
        operators = Operators()
        for value in (1, 2, 3):
            asked.ask(value)
            await asked.until(value)
            asked.check(value)
            if value == 1:
                assert gate.launched == [1]
                asked.batcher.replace(lambda model: Recorded(model, operators))
            if value == 2:
                asked.batcher.replace(lambda model: model.inner)  # type: ignore[attr-defined]
        assert gate.launched == [1, 1]
        names = [event["name"] for event in operators.events]
        assert names.count("aten::add") == 1

    run(test, DEADLINE, Torch())


def test_a_stage_of_a_pipeline_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    path.write_text('[[stage]]\nmodel = "mlp"\n')
    options = settings("max_batch=2", "threads=1", "precision=fp32")
    with serving(str(path), *options) as engine, ThreadPoolExecutor(1) as pool:
        asked = b'{"batches": 2, "seconds": 20}'
        profile = pool.submit(engine.call, "/v2/models/line/profile", asked)
        body, headers = mlp_request(np.zeros((1, 256), np.float32))
        while not profile.done():
            assert engine.call("/v2/models/line/infer", body, **headers).status == 200
    events = profile.result().json["traceEvents"]
    assert any(event["name"].startswith(("aten::", "mkldnn::")) for event in events)
