"""A thousand runs on the shelf: how long it takes to list and to compare them, beside the least
that anybody could take who reads the same files as JSON and does nothing with them.

    python -m tests.benchmarks.shelf [--runs 1000] [--rounds 5]
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from loadbench import runlog
from loadbench.catalogue import entries
from loadbench.cli.compare import command
from loadbench.cli.list import table
from tests.foreign import RECORDED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    chosen = parser.parse_args()
    rounds = 2 if chosen.quick else chosen.rounds
    with tempfile.TemporaryDirectory() as place:
        results = Path(place)
        filled(results, chosen.runs)
        bound = timed(rounds, lambda: json_alone(results))
        print(f"{chosen.runs} runs, median of {rounds}; the bound: each run.json through json")
        print(f"{'bound':<26} {bound:6.3f} s")
        for name, limit_s, work in (
            ("list (entries, table)", 1.0, listed),
            ("compare, half and half", 2.0, compared),
        ):
            took = timed(rounds, lambda work=work: work(results))  # type: ignore[misc]
            verdict = "✓" if took < limit_s else "✗"
            print(f"{name:<26} {took:6.3f} s   {took / bound:.2f}×   {verdict} < {limit_s:g} s")


def filled(results: Path, runs: int) -> None:
    """Copies of the last recorded run under other numbers, sealed as runs are at their end."""
    sample = max(RECORDED.glob("*/*"))
    for number in range(1, runs + 1):
        folder = results / f"{number:04d}-steady-fake"
        shutil.copytree(sample, folder)
        snapshot = json.loads((folder / runlog.SNAPSHOT).read_text())
        runlog.write_snapshot(folder, {**snapshot, "run": folder.name})
        runlog.seal(folder)


def timed(rounds: int, work: Callable[[], int]) -> float:
    """The median of some rounds, in s of the processor, which others on it do not lengthen; the
    first warms the file system's cache and is left out."""
    took = []
    for _ in range(rounds + 1):
        begun = time.process_time()
        assert work()
        took.append(time.process_time() - begun)
    return statistics.median(took[1:])


def json_alone(results: Path) -> int:
    paths = results.glob(f"*/{runlog.SNAPSHOT}")
    return len([json.loads(path.read_bytes()) for path in paths])


def listed(results: Path) -> int:
    return len(table(entries(results)))


def compared(results: Path) -> int:
    """The whole command, the first half against the second."""
    numbers = [folder.name.partition("-")[0] for folder in runlog.runs(results)]
    half = len(numbers) // 2
    sides = ["--a", ",".join(numbers[:half]), "--b", ",".join(numbers[half:])]
    done = CliRunner().invoke(command, [*sides, "--out", str(results)], catch_exceptions=False)
    return len(done.output)


if __name__ == "__main__":
    main()
