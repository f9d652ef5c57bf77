"""Run folders from anywhere put before all that reads them: what each says and whether it harms."""

import asyncio
import hashlib
from pathlib import Path

import pytest
from textual.message import Message

from dashboard.follow import Follow, Unreadable, ViewChanged
from loadbench import catalogue
from loadbench.cli import main

RECORDED = Path(__file__).parent / "data" / "snapshots"
Command = list[str]


def commands(results: Path, run: str, good: str) -> list[Command]:
    """Every command that looks at runs, at this one."""
    out = ["--out", str(results)]
    return [
        ["list", *out],
        ["list", "--json", *out],
        ["show", run, *out],
        ["show", run, "--json", *out],
        ["compare", run, run, *out],
        ["compare", good, run, *out],
        ["compare", run, good, "--json", *out],
        ["optimum", run, *out],
        ["report", run, "-o", "-", *out],
        ["export", run, "--as", "csv", *out],
        ["export", run, "--as", "perf-analyzer-csv", *out],
        ["baseline", "list", *out],
        ["tell", run, "stop", *out],
    ]


def said(command: Command, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, output and error of a command; anything but an exit goes through."""
    with pytest.raises(SystemExit) as ended:
        main(command)
    shown = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return code, shown.out, shown.err


def followed(folder: Path, patience_s: float = 20.0) -> str:
    """Opens a run as the dashboard does; why that cannot be done, or "" where there is a view.
    A log that is not there yet is waited for so long."""

    async def until_told() -> str:
        told: asyncio.Queue[Message] = asyncio.Queue()
        reading = asyncio.create_task(Follow(folder).run(told.put_nowait))
        reason = ""
        try:
            while not reading.done() or not told.empty():
                message = await asyncio.wait_for(told.get(), patience_s)
                if isinstance(message, Unreadable):
                    reason = message.reason
                    break
                if isinstance(message, ViewChanged) and message.view.end is not None:
                    break
        except TimeoutError:
            reason = "nothing to be seen"
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        if reading.done() and not reading.cancelled():
            assert reading.exception() is None, reading.exception()
        return reason

    return asyncio.run(until_told())


def listed(results: Path) -> list[str]:
    """The problems of the runs in the dashboard's list."""
    return [entry.problem for entry in catalogue.entries(results)]


def digests(folder: Path) -> dict[str, str]:
    """What lies in a folder, to see that nothing of it was touched."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.stat().st_size < 10_000_000
    }
