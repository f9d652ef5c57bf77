"""The real program in a terminal of its own: tmux draws its screen, presses its keys, and is read.

Each has a tmux server for itself, which ends with it. Left to others: what the screen means.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.segment import Segment

from loadbench.errors import RunError

ROOT = Path(__file__).parents[2]
COLOURS = {
    "true": {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
    "16": {"TERM": "xterm", "COLORTERM": ""},
    "none": {"TERM": "xterm-256color", "COLORTERM": "truecolor", "NO_COLOR": "1"},
}
_numbers = count()
_TWICE_S = 0.08  # a frame is whole when it is the same twice


def program(*arguments: str) -> list[str]:
    """The command line of `loadbench` as it is here."""
    return [sys.executable, "-m", "loadbench", *arguments]


class Pane:
    """A command in a terminal of a size in cells, which shows these colours."""

    def __init__(
        self,
        command: Sequence[str],
        size: tuple[int, int] = (120, 40),
        colours: str = "true",
        folder: Path = ROOT,
    ) -> None:
        self.size = size
        self._socket = f"loadbench-{os.getpid()}-{next(_numbers)}"
        env = {**COLOURS[colours], "PYTHONPATH": str(ROOT)}
        unset = [] if colours == "none" else ["-u", "NO_COLOR"]
        settings = [f"{name}={value}" for name, value in env.items()]
        line = shlex.join(["env", *unset, *settings, *command])
        self._tmux(
            *("-f", "/dev/null", "new-session", "-d", "-c", str(folder)),
            *("-x", str(size[0]), "-y", str(size[1])),
            f"{line}; sleep 60",  # what it says at its end can be read, too
        )

    def __enter__(self) -> "Pane":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        subprocess.run(self._command("kill-server"), check=False, capture_output=True)

    def press(self, *keys: str) -> None:
        """Keys by tmux's names: `2`, `Escape`, `C-p`; a word of several letters is typed."""
        self._tmux("send-keys", *keys)

    def text(self) -> str:
        """What stands there; the same at two readings, so that no half frame is read."""
        return self._whole("capture-pane", "-p")

    def lines(self) -> list[list[Segment]]:
        """The cells with their styles."""
        console = Console(width=self.size[0], color_system="truecolor", force_terminal=True)
        found = AnsiDecoder().decode(self._whole("capture-pane", "-p", "-e", "-N").rstrip("\n"))
        return [list(line.render(console)) for line in found]

    def wait(self, found: str | Callable[[str], object], seconds: float = 60.0) -> str:
        """The text once a pattern is in it, or once it is as asked. Raises RunError when not."""
        until = time.monotonic() + seconds
        while True:
            text = self.text()
            if found(text) if callable(found) else re.search(found, text):
                return text
            if time.monotonic() > until:
                raise RunError(f"{found!r} did not come within {seconds:.0f} s:\n{text}")
            time.sleep(0.05)

    def _whole(self, *command: str) -> str:
        before = ""
        while (now := self._tmux(*command)) != before:
            before = now
            time.sleep(_TWICE_S)
        return now

    def _tmux(self, *command: str) -> str:
        done = subprocess.run(self._command(*command), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RunError(f"tmux: {done.stderr.strip()}", "Debian: apt-get install tmux")
        return done.stdout

    def _command(self, *command: str) -> list[str]:
        return ["tmux", "-L", self._socket, *command]
