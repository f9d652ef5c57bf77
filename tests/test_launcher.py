"""The screen of a new run, on real files, with real doctors and real runs."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from dashboard.app import Dashboard
from dashboard.asking import Finding, ask
from dashboard.child import Child
from dashboard.keys import ACTIONS, NEW_RUN
from dashboard.screens.launcher import Launcher
from dashboard.screens.live import Live
from dashboard.screens.run import Said
from dashboard.screens.tryout import TryOut
from dashboard.widgets.launch import Ready
from loadbench import control, runlog
from tests.running import scenario
from tests.stage import settle, shown, text, told, until
from tests.storyline import Story
from tests.test_dashboard_run import terminal, wait_for_end

RUNNING = Story(seconds=60, spike=(-1, -1), end=None)
SIZES = [(60, 16), (80, 24), (120, 40), (200, 60)]


@asynccontextmanager
async def launcher(
    folder: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int] = (120, 40)
) -> AsyncIterator[tuple[Dashboard, Launcher, Pilot[Any]]]:
    """The screen in a folder of files, once the doctor has looked."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("LOADBENCH_RESULTS", raising=False)
    async with shown(told(RUNNING), size, folder / "results" / "0001-shown") as (app, pilot):
        await pilot.press("n")
        screen = app.screen
        assert isinstance(screen, Launcher)
        await until(pilot, lambda: screen._reported == screen.draft)
        yield app, screen, pilot


def said(app: Dashboard) -> str:
    """What was told in a corner of the screen."""
    places = [place for place in app.screen.query(Said) if place.visible]
    return "\n".join(str(place.render()) for place in places)


def _says(app: Dashboard, words: str) -> bool:
    return words in said(app)


def cursor_at(screen: Launcher, name: str) -> None:
    """Moves to a line of one of the lists."""
    for found, names in (
        ("#scenarios", [one.name for one in screen._shelf]),
        ("#targets", [one.url for one in screen._aims]),
    ):
        if name in names:
            options = screen.query_one(found, OptionList)
            options.focus()
            options.highlighted = names.index(name)


@pytest.mark.parametrize("size", SIZES)
def test_each_size_has_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    wide = size[0] >= 100

    async def walk() -> None:
        async with launcher(tmp_path, monkeypatch, size) as (app, screen, pilot):
            seen = ""
            for _ in range(17):
                lines = text(app).split("\n")
                assert len(lines) == size[1]
                assert max(map(len, lines)) <= size[0]
                assert "loadbench run steady" in "\n".join(lines[-4:])
                assert "^r Start" in lines[-1]
                assert not [one for one in screen.query("*") if one.show_horizontal_scrollbar]
                assert ("3 Ready?" in lines[1]) is not wide
                seen += text(app)
                await pilot.press("tab")
                await settle(pilot)
            for word in (
                "─ Scenario",
                "─ Target",
                "─ Settings",
                "─ Ready?",
                "limit p99",
                "disk free",
            ):
                assert word in seen, word
            assert ("─ Load shape" in seen) is (size[1] > 16)
            assert app.screen.focused is screen.query_one("#scenarios")  # once around

    asyncio.run(walk())


def test_every_finding_can_be_read_where_there_is_little_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def walk() -> None:
        async with launcher(tmp_path, monkeypatch, (60, 16)) as (app, screen, pilot):
            await pilot.press("shift+tab")
            await settle(pilot)
            assert "wakes up" in text(app)
            assert "connections to one address" not in text(app)
            await pilot.press("end")
            await until(pilot, lambda: "connections to one address" in text(app))
            other = [Finding("✗", "scenario", "cannot be"), *screen.report.findings]
            screen.query_one(Ready).show(other, "")
            await until(pilot, lambda: "✗ cannot be" in text(app))

    asyncio.run(walk())


def test_a_size_that_is_too_small_leaves_the_cursor_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def walk() -> None:
        async with launcher(tmp_path, monkeypatch, (80, 24)) as (app, _, pilot):
            for width, height in ((58, 24), (52, 12), (80, 24)):
                await pilot.resize_terminal(width, height)
                await settle(pilot)
            await pilot.press("down")
            await until(pilot, lambda: "$ loadbench run steps" in text(app))

    asyncio.run(walk())


def test_the_shape_and_the_command_follow_what_is_chosen_and_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def walk() -> None:
        async with launcher(tmp_path, monkeypatch) as (app, screen, pilot):
            assert "2,979 requests in 30 s" in text(app)
            cursor_at(screen, "ramp")
            await until(pilot, lambda: "18,495 requests in 1m 30s" in text(app))
            assert "20 … 300/s" in text(app)
            screen.query_one("#rate", Input).focus()
            await pilot.press(*"250")
            await until(pilot, lambda: "$ loadbench run ramp --rate 250" in text(app))
            await until(pilot, lambda: "requests in 1m 30s" in text(app) and "300/s ┤" in text(app))
            assert "✗" not in text(app)

    asyncio.run(walk())


def test_faults_are_told_as_they_are_typed_and_block_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def walk() -> None:
        async with launcher(tmp_path, monkeypatch) as (app, screen, pilot):
            screen.query_one("#max_batch", Input).focus()
            await pilot.press(*"9999")
            words = "✗ engine.max_batch: 9999 cannot be taken: write 4096 or less"
            await until(pilot, lambda: words in text(app))
            assert "✗ max batch" in text(app)
            await pilot.press("ctrl+d")
            assert app.screen is screen
            await pilot.press("ctrl+r")
            await until(pilot, lambda: "this run cannot be made" in said(app))
            assert not app._notifications  # they would lie over what is to be read
            assert "$ loadbench run" in text(app)
            await pilot.press(*["backspace"] * 2)
            await until(pilot, lambda: "✗ max batch" not in text(app))
            assert "--set engine.max_batch=99" in text(app)
            assert not runlog.runs(tmp_path / "results")

    asyncio.run(walk())


def test_a_fault_that_is_typed_does_not_hide_what_else_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def walk() -> None:
        async with launcher(tmp_path, monkeypatch) as (app, screen, pilot):
            screen.query_one("#url", Input).value = "http://127.0.0.1:9"
            await until(pilot, lambda: "✗ GET http://127.0.0.1:9/v2" in text(app))
            screen.query_one("#rate", Input).value = "quick"
            screen.query_one("#repeats", Input).value = "0"
            await until(pilot, lambda: "✗ rate" in text(app))
            await until(pilot, lambda: screen._reported == screen.draft)
            found = text(app)
            assert "✗ GET http://127.0.0.1:9/v2" in found
            assert "quick" in found.split("Ready?")[1]
            assert "✗ --repeats: '0' is not a number of runs" in found.split("Ready?")[1]

    asyncio.run(walk())


def test_a_copy_is_kept_only_where_something_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dashboard, "suspend", lambda _: nullcontext())
    monkeypatch.setattr("dashboard.editor._AT_ONCE_S", 0.0)
    monkeypatch.delenv("VISUAL", raising=False)

    async def walk() -> None:
        async with launcher(tmp_path, monkeypatch) as (app, screen, pilot):
            for command, words in (
                ("true", "steady.toml was not changed"),
                ("false", "steady.toml was not changed: false ended with exit code 1"),
                ("/gone/editor", "/gone/editor: [Errno 2]"),
            ):
                monkeypatch.setenv("EDITOR", command)
                await pilot.press("e")
                await until(pilot, partial(_says, app, words))
                assert not (tmp_path / "steady.toml").exists()
                assert screen.draft.scenario == "steady"
            monkeypatch.setenv("EDITOR", "sed -i 1i#")
            await pilot.press("e")
            await until(pilot, lambda: "edited steady.toml, a copy of steady.toml" in said(app))
            assert (tmp_path / "steady.toml").read_text().startswith("#")
            await until(pilot, lambda: screen.draft.scenario == "steady.toml")

    asyncio.run(walk())


def test_a_copy_is_kept_for_an_editor_that_goes_on_in_its_own_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dashboard, "suspend", lambda _: nullcontext())
    monkeypatch.setattr("dashboard.editor._AT_ONCE_S", 60.0)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "true")

    async def walk() -> None:
        async with launcher(tmp_path, monkeypatch) as (_, screen, pilot):
            await pilot.press("e")
            await until(pilot, lambda: screen.draft.scenario == "steady.toml")
            assert (tmp_path / "steady.toml").exists()

    asyncio.run(walk())


def test_a_broken_file_is_a_line_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mixed.toml").write_text("[load]\nrampp = 3\n")

    async def walk() -> None:
        async with launcher(tmp_path, monkeypatch, (200, 60)) as (app, screen, pilot):
            assert "mixed.toml            ✗ line 2: unknown key 'load.rampp'" in text(app)
            cursor_at(screen, "mixed.toml")
            await until(pilot, lambda: screen._reported == screen.draft)
            await pilot.press("ctrl+r")
            words = "✗ this run cannot be made: line 2: unknown key"
            await until(pilot, lambda: words in said(app))
            (tmp_path / "mixed.toml").write_text('[load]\nphases = [{ rate = 5, for = "9s" }]\n')
            await pilot.press("f5")
            await until(pilot, lambda: "5/s for 9 s" in text(app))
            assert screen.draft.scenario == "mixed.toml"

    asyncio.run(walk())


def test_targets_are_the_zoo_files_and_what_was_given_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08" + bytes(64))
    (tmp_path / "bad.pt").write_text("version https://git-lfs.github.com/spec/v1")
    for url in ("http://127.0.0.1:9", "local:mlp"):
        folder = runlog.create(tmp_path / "results", "old")
        runlog.write_snapshot(folder, {"spec": {"target": {"url": url}}})

    async def walk() -> None:
        async with launcher(tmp_path, monkeypatch, (200, 60)) as (app, screen, pilot):
            urls = [aim.url for aim in screen._aims]
            assert urls == [
                "", "local:mlp", "local:resnet-tiny", "local:encoder", "local:fake",
                "local:bad.pt", "local:net.onnx", "http://127.0.0.1:9",
            ]  # fmt: skip
            assert "✗ bad.pt is a Git LFS pointer" in text(app)
            assert "of 0001-old" in text(app)
            cursor_at(screen, "http://127.0.0.1:9")
            await until(pilot, lambda: "✗ GET http://127.0.0.1:9/v2" in text(app))
            assert screen.query_one("#policy", Input).disabled
            assert screen.query_one("#url", Input).value == "http://127.0.0.1:9"
            await pilot.press("ctrl+r")
            await until(pilot, lambda: "this run cannot be made: GET http" in said(app))
            screen.query_one("#url", Input).value = "local:net.onnx"
            await until(pilot, lambda: "✓ local:net.onnx is there" in text(app))
            assert not screen.query_one("#policy", Input).disabled

    asyncio.run(walk())


def test_code_of_a_scenario_must_be_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = scenario(tmp_path)
    own.write_text(own.read_text().replace("[engine]", '[engine]\npreprocess = "own:code"'))

    async def walk() -> None:
        async with launcher(tmp_path, monkeypatch) as (app, screen, pilot):
            cursor_at(screen, "own.toml")
            await until(pilot, lambda: "✗ own has the engine run code" in text(app))
            await pilot.press("ctrl+t")
            await until(pilot, lambda: "✗ own has the engine" not in text(app))
            assert "--trust" in screen.command
            cursor_at(screen, "steady")
            await until(pilot, lambda: screen.command == "loadbench run steady")

    asyncio.run(walk())


def test_a_dry_run_shows_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario(tmp_path)

    async def walk() -> None:
        async with launcher(tmp_path, monkeypatch) as (app, screen, pilot):
            cursor_at(screen, "own.toml")
            await until(pilot, lambda: screen._reported == screen.draft)
            await pilot.press("ctrl+d")
            assert isinstance(app.screen, TryOut)
            await until(pilot, lambda: "✓ as it should be" in text(app))
            assert "$ loadbench run own.toml --dry-run" in text(app)
            assert "y FP32 [1, 16]: " in text(app)
            await pilot.press("escape")
            assert isinstance(app.screen, Launcher)
            await pilot.press("escape")
            assert isinstance(app.screen, Live)

    asyncio.run(walk())


def test_help_and_palette_have_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def walk() -> None:
        async with launcher(tmp_path, monkeypatch, (120, 60)) as (app, screen, pilot):
            commands = {found.title: found for found in app.get_system_commands(screen)}
            assert {f"{one.group}: {one.title}" for one in (*NEW_RUN, *ACTIONS)} <= set(commands)
            assert {one.id for one in NEW_RUN} <= {found.id for _, found in screen._bindings}
            copied = commands["New run: Copy the command line"].callback()
            assert copied is not None
            await copied
            assert app.clipboard == "loadbench run steady"
            await pilot.press("question_mark")
            await settle(pilot)
            for one in NEW_RUN:
                assert one.title in text(app)

    asyncio.run(walk())


def test_a_run_started_here_is_followed_and_the_first_one_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = scenario(tmp_path, load="", s=2)
    (tmp_path / "edit.py").write_text(
        "import pathlib, sys\npath = pathlib.Path(sys.argv[1])\n"
        "path.write_text('title = \"edited now\"\\n' + path.read_text())\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDITOR", f"{sys.executable} edit.py")
    with terminal(str(own), "--duration", "60s") as screen:
        screen.until("● RUNNING")
        screen.press("n")
        screen.until("Ready?")
        screen.until("$ loadbench run own.toml")
        screen.press("e")
        screen.until("edited now")
        screen.press("\x12")
        screen.until("■ DONE")
        screen.press("q")
        assert screen.end() in (0, 4)  # 4: two runs at once were too much for a verdict
    said = screen.written.replace("\r", "")
    first, second = runlog.runs(Path("results"))
    assert f"the run goes on: loadbench tui --attach {first.resolve()}" in said
    assert "CHECKS" in said or "LOAD" in said
    assert wait_for_end(second).reason == "done"
    assert "own.toml" in runlog.read_snapshot(second)["command"]
    control.send(str(runlog.read_snapshot(first)["control"]), {"command": "kill"})
    assert wait_for_end(first).reason == "stopped"


def test_a_run_that_has_not_begun_when_one_leaves_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could be told where it is, and nobody asked to let it go on."""
    scenario(tmp_path, s=30)
    made: list[Child] = []

    class Slow(Child):
        """It does not say where it is before one leaves, however long that takes."""

        def __init__(self, arguments: list[str]) -> None:
            super().__init__(arguments)
            made.append(self)

        def folder(self) -> None:
            self.wait(60)

    monkeypatch.setattr("dashboard.starting.Child", Slow)

    async def walk() -> None:
        async with launcher(tmp_path, monkeypatch) as (app, screen, pilot):
            cursor_at(screen, "own.toml")
            await until(pilot, lambda: screen._reported == screen.draft)
            screen.action_start()
            while not made:
                await pilot.pause(0.005)
            app.action_leave()

    asyncio.run(walk())
    (started,) = made
    assert started.wait(20) == 143
    assert not started._place.exists()


def test_a_doctor_that_nobody_waits_for_any_more_is_ended() -> None:
    others = children()

    async def walk() -> None:
        asked = asyncio.create_task(ask([]))
        await asyncio.sleep(0.1)
        (doctor,) = children() - others
        for _ in range(2):  # as when a screen is left and the program then ends
            asked.cancel()
            await asyncio.sleep(0)
        assert asked.cancelled()
        assert doctor.wait(10) is None or not doctor.is_running()

    asyncio.run(walk())


def test_a_doctor_is_taken_leave_of_also_if_no_thread_was_free_for_it() -> None:
    others = children()

    async def walk() -> None:
        free = threading.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, free.wait)
        asked = asyncio.create_task(ask([]))
        await asyncio.sleep(0)
        assert children() - others
        asked.cancel()
        await asyncio.sleep(0)
        assert asked.cancelled()
        free.set()
        await busy

    asyncio.run(walk())
    assert children() <= others


def children() -> set[psutil.Process]:
    """Other tests may have left some, as Python's own resource tracker."""
    return set(psutil.Process().children())
