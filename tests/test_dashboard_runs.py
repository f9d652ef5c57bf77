"""The screen of runs over real run folders: its rows, its keys, its empty and odd states."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from textual.containers import ScrollableContainer
from textual.pilot import Pilot
from textual.widgets import Button

from dashboard.app import NO_RUN, Dashboard
from dashboard.follow import Follow
from dashboard.keys import ACTIONS, RUNS
from dashboard.screens.ask import Choice
from dashboard.screens.help import Help
from dashboard.screens.page import Page, folded
from dashboard.screens.runs import Runs
from dashboard.theme import palette
from dashboard.widgets.runlist import COLUMNS, cells, fitting
from dashboard.widgets.runpanel import about
from loadbench import baseline, catalogue, runlog
from loadbench.catalogue import Entry
from loadbench.report.text import run_text
from tests.ended import finished, killed
from tests.stage import settle, text, until


@asynccontextmanager
async def listed(
    results: Path, size: tuple[int, int] = (120, 40)
) -> AsyncIterator[tuple[Runs, Pilot[Any]]]:
    """The dashboard on the list of these runs, all of them read."""
    none = results / NO_RUN
    app = Dashboard(none, Follow(none), theme="loadbench", first="runs")
    async with app.run_test(size=size) as pilot:
        screen = app.get_screen("runs")
        assert isinstance(screen, Runs)
        await until(pilot, lambda: screen._complete)
        yield screen, pilot


def lines(pilot: Pilot[Any]) -> list[str]:
    assert isinstance(pilot.app, Dashboard)
    return text(pilot.app).split("\n")


async def press(pilot: Pilot[Any], *keys: str) -> list[str]:
    await pilot.press(*keys)
    await settle(pilot)
    return lines(pilot)


def rows(found: list[str]) -> list[str]:
    """The list's rows, without its frame."""
    end = next(at for at, line in enumerate(found) if line.startswith("╰"))
    return [line.strip("│ ") for line in found[3:end] if line.strip("│ ")]


def several(results: Path) -> list[Path]:
    return [
        finished(results, "one", 20.0),
        finished(results, "two", 10.0, max_batch=8),
        finished(results, "three", 10.0, {"http 503": 400}, scenario="spike"),
        killed(results, "four"),
        killed(results, "five", pid=os.getpid()),
    ]


def test_rows_are_newest_first_and_say_how_each_run_stands(tmp_path: Path) -> None:
    several(tmp_path)
    damaged = finished(tmp_path, "six", 10.0)
    (damaged / runlog.SNAPSHOT).write_text('{"schema": 1, "sta')
    newer = finished(tmp_path, "seven", 10.0)
    snapshot = runlog.read_snapshot(newer)
    runlog.write_snapshot(newer, {**snapshot, "schema": 9, "loadbench": "3.0"})

    async def walk() -> None:
        async with listed(tmp_path) as (_, pilot):
            found = lines(pilot)
            assert "runs" in found[0]
            assert "·  7 runs" in found[0]
            shown = rows(found)
            assert [row.split()[0] for row in shown] == [f"000{n}" for n in range(7, 0, -1)]
            assert shown[0].endswith("✗ other version")
            assert shown[1].endswith("✗ unreadable")
            assert shown[2].endswith("● running")
            assert shown[3].endswith("✗ killed")
            assert "mlp cpu  steady" in shown[6]
            assert shown[6].split()[-8:] == ["500", "20.0", "20.0", "0%", "✓", "1/1", "■", "done"]
            assert ">100" in shown[4]
            assert "✗ 0/1" in shown[4]
            below = "\n".join(found)
            assert "written by loadbench 3.0: update this one to read it" in below
            assert "run.json is damaged" in "\n".join(await press(pilot, "down"))

    asyncio.run(walk())


def test_what_comes_and_goes_is_seen_and_the_cursor_stays_on_its_run(tmp_path: Path) -> None:
    several(tmp_path)

    async def walk() -> None:
        async with listed(tmp_path) as (screen, pilot):
            found = await press(pilot, "end", "up")
            assert any("─ 0002-two ─" in line for line in found)
            finished(tmp_path, "six", 10.0)
            shutil.rmtree(tmp_path / "0003-three")
            await until(pilot, lambda: "0006" in rows(lines(pilot))[0])
            assert len(rows(lines(pilot))) == 5
            assert any("─ 0002-two ─" in line for line in lines(pilot))
            four = tmp_path / "0004-four"
            runlog.write_snapshot(four, {**runlog.read_snapshot(four), "scenario": "other"})
            await until(pilot, lambda: any("other" in row for row in rows(lines(pilot))))
            assert len(rows(lines(pilot))) == 5
            assert screen.focused is screen.query_one("#runs")

    asyncio.run(walk())


def test_a_folder_that_takes_longer_than_from_one_look_to_the_next_is_read_to_its_end(
    tmp_path: Path,
) -> None:
    one = finished(tmp_path, "one", 10.0)
    for number in range(2, 500):
        folder = tmp_path / f"{number:04d}-more"
        folder.mkdir()
        shutil.copy(one / runlog.SNAPSHOT, folder)

    async def walk() -> None:
        none = tmp_path / NO_RUN
        app = Dashboard(none, Follow(none), theme="loadbench", first="runs")
        async with app.run_test(size=(120, 40)) as pilot:
            screen = app.get_screen("runs")
            assert isinstance(screen, Runs)
            for _ in range(2000):
                if screen._complete:
                    break
                screen._look()  # as the clock has it done, with less patience
                await pilot.pause(0.005)
            assert len(screen._listing.runs) == 499
            assert screen._complete

    asyncio.run(walk())


def test_marks_and_a_comparison_with_what_differs_first(tmp_path: Path) -> None:
    several(tmp_path)

    async def walk() -> None:
        async with listed(tmp_path) as (_, pilot):
            await press(pilot, "end", "c")
            assert len(pilot.app._notifications) == 1  # nothing to compare it with
            assert rows(await press(pilot, "x"))[-1].startswith("A   0001")
            await press(pilot, "up", "c")
            await until(pilot, lambda: "p99 ms" in "\n".join(lines(pilot)))
            page = "\n".join(lines(pilot))
            assert "Compare   A 0001   vs   B 0002" in page
            assert f"loadbench compare 0001 0002 --out {tmp_path}"[:60] in page
            assert page.index("engine.max_batch: 32 → 8") < page.index("p99 ms")
            assert "10.0  -50.0 %  ? inconclusive (1 run each)  1+1" in page
            await press(pilot, "up")  # B is the run under the cursor until it is marked
            await until(pilot, lambda: "B 0003" in "\n".join(lines(pilot)))
            await press(pilot, "down", "x")
            assert rows(lines(pilot))[-2].startswith("B   0002")
            await press(pilot, "up", "up")
            assert "B 0002" in "\n".join(lines(pilot))
            await press(pilot, "c")
            assert isinstance(pilot.app.screen, Page)
            await until(pilot, lambda: "--repeats" in "\n".join(lines(pilot)))
            await press(pilot, "escape", "escape", "escape")
            assert not any("Compare   A" in line for line in lines(pilot))
            assert not any(row.startswith(("A", "B")) for row in rows(lines(pilot)))

    asyncio.run(walk())


@pytest.mark.parametrize(("run", "said"), [("0004", "p99 ms"), ("0003", "different load")])
def test_a_killed_run_is_compared_and_different_work_is_said(
    tmp_path: Path, run: str, said: str
) -> None:
    several(tmp_path)
    three = tmp_path / "0003-three"
    snapshot = runlog.read_snapshot(three)
    snapshot["spec"]["load"]["seed"] = 8
    runlog.write_snapshot(three, snapshot)

    async def walk() -> None:
        async with listed(tmp_path) as (_, pilot):
            await press(pilot, "end", "x", *["up"] * (int(run) - 1), "c")
            await until(pilot, lambda: said in "\n".join(lines(pilot)))

    asyncio.run(walk())


def test_a_summary_that_lacks_its_figures_is_said_not_raised(tmp_path: Path) -> None:
    several(tmp_path)
    two = tmp_path / "0002-two"
    runlog.write_snapshot(two, {**runlog.read_snapshot(two), "summary": {"asked": 7}})

    async def walk() -> None:
        async with listed(tmp_path) as (_, pilot):
            await press(pilot, "end", "x", "up", "c")
            said = "summary of 0001-one or 0002-two is damaged"
            await until(pilot, lambda: said in "\n".join(lines(pilot)))

    asyncio.run(walk())


def test_a_baseline_is_set_marked_compared_with_and_taken_away(tmp_path: Path) -> None:
    several(tmp_path)

    async def walk() -> None:
        async with listed(tmp_path) as (_, pilot):
            found = await press(pilot, "end", "b")
            assert rows(found)[-1].startswith("*  0001")
            assert any("* baseline ─╯" in line for line in found)
            assert baseline.read(tmp_path) == {"steady": "0001-one"}
            await press(pilot, "up", "c")
            await until(pilot, lambda: "A 0001 (baseline)" in "\n".join(lines(pilot)))
            await press(pilot, "up", "c")  # of another scenario, which has none
            assert "Nothing to compare with yet" in "\n".join(lines(pilot))
            await press(pilot, "end", "b")
            assert baseline.read(tmp_path) == {}

    asyncio.run(walk())


def test_a_damaged_file_of_baselines_does_not_hide_the_runs(tmp_path: Path) -> None:
    several(tmp_path)
    (tmp_path / baseline.FILE).write_text("{")

    async def walk() -> None:
        async with listed(tmp_path) as (_, pilot):
            assert len(rows(lines(pilot))) == 5
            (said,) = pilot.app._notifications
            assert "baselines.json: cannot be read" in said.message
            await press(pilot, "end", "b")
            assert (tmp_path / baseline.FILE).read_text() == "{"

    asyncio.run(walk())


def test_the_filter_takes_words_and_escape_brings_all_back(tmp_path: Path) -> None:
    several(tmp_path)

    async def walk() -> None:
        async with listed(tmp_path) as (screen, pilot):
            found = await press(pilot, "slash", *"spi")
            assert "1 of 5 runs  ·  filter: spi" in found[0]
            await press(pilot, "enter")
            assert screen.focused is screen.query_one("#runs")
            await press(pilot, "slash", *"zz")
            assert any("No run has all these words" in line for line in lines(pilot))
            await press(
                pilot, "enter", "x", "r", "v", "w", "y", "delete", "b", "enter"
            )  # no run is there
            assert pilot.app.screen is screen
            found = await press(pilot, "escape")
            assert "·  5 runs" in found[0]
            assert len(rows(found)) == 5

    asyncio.run(walk())


def test_no_runs_says_what_to_do_and_the_first_one_appears(tmp_path: Path) -> None:
    results = tmp_path / "results"

    async def walk() -> None:
        async with listed(results, (80, 24)) as (_, pilot):
            whole = " ".join(lines(pilot))
            assert "No runs in" in whole
            assert "loadbench run steady" in whole
            finished(results, "one", 10.0)
            await until(pilot, lambda: "─ 0001-one ─" in "\n".join(lines(pilot)))
            assert len(rows(lines(pilot))) == 1

    asyncio.run(walk())


def test_the_summary_is_what_show_prints_also_of_a_killed_run(tmp_path: Path) -> None:
    several(tmp_path)
    (tmp_path / "0002-two" / runlog.LOG).write_text("no record\n")

    async def walk() -> None:
        async with listed(tmp_path) as (screen, pilot):
            await press(pilot, "down", "v")
            await until(pilot, lambda: "LATENCY" in "\n".join(lines(pilot)))
            assert any("✗ killed" in line for line in lines(pilot))
            await press(pilot, "escape", "down", "down", "v")
            folded_anywhere = re.compile(r"is\W+no\W+record")
            await until(pilot, lambda: folded_anywhere.search("\n".join(lines(pilot))))
            await press(pilot, "q")
            assert pilot.app.screen is screen

    asyncio.run(walk())


def test_long_lines_of_a_summary_are_folded_and_none_is_cut(tmp_path: Path) -> None:
    several(tmp_path)

    async def walk() -> None:
        async with listed(tmp_path, (60, 16)) as (_, pilot):
            await press(pilot, "end", "v")
            await until(pilot, lambda: "CHECKS" in "\n".join(lines(pilot)))
            for width in (60, 80, 60):
                await pilot.resize_terminal(width, 16)
                await settle(pilot)
                sheet = pilot.app.screen.query_one(ScrollableContainer)
                assert not sheet.show_horizontal_scrollbar

    asyncio.run(walk())
    text = run_text(tmp_path / "0001-one")
    assert "".join(folded(text, 50).split()) == "".join(text.split())
    assert max(map(len, folded(text, 50).splitlines())) <= 50
    assert "\n" + " " * 12 + "1,500 requests" in folded(text, 50)  # below the words, not the label


def test_a_page_with_lines_that_are_too_long_says_that_they_go_on(tmp_path: Path) -> None:
    several(tmp_path)

    async def walk() -> None:
        async with listed(tmp_path) as (_, pilot):
            for long, told in ((150, True), (40, False)):
                pilot.app.push_screen(Page("Table", partial(str, "a   b   " + "c" * long)))
                await until(pilot, lambda: "ccc" in "\n".join(lines(pilot)))
                found = "\n".join(lines(pilot))
                assert ("→ = the rest of the lines   esc = back" in found) == told
                assert "esc = back" in found
                await press(pilot, "escape")

    asyncio.run(walk())


def test_a_comparison_fits_the_page_however_wide_it_is(tmp_path: Path) -> None:
    several(tmp_path)

    async def walk() -> None:
        async with listed(tmp_path, (60, 16)) as (_, pilot):
            await press(pilot, "end", "x", "up", "x", "c", "c")
            await until(pilot, lambda: "throughput /s" in "\n".join(lines(pilot)))
            for width, reason in ((60, False), (100, True), (60, False)):
                await pilot.resize_terminal(width, 24)
                await settle(pilot)
                found = "\n".join(lines(pilot))
                assert ("? inconclusive (1 run each)" in found) == reason
                assert "? inconclusive" in found
                sheet = pilot.app.screen.query_one(ScrollableContainer)
                assert not sheet.show_horizontal_scrollbar

    asyncio.run(walk())


def test_enter_replays_what_is_over_and_follows_what_goes_on(tmp_path: Path) -> None:
    several(tmp_path)

    async def walk() -> None:
        async with listed(tmp_path) as (screen, pilot):
            app = pilot.app
            assert isinstance(app, Dashboard)
            await press(pilot, "1")
            assert "○ NO RUN" in lines(pilot)[0]
            await press(pilot, "4", "enter")
            await until(pilot, lambda: app.run_view.newest == 3)
            assert app.screen is app.get_screen("live")
            assert isinstance(app.reader, Follow)
            assert app.folder == tmp_path / "0005-five"
            await press(pilot, "4")
            assert "● RUNNING" in lines(pilot)[0]  # the list does not hide how the open run is
            await press(pilot, "end", "enter")
            await until(pilot, lambda: app.folder == tmp_path / "0001-one")
            assert app.reader.play == 1
            await press(pilot, "4", "escape")
            assert app.screen is app.get_screen("live")
            (tmp_path / "0002-two" / runlog.LOG).unlink()
            await press(pilot, "4", "up", "enter")
            assert app.screen is screen
            assert "log.ndjson" in list(app._notifications)[-1].message

    asyncio.run(walk())


def test_deleting_asks_and_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    several(tmp_path)
    baseline.put(tmp_path, "steady", tmp_path / "0002-two")

    async def walk() -> None:
        async with listed(tmp_path) as (screen, pilot):
            await press(pilot, "delete")  # 0005 goes on
            assert pilot.app.screen is screen
            assert "goes on" in list(pilot.app._notifications)[-1].message
            await press(pilot, "end", "up", "delete")
            assert isinstance(pilot.app.screen, Choice)
            assert any("It is a baseline" in line for line in lines(pilot))
            assert isinstance(pilot.app.focused, Button)
            await press(pilot, "enter")  # the safe answer is the one in focus
            assert (tmp_path / "0002-two").exists()
            await press(pilot, "delete", "left", "enter")
            await until(pilot, lambda: len(rows(lines(pilot))) == 4)
            assert not (tmp_path / "0002-two").exists()

    asyncio.run(walk())


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (120, 40), (200, 60)])
def test_it_fits_at_every_size_and_through_any_resize(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    several(tmp_path)
    baseline.put(tmp_path, "steady", tmp_path / "0001-one")

    async def walk() -> None:
        async with listed(tmp_path, size) as (_, pilot):
            first = lines(pilot)
            narrow = size[0] == 60
            for word in ("run", "scenario", "req/s", "p99", "checks", "state"):
                assert word in first[2]
            assert ("err" in first[2]) == (size[0] >= 120)
            assert len(rows(first)) == 5
            assert all(len(line) <= size[0] for line in first)
            await press(pilot, "end", "up", "c")
            await until(pilot, lambda: "p99 ms" in "\n".join(lines(pilot)))
            assert isinstance(pilot.app.screen, Page) == narrow
            await press(pilot, "escape")
            in_focus = pilot.app.focused
            for other in ((200, 60), (50, 12), (80, 24), (60, 16), size):
                await pilot.resize_terminal(*other)
                await settle(pilot)
                if other == (50, 12):
                    assert "loadbench needs 60×16, this is 50×12" in "\n".join(lines(pilot))
            assert pilot.app.focused is in_focus
            await press(pilot, "home")
            assert [row.split()[-1] for row in rows(lines(pilot))] == [
                row.split()[-1] for row in rows(first)
            ]

    asyncio.run(walk())


def test_columns_go_by_rank_and_names_get_shorter_first() -> None:
    natural = [2, 4, 11, 20, 12, 5, 5, 5, 5, 6, 10]
    whole = fitting(natural, 200)
    assert list(whole.values()) == natural
    tight = fitting(natural, 100)
    assert len(tight) == len(COLUMNS)
    assert sum(tight.values()) + 2 * (len(tight) - 1) == 100
    titles = [COLUMNS[at].title for at in fitting(natural, 54)]
    assert titles == ["", "run", "scenario", "req/s", "p99", "checks", "state"]


def test_palette_and_help_have_what_the_keys_do(tmp_path: Path) -> None:
    several(tmp_path)

    async def walk() -> None:
        async with listed(tmp_path, (120, 60)) as (screen, pilot):
            commands = {found.title: found for found in pilot.app.get_system_commands(screen)}
            assert {f"{action.group}: {action.title}" for action in RUNS} <= set(commands)
            bound = {binding.id for _, binding in screen._bindings}
            assert {action.id for action in RUNS} <= bound
            result = commands["Runs: View the run's summary"].callback()
            assert result is not None
            await result
            await until(pilot, lambda: isinstance(pilot.app.screen, Page))
            await press(pilot, "escape", "question_mark")
            assert isinstance(pilot.app.screen, Help)
            whole = "\n".join(lines(pilot))
            for action in (*RUNS, *ACTIONS):
                assert action.title in whole
            assert "* is a baseline" in whole

    asyncio.run(walk())


def test_a_thousand_runs_are_listed_and_walked_through(tmp_path: Path) -> None:
    folder = finished(tmp_path, "one", 10.0)
    data = json.loads((folder / runlog.SNAPSHOT).read_text())
    for number in range(2, 1001):
        more = tmp_path / f"{number:04d}-more"
        more.mkdir()
        (more / runlog.SNAPSHOT).write_text(json.dumps({**data, "run": more.name}))

    async def walk() -> None:
        async with listed(tmp_path) as (_, pilot):
            assert "·  1,000 runs" in lines(pilot)[0]
            assert rows(lines(pilot))[0].startswith("1000")
            assert any("0001-one" in line for line in await press(pilot, "end"))
            found = await press(pilot, "slash", *"more-7")
            assert "·  filter: more-7" in found[0]

    asyncio.run(walk())


def test_a_series_says_how_often_it_was_run() -> None:
    now = datetime.now().astimezone()
    series = Entry("0007-steady", "0007-steady", "done", scenario="steady", repeats=6)
    assert "steady ×6" in cells(series, now)
    assert "steady" in cells(replace(series, repeats=1), now)


def test_below_the_list_percentiles_stand_with_their_bands_or_why_they_have_none(
    tmp_path: Path,
) -> None:
    entry = catalogue.entry(finished(tmp_path, "one", 10.0))
    assert entry is not None

    def said(**changes: Any) -> str:
        return about(replace(entry, **changes), palette("loadbench")).plain

    assert "p50 10.0 ms   p99 10.0 ms   no ±: 80 seconds at one rate are needed\n" in said()
    sure = said(bands_ms={"p50": (9.5, 10.4), "p99": (9.0, None)}, no_bands="")
    assert "p99 10.0 (≥ 9.00) ms   ± holds at 95 %\n" in sure
    assert "✓ p99 10.0 (≥ 9.00) ms < 100 ms" in sure
    assert "no ±: it is a median of repeats" in said(repeats=6)
    assert "±" not in said(p50_ms=None, p99_ms=None)
