"""How batches form, from a server's statistics: sizes in groups, close reasons, cost per row."""

from collections.abc import Mapping
from typing import NamedTuple

from loadbench import units
from loadbench.model import BatchSize, Server
from loadbench.ride import WHY_CLOSED

_ENOUGH = 20  # batches of a size before its cost is worth a word


class Group(NamedTuple):
    """Batches of sizes low … high together."""

    low: int
    high: int
    full: bool
    sizes: BatchSize

    @property
    def name(self) -> str:
        if self.full:
            return f"{self.high} full"
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


def groups(server: Server, most: int = 64) -> list[Group]:
    """By powers of two, the full size for itself; without the empty ones at both ends, and
    neighbours together where there would be more than `most`. A size that was not the full one all
    the time is not called so."""
    full = server.max_batch
    always = full is not None and max(server.rooms, default=0) <= full
    found = [
        Group(low, high, always and low == full, _summed(server.sizes, low, high))
        for low, high in _edges(max(server.sizes, default=0), full)
    ]
    while found and not found[0].sizes.batches:
        found.pop(0)
    while found and not found[-1].sizes.batches and not found[-1].full:
        found.pop()
    while len(found) > max(2, most):
        pairs = range(len(found) - (2 if found[-1].full else 1))
        at = min(pairs, key=lambda at: found[at].sizes.batches + found[at + 1].sizes.batches)
        low, high = found[at].low, found[at + 1].high
        found[at : at + 2] = [Group(low, high, False, _summed(server.sizes, low, high))]
    return found


def _edges(largest: int, full: int | None) -> list[tuple[int, int]]:
    """1, 2, 3-4, 5-8, 9-16 …, and the full size, which ends the one before it."""
    edges, low, high = [], 1, 1
    while low <= largest:
        edges.append((low, high))
        low, high = high + 1, high * 2
    if full is None:
        return edges
    below = [(low, min(high, full - 1)) for low, high in edges if low < full]
    beyond = [(max(low, full + 1), high) for low, high in edges if high > full and largest > full]
    return [*below, (full, full), *beyond]


def _summed(sizes: Mapping[int, BatchSize], low: int, high: int) -> BatchSize:
    found = [size for rows, size in sizes.items() if low <= rows <= high]
    queue = [size.queue_ns for size in found if size.queue_ns is not None]
    waits = [size.batch_wait_ns for size in found if size.batch_wait_ns is not None]
    return BatchSize(
        batches=sum(size.batches for size in found),
        requests=sum(size.requests for size in found),
        queue_ns=sum(queue) if queue else None,
        batch_wait_ns=sum(waits) if waits else None,
        compute_ns=sum(size.compute_ns for size in found),
    )


def rows_of(server: Server, low: int = 1, high: int = 1 << 30) -> int:
    """Rows that ran in batches of these sizes."""
    return sum(at * size.batches for at, size in server.sizes.items() if low <= at <= high)


def median_size(server: Server) -> int | None:
    total = sum(size.batches for size in server.sizes.values())
    seen = 0
    for rows in sorted(server.sizes):
        seen += server.sizes[rows].batches
        if 2 * seen >= total:
            return rows
    return None


def reasons(server: Server) -> list[tuple[str, str, int]]:
    """(reason, words, batches), the most frequent first."""
    counted = [(reason, sum(sizes.values())) for reason, sizes in server.closed.items()]
    limit = server.room_text if server.rooms else server.max_batch
    full = f"full ({limit})" if limit else "full"
    return [
        (reason, full if reason == "full" else WHY_CLOSED.get(reason, reason), number)
        for reason, number in sorted(counted, key=lambda item: -item[1])
        if number
    ]


def per_row_ms(rows: int, size: BatchSize) -> float | None:
    done = rows * size.batches
    return size.compute_ns / done / units.MS if done else None


def hint(server: Server) -> str:
    """A sentence where the numbers support one, with its numbers; else nothing."""
    known = [rows for rows, size in server.sizes.items() if size.batches >= _ENOUGH]
    if len(known) < 2:
        return ""
    largest = max(known)
    best = per_row_ms(largest, server.sizes[largest])
    rows = rows_of(server)
    total = sum(size.compute_ns for size in server.sizes.values()) / units.MS
    if not best or not rows:
        return ""
    now = total / rows
    share = server.sizes[largest].batches / max(1, server.batches or 0)
    if largest == server.max_batch and share > 0.5 and not server.rooms:
        text = units.significant(1000 / best * (server.instances or 1))
        return f"{units.percent(share)}% of batches are full: the limit is near {text} rows/s."
    if now > best * 1.2:
        return (
            f"A row costs {units.significant(now)} ms on average, {units.significant(best)} ms in "
            f"batches of {largest}: up to {now / best:.1f}× more fits."
        )
    return ""
