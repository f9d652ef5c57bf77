"""Reading runs: a growing file, a torn line, a late one, a cut one; and replay by a clock."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.message import Message

from dashboard.follow import (
    Follow,
    Replay,
    Tail,
    Unreadable,
    ViewChanged,
    due,
    newest_only,
)
from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.model import End, Mark, Minute, Record, encode
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


def test_a_long_backlog_opens_from_its_minutes(tmp_path: Path) -> None:
    writer = runlog.Writer(tmp_path)
    writer.write(start())
    for second in range(1800):
        writer.write(window(second, [1.0]))
    writer.write(Mark(1799, "late"))
    writer.close(End(1800, "done"))
    lines = (tmp_path / runlog.LOG).read_bytes().splitlines()
    kept = newest_only(lines)
    assert len(kept) == 1 + 900 + 30 + 2
    reader, _ = follow(tmp_path, lambda: None, lambda reader: reader.view.end is not None)
    assert reader.view.newest == 1800
    assert reader.view.totals.done == 1800
    short = lines[:700]
    assert newest_only(short) == short


def write_log(folder: Path, told: list[Record]) -> None:
    with open(folder / runlog.LOG, "wb") as file:
        file.writelines(encode(record) + b"\n" for record in told)


def test_replay_tells_the_run_by_its_clock(tmp_path: Path) -> None:
    write_log(tmp_path, list(records(Story(seconds=20))))
    replay, seen = Replay(tmp_path, speed=60), list[tuple[float, int]]()
    begun = time.monotonic()

    def note(message: Message) -> None:
        assert isinstance(message, ViewChanged)
        seen.append((time.monotonic() - begun, message.view.newest or 0))

    asyncio.run(replay.run(note))
    assert replay.view.end is not None
    assert replay.view.newest == 20
    assert seen[-1][0] > 0.3  # 22 s of a run at ×60 are not told at once
    assert len({newest for _, newest in seen}) > 2


def test_a_held_replay_stands_still(tmp_path: Path) -> None:
    write_log(tmp_path, list(records(Story(seconds=20))))
    replay = Replay(tmp_path, speed=1000)
    replay.held = True

    async def some() -> None:
        task = asyncio.create_task(replay.run(lambda message: None))
        await asyncio.sleep(0.5)
        assert replay.view.newest is None
        replay.held = False
        await asyncio.wait_for(task, 10)

    asyncio.run(some())
    assert replay.view.newest == 20


def test_records_are_due_when_their_second_is_over() -> None:
    assert due(start()) == float("-inf")
    assert due(window(7, [1.0])) == 8
    assert due(Mark(7, "x")) == 7
    assert due(Minute(window(0, [1.0]), 60)) == 60
    assert due(End(9, "done")) == 9


def test_a_replay_of_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        next(Replay(tmp_path)._records)
