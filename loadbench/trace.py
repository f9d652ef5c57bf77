"""Arrival times from a CSV file: its first column, or the one called timestamp, time or arrival.

Times are seconds, or dates as in ISO 8601, and must not go back. Only the gaps count: the first
request falls due at the beginning of the load.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench.errors import SpecError
from loadbench.units import SECOND, US

_NAMES = ("timestamp", "time", "arrival")
_MOST = 1 << 62  # ns


@dataclass(frozen=True, eq=False)
class Trace:
    """What a file says."""

    path: str
    times: NDArray[np.int64]  # ns after the first of them, exactly as written

    def replay(self, scale: float, loop: bool) -> "Replay":
        """At `scale` times the rate."""
        due = self.times if scale == 1 else np.rint(self.times / scale).astype(np.int64)
        last = int(due[-1])
        return Replay(due, last + max(1, round(last / (len(due) - 1))), loop)


class Replay(NamedTuple):
    """A trace as it is played: due times in ns from the beginning on."""

    due: NDArray[np.int64]
    span_ns: int  # until the request after the last one would be due, after one mean gap
    loop: bool

    @property
    def loop_ns(self) -> int | None:
        return self.span_ns if self.loop else None

    @property
    def rate(self) -> float:
        """Requests per second on average."""
        return len(self.due) / self.span_ns * SECOND


def read(path: Any) -> Trace:
    """The trace in a file. Raises SpecError."""
    hint = "a trace is a CSV file with a time in each line"
    if not isinstance(path, str):
        raise SpecError(f"{path!r} is not the name of a file", hint)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            found = np.fromiter(_times(path, csv.reader(file)), np.int64)
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}", hint) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path}: {error}", hint) from error
    if len(found) < 2 or found[-1] == found[0]:
        raise SpecError(f"{path}: a trace needs two different times", hint)
    return Trace(path, found - found[0])


def _times(path: str, rows: Iterator[list[str]]) -> Iterator[int]:
    column = before = None
    for line, row in enumerate(rows, 1):
        if not any(row):
            continue
        if column is None:
            column = 0
            if all(_time(cell) is None for cell in row):
                heads = [cell.strip().lower() for cell in row]
                column = next((heads.index(name) for name in _NAMES if name in heads), 0)
                continue
        text = row[column] if column < len(row) else ""
        time = _time(text)
        if time is None:
            hint = "write seconds (12.5) or a date (2026-01-31T12:00:00.5)"
            raise SpecError(f"{path} line {line}: {text!r} is not a time", hint)
        if before is not None and time < before:
            hint = "sort the file by time"
            raise SpecError(f"{path} line {line}: {text!r} is before the line above", hint)
        before = time
        yield time


def _time(text: str) -> int | None:
    """Nanoseconds; of a date since 1970, without a zone taken as UTC. None: it is no time."""
    text = text.strip()
    try:
        number = Decimal(text) * SECOND
        return round(number) if abs(number) < _MOST else None
    except InvalidOperation:  # also of comparing with NaN
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    offset = moment.utcoffset() or timedelta(0)
    return (
        (moment.replace(tzinfo=None) - datetime(1970, 1, 1) - offset)
        // timedelta(microseconds=1)
        * US
    )
