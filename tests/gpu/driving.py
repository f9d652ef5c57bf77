"""A model behind the engine's batcher, asked without a network: so many requests are always open.

The network is left out since what it takes is measured elsewhere, and ten thousand pictures a
second are beyond it.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from loadbench.engine.assembly import batching
from loadbench.engine.backends.streams import Streams
from loadbench.engine.backends.torch_run import TorchModel
from loadbench.engine.batcher import Batcher, Terms
from loadbench.engine.job import Job, Served
from loadbench.engine.place import places
from loadbench.engine.statistics import Account
from loadbench.engine.tensors import Refused
from loadbench.engine.warmup import warm_up
from loadbench.spec import EngineSpec

PICTURES = 64


class Driven(NamedTuple):
    """What a model did behind the batcher."""

    rate: float  # rows/s
    gap_us: float  # median of the card's idle time between two full batches; nan: there were none
    answers: dict[int, NDArray[Any]]  # of each picture the last one
    failed: list[str]
    most: int  # rows that a batch may have at the end


def pictures(number: int = PICTURES) -> NDArray[Any]:
    return np.random.default_rng(1).integers(0, 256, (number, 1, 3, 224, 224), np.uint8)


async def drive(
    model: TorchModel,
    settings: EngineSpec,
    seconds: float,
    ready: Callable[[], object] = lambda: None,
) -> Driven:
    """Four full batches of requests are open at any time. `ready` is called after the warm-up."""
    rule = batching(model, settings)
    found = places([model], settings, rule.max_batch)
    warm_up([model], found, rule.max_batch)
    ready()
    sys.setswitchinterval(0.0005)  # as the server does
    account = Account()
    terms = Terms(rule, 100_000, 1 << 40, None, found)
    loop = asyncio.get_running_loop()
    batcher = Batcher([model], terms, found[0].service, account, loop)
    batcher.start()
    crowd = _Crowd(batcher, model.inputs[0].name, model.outputs[0].name)
    for at in range(4 * rule.max_batch):
        crowd.ask(at % PICTURES)
    await asyncio.sleep(1.0)
    begun, before = time.monotonic(), crowd.rows
    await asyncio.sleep(seconds)
    rate = (crowd.rows - before) / (time.monotonic() - begun)
    crowd.stopped = True
    while batcher.open:
        await asyncio.sleep(0.01)
    assert batcher.stop(10)
    gaps = [batch.between_ns for batch in account.recent() if batch.rows == rule.max_batch]
    gap_us = statistics.median(gaps) / 1000 if gaps else float("nan")
    return Driven(rate, gap_us, crowd.answers, crowd.failed, found[0].room.most)


class _Crowd:
    """Asks again as soon as it is answered, until it is stopped."""

    def __init__(self, batcher: Batcher, given: str, wanted: str) -> None:
        self._batcher = batcher
        self._given, self._wanted = given, wanted
        self._pictures = pictures()
        self.rows = 0
        self.stopped = False
        self.answers: dict[int, NDArray[Any]] = {}
        self.failed: list[str] = []

    def ask(self, number: int) -> None:
        def reply(result: Served | Refused) -> bool:
            good = isinstance(result, Served)
            if isinstance(result, Served):
                self.rows += 1
                self.answers[number] = result.outputs[self._wanted]
            else:
                self.failed.append(result.message)
            if not self.stopped:
                self.ask(number)
            return good

        picture = self._pictures[number]
        job = Job({self._given: picture}, 1, (picture.shape[1:],), reply)
        job.size_bytes = picture.nbytes
        self._batcher.submit(job, None)


def bare(model: TorchModel, rows: int, seconds: float) -> float:
    """Rows/s of a loop that does nothing else, its inputs on the card already: with the model's
    graphs if it has some."""
    streams = model.launcher
    assert isinstance(streams, Streams)
    numbers = np.resize(pictures()[:, 0], (rows, 3, 224, 224))
    tensors = {model.inputs[0].name: torch.from_numpy(numbers).to(model.device)}

    def batch() -> None:
        if streams.recorded is None or streams.recorded.replayed(tensors) is None:
            model.computed(tensors)

    with torch.cuda.stream(streams.compute), torch.inference_mode():
        for _ in range(5):
            batch()
        streams.compute.synchronize()
        begun, done = time.monotonic(), 0
        while time.monotonic() - begun < seconds:
            for _ in range(10):
                batch()
            streams.compute.synchronize()
            done += 10 * rows
    return done / (time.monotonic() - begun)
