"""Runs that get no verdict: nowhere do their checks seem to have passed or failed."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from loadbench import runlog
from loadbench.catalogue import entries
from loadbench.judge.checks import NO_VERDICT, verdict
from loadbench.model import Note
from loadbench.report.export.mlflow import figures
from loadbench.report.export.prometheus import prometheus_bytes
from loadbench.report.export.source import source
from loadbench.report.html import report
from loadbench.report.page.verdict import headline, outcome
from loadbench.report.series import series_text, unjudged_repeats
from loadbench.report.text import summary_text
from tests.ended import finished
from tests.foreign import said
from tests.test_repeats import series

WHYS = {
    "invalid": "the numbers cannot be trusted: late by 80 ms",
    "stopped": "the run was not finished: it broke off",
    "killed": "the run was not finished: it broke off",
    "running": "the run goes on",
}


@pytest.mark.parametrize("latency_ms", [10.0, 200.0], ids=["good", "bad"])
@pytest.mark.parametrize("why", WHYS)
def test_it_is_told_wherever_the_run_is_shown(tmp_path: Path, why: str, latency_ms: float) -> None:
    found = source(finished(tmp_path, "one", latency_ms))
    assert verdict([found.summary], False) == int(latency_ms > 100)
    assert "no verdict" not in summary_text(found.summary)
    summary = replace(found.summary, text="it broke off")
    if why == "invalid":
        late = Note("generator-late", "late by 80 ms")
        summary = replace(summary, trust="invalid", notes=(late,))
    else:
        summary = replace(summary, reason=why)
    assert verdict([summary], False) == NO_VERDICT
    text = summary_text(summary)
    assert f"▲ no verdict: {WHYS[why]}; measured: p99 {latency_ms:.0f}" in text
    assert outcome(summary) == f"No verdict: {WHYS[why]}"
    assert headline(summary)[1] == "warn"
    left = found._replace(summary=summary)
    assert b"loadbench_run_check_passed{" in prometheus_bytes(found)
    assert b"loadbench_run_check_passed{" not in prometheus_bytes(left)
    counted = {"checks_passed", "checks_failed"}
    assert counted <= set(figures(found))
    assert not counted & set(figures(left))


def test_repeats_say_why_they_cannot_be_trusted_as_a_run_does() -> None:
    late = {"code": "generator-late", "text": "late by 80 ms"}
    whole = {"reason": "done", "trust": "invalid", "notes": [late]}
    assert unjudged_repeats(whole) == WHYS["invalid"]
    assert unjudged_repeats({**whole, "trust": "doubtful"}) == ""


@pytest.mark.parametrize("why", ["invalid", "stopped"])
def test_a_list_and_a_series_do_not_count_its_checks(
    tmp_path: Path, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = series(tmp_path, [10.0] * 2)
    assert "✓ 1/1" in series_text(folder)
    found = runlog.read_snapshot(folder / "2")
    changes = {"trust": "invalid"} if why == "invalid" else {"reason": "stopped"}
    runlog.write_snapshot(folder / "2", {**found, "summary": {**found["summary"], **changes}})
    rows = {line.split()[0]: line for line in series_text(folder).splitlines() if line.strip()}
    assert ["no verdict" in rows[name] for name in ("1", "2", "median")] == [False, True, True]
    alone = tmp_path / "alone"
    single = finished(alone, "one", 10.0)
    found = runlog.read_snapshot(single)
    state = why if why == "stopped" else "done"
    runlog.write_snapshot(
        single, {**found, "state": state, "summary": {**found["summary"], **changes}}
    )
    (entry,) = entries(alone)
    assert (entry.checked, entry.passed) == ("▲", 0)
    line = said(["list", "--out", str(alone)], capsys)[1].splitlines()[1]
    assert "1/1" not in line
    assert why in line
    assert '"checks_passed": 0' in said(["list", "--json", "--out", str(alone)], capsys)[1]


def test_a_repeat_that_was_broken_off_before_it_asked_is_in_no_median(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = series(tmp_path, [10.0, 20.0])
    found = runlog.read_snapshot(folder / "2")
    summary = found["summary"]
    nothing = dict.fromkeys(summary["latency_ms"])
    found["summary"] |= {
        "asked": 0, "done": 0, "reason": "stopped", "latency_ms": nothing,
        "rate": dict.fromkeys(summary["rate"]),
    }  # fmt: skip
    runlog.write_snapshot(folder / "2", found)
    rows = {line.split()[0]: line for line in series_text(folder).splitlines() if line.strip()}
    assert rows["median"].split()[1:4] == rows["1"].split()[1:4]
    assert "> 100" not in series_text(folder)
    page = report([folder])
    assert "Median p99 10.0 ms; no verdict: not all of it was finished: stopped." in page
    found["summary"]["limit_ms"] = 100.0
    for path in runlog.repeats(folder):
        runlog.write_snapshot(path, {**found, "run": runlog.called(path)})
    assert "> 100" not in series_text(folder)
    assert "Median p99 n/a; no verdict" in report([folder])
