"""What the runner reads each second, of a target that hangs for a while."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from loadbench.model import Machine, Server
from loadbench.runner.readings import Readings
from loadbench.units import SECOND

MACHINE = Machine(cpu=0.5)
TOLD = Server(source="loadbench", requests=1)  # each time that it is asked
goes_on = threading.Event()


def statistics(_: float = 0.0) -> Server:
    assert goes_on.wait(30)
    return TOLD


@contextmanager
def reading() -> Iterator[Readings]:
    goes_on.set()
    readings = Readings(time.monotonic_ns(), 0, lambda: MACHINE, statistics)
    try:
        yield readings
    finally:
        goes_on.set()
        readings.stop()


def at(readings: Readings, second: int) -> tuple[Machine | None, Server | None]:
    """As the runner asks: once the window of that second has come."""
    due = readings._origin + (second + 1) * SECOND
    time.sleep(max(0.0, (due - time.monotonic_ns()) / SECOND))
    return readings.of(second)


def test_the_machine_is_read_while_the_target_hangs_and_what_it_told_late_is_not_lost() -> None:
    with reading() as readings:
        assert at(readings, 0) == (MACHINE, TOLD)
        goes_on.clear()
        assert at(readings, 1) == at(readings, 2) == (MACHINE, None)
        goes_on.set()
        assert at(readings, 3) == (MACHINE, TOLD)  # what it was asked for at 1
        assert at(readings, 4) == (MACHINE, TOLD)


def test_what_was_asked_for_and_not_told_yet_is_in_the_last_reading() -> None:
    with reading() as readings:
        goes_on.clear()
        assert at(readings, 0) == (MACHINE, None)
        goes_on.set()
        last = readings.last()
        assert last is not None
        assert last.requests == 2


def test_what_is_told_half_a_second_late_stands_in_the_second_that_it_is_of() -> None:
    asked = [0]

    def slow(_: float = 0.0) -> Server:
        asked[0] += 1
        told = Server(source="loadbench", requests=asked[0])
        time.sleep(0.5)
        return told

    readings = Readings(time.monotonic_ns(), 0, lambda: MACHINE, slow)
    try:
        found = [at(readings, second)[1] for second in range(3)]
        assert [told and told.requests for told in found] == [1, 2, 3]
    finally:
        readings.stop()


def test_what_goes_wrong_with_the_target_costs_its_reading_alone_and_is_told() -> None:
    faults = [OverflowError("too large"), OverflowError("larger still"), None, ValueError("no")]

    def failing(_: float = 0.0) -> Server:
        if fault := faults.pop(0):
            raise fault
        return TOLD

    readings = Readings(time.monotonic_ns(), 0, lambda: MACHINE, failing)
    try:
        found = [at(readings, second) for second in range(3)]
        assert found == [(MACHINE, None), (MACHINE, None), (MACHINE, TOLD)]
        assert readings.last() is None
    finally:
        readings.stop()
    (note,) = readings.notes
    assert note.code == "inside-unread"
    assert "OverflowError: too large" in note.text
