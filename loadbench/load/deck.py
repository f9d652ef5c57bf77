"""Which request comes next: drawn by weight before the run, then repeated."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from loadbench.load.answer import Kind
from loadbench.plan import RequestPlan
from loadbench.targets import expected
from loadbench.targets.wire import Check, Prepared

_LENGTH = 4096
_MOST = 1 << 20  # cards are shared: each place takes 8 bytes

Card = tuple[bytes, int, Kind]  # a request: its bytes, their number, its kind
Deal = Callable[[], Card]  # the next one


def deal(
    requests: Sequence[RequestPlan],
    pools: Sequence[Sequence[Prepared]],
    seed: int,
    first: int = 0,
) -> Deal:
    """Gives a request at each call: kinds by weight, within a kind its pool in order. Those whose
    answers are to be compared with what is expected are drawn by the share that was asked for, and
    take the pool in order by themselves, so that each of it has its turn. `first` is the number of
    the first kind among all of the plan."""
    weights = np.array([request.weight for request in requests])
    weights = weights / weights.sum()
    shares = [_share(*pair) for pair in zip(requests, pools, strict=True)]
    draw = np.random.Generator(np.random.PCG64([seed, len(requests)]))
    length = _length(weights, shares, pools)
    order = draw.choice(len(requests), length, p=weights)
    hands = []
    for index, (request, pool) in enumerate(zip(requests, pools, strict=True)):
        number = int(np.count_nonzero(order == index))
        strict = draw.random(number) < shares[index]
        hands.append(_hand(first + index, request.name, pool, strict.tolist()))
    return itertools.cycle([next(hands[index]) for index in order.tolist()]).__next__


def turns(weights: Sequence[float]) -> tuple[int, ...]:
    """Whose turn it is, over and over: each of several by its weight, as evenly spread as can be
    (smooth weighted round robin, as nginx does it)."""
    if len(set(weights)) == 1:
        return tuple(range(len(weights)))
    credit, found = [0.0] * len(weights), []
    for _ in range(_LENGTH):
        credit = [has + weight for has, weight in zip(credit, weights, strict=True)]
        at = credit.index(max(credit))
        credit[at] -= sum(weights)
        found.append(at)
    return tuple(found)


def _share(request: RequestPlan, pool: Sequence[Prepared]) -> float:
    return 0.0 if pool[0].strict is None else expected.share(request)


def _length(
    weights: Iterable[float], shares: Sequence[float], pools: Sequence[Sequence[Prepared]]
) -> int:
    """So long that of each kind the whole pool comes, and is compared if any of it is: twice what
    that takes on average."""
    found = _LENGTH
    for weight, share, pool in zip(weights, shares, pools, strict=True):
        if len(pool) > 1:
            found = max(found, round(2 * len(pool) / (weight * (share or 1))))
    return min(found, _MOST)


def _hand(
    index: int, name: str, pool: Sequence[Prepared], strict: Sequence[bool]
) -> Iterator[Card]:
    """The pool of one kind in order, over and over. Answers that are checked alike share what is
    learned of them; those that are to be compared have a kind that learns nothing."""
    kinds: dict[Check, Kind] = {}

    def card(prepared: Prepared, check: Check) -> Card:
        kind = kinds.setdefault(check, Kind(index, name, check, prepared.statuses))
        return prepared.data, len(prepared.data), kind

    plain = itertools.cycle([card(prepared, prepared.check) for prepared in pool])
    careful = itertools.cycle([card(found, found.strict or found.check) for found in pool])
    for compared in strict:
        yield next(careful if compared else plain)
