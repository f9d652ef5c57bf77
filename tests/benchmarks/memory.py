"""Does the load grow? Resident memory of a load process over ten million requests.

    python -m tests.benchmarks.memory [--requests 10] [--connections 64]

The lane as `loadbench run` runs it, in a closed loop against the C server. Growth is counted from
the end of the first minute, or of the first million requests where those take longer.
"""

import argparse
import sys
from pathlib import Path

from loadbench.model import Window, decode, encode
from loadbench.plan import Command, Finished, Message, Plan, RequestPlan
from loadbench.shape import Phase
from loadbench.units import SECOND
from tests.benchmarks.rig import endpoint, loading, server

MILLION = 1_000_000
LIMIT_KB = 5_000


def resident(pid: int) -> int:
    """In kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def measure(port: int, requests: int, connections: int) -> list[tuple[int, int]]:
    """(requests done, kB resident) of each second."""
    plan = Plan(
        endpoint=endpoint(port),
        requests=(RequestPlan("infer"),),
        arrivals="closed",
        phases=(Phase(0, 0, 24 * 3600 * SECOND),),
        concurrency=connections,
    )
    found: list[tuple[int, int]] = []
    done = 0
    with loading(plan) as load:
        assert load.stdin is not None
        assert load.stdout is not None
        for line in load.stdout:
            message = decode(Message, line)  # type: ignore[arg-type]
            if isinstance(message, Finished):
                break
            if not isinstance(message, Window):
                continue
            assert not message.failed, message.failed
            done += message.done
            if message.stage == "load":
                found.append((done, resident(load.pid)))
            if done >= requests:
                load.stdin.write(encode(Command("stop")) + b"\n")
                load.stdin.flush()
                requests = sys.maxsize
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=float, default=10, help="millions")
    parser.add_argument("--connections", type=int, default=64)
    given = parser.parse_args()
    with server() as found:
        rows = measure(found.port, round(given.requests * MILLION), given.connections)
    print("| second | requests | resident |")
    print("|---|---|---|")
    shown = range(9, len(rows), max(10, len(rows) // 120 * 10))
    for second in shown:
        done, size = rows[second]
        print(f"| {second + 1} | {done:,} | {size:,} kB |")
    first = next((row for row in rows if row[0] >= MILLION), rows[-1])
    minute = rows[min(59, len(rows) - 1)]
    since_million, since_minute = rows[-1][1] - first[1], rows[-1][1] - minute[1]
    print(f"\n{rows[-1][0]:,} requests in {len(rows)} s: {since_million:+,} kB since the first "
          f"million, {since_minute:+,} kB since the first minute")  # fmt: skip
    return int(max(since_minute, since_million) >= LIMIT_KB)


if __name__ == "__main__":
    sys.exit(main())
