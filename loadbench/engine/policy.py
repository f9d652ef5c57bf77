"""When to start a batch, what goes into it, and what is given up: one pure function.

`decide` is asked at the moment an instance of the model is free (a request came, a batch ended, a
timer ran out) and answers for one queue of requests that can ride together. It reads no clock and
keeps nothing, so tests drive it with a clock of their own. While every instance is busy nothing is
decided at all: the batch stays open until the very moment it can start (late binding).

The rules of other servers are in `baselines`; the values that come and go in `rule`.
"""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import accumulate, groupby, islice
from typing import Generic, NamedTuple

from loadbench.engine import baselines
from loadbench.engine.lookahead import best_plan, cut, line, outlook, target
from loadbench.engine.rule import NEVER as NEVER
from loadbench.engine.rule import Ahead, W, Waiting, prompt
from loadbench.engine.rule import Decision as Decision
from loadbench.engine.rule import Learned as Learned
from loadbench.engine.rule import Level as Level
from loadbench.engine.rule import Rule as Rule
from loadbench.engine.rule import State as State
from loadbench.units import MS

LOOKED = 3  # batches of those that wait are looked at, at most
LATE_NS = MS  # that a timer may be,
LATE = 1 / 16  # or that part of a request's time, on a machine that is busy
ANNOUNCED = 0.1  # of a batch's fixed time: how long a request that has begun to arrive is awaited


def decide(rule: Rule, queue: Collection[W], state: State, now: int) -> Decision[W]:
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


class _Choice(NamedTuple, Generic[W]):
    """Who is to run next and who is given up. `reason`: why no more can join; "": they can."""

    take: list[W]
    shed: list[W]
    reason: str


def _deadline(rule: Rule, queue: Collection[W], state: State, now: int) -> Decision[W]:
    """The batch to run next, unless it is worth waiting for more."""
    if len(rule.levels) == 1:
        batch, shed, reason = _choose(rule, queue, state, now)
    else:
        batch, shed, reason = _by_urgency(rule, queue, state, now)
    if reason or not batch:
        return Decision(batch, reason, shed)
    rows = sum([request.rows for request in batch])
    reason, until = _hold(rule, batch, rows, state, now)
    if until > now:
        return Decision([], reason, shed, until)
    return Decision(batch, prompt(batch, state), shed)


def _choose(rule: Rule, queue: Collection[W], state: State, now: int) -> _Choice[W]:
    """The first that fit, if all of them will be in time; else see `_in_need`."""
    if not queue:
        return _Choice([], [], "")
    service, most = state.service, rule.max_batch
    if next(iter(queue)).deadline < now + planned(service, min(len(queue), most)):
        return _in_need(rule, queue, state, now)
    batch: list[W] = []
    rows, tight = 0, NEVER
    for request in queue:
        rows += request.rows
        if rows > most and batch:
            rows -= request.rows
            break
        batch.append(request)
        if request.deadline < tight:
            tight = request.deadline
    if tight < now + planned(service, rows) or (len(batch) > 1 and cut(service, rows, state.rate)):
        return _in_need(rule, queue, state, now)
    full = rows >= most or len(batch) < len(queue)
    return _Choice(batch, [], "full" if full else "")


def _in_need(rule: Rule, queue: Collection[W], state: State, now: int) -> _Choice[W]:
    """Some would be too late in a batch of all that fit, or it is better cut: the best plan's first
    batch.

    If all would be given up on the word of old measurements, the last of them runs as a probe:
    otherwise one slow spell could shut the engine for ever.
    """
    service, looked = state.service, LOOKED * rule.max_batch
    full = service[rule.max_batch]
    shed = _too_late(queue, len(queue) - looked, now + full, now + service[1])
    waiting = list(islice(queue, len(shed), len(shed) + looked))
    due = [request.deadline for request in waiting]
    rising = sorted(due)
    if due != rising:
        waiting.sort(key=_deadline_of)
        due = rising
    rows = _rows_before(waiting)
    unseen = len(queue) - len(shed) - len(waiting)
    plan = None
    if waiting:
        typical = waiting[len(waiting) // 2]
        limit = typical.deadline - typical.arrived
        behind = full * unseen * rows[-1] / len(waiting) / rule.max_batch
        plan = best_plan(due, rows, outlook(state, rule.max_batch, limit, now, behind))
    if plan is None:
        shed += waiting
        if state.stale and shed[-1].deadline > now:
            return _Choice(shed[-1:], shed[:-1], "probe")
        return _Choice([], shed, "")
    first, last, _ = plan
    batch = waiting[first:last]
    shed += waiting[:first]
    if last == len(waiting) and not unseen:
        return _Choice(batch, shed, "")
    more = rows[last] - rows[first] + waiting[min(last, len(waiting) - 1)].rows
    if more > rule.max_batch:
        return _Choice(batch, shed, "full")
    return _Choice(batch, shed, "deadline" if due[first] < now + service[more] else "bucket")


def _rows_before(waiting: list[W]) -> Sequence[int]:
    """How many rows are before each, and at the end all of them."""
    rows = [request.rows for request in waiting]
    if sum(rows) == len(rows):  # one each, as is usual
        return range(len(rows) + 1)
    return list(accumulate(rows, initial=0))


def _too_late(queue: Collection[W], spare: int, full: int, one: int) -> list[W]:
    """Those in front who cannot be in time, were they alone in a batch (which would end at `one`).
    Behind so many that only `full` batches can run, whoever cannot bear one is in the way."""
    found: list[W] = []
    for request in queue:
        if request.deadline >= (full if len(found) < spare else one):
            break
        found.append(request)
    return found


def _by_urgency(rule: Rule, queue: Collection[W], state: State, now: int) -> _Choice[W]:
    """The most urgent level has its batch as if it were alone. Others ride along as far as that
    makes none of the more urgent late; those of them that can no longer be in time are given up.
    """
    batch: list[W] = []
    shed: list[W] = []
    for _, group in groupby(islice(queue, LOOKED * rule.max_batch), _level_of):
        level = list(group)
        if batch:
            dead, along = _along(rule, batch, level, state, now)
            batch += along
            shed += dead
            continue
        batch, given_up, reason = _choose(rule, level, state, now)
        shed += given_up
        if reason:
            return _Choice(batch, shed, reason)
    full = sum([request.rows for request in batch]) >= rule.max_batch
    return _Choice(batch, shed, "full" if full else "")


def _along(
    rule: Rule, batch: list[W], level: list[W], state: State, now: int
) -> tuple[list[W], list[W]]:
    """Of a less urgent level those that no batch can serve in time, and those that join."""
    service = state.service
    rows = sum([request.rows for request in batch])
    tight = min([request.deadline for request in batch]) - now
    most = min(rule.max_batch, bisect_right(service, tight) - 1)
    ended = now + planned(service, min(most, rows + sum([request.rows for request in level])))
    dead: list[W] = []
    along: list[W] = []
    for request in level:
        if request.deadline < now + planned(service, request.rows):
            dead.append(request)
        elif rows + request.rows <= most and request.deadline >= ended:
            along.append(request)
            rows += request.rows
    return dead, along


def planned(service: Sequence[int], rows: int) -> int:
    """What a batch of so many rows is planned to take."""
    return service[min(rows, len(service) - 1)]


def _hold(rule: Rule, batch: Sequence[W], rows: int, state: State, now: int) -> tuple[str, int]:
    """Why and until when a batch that is not full waits although an instance is free; with a
    moment that is not after `now` it does not."""
    returning, deferring = state.returning, rule.policy == "efficient"
    if state.draining or not (state.announced or returning or deferring):
        return "", now
    tight = min(batch, key=_deadline_of)  # not always the first: it may have more time than others
    slack = tight.deadline - planned(state.service, rows + 1)
    if state.announced:
        begun = max(state.free_since, batch[0].arrived)
        until = min(begun + round(ANNOUNCED * line(state.service, rule.max_batch)[0]), slack)
        if until > now:
            return "announced", until
    if returning is not None and rows < returning.rows:
        until = min(returning.until, tight.deadline - planned(state.service, returning.rows))
        if until > now:
            return "hold", until
    if deferring:
        limit = tight.deadline - tight.arrived
        if rows < target(state.service, rule.max_batch, limit):
            return "defer", slack - max(LATE_NS, round(LATE * limit))
    return "", now


def _deadline_of(request: Waiting) -> int:
    return request.deadline


def _level_of(request: Waiting) -> int:
    return request.level


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
