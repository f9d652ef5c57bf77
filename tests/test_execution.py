"""Batches that fail: how many runs it takes to find the bad rows, and how they are told."""

import io
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadbench.engine.execution import Failing, execute
from loadbench.engine.job import Job
from loadbench.engine.mishaps import LINES, Mishaps
from loadbench.engine.protocol import Plan
from loadbench.engine.tensors import Refused
from tests.batching import POISON, Gate
from tests.served import request_json, serving, settings


def jobs(values: list[float]) -> list[Job]:
    found = []
    for number, value in enumerate(values):
        job = Job({"x": np.full((1, 2), value, np.float32)}, 1, ((2,),), lambda _: True)
        job.plan = Plan(f"n{number}", 1, ((2,),), None, (), (), 0)
        found.append(job)
    return found


def outcome(values: list[float], together: bool = False, gate: Gate | None = None) -> Any:
    """Which failed, and how often the model ran."""
    gate = gate or Gate()
    batch = jobs(values)
    pieces = execute(gate, batch, 0, Failing(Mishaps().tell, together))
    told = [job for piece in pieces for job in piece.jobs]
    assert told == batch  # each in one piece, in order
    failed = {batch.index(job) for piece in pieces if piece.fault for job in piece.jobs}
    return failed, len(gate.ran)


@pytest.mark.parametrize("size", [2, 8, 32, 128])
@pytest.mark.parametrize("place", [0.0, 0.4, 1.0])
def test_one_bad_row_is_found_in_logarithmic_time(
    size: int, place: float, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [float(n + 1) for n in range(size)]
    bad = round(place * (size - 1))
    values[bad] = POISON
    failed, runs = outcome(values)
    assert failed == {bad}
    assert runs == 2 * math.log2(size) + 1


def test_if_all_are_bad_it_takes_twice_as_many_runs_as_rows(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert outcome([POISON] * 32) == (set(range(32)), 63)


def test_a_batch_can_fail_as_a_whole_and_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    values = [1.0, 2.0, POISON, 4.0]
    assert outcome(values, together=True) == ({0, 1, 2, 3}, 1)
    assert "request 'n0', request 'n1', request 'n2', request 'n3' (4 rows)" in (
        capsys.readouterr().err
    )
    # too large a batch is nobody's fault
    assert outcome([1.0, 2.0, 3.0, 4.0], together=True, gate=Gate(room=2)) == (set(), 3)


def test_the_bad_requests_are_named_and_the_traceback_is_printed_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome([POISON, 2.0, POISON, 4.0])
    told = capsys.readouterr().err
    assert "failed: request 'n0' (1 row): the model failed: ValueError: poison" in told
    assert "failed: request 'n2' (1 row): the model failed: ValueError: poison" in told
    assert told.count("Traceback") == 1


def raised(kind: type[Exception]) -> Exception:
    try:
        raise kind("\x1b[31mred")
    except kind as error:
        return error


def test_the_log_is_bounded_and_steers_no_terminal() -> None:
    now, stream = [0.0], io.StringIO()
    mishaps = Mishaps(lambda: now[0], stream)
    for _ in range(LINES + 5):
        mishaps.tell(jobs([1.0]), Refused(500, "no\x1b[2J"), raised(ValueError))
    mishaps.tell(jobs([1.0, 2.0]), Refused(500, "no"), None)
    now[0] = 1.0
    mishaps.tell(jobs([1.0] * 12), Refused(500, "no"), raised(KeyError))
    told = stream.getvalue()
    assert "\x1b" not in told
    assert told.count("ValueError") == 1
    assert told.count("(1 row)") == LINES
    assert "and 7 more requests failed" in told
    assert "KeyError" in told
    assert "request 'n7', 4 more (12 rows)" in told


def test_the_setting_makes_the_whole_batch_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(value: float) -> int:
        body = request_json(np.full((1, 16), value))
        return engine.call("/v2/models/fake/infer", body).status

    monkeypatch.setenv("GATE", str(tmp_path / "open"))
    chosen = settings("postprocess=tests.test_execution:gated", "on_error=fail", "fake.a=0 ms")
    with serving("fake", *chosen) as engine, ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, WAITS)
        until = time.monotonic() + 20
        while not engine.call("/health").json["open"] and time.monotonic() < until:
            time.sleep(0.01)
        rest = [pool.submit(ask, value) for value in (2, FAILS, 4)]
        while engine.call("/health").json["waiting"] < 3 and time.monotonic() < until:
            time.sleep(0.01)
        (tmp_path / "open").touch()
        assert first.result() == 200
        assert [found.result() for found in rest] == [500, 500, 500]


WAITS, FAILS = 11.0, 13.0


def gated(outputs: dict[str, Any]) -> dict[str, Any]:
    """A plugin that fails for some rows, and waits for the gate with others."""
    if (outputs["y"] == FAILS).any():
        raise RuntimeError("thirteen")
    while (outputs["y"] == WAITS).any() and not Path(os.environ["GATE"]).exists():
        time.sleep(0.01)
    return outputs
