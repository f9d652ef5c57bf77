"""Run folders as runners leave them: one that came to its end, one whose runner was killed."""

from pathlib import Path
from typing import Any

from loadbench import runlog
from loadbench.model import Check, End, Record, plain
from loadbench.summary import summarise
from tests.records import start, window

GONE = 2**22 + 1  # no process has such a number


def finished(
    results: Path,
    name: str,
    latency_ms: float,
    failed: dict[str, int] | None = None,
    scenario: str = "steady",
    **settings: Any,
) -> Path:
    """Three seconds of 500/s with one latency; `settings` are the engine's."""
    folder, records = _recorded(results, name, latency_ms, failed)
    summary = plain(summarise(records))
    snapshot = _snapshot(folder, scenario, settings)
    runlog.write_snapshot(folder, {**snapshot, "state": "done", "summary": summary})
    return folder


def killed(results: Path, name: str, pid: int = GONE) -> Path:
    """The same without an end; with a `pid` that lives it goes on."""
    folder, _ = _recorded(results, name, 10.0, None, ended=False)
    runlog.write_snapshot(folder, {**_snapshot(folder, "steady", {}), "pid": pid})
    return folder


def _recorded(
    results: Path, name: str, latency_ms: float, failed: dict[str, int] | None, ended: bool = True
) -> tuple[Path, list[Record]]:
    folder = runlog.create(results, name)
    end = End(2, "done")
    check = Check("p99", False, 100e6, "< 100 ms")
    records: list[Record] = [
        start(run=folder.name, checks=(check,)),
        *(window(second, [latency_ms] * 500, failed) for second in range(3)),
    ]
    writer = runlog.Writer(folder)
    for record in records:
        writer.write(record)
    if ended:
        writer.close(end)
    else:
        writer._file.close()
    return folder, [*records, end]


def _snapshot(folder: Path, scenario: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": 1,
        "loadbench": "0.1.0",
        "run": folder.name,
        "state": "running",
        "began": "2026-01-05T14:02:00+00:00",
        "scenario": scenario,
        "title": "500/s for three seconds",
        "spec": {"load": {"seed": 7}, "engine": {"max_batch": 32, **settings}, "request": []},
        "phases": [],
        "target": {"name": "local:mlp", "model": "mlp", "device": "cpu"},
        "machine": {"cores": 2, "packages": {"torch": "2.13.0"}},
        "commit": "abc1234",
    }
