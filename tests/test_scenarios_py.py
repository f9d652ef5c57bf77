"""The Locust files that ship, each run by Locust's own command line against a real engine."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.served import Engine, serving

SCENARIOS = Path(__file__).parent.parent / "scenarios"
BRIEF = """
[target]
url = "http://127.0.0.1:1"
[load]
arrivals = "constant"
warmup = "500 ms"
phases = [{ rate = 200, for = "2s" }]
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with serving("fake", "--set", "engine.fake.a=2 ms") as found:
        yield found


def locust(file: str, port: int, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "locust", "-f", str(SCENARIOS / file), "--headless", "--json"]
    return subprocess.run(
        [*command, "--host", f"http://127.0.0.1:{port}", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def totals(run: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """Locust's statistics by name."""
    return {entry["name"]: entry for entry in json.loads(run.stdout)}


def test_classify_is_answered(engine: Engine) -> None:
    run = locust("classify.py", engine.port, "-u", "10", "-r", "10", "-t", "3s")
    assert run.returncode == 0, run.stderr
    found = totals(run)
    one, eight = found["one sample"], found["eight samples"]
    assert one["num_requests"] > eight["num_requests"] > 0
    assert all(entry["num_failures"] == 0 for entry in found.values())


def test_shape_follows_its_stages(engine: Engine) -> None:
    run = locust("shape.py", engine.port)
    assert run.returncode == 0, run.stderr
    steps = re.findall(r"Shape test updating to (\d+) users", run.stderr)
    assert steps == ["5", "10", "40", "10"]
    assert totals(run)["/v2/health/ready"]["num_requests"] > 50


def test_lane_offers_a_scenario_and_feeds_locusts_statistics(
    engine: Engine, tmp_path: Path
) -> None:
    scenario = tmp_path / "brief.toml"
    scenario.write_text(BRIEF)
    before = engine.stats()["inference_stats"]["success"]["count"]
    run = locust("lane.py", engine.port, "--scenario", str(scenario))
    assert run.returncode == 0, run.stderr
    entry = totals(run)["infer"]
    got = engine.stats()["inference_stats"]["success"]["count"] - before
    assert got == 500
    assert entry["num_requests"] == 400  # without the warm-up
    assert entry["num_failures"] == 0
    assert entry["min_response_time"] >= 2
    assert sum(entry["response_times"].values()) == 400


def test_lane_stops_with_locust(engine: Engine, tmp_path: Path) -> None:
    scenario = tmp_path / "long.toml"
    text = BRIEF.replace('warmup = "500 ms"', 'warmup = "0s"').replace('"2s"', '"60s"')
    scenario.write_text(text)
    run = locust("lane.py", engine.port, "--scenario", str(scenario), "-t", "4s")
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr
    assert 20 < totals(run)["infer"]["num_requests"] < 2000  # of 12,000


def test_lane_holds_to_what_the_target_may_be_asked_for(tmp_path: Path) -> None:
    scenario = tmp_path / "brief.toml"
    scenario.write_text(BRIEF.replace("[load]", "max_rate = 100\n[load]"))
    run = locust("lane.py", 1, "--scenario", str(scenario))
    assert run.returncode == 2
    assert "target.max_rate is 100/s" in run.stderr


def test_lane_says_what_is_wrong_in_one_line(engine: Engine) -> None:
    run = locust("lane.py", engine.port, "--scenario", "steddy")
    assert run.returncode == 2
    assert "there is no scenario 'steddy'" in run.stderr
    assert "Traceback" not in run.stderr
