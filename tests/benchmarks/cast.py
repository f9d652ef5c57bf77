"""A short film of the dashboard during a real tour, as asciinema plays it (asciicast, version 2).

    python -m tests.benchmarks.cast [--into docs/tour.cast] [--check FILE]

The run is made headless; shortly before the spike the real `loadbench tui --attach` follows it in a
terminal of 120×40 (tmux), whose cells are read several times a second while a few keys are pressed;
what has changed of them is stored, which is a tenth of what the program writes. Then the film is
held to what it has to be, and played into another terminal, where its last frame must be whole. A
minute and a half.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.color import Color
from rich.segment import Segment
from rich.style import Style

from loadbench.errors import RunError
from tests.benchmarks.account import read
from tests.benchmarks.pane import ROOT, Pane, program

SIZE = (120, 40)
LARGEST = 1_000_000  # bytes
BEGIN = 25  # second of the tour at which the film begins; the spike is from 30 to 45
# seconds of the film, what is pressed, and what is to be seen then
KEYS = (
    (14.0, "2", "Engine: how batches form"),
    (19.0, "3", "Alerts: what is wrong, and why"),
    (25.0, "t", "the slowest requests, and why"),
    (31.0, "1", "Live: it recovers"),
    (35.0, "[", "back to the alert"),
    (38.0, "[", "and the one before"),
    (41.0, "End", "now"),
)
LENGTH = 45.0
EVERY_S = 0.1
Cell = tuple[str, Style]


class Event(NamedTuple):
    at: float  # since the film began
    kind: str  # o: what was drawn; m: a chapter
    text: str


def faults(lines: list[str]) -> list[str]:
    """What is wrong with a film: nothing, if any player can show it."""
    try:
        header, *events = [json.loads(line) for line in lines]
    except ValueError as error:
        return [f"a line is no JSON: {error}"]
    found = []
    if header.get("version") != 2 or (header.get("width"), header.get("height")) != SIZE:
        found.append(f"not version 2 at {SIZE[0]}×{SIZE[1]}: {header}")
    shapes = all(
        isinstance(event, list) and len(event) == 3 and event[1] in ("o", "m") for event in events
    )
    if not shapes:
        return [*found, "an event is not [time, kind, text]"]
    times = [event[0] for event in events]
    if times != sorted(times) or (times and times[0] < 0):
        found.append("the times do not rise")
    if not times or times[-1] < 10:
        found.append("it is shorter than 10 s")
    if sum(len(line.encode()) + 1 for line in lines) > LARGEST:
        found.append(f"it is larger than {LARGEST} bytes")
    return found


def whole(frame: str) -> bool:
    """Whether a screen is complete: line 1, footer, and between them boxes from edge to edge."""
    first, *inner, last = frame.rstrip("\n").split("\n")
    return (
        len(inner) == SIZE[1] - 2
        and " RUNNING " in first
        and "palette" in last
        and all(line[:1] in tuple("╭│╰") and line[SIZE[0] - 1 :] in tuple("╮│╯") for line in inner)
    )


def filmed(pane: Pane) -> Iterator[Event]:
    """What changes on the screen, and the keys as chapters, for LENGTH seconds."""
    begun, keys = time.monotonic(), list(KEYS)
    before: list[list[Cell]] = [[] for _ in range(SIZE[1])]
    yield Event(0.0, "o", "\x1b[?25l\x1b[2J")
    while (now := time.monotonic() - begun) < LENGTH:
        if keys and now >= keys[0][0]:
            _, key, words = keys.pop(0)
            pane.press(key)
            yield Event(now, "m", words)
        frame = [cells(line) for line in pane.lines()]
        if drawn := difference(before, frame):
            yield Event(time.monotonic() - begun, "o", drawn)
        before = frame
        time.sleep(EVERY_S)


def cells(line: Sequence[Segment]) -> list[Cell]:
    return [(char, part.style or Style()) for part in line for char in part.text]


def difference(before: list[list[Cell]], after: list[list[Cell]]) -> str:
    """What a terminal has to be sent: of each line what lies between its first and last change."""
    drawn, style = "", Style()
    for row, (old, new) in enumerate(zip(before, after, strict=True)):
        old = old + [("", Style())] * (len(new) - len(old))
        differ = [at for at, cell in enumerate(new) if cell != old[at]]
        if differ:
            drawn += f"\x1b[{row + 1};{differ[0] + 1}H"
            for char, wanted in new[differ[0] : differ[-1] + 1]:
                if wanted != style:
                    drawn += turned(style, wanted)
                    style = wanted
                drawn += char
    return drawn if style == Style() else f"{drawn}\x1b[0m"


def turned(now: Style, wanted: Style) -> str:
    """The sequence from one style to another; only colours are changed by themselves."""
    codes: list[str] = []
    if flags(now) != flags(wanted):
        codes, now = ["0", *flags(wanted)], Style()
    for was, colour, front in (
        (now.color, wanted.color, True),
        (now.bgcolor, wanted.bgcolor, False),
    ):
        if was != colour:
            codes += (colour or Color.default()).get_ansi_codes(foreground=front)
    return f"\x1b[{';'.join(codes)}m"


def flags(style: Style) -> list[str]:
    known = (style.bold, style.dim, style.italic, style.underline, style.reverse)
    return [code for code, on in zip("12347", known, strict=True) if on]


def write(path: Path, events: Iterator[Event]) -> None:
    header = {"version": 2, "width": SIZE[0], "height": SIZE[1], "title": "loadbench: a tour"}
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{json.dumps(header)}\n")
        for event in events:
            line = [round(event.at, 2), event.kind, event.text]
            file.write(f"{json.dumps(line, ensure_ascii=False)}\n")


def film(path: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        run = subprocess.Popen(
            program("run", "tour", "--out", place), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            log = recorded(Path(place), run)
            with Pane(program("tui", "--attach", str(log.parent)), SIZE) as pane:
                pane.wait("RUNNING")
                write(path, filmed(pane))
        finally:
            run.terminate()
            run.wait()


def recorded(results: Path, run: "subprocess.Popen[bytes]") -> Path:
    """The log, once the run is at BEGIN. Raises RunError if it ends before."""
    while run.poll() is None:
        for log in results.glob("0*/log.ndjson"):
            if max(read(log), default=0) >= BEGIN:
                return log
        time.sleep(0.2)
    raise RunError(f"the run ended with {run.returncode} before its second {BEGIN}")


def last_frame(path: Path) -> str:
    """What a terminal shows after all of the film. Raises RunError if that is not whole."""
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as drawn:
        drawn.write("".join(text for _, kind, text in events if kind == "o"))
        drawn.flush()
        play = ["sh", "-c", 'stty raw; cat "$1"; sleep 60', "play", drawn.name]
        with Pane(play, SIZE) as pane:
            return pane.wait(whole, 20)


def main() -> None:
    parser = argparse.ArgumentParser(description="A film of the dashboard during the tour.")
    parser.add_argument("--into", type=Path, default=ROOT / "docs" / "tour.cast")
    parser.add_argument("--check", type=Path, help="only look at this one")
    options = parser.parse_args()
    path = options.check or options.into
    if options.check is None:
        film(path)
    found = faults(path.read_text(encoding="utf-8").splitlines())
    for fault in found:
        print(f"✗ {path}: {fault}", file=sys.stderr)
    if found:
        sys.exit(1)
    print(last_frame(path))
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, its last frame is whole", file=sys.stderr)


if __name__ == "__main__":
    main()
