"""What it costs to open a run of eight hours and to go through it.

    python -m tests.benchmarks.longrun [--hours 8] [--rate 200] [--size 120x40] [--log FOLDER]

Writes the log of such a run (seconds, minutes, alerts, marks, index; about 110 MB) and opens it by
`loadbench tui --attach` on a pseudo-terminal. Told are: wall and CPU time from the start of the
program to the first drawn figures, with the index and without it (as of a run that was killed);
resident memory above that of the dashboard on a run of one minute, at the opening, after going
through the run and after following all of it, second by second; and how long a key takes until its
picture has been written.
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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from loadbench import runlog
from loadbench.model import AlertChange, End, Mark, Record, Start, Window
from tests.benchmarks.screen import cpu_s, resident_mb
from tests.storyline import Story, records

ROOT = Path(__file__).parents[2]
LIVE_RATE = 10_000.0
QUIET_S = 0.25  # nothing more is written: whatever the key before has caused has been drawn
ASKED, IN_FRAMES = b"\x1b[?2026$p", b"\x1b[?2026;1$y"  # does the terminal know frames?
FRAME_ENDS = b"\x1b[?2026l"
KEYS = {
    "earlier": "\x1b[D", "later": "\x1b[C", "alert before": "[", "next alert": "]",
    "closer": "+", "wider": "-", "one second": "i", "engine": "2", "live": "1",
}  # fmt: skip
WALK = (
    "alert before", "closer", "closer", "earlier", "earlier", "one second", "earlier", "later",
    "one second", "engine", "earlier", "live", "wider", "wider", "alert before", "later",
)  # fmt: skip


def long_story(seconds: int, rate: float) -> Iterator[Record]:
    """A steady run with an alert and a mark each half hour."""
    for record in records(Story(seconds=seconds, rate=rate, spike=(0, 0))):
        if isinstance(record, Start | Window | End):
            yield record
        second = record.second if isinstance(record, Window) else -1
        if second % 1800 == 900:
            yield Mark(second, f"deploy {second // 1800}")
        if second % 1800 == 1200:
            yield AlertChange(
                second,
                "p99",
                "firing",
                184.0,
                since=second - 5,
                peak=184.0,
                context="200/s asked, 150/s done",
            )
        if second % 1800 == 1230:
            yield AlertChange(second, "p99", "ok", 44.0, since=second - 35, peak=184.0)


def write(folder: Path, seconds: int, rate: float) -> None:
    folder.mkdir(parents=True)
    runlog.write_snapshot(folder, {"run": folder.name, "state": "done", "summary": {}})
    writer = runlog.Writer(folder)
    for record in long_story(seconds, rate):
        if isinstance(record, End):
            writer.close(record)
        else:
            writer.write(record)


class Screen:
    """The dashboard on a pseudo-terminal."""

    def __init__(self, folder: Path, size: tuple[int, int], *more: str) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        command = [sys.executable, "-m", "loadbench", "tui", "--attach", str(folder), *more]
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self._begun = time.monotonic()
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT
        )
        os.close(theirs)

    def _read(self, patience_s: float) -> bytes:
        """What came, nothing if that lasts too long; tells it that frames are known here."""
        if not select.select([self._ours], [], [], patience_s)[0]:
            return b""
        found = os.read(self._ours, 1 << 16)
        for _ in range(found.count(ASKED)):
            os.write(self._ours, IN_FRAMES)
        return found

    def until(self, words: str) -> tuple[float, float]:
        """(wall, CPU) seconds since the start when the words are there."""
        found = b""
        while words not in re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", found).decode("utf-8", "ignore"):
            more = self._read(60)
            if not more:
                raise TimeoutError(words)
            found += more
        return time.monotonic() - self._begun, cpu_s(self.process.pid)

    def drain(self, quiet_s: float = 0.6) -> None:
        while self._read(quiet_s):
            pass

    def press(self, key: str) -> float | None:
        """ms from a key until the first whole frame after it has been written; None if there is
        none. What was read of the log meanwhile may bring another frame."""
        self.drain(QUIET_S)
        begun, found = time.monotonic(), b""
        os.write(self._ours, KEYS[key].encode())
        while FRAME_ENDS not in found:
            more = self._read(1.0)
            if not more:
                return None
            found += more
        return (time.monotonic() - begun) * 1000

    @property
    def memory_mb(self) -> float:
        return resident_mb(self.process.pid)

    def close(self) -> None:
        self.process.terminate()
        with suppress(OSError):  # Linux: the other side is closed
            while self.process.poll() is None:
                self.drain(0.1)  # it ends when what it has drawn is taken
        self.process.wait()
        os.close(self._ours)


def opened(folder: Path, size: tuple[int, int]) -> tuple[float, float, float]:
    """Wall and CPU seconds to the first figures, MB then."""
    screen = Screen(folder, size)
    try:
        wall, cpu = screen.until("DONE")
        screen.drain()
        return wall, cpu, screen.memory_mb
    finally:
        screen.close()


@contextmanager
def going(place: Path, rate: float) -> Iterator[Path]:
    """A run of so many requests a second that goes on, two minutes old."""
    folder = place / "0004-going"
    player = [sys.executable, str(ROOT / "tests/benchmarks/player.py"), str(folder), "1"]
    with subprocess.Popen([*player, str(rate), "seconds=3600", "ahead=120"]) as playing:
        while not (folder / runlog.LOG).exists():
            time.sleep(0.1)
        yield folder
        playing.terminate()


def walked(
    folder: Path, size: tuple[int, int], rounds: int, word: str = "DONE"
) -> tuple[list[float], float]:
    """ms of each key of a walk through the run, MB at its end."""
    screen = Screen(folder, size)
    try:
        screen.until(word)
        screen.drain()
        times = []
        for _ in range(rounds):
            for key in WALK:
                times.append(screen.press(key))
        screen.drain()
        return [one for one in times if one is not None], screen.memory_mb
    finally:
        screen.close()


def followed(folder: Path) -> float:
    """MB that the view takes of a dashboard that has followed the run from its first second."""
    code = (
        "import sys, pathlib\n"
        "import dashboard.app\n"
        "from loadbench import runlog, view\n"
        "from tests.benchmarks.screen import resident_mb\n"
        "import os\n"
        "before, seen = resident_mb(os.getpid()), view.View()\n"
        "for record in runlog.read(pathlib.Path(sys.argv[1])):\n"
        "    seen = view.fold(seen, record)\n"
        "print(resident_mb(os.getpid()) - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, cwd=ROOT
    )
    return float(done.stdout)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def told(times: list[float]) -> str:
    spread = (
        f"{name} {quantile(times, share):.0f}" for name, share in (("P50", 0.5), ("P99", 0.99))
    )
    return f"{', '.join(spread)}, most {max(times):.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description="A run of hours: opening it, going through it.")
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--size", default="120x40")
    parser.add_argument("--rounds", type=int, default=20, help=f"of {len(WALK)} keys")
    parser.add_argument("--log", help="a folder for the logs, kept; default: a temporary one")
    options = parser.parse_args()
    width, height = (int(text) for text in options.size.split("x"))
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(options.log or temporary)
        long, short, usual = (place / name for name in ("0001-long", "0002-short", "0003-usual"))
        for folder, seconds in ((long, round(options.hours * 3600)), (short, 60), (usual, 600)):
            if not folder.exists():
                write(folder, seconds, options.rate)
        log = (long / runlog.LOG).stat().st_size / 1e6
        empty = opened(short, (width, height))
        rows = {"with its index": opened(long, (width, height))}
        index = long / "log.idx"
        text = index.read_text()
        index.unlink()
        rows["without"] = opened(long, (width, height))
        index.write_text(text)
        print(f"a run of {options.hours:g} h, {log:.0f} MB")
        print(f"one of a minute: {empty[0]:.2f} s wall, {empty[1]:.2f} s CPU, {empty[2]:.0f} MB")
        for name, (wall, cpu, memory) in rows.items():
            figures = f"{wall:.2f} s wall, {cpu:.2f} s CPU, {memory - empty[2]:+.0f} MB"
            print(f"{name}: first figures after {figures}")
        for name, folder in (("ten minutes", usual), (f"{options.hours:g} h", long)):
            times, memory = walked(folder, (width, height), options.rounds)
            print(f"a run of {name}: {len(times)} keys at {options.size}: {told(times)};"
                  f" {memory - empty[2]:+.0f} MB after them")  # fmt: skip
        print(f"all its seconds folded: {followed(long):+.0f} MB")
        with going(place, LIVE_RATE) as folder:
            times, _ = walked(folder, (width, height), options.rounds, "RUNNING")
            print(f"a run of {LIVE_RATE:,.0f}/s that goes on: {len(times)} keys: {told(times)}")


if __name__ == "__main__":
    main()
