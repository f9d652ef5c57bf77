"""When to start a batch, what goes into it, and what is given up: one pure function.

`decide` is asked at the moment an instance of the model is free (a request came, a batch ended, a
timer ran out) and answers for one queue of requests that can ride together. It reads no clock and
keeps nothing, so tests drive it with a clock of their own. While every instance is busy nothing is
decided at all: the batch stays open until the very moment it can start (late binding).
"""

from collections.abc import Iterable, Sequence
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

NEVER = 1 << 62  # a deadline that nothing can miss


class Waiting(Protocol):
    """A request in the queue: what the policy may know of it. Times are monotonic ns."""

    @property
    def rows(self) -> int: ...
    @property
    def arrived(self) -> int: ...
    @property
    def deadline(self) -> int: ...


W = TypeVar("W", bound=Waiting)


class Rule(NamedTuple):
    """The batcher's settings.

    none      one request at a time
    fixed     Triton's dynamic batcher: up to `max_batch` rows, held for at most `max_wait_ns` since
              the oldest arrived, let go early at the largest preferred size that is reached
    deadline  never wait when an instance is free; give up the requests whose deadline the whole
              remaining batch cannot meet, from the head ("window drop": Nexus, SOSP'19)
    """

    policy: Literal["deadline", "fixed", "none"]
    max_batch: int
    max_wait_ns: int = 0
    preferred: tuple[int, ...] = ()


class State(NamedTuple):
    """What `decide` looks at. `service` is the planned time (ns) of a batch by its rows."""

    free_since: int  # when the instance that asks became free
    service: Sequence[int]
    draining: bool = False
    stale: bool = False  # no batch has run for so long that the planned times may be wrong


class Decision(NamedTuple, Generic[W]):
    """Requests to run now and to give up, both from the front of the queue; else wait.

    With nothing to take, `until` says when to ask again (None: when something arrives).
    """

    take: list[W]
    reason: str = ""  # idle, late-bind, full, bucket, hold, probe, drain
    shed: Sequence[W] = ()
    until: int | None = None


def decide(rule: Rule, queue: Iterable[W], state: State, now: int) -> Decision[W]:
    """What to do with `queue` now that an instance is free.

    Under `deadline` the queue must be in the order in which it is to be served, which for requests
    with deadlines is earliest deadline first.
    """
    if rule.policy == "deadline":
        return _deadline(rule, queue, state, now)
    if rule.policy == "fixed":
        return _fixed(rule, queue, state, now)
    expired, batch, _ = _pack(queue, 1, now)
    return Decision(batch, _prompt(batch, state) if batch else "", expired)


def _deadline(rule: Rule, queue: Iterable[W], state: State, now: int) -> Decision[W]:
    """Window drop: the head goes as long as the batch that it is part of would end too late.

    Giving up the head, rather than shrinking the batch to save it, keeps batches large when the
    load is high. If all would be given up on the word of old measurements, the last of them runs
    as a probe: otherwise one slow spell could shut the engine for ever.
    """
    coming = iter(queue)
    following = next(coming, None)
    batch: list[W] = []
    first = rows = 0  # batch[:first] is given up
    while True:
        while following is not None and (
            first == len(batch) or rows + following.rows <= rule.max_batch
        ):
            batch.append(following)
            rows += following.rows
            following = next(coming, None)
        if first == len(batch):
            break
        head = batch[first]
        if head.deadline >= now + state.service[min(rows, len(state.service) - 1)]:
            full = rows >= rule.max_batch or following is not None
            reason = "full" if full else _prompt(batch, state)
            return Decision(batch[first:], reason, batch[:first])
        first += 1
        rows -= head.rows
    if batch and state.stale and batch[-1].deadline > now:
        return Decision(batch[-1:], "probe", batch[:-1])
    return Decision([], shed=batch)


def _fixed(rule: Rule, queue: Iterable[W], state: State, now: int) -> Decision[W]:
    """Triton's rule. A request whose deadline has passed is given up; none is foreseen to miss."""
    expired, batch, full = _pack(queue, rule.max_batch, now)
    if not batch:
        return Decision([], shed=expired)
    if full:
        return Decision(batch, "full", expired)
    due = batch[0].arrived + rule.max_wait_ns
    if now < due and (marked := _preferred(batch, rule.preferred)):
        return Decision(batch[:marked], "bucket", expired)
    if state.draining or rule.max_wait_ns == 0:
        return Decision(batch, _prompt(batch, state), expired)
    if now >= due:
        return Decision(batch, "hold" if due > state.free_since else "late-bind", expired)
    return Decision([], shed=expired, until=due)


def _preferred(batch: Sequence[Waiting], sizes: Sequence[int]) -> int:
    """How many requests, from the first on, make up the largest preferred size; 0: none does."""
    rows = found = 0
    for number, request in enumerate(batch, 1):
        rows += request.rows
        if rows in sizes:
            found = number
    return found


def _prompt(batch: Sequence[Waiting], state: State) -> str:
    """Why a batch starts that nothing held back: it found an instance idle, or waited for one."""
    if state.draining:
        return "drain"
    return "idle" if batch[0].arrived >= state.free_since else "late-bind"


def _pack(queue: Iterable[W], most: int, now: int) -> tuple[list[W], list[W], bool]:
    """(expired, those that fit into `most` rows in order, whether the batch is full).

    A request alone fits whatever its rows.
    """
    expired: list[W] = []
    batch: list[W] = []
    rows = 0
    for request in queue:
        if request.deadline <= now:
            expired.append(request)
            continue
        if batch and rows + request.rows > most:
            return expired, batch, True
        batch.append(request)
        rows += request.rows
        if rows >= most:
            return expired, batch, True
    return expired, batch, False
