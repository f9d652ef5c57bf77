"""What a terminal that takes 200 ms a frame shows: the present, or a backlog of old frames?

    python tests/benchmarks/slow_terminal.py [--seconds 20] [--frame-ms 200] [--presses 8]

The dashboard follows a run at one record a second on a pty whose reader takes one whole frame, then
rests. Keys are pressed all the while, so many a second. Printed: how old what is shown is (the
clock in line 1 against that of the log) at the end, the longest time from a key to what it does,
and how the memory grew.
"""

import argparse
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from loadbench import runlog  # noqa: E402
from tests.benchmarks.longrun import ASKED, FRAME_ENDS, IN_FRAMES  # noqa: E402
from tests.benchmarks.screen import resident_mb  # noqa: E402

PATTERN = re.compile(r"RUNNING +(\d\d):(\d\d)")


class SlowTerminal:
    """Takes a frame, then rests. `shown` is what it has drawn so far, the newest at the end."""

    def __init__(self, command: list[str], size: tuple[int, int], frame_s: float) -> None:
        self._ours, theirs = pty.openpty()
        width, height = size
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT
        )
        os.close(theirs)
        self._rest, self._ready, self._frame_s = b"", 0.0, frame_s
        self.shown, self.frames = "", 0
        self.late_answers = 0  # that came when the program had given the terminal back

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def look(self, seconds: float) -> None:
        """Goes on for so long."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            if now < self._ready:
                time.sleep(min(self._ready, until) - now)
            elif not self._frame():
                if not select.select([self._ours], [], [], min(0.05, until - now))[0]:
                    continue
                self._rest += os.read(self._ours, 4096)

    def _frame(self) -> bool:
        """Draws one if there is a whole one, and answers what was asked before it."""
        while ASKED in self._rest.partition(FRAME_ENDS)[0]:
            self._rest = self._rest.replace(ASKED, b"", 1)
            os.write(self._ours, IN_FRAMES)
            self.late_answers += bool(termios.tcgetattr(self._ours)[3] & termios.ICANON)
        frame, end, rest = self._rest.partition(FRAME_ENDS)
        if not end:
            return False
        plain = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", frame).decode("utf-8", "replace")
        self.shown = (self.shown + plain)[-60_000:]
        self._rest, self.frames = rest, self.frames + 1
        self._ready = time.monotonic() + self._frame_s
        return True

    @property
    def second(self) -> int:
        """Of the run, as line 1 has it."""
        found = PATTERN.findall(self.shown)
        return int(found[-1][0]) * 60 + int(found[-1][1]) if found else -1

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


def newest(folder: Path) -> int:
    """The second after the last in the log."""
    return 1 + max(getattr(record, "second", -1) for record in runlog.read(folder))


def measure(size: tuple[int, int], seconds: float, frame_s: float, presses: int) -> str:
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "loadbench", "run", "steady", "--target", "local:fake",
                   "--rate", "200", "--duration", f"{seconds + 60:.0f}s", "--out", place,
                   "--print-folder"]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
            assert run.stdout is not None
            folder = Path(run.stdout.readline().decode().split(" ", 1)[1].strip())
            while not (folder / runlog.LOG).exists():
                time.sleep(0.1)
            screen = SlowTerminal(
                [sys.executable, "-m", "loadbench", "tui", "--attach", str(folder)], size, frame_s
            )
            try:
                return _watched(screen, folder, seconds, presses)
            finally:
                screen.close()
                run.terminate()


def _watched(screen: SlowTerminal, folder: Path, seconds: float, presses: int) -> str:
    until = time.monotonic() + 60
    while screen.second < 2 and time.monotonic() < until:
        screen.look(0.2)
    before, ages, frames = resident_mb(screen.process.pid), [], screen.frames
    for turn in range(round(seconds * max(1, presses))):
        if presses:
            screen.press("+-"[turn % 2])
        screen.look(1 / max(1, presses))
        ages.append(newest(folder) - screen.second)
    grown = resident_mb(screen.process.pid) - before
    frames = screen.frames - frames
    screen.shown = ""
    at = time.monotonic()
    screen.press("?")
    while "Zoom in: a shorter time" not in screen.shown and time.monotonic() < at + 60:
        screen.look(0.05)
    late = time.monotonic() - at
    ages.sort()
    return (
        f"{presses} keys a second: {frames / seconds:.1f} frames/s drawn; what is shown is "
        f"{ages[len(ages) // 2]} s old (median), {ages[-1]} s at most; a key shows after "
        f"{late:.1f} s; memory {grown:+.1f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--frame-ms", type=float, default=200)
    parser.add_argument("--presses", type=int, nargs="*", default=[0, 8, 30])
    given = parser.parse_args()
    for presses in given.presses:
        print(measure((120, 40), given.seconds, given.frame_ms / 1000, presses), flush=True)


if __name__ == "__main__":
    main()
