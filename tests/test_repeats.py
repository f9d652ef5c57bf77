"""Series of repeats: whole runs of their own kept together, however they end."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from dashboard.app import Dashboard
from dashboard.theme import palette
from dashboard.widgets.runpanel import about
from loadbench import baseline, catalogue, runlog
from loadbench.errors import SpecError
from loadbench.judge.comparison import compare
from loadbench.judge.overall import middle, overall
from loadbench.report.sides import side
from loadbench.snapshots import sums
from tests.ended import GONE, finished
from tests.running import LOADBENCH, adds_up, loadbench, scenario
from tests.stage import until
from tests.test_dashboard_runs import lines, listed, press
from tests.test_run import seconds, wait_for

pytestmark = pytest.mark.long


def series(results: Path, p99s: list[float], **extra: Any) -> Path:
    """A series as its runner leaves it."""
    made = [finished(results / "made", f"r{n}", ms) for n, ms in enumerate(p99s, 1)]
    folder = runlog.create(results, "series")
    names = []
    for number, path in enumerate(made, 1):
        target = path.rename(folder / str(number))
        snapshot = runlog.read_snapshot(target)
        snapshot["run"] = snapshot["summary"]["run"] = runlog.called(target)
        runlog.write_snapshot(target, snapshot)
        names.append(target.name)
    first = runlog.read_snapshot(folder / "1")
    whole = overall([runlog.read_snapshot(folder / name)["summary"] for name in names])
    own = {"kind": "series", "run": folder.name, "repeats": names, "summary": None}
    runlog.write_snapshot(folder, {**first, **own, "wanted": len(names), "overall": whole, **extra})
    return folder


@pytest.fixture
def child(tmp_path: Path) -> Any:
    """A series of three long repeats, once the first is being recorded."""
    path = scenario(tmp_path, s=60)
    with subprocess.Popen(
        [*LOADBENCH, "run", str(path), "--repeats", "3", "--print-folder"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        folder = tmp_path / process.stdout.readline().split()[1]
        try:
            wait_for(lambda: seconds(folder / "1") >= 2)
            yield process, folder
        finally:
            process.kill()


def test_each_repeat_is_a_whole_run_with_an_engine_of_its_own(tmp_path: Path) -> None:
    done = loadbench("run", scenario(tmp_path, s=1), "--repeats", "2", cwd=tmp_path)
    (folder,) = runlog.runs(tmp_path / "results")
    snapshot = runlog.read_snapshot(folder)
    assert (snapshot["kind"], snapshot["state"], snapshot["summary"]) == ("series", "done", None)
    assert snapshot["repeats"] == ["1", "2"]
    assert snapshot["engine"] == "fresh for each repeat"
    assert (folder / sums.FILE).is_file()
    assert sums.altered(folder, runlog.SNAPSHOT) is None
    assert snapshot["target"]["model"] == "fake"
    made = [runlog.read_snapshot(path) for path in runlog.repeats(folder)]
    assert [one["run"] for one in made] == ["0001-own-fake/1", "0001-own-fake/2"]
    assert made[0]["target"]["url"] != made[1]["target"]["url"]  # a process and a port of its own
    for one in made:
        assert one["summary"]["asked"] == 200
        assert adds_up(one["summary"])
        assert "other-run" not in {note["code"] for note in one["summary"]["notes"]}
    assert "median" in done.stdout
    assert str(folder.relative_to(tmp_path)) in done.stdout
    shown = json.loads(loadbench("show", "1", "--json", cwd=tmp_path).stdout)
    assert shown["summaries"] == [one["summary"] for one in made]
    assert json.loads(loadbench("show", "1/2", "--json", cwd=tmp_path).stdout)["run"].endswith("/2")


def test_rates_in_percent_are_of_the_same_in_all_that_is_compared(tmp_path: Path) -> None:
    """What is found out at the beginning moves by itself: repeats at rates of their own would be
    different work, and a baseline nothing to hold anything against."""
    path = scenario(
        tmp_path, fake='a = "40 ms", service = "lognormal(0.8)"', load='calibrate = "1s"', s=1
    )
    path.write_text(path.read_text().replace("rate = 200", 'rate = "10 %"'))
    loadbench("run", path, "--repeats", "2", cwd=tmp_path)
    (folder,) = runlog.runs(tmp_path / "results")
    first, second = (runlog.read_snapshot(one) for one in runlog.repeats(folder))
    assert runlog.read_snapshot(folder)["capacity"] == first["capacity"] > 0
    assert first["phases"][0]["start"] == first["capacity"] * 0.1
    assert second["phases"] == first["phases"]
    (note,) = (one for one in second["summary"]["notes"] if one["code"] == "calibrated")
    assert "found before" in note["text"]
    loadbench("run", path, "--baseline", "1", "--repeats", "1", cwd=tmp_path, code=4)
    held = runlog.read_snapshot(runlog.runs(tmp_path / "results")[-1])
    assert held["phases"] == first["phases"]
    assert compare(side([runlog.runs(tmp_path / "results")[-1]]), side([folder])).comparable
    for one in runlog.repeats(folder):
        runlog.write_snapshot(one, {**runlog.read_snapshot(one), "capacity": "1e999"})
    unknown = loadbench("run", path, "--baseline", "1", cwd=tmp_path, code=2).stderr
    assert "does not tell of how many requests" in unknown


def test_a_signal_ends_the_repeat_gently_and_the_series_with_it(child: Any) -> None:
    process, folder = child
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    snapshot = runlog.read_snapshot(folder)
    assert (snapshot["state"], snapshot["repeats"]) == ("stopped", ["1"])
    (one,) = runlog.repeats(folder)
    found = runlog.read_snapshot(one)["summary"]
    assert found["reason"] == "stopped"
    assert adds_up(found)
    assert snapshot["overall"]["asked"] == found["asked"]
    assert not any(path.is_running() for path in children)


def test_a_killed_series_is_read_up_to_its_last_second(child: Any) -> None:
    process, folder = child
    process.kill()
    process.wait()
    (entry,) = catalogue.entries(folder.parent)
    assert (entry.state, entry.repeats, entry.scenario) == ("killed", 1, "own")
    text = loadbench("show", "1", cwd=folder.parent.parent).stdout
    assert "✗ killed" in text
    assert "1 of 3 repeats" in text


def test_between_two_repeats_a_signal_starts_no_other(tmp_path: Path) -> None:
    arguments = ("run", scenario(tmp_path, s=1), "--repeats", "2", "--cool-down", "600s")
    with subprocess.Popen(
        [*LOADBENCH, *map(str, arguments)], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stderr is not None
        while "cooling down" not in (line := process.stderr.readline()):
            assert line, "it ended"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    (folder,) = runlog.runs(tmp_path / "results")
    snapshot = runlog.read_snapshot(folder)
    assert (snapshot["state"], snapshot["repeats"]) == ("stopped", ["1"])
    assert snapshot["overall"]["done"] == 200


def test_a_series_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    path = scenario(tmp_path)
    gone = ("--target", "http://127.0.0.1:9", "--repeats", "3")
    loadbench("run", path, *gone, cwd=tmp_path, code=3)
    assert not (tmp_path / "results").exists()


def test_repeats_are_found_listed_and_named(tmp_path: Path) -> None:
    folder = series(tmp_path, [10.0, 30.0, 20.0])
    assert runlog.find("1", tmp_path) == folder
    assert runlog.find("1/3", tmp_path) == runlog.find("0001-series/3", tmp_path) == folder / "3"
    assert [path.name for path in runlog.repeats(folder)] == ["1", "2", "3"]
    assert runlog.repeats(folder / "2") == [folder / "2"]
    with pytest.raises(SpecError, match="has no repeat 4: it has 3"):
        runlog.find("1/4", tmp_path)
    with pytest.raises(SpecError, match="has 3 repeats"):
        runlog.single(folder)
    (entry,) = catalogue.entries(tmp_path)
    assert (entry.repeats, entry.state) == (3, "done")
    assert entry.p99_ms == pytest.approx(20.0, rel=1e-3)
    assert entry.no_bands.startswith("it is a median of repeats")
    baseline.put(tmp_path, "steady", folder)
    baseline.put(tmp_path, "second", folder / "2")
    assert baseline.find("steady", tmp_path) == folder
    assert baseline.find("second", tmp_path) == folder / "2"
    told = loadbench("baseline", "list", "--out", tmp_path, cwd=tmp_path).stdout
    assert "0001-series/2" in told
    assert "done ×3" in told


def test_what_a_foreign_series_names_stays_in_its_folder(tmp_path: Path) -> None:
    outside = finished(tmp_path, "outside", 10.0)
    names = ["1", "1", "../0001-outside", str(outside), "7", "", 3, None]
    folder = series(tmp_path, [10.0], repeats=names)
    assert runlog.repeats(folder) == [folder / "1"]
    os.truncate(folder / runlog.SNAPSHOT, 100)
    assert runlog.repeats(folder) == [folder]
    loadbench("show", "2", "--out", tmp_path, cwd=tmp_path, code=2)


def test_a_series_on_another_machine_is_over_when_its_log_is_old(tmp_path: Path) -> None:
    folder = series(tmp_path, [10.0], state="running", host="elsewhere", pid=GONE)
    os.utime(folder / "1" / runlog.LOG, (1, 1))
    assert [entry.state for entry in catalogue.entries(tmp_path)] == ["killed"]
    os.utime(folder / "1" / runlog.LOG)
    assert [entry.state for entry in catalogue.entries(tmp_path)] == ["running"]


def test_the_middle_with_what_has_no_number() -> None:
    assert middle([3.0, 1.0, 2.0]) == 2.0
    assert middle([4.0, 1.0, 2.0, 3.0]) == 2.5
    assert middle([1.0, None, 2.0]) == 2.0
    assert middle([1.0, None]) is None
    assert middle([]) is None
    assert overall([]) is None


def test_the_worst_check_and_grade_are_those_of_the_series(tmp_path: Path) -> None:
    folder = series(tmp_path, [10.0, 200.0, 10.0])  # the check is p99 < 100 ms
    found = [runlog.read_snapshot(path)["summary"] for path in runlog.repeats(folder)]
    found[2] = {**found[2], "trust": "invalid", "notes": [{"code": "x", "text": "odd"}]}
    whole = overall(found)
    assert whole is not None
    assert whole["checks"][0]["state"] == "failed"
    assert whole["trust"] == "invalid"
    assert "odd (1 of 3 repeats)" in {note["text"] for note in whole["notes"]}


def test_a_check_that_went_the_same_way_in_all_repeats_has_their_median(tmp_path: Path) -> None:
    folder = series(tmp_path, [16.0, 20.0, 18.0])
    found = [runlog.read_snapshot(path)["summary"] for path in runlog.repeats(folder)]
    whole, entry = overall(found), catalogue.entry(folder)
    assert whole is not None
    assert entry is not None
    assert whole["checks"][0]["value"] == whole["latency_ms"]["p99"] == pytest.approx(18, rel=0.01)
    assert "✓ p99 18.0 ms < 100 ms" in about(entry, palette("loadbench")).plain
    found[0]["checks"][0]["certainty"] = "shown"
    again = overall(found)
    assert again is not None
    assert again["checks"][0]["certainty"] == "not shown"  # in one of them it is not
    mixed = overall([*found, {**found[0], "checks": [{**found[0]["checks"][0], "state": "failed",
                                                      "value": 120.0}]}])  # fmt: skip
    assert mixed is not None
    assert mixed["checks"][0]["value"] == 120.0  # of the one that failed


def test_screens_take_a_series_as_they_take_a_run(tmp_path: Path) -> None:
    near = [20.0, 20.2, 20.1, 19.9, 20.3, 20.0]
    series(tmp_path, near)
    series(tmp_path, [ms * 1.5 for ms in near])

    async def walk() -> None:
        async with listed(tmp_path) as (_, pilot):
            await press(pilot, "end", "x", "up", "c")
            await until(pilot, lambda: "▲ worse" in "\n".join(lines(pilot)))
            assert "6+6" in "\n".join(lines(pilot))
            await press(pilot, "escape", "v")
            await until(pilot, lambda: "median" in "\n".join(lines(pilot)))
            await press(pilot, "escape", "enter")
            app = pilot.app
            assert isinstance(app, Dashboard)
            await until(pilot, lambda: app.folder.name == "6")

    asyncio.run(walk())
