"""Line 1 of a run that is over, and the one under it, say what its summary says."""

import asyncio
from pathlib import Path
from typing import Any

from loadbench import runlog
from loadbench.model import End
from loadbench.snapshots import sums
from loadbench.view import fold
from tests.stage import shown, text, told
from tests.storyline import Story

PASSED = {"checks": [{"name": "p99", "state": "passed"}], "trust": "trusted", "notes": []}


def lines(folder: Path, end: End) -> list[str]:
    view = fold(told(Story(seconds=30, end=None, spike=(0, 0))), end)

    async def read() -> str:
        async with shown(view, folder=folder) as (app, _):
            return text(app)

    return asyncio.run(read()).split("\n")


def snapshot(folder: Path, **summary: Any) -> None:
    runlog.write_snapshot(folder, {"summary": {**PASSED, **summary}})


def test_a_run_that_was_stopped_has_no_verdict_however_it_was_stopped(tmp_path: Path) -> None:
    snapshot(tmp_path, seconds=29.0)
    for why in ("ended by command", "stopped by SIGHUP"):
        first, second, *_ = lines(tmp_path, End(30, "stopped", why))
        assert "■ STOPPED  at 00:29 ▲ no verdict" in first
        assert f"▲ No verdict: the run was not finished: {why}." in second


def test_what_cannot_be_trusted_or_was_altered_has_none_either(tmp_path: Path) -> None:
    done = End(30, "done")
    snapshot(tmp_path, seconds=30.0)
    assert "■ DONE  00:30 ✓ 1 of 1 checks" in lines(tmp_path, done)[0]
    sums.write(tmp_path, [runlog.SNAPSHOT])
    assert "✓ 1 of 1 checks" in lines(tmp_path, done)[0]
    snapshot(tmp_path, trust="invalid")
    (tmp_path / sums.FILE).unlink()
    assert "▲ no verdict" in lines(tmp_path, done)[0]
    sums.write(tmp_path, [runlog.SNAPSHOT])
    snapshot(tmp_path, seconds=30.0)
    first, second, *_ = lines(tmp_path, done)
    assert "▲ no verdict" in first
    assert "▲ No verdict: run.json was altered after the run." in second


def test_a_run_without_checks_asks_for_no_verdict(tmp_path: Path) -> None:
    snapshot(tmp_path, checks=[])
    assert "verdict" not in "".join(lines(tmp_path, End(30, "stopped", "ended by command"))[:2])


def test_a_run_is_as_long_as_its_load(tmp_path: Path) -> None:
    """What was waited for after it is not part of it."""
    snapshot(tmp_path, seconds=28.4)
    assert "■ DONE  00:28 " in lines(tmp_path, End(30, "done"))[0]
