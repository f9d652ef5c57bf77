"""How exactly are tokens timed? Against a server that notes when it has sent each of them.

    python -m tests.benchmarks.tokens        # [--rate 20] [--tokens 50] [--gap 10] [--seconds 20]

The server is a process of its own and sends by a timetable; client and server read the same clock.
Each moment at which a token was seen to come is held against the one at which it was sent.
"""

import argparse
import sys

import numpy as np

from loadbench.load import ready
from loadbench.load.tokens import FIRST, GAP, Tokens
from loadbench.plan import Endpoint, Plan, RequestPlan
from loadbench.shape import Phase
from loadbench.targets import openai
from loadbench.units import MS, SECOND
from tests.completions import MODEL, completions
from tests.lanes import drive

WITHIN_MS = 1.0


class Kept(Tokens):
    """Remembers when each token came."""

    came: list[int] = []

    def add(self, what: int, kind: int, due: int, at: int, value: int) -> None:
        if what in (FIRST, GAP):
            self.came.append(at)
        super().add(what, kind, due, at, value)


def measured(rate: float, tokens: int, gap_ms: float, seconds: float) -> tuple[list[float], int]:
    """By how many ms each token was seen after it had been sent; how many requests failed."""
    ready.Tokens = Kept  # type: ignore[misc]
    with completions() as server:
        endpoint = Endpoint(
            host="127.0.0.1", port=server.port, protocol="openai", model=MODEL, path=openai.CHAT,
            method="POST",
        )  # fmt: skip
        asked = RequestPlan(
            "chat", max_tokens=str(tokens), options={"first_ms": 20, "gap_ms": gap_ms}
        )
        phases = (Phase(rate, rate, round(seconds * SECOND)),)
        done = drive(Plan(endpoint, (asked,), "poisson", phases))
    sent, came = np.array(server.did["sent"]), np.array(Kept.came)
    if len(sent) != len(came):
        sys.exit(f"{len(sent):,} tokens were sent and {len(came):,} seen")
    off = (np.sort(came) - np.sort(sent)) / MS
    return off.tolist(), sum(done.failed.values())


def main() -> None:
    parser = argparse.ArgumentParser(description="How exactly are tokens timed?")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--tokens", type=int, default=50, help="of each answer")
    parser.add_argument("--gap", type=float, default=10.0, help="ms between two of them")
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    off, failed = measured(options.rate, options.tokens, options.gap, options.seconds)
    shares = np.quantile(off, (0.01, 0.5, 0.99, 0.999))
    print(f"{len(off):,} tokens, {failed} requests failed; seen after they were sent, ms:"
          f" p1 {shares[0]:+.3f}, p50 {shares[1]:+.3f}, p99 {shares[2]:+.3f},"
          f" p99.9 {shares[3]:+.3f}, most {max(off):+.3f}")  # fmt: skip
    within = float(np.mean(np.abs(off) <= WITHIN_MS))
    print(f"within {WITHIN_MS:g} ms: {within:.2%}")
    sys.exit(0 if within >= 0.99 and not failed else 1)


if __name__ == "__main__":
    main()
