"""Two load processes instead of one: are the merged percentiles those of all samples, and how long
is the offered rate below 100 % when one is killed or frozen at 10,000/s?

    python -m tests.benchmarks.workers [--rounds 5] [--rate 10000]

The first keeps every sample of both and counts them in one histogram. The second kills one of two
workers in the middle of a second. Arrivals are constant, so the moment from which on all of them
are sent again follows exactly from how many were not: the lost worker's share is half of them.
"""

import argparse
import os
import signal
import statistics
import time

from loadbench.histogram import Histogram
from loadbench.model import Window
from loadbench.plan import Noted, Plan, RequestPlan, Workers
from loadbench.shape import Phase
from loadbench.units import MS, SECOND
from tests.benchmarks.lane import endpoint, server
from tests.crews import crew


def shared(port: int, rate: float, seconds: int, **changed: object) -> Plan:
    fields: dict[str, object] = {
        "endpoint": endpoint(port),
        "requests": (RequestPlan("infer"),),
        "arrivals": "constant",
        "phases": (Phase(rate, rate, seconds * SECOND),),
        "workers": Workers(here=2),
    }
    return Plan(**{**fields, **changed})  # type: ignore[arg-type]


def percentiles(port: int) -> None:
    with crew(shared(port, 500, 4, arrivals="poisson", slowest=1_000_000)) as found:
        done = found.done()
    every = [sample for window in done.recorded for sample in window.slowest]
    one = Histogram.of([sample.done - sample.due for sample in every])
    print(f"two workers, {len(every):,} samples: merged against one histogram of all")
    for share in (0.5, 0.9, 0.99, 0.999, 1.0):
        merged, whole = done.latency.quantile(share), one.quantile(share)
        same = "identical" if merged == whole else "NOT identical"
        print(
            f"  P{100 * share:<6g}{(merged or 0) / MS:9.3f} ms {(whole or 0) / MS:9.3f} ms  {same}"
        )
    print("  all buckets", "identical" if done.latency == one else "NOT identical")


def back_after(port: int, rate: float, number: int) -> tuple[float, float, int]:
    """(seconds until all is offered again, P99 of the lateness then in ms, requests lost)"""
    with crew(shared(port, rate, 6)) as found:
        assert found.started is not None
        found.until_second(0)
        time.sleep(0.5)
        os.kill(found.pids[0], number)
        killed = time.monotonic_ns()
        found.until(lambda message: isinstance(message, Noted))
        if number == signal.SIGSTOP:
            os.kill(found.pids[0], signal.SIGKILL)
        done = found.done()
    load = [window for window in found.windows if window.stage == "load"]
    first = next(window.second for window in load if window.unsent)
    unsent = done.sum("unsent")
    back = found.started.origin + first * SECOND + round(unsent / (rate / 2) * SECOND)
    assert [window.asked for window in load] == [round(rate)] * len(load)
    late = after(load).quantile(0.99) or 0
    return (back - killed) / SECOND, late / MS, done.sum("lost")


def after(load: list[Window]) -> Histogram:
    """The lateness of the seconds in which one offered what two had."""
    last = max(window.second for window in load if window.unsent)
    return Histogram.merged(window.lateness for window in load if window.second > last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=10_000)
    given = parser.parse_args()
    with server() as found:
        percentiles(found.port)
        for name, number in (("killed", signal.SIGKILL), ("frozen", signal.SIGSTOP)):
            rows = [back_after(found.port, given.rate, number) for _ in range(given.rounds)]
            times = sorted(row[0] for row in rows)
            print(
                f"one of two {name} at {given.rate:,.0f}/s: all is offered again after"
                f" {statistics.median(times):.2f} s ({times[0]:.2f}–{times[-1]:.2f}),"
                f" late then by {statistics.median(row[1] for row in rows):.2f} ms (P99);"
                f" {statistics.median(row[2] for row in rows):.0f} requests lost"
            )


if __name__ == "__main__":
    main()
