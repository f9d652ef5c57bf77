"""What is made of a run for others: its report, its figures, its command line.

Files are made by the commands that make them in a terminal, beside the screen: reading the log of
hours takes a while.
"""

import asyncio
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.printable import harmless

if TYPE_CHECKING:
    from dashboard.app import Dashboard


async def report(app: "Dashboard", folder: Path) -> None:
    """The HTML page of a run, and the page opened where there are windows."""
    await _made(app, ["report", str(folder)], folder / "report.html")


async def seconds(app: "Dashboard", folder: Path) -> None:
    """A row a second, for spreadsheets. Of a series each run has its own."""
    folder = runlog.latest(folder)
    path = folder / "seconds.csv"
    await _made(app, ["export", str(folder), "--as", "csv", "-o", str(path)], path)


async def _made(app: "Dashboard", arguments: Sequence[str], path: Path) -> None:
    line = shlex.join(["loadbench", *arguments])
    app.notify(line, title="started", markup=False)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadbench", *arguments,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    if process.returncode:
        words = said.decode("utf-8", "replace").strip() or f"it ended with {process.returncode}"
        app.notify(f"✗ {line}\n{words}", severity="error", timeout=20, markup=False)
        return
    shown = path.suffix == ".html" and opened(path)
    app.notify(f"{'opened' if shown else 'written'}: {path}", timeout=15, markup=False)


def copy_command(app: "Dashboard", folder: Path) -> None:
    """The command line that made a run, as it was typed."""
    try:
        found = runlog.read_snapshot(folder).get("command")
    except SpecError as error:
        app.notify(f"✗ {error.message}", severity="error", markup=False)
        return
    if not isinstance(found, list) or found[:1] != ["loadbench"]:
        app.notify("Its run.json does not say how it was started.")
        return
    line = harmless(shlex.join(str(word) for word in found if word != "--print-folder"))
    app.copy_to_clipboard(line)
    app.notify(f"copied: {line}", markup=False)


def opened(path: Path) -> bool:
    """Hands a file or folder to the desktop's own program for it; False where there is none."""
    if sys.platform == "win32":
        os.startfile(path)
        return True
    windows = sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    program = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    if not windows or program is None or "TEXTUAL_DRIVER" in os.environ:  # a tab may be elsewhere
        return False
    started = subprocess.Popen(
        [program, str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    threading.Thread(target=started.wait, daemon=True).start()  # leaves no zombie
    return True
