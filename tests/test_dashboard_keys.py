"""Keys and palette: each does what help says of it, and both lists are the same."""

import asyncio
import json
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.events import Key
from textual.pilot import Pilot
from textual.widgets import Button, Input

from dashboard.app import Dashboard
from dashboard.keys import ACTIONS
from dashboard.screens.ask import Choice, Word
from dashboard.screens.help import Help
from dashboard.screens.logs import Logs
from dashboard.screens.run import RunScreen
from loadbench import runlog
from loadbench.view import fold
from tests.records import window
from tests.stage import settle, shown, text, told
from tests.storyline import Story

RUNNING = Story(end=None)


async def press(pilot: Pilot[Any], *keys: str) -> list[str]:
    """The screen's lines after the keys."""
    await pilot.press(*keys)
    await settle(pilot)
    app = pilot.app
    assert isinstance(app, Dashboard)
    return text(app).split("\n")


def test_pausing_freezes_the_view_and_not_the_run() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING)) as (app, pilot):
            frozen = await press(pilot, "space")
            assert "‖ VIEW PAUSED" in frozen[0]
            for second in range(240, 250):
                app.run_view = fold(app.run_view, window(second, [50.0] * 9))
            app.redraw()
            await settle(pilot)
            later = text(app).split("\n")
            assert "run is at 04:10" in later[0]
            assert later[8:27] == frozen[8:27]
            back = await press(pilot, "end")
            assert "● RUNNING  04:10" in back[0]
            assert back[8:27] != frozen[8:27]

    asyncio.run(walk())


def test_zoom_in_and_out_and_all() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING)) as (_, pilot):
            assert "-4m" in (await press(pilot))[25]
            closer = await press(pilot, "plus")
            assert "-1m" in closer[25]
            assert "(mean request, last 1m)" in closer[27]
            assert "1 column" not in closer[26]
            assert "-4m" in (await press(pilot, "minus"))[25]
            wide = await press(pilot, "minus")
            assert "-15m" in wide[25]
            assert "1 column = 12 s" in wide[26]
            assert "-1h" in (await press(pilot, "minus"))[25]
            assert "last 4m" in (await press(pilot, "0"))[27]  # the whole run is 4 minutes

    asyncio.run(walk())


def test_moving_shows_another_time_in_all_panels() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING)) as (_, pilot):
            lines = await press(pilot, "plus", *["left"] * 6)
            assert "VIEW PAUSED  at 02:48" in lines[0]
            assert any("▲" in line[7:79] for line in lines[8:25])  # the alert of 02:35
            assert lines[25].split("││")[0].rstrip().endswith("02:48")
            later = await press(pilot, "right")
            assert "at 03:00" in later[0]
            gone = await press(pilot, *["left"] * 16)
            assert "at 00:01" in gone[0]

    asyncio.run(walk())


def test_a_logarithmic_axis() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING)) as (_, pilot):
            lines = await press(pilot, "l")
            labels = [line[1:6].strip() for line in lines[8:25] if "┤" in line[:8]]
            assert labels == ["100", "50", "20"]
            assert "log scale" in lines[26]
            assert "log scale" not in (await press(pilot, "l"))[26]

    asyncio.run(walk())


def test_enter_makes_the_focused_panel_large_and_escape_restores() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING)) as (app, pilot):
            await press(pilot, "tab", "tab", "tab")
            assert app.focused is not None
            assert app.focused.id == "throughput"
            large = await press(pilot, "enter")
            assert app.screen.maximized is app.focused
            assert not any("Events" in line for line in large)
            assert any("Events" in line for line in await press(pilot, "escape"))

    asyncio.run(walk())


def test_enter_without_a_panel_in_focus_leads_to_no_other_screen() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING)) as (app, pilot):
            lines = await press(pilot, "2", "enter")
            assert app.screen is app.get_screen("engine")
            assert "No panel is in focus: tab" in lines[-1]
            await press(pilot, "tab", "enter")
            assert app.screen.maximized is not None

    asyncio.run(walk())


def test_help_names_every_action() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), (120, 50)) as (app, pilot):
            whole = "\n".join(await press(pilot, "question_mark"))
            assert isinstance(app.screen, Help)
            for action in ACTIONS:
                assert action.title in whole
            assert "tab brings the next panel into focus" in whole
            assert "ctrl+p" in whole
            await press(pilot, "escape")
            assert isinstance(app.screen, RunScreen)

    asyncio.run(walk())


def test_palette_and_keys_are_the_same_list() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING)) as (app, _):
            commands = {command.title for command in app.get_system_commands(app.screen)}
            assert {f"{action.group}: {action.title}" for action in ACTIONS} <= commands
            bound = {binding.id for _, binding in app.screen._bindings}
            assert {action.id for action in ACTIONS} <= bound
            keys = {key for action in ACTIONS for key in action.key.split(",")}
            others = set(app.screen._bindings.key_to_bindings) - keys
            assert others <= {"shift+tab", "super+c"}  # Textual's own, for hands that know them
            assert "View: colours for light terminals" in commands

    asyncio.run(walk())


def test_the_palette_does_what_the_keys_do() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING)) as (app, pilot):
            commands = {found.title: found for found in app.get_system_commands(app.screen)}
            for title, expected in (
                ("View: Pause the view, the run goes on", "VIEW PAUSED"),
                ("View: Back to now", "RUNNING"),
                ("Screens: Screen 2: Engine", "Batch size"),
                ("View: the last 15m", "-15m"),
                ("Screens: All keys, and how to read the screen", "Zoom in: a shorter"),
            ):
                result = commands[title].callback()
                if result is not None:
                    await result
                await settle(pilot)
                assert expected in text(app)

    asyncio.run(walk())


def test_a_picture_goes_into_the_run_folder(tmp_path: Path) -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), folder=tmp_path) as (_, pilot):
            await press(pilot, "ctrl+s")

    asyncio.run(walk())
    pictures = list(tmp_path.glob("*.svg"))
    assert len(pictures) == 1
    assert "resnet-tiny" in pictures[0].read_text(encoding="utf-8")


def test_a_picture_that_cannot_be_saved_is_said(tmp_path: Path) -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), folder=tmp_path) as (app, pilot):
            tmp_path.rmdir()
            (tmp_path).touch()  # no folder any more
            await press(pilot, "ctrl+s")
            assert "no picture could be saved" in next(iter(app._notifications)).message

    asyncio.run(walk())


def test_logs_show_what_the_children_wrote(tmp_path: Path) -> None:
    (tmp_path / "engine.log").write_text("line\n" * 20_000 + "CUDA out of memory\n")

    async def walk() -> None:
        async with shown(told(RUNNING), folder=tmp_path) as (app, pilot):
            lines = await press(pilot, "o")
            assert isinstance(app.screen, Logs)
            assert any("CUDA out of memory" in line for line in lines)
            with open(tmp_path / "engine.log", "a") as file:
                file.write("restarted\n")
            await pilot.pause(1.2)
            await settle(pilot)
            assert "restarted" in text(app)
            await press(pilot, "escape")
            assert isinstance(app.screen, RunScreen)

    asyncio.run(walk())


@contextmanager
def desk(path: Path) -> Iterator[list[dict[str, Any]]]:
    """A control socket as a runner has one; yields the commands that came."""
    came: list[dict[str, Any]] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            came.append(json.loads(self.rfile.readline()))
            self.wfile.write(b'{"ok": true}\n')

    with socketserver.UnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield came
        finally:
            server.shutdown()
            thread.join()


def test_a_log_does_not_steer_the_terminal(tmp_path: Path) -> None:
    written = "a \x1b[31mwarning\x1b[0m \x1b]0;a title\x07\x1b[2J\tand after it\n"
    (tmp_path / "engine.log").write_text(written)

    async def walk() -> None:
        async with shown(told(RUNNING), folder=tmp_path) as (_, pilot):
            whole = "\n".join(await press(pilot, "o"))
            assert r"a warning \x1b]0;a title\x07\x1b[2J" in whole
            assert "and after it" in whole
            assert "\x1b" not in whole
            assert "\t" not in whole

    asyncio.run(walk())


def test_marks_and_stop_go_through_the_control_socket(tmp_path: Path) -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), folder=tmp_path) as (app, pilot):
            app._tick()  # reads run.json
            await press(pilot, "m")
            assert isinstance(app.screen, Word)
            assert isinstance(app.focused, Input)
            await press(pilot, *"deploy", "enter")
            await pilot.pause(0.3)
            await press(pilot, "s")
            assert isinstance(app.screen, Choice)
            assert str(app.focused.label) == "Stay" if isinstance(app.focused, Button) else False
            await press(pilot, "escape")
            assert len(came) == 1  # asked, and left alone
            await press(pilot, "s")
            await press(pilot, "tab", "enter")
            await pilot.pause(0.3)

    with desk(tmp_path / "control") as came:
        runlog.write_snapshot(tmp_path, {"control": str(tmp_path / "control")})
        asyncio.run(walk())
    assert came == [{"command": "mark", "text": "deploy"}, {"command": "stop"}]


def test_without_a_socket_the_runner_gets_a_signal(tmp_path: Path) -> None:
    runner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    async def walk() -> None:
        async with shown(told(RUNNING), folder=tmp_path) as (app, pilot):
            app._tick()
            await press(pilot, "s")
            await press(pilot, "left", "enter")

    runlog.write_snapshot(tmp_path, {"pid": runner.pid})
    asyncio.run(walk())
    assert runner.wait(10) == -15
    assert runner.stdin is not None
    runner.stdin.close()


@pytest.mark.parametrize("key", ["s", "m", "a", "U", "P"])
def test_a_run_of_another_machine_is_watched_and_no_process_of_this_one_ended(
    key: str, tmp_path: Path
) -> None:
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    async def walk() -> None:
        async with shown(told(RUNNING), folder=tmp_path) as (app, pilot):
            app._tick()
            await press(pilot, key)
            assert "from here: the run is driven at ci-7." in text(app).splitlines()[-1]
            assert isinstance(app.screen, RunScreen)

    runlog.write_snapshot(tmp_path, {"pid": other.pid, "host": "ci-7", "state": "running"})
    asyncio.run(walk())
    assert other.poll() is None
    other.communicate()


@pytest.mark.parametrize("key", ["s", "m", "a", "U", "P", "exclamation_mark", "full_stop"])
def test_what_cannot_be_done_is_said(key: str) -> None:
    async def walk() -> None:
        async with shown(told(Story(seconds=30))) as (app, pilot):
            await press(pilot, key)
            assert isinstance(app.screen, RunScreen)
            assert re.match(" (Nothing to |p plays at )", text(app).splitlines()[-1])

    asyncio.run(walk())


def test_q_leaves_a_run_that_someone_else_started() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING)) as (app, pilot):
            await press(pilot, "q")
            assert app._exit

    asyncio.run(walk())


@pytest.mark.parametrize("key", ["a", "s", "m"])
def test_a_question_opened_in_the_moment_of_leaving_does_no_harm(key: str) -> None:
    """It is not laid out any more: nothing of it may be looked for."""

    async def typed() -> int | None:
        async with shown(told(Story(end=None))) as (app, _):
            for pressed in ("q", key):
                app.post_message(Key(pressed, pressed))
            while app.return_code is None:
                await asyncio.sleep(0.01)
        return app.return_code

    assert asyncio.run(typed()) == 0
