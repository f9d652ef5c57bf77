"""Reading runs: a growing file, a torn line, a late one, a cut one; long
ones by their index, and the past where one looks."""

import asyncio
import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace
from textual.message import Message

from dashboard.follow import Follow, Tail, Unreadable, ViewChanged
from dashboard.past import Past
from dashboard.scene import Sight, Source, scene
from dashboard.sureness import InView
from dashboard.travel import EVERY_S, Travel
from loadbench import logindex, runlog
from loadbench.merge import merge
from loadbench.model import AlertChange, End, Mark, Minute, Record, Window, encode
from loadbench.view import View, bins, fold, merged, recent
from tests.records import start, window
from tests.storyline import Story, records


def append(path: Path, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


def test_a_half_written_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.read() == ([], False)  # not there yet
    append(path, b"one\ntw")
    assert tail.read() == ([b"one"], False)
    assert tail.read() == ([], False)
    append(path, b"o\nthree\n")
    assert tail.read() == ([b"two", b"three"], False)


def test_a_cut_or_replaced_file_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    append(path, b"one\ntwo\nhal")
    tail.read()
    path.write_bytes(b"new\n")
    assert tail.read() == ([b"new"], True)
    other = tmp_path / "other"
    other.write_bytes(b"a longer file than before\n")
    os.replace(other, path)
    assert tail.read() == ([b"a longer file than before"], True)


def follow(
    folder: Path, write: Callable[[], None], enough: Callable[[Follow], bool]
) -> tuple[Follow, list[Message]]:
    """Follows while `write` runs in a thread, until there is enough or ten seconds are over."""
    reader, told = Follow(folder), list[Message]()

    async def both() -> None:
        task = asyncio.create_task(reader.run(told.append))
        writing = asyncio.to_thread(write)
        await writing
        until = time.monotonic() + 10
        while not enough(reader) and not task.done() and time.monotonic() < until:
            await asyncio.sleep(0.02)
        task.cancel()

    asyncio.run(both())
    return reader, told


def test_a_growing_log_is_followed_to_its_end(tmp_path: Path) -> None:
    def write() -> None:
        writer = runlog.Writer(tmp_path)
        for record in records(Story(seconds=40, end=None)):
            writer.write(record)
            time.sleep(0.01)
        writer.close(End(40, "done"))

    reader, told = follow(tmp_path, write, lambda reader: reader.view.end is not None)
    assert reader.view.newest == 40
    assert reader.view.end is not None
    assert all(isinstance(message, ViewChanged) for message in told)
    assert isinstance(told[-1], ViewChanged)
    assert told[-1].view == reader.view
    assert told[-1].can_replace(told[0])


class Stalled(Tail):
    """Of a shared disk that answers late."""

    def read(self) -> tuple[list[bytes], bool]:
        time.sleep(0.5)
        return super().read()


def test_a_disk_that_answers_late_does_not_stop_what_else_goes_on(tmp_path: Path) -> None:
    append(tmp_path / runlog.LOG, encode(start()) + b"\n")
    reader, told = Follow(tmp_path), list[Message]()

    async def both() -> float:
        task = asyncio.create_task(reader.run(told.append))
        while not told:
            await asyncio.sleep(0.01)
        reader._tail = Stalled(tmp_path / runlog.LOG, reader._tail.at)
        append(tmp_path / runlog.LOG, encode(window(0, [1.0])) + b"\n")
        longest, before = 0.0, time.monotonic()
        while reader.view.newest is None:
            await asyncio.sleep(0.01)
            longest, before = max(longest, time.monotonic() - before), time.monotonic()
        task.cancel()
        return longest

    assert asyncio.run(both()) < 0.4


def test_a_torn_second_is_shown_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / runlog.LOG
    line = encode(window(1, [2.0])) + b"\n"
    append(path, encode(start()) + b"\n" + encode(window(0, [1.0])) + b"\n" + line[:50])
    reader, _ = follow(tmp_path, lambda: time.sleep(0.3), lambda reader: True)
    assert reader.view.newest == 1

    def finish() -> None:
        time.sleep(0.3)
        append(path, line[50:])

    reader, _ = follow(tmp_path, finish, lambda reader: reader.view.newest == 2)
    assert reader.view.newest == 2


def test_a_line_that_is_no_record_ends_the_reading(tmp_path: Path) -> None:
    append(tmp_path / runlog.LOG, encode(start()) + b"\n{nonsense\n")
    _, told = follow(tmp_path, lambda: None, lambda reader: False)
    assert isinstance(told[-1], Unreadable)
    assert "{nonsense" in told[-1].reason


def test_a_log_that_begins_anew_forgets_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / runlog.LOG
    old = b"\n".join([encode(start()), *(encode(window(at, [1.0])) for at in range(9)), b""])
    path.write_bytes(old)

    def cut() -> None:
        time.sleep(0.4)
        path.write_bytes(encode(start(scenario="other")) + b"\n")

    reader, _ = follow(
        tmp_path, cut, lambda reader: bool(reader.view.start) and reader.view.newest is None
    )
    assert reader.view.start is not None
    assert reader.view.start.scenario == "other"


def long_log(folder: Path, minutes: int, end: bool = True) -> list[Record]:
    """A run of so many minutes with two seconds of warm-up, an alert that came and went, a mark."""
    told: list[Record] = [start()]
    told += [window(at, [1.0], stage="warmup") for at in (-2, -1)]
    told += [window(at, [5.0 + at % 7], rate=1.0) for at in range(60 * minutes)]
    told[100:100] = [AlertChange(97, "p99", "firing", 120.0, since=92), Mark(97, "deploy")]
    told[140:140] = [AlertChange(135, "p99", "ok", 50.0, since=92)]
    told += [End(60 * minutes, "done")] if end else []
    writer = runlog.Writer(folder)
    for record in told:
        if isinstance(record, End):
            writer.close(record)
        else:
            writer.write(record)
    writer._file.close()  # as a kill does
    return told


def opened(folder: Path, newest: int) -> Follow:
    return follow(folder, lambda: None, lambda reader: reader.view.newest == newest)[0]


def harm(log: Path, second: int) -> None:
    """Makes the line of a second unreadable without moving anything."""
    data = log.read_bytes()
    at = data.index(b'{"kind":"window","second":%d,' % second) + len(b'{"kind":"window",')
    log.write_bytes(data[:at] + b"!" + data[at + 1 :])


@pytest.mark.parametrize("end", [True, False])
def test_a_long_log_is_opened_from_its_minutes(tmp_path: Path, end: bool) -> None:
    told = long_log(tmp_path, 30, end)
    whole = functools.reduce(fold, told, View())
    harm(tmp_path / runlog.LOG, 700)  # of no matter: no second of then is read
    view = opened(tmp_path, 1800).view
    assert len(view.rings[0]) < 180
    assert view.totals == whole.totals
    assert view.first == whole.first
    assert view.warmed == whole.warmed
    assert view.alerts == whole.alerts
    assert view.evidence.lateness == whole.evidence.lateness
    assert merged(view.rings[2][:29]).latency == merged(whole.rings[2][:29]).latency  # type: ignore[union-attr]
    lasting = {"alert", "ended", "mark", "done", "stage"}
    assert [event for event in view.events if event.kind in lasting] == [
        event for event in whole.events if event.kind in lasting
    ]


def test_a_short_log_is_read_whole(tmp_path: Path) -> None:
    told = long_log(tmp_path, 4)
    assert opened(tmp_path, 240).view == functools.reduce(fold, told, View())


def test_what_is_appended_to_a_long_log_is_indexed_too(tmp_path: Path) -> None:
    told = [record for record in long_log(tmp_path, 20, end=False) if isinstance(record, Window)]

    def go_on() -> None:
        time.sleep(0.3)
        tail = [replace(told[-1], second=1200 + at) for at in range(60)]
        lines = [*tail, Minute(merge(tail), 60), *(replace(told[-1], second=1260),)]
        append(tmp_path / runlog.LOG, b"".join(encode(line) + b"\n" for line in lines))

    reader, _ = follow(tmp_path, go_on, lambda reader: reader.view.newest == 1261)
    *_, scanned = logindex.scan(tmp_path / runlog.LOG)
    assert reader._contents == scanned
    assert [block.second for block in scanned.blocks[-2:]] == [1140, 1200]


def look(folder: Path, view: View, past: Past, *given: Any) -> list[str]:
    """Lets it read what is wanted; what it complained of."""
    past.look(view, *given)
    return read(past)


def read(past: Past) -> list[str]:
    failed: list[str] = []

    async def some() -> None:
        done = asyncio.Event()
        if not past._wanted:
            return
        task = asyncio.create_task(
            past.run(lambda: None if past._wanted else done.set(), failed.append)
        )
        await asyncio.wait_for(done.wait(), 30)
        task.cancel()

    asyncio.run(some())
    return failed


def test_seconds_of_the_past_are_read_where_one_looks(tmp_path: Path) -> None:
    told = [r for r in long_log(tmp_path, 30) if isinstance(r, Window) and r.second >= 0]
    reader = opened(tmp_path, 1800)
    view, past = reader.view, reader.past
    assert {bin.seconds for bin in bins(view, 300, 600)} == {60}
    assert look(tmp_path, view, past, 300, 600) == []
    filled = past.filled(view, 300, 600)
    found = bins(filled, 300, 600)
    assert [bin.second for bin in found] == list(range(300, 600))
    assert all(bin.window.done == told[bin.second].done for bin in found)
    assert filled.newest == view.newest
    assert recent(filled, 455).latency == merge(told[445:455]).latency  # type: ignore[union-attr]


def test_a_single_second_of_a_wide_view_is_read_as_well(tmp_path: Path) -> None:
    long_log(tmp_path, 70)
    reader = opened(tmp_path, 4200)
    look(tmp_path, reader.view, reader.past, 0, 4200, [1234])
    found = bins(reader.past.filled(reader.view, 0, 4200), 0, 4200)
    early = [bin for bin in found if bin.second < 4000]
    assert {bin.seconds for bin in early} == {1, 60}
    assert [bin.second for bin in early if bin.seconds == 1] == list(range(1200, 1260))
    assert sum(bin.seconds for bin in found) == 4200


def test_an_hour_is_read_as_tens_and_no_more_is_kept_than_that(tmp_path: Path) -> None:
    long_log(tmp_path, 70)
    reader = opened(tmp_path, 4200)
    look(tmp_path, reader.view, reader.past, 300, 3900)
    found = bins(reader.past.filled(reader.view, 300, 3900), 300, 3900)
    assert [bin.second for bin in found] == list(range(300, 3900, 10))
    for begin in range(0, 2700, 900):  # seconds of all of it: more than is kept
        look(tmp_path, reader.view, reader.past, begin, begin + 900)
    kept = [found for both in reader.past._kept.values() for found in both.values()]
    assert sum(map(len, kept)) <= 1400


def test_what_was_read_closely_is_drawn_coarsely_from_further_away(tmp_path: Path) -> None:
    """Hundreds of seconds more in a picture of hours are not seen, but waited for."""
    long_log(tmp_path, 180)
    reader = opened(tmp_path, 10_800)
    for begin, end, widths in (
        (600, 1200, {1}), (0, 3600, {10}), (0, 7200, {60}), (600, 1200, {1}),
    ):  # fmt: skip
        look(tmp_path, reader.view, reader.past, begin, end)
        found = bins(reader.past.filled(reader.view, begin, end), begin, end)
        assert {bin.seconds for bin in found} == widths
        assert sum(bin.seconds for bin in found) == end - begin


def test_a_minute_that_is_not_read_yet_takes_the_band_from_no_figure(tmp_path: Path) -> None:
    long_log(tmp_path, 70)
    reader = opened(tmp_path, 4200)
    look(tmp_path, reader.view, reader.past, 300, 3900)
    del reader.past._kept[300]
    seen = scene(reader.past.filled(reader.view, 300, 3900), Sight(zoom=3600, at=3900), Source())
    assert InView().why_none(seen, 0.5) == ""


@pytest.mark.parametrize(("speed", "span"), [(60, 3600), (60, 900), (10, 3600)])
def test_what_is_played_has_its_last_ten_seconds_in_each_picture(
    tmp_path: Path, speed: int, span: int
) -> None:
    """The tiles show them: they are read before they come, though the charts need only tens."""
    long_log(tmp_path, 55)
    reader = opened(tmp_path, 3300)
    app: Any = SimpleNamespace(run_view=reader.view)
    travel, missing = Travel(app), []
    for at in range(1200, 3000, round(speed * EVERY_S)):
        app.sight = Sight(zoom=span, at=at, speed=speed, played=True)
        seen = scene(travel.seen(reader.past), app.sight, Source())
        if seen.recent_s != 10:
            missing.append(at)
        read(reader.past)
    assert missing == [1200]  # nobody knew where it would begin


def test_a_damaged_second_of_the_past_is_told_when_one_looks_there(tmp_path: Path) -> None:
    long_log(tmp_path, 30)
    harm(tmp_path / runlog.LOG, 700)
    reader = opened(tmp_path, 1800)
    failed = look(tmp_path, reader.view, reader.past, 600, 900)
    assert len(failed) == 1
    assert "damaged" in failed[0]
    assert {b.seconds for b in bins(reader.past.filled(reader.view, 600, 900), 600, 900)} == {1, 60}
