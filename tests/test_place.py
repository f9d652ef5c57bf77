"""What a device allows, on a simulated GPU with a clock of its own: at the warm-up and after it."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest
from numpy.typing import NDArray

from loadbench.engine.backends.fake import FakeModel
from loadbench.engine.device.seam import Cpu, Device, Memory, State
from loadbench.engine.device.simulated import Gpu
from loadbench.engine.device.turns import Seat, Turns
from loadbench.engine.job import Job
from loadbench.engine.models import open_instances
from loadbench.engine.place import Place, bucket_sizes, places
from loadbench.engine.room import Room
from loadbench.engine.rule import Rule
from loadbench.engine.scheduler import Scheduler, Terms
from loadbench.engine.service import ServiceTimes
from loadbench.engine.warmup import warm_up
from loadbench.errors import RunError, SpecError
from loadbench.simspec import SimSpec
from loadbench.spec import EngineSpec, FakeSpec
from loadbench.units import MS, SECOND
from tests.test_device import Clock, sim

MB = 10**6
KEPT: list[FakeModel] = []  # a model that is gone gives its memory back


def ground(most: int = 32, instances: int = 1, **sim: object) -> tuple[Place, Gpu, Clock]:
    """A warm place on a simulated card: 2 GB, a model of 400 MB, batches of 100 + 40·b MB."""
    clock = Clock()
    given = {"memory": "2 GB", "weights": "400 MB", "batch": "100 MB", "row": "40 MB"} | sim
    card = Gpu(0, SimSpec.model_validate(given), clock)
    model = FakeModel(FakeSpec.model_validate({"a": "0 ms"}), card)
    place = Place(card, Room(most), ServiceTimes(most), instances)
    warm_up([model] * instances, [place] * instances, most)
    KEPT.append(model)
    return place, card, clock


def small(row: int) -> SimSpec:
    """A card with 200 MB left for batches, whose rows take so many MB."""
    return SimSpec.model_validate(
        {"memory": "600 MB", "weights": "400 MB", "batch": 0, "row": f"{row} MB"}
    )


def test_the_footprint_is_what_batches_took_at_the_warm_up() -> None:
    place, card, _ = ground()
    assert place.footprint == pytest.approx((100 * MB, 40 * MB))
    assert (place.room.most, place.room.bound) == (32, "max_batch")
    assert card.memory().used == 400 * MB
    place, *_ = ground(most=64)  # 0.9 · 1600 = 1440 = 100 + 33.5 · 40, found although 64 failed
    assert (place.room.most, place.room.bound) == (33, "memory")


def test_another_process_makes_batches_smaller_and_its_leaving_restores_them() -> None:
    place, _, clock = ground(other="900 MB for 2 s every 10 s")
    found = []
    for second in (1, 10, 11, 12):
        clock.now = 5 + second * SECOND
        place.apply(place.look())
        told = place.ground()
        found.append((told.limit, told.bound, bool(told.others)))
    assert found == [
        (32, "max_batch", False), (13, "memory", True), (13, "memory", True),
        (32, "max_batch", False),
    ]  # fmt: skip


def test_a_batch_that_runs_does_not_count_as_memory_that_is_gone() -> None:
    place, card, _ = ground(most=64)
    with card.batch(30):
        place.begins(30)
        place.apply(place.look())
        assert place.room.most == 33
        place.ends(30)
    place.apply(place.look())
    assert place.room.most == 33


def test_weights_that_come_are_not_taken_for_a_batch_and_their_going_is_seen() -> None:
    place, card, _ = ground(most=64)
    with card.batch(5):
        place.begins(5)
        card.load()  # another model of this process
        place.apply(place.look())
        assert place.room.most == (1440 - 100 - 360) // 40
        place.ends(5)
    card.unload()
    place.apply(place.look())
    assert place.room.most == 33


def test_a_share_of_the_card_bounds_its_batches() -> None:
    settings = EngineSpec.model_validate(
        {"device": "sim", "gpu_memory": "50 %", "max_batch": 64, "fake": {"a": "0 ms"}, "sim":
         {"memory": "2 GB", "weights": "400 MB", "batch": "100 MB", "row": "40 MB", "seed": 4713}}
    )  # fmt: skip
    models = open_instances("fake", settings)
    (place,) = found = places(models, settings, 64)
    warm_up(models, found, 64)
    assert place.device.memory().free == 600 * MB
    assert (place.room.most, place.room.bound) == (11, "memory")  # 0.9 · 600 = 540 = 100 + 11 · 40
    with pytest.raises(SpecError, match="gpu_memory = 50%, but fake runs on the CPU"):
        open_instances("fake", EngineSpec.model_validate({"gpu_memory": "50 %"}))
    with pytest.raises(RunError, match="does not fit into the memory"):
        open_instances("fake", settings.model_copy(update={"gpu_memory": 0.1}))


@pytest.mark.parametrize("hangs", [False, True])
def test_a_footprint_is_the_model_s_own_although_others_serve_there(hangs: bool) -> None:
    """Beside one that hangs nobody can be alone: that is waited for once."""
    given = {"memory": "2 GB", "weights": "400 MB", "batch": "100 MB", "row": "40 MB"}
    card = Gpu(0, SimSpec.model_validate(given))
    place = Place(card, Room(8), ServiceTimes(8))
    place.turns = turns = Turns(1 if hangs else 20)
    over, runs = threading.Event(), threading.Event()

    def serve() -> None:
        with Seat(turns) as seat:
            while not over.is_set():
                seat.begin()
                with card.batch(10):  # 500 MB
                    runs.set()
                    over.wait(None if hangs else 0.002)
                seat.end()
                over.wait(0.008)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert runs.wait(20)
        model = FakeModel(FakeSpec.model_validate({"a": "5 ms"}), card)
        begun = time.monotonic()
        warm = warm_up([model], [place], 8, disturbed=True)
        took = time.monotonic() - begun
    finally:
        over.set()
        thread.join()
    assert list(warm.median_ns) == [1, 2, 4, 8]
    assert place.footprint == pytest.approx((100 * MB, 40 * MB))
    assert not turns.closed
    assert not hangs or took < 3


def test_others_stand_still_once_for_each_size_and_for_no_cold_batch() -> None:
    turns = Turns()
    ran: list[tuple[int, bool]] = []

    class Noting(FakeModel):
        def run(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            ran.append((len(next(iter(arrays.values()))), turns.closed))
            return super().run(arrays)

    given = {"memory": "2 GB", "weights": "400 MB", "batch": "100 MB", "row": "40 MB"}
    card = Gpu(0, SimSpec.model_validate(given))
    place = Place(card, Room(4), ServiceTimes(4), 2)
    place.turns = turns
    models = [Noting(FakeSpec.model_validate({"a": "0 ms"}), card) for _ in range(2)]
    warm_up(models, [place] * 2, 4, disturbed=True)
    assert [rows for rows, alone in ran if alone] == [4, 2, 1]
    for rows in (4, 2, 1):
        assert not ran[[size for size, _ in ran].index(rows)][1]
    assert place.footprint == pytest.approx((100 * MB, 40 * MB))


def test_instances_on_one_card_share_its_memory() -> None:
    place, *_ = ground(most=64, instances=2)
    assert place.room.most == (1440 // 2 - 100) // 40


def test_a_card_without_room_for_the_largest_gets_smaller_batches_and_a_note() -> None:
    card = Gpu(0, small(50), Clock())
    place = Place(card, Room(32), ServiceTimes(32))
    warm = warm_up([FakeModel(FakeSpec.model_validate({"a": "0 ms"}), card)], [place], 32)
    assert list(warm.median_ns) == [1, 2, 4]
    assert [note.code for note in warm.notes] == ["memory"]
    assert "no memory for batches of 8 rows on sim:0" in warm.notes[0].text
    assert (place.room.most, place.room.bound) == (3, "memory")  # 0.9 · 200 = 3.6 · 50


def test_a_device_that_does_not_tell_is_limited_by_what_ran() -> None:
    class Silent(Gpu):
        def peak(self) -> int | None:
            return None

    card = Silent(0, small(50), Clock())
    place = Place(card, Room(32), ServiceTimes(32))
    warm_up([FakeModel(FakeSpec.model_validate({"a": "0 ms"}), card)], [place], 32)
    assert place.footprint is None
    assert (place.room.most, place.room.bound) == (4, "oom")


def test_a_model_of_which_not_one_row_fits_is_an_error() -> None:
    card = Gpu(0, small(300), Clock())
    with pytest.raises(RunError, match="no memory for a batch of 1 on sim:0"):
        warm_up(
            [FakeModel(FakeSpec.model_validate({"a": "0 ms"}), card)],
            [Place(card, Room(8), ServiceTimes(8))],
            8,
        )


@pytest.mark.parametrize(("free", "limit"), [(True, 4), (False, 32)])
def test_the_knee_limits_batches_only_if_nobody_asked_for_a_size(free: bool, limit: int) -> None:
    place = Place(sim()[0], Room(32), ServiceTimes(32))
    fastest = {1: 10 * MS, 2: 11 * MS, 4: 14 * MS, 8: 28 * MS, 16: 56 * MS, 32: 112 * MS}
    (note,) = place.fit({}, fastest, free)
    assert note.code == "knee"
    assert "more than 4 rows" in note.text
    assert place.room.most == limit
    assert place.fit({}, {1: 10 * MS, 2: 12 * MS}, free) == []
    host = Place(Cpu(), Room(32), ServiceTimes(32))
    assert host.fit({}, fastest, free) == []
    assert host.room.most == 32


class Clocked(Cpu):
    """A device whose clock is set by hand."""

    def __init__(self) -> None:
        self.now = State((), 1500)

    def memory(self) -> Memory:
        return Memory(1, 1)

    def state(self) -> State:
        return self.now


def test_only_a_throttled_clock_slows_the_plan_down() -> None:
    edge = Clocked()
    device: Device = edge
    place = Place(device, Room(4), ServiceTimes(4))
    for _ in range(30):
        place.service.observe(4, 1000)
    place.fit({}, {}, False)
    for state, slowdown in (
        (State((), 300), 1.0),  # idle
        (State(("power cap",), 1000), 1.5),
        (State(("power cap",), None), 1.0),
        (State(("power cap",), 750), 2.0),
        (State((), 1600), 1.0),
        (State(("power cap",), 800), 2.0),
    ):
        edge.now = state
        place.apply(place.look())
        assert place.ground().slowdown == slowdown
        assert place.service.table[4] == 1000 * slowdown


def test_a_plan_made_under_throttling_takes_that_clock_for_the_full_one() -> None:
    edge = Clocked()
    edge.now = State(("power cap",), 1000)
    place = Place(edge, Room(4), ServiceTimes(4))
    place.fit({}, {}, False)
    assert place.ground().slowdown == 1.0


def test_a_batch_is_cut_down_to_a_size_that_does_more_rows_in_its_time() -> None:
    times = ServiceTimes(8, (1, 2, 4, 8))
    for rows in (1, 2, 4, 8):
        times.observe(rows, rows * MS)
    scheduler = Scheduler(Terms(Rule("deadline", 8), 100, 1 << 20, None), times)
    for _ in range(5):  # at once they take as long as eight; four and then one take five
        job = Job({}, 1, ((16,),), lambda _: True)
        scheduler.stamp(job, None)
        scheduler.queues.add(job)
    taken = [scheduler.take(0, 1, 8) for _ in range(2)]
    assert [(len(found.take), found.reason) for found in taken] == [(4, "bucket"), (1, "idle")]
    assert scheduler.queues.requests == 0


@pytest.mark.parametrize("timeout", [None, 60 * MS])
def test_a_request_of_more_rows_than_there_is_room_for_runs_alone(timeout: int | None) -> None:
    """A lack of memory may leave less room than a request needs that was taken in before; where
    batches are padded it may even seem better to cut it, which cannot be."""
    times = ServiceTimes(8, (1, 2, 4, 8))
    for rows in (1, 2, 4, 8):
        times.observe(rows, rows * MS)
    scheduler = Scheduler(Terms(Rule("deadline", 8), 100, 1 << 20, None), times)
    for rows in (5, 3, 1, 1):
        job = Job({}, rows, ((16,),), lambda _: True)
        scheduler.stamp(job, timeout)
        scheduler.queues.add(job)
    taken = [scheduler.take(0, 1, 1) for _ in range(4)]
    assert [[job.rows for job in found.take] for found in taken] == [[5], [3], [1], [1]]
    assert not any(found.shed for found in taken)


def test_instances_go_to_cards_in_turn_and_share_a_place_on_each() -> None:
    settings = EngineSpec.model_validate(
        {"device": "sim", "instances": 3, "sim": {"cards": 2, "seed": 4711}}
    )
    models = open_instances("fake", settings)
    found = places(models, settings, 8)
    assert [model.device for model in models] == ["sim:0", "sim:1", "sim:0"]
    assert found[0] is found[2]
    assert found[0] is not found[1]
    assert found[0].device.memory().used == 2 * 500 * MB
    del models
    assert found[0].device.memory().used == 0  # weights go with their model


def test_named_devices_get_an_instance_each() -> None:
    settings = EngineSpec.model_validate(
        {"device": "sim:1,sim:0", "sim": {"cards": 2, "seed": 4712}}
    )
    assert [model.device for model in open_instances("fake", settings)] == ["sim:1", "sim:0"]
    with pytest.raises(ValueError, match="2 devices need as many instances"):
        EngineSpec.model_validate({"device": "sim:1,sim:0", "instances": 1})
    with pytest.raises(SpecError, match="no model can run on it"):
        open_instances("mlp", settings)


def test_buckets_are_those_asked_for_if_the_model_runs_them() -> None:
    model = FakeModel(FakeSpec())
    assert bucket_sizes(model, EngineSpec(buckets=(8, 1, 4, 4))) == (1, 4, 8)
    assert bucket_sizes(model, EngineSpec()) == ()
    assert bucket_sizes(model, EngineSpec(buckets=(1, 8, 64))) == (1, 8)
    model.metadata["buckets"] = [8, 4]
    assert bucket_sizes(model, EngineSpec()) == (4, 8)
    assert bucket_sizes(model, EngineSpec(buckets=(8,))) == (8,)
    with pytest.raises(SpecError, match=r"fake runs batches of \[4, 8\] only"):
        bucket_sizes(model, EngineSpec(buckets=(1, 8)))
    model.batched = False
    assert bucket_sizes(model, EngineSpec(buckets=(8,))) == ()
