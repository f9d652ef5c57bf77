"""The versions of run.json and of the log, and the way from an old snapshot to today's form.

Readers know only today's form. What changed it stands here, one function for each step, never
changed again; tests/data/snapshots has a recorded run of every version. The number goes up when a
key changes its meaning or must be there; a key that may be missing needs no step.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadbench.errors import SpecError
from loadbench.printable import printable
from loadbench.snapshots import files

SCHEMA = 2  # of run.json
Snapshot = dict[str, Any]


def _to_2(snapshot: Snapshot) -> Snapshot:
    """A folder may hold several repeats since: `kind` tells."""
    return {**snapshot, "kind": snapshot.get("kind", "run"), "schema": 2}


_STEPS: dict[int, Callable[[Snapshot], Snapshot]] = {1: _to_2}


def migrated(snapshot: Snapshot, of: str) -> Snapshot:
    """The snapshot in today's form; `of` names it in errors. Without a number it is taken as it
    is. SpecError if a later loadbench wrote it, or its number is none."""
    version = snapshot.get("schema", SCHEMA)
    if type(version) is not int or version < 1:
        raise SpecError(f"{of}: is no run snapshot: schema {printable(str(version))}")
    if version > SCHEMA:
        raise newer(of, version, SCHEMA, str(snapshot.get("loadbench", "")))
    while version < SCHEMA:
        snapshot = _STEPS[version](snapshot)
        version += 1
    return snapshot


def require_known(path: Path) -> None:
    """SpecError if a later loadbench wrote this run.json. One that is damaged or gone says nothing
    of the log beside it."""
    try:
        found = files.value(files.content(path))
    except (OSError, ValueError):
        return
    version = found.get("schema") if isinstance(found, dict) else None
    if type(version) is int and version > SCHEMA:
        raise newer(str(path), version, SCHEMA, str(found.get("loadbench", "")))


def newer(of: str, version: int, known: int, made: str = "") -> SpecError:
    """What to say of a file that a later loadbench wrote."""
    by = f"loadbench {printable(made)}" if made else "a later loadbench"
    return SpecError(
        f"{of}: was written by {by} (schema {version}; this one reads up to {known})",
        "read it with that version, or update this one: pip install --upgrade loadbench",
    )
