"""How much of the best possible the engine's policies reach, and what it costs to know.

    python -m tests.benchmarks.optimum [--rounds 3] [--seconds 10]

Real runs against the fake engine (4 ms + 0.5 ms a row, batches of up to 16, an SLO of 40 ms) with
Poisson arrivals; load 1 is b*/L(b*), b* the largest batch of which two fit into the SLO. Then the
yardstick itself: CPU time for each arrival of the exact optimum, and how far above it the two
stand-ins lie that are used where it would take too long.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from loadbench.optimum import at_most, most_in_time
from loadbench.units import MS

POLICIES = ("deadline", "fixed", "none")
LOADS = (0.5, 0.8, 1.0, 1.2, 1.5, 3.0)
A, C, LARGEST, SLO = 4.0, 0.5, 16, 40.0  # ms
BEST = min(LARGEST, int((SLO / 2 - A) / C))
CAPACITY = 1000 * BEST / (A + C * BEST)


def run(policy: str, load: float, seconds: int, seed: int) -> dict[str, Any]:
    """The summary of one run."""
    settings = (
        f"engine.policy={policy}", f"engine.max_batch={LARGEST}", f"engine.slo={SLO} ms",
        f"engine.fake.a={A} ms", f"engine.fake.c={C} ms", "load.arrivals=poisson",
        "load.warmup=1s", f"load.seed={seed}",
    )  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "loadbench", "run", "steady", "--target", "local:fake"]
    command += ["--rate", str(load * CAPACITY), "--duration", f"{seconds}s", "--json", *words]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, "--out", folder, "--on-no-verdict", "warn"], capture_output=True, check=False
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def spread(values: list[float]) -> str:
    """Median and range, in %."""
    middle, low, high = (100 * f(values) for f in (statistics.median, min, max))
    return f"{middle:.1f} ({low:.1f}–{high:.1f})"


def policies(rounds: int, seconds: int) -> None:
    print(
        "| policy | load | in time of asked, % | of the best | lost to scheduling | to host time |"
    )
    print("|---|---|---|---|---|---|")
    found: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for number in range(rounds):
        for load in LOADS:
            for policy in POLICIES:
                told = run(policy, load, seconds, number)["optimum"]
                found.setdefault((policy, load), []).append(told)
    for (policy, load), told in sorted(found.items()):
        columns = [spread([one["reached"] / one["of"] for one in told])]
        columns += [spread([one[key] for one in told]) for key in ("share", "scheduling", "host")]
        print(f"| {policy} | {load} | {' | '.join(columns)} |", flush=True)


def cost() -> None:
    print("\n| largest batch | load | µs an arrival | blocks of 2,000 above it | bound above it |")
    print("|---|---|---|---|---|")
    for largest in (16, 64):
        for load in (0.5, 1.0, 1.5, 3.0):
            gaps = np.random.default_rng(1).exponential(MS * 1000 / (load * CAPACITY), 20_000)
            arrived = np.cumsum(gaps).astype(np.int64)
            times = np.array([0, *(round((A + C * m) * MS) for m in range(1, largest + 1))])
            none = np.zeros_like(times)
            begun = time.process_time()
            whole = most_in_time(arrived, round(SLO * MS), times, none)
            took = time.process_time() - begun
            blocks = sum(
                most_in_time(arrived[at : at + 2000], round(SLO * MS), times, none)
                for at in range(0, len(arrived), 2000)
            )
            bound = at_most(arrived, round(SLO * MS), times, none, 1)
            above = (f"{100 * (found / whole - 1):.2f} %" for found in (blocks, bound))
            spent = took / len(arrived) * 1e6
            print(f"| {largest} | {load} | {spent:.1f} | {' | '.join(above)} |")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=10)
    given = arguments.parse_args()
    if not Path("pyproject.toml").exists():
        sys.exit("call it from the repository's folder")
    policies(given.rounds, given.seconds)
    cost()


if __name__ == "__main__":
    main()
