"""The dispatch rules of other servers, to compare with: Triton's, BentoML's, and no batching."""

from collections.abc import Iterable, Iterator
from itertools import groupby

from loadbench.engine.rule import NEVER, Decision, Rule, State, W, prompt
from loadbench.units import MS

TICK_NS = MS  # of BentoML's dispatcher
DECAY = 0.95  # of the learned wait, likewise


def alone(queue: Iterable[W], state: State, now: int) -> Decision[W]:
    """The first whose deadline has not passed, by itself."""
    expired: list[W] = []
    for request in queue:
        if request.deadline > now:
            return Decision([request], prompt([request], state), expired)
        expired.append(request)
    return Decision([], shed=expired)


def fixed(rule: Rule, queue: Iterable[W], state: State, now: int) -> Decision[W]:
    """Triton's dynamic batcher (`DynamicBatchScheduler::GetDynamicBatch`).

    Levels are served strictly in turn. A request whose timeout has passed is refused, or served
    after the others of its level; none is foreseen to pass. The largest preferred size that is
    reached goes before more, until the oldest has waited `max_wait_ns`. Other than there, requests
    of other shapes wait apart and do not close a batch.
    """
    expired: list[W] = []
    batch: list[W] = []
    most = max(rule.preferred, default=rule.max_batch)
    rows = marked = 0
    full = False
    for request in _standing(rule, queue, expired, now):
        if batch and rows + request.rows > most and not marked:
            marked = len(batch)
        full = bool(batch) and rows + request.rows > rule.max_batch
        if full:
            break
        batch.append(request)
        rows += request.rows
        if rows in rule.preferred:
            marked = len(batch)
    if not batch:
        return Decision([], shed=expired)
    due = min([request.arrived for request in batch]) + rule.max_wait_ns
    overdue = rule.max_wait_ns > 0 and due <= now
    full = full or rows >= rule.max_batch
    if marked and not overdue:
        whole = marked == len(batch)
        return Decision(batch[:marked], "full" if full and whole else "bucket", expired)
    if full:
        return Decision(batch, "full", expired)
    if overdue:
        return Decision(batch, "hold" if due > state.free_since else "late-bind", expired)
    if rows >= most:
        return Decision(batch, "bucket", expired)
    if state.draining or not rule.max_wait_ns:
        return Decision(batch, prompt(batch, state), expired)
    soonest = min([request.deadline for request in batch if request.deadline > now], default=NEVER)
    return Decision([], "hold", expired, min(due, soonest))


def _standing(rule: Rule, queue: Iterable[W], expired: list[W], now: int) -> Iterator[W]:
    """The requests in the order in which Triton serves them; fills `expired` on the way."""
    for level, requests in groupby(queue, _level):
        delayed: list[W] = []
        aside = delayed if rule.levels[level - 1].delay else expired
        for request in requests:
            if request.deadline > now:
                yield request
            else:
                aside.append(request)
        yield from delayed


def _level(request: W) -> int:
    return request.level


def adaptive(rule: Rule, queue: Iterable[W], state: State, now: int) -> Decision[W]:
    """BentoML's dispatcher (`CorkDispatcher`), looked at every millisecond as there.

    The oldest is given up while all that wait, be they more than a batch holds, would by a line
    through the durations seen end later than `latest_ns`; then it is waited as long as n · (the
    wait of the newest + a tick + a row) stays below the mean wait seen. Other than there, the
    oldest go first, and a batch may be as large as it may be.
    """
    learned = state.learned
    assert learned is not None
    waiting = list(queue)
    rows = sum([request.rows for request in waiting])
    first = 0
    for oldest in waiting[:-1]:
        ended = now + learned.row_ns * rows + learned.batch_ns
        if ended - oldest.arrived < learned.latest_ns:
            break
        rows -= oldest.rows
        first += 1
    shed, batch = waiting[:first], waiting[first:]
    if not batch:
        return Decision([], shed=shed)
    next_ns = now - batch[-1].arrived + TICK_NS + learned.row_ns
    waits = rows < rule.max_batch and rows * next_ns <= DECAY * learned.wait_ns
    if waits and not state.draining:
        return Decision([], "hold", shed, now + TICK_NS)
    rows = 0
    for number, request in enumerate(batch):
        if number and rows + request.rows > rule.max_batch:
            return Decision(batch[:number], "full", shed)
        rows += request.rows
    return Decision(batch, "full" if rows >= rule.max_batch else prompt(batch, state), shed)
