"""Watching a model: each fault is made on purpose and must be found, and nothing else."""

import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from loadbench.engine.backends.eager import caller
from loadbench.engine.backends.prepare import finish, place
from loadbench.engine.backends.torch_run import Program, TorchModel
from loadbench.engine.execution import Piece
from loadbench.engine.job import Job
from loadbench.engine.models import open_model
from loadbench.engine.protocol import Plan
from loadbench.engine.watch import Watcher, drift, seldom, watch
from loadbench.engine.watch.drift import Drift, Sample, compared
from loadbench.engine.watch.memory import Growth
from loadbench.engine.watch.modules import State
from loadbench.engine.watch.slow import SlowLog
from loadbench.errors import LoadbenchError, RunError, SpecError
from loadbench.model import Note, Tensor
from loadbench.spec import EngineSpec
from loadbench.units import MS, SECOND
from loadbench.watchspec import WatchSpec
from tests.served import serving, settings

OFF = WatchSpec(state=False, memory=False)
MB = 1 << 20


class Net(torch.nn.Module):
    """x → log of a linear layer with ones, through a norm: NaN for rows that sum up below zero."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(4, 4, bias=False)
        torch.nn.init.ones_(self.lin.weight)
        self.log = Log()
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.norm(self.log(self.lin(x)))
        return found


class Log(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.log()


def torch_model(module: torch.nn.Module, name: str = "net") -> TorchModel:
    program = Program(
        name, "pytorch", place(module, "cpu"), caller(module, ("x",)),
        (Tensor("x", "FP32", (-1, 4)),), ("y",),
    )  # fmt: skip
    return finish(program, EngineSpec(threads=1, precision="fp32"), "cpu")


def told() -> tuple[list[Note], Any]:
    notes: list[Note] = []
    return notes, notes.append


# ---- values that are no numbers


def test_the_module_in_which_numbers_end_is_named() -> None:
    (model,) = watch([torch_model(Net())], OFF.model_copy(update={"finite": True}), print).models
    good = np.ones((2, 4), np.float32)
    assert np.isfinite(model.run({"x": good})["y"]).all()
    bad = np.array([[1, 1, 1, 1], [-1, -1, -1, -1]], np.float32)
    with pytest.raises(LoadbenchError, match=r"'y': 4 values are NaN .* it begins in log \(Log\)"):
        model.run({"x": bad})
    assert np.isfinite(model.run({"x": good})["y"]).all(), "the hooks are gone"


def test_what_came_in_as_nan_is_the_clients_fault() -> None:
    (model,) = watch([torch_model(Net())], OFF.model_copy(update={"finite": True}), print).models
    bad = np.array([[1, np.nan, 1, 1]], np.float32)
    with pytest.raises(SpecError, match="input 'x': a value is NaN or infinite"):
        model.run({"x": bad})


@pytest.mark.parametrize("how", ["torchscript", "onnx"])
def test_a_model_whose_parts_cannot_be_seen_still_says_which_output(
    how: str, tmp_path: Path
) -> None:
    module, path = Net().eval(), tmp_path / "net"
    settings = EngineSpec(threads=1, inputs=("x:FP32:-1,4",))
    if how == "onnx":
        path = path.with_suffix(".onnx")
        sides = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4])
            for name in ("x", "output0")
        ]
        node = onnx.helper.make_node("Log", ["x"], ["output0"])
        graph = onnx.helper.make_graph([node], "net", sides[:1], sides[1:])
        opset = onnx.helper.make_opsetid("", 17)
        made = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
        path.write_bytes(made.SerializeToString())
        settings = EngineSpec(threads=1)
    else:
        path = path.with_suffix(".pt")
        scripted: Any = torch.jit.script(module)
        scripted.save(str(path))
    inner = open_model(str(path), settings, trust=True)
    (model,) = watch([inner], OFF.model_copy(update={"finite": True}), print).models
    with pytest.raises(LoadbenchError, match="'output0': 4 values are NaN"):
        model.run({"x": -np.ones((1, 4), np.float32)})


# ---- what the model changes in itself


def test_a_batch_norm_that_goes_on_learning_is_found() -> None:
    module = Net()
    model = torch_model(module)
    notes, tell = told()
    watched = watch([model], WatchSpec(memory=False), tell)
    model.run({"x": np.ones((4, 4), np.float32)})
    watched.watcher.look()
    assert notes == []
    module.norm.train()
    model.run({"x": np.random.default_rng(1).random((4, 4), np.float32)})
    for _ in range(3):  # at the next look that counts, and only once
        watched.watcher.look()
    drifts, training = notes
    assert drifts.code == "state-drifts"
    assert "norm.running_mean and 2 more buffers is no longer what it was" in drifts.text
    assert (training.code, training.text.split()[0]) == ("training-mode", "norm")


def test_buffers_of_any_kind_can_be_looked_at() -> None:
    module = torch.nn.Module()
    for name, buffer in {
        "halves": torch.ones(3, dtype=torch.bfloat16), "flag": torch.tensor(True),
        "empty": torch.ones(0), "sparse": torch.eye(3).to_sparse(),
    }.items():  # fmt: skip
        module.register_buffer(name, buffer)
    module.eval()
    state = State(module)
    assert list(state.look()) == []
    module.flag = torch.tensor(False)
    (note,) = state.look()
    assert "flag is no longer" in note.text


def test_a_module_on_a_device_that_failed_is_not_looked_at_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes, tell = told()
    watcher = watch([torch_model(Net())], WatchSpec(memory=False), tell).watcher

    def fails(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered\nCompile with ...")

    monkeypatch.setattr(torch.Tensor, "cpu", fails)
    for _ in range(4):
        watcher.look()
    watcher.stop()
    (note,) = notes
    assert note.code == "state-lost"
    assert note.text.endswith("any more: CUDA error: device-side assert triggered")


# ---- memory


def test_memory_that_goes_on_growing_is_told_once() -> None:
    growth = Growth("memory")
    notes = [growth.look(500 * MB + 4 * MB * step) for step in range(40)]
    (note,) = [note for note in notes if note]
    assert note.text.startswith("memory grows by 25.2 MB a minute: ")


@pytest.mark.parametrize(
    "sizes",
    [
        [500 * MB + (step % 7) * 20 * MB for step in range(90)],  # up and down
        [500 * MB] * 30 + [900 * MB] * 60,  # one step
        [500 * MB + 5000 * step for step in range(90)],  # next to nothing
        [100 * MB + 300 * MB * min(step, 3) for step in range(90)],  # filling pools
    ],
)
def test_memory_that_only_moves_is_not(sizes: list[int]) -> None:
    growth = Growth("memory")
    assert [note for size in sizes if (note := growth.look(size))][1:] == []
    if sizes[-1] != 900 * MB:
        assert not any(growth.look(size) for size in sizes)


# ---- slow requests


def test_a_model_on_a_card_is_as_large_as_its_weights() -> None:
    module = torch.nn.Linear(4, 8)
    program = Program("net", "pytorch", module, caller(module, ("x",)), ())
    assert TorchModel(program, "cuda:0").memory() == {"GPU": 4 * (4 * 8 + 8)}


def test_slow_requests_are_named_with_where_their_time_went() -> None:
    stream, clock = io.StringIO(), iter([1.0] * 13 + [2.0])
    log = SlowLog(100 * MS, lambda: next(clock), stream)
    now = 10 * SECOND
    jobs = [job(now - (200 if number else 50) * MS, f"r{number}") for number in range(14)]
    log.look(Piece(jobs, 14, 0, 33 * MS, now - MS, {}), jobs, now)
    log.look(Piece(jobs[:2], 2, 0, MS, now, {}), jobs[:2], now)
    lines = stream.getvalue().splitlines()
    assert lines[0] == (
        "slow: request 'r1' of 1 row took 200 ms: queue 7.00, held 0, compute 33.0, answer 1.00,"
        " in a batch of 14"
    )
    assert len(lines) == 12
    assert lines[10] == "and 3 more slow requests"
    assert "r0" not in stream.getvalue()


def job(arrived: int, name: str) -> Job:
    found = Job({}, 1, (), lambda _: True)
    found.plan = Plan(name, 1, (), None, (), (), 0)
    found.arrived, found.queue_ns = arrived, 7 * MS
    return found


# ---- drift


def sampled(shift: float = 0.0, rows: int = 400, seed: int = 1) -> Sample:
    model = torch_model(torch.nn.Linear(4, 200))
    sample = Sample(model)
    random = np.random.default_rng(seed)
    for _ in range(rows // 8):
        x = random.normal(size=(8, 4)).astype(np.float32)
        x[:, 2] += shift
        sample.add({"x": x}, model.run({"x": x}))
    return sample


def test_what_shifts_is_found_and_what_does_not_is_not(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    sampled(seed=1).write(path)
    model = torch_model(torch.nn.Linear(4, 200))
    reference = drift.read(path, model)
    assert {name: rows.shape for name, rows in reference.items()} == {
        "input x": (400, 4), "output y": (400, 64),
    }  # fmt: skip
    same = Drift(sampled(seed=2), {"input x": reference["input x"]})
    assert [note for _ in range(20) for note in same.look()] == []
    other = Drift(sampled(shift=0.8, seed=3), {"input x": reference["input x"]})
    (note,) = [note for _ in range(5) for note in other.look()]
    assert note.text.startswith("input x no longer looks like the reference: 1 of 4 values differ,")
    assert "most number 2" in note.text


def test_every_row_has_the_same_chance_to_be_kept() -> None:
    model = torch_model(torch.nn.Linear(4, 1))
    sample = Sample(model)
    for number in range(1000):
        x = np.full((8, 4), number, np.float32)
        sample.add({"x": x}, model.run({"x": x}))
    kept = sample.rows()["input x"][:, 0]
    assert len(kept) == drift.ROWS
    assert abs(kept.mean() - 499.5) < 30  # four standard errors


def test_a_tiny_difference_is_no_drift_however_certain() -> None:
    random = np.random.default_rng(1)
    before, now = random.normal(size=(2000, 1)), random.normal(size=(2000, 1))
    assert compared("input x", now + 0.2, before, 0.5) is None  # D is 0.08
    assert compared("input x", now + 0.5, before, 0.01) is not None
    assert compared("input x", now[:99] + 5, before, 0.01) is None, "too few rows"


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_reference_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    path.write_bytes(content)
    with pytest.raises(SpecError, match="no reference"):
        drift.read(path, torch_model(torch.nn.Linear(4, 1)))


def test_a_reference_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("input x.npy", bytes(drift.MOST_BYTES + 1))
    assert path.stat().st_size < MB
    with pytest.raises(SpecError, match="too large"):
        drift.read(path, torch_model(torch.nn.Linear(4, 1)))
    with pytest.raises(RunError, match="cannot write"):
        sampled(rows=8).write(tmp_path / "none" / "reference.npz")


def test_a_sample_replaces_no_other_with_nothing(tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    sampled(rows=8).write(path)
    before = path.read_bytes()
    Sample(torch_model(torch.nn.Linear(4, 1))).write(path)
    assert path.read_bytes() == before


def test_a_reference_of_another_model_is_told_by_its_tensors(tmp_path: Path) -> None:
    rows = np.zeros((100, 1))
    np.savez(tmp_path / "other.npz", allow_pickle=False, **{"input z": rows, "output y": rows})
    with pytest.raises(SpecError, match="no reference of net: it has no input z"):
        drift.read(tmp_path / "other.npz", torch_model(torch.nn.Linear(4, 1)))


# ---- the watcher


def test_looks_become_seldom() -> None:
    looks: list[int] = []
    notes, tell = told()

    def look() -> list[Note]:
        looks.append(1)
        return [Note("a", str(len(looks)))]

    watcher = Watcher([seldom(look)], tell)
    for _ in range(100):
        watcher.look()
    assert len(looks) == len(notes) == 5 + 3  # 1, 2, 4, 8, 16 and 32, 64, 96


# ---- in an engine


def test_in_an_engine() -> None:
    options = settings("watch.finite=true", "watch.slow=1 us", "max_batch=8", "threads=1")
    with serving("mlp", *options) as engine, ThreadPoolExecutor(2) as pool:
        path = "/v2/models/mlp"
        good = np.zeros((1, 256), np.float32)
        profile = pool.submit(engine.call, f"{path}/profile", b'{"batches": 3, "seconds": 20}')
        while not profile.done():  # it may begin later than the first of these
            body, headers = mlp_request(good)
            assert engine.call(f"{path}/infer", body, **headers).status == 200
        body, headers = mlp_request(np.full((1, 256), np.inf, np.float32))
        refused = engine.call(f"{path}/infer", body, **headers)
        assert (refused.status, "256 values are NaN" in refused.json["error"]) == (400, True)
        assert engine.call(f"{path}/profile", b'{"batches": 0}').status == 400
        assert engine.call(f"{path}/profile").status == 405
        page = engine.call(f"{path}/profile", b"{}", Origin="http://page.example")
        assert page.status == 403, "any web page could ask for it"
        none = engine.call(f"{path}/profile", b'{"batches": 2, "seconds": 0.05}')
        assert [e["ph"] for e in none.json["traceEvents"] if e["ph"] != "M"] == []
        engine.stop()
        assert engine.process.stderr is not None
        log = engine.process.stderr.read()
    events = profile.result().json["traceEvents"]
    batches = [event for event in events if event.get("cat") == "batcher" and event["tid"] == 0]
    operators = [event for event in events if event.get("cat") == "torch"]
    assert [event["name"].split(",")[0] for event in batches] == ["1 row"] * 3
    products = ("aten::linear", "mkldnn::_linear_pointwise")  # as packed weights are multiplied
    assert any(event["name"] in products for event in operators)
    first, last = batches[0]["ts"], batches[-1]["ts"] + batches[-1]["dur"]
    assert all(first <= event["ts"] <= last for event in operators), "one clock"
    assert "slow: a request of 1 row took" in log
    assert "profiler_start" not in log, "what torch tells of each batch"


def mlp_request(x: NDArray[np.float32]) -> tuple[bytes, dict[str, str]]:
    raw = x.tobytes()
    entry = {"name": "input", "shape": list(x.shape), "datatype": "FP32"}
    header = json.dumps({"inputs": [entry | {"parameters": {"binary_data_size": len(raw)}}]})
    return header.encode() + raw, {"Inference_Header_Content_Length": str(len(header))}
