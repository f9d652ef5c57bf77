"""A run that spans a change of versions: the figures stay exact, and it is told what changed."""

import json
import subprocess
import time
from pathlib import Path

from loadbench import runlog
from loadbench.histogram import Histogram
from loadbench.inside import EngineStatistics
from loadbench.model import Mark, Remark, Window
from loadbench.targets.between import difference
from loadbench.targets.statistics import Reading
from loadbench.units import MS
from tests.running import LOADBENCH, adds_up
from tests.served import serving, settings


def counted(number: int, role: str, share: float = 0.0, reason: str = "") -> Reading:
    """A version that has answered so many requests, each in a batch of its own."""
    engine = EngineStatistics(
        compute=Histogram.of([MS] * number), max_batch=8, role=role, share=share, reason=reason
    )
    return Reading(success=number, rows=number, batches=number, engine=engine)


def test_each_version_counts_by_itself() -> None:
    earlier = Reading(parts={"1": counted(10, "current", 1.0)})
    later = Reading(parts={"1": counted(13, "unloaded"), "2": counted(4, "current", 1.0)})
    found = difference(earlier, later)
    assert (found.requests, found.batches, found.max_batch) == (7, 7, 8)
    assert found.compute is not None
    assert found.compute.count == 7
    assert found.changes == ("version 1 was unloaded", "version 2 answers from now on")
    assert difference(later, later).changes == ()


def test_what_a_shadow_runs_is_nobodys_request_until_it_takes_over() -> None:
    alone = Reading(parts={"1": counted(10, "current")})
    beside = Reading(parts={"1": counted(15, "current"), "2": counted(5, "shadow")})
    after = Reading(parts={"1": counted(15, "loaded"), "2": counted(3, "current")})
    found = difference(alone, beside)
    assert found.requests == 5
    assert [text[:21] for text in found.changes] == ["version 2 is a shadow"]
    assert difference(beside, after).requests == 3


def test_a_canarys_share_and_its_end_are_told() -> None:
    before = Reading(parts={"1": counted(1, "current"), "2": counted(0, "canary", 0.1)})
    more = Reading(parts={"1": counted(1, "current"), "2": counted(0, "canary", 0.5)})
    why = "rolled back: 7 of 50 requests failed"
    ended = Reading(parts={"1": counted(1, "current"), "2": counted(0, "loaded", 0, why)})
    assert difference(before, more).changes == ("version 2 is a canary for 50 % of the requests",)
    assert difference(more, ended).changes == (f"version 2 was {why}",)


def loading(results: Path) -> bool:
    """Whether a second of the run's load is over."""
    return any(
        isinstance(record, Window) and record.stage == "load"
        for folder in runlog.runs(results)
        if (folder / runlog.LOG).exists()
        for record in runlog.read(folder)
    )


def test_a_run_goes_on_over_a_swap(tmp_path: Path) -> None:
    with serving("fake", *settings("fake.a=1 ms", "max_batch=8")) as engine:
        command = [*LOADBENCH, "run", "steady", "--target", f"http://127.0.0.1:{engine.port}"]
        command += ["--rate", "100", "--duration", "4s", "--json", "--on-no-verdict", "warn"]
        command += ["--set", "load.warmup=0s"]  # its requests would be counted with the first ones
        with subprocess.Popen(
            command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            end = time.monotonic() + 60
            while not loading(tmp_path / "results"):
                assert time.monotonic() < end, "the load never began"
                time.sleep(0.1)
            body = {"parameters": {"version": "2"}}
            assert engine.call("/v2/repository/models/fake/load", body).status == 200
            out, _ = process.communicate(timeout=60)
        counts = engine.call("/v2/models/fake/stats").json["model_stats"]
    summary = json.loads(out)
    assert adds_up(summary)
    assert not summary["failed"]
    assert {entry["version"] for entry in counts if entry["inference_count"]} == {"1", "2"}
    assert summary["server"]["requests"] == summary["done"]
    (folder,) = runlog.runs(tmp_path / "results")
    records = list(runlog.read(folder))
    marks = [record.text for record in records if isinstance(record, Mark)]
    assert "version 2 answers from now on" in marks
    notes = [record.note.code for record in records if isinstance(record, Remark)]
    assert notes.count("versions") == 1
