"""Does `loadbench find` find the highest rate, and how long does it take?

    python -m tests.benchmarks.verdicts.find              # [--quick] [--runs 100] [--real 10]

The truth is found by an event simulation of its own (`tests.queues`, 10⁶ requests at each rate),
which is held to M/D/1's exact tail first. Then the search is led through simulated runs, many of
them, and through real ones of `local:fake`, under the policies `fixed` and `deadline`. It is to be
within 3 % of the truth in at least 19 of 20 runs, in at most half of the time that a plain
bisection with full stages takes to a bracket of 3 % from the same first rate.

Real engines have times of their own beside the fake's (some tenths of a millisecond a batch), and a
machine that disturbs them for milliseconds. The truth of a real search is therefore the simulation
at the batch times that its engine logged, and all real times are four times as long (stages too, so
that as many requests are asked): what is the machine's is a quarter as much.
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

from loadbench import runlog
from loadbench.judge.search import Terms
from loadbench.judge.stage import Claim, judged
from loadbench.merge import merge
from loadbench.model import Window
from loadbench.units import SECOND
from tests.leading import led
from tests.queues import Server, Simulated, highest_rate, latencies, waits_longer

WITHIN = 0.03
OF_TWENTY = 0.95
BRACKET = 1.03
STAGE_S, SETTLE_S = 60, 2
SLOWER = 4  # real ones
AT_ONCE = 20  # of them: some 6 % of a core each


class Case(NamedTuple):
    """A server, its limit, and how the engine is told to be so."""

    name: str
    server: Server
    limit_ms: int
    stage_s: int = STAGE_S

    @property
    def terms(self) -> Terms:
        claim = Claim(f"p99 < {self.limit_ms} ms", 0.01, self.limit_ms * 1_000_000)
        return Terms(claim, start=self.start, stage_s=self.stage_s, settle_s=SETTLE_S)

    @property
    def slower(self) -> "Case":
        """As real engines are asked to be."""
        times = [SLOWER * one for one in (self.server.a, self.server.c, self.server.wait_s)]
        server = Server(times[0], times[1], self.server.largest, times[2])
        return Case(self.name, server, SLOWER * self.limit_ms, SLOWER * self.stage_s)

    @property
    def scenario(self) -> str:
        """With an engine that is such a server."""
        a, c, wait = (f"{1000 * one:g} ms" for one in
                      (self.server.a, self.server.c, self.server.wait_s or 0.005))  # fmt: skip
        return (
            f'[target]\nurl = "local:fake"\n[engine]\npolicy = "{self.name}"\n'
            f'max_batch = {self.server.largest}\nmax_wait = "{wait}"\n'
            f'fake = {{ a = "{a}", c = "{c}" }}\n'
            '[load]\narrivals = "poisson"\nphases = [{ rate = 100, for = "10s" }]\n'
        )

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


CASES = (
    Case("fixed", Server(0.008, 0.0005, 32, 0.005), 40),
    Case("deadline", Server(0.008, 0.0005, 32), 40),
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
            windows = [run.window() for _ in range(SETTLE_S + case.stage_s)][SETTLE_S:]
            holds = judged("narrow", windows, case.terms.claim).holds
            low, high = (rate, high) if holds else (low, rate)
            spent += SETTLE_S + case.stage_s
            rate = 2 * low if np.isinf(high) else (high / 2 if not low else (low * high) ** 0.5)
        off.append(low / truth - 1)
        seconds.append(spent)
    return Tried(off, seconds, runs, 0)


class Search(NamedTuple):
    """A real one: what it told, and what its engine would hold by the simulation."""

    told: dict[str, Any]
    truth: float


def real(cases: Sequence[Case], runs: int) -> dict[str, Tried]:
    """`loadbench find` on engines of its own, by policy; many at a time."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(AT_ONCE) as pool:
        folder = Path(name)
        for case in cases:
            (folder / f"{case.name}.toml").write_text(case.scenario)
        wanted = [(case, folder, seed) for case in cases for seed in range(runs)]
        made = list(pool.map(searched, *zip(*wanted, strict=True)))
    found: dict[str, Tried] = {}
    for case in cases:
        own = [one for (whose, *_), one in zip(wanted, made, strict=True) if whose is case]
        found[case.name] = Tried(
            [(one.told["rate"] or 0.0) / one.truth - 1 for one in own],
            [one.told["seconds"] for one in own],
            sum(one.told["confirmed"] for one in own),
            sum((o.told["low"] or 0.0) <= o.truth <= (o.told["high"] or np.inf) for o in own),
        )
    return found


def searched(case: Case, folder: Path, seed: int) -> Search:
    """One search, and the truth at the times of its engine."""
    results = folder / case.name / str(seed)
    done = subprocess.run(
        [sys.executable, "-m", "loadbench", "find", f"{case.name}.toml", "--json", "--slo",
         case.terms.claim.text, "--stage", f"{case.stage_s}s", "--settle", f"{SETTLE_S}s",
         "--start", f"{case.start:.6g}", "--set", f"load.seed={100 + seed}", "--out", str(results)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if not done.stdout.strip():
        sys.exit(done.stderr)
    told: dict[str, Any] = json.loads(done.stdout)["settings"][0]
    server, outside = as_logged(case.server, results)
    truth = highest_rate(server, case.limit_ms / 1000 - outside, 0.01)
    print(f"  {case.name}: {told['rate'] or 0:.1f}/s in {told['seconds']:.0f} s, {told['limit']};"
          f" batches of {1000 * server.a:.2f} + {1000 * server.c:.3f} ms a row hold {truth:.1f}/s",
          flush=True)  # fmt: skip
    return Search(told, truth)


def as_logged(server: Server, results: Path) -> tuple[Server, float]:
    """The server that the engine was, by its own log: how long batches of each size kept it, by
    least squares; and the seconds that a request spends outside of it."""
    whole = merge([
        record
        for log in sorted(results.rglob(runlog.LOG))
        for record in runlog.read(log.parent)
        if isinstance(record, Window) and record.server and record.done
    ])  # fmt: skip
    told = whole.server
    assert told is not None
    sizes = sorted((size, found) for size, found in told.sizes.items() if found.batches)
    rows = np.array([size for size, _ in sizes], np.float64)
    weights = np.sqrt([found.batches for _, found in sizes])
    kept = [(found.compute_ns + (found.between_ns or 0)) / found.batches / SECOND
            for _, found in sizes]  # fmt: skip
    c, a = np.polyfit(rows, kept, 1, w=weights)
    inside = sum(part.total_ns / part.count for part in (told.queue, told.batch_wait, told.compute)
                 if part is not None and part.count)  # fmt: skip
    outside = max(0.0, (whole.latency.mean or 0.0) - inside) / SECOND
    return server._replace(a=float(a), c=float(c)), outside


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


_HEAD = (
    "| policy | | runs | within 3 % | off, % | seconds | confirmed | interval holds |\n"
    "|---|---|---|---|---|---|---|---|"
)


def judge(case: Case, runs: int, found: Tried | None = None) -> list[str]:
    """Prints the case's rows: of simulated searches or, if they are given, of real ones, beside
    bisections. What does not hold."""
    truth = highest_rate(case.server, case.limit_ms / 1000, 0.01)
    print(f"{case.name}: {case.limit_ms} ms holds up to {truth:.1f}/s,"
          f" {100 * truth / case.server.capacity:.0f} % of full batches")  # fmt: skip
    how = "find, real" if found else "find, simulated"
    found = found or simulated(case, truth, runs)
    plain = bisected(case, truth, max(3, runs // 4))
    print(_HEAD)
    row(how, case, found)
    row("bisection", case, plain)
    wrong = []
    if found.within < OF_TWENTY:
        wrong.append(f"{case.name}, {how}: within 3 % in {100 * found.within:.0f} % only")
    if np.median(found.seconds) > np.median(plain.seconds) / 2:
        wrong.append(f"{case.name}, {how}: takes more than half of a bisection")
    return wrong


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables; exits with 1 if they do not hold what is said above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="simulated, of each policy")
    parser.add_argument("--real", type=int, default=10, help="of each policy: 17 minutes each")
    parser.add_argument("--quick", action="store_true", help="few simulated runs, no real one")
    asked = parser.parse_args(arguments)
    runs, reals = (10, 0) if asked.quick else (asked.runs, asked.real)
    worst = exact()
    print(f"M/D/1: the simulated tail is off by {100 * worst:.1f} % of itself at most")
    wrong = [] if worst < 0.1 else ["the simulation is wrong"]
    for case in CASES:
        wrong += judge(case, runs)
    slower = [case.slower for case in CASES]
    found = real(slower, reals) if reals else {}
    for case in slower if reals else ():
        wrong += judge(case, 12, found[case.name])
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
