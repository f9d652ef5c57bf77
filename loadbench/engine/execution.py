"""Runs one batch: stack the rows, run the model, check what came out.

A batch that fails is halved until the request that the model cannot bear is alone; the others get
their answers. A batch that does not fit into memory is halved likewise.
"""

import time
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from loadbench.engine.backends import Model
from loadbench.engine.datatypes import NUMPY
from loadbench.engine.job import Job, stacked
from loadbench.engine.tensors import Array, Refused
from loadbench.errors import SpecError


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

    @property
    def compute_ns(self) -> int:
        return self.input_ns + self.infer_ns


def execute(model: Model, jobs: Sequence[Job], dispatched: int) -> list[Piece]:
    """Every job of the batch is in exactly one piece, with outputs or with a fault."""
    piece = _attempt(model, jobs, dispatched)
    if piece.fault is None or len(jobs) == 1:
        return [piece]
    middle = len(jobs) // 2
    parts = execute(model, jobs[:middle], dispatched)
    parts += execute(model, jobs[middle:], dispatched)
    if piece.memory:  # the batcher must learn at which size
        parts.append(piece._replace(jobs=()))
    return parts


def _attempt(model: Model, jobs: Sequence[Job], dispatched: int) -> Piece:
    rows = sum([job.rows for job in jobs])
    stacked = dispatched
    outputs: dict[str, Array] = {}
    memory = False
    try:
        arrays = stack(model, jobs)
        stacked = time.monotonic_ns()
        outputs = model.run(arrays)
        fault = _fault(model, outputs, rows)
    except MemoryError as error:
        fault, memory = Refused(500, f"out of memory: {error}"), True
    except SpecError as error:
        fault = Refused(400, error.message)
    except Exception as error:  # noqa: BLE001  whatever a model raises is the model's fault
        traceback.print_exc()
        fault = Refused(500, f"the model failed: {type(error).__name__}: {error}")
    ran = time.monotonic_ns()
    return Piece(jobs, rows, stacked - dispatched, ran - stacked, ran, outputs, fault, memory)


def stack(model: Model, jobs: Sequence[Job]) -> dict[str, Array]:
    """The rows of all jobs in order. Always fresh arrays: aligned, contiguous, writable."""
    if not model.batched:
        return {name: array.copy() for name, array in jobs[0].arrays.items()}
    return stacked(jobs)


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
