"""When to start a batch, what goes into it, and what is given up: one pure function.

`decide` is asked at the moment an instance of the model is free (a request came, a batch ended, a
timer ran out) and answers for one queue of requests that can ride together. It reads no clock and
keeps nothing, so tests drive it with a clock of their own. While every instance is busy nothing is
decided at all: the batch stays open until the very moment it can start (late binding).

The rules of other servers are in `baselines`; the values that come and go in `rule`.
"""

from collections.abc import Iterable, Sequence

from loadbench.engine import baselines
from loadbench.engine.rule import NEVER as NEVER
from loadbench.engine.rule import Ahead, W, Waiting, prompt
from loadbench.engine.rule import Decision as Decision
from loadbench.engine.rule import Learned as Learned
from loadbench.engine.rule import Level as Level
from loadbench.engine.rule import Rule as Rule
from loadbench.engine.rule import State as State

ANNOUNCED = 0.1  # of a batch's fixed time: how long a request that has begun to arrive is awaited


def decide(rule: Rule, queue: Iterable[W], state: State, now: int) -> Decision[W]:
    """What to do with `queue` now that an instance is free.

    The queue must be in the order in which it is to be served: by levels; under a foreseeing rule
    then by deadlines, else by arrivals.
    """
    if rule.foreseeing:
        return _deadline(rule, queue, state, now)
    if rule.policy == "fixed":
        return baselines.fixed(rule, queue, state, now)
    if rule.policy == "adaptive":
        return baselines.adaptive(rule, queue, state, now)
    return baselines.alone(queue, state, now)


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
        if head.deadline >= now + planned(state.service, rows):
            full = rows >= rule.max_batch or following is not None
            shed = batch[:first]
            batch = batch[first:]
            if full:
                return Decision(batch, "full", shed)
            reason, until = _hold(rule, batch, rows, state, now)
            if until > now:
                return Decision([], reason, shed, until)
            return Decision(batch, prompt(batch, state), shed)
        first += 1
        rows -= head.rows
    if batch and state.stale and batch[-1].deadline > now:
        return Decision(batch[-1:], "probe", batch[:-1])
    return Decision([], shed=batch)


def planned(service: Sequence[int], rows: int) -> int:
    """What a batch of so many rows is planned to take."""
    return service[min(rows, len(service) - 1)]


def _hold(rule: Rule, batch: Sequence[W], rows: int, state: State, now: int) -> tuple[str, int]:
    """Why and until when a batch that is not full waits although an instance is free; with a
    moment that is not after `now` it does not."""
    if state.draining:
        return "", now
    begun = max(state.free_since, batch[0].arrived)
    slack = batch[0].deadline - planned(state.service, rows + 1)
    if state.announced:
        until = min(begun + round(ANNOUNCED * fixed_time(state.service)), slack)
        if until > now:
            return "announced", until
    if rule.policy == "efficient":
        fixed = fixed_time(state.service)
        if rows < state.rate * fixed:
            return "defer", slack
    return "", now


def fixed_time(service: Sequence[int]) -> int:
    """What of a batch's time does not depend on its rows."""
    largest = len(service) - 1
    if largest < 2:
        return service[-1]
    return max(0, service[1] - (service[largest] - service[1]) // (largest - 1))


def late_by(rule: Rule, request: Waiting, ahead: Ahead, service: Sequence[int], now: int) -> int:
    """By how much (ns) a request that has just come would miss its deadline, or make the first of
    its batch miss theirs; 0 or less: all are in time. An instance is planned to be free at `now`;
    who is `ahead` runs before, in full batches.
    """
    full = planned(service, rule.max_batch)
    now += full * -(-ahead.apart // rule.max_batch)
    batches, rows = divmod(ahead.rows, rule.max_batch)
    now += full * batches
    ended = now + planned(service, rows + request.rows)
    late = ended - request.deadline
    first = ahead.first
    if first is not None and not batches and first.deadline >= now + planned(service, rows):
        late = max(late, ended - first.deadline)
    return late
