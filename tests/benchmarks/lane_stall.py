"""The stall test: does the lane tell the truth about a server that stands still?

    python -m tests.benchmarks.lane_stall [--periods 12] [--freeze own|signal]

500/s, 1 ms of service, half a second of standstill every five. The truth follows from the schedule
and from when the server stood, told by itself (own) or by whoever froze it with SIGSTOP (signal).
"""

import argparse
import os
import signal
import threading
import time

import numpy as np

from loadbench.units import MS, SECOND
from tests.lanes import drive, known_server, plan

RATE, STALL, PERIOD = 500, 500 * MS, 5 * SECOND


def freeze(pid: int, periods: int, stalls: list[tuple[int, int]]) -> None:
    """Stops the server from outside, in the middle of each period."""
    begun = time.monotonic_ns()
    for number in range(periods):
        due = begun + number * PERIOD + PERIOD // 2
        time.sleep(max(0, due - time.monotonic_ns()) / SECOND)
        os.kill(pid, signal.SIGSTOP)
        begin = time.monotonic_ns()
        time.sleep(STALL / SECOND)
        os.kill(pid, signal.SIGCONT)
        stalls.append((begin, time.monotonic_ns()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--periods", type=int, default=12)
    parser.add_argument("--freeze", choices=("own", "signal"), default="own")
    given = parser.parse_args()
    own = given.freeze == "own"
    options = {"stall_ms": STALL // MS, "period_ms": PERIOD // MS} if own else {}
    stalls: list[tuple[int, int]] = []
    with known_server(service_ms=1, **options) as server:
        other = threading.Thread(target=freeze, args=(server.process.pid, given.periods, stalls))
        if not own:
            other.start()
        found = drive(plan(server.port, rate=RATE, seconds=given.periods * PERIOD / SECOND))
        if not own:
            other.join()
    found.check()
    due = found.started.origin + np.arange(found.sum("asked")) * SECOND // RATE
    end = due + MS
    for begin, back in stalls or server.counts["stalls"]:
        end = np.where((end >= begin) & (end < back), back, end)
        end = np.where((due >= begin) & (due < back), back + MS, end)
    truth = np.sort(end - due)
    print(f"{found.sum('done'):,} of {len(due):,} done, failed {found.failed or 'none'}")
    for share in (0.5, 0.9, 0.95, 0.99, 0.999):
        expected = truth[int(share * len(truth))] / MS
        told = (found.latency.quantile(share) or 0) / MS
        print(f"P{share * 100:<5g} truth {expected:8.2f} ms   told {told:8.2f} ms   "
              f"{told / expected - 1:+.2%}")  # fmt: skip


if __name__ == "__main__":
    main()
