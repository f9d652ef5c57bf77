"""How many rows a batch may have: memory, knee, lack of memory, and the sizes a device likes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.engine.buckets import padded
from loadbench.engine.room import OOM, RECOVERY, Footprint, Room, knee
from loadbench.engine.service import ENOUGH, ServiceTimes
from loadbench.units import MS

SIZES = (1, 2, 4, 8, 16)


def test_a_footprint_is_found_again_and_tells_what_fits() -> None:
    found = Footprint.fit({b: 300 + 20 * b for b in (1, 2, 4, 8, 16, 32)})
    assert found == pytest.approx((300, 20))
    assert found is not None
    assert (found.rows(300), found.rows(320), found.rows(339.9), found.rows(940)) == (0, 1, 1, 32)
    assert found.rows(10) == 0


@given(st.dictionaries(st.integers(1, 64), st.integers(0, 10**9), min_size=2, max_size=8))
def test_no_batch_takes_more_than_its_footprint(peaks: dict[int, int]) -> None:
    found = Footprint.fit(peaks)
    if found is not None:
        for rows, peak in peaks.items():
            assert found.fixed + found.per_row * rows >= peak * (1 - 1e-9) - 1e-3


def test_what_takes_no_memory_a_row_has_no_footprint() -> None:
    assert Footprint.fit({8: 100}) is None
    assert Footprint.fit({1: 100, 8: 100}) is None
    assert Footprint.fit({1: 100, 8: 90}) is None


def test_the_least_limit_binds_and_is_named() -> None:
    room = Room(32)
    assert (room.most, room.bound) == (32, "max_batch")
    room.limit("knee", 24)
    room.limit("memory", 9)
    assert (room.most, room.bound) == (9, "memory")
    room.limit("memory", 0)  # one row is always tried
    assert (room.most, room.bound) == (1, "memory")
    room.limit("memory", 100)
    assert (room.most, room.bound) == (24, "knee")
    room.limit("knee", None)
    assert (room.most, room.bound) == (32, "max_batch")


def test_a_lack_of_memory_halves_and_recovers_by_a_row() -> None:
    room = Room(8)
    room.ran_out(8)
    assert (room.most, room.bound) == (4, OOM)
    room.ran_out(8)  # another instance had begun before
    assert room.most == 4
    for _ in range(RECOVERY - 1):
        room.ran()
    assert room.most == 4
    room.ran()
    assert room.most == 5
    for _ in range(3 * RECOVERY):
        room.ran()
    assert (room.most, room.bound) == (8, "max_batch")


def test_memory_that_comes_back_does_not_wipe_out_a_lack_that_was_met() -> None:
    room = Room(32)
    room.ran_out(16)
    room.limit("memory", 2)
    room.limit("memory", 30)
    assert (room.most, room.bound) == (8, OOM)


def test_with_buckets_the_limit_is_one_of_them() -> None:
    room = Room(16, sizes=SIZES)
    room.limit("memory", 13)
    assert (room.most, room.bound) == (8, "memory")
    assert Room(3, sizes=(4, 8)).most == 4  # smaller ones the model does not run


@pytest.mark.parametrize(
    ("times", "found"),
    [
        ({b: 100 * MS + b * MS for b in SIZES}, None),  # gains to the end
        ({b: b * 10 * MS for b in SIZES}, 1),  # nothing to gain at all
        ({1: 10 * MS, 2: 11 * MS, 4: 14 * MS, 8: 28 * MS, 16: 57 * MS}, 4),
        ({1: 10 * MS, 2: 20 * MS, 4: 14 * MS, 8: 20 * MS}, None),  # a dent is no knee
        (dict.fromkeys(SIZES, 1000), None),
        ({4: MS}, None),
    ],
)
def test_the_knee_is_where_larger_batches_stop_to_gain(
    times: dict[int, int], found: int | None
) -> None:
    assert knee(times) == found


def test_a_batch_is_padded_to_the_next_size() -> None:
    assert [padded(SIZES, rows) for rows in (1, 2, 3, 5, 16, 17)] == [1, 2, 4, 8, 16, 17]
    assert padded((), 3) == 3


def test_planned_times_are_those_of_the_padded_size_and_never_fall() -> None:
    times = ServiceTimes(16, SIZES)
    for size, ns in ((1, 500), (2, 400), (4, 900), (8, 1000), (16, 4000)):
        for _ in range(ENOUGH):
            times.observe(size, ns)
    table = times.table
    assert table[3] == table[4] == 900
    assert {table[n] for n in range(9, 17)} == {4000}
    assert list(table) == sorted(table)


def test_a_throttled_clock_stretches_the_plan_until_it_is_measured() -> None:
    times = ServiceTimes(4)
    for _ in range(100):
        times.observe(4, 1000)
    assert times.table[4] == 1000
    times.clocked(1.02)
    assert times.table[4] == 1000
    times.clocked(2.0)
    assert times.table[4] == 2000
    for _ in range(100):
        times.observe(4, 1300)  # it is bound by memory, so that the clock matters less
    times.clocked(2.0)
    assert times.table[4] == 1300
    times.clocked(3.0)
    assert times.table[4] == 1950
    times.clocked(1.0)
    assert times.table[4] == 1000
