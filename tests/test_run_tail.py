"""A real run tells of its slowest requests which batch they rode in, and why they were slow."""

import json
from pathlib import Path

from loadbench import runlog
from loadbench.causes import CAUSES
from loadbench.model import Window
from tests.running import loadbench, scenario

REASONS = {
    "idle", "late-bind", "full", "bucket", "deadline", "announced", "hold", "defer", "probe",
    "drain",
}  # fmt: skip


def test_the_log_says_what_the_slowest_rode_in_and_show_says_why(tmp_path: Path) -> None:
    own = scenario(tmp_path, fake='a = "4 ms", c = "1 ms"', rate="300")
    loadbench("run", own, cwd=tmp_path)
    folder = runlog.find("last", tmp_path / "results")
    windows = [found for found in runlog.read(folder) if isinstance(found, Window)]
    served = [found for window in windows for found in window.slowest if not found.failure]
    assert served
    for sample in served:
        assert sample.ride is not None
        assert sample.batch is not None
        assert sample.compute_ns is not None
        assert sample.compute_ns >= 3_900_000
    rides = {sample.ride.number: sample.ride for sample in served if sample.ride}
    assert {ride.closed for ride in rides.values()} <= REASONS
    later = [ride for ride in rides.values() if ride.number > 1]
    assert later
    assert all(ride.after_ns is not None and ride.before_rows for ride in later)

    shown = json.loads(loadbench("show", "last", "--json", cwd=tmp_path).stdout)
    assert len(shown["slowest"]) == 3
    for found in shown["slowest"]:
        assert found["cause"] in CAUSES
        assert abs(sum(found["parts_ms"].values()) - found["latency_ms"]) < 0.01
    text = loadbench("show", "last", cwd=tmp_path).stdout
    assert f"  SLOWEST   {shown['slowest'][0]['latency_ms']:.3g}" in text
    assert text.count(shown["slowest"][2]["text"]) >= 1
    assert "CERTAIN   no bands: 80 seconds at one rate are needed" in text
