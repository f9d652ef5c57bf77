"""Do the figures on the screen equal the log's? The real program during the tour, at three sizes.

    python -m tests.benchmarks.tour_moments [--out DIR]

One run, three dashboards in tmux: one starts it, two attach to it. At ten moments each figure that
a screen shows is held against the log's for the very seconds that the screen says it is of. Exit
code 1 at any difference. Two minutes.
"""

import argparse
import math
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from loadbench.errors import RunError
from tests.benchmarks import figures
from tests.benchmarks.account import Account, between, read
from tests.benchmarks.figures import Figure
from tests.benchmarks.pane import Pane, program

SIZES = ((120, 40), (80, 24), (200, 60))
MOMENTS = (4, 12, 20, 28, 34, 40, 46, 53, 62, 72)  # seconds: the spike is from 30 to 45
NEEDED = {"done/s", "asked/s", "p50", "p99", "errors", "queue", "fill"}
ROOMY = {"batch", "GPU"}  # where there are lines enough for all sizes of batches and all rules


class Line(NamedTuple):
    """One figure of one screen."""

    size: str
    screen: str
    figure: Figure
    log: str
    same: bool


def shown_as(text: str, value: float | None) -> bool:
    """Whether the text is the value, rounded to as many digits as it has."""
    if value is None:
        return text == "n/a"
    if math.isinf(value) or text.startswith(">"):
        return math.isinf(value) and text.startswith(">")
    try:
        number = float(text.replace(",", ""))
    except ValueError:
        return False
    places = len(text.partition(".")[2])
    half = float(0.5000001 * 10**-places)  # 10 to the power of an int may be an int
    return abs(number - value) <= half + 1e-9 * abs(value)


def of_log(figure: Figure, found: Account) -> float | None:
    """What the log says for a figure."""
    if found.seconds != figure.end - figure.begin:
        return math.nan  # a second that the screen tells of is not there
    seconds = max(1, found.seconds)
    if figure.name in ("p50", "p95", "p99"):
        return found.percentile_ms(int(figure.name[1:]) / 100)
    told: dict[str, float | None] = {
        "done/s": found.done / seconds,
        "asked/s": found.asked / seconds,
        "errors": found.failed_percent,
        "queue": found.waiting,
        "batch": found.mean_batch,
        "batches": found.batches / seconds,
        "fill": found.fill_percent,
    }
    return told[figure.name]


def look(pane: Pane) -> dict[str, str]:
    """The screens of one moment, and the last second looked at."""
    texts = {"live": pane.text()}
    pane.press("i")
    texts["second"] = pane.wait(r"(?m)^ ▽ \d")
    pane.press("End")
    pane.wait(lambda text: "▽ " not in text and "PAUSED" not in text)
    pane.press("2")
    texts["engine"] = pane.wait(r"rows each|fill +\d")
    pane.press("3")
    texts["alerts"] = pane.wait("Rules ")
    pane.press("1")
    pane.wait("■ p50")
    return texts


def hold(size: str, texts: dict[str, str], log: Path) -> list[Line]:
    """Each figure against the log, once the log is known to have its seconds."""
    readers = {"live": figures.live, "second": figures.second, "engine": figures.engine}
    windows, lines = read(log), []
    for screen, reader in readers.items():
        for figure in reader(texts[screen]):
            value = of_log(figure, between(windows, figure.begin, figure.end))
            told = "n/a" if value is None else "beyond" if math.isinf(value) else f"{value:.6g}"
            lines.append(Line(size, screen, figure, told, shown_as(figure.text, value)))
    cards = between(windows, 0, max(windows, default=0) + 1).has_gpu
    for state in figures.gpu(texts["alerts"]):
        figure = Figure("GPU", state, 0, max(windows, default=0) + 1)
        told = "GPU" if cards else "no GPU"
        lines.append(Line(size, "alerts", figure, told, (state == "no data") != cards))
    return lines


def started(pane: Pane, results: Path) -> Path:
    """The run's folder, once it records."""
    pane.wait("RUNNING|FAILED", 120)
    found = sorted(results.glob("0*/log.ndjson"))
    if not found:
        raise RunError(f"no run in {results}:\n{pane.text()}")
    return found[-1]


def reached(moment: int, text: str) -> bool:
    """Whether it is that second of the run. Raises RunError once it is over."""
    now = figures.clock(text.split("\n")[0], "RUNNING")
    if now is None:
        raise RunError(f"the run ended before its second {moment}:\n{text}")
    return now >= moment


def watch(results: Path) -> list[Line]:
    lines: list[Line] = []
    with ExitStack() as stack:
        at_once = stack.enter_context(ThreadPoolExecutor(len(SIZES)))
        first = stack.enter_context(Pane(program("tui", "tour", "--out", str(results)), SIZES[0]))
        log = started(first, results)
        attached = program("tui", "--attach", str(log.parent))
        panes = [first, *(stack.enter_context(Pane(attached, size)) for size in SIZES[1:])]
        for pane in panes:
            pane.wait("RUNNING")
        for moment in MOMENTS:
            first.wait(partial(reached, moment), 60)
            for pane, texts in zip(panes, at_once.map(look, panes), strict=True):
                lines += hold(f"{pane.size[0]}×{pane.size[1]}", texts, log)
            print(f"{moment:3d} s: {len(lines)} figures", file=sys.stderr, flush=True)
        first.wait("■ DONE", 60)
    return lines


def table(lines: list[Line]) -> str:
    """One row a size, screen and figure; below it what differs."""
    rows = ["size     screen  figure    shown   same"]
    for key in sorted({(line.size, line.screen, line.figure.name) for line in lines}):
        own = [line for line in lines if (line.size, line.screen, line.figure.name) == key]
        same = sum(line.same for line in own)
        rows.append(f"{key[0]:8} {key[1]:7} {key[2]:8} {len(own):6} {same:6}")
    for line in lines:
        if not line.same:
            seconds = f"[{line.figure.begin}, {line.figure.end})"
            shown = f"{line.figure.name} {line.figure.text}"
            rows.append(f"✗ {line.size} {line.screen} {seconds}: {shown}, the log says {line.log}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Do the figures on the screen equal the log's?")
    parser.add_argument("--out", type=Path, help="where the run lands; default: nowhere that stays")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        lines = watch(options.out or Path(place))
    print(table(lines))
    missing = [
        f"{width}×{height} {name}"
        for width, height in SIZES
        for name in sorted(NEEDED | (ROOMY if height >= 40 else set()))
        if not any(at.size == f"{width}×{height}" and at.figure.name == name for at in lines)
    ]
    for name in missing:
        print(f"✗ never shown: {name}")
    differ = sum(not line.same for line in lines)
    print(f"{len(lines)} figures, {differ} differ")
    sys.exit(1 if differ or missing or not lines else 0)


if __name__ == "__main__":
    main()
