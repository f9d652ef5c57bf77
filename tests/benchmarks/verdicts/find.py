"""Does `loadbench find` find the highest rate, and how long does it take?

    python -m tests.benchmarks.verdicts.find              # [--quick] [--runs 100] [--real 10]

The truth is found by an event simulation of its own (`tests.queues`, 10⁶ requests at each rate),
which is held to M/D/1's exact tail first. Then the search is led through simulated runs, many of
them, and through real ones of `local:fake`, under the policies `fixed` and `deadline`. It is to be
within 3 % of the truth in at least 19 of 20 runs (of each policy where they are simulated; real
ones are ten of each, and counted together), in at most half of the time that a plain bisection with
full stages takes to a bracket of 3 % from the same first rate.

Real engines have times of their own beside the fake's (some tenths of a millisecond a batch), and a
machine that disturbs them for milliseconds. All real times are therefore four times as long (stages
too, so that as many requests are asked), and the truth of a real search is the simulation at the
batch times that its engine logged, with the machine's own delay: what has to be taken off the limit
for the simulation to have as many requests over it as the stages had of all the *other* searches.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loadbench import runlog
from loadbench.judge.search import Terms
from loadbench.judge.stage import Claim, judged
from loadbench.merge import merge
from loadbench.model import Window
from loadbench.units import SECOND
from tests.benchmarks.verdicts.told import result
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
    """A real one: what it told, and which server its engine was."""

    case: Case
    told: dict[str, Any]
    server: Server
    delay: float  # s; the machine's, by its own stages


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
        own = [one for one in made if one.case is case]
        truths = [_truth(one, [other for other in own if other is not one]) for one in own]
        found[case.name] = Tried(
            [(one.told["rate"] or 0.0) / truth - 1 for one, truth in zip(own, truths, strict=True)],
            [one.told["seconds"] for one in own],
            sum(one.told["confirmed"] for one in own),
            sum((one.told["low"] or 0.0) <= truth <= (one.told["high"] or np.inf)
                for one, truth in zip(own, truths, strict=True)),
        )  # fmt: skip
    return found


def _truth(search: Search, others: Sequence[Search]) -> float:
    """The highest rate of its server, with the delay of the other searches' stages."""
    delay = float(np.mean([other.delay for other in others] or [search.delay]))
    limit_s = search.case.limit_ms / 1000 - delay
    truth = highest_rate(search.server, limit_s, 0.01)
    told = search.told
    print(f"  {search.case.name}: {told['rate'] or 0:.1f}/s in {told['seconds']:.0f} s,"
          f" {told['limit']}; batches of {1000 * search.server.a:.2f} +"
          f" {1000 * search.server.c:.3f} ms a row and {1000 * delay:.1f} ms of delay hold"
          f" {truth:.1f}/s", flush=True)  # fmt: skip
    return truth


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
    server = as_logged(case.server, results)
    return Search(case, told, server, delayed(case, server, told["stages"]))


def delayed(case: Case, server: Server, stages: Sequence[dict[str, Any]]) -> float:
    """By how many seconds the limit has to be shorter for the simulation to have as many requests
    over it as the stages had; the mean of those in which it was some, by what each says."""
    delays, weights = [], []
    for stage in stages:
        share = stage["over"] / max(1, stage["asked"])
        if 0.002 <= share <= 0.05:
            times = latencies(server, stage["rate"], 300_000, 5)
            delays.append(case.limit_ms / 1000 - float(np.quantile(times, 1 - share)))
            weights.append(stage["over"] / stage["effect"])
    return float(np.average(delays, weights=weights)) if delays else 0.0


def as_logged(server: Server, results: Path) -> Server:
    """The server that the engine was, by its own log: how long batches of each size kept it, by
    least squares."""
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
    return server._replace(a=float(a), c=float(c))


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


def tried(case: Case, runs: int) -> tuple[float, Tried, Tried]:
    """The truth; simulated searches, and bisections."""
    truth = highest_rate(case.server, case.limit_ms / 1000, 0.01)
    return truth, simulated(case, truth, runs), bisected(case, truth, max(3, runs // 4))


def judge(
    case: Case, truth: float, found: Tried, plain: Tried, how: str = "simulated"
) -> list[str]:
    """Prints the case's rows, of searches beside bisections. What does not hold."""
    print(f"{case.name}: {case.limit_ms} ms holds up to {truth:.1f}/s,"
          f" {100 * truth / case.server.capacity:.0f} % of full batches")  # fmt: skip
    print(_HEAD)
    row(f"find, {how}", case, found)
    row("bisection", case, plain)
    took = f"{np.median(found.seconds):.0f} s, a bisection {np.median(plain.seconds):.0f} s"
    result(f"{case.name}, {how}: {took}")
    wrong = []
    if how == "simulated":
        wrong += missed(f"{case.name}, {how}", [found])
    if np.median(found.seconds) > np.median(plain.seconds) / 2:
        wrong.append(f"{case.name}, {how}: takes more than half of a bisection")
    return wrong


def missed(what: str, found: Sequence[Tried]) -> list[str]:
    """What does not hold, where too few of all these searches are within 3 %."""
    off = [abs(one) for each in found for one in each.off]
    within = sum(one <= WITHIN for one in off)
    result(f"{what}: {within} of {len(off)} within 3 %")
    return [] if within >= OF_TWENTY * len(off) else [f"{what}: {within} of {len(off)} only"]


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
    with ProcessPoolExecutor() as pool:
        made = {case: pool.submit(tried, case, runs) for case in CASES}
        for case, told in made.items():
            wrong += judge(case, *told.result())
    slower = [case.slower for case in CASES]
    found = real(slower, reals) if reals else {}
    for case in slower if reals else ():
        truth = highest_rate(case.server, case.limit_ms / 1000, 0.01)
        wrong += judge(case, truth, found[case.name], bisected(case, truth, 3), "real")
    if found:
        wrong += missed("real, both policies", list(found.values()))
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
