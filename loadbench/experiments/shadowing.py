"""The same requests to two targets at the same time, and how far their answers lie apart.

What is sent is what the load would send: the bodies of the scenario, drawn by its seed, in an order
drawn by its seed, at its arrivals. Each goes to both at once, from two threads that wait for each
other; a client of ours in Python is not what latencies are measured with, so none are told. What
both are too far behind for is left out and counted.
"""

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, cycle
from time import monotonic_ns, sleep
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from loadbench.environment import hidden
from loadbench.errors import TargetError
from loadbench.judge.answers import compared
from loadbench.judge.session import Answers
from loadbench.model import Tensor
from loadbench.plan import Endpoint, kinds, told_to
from loadbench.printable import printable
from loadbench.runner.target import Target
from loadbench.shape import Phase, arrivals
from loadbench.spec import Spec
from loadbench.targets.ask import Asker, Exchange
from loadbench.targets.datatypes import floats
from loadbench.targets.inputs import prepare
from loadbench.targets.speech import speech
from loadbench.targets.wire import BadAnswer, Prepared
from loadbench.units import SECOND

_HANDS = 16  # pairs of requests under way at most
_BEHIND = 64  # that may wait for a hand

Pair = tuple[Prepared, Prepared]


class Comparer:
    """What came of the pairs so far. Called from many threads."""

    def __init__(
        self, endpoints: tuple[Endpoint, Endpoint], told: Sequence[Mapping[str, str]]
    ) -> None:
        self._endpoints = endpoints
        self._told = told  # what each was sent, whose secrets some servers repeat
        self._lock = threading.Lock()
        self.found = Answers(0, 0, (0, 0), 0, 0, 0, 0, 0.0, 0.0)

    def take(self, requests: Pair, answers: Sequence[Exchange | str]) -> None:
        """One request as both answered it; a text says why there was no answer."""
        asked = zip(requests, answers, self._told, strict=True)
        faults = [hidden(_fault(request, answer), told) for request, answer, told in asked]
        a, b = answers
        if any(faults) or isinstance(a, str) or isinstance(b, str):
            told = [f"{n}: {fault}" for n, fault in zip("AB", faults, strict=True) if fault]
            with self._lock:
                failed = tuple(n + bool(f) for n, f in zip(self.found.failed, faults, strict=True))
                self._add(
                    failed=(failed[0], failed[1]), first=f"{requests[0].name}: {', '.join(told)}"
                )
            return
        rows, changed, absolute, relative, shape = self._apart(a, b)
        first = ""
        if changed or shape:
            what = "another shape" if shape else f"{changed} of {rows} rows have another result"
            first = f"{requests[0].name}: {what}"
        with self._lock:
            now = self.found
            self._add(
                compared=now.compared + 1,
                rows=now.rows + rows,
                changed=now.changed + changed,
                shapes=now.shapes + shape,
                absolute=_larger(now.absolute, absolute),
                relative=_larger(now.relative, relative),
                first=first,
            )

    def drop(self) -> None:
        with self._lock:
            self._add(dropped=self.found.dropped + 1)

    def _add(self, first: str = "", **changes: Any) -> None:
        self.found = replace(
            self.found, asked=self.found.asked + 1, first=self.found.first or first, **changes
        )

    def _apart(self, a: Exchange, b: Exchange) -> tuple[int, int, float, float, bool]:
        """Rows, those that changed, largest absolute and relative difference, another shape."""
        if not self._endpoints[0].tensors:
            other = a.body != b.body
            return 1, int(other), 0.0, 0.0, False
        old, new = (_values(*pair) for pair in zip(self._endpoints, (a, b), strict=True))
        if old.keys() != new.keys() or any(old[name].shape != new[name].shape for name in old):
            return 1, 1, np.inf, np.inf, True
        outputs = tuple(_plain(tensor) for tensor in self._endpoints[0].outputs)
        found = compared(old, new, outputs, batched=self._endpoints[0].batched)
        return found.rows, found.changed, found.absolute, found.relative, False


def _values(endpoint: Endpoint, answer: Exchange) -> dict[str, NDArray[Any]]:
    """The outputs that the metadata promise, bfloat16 as floats."""
    found = speech(endpoint).read(answer.headers, answer.body)
    kept = {tensor.name: found[tensor.name] for tensor in endpoint.outputs}
    for tensor in endpoint.outputs:
        if tensor.datatype == "BF16" and kept[tensor.name].dtype == np.uint16:
            kept[tensor.name] = floats(kept[tensor.name])
    return kept


def _plain(tensor: Tensor) -> Tensor:
    return replace(tensor, datatype="FP32") if tensor.datatype == "BF16" else tensor


def _larger(known: float | None, found: float) -> float | None:
    return None if known is None or np.isinf(found) else max(known, found)


def _fault(request: Prepared, answer: Exchange | str) -> str:
    if isinstance(answer, str):
        return answer
    if not 200 <= answer.status < 300:
        return f"HTTP {answer.status} {printable(answer.body[:100])}".strip()
    try:
        request.check(answer.headers, answer.body)
    except BadAnswer as error:
        return str(error)
    return ""


def beside(
    targets: tuple[Target, Target], specs: tuple[Spec, Spec], rate: float, seconds: int
) -> Answers:
    """Sends so many seconds of the scenario's load to both. Raises SpecError for requests that
    cannot be made."""
    told = [
        told_to([target.endpoint], kinds(spec)) for target, spec in zip(targets, specs, strict=True)
    ]
    comparer = Comparer((targets[0].endpoint, targets[1].endpoint), told)
    firsts = secrets.randbits(64)  # both are asked the same, and neither what it was asked before
    pools = [
        prepare(target.endpoint, kinds(spec), spec.load.seed, firsts=firsts)[0]
        for target, spec in zip(targets, specs, strict=True)
    ]
    load = specs[0].load
    due = arrivals((Phase(rate, rate, seconds * SECOND),), load.arrivals, load.seed, load.cv or 1.0)
    with ExitStack() as stack:
        askers = [
            stack.enter_context(
                Asker(
                    target.url,
                    spec.target.protocol,
                    spec.target.tls,
                    spec.target.headers,
                    (spec.target.timeout, spec.target.connect_timeout),
                )
            )
            for target, spec in zip(targets, specs, strict=True)
        ]
        first, second = (stack.enter_context(ThreadPoolExecutor(_HANDS)) for _ in askers)
        waiting = threading.Semaphore(_HANDS + _BEHIND)

        def ask(requests: Pair) -> None:
            try:
                other = second.submit(_asked, askers[1], requests[1])
                mine = _asked(askers[0], requests[0])
                comparer.take(requests, (mine, other.result()))
            finally:
                waiting.release()

        made: list[Future[None]] = []
        begin = monotonic_ns()
        requests = _order(specs[0], pools)
        for at in chain.from_iterable(times.tolist() for times in due):
            sleep(max(0, begin + at - monotonic_ns()) / SECOND)
            pair = next(requests)
            if waiting.acquire(blocking=False):
                made.append(first.submit(ask, pair))
            else:
                comparer.drop()
        for future in made:
            future.result()
    return comparer.found


def _order(spec: Spec, pools: Sequence[Sequence[Sequence[Prepared]]]) -> Iterator[Pair]:
    """Kinds by weight, within a kind its bodies in order, over and over; the same for both."""
    weights = np.array([request.weight for request in kinds(spec)])
    draw = np.random.Generator(np.random.PCG64([spec.load.seed, len(weights)]))
    hands = [cycle(zip(a, b, strict=False)) for a, b in zip(*pools, strict=True)]
    while True:
        for kind in draw.choice(len(weights), 1024, p=weights / weights.sum()).tolist():
            yield next(hands[kind])


def _asked(asker: Asker, request: Prepared) -> Exchange | str:
    try:
        return asker.exchange(request)
    except TargetError as error:
        return error.message
