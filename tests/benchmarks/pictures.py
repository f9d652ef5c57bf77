"""The pictures of the README: every screen of the real program, during a real tour.

    python -m tests.benchmarks.pictures [--into docs] [--out DIR]

First two short runs headless, so that there is something to compare; then the tour in a terminal
of 120×40 (tmux), from which the pictures are taken while it runs. Three minutes; on a machine that
does nothing else, or the generator's lateness is what the pictures show.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from loadbench.errors import RunError
from tests.benchmarks import figures
from tests.benchmarks.pane import ROOT, Pane, program
from tests.benchmarks.sheet import draw

LARGEST = 200_000  # bytes of one picture
SPIKE, AFTER = 41, 62  # seconds of the tour: the alert fires; it has recovered
_STILL_S = 1.5  # nothing has moved for so long: what a key has set going has ended


def take(pane: Pane, path: Path) -> None:
    """The screen as it stands. Raises RunError for a picture that is too large."""
    draw(pane.lines(), pane.size, path)
    size = path.stat().st_size
    print(f"{path}: {size / 1000:.0f} kB", file=sys.stderr, flush=True)
    if size > LARGEST:
        raise RunError(f"{path}: has {size} bytes", f"at most {LARGEST}")


def compared(folder: Path, most: int) -> None:
    """One side of the comparison: the same load on batches of at most so many rows."""
    more = ("--set", f"engine.max_batch={most}", "--target", "local:resnet-tiny")
    run = program("run", "steady", "--rate", "120", "--duration", "12s", *more)
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    # its verdict is not what is wanted
    subprocess.run(run, check=False, cwd=folder, env=path, stdout=subprocess.DEVNULL)


def until(pane: Pane, second: int) -> None:
    pane.wait(
        lambda text: (figures.clock(text.split("\n")[0], "RUNNING") or 0) >= second, second + 90
    )


def still(pane: Pane, pattern: str) -> None:
    """Until these words are there and nothing has moved for a while."""
    text, since = pane.wait(pattern), time.monotonic()
    while time.monotonic() - since < _STILL_S:
        time.sleep(0.1)
        if (now := pane.text()) != text:
            text, since = now, time.monotonic()


def while_it_runs(pane: Pane, into: Path) -> None:
    until(pane, SPIKE)
    take(pane, into / "live.png")
    pane.press("2")
    pane.wait("Why batches closed")
    take(pane, into / "engine.png")
    pane.press("3")
    pane.wait("History of this run")
    take(pane, into / "alerts.png")
    pane.press("t")
    pane.wait("[Ss]lowest")
    take(pane, into / "tail.png")
    pane.press("1")
    until(pane, AFTER)
    pane.press("C-p")
    pane.wait("Search")
    pane.press("light terminals")
    pane.wait(lambda text: text.count("light terminals") > 1)
    pane.press("Enter")
    pane.wait(lambda text: "■ p50" in text and "light terminals" not in text)
    take(pane, into / "live-light.png")


def once_it_is_over(pane: Pane, into: Path) -> None:
    pane.wait("■ DONE", 90)
    pane.press("C-p")
    pane.wait("Search")
    pane.press("dark terminals")
    pane.wait(lambda text: text.count("dark terminals") > 1)
    pane.press("Enter")
    pane.wait("■ p50")
    pane.press("4")
    still(pane, "0001")
    for key in ("Down", "Down", "x", "Up", "x", "c"):
        pane.press(key)
        time.sleep(0.3)
    still(pane, "Compare +A 0001 +vs +B 0002")
    take(pane, into / "runs.png")
    pane.press("n")
    still(pane, r"✓ [^\n]*│\n")
    take(pane, into / "new-run.png")


def main() -> None:
    parser = argparse.ArgumentParser(description="The pictures of the README.")
    parser.add_argument("--into", type=Path, default=ROOT / "docs")
    parser.add_argument("--out", type=Path, help="a folder for results/; default: none that stays")
    options = parser.parse_args()
    options.into.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        folder = options.out or Path(place)  # below it is results/, as users have it
        for most in (1, 32):
            compared(folder, most)
        with Pane(program("tui", "tour"), folder=folder) as pane:
            while_it_runs(pane, options.into)
            once_it_is_over(pane, options.into)


if __name__ == "__main__":
    main()
