"""What a run's log says of some of its seconds, told without loadbench's own code.

Lines are read as JSON and the histograms by HdrHistogram's own package, so that a figure which the
dashboard shows can be held against something it was not made with.
"""

import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram

LOWEST, HIGHEST, DIGITS = 1_000, 3_600_000_000_000, 3


@cache
def _counts(encoded: str) -> HdrHistogram:
    return HdrHistogram.decode(encoded)


class Account:
    """Of the recorded seconds [begin, end). `failed` is all that was asked and not answered well,
    also what was never sent, or lost."""

    def __init__(self, windows: Sequence[dict[str, Any]]) -> None:
        self.windows = windows
        self.seconds = len(windows)
        parts = [part for window in windows for part in window.get("requests", {}).values()]
        self.done = sum(part.get("done", 0) for part in parts)
        self.failed = sum(sum(part.get("failed", {}).values()) for part in parts)
        self.failed += sum(window.get("unsent", 0) + window.get("lost", 0) for window in windows)
        self.asked = sum(window.get("asked", 0) for window in windows)
        self._latency = HdrHistogram(LOWEST, HIGHEST, DIGITS)
        for part in parts:
            if part.get("latency"):
                self._latency.add(_counts(part["latency"]))

    def percentile_ms(self, share: float) -> float | None:
        """Of what was asked: infinite where it falls among the failed, or what was open and over
        the limit at the end of the last second."""
        overdue = self.windows[-1].get("overdue", 0) if self.windows else 0
        answered, beyond = self._latency.get_total_count(), self.failed + overdue
        rank = max(1, int(share * (answered + beyond) + 0.5))
        if rank > answered:
            return math.inf if beyond else None
        return float(self._latency.get_value_at_percentile(100 * rank / answered)) / 1e6

    @property
    def failed_percent(self) -> float | None:
        ended = self.done + self.failed
        return 100 * self.failed / ended if ended else None

    @property
    def waiting(self) -> float | None:
        """In the server's queue, at the end."""
        told = [window["server"] for window in self.windows if window.get("server")]
        return told[-1].get("waiting") if told else None

    @property
    def mean_batch(self) -> float | None:
        sizes = [
            (int(rows), size["batches"])
            for window in self.windows
            for rows, size in (window.get("server") or {}).get("sizes", {}).items()
        ]
        batches = sum(number for _, number in sizes)
        return sum(rows * number for rows, number in sizes) / batches if batches else None

    @property
    def fill_percent(self) -> float | None:
        """Of the room that a batch may have at the end."""
        told = [window["server"] for window in self.windows if window.get("server")]
        mean = self.mean_batch
        if not told or mean is None:
            return None
        rooms = [ground["limit"] for ground in told[-1].get("grounds", [])]
        return min(100.0, 100 * mean / float(max(rooms or [told[-1]["max_batch"]])))

    @property
    def batches(self) -> float:
        return float(sum((window.get("server") or {}).get("batches", 0) for window in self.windows))

    @property
    def has_gpu(self) -> bool:
        return any((window.get("machine") or {}).get("gpus") for window in self.windows)


def read(log: Path) -> dict[int, dict[str, Any]]:
    """The recorded windows of a log by their second; a last line that is half written waits."""
    found = {}
    for line in log.read_bytes().split(b"\n")[:-1]:
        record = json.loads(line)
        if record["kind"] == "window" and record.get("stage", "load") != "warmup":
            found[record["second"]] = record
    return found


def between(windows: dict[int, dict[str, Any]], begin: int, end: int) -> Account:
    return Account([windows[second] for second in range(begin, end) if second in windows])
