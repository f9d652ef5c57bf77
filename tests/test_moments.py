"""Two moments compared: known windows in, known rows and sentences out."""

from typing import Any

import pytest
from msgspec.structs import replace

from dashboard.moments import Moment, read, rows, same, sentences
from loadbench.machine import Gpu, Machine
from loadbench.model import AlertChange, Mark, Part, Window
from loadbench.serverside import BatchSize, Server
from loadbench.units import MS
from loadbench.view import View
from tests.records import start, window
from tests.stage import folded


def second(at: int, ms: float, queue: float, **fields: Any) -> Window:
    """100 requests of `ms`, of which the queue has so much and compute 6 ms."""
    size, clock = fields.pop("size", 8), fields.pop("clock", 1980)
    wait, compute = fields.pop("wait", 1.0), fields.pop("compute", 6.0)
    throttle = fields.pop("throttle", ())
    done = fields.pop("done", 100)
    server = Server(
        source="loadbench",
        queue=Part(done, round(done * queue * MS)),
        batch_wait=Part(done, round(done * wait * MS)),
        compute=Part(done, round(done * compute * MS)),
        sizes={size: BatchSize(batches=4, requests=4 * size)},
        closed={fields.pop("why", "idle"): {size: 4}},
        waiting=round(queue),
        max_batch=32,
    )
    card = Gpu(0, "a card", utilization=0.9, sm_clock_mhz=clock, throttle=throttle)
    return window(at, [ms] * done, server=server, machine=Machine(cpu=0.5, gpus=(card,)), **fields)


def told(*later: Any) -> View:
    calm = [second(at, 10.0, 2.0) for at in range(20)]
    busy = [
        second(at, 60.0, 50.0, size=32, why="full", clock=1200, throttle=("power cap",), done=80,
               asked=100)
        for at in range(20, 40)
    ]  # fmt: skip
    mark, firing = Mark(20, "deploy"), AlertChange(25, "p99", "firing", 120.0, since=20)
    return folded([start(device="cuda:0"), *calm, mark, *busy, firing, *later])


def both(view: View, one: int = 20, two: int = 40) -> tuple[Moment, Moment]:
    return read(Moment(one, one), view), read(Moment(two, two), view)


def test_what_changed_is_told_in_order_of_what_matters() -> None:
    view = told()
    text = sentences(*both(view), view)
    assert text[0] == "p99 rose from 10.0 to 60.0 ms."
    assert text[1] == (
        "A mean request takes 50.0 ms longer: 48.0 ms of it in queue (2.00 → 50.0); "
        "compute is unchanged (6.00 ms)."
    )
    assert text[2:5] == [
        "Asked is the same: 100/s.",
        "Done fell from 100 to 80.0/s: 20.0/s fewer than asked.",
        "Waiting rose from 2 to 50 requests.",
    ]
    assert text[5] == "Batch size rose from 8.00 to 32.0 rows."
    assert "Batches closed mostly by “instance was idle”, then by “full”." in text
    assert "GPU clock fell from 1980 to 1200 MHz." in text
    assert "The GPU's clock was held down: power cap." in text
    assert text[-1].startswith("Between them: 00:20 deploy; 00:25 ")


def test_a_part_that_changed_by_more_than_the_whole_is_not_said_to_be_part_of_it() -> None:
    def where(before: Window, after: Window) -> str:
        seconds = [replace(before if at < 20 else after, second=at) for at in range(40)]
        view = folded([start(device="cuda:0"), *seconds])
        return sentences(*both(view), view)[1].partition(" less: ")[2]

    waits, computes = (
        second(0, 8.6, 1.0, wait=4.8, compute=1.7),
        second(0, 8.0, 1.5, wait=0.2, compute=5.0),
    )
    assert where(waits, computes) == (
        "batch wait fell by 4.60 ms (4.80 → 0.20), compute rose by 3.30 ms (1.70 → 5.00)."
    )
    queued = second(0, 9.0, 4.0, wait=4.8, compute=1.7)
    less = second(0, 8.0, 6.0, wait=0.2, compute=1.7)
    assert where(queued, less) == (
        "batch wait fell by 4.60 ms (4.80 → 0.20), "
        "queue rose by 2.00 ms (4.00 → 6.00); compute is unchanged (1.70 ms)."
    )


def test_what_lies_between_is_told_without_the_guess_why() -> None:
    words = ("p99 is high.", "Likely: it is full.")
    firing = AlertChange(25, "p99", "firing", 120.0, since=20, words=words)
    view = folded([start(), *[second(at, 10.0, 2.0) for at in range(40)], firing])
    text = sentences(*both(view), view)[-1]
    assert text.startswith("Between them: 00:25 p99 latency > 100 ms for ")
    assert "Likely" not in text
    assert text.endswith(").")


@pytest.mark.parametrize(("one", "two"), [(20, 30), (10, 20), (20, 21)])
def test_what_happened_in_the_very_seconds_that_are_compared_lies_between_them(
    one: int, two: int
) -> None:
    view = told()
    before, after = (read(Moment(second, second + 1), view) for second in (one, two))
    assert "00:20 deploy" in sentences(before, after, view)[-1]


def test_the_card_that_serves_is_told_of_and_no_other() -> None:
    def cards(at: int, ours: float) -> Window:
        others = Gpu(0, "a card", utilization=1.0, throttle=("power cap",) if at > 20 else ())
        ours_is = Gpu(1, "a card", utilization=ours)
        return window(at, [10.0], machine=Machine(cpu=0.5, gpus=(others, ours_is)))

    seconds = [cards(at, 0.2 if at < 20 else 0.6) for at in range(40)]
    view = folded([start(device="cuda:1"), *seconds])
    one, two = both(view)
    assert ("GPU busy %", "20", "60") in [row[:3] for row in rows(one, two, None)]
    assert not any("held down" in line for line in sentences(one, two, view))


def test_the_same_moment_has_changed_in_nothing() -> None:
    view = told()
    one, two = both(view, 15, 18)
    text = sentences(one, two, view)
    assert text[0] == "p99 is about the same: 10.0 and 10.0 ms."
    assert text[-1] == "No alert and no mark lies between them."
    assert len(text) == 3
    assert {row.change for row in rows(one, two, None)} == {"≈ same"}


def test_where_both_fall_among_the_failed_no_time_is_the_same() -> None:
    view = folded([start(), *[window(at, [5.0] * 9, {"http_503": 9}) for at in range(40)]])
    text = sentences(*both(view), view)
    assert text[0] == "p99 has no time at either of them: so many requests fail."


def test_the_table_has_what_one_of_them_has() -> None:
    view = told()
    found = {row.name: row for row in rows(*both(view), 100 * MS)}
    assert found["p99 ms"][1:] == ("10.0", "60.0", "▲ 6.0×")
    assert found["done /s"][1:] == ("100", "80.0", "▼ -20 %")
    assert found["compute ms"].change == "≈ same"
    assert found["batch size rows"][1:3] == ("8.00", "32.0")
    assert found["GPU clock MHz"].change == "▼ -39 %"
    assert "GPU memory GB" not in found  # neither has it
    assert "GPU power W" not in found


def test_percentiles_among_the_failed_are_told_as_that() -> None:
    bad = [window(at, [5.0] * 10, failed={"http 503": 90}) for at in range(40, 60)]
    view = told(*bad)
    one, two = both(view, 20, 60)
    found = {row.name: row for row in rows(one, two, 100 * MS)}
    assert found["p99 ms"][1:] == ("10.0", "> 100", "▲")
    assert found["failed %"][1:3] == ("0", "90")
    rose = sentences(one, two, view)[0]
    assert rose == "p99 rose from 10.0 ms to where requests fail: it has no time any more."
    fell = sentences(two, one, view)[0]
    assert fell == "p99 fell from where requests fail to 10.0 ms."  # "from > 100 to 106": no fall
    assert found["queue ms"][2] == "n/a"


def test_a_moment_that_nobody_recorded_says_so() -> None:
    view = told()
    missing = read(Moment(500, 500), view)
    assert missing.window is None
    assert "Nothing is known of 08:20 yet" in sentences(both(view)[0], missing, view)[0]


def test_small_changes_are_none() -> None:
    assert same("p99", 10.0, 10.9)
    assert not same("p99", 10.0, 11.2)
    assert same("compute", 0.05, 0.12)  # by less than 0.1 ms
    assert not same("queue", 0.0, 5.0)
    assert same("p99", float("inf"), float("inf"))
