"""`loadbench find` as people call it: real engines, real run folders, signals."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from msgspec.structs import replace

from loadbench import runlog, spec
from loadbench.errors import SpecError
from loadbench.experiments.find import _bounded, searchable
from loadbench.judge.searches import read_hunt
from loadbench.model import Mark, Window, plain
from loadbench.report.html import report
from loadbench.snapshots import sums
from loadbench.targetspec import TargetSpec
from tests.running import LOADBENCH, loadbench, scenario
from tests.test_find_search import TERMS
from tests.test_run import wait_for

# A batch of 4 in 20 ms: 200/s at most, whatever else the machine does.
FAKE = 'a = "20 ms"'
SHORT = ("--stage", "3s", "--settle", "1s", "--slo", "p90 < 200 ms")

pytestmark = pytest.mark.long


def slow(folder: Path, load: str = "") -> Path:
    path = scenario(folder, fake=FAKE, load=load, rate="50")
    path.write_text(
        path.read_text()
        .replace("max_batch = 8", "max_batch = 4\nslo = '200 ms'")
        .replace('arrivals = "constant"', 'arrivals = "poisson"')
    )
    return path


def stored(results: Path) -> dict[str, Any]:
    """The newest find's snapshot."""
    return runlog.read_snapshot(runlog.runs(results)[-1])


def load(run: Path) -> list[Window]:
    if not (run / runlog.LOG).exists():
        return []
    found = (each for each in runlog.read(run) if isinstance(each, Window))
    return [each for each in found if each.stage == "load"]


def rates(results: Path) -> set[float | None]:
    """That the newest find's first run has had until now."""
    return {window.rate for folder in runlog.runs(results) for window in load(folder / "1")}


@contextmanager
def finding(folder: Path, *arguments: str) -> Iterator[Any]:
    command = [*LOADBENCH, "find", str(slow(folder)), *SHORT, *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=-1, stderr=-1, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_find_is_led_from_rate_to_rate_stopped_and_gone_on_with(tmp_path: Path) -> None:
    over = ("--over", "engine.max_batch=3,4", "--start", "40", "--max", "60")
    results = tmp_path / "results"
    with finding(tmp_path, *over) as process:
        wait_for(lambda: 60.0 in rates(results))
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    assert "loadbench find --resume" in output
    assert psutil.wait_procs(children, timeout=20)[1] == []
    snapshot = stored(results)
    assert (snapshot["state"], snapshot["kind"]) == ("stopped", "find")
    before = [setting.seen for setting in read_hunt(snapshot).settings]
    assert [stage.rate for stage in before[0]] == [40.0]
    assert before[1] == ()

    again = loadbench("find", "--resume", "last", "--json", cwd=tmp_path)
    assert again.stderr.count("where a percentile has no ±: 80 seconds at one rate") == 1
    found = json.loads(again.stdout)
    first, second = found["settings"]
    for setting, width in ((first, 3), (second, 4)):
        assert (setting["rate"], setting["confirmed"], setting["limit"]) == (60.0, True, "cap")
        assert setting["setting"] == {"engine.max_batch": width}
        assert [stage["kind"] for stage in setting["stages"]] == ["up", "confirm"]
    assert first["stages"][0].items() >= plain(before[0][0]).items()
    assert first["runs"] == ["1", "2"]
    assert second["runs"] == ["3"]

    folder = runlog.runs(results)[-1]
    stage, windows = second["stages"][1], load(folder / "3")
    end = stage["second"] + stage["seconds"]
    counted = [each for each in windows if stage["second"] <= each.second < end]
    assert {each.rate for each in counted} == {60.0}
    assert sum(each.done for each in counted) == stage["asked"] - stage["missed"]
    assert runlog.read_snapshot(folder / "3")["summary"]["reason"] == "done"
    assert runlog.read_snapshot(folder)["state"] == "done"
    assert found["altered"] == ""
    assert (folder / sums.FILE).is_file()
    assert sums.altered(folder, runlog.SNAPSHOT) is None
    marks = [each.text for each in runlog.read(folder / "3") if isinstance(each, Mark)]
    assert marks[-1] == "the search is over"
    assert "max_batch 4  60.0/s" in loadbench("show", "last", cwd=tmp_path).stdout
    assert "find-own" in loadbench("list", cwd=tmp_path).stdout
    loadbench("find", "--resume", "last", cwd=tmp_path, code=2)
    for asked, runs in ((folder, 3), (folder / "3", 1)):
        page = report([asked])
        assert ("max_batch 4  60.0/s" in page) == (asked == folder)
        assert page.count("To repeat it") == runs
        assert "None repeats" not in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--slo", "p99"), "is no condition"),
        (("--slo", "foo < 3"), "loadbench: --slo 'foo < 3': unknown check 'foo'"),
        (("--slo", "p99.9 < 5"), "loadbench: --slo 'p99.9 < 5': '5' is not a duration"),
        (("--slo", "mean < 5 ms"), "cannot be searched for"),
        (("--slo", "p99 < 5"), "is not a duration"),
        ((), "has no check to search for"),
        ((*SHORT, "--over", "engine.max_batch"), "is not key=value,value"),
        ((*SHORT, "--over", "engine.nonsense=1,2"), "nonsense"),
        (
            (*SHORT, "--over", "engine.max_batch=1,2", "--target", "http://127.0.0.1:9"),
            "http://127.0.0.1:9 is a server of others",
        ),
        ((*SHORT, "--budget", "10s", "--stage", "20s"), "leaves no room"),
        ((*SHORT, "--start", "0"), "above 0"),
        ((*SHORT, "--set", "load.arrivals=closed"), "no rate to search for"),
        (("--resume", "7"), "knows its scenario"),
    ],
)
def test_bad_input_is_said_and_nothing_is_run(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = loadbench("find", slow(tmp_path), *arguments, cwd=tmp_path, code=2)
    assert words in done.stderr
    assert not (tmp_path / "results").exists()


def test_what_a_find_was_begun_with_is_not_given_again(tmp_path: Path) -> None:
    given = ("--resume", "last", "--max", "9", "--budget", "15m", "--json")
    done = loadbench("find", *given, cwd=tmp_path, code=2)
    assert "without --budget and --max" in done.stderr


def test_an_engine_that_cannot_be_started_leaves_nothing(tmp_path: Path) -> None:
    loadbench(
        "find", slow(tmp_path), *SHORT, "--target", "http://127.0.0.1:9", cwd=tmp_path, code=3
    )
    assert not runlog.runs(tmp_path / "results")


def test_a_target_is_never_asked_for_more_than_it_may_be() -> None:
    capped = TargetSpec(max_rate=60.0)
    assert _bounded(TERMS, capped).most == 60.0
    assert _bounded(replace(TERMS, most=40.0), capped).most == 40.0
    assert _bounded(replace(TERMS, most=90.0), capped).most == 60.0
    assert _bounded(TERMS, TargetSpec()).most is None


@pytest.mark.long
def test_a_search_that_stops_at_what_its_target_may_get_says_whose_limit_that_is(
    tmp_path: Path,
) -> None:
    capped = ("--start", "40", "--set", "target.max_rate=60/s", "--json")
    found = loadbench("find", slow(tmp_path), *SHORT, *capped, cwd=tmp_path)
    (setting,) = json.loads(found.stdout)["settings"]
    assert (setting["rate"], setting["limit"]) == (60.0, "cap")
    assert setting["text"] == "no higher rate was to be tried: target.max_rate is 60.0/s"


@pytest.mark.parametrize("phase", ['rate = "60 %"', 'from = "10 %", to = "60 %"'])
def test_of_a_calibrated_scenario_a_search_begins_where_it_is_told_or_by_the_engine(
    tmp_path: Path, phase: str
) -> None:
    path = scenario(tmp_path, load='calibrate = "2s"')
    path.write_text(path.read_text().replace("rate = 200", phase))
    searchable(spec.load(str(path), {}))
    found = spec.load(str(path), {"target.url": "http://127.0.0.1:9"})
    searchable(found, 40.0)
    with pytest.raises(SpecError, match="does not begin at a rate in %"):
        searchable(found)
