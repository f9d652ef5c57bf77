"""What shared memory saves of inputs of 600 kB: the lane, wrk and perf_analyzer, each with tensors
in binary and in shared memory of this machine; a table for the README.

    python -m tests.benchmarks.lane_shared [--rounds 5] [--seconds 3] [--connections 16]

The same C server (fast_server.c) reads what comes and throws it away, and looks into no memory, so
that all that is measured is the client's and the kernel's. Server on core 0, client on core 1,
rounds interleaved; each factor is within one client and one round, and counts where the server's
core was under 90 % busy. wrk, which sends the lane's
requests and does nothing beside, is the bound: no factor can be higher for one that is as fast as
it in binary.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from msgspec.structs import replace

from loadbench.model import Tensor
from tests.benchmarks.clients import Job, lane, missing, perf_analyzer, wrk
from tests.benchmarks.lane import WARM_S, Row, counting, of_client, spread, told_busy
from tests.benchmarks.rig import Popen, Server, compiled, endpoint

WIDE = 150_000  # values of four bytes


def job(port: int, connections: int, seconds: float, folder: Path, shared: bool) -> Job:
    """The extension of shared memory is not told by the server: it is asked for all the same."""
    model = Tensor("x", "FP32", (WIDE,))
    where = replace(endpoint(port, image=True), inputs=(model,), shared=shared)
    return Job(where, connections, seconds, folder)


# Asked for a number of requests its memory grows with each body that it sends: clearing pages for
# that was two thirds of its time, and it is several times as fast in windows
WINDOWS = (
    "--measurement-interval",
    "1000",
    "--stability-percentage",
    "0.001",
    "--max-trials",
    "99",
)


def windowed(job: Job) -> AbstractContextManager[Popen]:
    return perf_analyzer(job, *WINDOWS)


CLIENTS: dict[str, Callable[[Job], AbstractContextManager[Popen]]] = {
    "lane": lane,
    "wrk": wrk,
    "perf_analyzer": windowed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=16)
    given = parser.parse_args()
    names = [name for name in CLIENTS if not missing(name)]
    rows: dict[tuple[str, bool], list[Row]] = {(n, s): [] for n in names for s in (False, True)}
    with compiled("fast_server", f'-DWIDE="{WIDE}"') as binary:
        found = Server(binary)
        try:
            for turn in range(given.rounds):
                for name, shared in rows if turn % 2 == 0 else reversed(list(rows)):
                    with tempfile.TemporaryDirectory() as folder:
                        whole = WARM_S + given.seconds + 1
                        asked = job(found.port, given.connections, whole, Path(folder), shared)
                        row = of_client(found, CLIENTS[name](asked), given.seconds)
                    rows[name, shared].append(row)
                    print(f"{name}, {'shared' if shared else 'binary'}: {row}", file=sys.stderr)
        finally:
            found.close()
    print(f"| 600 kB, {given.connections} connections | binary | shared memory | × | server busy |")
    print("|---|---|---|---|---|")
    for name in names:
        both = counting(rows[name, False], rows[name, True])
        used = both or list(zip(rows[name, False], rows[name, True], strict=True))
        rates = [statistics.median(row.rate for row in side) for side in zip(*used, strict=True)]
        times = spread([to.rate / of.rate for of, to in both], ".1f") if both else "–"
        print(
            f"| {name} | {rates[0]:,.0f}/s | {rates[1]:,.0f}/s | {times} | "
            f"{told_busy(both, given.rounds)} |"
        )


if __name__ == "__main__":
    main()
