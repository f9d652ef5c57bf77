"""A run that the dashboard started: its process, where it lands, what it said.

The runner gets its own session, no terminal and files instead of pipes, so it outlives us whether
we quit, crash or are killed. Its control socket, not this module, is how it is told to stop.
"""

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

_FIRST, _ERROR = "run ", "loadbench:"


class Child:
    """`loadbench run …` with `arguments`, going on by itself."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._place = Path(tempfile.mkdtemp(prefix="loadbench-tui-"))
        command = [sys.executable, "-m", "loadbench", "run", *arguments, "--print-folder"]
        with open(self._place / "out", "wb") as out, open(self._place / "err", "wb") as err:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )

    def folder(self) -> Path | None:
        """Waits for the run folder; None when the runner ended without making one."""
        while True:
            ended = self._process.poll() is not None
            first, found, _ = self._read("out").partition("\n")
            if found and first.startswith(_FIRST):
                return Path(first.removeprefix(_FIRST))
            if ended:
                return None
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code once it has ended; as a shell tells it if a signal ended it."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    @property
    def killed(self) -> bool:
        """Whether a signal ended it that it had no say in."""
        return self._process.poll() in (-signal.SIGKILL, -signal.SIGTERM)

    def wait(self, seconds: float) -> int | None:
        """The exit code, or None if it is still going after so long."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return self.code

    def give_up(self) -> None:
        """Ends it before it has begun: nobody will look at it, nor at what it said."""
        self._process.terminate()
        self.forget()

    def text(self) -> str:
        """What it printed for people: its end text."""
        return self._read("out").partition("\n")[2]

    def said(self) -> str:
        """Its standard error: progress, warnings, the reason of a failure."""
        return self._read("err")

    def last_words(self) -> str:
        lines = [line.strip() for line in self.said().splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def reasons(self) -> list[str]:
        """Of all that it said, the lines of its verdict, and of why its exit code is not 0."""
        return [line for line in self.said().splitlines() if line.startswith((_ERROR, "  →"))]

    def reason(self) -> str:
        """The same in one line."""
        return " ".join(line.removeprefix(_ERROR).strip() for line in self.reasons())

    def verdict(self) -> str:
        """With a sign, what it said in the end: how the run stands against its baseline, why there
        is no verdict. "" while it goes on."""
        words = "" if self.code is None else self.reason()
        return f"{'▲' if self.code else '✓'} {words}" if words else ""

    def failure(self) -> str:
        """The same; without a reason its last words, or that a signal ended it."""
        words = self.reason()
        if not words and self.killed:
            return "the runner was killed"  # its last words were of something else
        return words or self.last_words()

    def forget(self) -> None:
        """Removes its output files: nobody reads them any more, also if the run goes on."""
        shutil.rmtree(self._place, ignore_errors=True)

    def _read(self, name: str) -> str:
        return (self._place / name).read_text(encoding="utf-8", errors="replace")
