"""Going through a run in time, by keys and by mouse, on logs as a runner writes them."""

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.geometry import Offset
from textual.pilot import Pilot

from dashboard.app import Dashboard
from dashboard.follow import Follow
from dashboard.screens.live import LatencyChart
from dashboard.widgets.alerting import Rules
from dashboard.widgets.header import Header
from dashboard.widgets.panels import Events
from dashboard.widgets.picker import Picker
from loadbench import runlog
from loadbench.model import End, Window
from loadbench.view import View, fold, merged, pieces
from tests.ended import GONE
from tests.stage import settle, text
from tests.storyline import Story, records

STORY = Story()  # 240 s: a mark in 149, an alert in 155 that ends in 182


@functools.cache
def known() -> View:
    return functools.reduce(fold, records(STORY), View())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "0001-spike"
    path.mkdir()
    runlog.write_snapshot(path, {"state": "done", "summary": {}})
    writer = runlog.Writer(path)
    for record in records(STORY):
        if isinstance(record, End):
            writer.close(record)
        else:
            writer.write(record)
    return path


@asynccontextmanager
async def attached(
    folder: Path, size: tuple[int, int] = (120, 40), play: int = 0
) -> AsyncIterator[tuple[Dashboard, Pilot[Any]]]:
    """The dashboard on the folder, its whole log read."""
    app = Dashboard(folder, Follow(folder, play), theme="loadbench")
    async with app.run_test(size=size) as pilot:
        while app.run_view.end is None:
            await pilot.pause(0.05)
        await settle(pilot)
        yield app, pilot


async def press(pilot: Pilot[Any], *keys: str) -> list[str]:
    await pilot.press(*keys)
    await settle(pilot)
    assert isinstance(pilot.app, Dashboard)
    return text(pilot.app).split("\n")


def test_from_alert_to_mark_and_back(folder: Path) -> None:
    async def walk() -> None:
        async with attached(folder) as (app, pilot):
            lines = await press(pilot, "left_square_bracket")
            assert "VIEW PAUSED  at 02:35 of 04:00" in lines[0]
            assert "▲ 1 alert" in lines[0]  # as it stood then, though it is over now
            assert lines[1].startswith(" ▽ 02:35  ▲ p99 latency > 100 ms")
            assert any("▽" in line[7:79] for line in lines[9:26])
            lines = await press(pilot, "left_square_bracket")
            assert "at 02:29" in lines[0]
            assert "1 alert" not in lines[0]
            assert "◆ contention started" in lines[1]
            lines = await press(pilot, "left_square_bracket")
            assert lines[-1].startswith(" There is no earlier alert or mark.")
            assert app.sight.cursor == 149
            await press(pilot, "right_square_bracket")
            assert app.sight.cursor == 155
            lines = await press(pilot, "end")
            assert "■ DONE" in lines[0]
            assert app.sight.cursor is None

    asyncio.run(walk())


def test_the_figures_of_one_second_are_those_of_the_log(folder: Path) -> None:
    windows = {r.second: r for r in records(STORY) if isinstance(r, Window)}

    async def walk() -> None:
        async with attached(folder, (200, 60)) as (app, pilot):
            await press(pilot, "plus", "left_square_bracket")
            for key, second in (("left", 154), ("left", 153), ("right", 154)):
                line = (await press(pilot, key))[1]
                window = windows[second]
                assert f"▽ 02:{second - 120}" in line
                assert f"done {window.done} of {window.asked}/s" in line
                assert window.server is not None
                assert f"waiting {window.server.waiting}" in line
            scene = app.scene()
            expected = merged(pieces(known(), 145, 155))
            assert scene.recent is not None
            assert expected is not None
            assert scene.recent.latency == expected.latency  # the tiles: ten seconds to it
            assert app.sight.cursor is not None
            await press(pilot, "i")
            assert app.sight.cursor is None

    asyncio.run(walk())


def test_a_run_is_played_from_where_one_is(folder: Path) -> None:
    async def walk() -> None:
        async with attached(folder) as (app, pilot):
            await press(pilot, "left_square_bracket", "full_stop", "full_stop")
            lines = await press(pilot, "p")
            assert "↺ REPLAY  ×60 0" in lines[0]
            while app.sight.at is not None and app.sight.at < 170:
                await pilot.pause(0.05)
            stood = await press(pilot, "space")
            assert "VIEW PAUSED" in stood[0]
            assert "space = play on" in stood[0]
            at = app.sight.at
            await pilot.pause(0.7)  # longer than from one picture to the next
            assert app.sight.at == at
            await press(pilot, "space")
            while app.sight.at is not None:
                await pilot.pause(0.05)
            await settle(pilot)
            assert "■ DONE  04:00" in text(app)

    asyncio.run(walk())


def test_a_replay_begins_at_the_beginning_and_knows_no_later_event(folder: Path) -> None:
    async def walk() -> None:
        async with attached(folder, play=1) as (app, pilot):
            lines = text(app).split("\n")
            assert "↺ REPLAY  ×1 00:0" in lines[0]
            assert not any("contention" in line for line in lines)
            await press(pilot, "full_stop", "full_stop")
            assert app.sight.speed == 60
            while app.sight.at is not None and app.sight.at < 160:
                await pilot.pause(0.05)
            await settle(pilot)
            assert any("contention" in line for line in text(app).split("\n"))

    asyncio.run(walk())


def test_what_is_played_now_is_not_played_again(folder: Path, tmp_path: Path) -> None:
    lines = (folder / runlog.LOG).read_bytes().splitlines(keepends=True)
    (tmp_path / runlog.LOG).write_bytes(b"".join(lines[:-1]))  # a run that goes on

    async def walk() -> None:
        app = Dashboard(tmp_path, Follow(tmp_path), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            while app.run_view.newest != 240:
                await pilot.pause(0.05)
            lines = await press(pilot, "p")
            assert app.sight.at is None
            assert lines[-1].startswith(" This is now.")
            lines = await press(pilot, "left", "p")
            assert "↺ REPLAY" in lines[0]

    asyncio.run(walk())


def test_a_run_whose_runner_is_gone_is_played_from_its_beginning(
    folder: Path, tmp_path: Path
) -> None:
    lines = (folder / runlog.LOG).read_bytes().splitlines(keepends=True)
    (tmp_path / runlog.LOG).write_bytes(b"".join(lines[:-1]))
    runlog.write_snapshot(tmp_path, {"state": "running", "pid": GONE})

    async def walk() -> None:
        app = Dashboard(tmp_path, Follow(tmp_path), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            while not (app.killed and app.run_view.newest == 240):
                await pilot.pause(0.05)
            lines = await press(pilot, "p")
            assert "↺ REPLAY" in lines[0]
            assert app.sight.at is not None
            assert app.sight.at < 60

    asyncio.run(walk())


def test_two_moments_are_kept_and_compared(folder: Path) -> None:
    async def walk() -> None:
        async with attached(folder) as (app, pilot):
            await press(pilot, "left_square_bracket", "left_square_bracket", "comma")
            assert len(app.sight.moments) == 1
            lines = await press(pilot, "right_square_bracket", "right", "right", "comma")
            screen = "\n".join(lines)
            assert "What changed from A 02:29 to B 02:39" in screen
            assert "· p99 rose from 19.1 to 80.3 ms." in screen
            assert "59.4 ms longer: queue rose by 60.0 ms (3.08 → 63.1)" in screen
            assert "compute is unchanged" in screen
            assert "02:35 p99 latency > 100 ms" in screen
            row = next(line for line in lines if "waiting " in line[:12])
            assert row.split()[2:5] == ["12", "62", "▲"]
            lines = await press(pilot, "escape")
            chart = "\n".join(line[7:79] for line in lines[9:26])
            assert "A" in chart
            assert "B" in chart
            assert "What changed from A" in "\n".join(await press(pilot, "d"))
            await press(pilot, "escape", "comma")  # a third press begins anew
            assert [moment.second for moment in app.sight.moments] == [159]

    asyncio.run(walk())


def test_sentences_that_find_no_room_are_seen_large(folder: Path) -> None:
    async def walk() -> None:
        async with attached(folder, (60, 16)) as (_, pilot):
            await press(pilot, "left_square_bracket", "left_square_bracket", "comma")
            keys = ("right_square_bracket", "right", "right", "comma")
            small = "\n".join(await press(pilot, *keys))
            assert "… more: enter makes this large" in small
            assert "Between them" not in small
            large = "\n".join(await press(pilot, "enter"))
            assert "… more" not in large
            assert "Between them" in large
            assert "\n".join(await press(pilot, "escape")) == small
            assert "What changed" not in "\n".join(await press(pilot, "escape"))

    asyncio.run(walk())


def test_without_two_moments_the_screen_says_how(folder: Path) -> None:
    async def walk() -> None:
        async with attached(folder, (80, 24)) as (_, pilot):
            lines = await press(pilot, "d")
            assert any("press , for A" in line for line in lines)

    asyncio.run(walk())


def test_a_click_into_a_chart_looks_at_that_second(folder: Path) -> None:
    async def walk() -> None:
        async with attached(folder) as (app, pilot):
            chart = app.screen.query_one(LatencyChart)
            scene = app.scene()
            width = chart.size.width - 6
            for column in (10, 40, width - 1):
                await pilot.click(chart, offset=(1 + 6 + column, 5))
                await settle(pilot)
                second = app.sight.cursor
                assert second is not None
                assert second * width // scene.span == column
                assert f"▽ {second // 60:02d}:{second % 60:02d}" in text(app).split("\n")[1]
            await pilot.click(chart, offset=(3, 5))  # the axis is no second
            await settle(pilot)
            assert app.sight.cursor == second

    asyncio.run(walk())


def test_a_click_at_a_sign_goes_to_its_event(folder: Path) -> None:
    async def walk() -> None:
        async with attached(folder) as (app, pilot):
            chart = app.screen.query_one(LatencyChart)
            for x in range(chart.size.width):
                if chart.second_at(x) == 155:
                    await pilot.click(chart, offset=(1 + x, 1))
                    break
            await settle(pilot)
            assert app.sight.cursor == 155
            assert "▲ p99 latency" in text(app).split("\n")[1]

    asyncio.run(walk())


def test_a_click_at_an_event_goes_there(folder: Path) -> None:
    async def walk() -> None:
        async with attached(folder) as (app, pilot):
            events = app.screen.query_one(Events)
            row = next(at for at, event in enumerate(events._rows) if event.kind == "alert")
            await pilot.click(events, offset=(4, 1 + row))
            await settle(pilot)
            assert app.sight.cursor == 155
        async with attached(folder, (80, 24)) as (app, pilot):
            await pilot.click("#ticker", offset=(4, 0))
            while app.sight.cursor is None:
                await pilot.pause(0.05)
            assert app.sight.cursor == 239  # the end of the run: its last second

    asyncio.run(walk())


def test_the_wheel_zooms_around_the_mouse(folder: Path) -> None:
    async def walk() -> None:
        async with attached(folder) as (app, pilot):
            await press(pilot, "left")
            chart = app.screen.query_one(LatencyChart)
            x = 40
            before = chart.second_at(x)
            place = chart.content_region.offset + Offset(x, 5)
            await pilot._post_mouse_events(  # as `click` does; the pilot has no wheel
                [_up()], widget=None, offset=(place.x, place.y)
            )
            await settle(pilot)
            assert app.scene().span == 60
            after = chart.second_at(x)
            assert before is not None
            assert after is not None
            assert abs(after - before) <= 4

    asyncio.run(walk())


def _up() -> Any:
    from textual.events import MouseScrollUp

    return MouseScrollUp


def test_dragging_moves_the_picture(folder: Path) -> None:
    async def walk() -> None:
        async with attached(folder) as (app, pilot):
            await press(pilot, "plus")
            chart = app.screen.query_one(LatencyChart)
            await pilot.mouse_down(chart, offset=(30, 5))
            await pilot.hover(chart, offset=(60, 5))
            await pilot.mouse_up(chart, offset=(60, 5))
            await settle(pilot)
            width = chart.size.width - 6
            assert app.sight.at == 240 - 30 * 60 // width
            assert app.sight.cursor is None  # it was no click

    asyncio.run(walk())


def test_a_click_into_the_bar_goes_to_that_part_of_the_run(folder: Path) -> None:
    async def walk() -> None:
        async with attached(folder, (160, 40)) as (app, pilot):
            await press(pilot, "left")
            header = app.screen.query_one(Header)
            assert header._bar_at is not None
            assert text(app).split("\n")[0][header._bar_at] == "━"
            await pilot.click(header, offset=(header._bar_at + 9, 0))
            await settle(pilot)
            assert app.sight.cursor == 120

    asyncio.run(walk())


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (120, 40), (200, 60)])
def test_all_of_it_fits_every_size(folder: Path, size: tuple[int, int]) -> None:
    async def walk() -> None:
        async with attached(folder, size) as (app, pilot):
            for keys in (("left_square_bracket",), ("comma",), ("left", "comma"), ("escape",)):
                lines = await press(pilot, *keys)
                assert len(lines) == size[1]
                assert all(len(line) <= size[0] for line in lines)
                assert not app.screen.show_vertical_scrollbar

    asyncio.run(walk())


def test_what_a_key_comes_to_is_said_on_the_list_of_runs_too(folder: Path) -> None:
    """The palette offers all commands there."""

    async def walk() -> None:
        async with attached(folder) as (app, pilot):
            app.action_go("runs")
            await settle(pilot)
            for ask, words in (
                (app.driver.ask_mark, "Nothing to mark: this run is over."),
                (app.driver.ask_stop, "Nothing to stop: this run is over."),
                (lambda: app.say("with [brackets] and [/]"), "with [brackets] and [/]"),
            ):
                ask()
                await settle(pilot)
                assert words in text(app)

    asyncio.run(walk())


def test_a_filter_of_brackets_is_words(folder: Path) -> None:
    async def walk() -> None:
        async with attached(folder) as (app, pilot):
            app.action_go("alerts")
            await settle(pilot)
            for words in ("[/]", "[p99]", "p99"):
                for board in app.screen.query(Picker):
                    board.words = words
                app.redraw()
                await settle(pilot)
                assert f"only: {words}" in text(app)

    asyncio.run(walk())


def test_who_leaves_is_shown_no_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts of a screen go one by one, and what was to be drawn soon may find half of them."""
    whole = Dashboard._close_all

    async def in_parts(app: Dashboard) -> None:
        await app.screen.query(Rules).remove()
        app.redraw()
        await whole(app)

    monkeypatch.setattr(Dashboard, "_close_all", in_parts)

    async def walk() -> None:
        async with attached(folder) as (app, pilot):
            app.action_go("alerts")
            await settle(pilot)

    asyncio.run(walk())
