"""A server that answers in exactly 5 ms, constant 50/s: what is told against what is true.

    python tests/benchmarks/known_answer.py [--rounds 3] [--seconds 20]

The truth is 5 ms plus the transport, which the same run with an empty model measures. P50 and P99
must be within 1 ms of it; on a machine that does other work the tail is that work's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SCENARIO = """
[target]
url = "local:fake"
[engine]
max_batch = 1
fake = {{ a = "{a}" }}
[load]
arrivals = "constant"
phases = [{{ rate = 50, for = "{seconds}s" }}]
"""


def latency(folder: Path, a: str, seconds: int) -> dict[str, float]:
    """Latency in ms by percentile of one run."""
    path = folder / "known.toml"
    path.write_text(SCENARIO.format(a=a, seconds=seconds))
    command = [sys.executable, "-m", "loadbench", "run", str(path), "--json", "--out", str(folder)]
    found: dict[str, dict[str, float]] = json.loads(
        subprocess.run(command, capture_output=True, check=True).stdout
    )
    return found["latency_ms"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=20)
    given = arguments.parse_args()
    print("         5 ms: p50     p99     0 ms: p50     p99     off: p50     p99  (ms)")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(given.rounds):
            timed = latency(Path(folder), "5 ms", given.seconds)
            empty = latency(Path(folder), "0 ms", given.seconds)
            off = {name: timed[name] - empty[name] - 5 for name in ("p50", "p99")}
            print(
                f"round {number + 1}  {timed['p50']:9.3f} {timed['p99']:7.3f}"
                f"  {empty['p50']:11.3f} {empty['p99']:7.3f}"
                f"  {off['p50']:+11.3f} {off['p99']:+7.3f}"
            )


if __name__ == "__main__":
    main()
