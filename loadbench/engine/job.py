"""A request on its way through the batcher, and what becomes of it.

A front end hands over what a client asked (`Job`) and is told the outcome (`Ran`, or `Refused`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from loadbench.engine.datatypes import NUMPY
from loadbench.engine.protocol import Plan, arrays_of
from loadbench.engine.returns import Client
from loadbench.engine.tensors import Array, Refused

Arrays = dict[str, Array]


class Served(NamedTuple):
    """The outputs of one request's rows, and where its time went."""

    outputs: Arrays
    queue_ns: int
    batch_wait_ns: int
    compute_ns: int
    size: int  # rows of the batch it was part of
    cached: bool = False  # it was part of none: the answer had been kept
    ride: bytes = b""  # of that batch, as clients are told (loadbench.ride)


Reply = Callable[[Served | Refused], bool]


class Ran:
    """What came of all requests that ran at once."""

    __slots__ = ("alone", "compute_ns", "forms", "outputs", "ride", "rows")

    def __init__(
        self, outputs: Arrays, rows: int, compute_ns: int, alone: bool, ride: bytes = b""
    ) -> None:
        self.outputs = outputs  # of all rows
        self.rows = rows
        self.compute_ns = compute_ns
        self.alone = alone  # one request, which may have no batch axis
        self.ride = ride
        self.forms: dict[int, Any] = {}  # what answers have in common, by id() of their plan

    def outputs_of(self, at: int, rows: int) -> Arrays:
        """Those of `rows` rows from `at` on."""
        if self.alone:
            return self.outputs
        return {name: array[at : at + rows] for name, array in self.outputs.items()}


class Job:
    """One request, from its last byte to its answer.

    `reply` is called with the outcome and gives False if no good answer could be made after all. A
    front end may make its own kind of job that answers a whole batch cheaper (`served`); it must
    then heed a `reply` that someone has put in its way. There are many of these a second, so what
    most need not set stands on the class.
    """

    arrived = 0
    deadline = 0
    timeout_ns: int | None = None  # its own limit, if it names one
    patience_ns = 0  # how long its client waits at most, which only ever shortens the time it has
    priority = 0  # as asked for: 1 is the most urgent, 0 says none
    level = 1  # what the batcher makes of it
    order = 0  # served in rising order
    size_bytes = 0
    free_mark = 0  # the batcher's clock of free instances when it arrived
    queue_ns = 0
    batch_wait_ns = 0
    cancelled = False
    taken = False  # left the queue: in a batch, or given up
    rows = 1
    shapes: tuple[tuple[int, ...], ...] = ()  # requests with equal shapes can share a batch
    plan: Plan | None = None
    tail: bytes | memoryview | None = None  # inputs as they came, all of the plan's slots plain
    _arrays: Arrays | None = None
    _reply: Reply | None = None

    def __init__(
        self,
        arrays: Arrays,
        rows: int,
        shapes: tuple[tuple[int, ...], ...],
        reply: Reply,
    ) -> None:
        self._arrays = arrays
        self.rows = rows
        self.shapes = shapes
        self._reply = reply

    @property
    def arrays(self) -> Arrays:
        """The inputs. They may be read-only views on what was received."""
        if self._arrays is None:
            assert self.plan is not None
            assert self.tail is not None
            self._arrays = arrays_of(self.plan, memoryview(self.tail))
        return self._arrays

    @arrays.setter
    def arrays(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self.tail = None

    @property
    def client(self) -> Client | None:
        """Who asked, if that can be told."""
        return None

    @property
    def reply(self) -> Reply:
        """What is called with the outcome."""
        assert self._reply is not None
        return self._reply

    @reply.setter
    def reply(self, reply: Reply) -> None:
        self._reply = reply

    def served(self, ran: Ran, at: int) -> bool:
        """Its rows begin at `at`. False: no good answer could be made of them."""
        own = ran.outputs_of(at, self.rows)
        times = (self.queue_ns, self.batch_wait_ns, ran.compute_ns)
        return self.reply(Served(own, *times, ran.rows, ride=ran.ride))


def shapes_of(job: Job) -> dict[str, tuple[int, ...]]:
    """The shape of each input, without the batch axis."""
    if job.tail is None or job.plan is None:
        return {name: array.shape[1:] for name, array in job.arrays.items()}
    return {slot.name: tuple(slot.shape[1:]) for slot in job.plan.slots}


def stacked(jobs: Sequence[Job], out: Mapping[str, Array] | None = None) -> Arrays:
    """The rows of all jobs in order. Fresh arrays: aligned, contiguous, writable; or the first rows
    of `out`, contiguous arrays of the inputs' types that have room for them.

    Inputs that are still as they came are put together as bytes: that is one copy of each and
    nothing else, where stacking arrays costs a microsecond a request.
    """
    if out is not None:
        return _stacked_into(jobs, out)
    tails = [job.tail for job in jobs]
    plan = jobs[0].plan
    if plan is None or None in tails:
        return {name: np.concatenate([job.arrays[name] for job in jobs]) for name in jobs[0].arrays}
    found: Arrays = {}
    for index, slot in enumerate(plan.slots):
        parts = tails if len(plan.slots) == 1 else [_part(job, index) for job in jobs]
        memory = bytearray().join(parts)  # type: ignore[arg-type]
        found[slot.name] = np.frombuffer(memory, NUMPY[slot.datatype]).reshape(-1, *slot.shape[1:])
    return found


def _stacked_into(jobs: Sequence[Job], out: Mapping[str, Array]) -> Arrays:
    """One copy, which numpy makes without the interpreter's lock."""
    rows = sum([job.rows for job in jobs])
    found = {name: array[:rows] for name, array in out.items()}
    plan = jobs[0].plan
    if plan is None or any(job.tail is None for job in jobs):
        for name, array in found.items():
            np.concatenate([job.arrays[name] for job in jobs], out=array)
        return found
    for index, slot in enumerate(plan.slots):
        parts = [np.frombuffer(_part(job, index), np.uint8) for job in jobs]
        np.concatenate(parts, out=found[slot.name].reshape(-1).view(np.uint8))
    return found


def _part(job: Job, index: int) -> bytes | memoryview:
    assert job.plan is not None
    assert job.tail is not None
    slot = job.plan.slots[index]
    return job.tail[slot.start : slot.end]
