"""Answers kept by the content of what was asked, the least recently used given up first.

One cache belongs to one version of a model as it is served, so another version, or the same one
loaded anew, begins with an empty one; its name and version are part of every key besides. What is
compared is a cryptographic hash of the inputs' bytes, so that no client can make two requests meet.
Kept are all outputs of a request, whatever it chose of them; faults never are. Everything runs on
the event loop's thread.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from loadbench.engine.job import Job, Served
from loadbench.engine.statistics import Account
from loadbench.engine.tensors import Array, Refused, memory_of, to_bytes
from loadbench.inside import Cache

Reply = Callable[[Served | Refused], bool]
ENTRY_BYTES = 512  # what an entry costs beside its arrays: key, dict, headers of the arrays


class ResponseCache:
    """The answers of one version of a model, `limit` bytes of them at most."""

    def __init__(self, limit: int, title: str, inputs: Sequence[str]) -> None:
        """`title` is the model's name and version."""
        self._limit = limit
        self._inputs = tuple(inputs)
        self._begun = hashlib.blake2b(title.encode(), digest_size=32)
        self._entries: OrderedDict[bytes, tuple[dict[str, Array], int]] = OrderedDict()
        self._bytes = 0

    def answered(self, job: Job, account: Account) -> bool:
        """Whether the job has got its answer from here; if not, its answer will be kept. Either is
        counted in the books of the version."""
        begun = job.arrived = time.monotonic_ns()  # anew when it has to wait
        key = self._key(job.arrays)
        entry = self._entries.get(key)
        if entry is None:
            account.missed(time.monotonic_ns() - begun)
            job.reply = partial(self._keep, key, job.reply, account)
            return False
        self._entries.move_to_end(key)
        job.taken = True  # it never waits, and cannot be taken back
        answered = job.reply(Served(entry[0], 0, 0, 0, 0, cached=True))
        account.hit(job, answered, time.monotonic_ns())
        return True

    def told(self, account: Account) -> Cache:
        """What it holds, and what it has done by these books."""
        return Cache(account.hits, account.misses, len(self._entries), self._bytes, self._limit)

    def _key(self, arrays: Mapping[str, Array]) -> bytes:
        """Shapes and bytes, in the order of the model's inputs."""
        found = self._begun.copy()
        for name in self._inputs:
            array = arrays[name]
            found.update(repr(array.shape).encode())
            if array.dtype.hasobject:
                found.update(to_bytes(array, "BYTES"))  # each text with its length
            else:
                found.update(np.ascontiguousarray(array).data)
        return found.digest()

    def _keep(self, key: bytes, reply: Reply, account: Account, result: Served | Refused) -> bool:
        """Answers whoever asked, and keeps the answer if it is one."""
        answered = reply(result)
        if isinstance(result, Served) and key not in self._entries:
            begun = time.monotonic_ns()
            self._add(key, result.outputs)
            account.miss_ns += time.monotonic_ns() - begun
        return answered

    def _add(self, key: bytes, outputs: Mapping[str, Array]) -> None:
        size = ENTRY_BYTES + sum(map(memory_of, outputs.values()))
        if size > self._limit:
            return
        # Copies: a view would keep the whole batch that it was part of
        self._entries[key] = {name: array.copy() for name, array in outputs.items()}, size
        self._bytes += size
        while self._bytes > self._limit:
            _, (_, freed) = self._entries.popitem(last=False)
            self._bytes -= freed
