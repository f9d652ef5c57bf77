"""The live verdict and the bands of percentiles against known truth, looked at every second.

    python -m tests.benchmarks.verdicts.live            # [--quick] [--runs 10000] [--processes 2]

Simulated runs of three servers (constant times, exponential times, batches) at loads 0.3 to 0.9 ask
whether p99 is under a limit of which it is known whether it is: 10 % off the true p99 on either
side, and on it. The first verdict that is said to be shown is taken, as whoever stops when it looks
good would. Wrong may be 1 % of the runs with the truth 10 % off, 2 % of those on the limit, where
every verdict is wrong; the same without the correction for requests that depend on each other must
fail. The bands of P50 and P99 at the end of each run must hold the truth in 93 % up to load 0.7.
"""

import argparse
import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench import certainty
from loadbench.assurance import QUANTILES
from tests.benchmarks.verdicts.told import result

SHARE = 0.01  # of the requests that may take longer: p99
LOADS = (0.3, 0.5, 0.7, 0.9)
OFF = (0.9, 1.0, 1.1)  # the limit in parts of the true p99
SERVICE_S = 0.004
SECONDS = 300
BATCH, BATCH_S, ROW_S = 8, 0.004, 0.0005  # a batch of b takes BATCH_S + b · ROW_S
COVERED = ("p50", "p99")
_TRUTH = 2_000_000  # requests that the true percentiles are taken from

Floats = NDArray[np.float64]


class Queue(NamedTuple):
    """Requests of one run in the order of their end: which second it was, and their latency."""

    second: certainty.Ints
    latency: Floats


def _arrivals(rng: np.random.Generator, rate: float, seconds: float) -> Floats:
    number = int(rate * seconds + 6 * math.sqrt(rate * seconds)) + 10
    found: Floats = np.cumsum(rng.exponential(1 / rate, number))
    return found


def _single(arrived: Floats, service: Floats) -> Floats:
    """The latencies of a single server (Lindley's recursion)."""
    work = np.concatenate([[0.0], np.cumsum(service[:-1] - np.diff(arrived))])
    return work - np.minimum(np.minimum.accumulate(work), 0) + service


def constant(rng: np.random.Generator, load: float, seconds: float) -> tuple[Floats, Floats]:
    """M/D/1: arrivals and latencies."""
    arrived = _arrivals(rng, load / SERVICE_S, seconds)
    return arrived, _single(arrived, np.full(len(arrived), SERVICE_S))


def exponential(rng: np.random.Generator, load: float, seconds: float) -> tuple[Floats, Floats]:
    """M/M/1."""
    arrived = _arrivals(rng, load / SERVICE_S, seconds)
    return arrived, _single(arrived, rng.exponential(SERVICE_S, len(arrived)))


def batches(rng: np.random.Generator, load: float, seconds: float) -> tuple[Floats, Floats]:
    """A server that takes up to BATCH of what waits whenever it is free."""
    arrived = _arrivals(rng, load * BATCH / (BATCH_S + BATCH * ROW_S), seconds)
    times = arrived.tolist()
    ended = np.empty(len(times))
    at, free = 0, 0.0
    while at < len(times):
        begin = max(free, times[at])
        end = at + 1
        while end < len(times) and end - at < BATCH and times[end] <= begin:
            end += 1
        free = begin + BATCH_S + (end - at) * ROW_S
        ended[at:end] = free
        at = end
    return arrived, ended - arrived


SERVERS: dict[str, Callable[[np.random.Generator, float, float], tuple[Floats, Floats]]] = {
    "M/D/1": constant,
    "M/M/1": exponential,
    "batches": batches,
}


def truth(server: str, load: float) -> dict[str, float]:
    """The true percentiles, from one very long run; of M/M/1 exactly."""
    if server == "M/M/1":
        rest = (1 - load) / SERVICE_S
        return {name: -math.log(1 - QUANTILES[name]) / rest for name in COVERED}
    rate = load / SERVICE_S if server == "M/D/1" else load * BATCH / (BATCH_S + BATCH * ROW_S)
    _, latency = SERVERS[server](np.random.default_rng(99), load, _TRUTH / rate)
    return {name: float(np.quantile(latency, QUANTILES[name])) for name in COVERED}


class Run:
    """One run as its windows would hold it: requests by the second of their end and the bucket of
    their latency (3 digits), added up so that each look is cheap."""

    def __init__(self, arrived: Floats, latency: Floats, seconds: int) -> None:
        ended = arrived + latency
        kept = ended < seconds
        self._second = ended[kept].astype(np.int64)
        self._latency = np.maximum(1, np.rint(latency[kept] * 1e6))  # in µs, as a run has them
        self.asked = np.bincount(self._second, minlength=seconds)
        self.totals = np.cumsum(self.asked)
        # buckets of 0.2 %: the product's are of 0.1 %
        self._bucket = (np.log(self._latency) / 0.002).astype(np.int64)
        self._first = int(self._bucket.min())
        width = int(self._bucket.max()) - self._first + 1
        flat = self._second * width + (self._bucket - self._first)
        grid = np.bincount(flat, minlength=seconds * width).reshape(seconds, width)
        self._beyond = grid[:, ::-1].cumsum(axis=1)[:, ::-1]  # in this bucket or above
        self._sofar = self._beyond.cumsum(axis=0)

    def over(self, limit: float) -> certainty.Ints:
        """By second, what took longer than `limit` seconds."""
        beyond = self._latency > round(limit * 1e6)
        return np.bincount(self._second[beyond], minlength=len(self.asked))

    def slow(self, until: int, share: float) -> certainty.Ints:
        """By second, of the first so many: what is among the slowest `share` of them."""
        most = share * self.totals[until - 1]
        column = int(np.searchsorted(-self._sofar[until - 1], -most))
        column = min(column, self._beyond.shape[1] - 1)
        found: certainty.Ints = self._beyond[:until, column]
        return found

    def effect(self, over: certainty.Ints, until: int) -> float | None:
        """As assurance.Blocks.effect_at has it: by the indicator and by the slowest tenth."""
        return certainty.effect_of(self.asked[:until], over[:until], self.slow(until, 0.1))

    def quantile(self, share: float) -> float:
        """In seconds."""
        return float(np.quantile(self._latency, min(1.0, max(0.0, share)))) / 1e6


class Verdict(NamedTuple):
    """The first that was shown: after so many seconds and requests, and whether p99 is under."""

    seconds: int
    requests: int
    under: bool


def verdict(run: Run, limit: float, corrected: bool = True) -> Verdict | None:
    """What whoever looks every second is shown first; None if that is nothing."""
    over = run.over(limit)
    numbers = np.cumsum(over)
    for until in range(1, len(run.asked) + 1):
        number, total = int(numbers[until - 1]), int(run.totals[until - 1])
        if not total or not certainty.shown(number, total, SHARE, 1.0):
            continue  # no design effect is below 1: it is not shown with the right one either
        effect = run.effect(over, until) if corrected else 1.0
        if effect is not None and certainty.shown(number, total, SHARE, effect):
            return Verdict(until, total, number < SHARE * total)
    return None


def held(run: Run, name: str, value: float) -> bool | None:
    """Whether the band of a percentile holds the true one; None: there is no band."""
    share, count = QUANTILES[name], len(run.asked)
    over = run.over(run.quantile(share))
    effect = None
    for until in range(count, count * 3 // 4, -max(1, count // 64)):
        effect = run.effect(over, until)
        if effect is not None:
            break
    total = int(run.totals[-1])
    if effect is None or total < certainty.LEAST * effect:
        return None
    fewest, most = certainty.bounds(total, 1 - share, effect)
    low = run.quantile(1 - math.ceil(most) / total)
    high = run.quantile(1 - math.floor(fewest) / total) if fewest >= 1 else math.inf
    return low <= value + 1e-6 and value - 1e-6 <= high


class Cell(NamedTuple):
    """Runs of one server at one load against one limit."""

    server: str
    load: float
    off: float
    runs: int
    wrong: int
    right: tuple[int, ...]  # requests until each right verdict
    naive: int  # wrong without the correction
    bands: dict[str, tuple[int, int]]  # percentile → bands, and those that hold the truth


def cell(server: str, load: float, off: float, runs: int, seconds: int) -> Cell:
    """Where the truth is on the limit every verdict is wrong."""
    known = truth(server, load)
    limit = known["p99"] * off
    rng = np.random.default_rng([7, LOADS.index(load), OFF.index(off), [*SERVERS].index(server)])
    wrong = naive = 0
    right: list[int] = []
    bands = {name: [0, 0] for name in COVERED}
    for _ in range(runs):
        run = Run(*SERVERS[server](rng, load, seconds), seconds)
        found, plain = verdict(run, limit), verdict(run, limit, corrected=False)
        good = [v is not None and off != 1.0 and v.under == (off > 1) for v in (found, plain)]
        wrong += found is not None and not good[0]
        naive += plain is not None and not good[1]
        if found is not None and good[0]:
            right.append(found.requests)
        for name, counts in bands.items():
            holds = held(run, name, known[name])
            counts[0] += holds is not None
            counts[1] += bool(holds)
    told = {name: (counts[0], counts[1]) for name, counts in bands.items()}
    return Cell(server, load, off, runs, wrong, tuple(right), naive, told)


def _line(found: Cell) -> str:
    middle = f"{np.median(found.right):,.0f}" if found.right else ""
    shown = f"{100 * len(found.right) / found.runs:.0f} %" if found.off != 1.0 else ""
    covered = " | ".join(_percent(held, told) for told, held in found.bands.values())
    return (
        f"| {found.server} | {found.load} | {found.off} | {_percent(found.wrong, found.runs)}"
        f" | {shown} | {middle} | {_percent(found.naive, found.runs)} | {covered} |"
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "no band"


def faults(cells: list[Cell]) -> list[str]:
    """What does not hold of what is said above, in words."""
    found = []
    for on, most, words in ((False, 0.01, "10 % off the limit"), (True, 0.02, "on the limit")):
        part = [one for one in cells if (one.off == 1.0) == on]
        runs, wrong, naive = (
            sum(getattr(one, field) for one in part) for field in ("runs", "wrong", "naive")
        )
        result(
            f"{words}: {wrong} of {runs} wrong ({_percent(wrong, runs)}),"
            f" without the correction {naive} ({_percent(naive, runs)})"
        )
        if wrong > most * runs:
            found.append(f"wrong too often with the truth {words}")
        if naive <= most * runs:
            found.append(f"it holds without the correction with the truth {words}: why?")
    for name in COVERED:
        calm = [one for one in cells if one.load <= 0.7]
        told, holding = (sum(one.bands[name][at] for one in calm) for at in (0, 1))
        none = sum(one.runs for one in calm) - told
        result(
            f"{name}: {holding} of {told} bands hold the truth up to load 0.7"
            f" ({_percent(holding, told)}); no band in {none} runs"
        )
        if not told or holding < 0.93 * told:
            found.append(f"the bands of {name} miss the truth too often")
    return found


def main() -> None:
    """Prints the table; exits with 1 if it does not hold what it says above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="of all cells together")
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="360 runs")
    asked = parser.parse_args()
    places = [(server, load, off) for load in LOADS for server in SERVERS for off in OFF]
    each = 10 if asked.quick else -(-asked.runs // len(places))
    print(f"{each * len(places)} runs of {asked.seconds} s, p99 against a limit\n")
    print(
        "| server | load | limit / p99 | wrong | shown | requests until then (median)"
        " | wrong without the correction | P50 in its band | P99 in its band |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    cells = []
    with ProcessPoolExecutor(asked.processes) as pool:
        for found in pool.map(
            cell, *zip(*((*p, each, asked.seconds) for p in places), strict=True)
        ):
            cells.append(found)
            print(_line(found), flush=True)
    print()
    if wrong := faults(cells):
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
