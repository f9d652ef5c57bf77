"""Does `loadbench find` find the highest rate, and how long does it take?

    python -m tests.benchmarks.verdicts.find              # [--quick] [--runs 100] [--real 10]

The truth is found by an event simulation of its own (`tests.queues`, 10⁶ requests at each rate),
which is held to M/D/1's exact tail first. Then the search is led through simulated runs, many of
them, and through real ones of `local:fake`, under the policies `fixed` and `deadline`. It is to be
within 3 % of the truth in at least 19 of 20 runs, in at most half of the time that a plain
bisection with full stages takes to a bracket of 3 % from the same first rate.

Real engines have times of their own beside the fake's (some tenths of a millisecond a batch): the
simulated truth is not theirs. What they hold is found without a search: by runs of two and a half
minutes at five rates around, and a line through the shares that were slower than the limit.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench import runlog
from loadbench.bin import failures
from loadbench.judge.search import Terms
from loadbench.judge.stage import Claim, judged
from loadbench.merge import merge
from loadbench.model import Window
from tests.leading import led
from tests.queues import Server, Simulated, highest_rate, latencies, waits_longer

Floats = NDArray[np.float64]
WITHIN = 0.03
OF_TWENTY = 0.95
BRACKET = 1.03
STAGE_S, SETTLE_S = 60, 2
AT_ONCE = 5  # real searches, and then runs at as many rates
AROUND, LONG_S = 0.06, 150


class Case(NamedTuple):
    """A server, its limit, and how the engine is told to be so."""

    name: str
    server: Server
    limit_ms: int
    policy: str = ""
    engine: str = ""

    @property
    def terms(self) -> Terms:
        claim = Claim(f"p99 < {self.limit_ms} ms", 0.01, self.limit_ms * 1_000_000)
        return Terms(claim, start=self.start, stage_s=STAGE_S, settle_s=SETTLE_S)

    @property
    def start(self) -> float:
        """Half of what batches do of which two fit into the limit, as the search has it itself."""
        server = self.server
        fitting = [
            rows / took
            for rows in (1 << n for n in range(6))
            if rows <= server.largest
            and 2000 * (took := server.a + server.c * rows) <= self.limit_ms
        ]
        return 0.5 * max(fitting)


FAKE = 'max_batch = 32\nmax_wait = "5 ms"\nfake = { a = "8 ms", c = "0.5 ms" }'
CASES = (
    Case("fixed", Server(0.008, 0.0005, 32, 0.005), 40, "fixed", FAKE),
    Case("deadline", Server(0.008, 0.0005, 32), 40, "deadline", FAKE),
)


class Tried(NamedTuple):
    """Of several searches: by how much the rate was off, and how long each took (s)."""

    off: list[float]
    seconds: list[float]
    confirmed: int
    covered: int

    @property
    def within(self) -> float:
        return float(np.mean([abs(off) <= WITHIN for off in self.off]))


def simulated(case: Case, truth: float, runs: int) -> Tried:
    off, seconds, confirmed, covered = [], [], 0, 0
    for seed in range(runs):
        found, _ = led(case.server, case.terms, seed)
        off.append((found.rate or 0.0) / truth - 1)
        seconds.append(found.seconds)
        confirmed += found.confirmed
        covered += (found.low or 0.0) <= truth <= (found.high or np.inf)
    return Tried(off, seconds, confirmed, covered)


def bisected(case: Case, truth: float, runs: int) -> Tried:
    """Doubling, then halving the bracket (by ratio), each stage in full; the rate is its lower end.
    Nothing drains and nothing is re-checked: each stage is a run of its own."""
    off, seconds = [], []
    for seed in range(runs):
        low, high, spent = 0.0, np.inf, 0.0
        rate = case.start
        while high > BRACKET * low:
            run = Simulated(case.server, case.limit_ms / 1000, 1000 * seed + round(spent), rate)
            windows = [run.window() for _ in range(SETTLE_S + STAGE_S)][SETTLE_S:]
            holds = judged("narrow", windows, case.terms.claim).holds
            low, high = (rate, high) if holds else (low, rate)
            spent += SETTLE_S + STAGE_S
            rate = 2 * low if np.isinf(high) else (high / 2 if not low else (low * high) ** 0.5)
        off.append(low / truth - 1)
        seconds.append(spent)
    return Tried(off, seconds, runs, 0)


def real(case: Case, runs: int) -> tuple[Tried, float]:
    """`loadbench find` on engines of its own, some at a time: a fifth of a core each. Beside it the
    rate that holds there, found without it."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(AT_ONCE) as pool:
        folder = Path(name)
        (folder / "fake.toml").write_text(
            f'[target]\nurl = "local:fake"\n[engine]\npolicy = "{case.policy}"\n{case.engine}\n'
            '[load]\narrivals = "poisson"\nphases = [{ rate = 100, for = "10s" }]\n'
        )
        found = list(pool.map(lambda seed: searched(case, folder, seed), range(runs)))
        middle = float(np.median([one["rate"] or 0.0 for one in found]))
        rates = middle * np.linspace(1 - AROUND, 1 + AROUND, AT_ONCE)
        truth = holding(rates, list(pool.map(lambda rate: over(case, folder, rate), rates)))
    print(f"  {case.name}: real engines hold it up to {truth:.1f}/s")
    tried = Tried(
        [(one["rate"] or 0.0) / truth - 1 for one in found],
        [one["seconds"] for one in found],
        sum(one["confirmed"] for one in found),
        sum((one["low"] or 0.0) <= truth <= (one["high"] or np.inf) for one in found),
    )
    return tried, truth


def over(case: Case, folder: Path, rate: float) -> float:
    """Which share of a long run at one rate was slower than the limit, or failed."""
    done = subprocess.run(
        [sys.executable, "-m", "loadbench", "run", "fake.toml", "--json", "--on-no-verdict", "warn",
         "--rate", f"{rate:.6g}", "--duration", f"{LONG_S}s", "--out", str(folder / f"{rate:.0f}")],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    (run,) = runlog.runs(folder / f"{rate:.0f}")
    load = [w for w in runlog.read(run) if isinstance(w, Window) and w.stage == "load"]
    whole = merge(load[SETTLE_S:])
    slow = whole.latency.over(case.limit_ms * 1_000_000) + failures(whole)
    return slow / whole.asked


def holding(rates: Floats, shares: Sequence[float]) -> float:
    """The rate at which 1 % are slower, by a line through the logarithms of the shares."""
    slope, at = np.polyfit(np.log(rates), np.log(np.maximum(shares, 1e-5)), 1)
    return float(np.exp((np.log(0.01) - at) / slope))


def searched(case: Case, folder: Path, seed: int) -> dict[str, Any]:
    """What one search says of its only setting."""
    done = subprocess.run(
        [sys.executable, "-m", "loadbench", "find", "fake.toml", "--json", "--slo",
         case.terms.claim.text, "--stage", f"{STAGE_S}s", "--settle", f"{SETTLE_S}s",
         "--start", f"{case.start:.6g}", "--set", f"load.seed={100 + seed}",
         "--out", str(folder / str(seed))],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not done.stdout.strip():
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)["settings"][0]
    print(f"  {case.name}: {found['rate'] or 0:.0f}/s in {found['seconds']:.0f} s,"
          f" {found['limit']}", flush=True)  # fmt: skip
    return found


def exact() -> float:
    """The largest relative error of the simulated M/D/1 tail."""
    service = 0.002
    worst = 0.0
    for load in (0.5, 0.7, 0.8):
        waits = latencies(Server(service), load / service, 1_000_000, 3) - service
        for times in (1.5, 3.0, 5.0):
            true = waits_longer(load, times)
            worst = max(worst, abs(float((waits > times * service).mean()) / true - 1))
    return worst


def row(how: str, case: Case, tried: Tried) -> None:
    off = 100 * np.array(tried.off)
    middle = float(np.median(tried.seconds))
    cells = (
        case.name, how, str(len(off)), f"{100 * tried.within:.0f} %",
        f"{off.mean():+.1f} (sd {off.std():.1f}, {off.min():+.1f} to {off.max():+.1f})",
        f"{middle:.0f} s (at most {max(tried.seconds):.0f})",
        f"{tried.confirmed}", f"{tried.covered}" if how != "bisection" else "",
    )  # fmt: skip
    print(f"| {' | '.join(cells)} |", flush=True)


def judge(case: Case, runs: int, reals: int) -> list[str]:
    """Prints the case's rows; what does not hold."""
    truth = highest_rate(case.server, case.limit_ms / 1000, 0.01)
    print(f"{case.name}: {case.limit_ms} ms holds up to {truth:.1f}/s,"
          f" {100 * truth / case.server.capacity:.0f} % of full batches")  # fmt: skip
    made = {
        "find, simulated": simulated(case, truth, runs),
        "bisection": bisected(case, truth, max(3, runs // 4)),
    }
    if reals:
        made["find, real"], there = real(case, reals)
        print(f"  {100 * (there / truth - 1):+.1f} % beside the simulated server: what an engine"
              " takes for itself on this machine")  # fmt: skip
    print("| policy | | runs | within 3 % | off, % | seconds | confirmed | interval holds |")
    print("|---|---|---|---|---|---|---|---|")
    for how, tried in made.items():
        row(how, case, tried)
    wrong = []
    limit = float(np.median(made["bisection"].seconds)) / 2
    for how, tried in made.items():
        if how != "bisection" and tried.within < OF_TWENTY:
            wrong.append(f"{case.name}, {how}: within 3 % in {100 * tried.within:.0f} % only")
        if how != "bisection" and np.median(tried.seconds) > limit:
            wrong.append(f"{case.name}, {how}: takes more than half of a bisection")
    return wrong


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables; exits with 1 if they do not hold what is said above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="simulated, of each policy")
    parser.add_argument("--real", type=int, default=10, help="of each policy: four minutes each")
    parser.add_argument("--quick", action="store_true", help="few simulated runs, no real one")
    asked = parser.parse_args(arguments)
    runs, reals = (10, 0) if asked.quick else (asked.runs, asked.real)
    worst = exact()
    print(f"M/D/1: the simulated tail is off by {100 * worst:.1f} % of itself at most")
    wrong = [] if worst < 0.1 else ["the simulation is wrong"]
    for case in CASES:
        wrong += judge(case, runs, reals)
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
