"""What an answer says of the batch it rode in: written by the engine, read by the load."""

import pytest

from loadbench.engine.rides import Rides
from loadbench.ride import Ride, read, told

TIMES = b"queue;dur=1.500, batch;dur=0.100, compute;dur=6.400, size;desc=32"
LATER = Ride(812, "late-bind", True, 4_213_000, 32, "full", True)


@pytest.mark.parametrize(
    "ride",
    [
        Ride(1, "idle", True),
        Ride(812, "deadline", False, 4_213_000, 32, "full"),
        LATER,
        Ride(9, "drain", False, 0, 1, "late-bind", True),
    ],
)
def test_what_is_told_is_read(ride: Ride) -> None:
    assert read(TIMES + told(ride)) == ride


def test_it_is_one_more_line_of_server_timing() -> None:
    text = (TIMES + told(LATER)).decode()
    assert text.endswith(
        "size;desc=32, closed;desc=late-bind.first, number;desc=812, after;dur=4.213,"
        " before;desc=32.full.first"
    )


def test_a_batch_that_began_later_than_it_closed_says_so() -> None:
    found = read(told(LATER, later_ns=2_000_000))
    assert found is not None
    assert found.after_ns == 6_213_000


@pytest.mark.parametrize(
    "text",
    [
        TIMES,
        b"",
        b"closed;desc=" + b"x" * 21 + b", number;desc=1",
        b"closed;desc=\x1b[31m, number;desc=1",
        b"closed;desc=full, number;desc=" + b"9" * 16,
    ],
)
def test_what_no_engine_of_ours_would_say_is_nothing(text: bytes) -> None:
    assert read(text) is None


def test_half_of_it_is_half_of_it() -> None:
    assert read(b"closed;desc=full, number;desc=3, after;dur=1, before;desc=2.idle") == Ride(
        3, "full"
    )


def test_batches_are_numbered_and_new_shapes_are_known() -> None:
    rides = Rides()

    def closed(side: int, rows: int, reason: str, now: int) -> Ride:
        return rides.next("one", ((3, side, side),), rows, rows, reason, now)

    assert closed(224, 4, "idle", 100) == Ride(1, "idle", True)
    assert closed(224, 4, "full", 130) == Ride(2, "full", False, 30, 4, "idle", True)
    assert closed(320, 4, "full", 190) == Ride(3, "full", True, 60, 4, "full", False)
    assert closed(224, 3, "drain", 200) == Ride(4, "drain", True, 10, 4, "full", True)


def test_what_a_batch_waited_for_is_of_its_own_instance() -> None:
    """Where there are several, the batch closed last is not the one whose end frees this one."""
    rides = Rides()

    def closed(instance: str, rows: int, reason: str, now: int) -> Ride:
        return rides.next(instance, ((4,),), rows, rows, reason, now)

    closed("one", 32, "full", 100)
    assert closed("other", 2, "idle", 150) == Ride(2, "idle", True)
    assert closed("one", 3, "late-bind", 190) == Ride(3, "late-bind", True, 90, 32, "full", True)
    assert closed("other", 3, "late-bind", 200) == Ride(4, "late-bind", False, 50, 2, "idle", True)
