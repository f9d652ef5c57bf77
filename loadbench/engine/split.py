"""A request of more rows than a batch holds: asked in parts, answered as one.

The parts are batched on their own, so that small requests may ride with the last of them. The first
part that fails fails the whole, and what of it still waits is withdrawn.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from loadbench.engine.job import Arrays, Job, Served
from loadbench.engine.tensors import Refused

MOST_BATCHES = 16  # of one request, where the settings do not say how many rows it may have

Reply = Callable[[Served | Refused], bool]


class Whole:
    """A request in parts of at most `most` rows. Not safe among threads: it is asked and answered
    on the event loop's."""

    def __init__(self, job: Job, most: int, withdraw: Callable[[Job], None]) -> None:
        """`job` is the request as one; `withdraw` takes a part that still waits out of the queue.

        Its parts, in order, are `parts`.
        """
        self._reply: Reply = job.reply
        self._withdraw = withdraw
        self._over = False
        starts = range(0, job.rows, most)
        self._served: list[Served | None] = [None] * len(starts)
        self._heard = [False] * len(starts)
        self._left = len(starts)
        self.parts = [self._part(job, number, at, most) for number, at in enumerate(starts)]

    def _part(self, job: Job, number: int, at: int, most: int) -> Job:
        rows = min(most, job.rows - at)
        arrays = {name: array[at : at + rows] for name, array in job.arrays.items()}
        part = Job(arrays, rows, job.shapes, partial(self._answered, number))
        part.size_bytes = job.size_bytes * rows // job.rows
        part.priority = job.priority
        part.patience_ns = job.patience_ns
        return part

    def withdraw(self) -> None:
        """Nobody wants the answer any more."""
        self._over = True
        for number, part in enumerate(self.parts):
            if not self._heard[number]:
                self._withdraw(part)

    def _answered(self, number: int, result: Served | Refused) -> bool:
        """What became of a part; False if that fails the whole."""
        self._heard[number] = True
        if self._over:
            return not isinstance(result, Refused)
        if isinstance(result, Refused):
            self.withdraw()
            self._reply(result)
            return False
        self._served[number] = result
        self._left -= 1
        if self._left:
            return True
        self._over = True
        return self._reply(_whole([served for served in self._served if served is not None]))


def joined(parts: Sequence[Arrays], hint: str) -> Arrays | Refused:
    """The outputs of all rows; refused, with the hint, where parts have rows of other shapes."""
    outputs: Arrays = {}
    for name in parts[0]:
        arrays = [part[name] for part in parts]
        if len({array.shape[1:] for array in arrays}) > 1:
            return Refused(
                500,
                f"output {name!r} has rows of different shapes in the parts that the request was "
                f"run in: {hint}",
            )
        outputs[name] = np.concatenate(arrays)
    return outputs


def _whole(parts: list[Served]) -> Served | Refused:
    """One answer: it waited until its first part began, and ran until its last part ended."""
    outputs = joined([part.outputs for part in parts], "send fewer rows, or raise engine.max_batch")
    if isinstance(outputs, Refused):
        return outputs
    first = min(parts, key=lambda part: part.queue_ns + part.batch_wait_ns)
    ended = max(part.queue_ns + part.batch_wait_ns + part.compute_ns for part in parts)
    compute = ended - first.queue_ns - first.batch_wait_ns
    size = max(part.size for part in parts)
    times = (first.queue_ns, first.batch_wait_ns, compute)
    return Served(outputs, *times, size, ride=first.ride)
