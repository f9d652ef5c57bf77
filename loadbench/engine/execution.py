"""Runs one batch: stack the rows, run the model, check what came out.

A batch that fails is halved until the request that the model cannot bear is alone; the others get
their answers. One bad request among n costs 2·log₂(n) further runs, and if all are bad the model
runs 2·n − 1 times. A batch that does not fit into memory is halved likewise, down to single rows,
and each of those that still does not fit runs again with the device to itself: a request fails only
if one of its rows does not fit by itself. Where the device likes certain sizes, a batch is padded
to the next one; nobody gets a padding row.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np

from loadbench.engine.backends import Model
from loadbench.engine.buckets import Sizes, padded
from loadbench.engine.datatypes import NUMPY
from loadbench.engine.device.broken import fault_of
from loadbench.engine.job import Job, stacked
from loadbench.engine.split import joined
from loadbench.engine.tensors import Array, Refused
from loadbench.errors import LoadbenchError, SpecError


class Piece(NamedTuple):
    """What ran at once: a batch, or the part of one that was left after a fault."""

    jobs: Sequence[Job]
    rows: int
    input_ns: int  # from the dispatch of the batch until its rows were stacked
    infer_ns: int
    ended: int
    outputs: dict[str, Array]  # of all rows
    fault: Refused | None = None
    memory: bool = False  # the fault was a lack of memory
    padded: int = 0  # rows that were added
    broken: str = ""  # the fault was the device's, which said this

    @property
    def compute_ns(self) -> int:
        return self.input_ns + self.infer_ns


class Failing(NamedTuple):
    """What is done about a batch that fails."""

    tell: Callable[[Sequence[Job], Refused, BaseException | None], object]  # who failed for what
    together: bool = False  # as a whole and at once, unless it is for want of memory
    # Has the device to itself inside, or False: what runs beside has not ended in time
    alone: Callable[[], AbstractContextManager[bool]] | None = None


class Tried(NamedTuple):
    """What became of a batch, or a part of one, and what was raised if that is to be told."""

    piece: Piece
    error: BaseException | None = None


def execute(
    model: Model, jobs: Sequence[Job], dispatched: int, failing: Failing, sizes: Sizes = ()
) -> list[Piece]:
    """Every job of the batch is in exactly one piece, with outputs or with a fault. Pieces without
    jobs tell at which sizes memory was lacking."""
    return settled(model, _attempt(model, jobs, dispatched, sizes), dispatched, failing, sizes)


def settled(
    model: Model, tried: Tried, dispatched: int, failing: Failing, sizes: Sizes = ()
) -> list[Piece]:
    """The pieces of a batch that was tried already: parts of it run again if that failed."""
    piece, error = tried
    jobs = piece.jobs
    if piece.fault is None:
        return [piece]
    if piece.memory and len(jobs) == 1 and piece.rows > 1 and model.batched:
        parts = _halves(model, jobs[0], dispatched, failing, sizes)
    elif piece.memory and len(jobs) == 1 and failing.alone is not None:
        with failing.alone() as free:
            again = _attempt(model, jobs, dispatched, sizes) if free else _crowded(piece)
        parts = settled(model, again, dispatched, failing._replace(alone=None), sizes)
    elif len(jobs) == 1 or (failing.together and not piece.memory):
        failing.tell(jobs, piece.fault, error)
        return [piece]
    else:
        middle = len(jobs) // 2
        parts = execute(model, jobs[:middle], dispatched, failing, sizes)
        parts += execute(model, jobs[middle:], dispatched, failing, sizes)
    if piece.memory:  # the batcher must learn at which size
        parts.append(piece._replace(jobs=()))
    return parts


def _crowded(piece: Piece) -> Tried:
    """What is told instead of a run alone that did not come about. The lack of memory is told by
    the piece that follows."""
    text = f"{piece.fault}; what else runs on the device did not end in time"
    return Tried(piece._replace(fault=Refused(500, text), memory=False))


def _halves(model: Model, job: Job, dispatched: int, failing: Failing, sizes: Sizes) -> list[Piece]:
    """One request in parts, for lack of memory: a piece with all of its rows, and those without
    jobs that its parts left."""
    middle = job.rows // 2
    quiet = failing._replace(tell=lambda *_: None)  # the request is told, not its parts
    found: list[Piece] = []
    for rows in (slice(0, middle), slice(middle, job.rows)):
        arrays = {name: array[rows] for name, array in job.arrays.items()}
        part = Job(arrays, len(range(job.rows)[rows]), job.shapes, lambda _: True)
        found += execute(model, (part,), dispatched, quiet, sizes)
        if any(piece.fault and piece.jobs for piece in found):
            break
    parts = [piece for piece in found if piece.jobs]
    whole = parts[-1]
    if whole.fault is None:
        outputs = joined([piece.outputs for piece in parts], "send fewer rows")
        if isinstance(outputs, Refused):
            whole = whole._replace(fault=outputs, outputs={})
        else:
            whole = whole._replace(outputs=outputs)
    if whole.fault is not None:
        failing.tell([job], whole.fault, None)
    whole = whole._replace(
        jobs=(job,),
        rows=job.rows,
        input_ns=parts[0].input_ns,
        infer_ns=whole.ended - dispatched - parts[0].input_ns,
        memory=False,  # it is told by the pieces that follow
        padded=sum(piece.padded for piece in parts),
    )
    return [whole, *(piece for piece in found if not piece.jobs)]


def _attempt(model: Model, jobs: Sequence[Job], dispatched: int, sizes: Sizes) -> Tried:
    rows = sum([job.rows for job in jobs])
    more = padded(sizes, rows) - rows if sizes else 0
    stacked = dispatched
    outputs: dict[str, Array] = {}
    memory = False
    raised: BaseException | None = None
    try:
        arrays = stack(model, jobs, more)
        stacked = time.monotonic_ns()
        outputs, fault = checked(model, model.run(arrays), rows, more)
    except BaseException as error:  # noqa: BLE001  whatever a model raises is the model's fault
        fault, memory, raised = blamed(error)
    ran = time.monotonic_ns()
    took = (stacked - dispatched, ran - stacked)
    piece = Piece(jobs, rows, *took, ran, outputs, fault, memory, more, fault_of(raised))
    return Tried(piece, raised)


def blamed(error: BaseException) -> tuple[Refused, bool, BaseException | None]:
    """What a client is told of a run that failed, whether it was for want of memory, and the error
    if the log is to have it."""
    if isinstance(error, MemoryError):
        return Refused(500, f"out of memory: {error}"), True, None
    if isinstance(error, SpecError):
        return Refused(400, error.message), False, None
    if isinstance(error, LoadbenchError):  # of code around the model
        return Refused(500, error.message), False, error
    return Refused(500, f"the model failed: {type(error).__name__}: {error}"), False, error


def checked(
    model: Model, outputs: dict[str, Array], rows: int, more: int
) -> tuple[dict[str, Array], Refused | None]:
    """The outputs without the `more` rows that were added, and what is wrong with them."""
    fault = _fault(model, outputs, rows + more)
    if more and fault is None:
        outputs = {name: array[:rows] for name, array in outputs.items()}
    return outputs, fault


def stack(
    model: Model, jobs: Sequence[Job], more: int = 0, out: Mapping[str, Array] | None = None
) -> dict[str, Array]:
    """The rows of all jobs in order, and `more` of them: one of theirs again, since a row of zeros
    may be one that the model does not bear. Fresh arrays: aligned, contiguous, writable; or `out`,
    which has room for just these rows."""
    if not model.batched:
        return {name: array.copy() for name, array in jobs[0].arrays.items()}
    if more and (single := next((job for job in jobs if job.rows == 1), None)):
        return stacked([*jobs, *[single] * more], out)
    found = stacked(jobs, out)
    if more:
        for name, array in found.items():
            if out is not None:
                out[name][-more:] = array[-1:]
            else:
                found[name] = np.concatenate([array, np.repeat(array[-1:], more, axis=0)])
    return found


def _fault(model: Model, outputs: dict[str, Array], rows: int) -> Refused | None:
    """A model that gives other outputs than it promised would answer with someone else's rows."""
    for tensor in model.outputs:
        array = outputs.get(tensor.name)
        if array is None:
            return Refused(500, f"the model gave no output {tensor.name!r}")
        if model.batched and (array.ndim == 0 or len(array) != rows):
            return Refused(
                500, f"output {tensor.name!r} has shape {list(array.shape)} for {rows} rows"
            )
        if array.dtype != NUMPY[tensor.datatype]:
            return Refused(500, f"output {tensor.name!r} is {array.dtype}, not {tensor.datatype}")
    return None
