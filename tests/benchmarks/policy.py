"""What the batching policies reach of the most that anyone could have served in time.

    python -m tests.benchmarks.policy [--seeds 20] [--arrivals 5000] [--only noise]

The engine's own scheduler on a virtual clock (`tests.simulation`), one instance, requests of one
row, an SLO; times of batches learned as in the engine. Load 1 is b*/L(b*), b* the largest batch of
which two fit into the SLO. The most is found exactly (`loadbench.optimum`), knowing all arrivals.

With noise each batch takes L(b) · (1 + Exp(5 %)). To be a bound, the drawn factors must not depend
on who draws them: they belong to the requests, and a batch takes that of its last one. A policy,
which cannot know them, sees independent factors, one for each of its batches; the optimum knows
them all, and may choose where to end its batches by them, so it is rather high. It is exact for
batches of consecutive requests run one after the other, which is all that serving in the order of
deadlines can make.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from multiprocessing import Pool
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from loadbench.engine import lookahead, policy, scheduler, service
from loadbench.engine.job import Job
from loadbench.engine.lookahead import Outlook, Plan
from loadbench.engine.rule import Policy, Rule
from loadbench.engine.scheduler import Scheduler, Terms
from loadbench.engine.service import ServiceTimes
from loadbench.optimum import most_in_time
from loadbench.units import MS
from tests.simulation import CASES, arrivals, play, warm

LOW, HIGH = (0.5, 0.7, 0.9, 1.0), (1.1, 1.25, 1.5, 2.0, 3.0)
NOISE = 0.05
OTHERS: tuple[Policy, ...] = ("efficient", "failfast", "fixed", "adaptive", "none")


class Run(NamedTuple):
    """One sequence of arrivals under one policy."""

    case: str
    kind: str
    load: float
    seed: int
    arrivals: int
    policy: Policy = "deadline"
    noise: bool = False


class Found(NamedTuple):
    """Of the optimum; late of those that were served; batches."""

    share: float
    late: float
    batches: int


def judge(run: Run) -> Found:
    """Plays it and finds the optimum."""
    case = CASES[run.case]
    moments = arrivals(run.kind, run.load * case.capacity, run.arrivals, run.seed)
    table, slower = case.table, None
    if run.noise:
        slower = 1 + np.random.default_rng(run.seed).exponential(NOISE, run.arrivals)
        table = np.rint(slower[:, None] * table).astype(np.int64)
    most = most_in_time(moments, case.slo_ns, table, np.zeros_like(case.table))
    wait = 2 * MS if run.policy == "fixed" else 0
    history = play(case, Rule(run.policy, case.largest, wait), moments, slower)
    late = history.served - history.on_time
    return Found(history.on_time / most, late / max(1, history.served), len(history.ran))


def row(name: str, runs: Sequence[Run], without: Callable[[], None] | None = None) -> None:
    """Mean share over all runs, and that of the worst of the points; late of those served."""
    with Pool(2, without) as pool:
        found = pool.map(judge, runs, chunksize=4)
    points: dict[tuple[str, str, float], list[float]] = {}
    for run, one in zip(runs, found, strict=True):
        points.setdefault((run.case, run.kind, run.load), []).append(100 * one.share)
    point, worst = min(points.items(), key=lambda item: fmean(item[1]))
    share = fmean([100 * one.share for one in found])
    late = fmean([100 * one.late for one in found])
    where = f"{point[0]}, {point[1]}, {point[2]}"
    batches = fmean([one.batches for one in found])
    columns = (f"{share:.1f}", f"{fmean(worst):.1f} ({where})", f"{late:.2f}", f"{batches:.0f}")
    print(f"| {name} | {' | '.join(columns)} |", flush=True)


def runs_of(given: argparse.Namespace, kind: str, loads: Sequence[float], **more: Any) -> list[Run]:
    """All cases and seeds."""
    return [
        Run(case, kind, load, seed, given.arrivals, **more)
        for case in CASES
        for load in loads
        for seed in range(given.seeds)
    ]


def table(what: str) -> None:
    print(f"\n| {what} | of the best, % | the worst point | late of served, % | batches |")
    print("|---|---|---|---|---|", flush=True)


def shares(given: argparse.Namespace) -> None:
    table("deadline")
    for kind in ("poisson", "gamma", "spikes"):
        for loads in (LOW, HIGH):
            name = f"{kind}, {loads[0]} to {loads[-1]}"
            row(name, runs_of(given, kind, loads))
    for loads in (LOW, HIGH):
        runs = runs_of(given, "poisson", loads, noise=True)
        row(f"poisson, noise, {loads[0]} to {loads[-1]}", runs)


def others(given: argparse.Namespace) -> None:
    table("Poisson")
    for load in (0.3, 0.9, 1.5):
        for name in ("deadline", *OTHERS):
            row(f"{name}, {load}", runs_of(given, "poisson", (load,), policy=name))


def _window_drop(due: Sequence[int], rows: Sequence[int], view: Outlook) -> Plan | None:
    """The head goes as long as the batch of all that fit would be too late."""
    least = lookahead.window(due, rows, view.largest, view.service, view.now)
    size = min(rows[-1] - rows[least], view.largest)
    return Plan(least, least + size, 0.0) if size else None


def _uncut(service_ns: Sequence[int], rows: int, rate: float) -> int:
    return 0


def _window_drop_alone() -> None:
    _set(policy, best_plan=_window_drop, cut=_uncut)


def _never_cut() -> None:
    _set(policy, cut=_uncut)
    _set(lookahead, cut=_uncut)


def _time_is_free() -> None:
    _set(policy, outlook=lambda *given: lookahead.outlook(*given)._replace(price=0.0))


def _set(module: Any, **names: Any) -> None:
    for name, value in names.items():
        setattr(module, name, value)


def ablations(given: argparse.Namespace) -> None:
    """Each in processes of its own, where it is changed before anything is played."""
    changes: dict[str, Callable[[], None] | None] = {
        "as it is": None,
        "window drop alone": _window_drop_alone,
        "time has no price": _time_is_free,
        "no cut at padded sizes": _never_cut,
        "no more than on average may come": lambda: _set(lookahead, CLUMPED=1),
        "rate over 1 SLO, not 3": lambda: _set(scheduler, RATE_SLOS=1),
        "rate over 10 SLOs": lambda: _set(scheduler, RATE_SLOS=10),
        "10 % for sizes that ran seldom": lambda: _set(service, SPREAD=1),
    }
    table("all kinds of arrivals, 0.5 to 3")
    loads = (*LOW, *HIGH)
    runs = [run for kind in ("poisson", "gamma", "spikes") for run in runs_of(given, kind, loads)]
    for name, without in changes.items():
        row(name, runs, without)
    table("Poisson, noise, 0.9 to 3")
    noisy = runs_of(given, "poisson", (0.9, 1.0, 1.5, 3.0), noise=True)
    for quantile in (0.5, 0.8, 0.9, 0.95, 0.98, 0.99):
        row(f"P{100 * quantile:.0f}", noisy, lambda at=quantile: _set(service, QUANTILE=at))
    row("10 % for sizes that ran seldom", noisy, lambda: _set(service, SPREAD=1))


def costs(given: argparse.Namespace) -> None:
    """CPU time of taking requests in, and of deciding what runs next (learning included)."""
    print("\n| case, load | µs a request | µs a batch | the same, P99 | requests a batch |")
    print("|---|---|---|---|---|")
    for name, case in CASES.items():
        for load in (0.7, 1.0, 1.5, 3.0):
            moments = arrivals("poisson", load * case.capacity, 20_000, 1)
            print(f"| {name}, {load} | {_cost(case, moments.tolist())} |", flush=True)


def _cost(case: Any, moments: list[int]) -> str:
    times = ServiceTimes(case.largest, case.sizes)
    durations = case.table.tolist()
    warm(times, durations.__getitem__, case.largest)
    terms = Terms(Rule("deadline", case.largest), 1 << 40, 1 << 40, case.slo_ns)
    desk = Scheduler(terms, times)
    clock = time.thread_time_ns
    free = at = taking = decided = 0
    deciding: list[int] = []
    while at < len(moments):
        until = at
        while until < len(moments) and moments[until] <= max(free, moments[at]):
            until += 1
        jobs = [Job({}, 1, ((1,),), bool) for _ in range(at, until)]
        for job, moment in zip(jobs, moments[at:until], strict=True):
            job.arrived = moment
        begun = clock()
        for job in jobs:
            desk.admit(job, None, int)
        taking += clock() - begun
        now = max(free, moments[until - 1])
        begun = clock()
        found = desk.take(free, now, case.largest)
        rows = len(found.take)
        if rows:
            free = now + durations[rows]
            desk.ended(rows, free - now, 0, free)
            desk.last_batch = free
        deciding.append(clock() - begun)
        decided += rows
        at = until
    each = fmean(deciding) / 1000
    high = float(np.quantile(deciding, 0.99)) / 1000
    request = taking / len(moments) / 1000
    return f"{request:.1f} | {each:.0f} | {high:.0f} | {decided / len(deciding):.1f}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=20)
    arguments.add_argument("--arrivals", type=int, default=5000)
    parts = {"shares": shares, "others": others, "ablations": ablations, "costs": costs}
    arguments.add_argument("--only", choices=parts)
    given = arguments.parse_args()
    for name, part in parts.items():
        if given.only in (None, name):
            part(given)


if __name__ == "__main__":
    main()
