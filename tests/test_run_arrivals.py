"""Whole runs of what is more than a rate: a trace, and MLPerf's ready scenarios made short."""

from pathlib import Path

import pytest

from tests.running import adds_up, scenario, summary

pytestmark = pytest.mark.long


def test_a_trace_from_its_file_to_the_summary(tmp_path: Path) -> None:
    (tmp_path / "times.csv").write_text("time\n" + "\n".join(str(k / 50) for k in range(100)))
    own = tmp_path / "own.toml"
    own.write_text(
        '[target]\nurl = "local:fake"\n[load]\narrivals = "trace"\ntrace = "times.csv"\n'
        'scale = 2.0\nloop = true\nwarmup = "0s"\nphases = [{ for = "3s" }]\n'
    )
    found = summary(own, cwd=tmp_path)
    assert adds_up(found)
    # 100 requests in 1 s at twice the rate, three times
    assert (found["asked"], found["done"], found["seconds"]) == (300, 300, 3)


def test_gamma_arrivals_are_taken_from_the_scenario(tmp_path: Path) -> None:
    own = scenario(tmp_path)
    found = summary(own, "--set", "load.arrivals=gamma", "--set", "load.cv=2.0", cwd=tmp_path)
    assert adds_up(found)
    assert found["done"] == found["asked"] != 400


@pytest.mark.parametrize("name", ["mlperf-single-stream", "mlperf-multi-stream"])
def test_a_stream_is_one_request_after_the_other(tmp_path: Path, name: str) -> None:
    found = summary(
        name, "--target", "local:fake", "--duration", "2s", "--set", "load.warmup=1s",
        "--set", "engine.fake.a=5 ms", "--set", "checks.done=> 20", cwd=tmp_path,
    )  # fmt: skip
    assert adds_up(found)
    assert found["done"] == found["asked"] > 20
    assert found["server"]["batch"]["sizes"].keys() == {"8" if "multi" in name else "1"}
    assert {check["state"] for check in found["checks"]} == {"passed"}


def test_offline_sends_all_at_once_and_ends_with_the_last_answer(tmp_path: Path) -> None:
    found = summary(
        "mlperf-offline", "--target", "local:fake", "--rate", "60", "--duration", "20s",
        "--set", "load.warmup=0s", "--set", "load.calibrate=1s", "--set", "engine.fake.a=50 ms",
        "--set", "checks.done=> 1199", cwd=tmp_path,
    )  # fmt: skip
    assert adds_up(found)
    assert found["done"] == found["asked"] == 1200
    # 32 in 50 ms: 1200 take about 2 s, not the 20 s of the phase
    assert found["seconds"] < 15
    assert found["rate"]["done"] == pytest.approx(1200 / found["seconds"])
    assert {check["state"] for check in found["checks"]} == {"passed"}
    assert found["server"]["batch"]["mean"] > 25
