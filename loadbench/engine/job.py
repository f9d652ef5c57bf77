"""A request on its way through the batcher, and what becomes of it."""

from collections.abc import Callable
from typing import NamedTuple

from loadbench.engine.tensors import Array, Refused


class Served(NamedTuple):
    """The outputs of one request's rows, and where its time went."""

    outputs: dict[str, Array]
    queue_ns: int
    batch_wait_ns: int
    compute_ns: int
    size: int  # rows of the batch it was part of


class Job:
    """One request, from its last byte to its answer. `reply` gives False if no good answer could
    be made after all."""

    __slots__ = (
        "arrays", "arrived", "batch_wait_ns", "cancelled", "deadline", "free_mark", "level",
        "order", "priority", "queue_ns", "reply", "rows", "shapes", "size_bytes", "taken",
    )  # fmt: skip

    def __init__(
        self,
        arrays: dict[str, Array],
        rows: int,
        shapes: tuple[tuple[int, ...], ...],
        reply: Callable[[Served | Refused], bool],
    ) -> None:
        self.arrays = arrays
        self.rows = rows
        self.shapes = shapes
        self.reply = reply
        self.arrived = 0
        self.deadline = 0
        self.priority = 0  # as asked for: 1 is the most urgent, 0 says none
        self.level = 1  # what the batcher makes of it
        self.order = 0  # served in rising order
        self.size_bytes = 0
        self.free_mark = 0  # the batcher's clock of free instances when it arrived
        self.queue_ns = 0
        self.batch_wait_ns = 0
        self.cancelled = False
        self.taken = False  # left the queue: in a batch, or given up
