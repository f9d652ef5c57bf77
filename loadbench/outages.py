"""When servers of a target were away: stretches of seconds in which nothing of what was sent to one
came back. What is said of them stands here too.

A second tells how many were answered and how many failed, not when in it: at its ends a stretch is
as much of the second as failed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from loadbench import units
from loadbench.failing import ABSENT, AWAY, GONE, RESTARTED
from loadbench.model import Window

_SERVER = re.compile(r" → (\S+:\d+)$")  # as kinds of request are named where there are several
_WORDS = ("three", "four", "five", "six", "seven", "eight")
_TIMES = ("", "", "twice", *(f"{word} times" for word in _WORDS))
_NAMED = 3  # servers
_MIXED = 2  # seconds that a short time between two outages, or one that is short, can lie in


class Ended(NamedTuple):
    """What came of the requests to one server in one second."""

    second: int
    done: int
    failed: Mapping[str, int]

    @property
    def share(self) -> float:
        """Of them, that failed."""
        failed = sum(self.failed.values())
        return failed / (self.done + failed)


class Outages(NamedTuple):
    """How often a server was away, for how many seconds in all, and whether it has answered since;
    `partly` where not all seconds of it are known."""

    times: int
    seconds: float
    back: bool
    partly: bool = False


class Second(NamedTuple):
    """A second, and what ended in it by server; "" is the only one there is."""

    number: int
    ended: Mapping[str, Ended]


def second_of(window: Window) -> Second:
    """What is needed of a window; kept for long."""
    found: dict[str, Ended] = {}
    for name, part in window.requests.items():
        several = _SERVER.search(name)
        where = several[1] if several else ""
        so_far = found.get(where, Ended(window.second, 0, {}))
        kinds = so_far.failed.keys() | part.failed.keys()
        failed = {kind: so_far.failed.get(kind, 0) + part.failed.get(kind, 0) for kind in kinds}
        found[where] = Ended(window.second, so_far.done + part.done, failed)
    return Second(window.second, found)


def outages(seconds: Iterable[Second], begin: int, end: int) -> dict[str, Outages]:
    """Of the servers at which requests failed in the seconds [begin, end), in their order. Empty
    where any of that is no outage."""
    known = [one for one in seconds if begin <= one.number < end]
    courses: dict[str, list[Ended]] = {}
    for second in known:
        for where, one in second.ended.items():
            if one.done or one.failed:
                courses.setdefault(where, []).append(one)
    partly = bool(known) and known[0].number > begin
    found = {}
    for where, course in courses.items():
        if any(one.failed for one in course):
            if (away := _of(course, partly)) is None:
                return {}
            found[where] = away
    return found


def _of(course: Sequence[Ended], partly: bool) -> Outages | None:
    """Of one server; None if it is in another trouble."""
    stretches: list[list[Ended]] = [[]]
    for one in course:
        if one.failed:
            stretches[-1].append(one)
        elif stretches[-1]:
            stretches.append([])
    times, seconds = 0, 0.0
    for stretch in filter(None, stretches):
        found = _times(stretch)
        if not found:
            return None
        times += found
        seconds += _length(stretch)
    back = not course[-1].failed
    if not back and not course[-1].failed.keys() & ABSENT:
        return None
    return Outages(times, seconds, back, partly)


def _length(stretch: Sequence[Ended]) -> float:
    """In seconds; those in which nothing was sent belong to it."""
    first, last = stretch[0], stretch[-1]
    return sum(one.share for one in stretch) + (last.second - first.second + 1 - len(stretch))


def _times(stretch: Sequence[Ended]) -> int:
    """How often a server was away in seconds all of which have failures; 0 if they are those of
    one that is there. One that only breaks connections off answers amid that: within a second this
    cannot be told."""
    failed: dict[str, int] = {}
    for one in stretch:
        for kind, number in one.failed.items():
            failed[kind] = failed.get(kind, 0) + number
    gone = sum(failed.get(kind, 0) for kind in GONE)
    absent = any(kind in failed for kind in ABSENT)
    if not failed.keys() <= RESTARTED or 2 * gone < sum(failed.values()):
        return 0
    if not absent and _length(stretch) <= 1:
        return 0
    whole, mixed = 0, 0
    before = False
    for one in stretch:
        mixed = mixed + 1 if one.done else 0
        if mixed > _MIXED:
            return 0
        whole += not one.done and not before
        before = not one.done
    return max(1, whole)


def said_of(found: Mapping[str, Outages]) -> tuple[str, str] | None:
    """What is likely behind failures of servers that were away, and what to try; None where there
    is no more to say than of the failures alone."""
    gone = [where for where, one in found.items() if not one.back]
    back = {where: one for where, one in found.items() if one.back}
    if not found or "" in gone:
        return None
    parts = [f"{where or 'the server'} was away {_how(one)}" for where, one in back.items()]
    parts += [f"nothing listens at {where} (any more)" for where in gone]
    named = parts[:_NAMED]
    more = len(parts) - len(named)
    text = "; ".join(named) + (f"; so it is with {more} more" if more else "")
    if gone:
        return text, AWAY[1]
    return text, "read its log: why it ended" if len(back) == 1 else "read their logs: why"


def _how(one: Outages) -> str:
    least = "at least" if one.partly else "about"
    length = f"{least} {units.duration(max(1, round(one.seconds)) * units.SECOND)}"
    if one.times == 1:
        return f"for {length}, and is back"
    often = _TIMES[one.times] if one.times < len(_TIMES) else f"{one.times} times"
    return f"{'at least ' if one.partly else ''}{often}, {length} in all, and is back"
