"""The lane beside wrk and other load generators, from one core each; tables for the README.

    python -m tests.benchmarks.lane [--rounds 5] [--seconds 4] [--only closed binary images open]

closed  a closed loop at 16 and 64 connections, the same tiny KServe request for all
binary  the same with its four values as a binary tensor, beside wrk and perf_analyzer
images  150 kB of binary tensor (3×224×224 bytes) in each request, beside wrk
open    Poisson at 20,000/s: how late the lane sends, beside a timerfd loop in C

The C server has core 0, the client core 1, rounds are interleaved. Rates are by the server's own
count between two moments amid each client's run, after a second of warm-up; a row counts only while
the server's core was under 90 % busy: the others are left out, and so is each beside them.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from loadbench.histogram import Histogram
from loadbench.plan import Plan, RequestPlan
from loadbench.shape import Phase, arrivals
from loadbench.targets.inputs import prepare
from loadbench.units import SECOND
from tests.benchmarks.clients import KINDS, Job, missing
from tests.benchmarks.rig import (
    CLIENT_CORE,
    Popen,
    Server,
    compiled,
    cpu,
    endpoint,
    run_lane,
    server,
)

BUSY = 0.9  # beyond it the server is what was measured
WARM_S, START_S = 1.0, 30.0
TIMER_CONNECTIONS = 1024  # as many as the lane may open


class Row(NamedTuple):
    """What one client reached in one round."""

    rate: float
    per_cpu_second: float
    server_busy: float


def begun(found: Server, process: Popen) -> None:
    """Returns when the client has been under way for long enough."""
    first, give_up = found.answered(), time.monotonic() + START_S
    while found.answered() < first + 1000:
        assert process.poll() is None, process.args
        assert time.monotonic() < give_up, process.args
        time.sleep(0.1)
    time.sleep(WARM_S)


def measure(found: Server, name: str, kind: str, connections: int, seconds: float) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        whole = seconds + WARM_S + (5 if name == "Locust FastHttpUser" else 1)
        where = endpoint(found.port, image=kind == "images", binary=kind == "binary")
        job = Job(where, connections, whole, Path(folder))
        return of_client(found, KINDS[kind][name](job), seconds)


def of_client(found: Server, client: AbstractContextManager[Popen], seconds: float) -> Row:
    """What a client reaches amid its run."""
    with client as process:
        begun(found, process)
        its_own = psutil.Process(process.pid)
        before = time.monotonic(), found.answered(), cpu(its_own), found.cpu()
        time.sleep(seconds)
        after = time.monotonic(), found.answered(), cpu(its_own), found.cpu()
    took, done, mine, its = (b - a for a, b in zip(before, after, strict=True))
    return Row(done / took, done / mine, its / took)


def rounds(
    found: Server, names: Sequence[str], kind: str, number: int, connections: int, seconds: float
) -> dict[str, list[Row]]:
    """Interleaved, every other round backwards."""
    rows: dict[str, list[Row]] = {name: [] for name in names}
    for turn in range(number):
        for name in names if turn % 2 == 0 else reversed(names):
            rows[name].append(measure(found, name, kind, connections, seconds))
            last = rows[name][-1]
            print(f"{connections} {name}: {last.rate:,.0f}/s, server {last.server_busy:.0%} busy",
                  file=sys.stderr, flush=True)  # fmt: skip
    return rows


def present(names: Sequence[str]) -> list[str]:
    """Those that can be measured; of the others it is said why not."""
    found = []
    for name in names:
        why = missing(name)
        if why:
            print(f"(no row for {name}: {why})\n")
        else:
            found.append(name)
    return found


def counting(*clients: list[Row]) -> list[tuple[Row, ...]]:
    """Of the rounds of these clients those in which none of them kept the server too busy."""
    each = zip(*clients, strict=True)
    return [rows for rows in each if max(row.server_busy for row in rows) < BUSY]


def spread(values: list[float], form: str) -> str:
    """Median, least and most."""
    ends = f"{min(values):{form}}–{max(values):{form}}"
    return f"{statistics.median(values):{form}} ({ends})"


def told_busy(counted: list[tuple[Row, ...]], rounds: int) -> str:
    """The most that the server was busy in the rounds that count, and how many those are."""
    if not counted:
        return f"**over {BUSY:.0%} in each round: does not count**"
    most = max(row.server_busy for rows in counted for row in rows)
    return f"{most:.0%}" + (f", {len(counted)} of {rounds} rounds" if len(counted) < rounds else "")


def table(rows: dict[str, list[Row]], connections: int, size: int = 0) -> None:
    amount = " GB/s |" if size else ""
    print(f"| {connections} connections | requests/s |{amount} the lane is × | per CPU second "
          "| server busy |")  # fmt: skip
    print("|---|---|---|---|---|" + ("---|" if size else ""))
    for name, mine in rows.items():
        both = counting(rows["lane"], mine)
        own = [row for _, row in both] or mine
        rates = [row.rate for row in own]
        amount = f" {statistics.median(rates) * size / 1e9:.2f} |" if size else ""
        times = spread([lane.rate / row.rate for lane, row in both], ".2f") if both else "–"
        print(
            f"| {name} | {spread(rates, ',.0f')} |{amount} {'1' if name == 'lane' else times} | "
            f"{statistics.median(row.per_cpu_second for row in own):,.0f} | "
            f"{told_busy([(row,) for _, row in both], len(mine))} |"
        )
    print(flush=True)


class Late(NamedTuple):
    """Lateness of one round in µs."""

    p50: float
    p99: float
    most: float


def lane_lateness(found: Server, rate: float, seconds: int, seed: int) -> Late:
    plan = Plan(
        endpoint=endpoint(found.port),
        requests=(RequestPlan("infer"),),
        arrivals="poisson",
        seed=seed,
        phases=(Phase(rate, rate, seconds * SECOND),),
        warmup_ns=SECOND,
    )
    windows, _ = run_lane(plan)
    late = Histogram.merged(window.lateness for window in windows if window.stage == "load")
    return Late(*((late.quantile(share) or 0) / 1000 for share in (0.5, 0.99, 1.0)))


def timer_lateness(found: Server, binary: Path, rate: float, seconds: int, seed: int) -> Late:
    """The same arrivals by the C program."""
    due = np.concatenate(list(arrivals((Phase(rate, rate, seconds * SECOND),), "poisson", seed)))
    ((request, *_),), _ = prepare(endpoint(found.port), [RequestPlan("infer")], seed=1)
    file = binary.with_name("request")
    file.write_bytes(request.data)
    command = [str(binary), str(found.port), str(TIMER_CONNECTIONS), str(file)]
    out = subprocess.run(
        ["taskset", "-c", CLIENT_CORE, *command],
        input=due.astype("<i8").tobytes(), capture_output=True, check=True,
    ).stdout  # fmt: skip
    timed, *late = map(float, out.split())
    assert timed > 0.9 * len(due), f"only {timed:,.0f} of {len(due):,} found a connection"
    return Late(*late)


def open_loop(found: Server, number: int, seconds: int, rate: float) -> None:
    rows: dict[str, list[Late]] = {"lane": [], "timerfd loop in C": []}
    with compiled("timer") as binary:
        for turn in range(number):
            rows["lane"].append(lane_lateness(found, rate, seconds, turn))
            rows["timerfd loop in C"].append(timer_lateness(found, binary, rate, seconds, turn))
    print(f"| Poisson {rate:,.0f}/s, late by µs | P50 | P99 | most |")
    print("|---|---|---|---|")
    for name, mine in rows.items():
        cells = []
        for column in zip(*mine, strict=True):
            cells.append(
                f"{statistics.median(column):,.0f} ({min(column):,.0f}–{max(column):,.0f})"
            )
        print(f"| {name} | {' | '.join(cells)} |")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, nargs="+", default=[16, 64])
    parts = [*KINDS, "open"]
    parser.add_argument("--only", nargs="+", default=parts, choices=parts)
    parser.add_argument("--clients", nargs="+", help="only these, and the lane")
    given = parser.parse_args()
    with server() as found:
        for kind in [kind for kind in KINDS if kind in given.only]:
            chosen = {"lane", *(given.clients or KINDS[kind])}
            names = present([name for name in KINDS[kind] if name in chosen])
            for connections in given.connections:
                rows = rounds(found, names, kind, given.rounds, connections, given.seconds)
                table(rows, connections, 3 * 224 * 224 if kind == "images" else 0)
        if "open" in given.only:
            open_loop(found, given.rounds, given.seconds, 20_000)


if __name__ == "__main__":
    main()
