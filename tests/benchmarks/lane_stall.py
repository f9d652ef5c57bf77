"""The stall test: does the lane tell the truth about a server that stands still?

    python -m tests.benchmarks.lane_stall [--periods 12] [--rounds 5]

500/s, 1 ms of service, half a second of standstill every five, made by the server itself (own) or
by whoever freezes it with SIGSTOP (signal). The truth is when each request was due, by the
schedule, and when the server wrote its answer, by its own stamps; to which the way back comes,
which takes as long as half of all requests take: the medians are made equal. A server that thaws
answers in no order to speak of, so each answer is told by its connection.

Server and client have a core each. Left to itself Linux wakes the client on the core of whoever
writes to it, where it waits until the server has written all 250 answers, for 1 to 3 ms.

P90 is the edge at which the standstills begin to show: there one request of a run is 3 % of it, so
it is the median of several runs that is to be within 2 %.
"""

import argparse
import os
import signal
import socket
import threading
import time
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench.load.connection import Connection
from loadbench.load.exchange import Exchange
from loadbench.load.pool import Pool
from loadbench.units import MS, SECOND
from tests.benchmarks.rig import CLIENT_CORE, SERVER_CORE
from tests.lanes import Done, drive, known_server, plan

RATE, STALL, PERIOD = 500, 500 * MS, 5 * SECOND
SHARES = (0.9, 0.95, 0.99, 0.999)
_begin, _connect = Exchange.begin, Pool.connect


def stop_and_go(pid: int, periods: int) -> None:
    """Stops the server from outside, in the middle of each period."""
    begun = time.monotonic_ns()
    for number in range(periods):
        due = begun + number * PERIOD + PERIOD // 2
        time.sleep(max(0, due - time.monotonic_ns()) / SECOND)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(STALL / SECOND)
        os.kill(pid, signal.SIGCONT)


class Begun:
    """When the requests of each connection were due, in their order, by its port here."""

    def __init__(self) -> None:
        self.due: dict[int, list[int]] = {}

        def begun(exchange: Exchange, connection: Connection, due: int, *more: int) -> None:
            self._add(connection, due)
            _begin(exchange, connection, due, *more)

        def connecting(pool: Pool, connection: Connection) -> str:
            failure = _connect(pool, connection)
            self._add(connection, connection.due)
            return failure

        Exchange.begin, Pool.connect = begun, connecting

    def _add(self, connection: Connection, due: int) -> None:
        with socket.socket(fileno=os.dup(connection.fd)) as mine:
            self.due.setdefault(mine.getsockname()[1], []).append(due)

    def latencies(self, stamps: list[tuple[int, int]]) -> NDArray[np.int64]:
        """From due to the server's stamp, sorted."""
        following = {port: iter(due) for port, due in self.due.items()}
        return np.sort([stamp - next(following[port]) for port, stamp in stamps])


class Run(NamedTuple):
    """Truth and told of each of SHARES, in ns."""

    truth: list[int]
    told: list[int]


def run(freeze: str, periods: int) -> Run:
    own = freeze == "own"
    options = {"stall_ms": STALL // MS, "period_ms": PERIOD // MS} if own else {}
    begun = Begun()
    with known_server(service_ms=1, stamped=True, **options) as server:
        os.sched_setaffinity(server.process.pid, {int(SERVER_CORE)})
        other = threading.Thread(target=stop_and_go, args=(server.process.pid, periods))
        if not own:
            other.start()
        found = drive(plan(server.port, rate=RATE, seconds=periods * PERIOD / SECOND))
        if not own:
            other.join()
    found.check()
    truth = begun.latencies(server.counts["stamps"])
    assert len(truth) == found.sum("asked") == found.sum("done") == RATE * periods * PERIOD / SECOND
    back = told(found, 0.5) - rank(truth, 0.5)
    return Run([rank(truth, s) + back for s in SHARES], [told(found, s) for s in SHARES])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--periods", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    runs: dict[str, list[Run]] = {"own": [], "signal": []}
    for _ in range(given.rounds):
        for freeze, done in runs.items():
            done.append(run(freeze, given.periods))
    for freeze, done in runs.items():
        print(f"| {freeze} standstill | truth | told | off | of each run |\n|---|---|---|---|---|")
        for number, share in enumerate(SHARES):
            truth, said = (median(getattr(r, side)[number] for r in done) for side in Run._fields)
            off = sorted(r.told[number] / r.truth[number] - 1 for r in done)
            each = " ".join(f"{one:+.2%}" for one in off)
            print(f"| P{share * 100:g} | {truth / MS:.2f} ms | {said / MS:.2f} ms "
                  f"| {median(off):+.2%} | {each} |")  # fmt: skip
        print()


def rank(values: NDArray[np.int64], share: float) -> int:
    """As a Histogram counts its ranks."""
    return int(values[max(0, int(share * len(values) + 0.5) - 1)])


def told(found: Done, share: float) -> int:
    return found.latency.quantile(share) or 0


if __name__ == "__main__":
    main()
