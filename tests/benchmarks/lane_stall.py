"""The stall test: does the lane tell the truth about a server that stands still?

    python -m tests.benchmarks.lane_stall [--periods 12] [--freeze own|signal]

500/s, 1 ms of service, half a second of standstill every five, made by the server itself (own) or
by whoever freezes it with SIGSTOP (signal). The truth is when each request was due, by the
schedule, and when the server wrote its answer, by its own stamps; to which the way back comes,
which takes as long as half of all requests take: the medians are made equal.
"""

import argparse
import os
import signal
import threading
import time

import numpy as np
from numpy.typing import NDArray

from loadbench.units import MS, SECOND
from tests.lanes import Done, drive, known_server, plan

RATE, STALL, PERIOD = 500, 500 * MS, 5 * SECOND


def freeze(pid: int, periods: int) -> None:
    """Stops the server from outside, in the middle of each period."""
    begun = time.monotonic_ns()
    for number in range(periods):
        due = begun + number * PERIOD + PERIOD // 2
        time.sleep(max(0, due - time.monotonic_ns()) / SECOND)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(STALL / SECOND)
        os.kill(pid, signal.SIGCONT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--periods", type=int, default=12)
    parser.add_argument("--freeze", choices=("own", "signal"), default="own")
    given = parser.parse_args()
    own = given.freeze == "own"
    options = {"stall_ms": STALL // MS, "period_ms": PERIOD // MS} if own else {}
    with known_server(service_ms=1, stamped=True, **options) as server:
        other = threading.Thread(target=freeze, args=(server.process.pid, given.periods))
        if not own:
            other.start()
        found = drive(plan(server.port, rate=RATE, seconds=given.periods * PERIOD / SECOND))
        if not own:
            other.join()
    found.check()
    due = found.started.origin + np.arange(found.sum("asked")) * SECOND // RATE
    written = np.array(server.counts["stamps"])
    assert len(due) == len(written) == found.sum("done")
    truth = np.sort(written - due)
    back = told(found, 0.5) - rank(truth, 0.5)
    print(f"{len(due):,} requests, all done; the way back takes {back / MS:.3f} ms\n")
    print(f"| {given.freeze} standstill | truth | told | off |")
    print("|---|---|---|---|")
    for share in (0.9, 0.95, 0.99, 0.999):
        expected, said = rank(truth, share) + back, told(found, share)
        print(f"| P{share * 100:g} | {expected / MS:.2f} ms | {said / MS:.2f} ms "
              f"| {said / expected - 1:+.2%} |")  # fmt: skip


def rank(values: NDArray[np.int64], share: float) -> int:
    """As a Histogram counts its ranks."""
    return int(values[max(0, int(share * len(values) + 0.5) - 1)])


def told(found: Done, share: float) -> int:
    return found.latency.quantile(share) or 0


if __name__ == "__main__":
    main()
