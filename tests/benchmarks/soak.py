"""The soak: `loadbench run` on the embedded fake engine for half an hour; does anything grow?

    python -m tests.benchmarks.soak [--for 30m] [--out results]

The scenario `soak` with waves, spikes over capacity and faults: stalls, errors, wrong answers,
hang-ups. It comes in six equal cycles; the first fills pools and caches, so growth is the last
cycle against the second. Prints a table for the README, then every check; exits with 1 when one
failed.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil

from loadbench import runlog
from loadbench.histogram import Histogram
from loadbench.merge import merge
from loadbench.model import Window, encode
from loadbench.units import MS, SECOND, parse_duration

CYCLES = 6
PARTS = ("load", "engine", "runner")
# one cycle; lengths in its hundredths, rates of the capacity that is found first
CYCLE = (
    ('rate = "60 %"', 20, 0),
    ('from = "30 %", to = "90 %"', 30, 10),  # a sine of so many hundredths
    ('rate = "60 %"', 10, 0),
    ('rate = "150 %"', 3, 0),
    ('rate = "50 %"', 10, 0),
    ('from = "20 %", to = "80 %"', 15, -5),  # a sawtooth
    ('rate = "10 %"', 12, 0),
)
SETTINGS = (
    "target.url=local:fake",
    "engine.slo=200 ms",
    'engine.fake={a="5 ms", c="0.5 ms", errors="0.5 %", wrong="0.2 %", hangups="0.2 %", '
    'stall="500 ms every 30 s"}',
    "load.calibrate=4s",
    "checks={}",
)
# what the faults above make of requests; the last: refused, as the SLO could not be kept
EXPECTED = {"http_500", "bad_answer", "closed", "truncated", "reset", "http_503"}
GROWTH = {"load": 5.0, "engine": 10.0, "runner": 10.0}  # MB that count as none
LATE_MS = 5.0  # P99 of a minute's lateness that nobody would mind


class Files(NamedTuple):
    """The open files of one process: sockets, and all else."""

    sockets: int
    others: int


class Minute(NamedTuple):
    """One minute of the run."""

    until: int  # second of the run
    window: Window
    memory: dict[str, float]  # MB
    bytes: int  # of its records in the log


def phases(cycle_s: float) -> str:
    """The phases of the whole run as TOML."""
    found = []
    for shape, length, period in CYCLE:
        wave = {True: "sine", False: "sawtooth"}[period > 0] if period else ""
        text = f', {wave} = "{abs(period) * cycle_s * 10:.0f} ms"' if wave else ""
        found.append(f'{{ {shape}{text}, for = "{length * cycle_s * 10:.0f} ms" }}')
    return f"[{', '.join(found * CYCLES)}]"


def run(length_s: float, out: Path) -> tuple[Path, int, dict[str, list[Files]], set[int]]:
    """A run: its folder, exit code, the open files of its processes, who was left alive."""
    settings = (*SETTINGS, f"load.phases={phases(length_s / CYCLES)}")
    command = [sys.executable, "-m", "loadbench", "run", "soak", "--print-folder"]
    command += ["--name", "soak", "--out", str(out), "--on-no-verdict", "warn"]
    for setting in settings:
        command += ["--set", setting]
    files: dict[str, list[Files]] = {part: [] for part in PARTS}
    seen: set[int] = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        folder = Path(runner.stdout.readline().split()[1])
        print(f"soaking into {folder}", file=sys.stderr, flush=True)
        while runner.poll() is None:
            time.sleep(5)
            for part, process in processes(runner.pid):
                seen.add(process.pid)
                files[part].extend(open_files(process.pid))
        print(runner.stdout.read(), file=sys.stderr)
    return folder, runner.returncode, files, {pid for pid in seen if psutil.pid_exists(pid)}


def processes(runner: int) -> Iterator[tuple[str, psutil.Process]]:
    """The processes of a run as they are now."""
    try:
        found = psutil.Process(runner)
        yield "runner", found
        for child in found.children():
            line = " ".join(child.cmdline())
            if "loadbench.load" in line:
                yield "load", child
            elif "loadbench" in line:
                yield "engine", child
    except psutil.Error:
        return


def open_files(pid: int) -> Iterator[Files]:
    try:
        links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # it has just ended, or opened or closed one
        return
    sockets = sum(link.startswith("socket:") for link in links)
    yield Files(sockets, len(links) - sockets)


def minutes(windows: list[Window], length_s: float) -> list[Minute]:
    """The recorded load in sixtieths of an hour, or in parts of a cycle of a shorter soak."""
    step = int(min(60, length_s / CYCLES))
    found = []
    for begin in range(0, int(length_s) - step + 1, step):
        mine = [window for window in windows if begin <= window.second < begin + step]
        machines = [window.machine for window in mine if window.machine]
        memory = {}
        for part in PARTS:
            rss = [m.processes[part].memory for m in machines if part in m.processes]
            memory[part] = median(size for size in rss if size is not None) / 1e6
        size = sum(len(encode(window)) + 1 for window in mine)
        found.append(Minute(begin + step, merge(mine), memory, size))
    return found


def quantiles(histogram: Histogram) -> tuple[float, ...]:
    """P50, P99 and the largest, in ms."""
    return tuple((histogram.quantile(share) or 0) / MS for share in (0.5, 0.99, 1.0))


def table(found: list[Minute]) -> Iterator[str]:
    yield "| until | asked | done | failed | late P50 · P99 · most | load | engine | runner | log |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for minute in found:
        window = minute.window
        p50, p99, most = quantiles(window.lateness)
        memory = " | ".join(f"{minute.memory[part]:.1f} MB" for part in PARTS)
        yield (
            f"| {minute.until // 60}:{minute.until % 60:02d} | {window.asked:,} | {window.done:,} "
            f"| {sum(window.failed.values()):,} | {p50:.3f} · {p99:.2f} · {most:.1f} ms "
            f"| {memory} | {minute.bytes / 1e3:.0f} kB |"
        )


def identity(windows: list[Window]) -> str:
    """What is wrong with the account at the end of any second; empty if nothing is."""
    asked = sent = unsent = ended = 0
    for window in windows:
        asked, sent, unsent = asked + window.asked, sent + window.sent, unsent + window.unsent
        ended += window.done + sum(window.failed.values()) + window.lost
        if asked != sent + unsent + window.waiting or sent != ended + window.in_flight:
            return f"broken in second {window.second}"
    last = windows[-1]
    return f"{last.waiting} wait, {last.in_flight} open at the end" if last.waiting else ""


def verdicts(
    found: list[Minute], windows: list[Window], files: dict[str, list[Files]]
) -> Iterator[tuple[bool, str]]:
    """Each thing that is checked: whether it is well, and its figures."""
    wrong = identity(windows)
    yield not wrong, f"identity in each of {len(windows):,} seconds: {wrong or 'exact'}"
    load = [window.second for window in windows if window.stage == "load"]
    yield load == list(range(len(load))), f"no second is missing of {len(load):,}"
    failed = merge(windows).failed
    strange = failed.keys() - EXPECTED
    yield not strange, f"failed as was asked for: {failed}"
    size = len(found) // CYCLES
    early, late = found[size : 2 * size], found[-size:]

    def both(figure: Callable[[Minute], float]) -> tuple[float, float]:
        return median(map(figure, early)), median(map(figure, late))

    for part in PARTS:
        before, after = both(lambda minute, part=part: minute.memory[part])
        text = f"memory of the {part}: {before:.1f} → {after:.1f} MB"
        yield after - before <= GROWTH[part], f"{text} ({after - before:+.1f})"
    before, after = both(lambda minute: quantiles(minute.window.lateness)[1])
    text = f"lateness P99 of a minute: {before:.2f} → {after:.2f} ms"
    yield after <= max(2 * before, LATE_MS), text
    before, after = both(lambda minute: minute.bytes)
    yield after <= 1.2 * before, f"log: {before / 1e3:.0f} → {after / 1e3:.0f} kB a minute"
    for part in PARTS:
        mine = files[part]
        sixth = max(1, len(mine) // CYCLES)
        before, after = (max(one.others for one in some) for some in (mine[sixth:-sixth],
                                                                     mine[-sixth:]))  # fmt: skip
        sockets = max(one.sockets for one in mine)
        text = f"open files of the {part}: at most {before} → {after}, and {sockets:,} sockets"
        yield after <= before, text


def kept(folder: Path) -> Iterator[str]:
    """The files of the run and their sizes."""
    for path in sorted(folder.iterdir()):
        yield f"{path.name} {path.stat().st_size / 1e6:.2f} MB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--for", dest="length", default="30m")
    parser.add_argument("--out", type=Path, default=Path("results"))
    given = parser.parse_args()
    length_s = parse_duration(given.length) / SECOND
    folder, code, files, left = run(length_s, given.out)
    windows = [
        record for record in runlog.read(folder)
        if isinstance(record, Window) and record.stage != "warmup"
    ]  # fmt: skip
    found = minutes(windows, length_s)
    print(*table(found), "", sep="\n")
    checks = [(code == 0, f"exit code {code}"), (not left, f"processes left alive: {len(left)}")]
    logs = [(folder / name).read_text() for name in ("load.log", "engine.log")]
    broken = sum(len(re.findall("Traceback|Error:", log)) for log in logs)
    checks += [(not broken, f"errors in load.log and engine.log: {broken}")]
    checks += verdicts(found, windows, files)
    for good, text in checks:
        print(f"- {'' if good else '**FAILED** '}{text}")
    print(f"- files: {', '.join(kept(folder))}")
    return 0 if all(good for good, _ in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
