"""`loadbench doctor`: what it finds out about a model, and how it ends."""

import json
import re
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from loadbench.engine import measure
from loadbench.engine.measure import Timing
from loadbench.engine.models import open_model
from loadbench.spec import EngineSpec
from loadbench.units import MS

pytestmark = pytest.mark.long


def doctor(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadbench", "doctor", *arguments],
        capture_output=True, text=True, timeout=100, check=False, cwd=cwd,
    )  # fmt: skip


def test_times_of_the_known_answer_model_are_its_own() -> None:
    done = doctor(
        "fake", "--json", "--set", "engine.fake.a=2 ms", "--set", "engine.fake.c=1 ms",
        "--set", "engine.max_batch=6",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    report: dict[str, Any] = json.loads(done.stdout)
    assert [row["rows"] for row in report["timings"]] == [1, 2, 4, 6]
    for row in report["timings"]:
        assert row["fastest_ns"] >= (2 + row["rows"]) * MS
        assert row["fastest_ns"] <= row["median_ns"] <= row["slowest_ns"]
    assert report["passed"] is True
    assert report["max_batch"] == 6


def test_memory_that_batches_take_is_told_with_what_fits_and_where_more_gains_nothing() -> None:
    done = doctor(
        "fake", "--set", "engine.device=sim", "--set", "engine.sim.row=400 MB",
        "--set", "engine.fake.a=1 ms", "--set", "engine.fake.c=20 ms",
        "--set", "engine.max_batch=32",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "fake · version 1 · fake · fp32 on simulated GPU (sim:0)" in done.stdout
    # 0.9 · 7,500 MB = 100 MB + 16.6 · 400 MB; 32 rows are not even timed
    assert "a batch takes 100 MB and 400 MB a row: 16 rows fit into what is free" in done.stdout
    assert re.search(r"^ +16 ", done.stdout, re.MULTILINE)
    assert not re.search(r"^ +32 ", done.stdout, re.MULTILINE)
    assert "batches of more than 2 gain less than 3 % a row" in done.stdout


def test_a_model_is_described_for_people() -> None:
    done = doctor("mlp", "--set", "engine.max_batch=2", "--set", "engine.precision=bf16")
    assert (done.returncode, done.stderr) == (0, "")
    for word in (
        "mlp · version 1 · pytorch · bf16 on ",
        "input  FP32 [-1,256]",
        "logits  FP32 [-1,10]",
        "rows/s",
        "✓ outputs are numbers",
        "▲ bf16, as asked",
    ):
        assert word in done.stdout  # fmt: skip


def test_outputs_that_are_no_numbers_fail(tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text(
        "import torch\n"
        "class Root(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return {'root': super().forward(x) * 0 + torch.nan, 'fine': x}\n"
        "def make():\n"
        "    return Root(4, 4)\n"
    )
    import torch

    torch.save(torch.nn.Linear(4, 4).state_dict(), tmp_path / "a.pt")
    done = doctor(
        "a.pt", "--factory", "ours:make", "--input", "x:FP32:-1,4", "--set", "engine.max_batch=3",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "✗ output 'root': 12 values are NaN or infinite" in done.stdout
    assert "'fine'" not in done.stdout


def test_bad_input_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model")
    for arguments, word in [
        (["a.onnx"], "a.onnx is damaged"),
        (["gone.onnx"], "no such model file"),
        (["nope"], "there is no model 'nope'"),
        (["mlp", "--set", "engine.prec=fp32"], "unknown key"),
        (["mlp", "--set", "engine.device=cuda:63"], "cuda:63"),
    ]:
        done = doctor(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert word in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""


def test_without_a_model_it_looks_at_the_machine() -> None:
    done = doctor("--json")
    findings = json.loads(done.stdout)["findings"]
    assert {"cores", "port"} <= {finding["subject"] for finding in findings}
    assert done.returncode == int(any(finding["sign"] == "✗" for finding in findings))
    assert "✓" in doctor("steady").stdout


@pytest.mark.parametrize(
    ("largest", "found"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))]
)
def test_sizes_are_powers_of_two_and_the_largest(largest: int, found: tuple[int, ...]) -> None:
    assert measure.sizes(largest) == found


def test_timing_leaves_the_first_call_out() -> None:
    now = 0
    lengths = iter([900, 5, 7, 3, *[5] * 10])
    calls = count()

    def call() -> None:
        nonlocal now
        now += next(lengths)
        next(calls)

    found = measure.timed(call, 4, 20, clock=lambda: now)
    assert found == Timing(4, 4, 3, 5, 7)
    assert found.rows_per_second == 4 / 5e-9
    assert next(calls) == 5


def test_a_model_without_a_batch_axis_has_one_row(tmp_path: Path) -> None:
    import torch

    module = torch.nn.Linear(4, 4).eval()
    torch.export.save(torch.export.export(module, (torch.ones(1, 4),)), tmp_path / "a.pt2")
    model = open_model(str(tmp_path / "a.pt2"), EngineSpec(precision="fp32"), trust=True)
    assert [timing.rows for timing in measure.table(model, 32, 0)] == [1]
