"""Which request comes next: drawn by weight before the run, then repeated."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from loadbench.load.answer import Kind
from loadbench.plan import RequestPlan
from loadbench.targets.wire import Prepared

_LENGTH = 4096

Deal = Callable[[], tuple[bytes, int, Kind]]  # the next request: bytes, their number, kind


def deal(requests: Sequence[RequestPlan], pools: Sequence[Sequence[Prepared]], seed: int) -> Deal:
    """Gives a request at each call: kinds by weight, within a kind its pool in order."""
    kinds = [
        Kind(index, request.name, pool[0].check)
        for index, (request, pool) in enumerate(zip(requests, pools, strict=True))
    ]
    turns = [itertools.cycle(pool) for pool in pools]
    weights = np.array([request.weight for request in requests])
    draw = np.random.Generator(np.random.PCG64([seed, len(requests)]))
    # whole rounds of the largest pool, so that none of it is left out
    length = _LENGTH * max(1, -(-max(map(len, pools)) // _LENGTH))
    deck = []
    for index in draw.choice(len(requests), length, p=weights / weights.sum()):
        data = next(turns[index]).data
        deck.append((data, len(data), kinds[index]))
    return itertools.cycle(deck).__next__
