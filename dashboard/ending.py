"""What a run that is over came to, as its summary has it and `show` tells it: how long it was, its
checks, and why they pass nothing and fail nothing.

The summary is read from the run's snapshot, which comes a moment after the last record.
"""

from pathlib import Path
from typing import Any

from dashboard.scene import Scene
from loadbench import runlog, units
from loadbench.errors import SpecError
from loadbench.judge.checks import not_finished, why_unjudged
from loadbench.model import Note
from loadbench.snapshots import sums
from loadbench.view import over_at

_LONGEST_S = 1e9


def snapshot(folder: Path) -> dict[str, Any]:
    """Of the run that lies there, its summary with a doubt if it was altered since; {} while it is
    not written yet."""
    try:
        found = runlog.read_snapshot(folder)
    except SpecError:
        return {}
    doubt = sums.altered(folder, runlog.SNAPSHOT) if "summary" in found else None
    return {**found, "summary": sums.doubted(found["summary"], doubt)} if doubt else found


def length(scene: Scene) -> str:
    """Of the load, without what was waited for after it: 10:00. Of one that failed, until then."""
    view, told = scene.view, _summary(scene).get("seconds")
    seconds: float = scene.newest
    if view.end and view.end.reason == "failed":
        return units.clock(over_at(view) * units.SECOND)
    if isinstance(told, int | float) and 0 <= told <= _LONGEST_S:
        seconds = told
    elif view.end and view.end.reason == "done" and view.start and view.start.planned_ns:
        seconds = min(seconds, view.start.planned_ns / units.SECOND)
    return units.clock(round(seconds * units.SECOND))


def unjudged(scene: Scene) -> str:
    """Why there is no verdict on its checks; "" where there is, or it has none."""
    end = scene.view.end
    if end is None or not _checks(scene):
        return ""
    summary = _summary(scene)
    found = summary.get("notes")
    notes = [
        Note(str(note.get("code")), str(note.get("text")))
        for note in (found if isinstance(found, list) else ())
        if isinstance(note, dict)
    ]
    return why_unjudged(end.reason, str(summary.get("trust")), notes, not_finished(end.text))


def checks(scene: Scene) -> str:
    """`✓ 4 of 4 checks`, `✗ 1 of 4 checks failed`, `○ 1 of 4 checks without data`, `▲ no verdict`;
    "" until the summary is written."""
    found = _checks(scene)
    if not found:
        return ""
    if unjudged(scene):
        return "▲ no verdict"
    states = [check.get("state") for check in found if isinstance(check, dict)]
    failed, passed = states.count("failed"), states.count("passed")
    if failed:
        return f"✗ {failed} of {len(found)} checks failed"
    if unknown := len(found) - passed:
        return f"○ {unknown} of {len(found)} checks without data"
    return f"✓ {passed} of {len(found)} checks"


def _summary(scene: Scene) -> dict[str, Any]:
    found = scene.source.snapshot.get("summary")
    return found if isinstance(found, dict) else {}


def _checks(scene: Scene) -> list[Any]:
    found = _summary(scene).get("checks")
    return found if isinstance(found, list) else []
