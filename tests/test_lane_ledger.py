"""The account against a plain count of the same requests, wherever it is folded and cut."""

import struct
from typing import NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.histogram import EMPTY, Histogram
from loadbench.load.ledger import HELD, Cut, Ledger
from loadbench.load.schedule import NEVER
from loadbench.model import Sample, Window

ORIGIN, SECOND, END = 1_000_000, 1000, 1_006_000  # a "second" of 1000 ns, six windows
NONE = np.empty(0, np.int64)
NO_ROWS = np.empty((0, 5), np.int64)


class Request(NamedTuple):
    """Stamps in order; NEVER for what has not happened before END."""

    due: int
    begun: int
    sent: int
    done: int
    kind: int
    held: bool
    failure: str


@st.composite
def requests(draw: st.DrawFn) -> Request:
    moment = draw(st.integers(0, 7)) * SECOND + draw(st.sampled_from((0, 1, 300, 999)))
    stamps = [ORIGIN - 2 * SECOND + moment]
    for _ in range(3):  # often just on a boundary, or beside it
        stamps.append(stamps[-1] + draw(st.sampled_from((1, 300, SECOND - 1, SECOND, 2500))))
    due, begun, sent, done = (stamp if stamp < END else NEVER for stamp in stamps)
    failure = draw(st.sampled_from(("", "", "timeout", "http_503")))
    return Request(due, begun, sent, done, draw(st.integers(0, 2)), draw(st.booleans()), failure)


def write(ledger: Ledger, found: Request) -> None:
    code = found.kind | (HELD if found.held else 0)
    if found.failure:
        code |= ledger.failure(found.failure)
    row = (found.due, found.begun, found.sent, found.done, code)
    struct.pack_into("5q", ledger.cells, ledger.place(), *row)


def cut(ledger: Ledger, begin: int, everything: list[Request], told: int) -> Window:
    """The window from `begin` on, cut at `told`: rows of what was done by then are written."""
    end = begin + SECOND
    due = [found.due for found in everything]
    waiting = [found.due for found in everything if found.due < end and found.begun >= told]
    under_way = [
        (
            found.due,
            found.begun,
            found.sent if found.sent < told else NEVER,
            NEVER,
            found.kind | (HELD if found.held else 0),
        )
        for found in everything
        if found.begun < told <= found.done
    ]
    return ledger.cut(
        Cut(
            begin=begin, end=end, second=(begin - ORIGIN) // SECOND,
            stage="warmup" if begin < ORIGIN else "load",
            asked=sum(begin <= moment < end for moment in due),
            waiting=np.array(waiting, np.int64),
            open=np.array(under_way, np.int64).reshape(-1, 5),
            limit_ns=600, phase=None, rate=None, stall_ns=0, connections=0,
        )
    )  # fmt: skip


def expect(window: Window, begin: int, everything: list[Request]) -> None:
    """Counts one request after the other."""
    end = begin + SECOND
    warm = begin < ORIGIN
    mine = [found for found in everything if (found.due < ORIGIN) == warm]
    ended = [found for found in mine if begin <= found.done < end]
    good = [found for found in ended if not found.failure]
    assert window.asked == sum(begin <= found.due < end for found in mine)
    assert window.sent == sum(begin <= found.sent < end for found in mine)
    assert window.done == len(good)
    for failure in ("timeout", "http_503"):
        number = sum(found.failure == failure for found in ended)
        assert window.failed.get(failure, 0) == number
    assert window.latency == Histogram.of([found.done - found.due for found in good])
    begun = [found for found in mine if begin <= found.begun < end]
    assert window.held == sum(found.held for found in begun)
    late = [found.begun - found.due for found in begun if not found.held]
    assert window.lateness == (Histogram.of(late) if late else EMPTY)
    assert window.in_flight == sum(found.sent < end <= found.done for found in mine)
    assert window.waiting == sum(found.due < end <= found.sent for found in mine)
    tail = [found for found in everything if found.due < ORIGIN and begin <= found.done < end]
    good_tail = sum(not found.failure for found in tail)
    tail_sent = sum(found.due < ORIGIN and begin <= found.sent < end for found in everything)
    assert (window.tail_sent, window.tail_done, window.tail_failed) == (
        (0, 0, 0) if warm else (tail_sent, good_tail, len(tail) - good_tail)
    )
    answered = [] if warm else [found for found in tail if not found.failure]
    assert window.tail_service_ns == sum(found.done - found.begun for found in answered)
    assert window.tail_latency_ns == sum(found.done - found.due for found in answered)
    ages = [end - found.due for found in mine if found.due < end <= found.done]
    assert window.oldest_ns == max(ages, default=0)
    assert window.overdue == sum(age > 600 for age in ages)


@settings(max_examples=150, deadline=None)
@given(
    everything=st.lists(requests(), max_size=60),
    delays=st.lists(st.sampled_from((0, 0, 0, 300, 1500, 3000)), min_size=8, max_size=8),
    folds=st.sets(st.integers(0, 60)),
)
def test_windows_are_what_a_plain_count_says(
    everything: list[Request], delays: list[int], folds: set[int]
) -> None:
    """Cut late by `delays`, as after a stall, and folded in between at any time."""
    ledger = Ledger(["a", "b", "a"], ORIGIN, 3)
    rows = sorted(everything, key=lambda found: found.done)
    written = 0
    begin, told = ORIGIN - 2 * SECOND, 0
    for delay in delays:
        told = max(told, begin + SECOND + delay)
        while written < len(rows) and rows[written].done < min(told, END):
            write(ledger, rows[written])
            written += 1
            if written in folds:
                ledger.fold(begin, begin + SECOND)
        window = cut(ledger, begin, everything, min(told, END))
        expect(window, begin, everything)
        begin += SECOND


def sample(latency: int, done: int) -> Sample:
    return Sample("a", done - latency, done - latency, done - latency, done)


def test_the_slowest_of_each_second_are_kept_ties_and_all() -> None:
    ledger = Ledger(["a"], ORIGIN, 2)
    for latency in (5, 9, 9, 9, 7):
        if latency > ledger.floor:
            ledger.exemplar(sample(latency, ORIGIN + 500))
    assert ledger.floor == 9
    ledger.exemplar(sample(100, ORIGIN + SECOND + 1))  # of the next second
    first = cut(ledger, ORIGIN, [], END)
    second = cut(ledger, ORIGIN + SECOND, [], END)
    assert [found.done - found.due for found in first.slowest] == [9, 9]
    assert [found.done - found.due for found in second.slowest] == [100]
    assert ledger.floor == -1


def test_without_exemplars_none_are_kept() -> None:
    ledger = Ledger(["a"], ORIGIN, 0)
    ledger.exemplar(sample(5, ORIGIN + 1))
    assert cut(ledger, ORIGIN, [], END).slowest == ()
