"""What the dashboard costs while it follows a run of 10,000 requests a second.

    python tests/benchmarks/screen.py [--seconds 30] [--rate 10000] [--screen 1]

For each size: seconds from the start of the program to the first drawn figures, CPU per second of
the whole process (a share of one core, from /proc) with a new window each second, and its memory.
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
SIZES = ((80, 24), (120, 40), (200, 60))
SETTLE_S = 5.0  # after the first figures: what start-up still does is not counted


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def drain(screen: int, seconds: float, words: str = "") -> bytes:
    """What comes from the terminal until the words are there or the time is over."""
    until, found = time.monotonic() + seconds, b""
    while (left := until - time.monotonic()) > 0:
        if select.select([screen], [], [], left)[0]:
            found += os.read(screen, 1 << 16)
        plain = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", found).decode("utf-8", "ignore")
        if words and words in plain:
            break
    return found


def measure(folder: Path, size: tuple[int, int], key: str, seconds: float) -> str:
    ours, theirs = pty.openpty()
    width, height = size
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
    command = [sys.executable, "-m", "loadbench", "tui", "--attach", str(folder)]
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    begun = time.monotonic()
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=ROOT
    ) as process:
        os.close(theirs)
        drain(ours, 20, "RUNNING")
        first = time.monotonic() - begun
        startup = cpu_s(process.pid)
        os.write(ours, key.encode())
        drain(ours, SETTLE_S)
        before, at = cpu_s(process.pid), time.monotonic()
        written = len(drain(ours, seconds))
        used = (cpu_s(process.pid) - before) / (time.monotonic() - at)
        memory = resident_mb(process.pid)
        os.write(ours, b"q")
        drain(ours, 2, "goes on")
        process.terminate()
    os.close(ours)
    return (
        f"{width}×{height}: first figures after {first:.2f} s ({startup:.2f} s CPU), "
        f"{used * 100:.1f} % of a core, {written / seconds / 1000:.1f} kB/s to the terminal, "
        f"{memory:.0f} MB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What the dashboard costs.")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=10_000.0)
    parser.add_argument("--screen", default="1", help="1 Live, 2 Engine, 3 Alerts")
    options = parser.parse_args()
    length = 70 + round((options.seconds + SETTLE_S + 6) * len(SIZES))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "0001-screen"
        player = [sys.executable, str(ROOT / "tests/benchmarks/player.py"), str(folder), "1"]
        with subprocess.Popen([*player, str(options.rate), f"seconds={length}"]) as playing:
            while not (folder / "log.ndjson").exists():
                time.sleep(0.1)
            for size in SIZES:
                print(measure(folder, size, options.screen, options.seconds), flush=True)
            playing.terminate()


if __name__ == "__main__":
    main()
