"""`loadbench doctor --load`: what it measures, what it says of that, and what it leaves behind."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec.structs import replace

from loadbench.runner.offer import Level, Offer, text_of
from tests.running import LOADBENCH, loadbench


@pytest.mark.long
def test_a_whole_measurement_in_little(tmp_path: Path) -> None:
    done = loadbench("doctor", "--load", "--duration", "1s", "--json", cwd=tmp_path, code=None)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert (done.returncode == 0) is bool(found["lateness_within"]["10_ms"])
    assert found["closed_per_s"] > 500
    assert 0 < found["load_cpu"] < 1.2
    assert 0 < found["server_cpu"] < 1.2
    assert found["limit"] in ("generator", "server", "neither")
    rates = [level["rate"] for level in found["levels"]]
    assert rates == sorted(rates)
    first = found["levels"][0]
    assert first["asked"] == pytest.approx(1000, abs=150)  # Poisson
    assert 0 < first["late_p50_ms"] <= first["late_p99_ms"] <= first["late_max_ms"]
    assert 0 < first["cpu_per_request_us"] < 1000
    assert all(level["stall_ms"] > 0 for level in found["levels"])


def level(rate: float, p99: float, **fields: Any) -> Level:
    given: dict[str, Any] = {
        "rate": rate, "asked": rate, "sent": rate, "late_p50_ms": p99 / 10, "late_p99_ms": p99,
        "late_max_ms": p99 * 2, "stall_ms": 1.0, "stall_cause": "", "cpu": 0.5,
        "cpu_per_request_us": 8.0, **fields,
    }  # fmt: skip
    return Level(**given)


OFFER = Offer(
    cores=2, shared=False, closed_per_s=100_000.0, connections=64, limit="generator",
    load_cpu=0.99, server_cpu=0.7, cpu_per_request_us=10.0, stall_ms=12.0, stall_cause="gc",
    levels=(level(1000, 0.1), level(20_000, 0.4), level(60_000, 3.0), level(80_000, 60.0)),
)  # fmt: skip


def test_what_can_be_trusted_goes_up_to_the_first_rate_that_is_late() -> None:
    assert (OFFER.within(1.0), OFFER.within(10.0)) == (20_000, 60_000)
    lines = text_of(OFFER).splitlines()
    assert lines[0].startswith("one load process offers 100,000 requests/s here")
    assert "the generator was the limit" in lines[1]
    assert "12.0 ms: Python looked for garbage" in lines[2]
    assert "✓ up to ~20,000/s with lateness p99 under 1 ms" in lines
    assert "▲ up to ~60,000/s under 10 ms: good for latency limits of 100 ms" in lines
    behind = (level(1000, 0.1), level(20_000, 0.4, sent=19_000.0), level(60_000, 0.4))
    assert replace(OFFER, levels=behind).within(1.0) == 1000
    all_fine = text_of(replace(OFFER, levels=OFFER.levels[:2]))
    assert "up to ~20,000/s, the highest tried, with" in all_fine
    assert "▲" not in all_fine
    assert "doubtful" not in all_fine
    full = text_of(replace(OFFER, levels=(OFFER.levels[0], replace(OFFER.levels[1], cpu=0.95))))
    assert "at ~20,000/s it uses 95 % of a core: that makes a run doubtful" in full
    none = replace(OFFER, levels=(level(1000, 12.0),))
    assert none.within(10.0) is None
    assert "✗ no rate can be trusted here: at 1,000/s 12.0 ms late" in text_of(none)
    held = level(90_000, 0.0, sent=60_000.0, late_p50_ms=None, late_p99_ms=None, late_max_ms=None)
    told = text_of(replace(OFFER, levels=(*OFFER.levels, held)))
    assert told.splitlines()[9].split()[3:9] == ["all", "held"] * 3


def test_it_looks_at_the_machine_alone(tmp_path: Path) -> None:
    done = loadbench("doctor", "steady", "--load", cwd=tmp_path, code=2)
    assert "this machine alone" in done.stderr


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*LOADBENCH, "doctor", "--load", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert "closed loop" in process.stderr.readline()
        assert list(tmp_path.iterdir())
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert out == ""
    assert not psutil.wait_procs(children, timeout=5)[1]
    assert list(tmp_path.iterdir()) == []
