"""run.json: what was run, on what, by which versions; and the doubts that other runs cast on it."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from loadbench import __version__, runlog
from loadbench.environment import shown
from loadbench.errors import SpecError
from loadbench.inputfiles import whole_file
from loadbench.model import Note, Start, plain
from loadbench.plan import Plan
from loadbench.probe import Nvml, versions
from loadbench.runner.target import Target
from loadbench.spec import Scenario
from loadbench.units import hostport

_LOOK_BACK = 20


def snapshot(
    scenario: Scenario,
    start: Start,
    target: Target,
    plan: Plan,
    nvml: Nvml,
    files: Mapping[str, str],
) -> dict[str, Any]:
    """run.json as it stands when the load begins; `files` are the digests of what it is made of."""
    endpoint = target.endpoint
    return {
        "schema": runlog.SCHEMA,
        "kind": "run",
        "loadbench": __version__,
        "run": start.run,
        "state": "running",
        "began": start.wall_time,
        "pid": os.getpid(),
        "host": platform.node(),
        "scenario": scenario.name,
        "scenario_file": scenario.file,
        "title": scenario.spec.title,
        "spec": scenario.spec.facts(),
        "phases": plain(plan.phases),
        "locustfile": whole_file(plan.journey.file) if plan.journey else None,
        "files": dict(files),
        "workers": plain(plan.workers),
        "target": {
            "name": start.target,
            "url": shown("url", target.url),
            **({"replicas": _places(target)} if target.replicas else {}),
            "protocol": endpoint.protocol,
            **({"known_by": target.known_by} if target.known_by else {}),
            **({"tls": True} if endpoint.tls else {}),
            "model": endpoint.model,
            "version": endpoint.version,
            "inputs": plain(endpoint.inputs),
            "outputs": plain(endpoint.outputs),
            "device": start.device,
            **{key: value for key, value in target.settings.items() if key != "model"},
        },
        "machine": versions(nvml),
        "commit": commit(),
    }


def _places(target: Target) -> list[str]:
    return [hostport(one.host, one.port) for one in target.replicas]


def commit() -> str | None:
    """The commit of the folder that loadbench was called in, marked if files had changed."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude", "*"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def _later(ended: Any, since: str | None) -> bool:
    """Whether a run ended after that moment (ISO 8601 with its zone); no, where it does not say."""
    try:
        return since is not None and datetime.fromisoformat(ended) > datetime.fromisoformat(since)
    except (TypeError, ValueError):
        return False


def others(results: Path, own: Path, since: str | None) -> tuple[Note, ...]:
    """A doubt for every other run in these results that is running, or ended after `since`."""
    notes = []
    for folder in runlog.runs(results)[-_LOOK_BACK:]:
        if folder in (own, own.parent) or not (folder / runlog.SNAPSHOT).exists():
            continue
        try:
            found = runlog.read_snapshot(folder)
        except SpecError:
            continue  # damaged: says nothing of us, and `loadbench show` will name it
        running = runlog.state(found) == "running"
        if running or _later(found.get("ended"), since):
            text = f"another run was going on at the same time: {folder.name}"
            notes.append(Note("other-run", text, "run one at a time on one machine"))
    return tuple(notes)
