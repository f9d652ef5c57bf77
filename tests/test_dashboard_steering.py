"""A run steered from its screens: keys, the line of `loadbench tell`, and what stands then."""

import asyncio
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from dashboard.app import Dashboard
from dashboard.follow import Follow
from dashboard.screens.steer import Steer
from dashboard.steering import Helm, Refused, Wish, require, rows
from loadbench import control, runlog
from loadbench.errors import SpecError
from loadbench.model import Mark
from loadbench.runner.desk import Desk
from loadbench.standing import Settings, Standing
from loadbench.units import MS
from loadbench.view import View, fold
from tests.records import start, window
from tests.stage import folded, settle, shown, text, told, until_told
from tests.storyline import Story
from tests.test_run_steering import log, running, wait_for

RUNNING = Story(end=None)


@contextmanager
def listening(folder: Path) -> Iterator[list[dict[str, Any]]]:
    """A run's control socket; yields the commands that came. It refuses a rate of 13."""
    came: list[dict[str, Any]] = []

    def handle(command: dict[str, Any]) -> dict[str, Any]:
        came.append(command)
        if command.get("rate") in (13.0, "13"):
            raise ValueError("13 brings bad luck")
        return {"ok": True, "mark": f"did {command['command']}"}

    desk = Desk(handle)
    runlog.write_snapshot(folder, {"control": desk.path})
    try:
        yield came
    finally:
        desk.close()


async def notified(app: Dashboard, pilot: Pilot[Any], number: int) -> list[str]:
    """What was said, once it is so much."""
    said: dict[str, str] = {}
    for _ in range(400):
        said |= {found.identity: found.message for found in app._notifications}
        if len(said) >= number:
            break
        await pilot.pause(0.05)
    return list(said.values())


DRIVEN_BY_NOBODY = Standing()


def view(standing: Standing = DRIVEN_BY_NOBODY, rate: float | None = 300.0) -> View:
    found = folded([start(), window(0, [5.0], rate=rate)])
    return fold(found, Mark(0, "by hand", standing))


@pytest.mark.parametrize(
    ("standing", "wish", "command"),
    [
        (Standing(), "more", {"command": "scale", "factor": 1.1}),
        (Standing(scale=1.1), "more", {"command": "scale", "factor": 1.21}),
        (Standing(scale=1.1), "less", {"command": "scale", "factor": 1.0}),
        (Standing(), "less", {"command": "scale", "factor": 0.909}),
        (Standing(scale=0.909), "more", {"command": "scale", "factor": 1.0}),
        (Standing(rate=500), "more", {"command": "rate", "rate": 550.0}),
        (Standing(), "arrivals", {"command": "pause"}),
        (Standing(paused=True), "arrivals", {"command": "resume"}),
        (Standing(), "spike", {"command": "spike", "rate": 600.0, "for": "5s"}),
    ],
)
def test_a_key_is_a_command(standing: Standing, wish: Wish, command: dict[str, Any]) -> None:
    assert Helm().wanted(wish, view(standing)) == command


def test_a_spike_needs_a_rate() -> None:
    with pytest.raises(Refused, match="no rate"):
        Helm().wanted("spike", view(rate=None))
    with pytest.raises(Refused, match="paused"):
        Helm().wanted("spike", view(Standing(paused=True), rate=0.0))


@pytest.mark.parametrize(("standing", "twice"), [(Standing(), 600.0), (Standing(rate=132), 264.0)])
def test_a_spike_right_after_a_pause_is_of_what_was_asked_before(
    standing: Standing, twice: float
) -> None:
    paused = fold(view(), window(1, [], rate=0.0))
    resumed = fold(paused, Mark(1, "arrivals resumed", standing))
    assert Helm().wanted("spike", resumed)["rate"] == twice


def test_what_was_told_counts_until_the_log_says_so_and_what_was_refused_does_not(
    tmp_path: Path,
) -> None:
    async def walk() -> None:
        helm, before = Helm(), view()
        path = runlog.read_snapshot(tmp_path)["control"]
        await helm.tell(path, {"command": "scale", "factor": 1.5}, before)
        await helm.tell(path, {"command": "pause"}, before)
        assert helm.standing(before) == Standing(scale=1.5, paused=True)
        logged = view(Standing(scale=9.0))
        assert helm.standing(logged) == Standing(scale=9.0)  # the log knows better
        with pytest.raises(SpecError, match="bad luck"):
            await helm.tell(path, {"command": "rate", "rate": 13.0}, logged)
        assert helm.standing(logged) == Standing(scale=9.0)

    with listening(tmp_path):
        asyncio.run(walk())


def test_rows_tell_how_a_run_is_driven() -> None:
    def shown_rows(standing: Standing, **more: Any) -> list[str]:
        return [row.text for row in rows(standing, view(standing), more)]

    assert shown_rows(Standing()) == [
        "as the scenario says   300/s asked now", "● come",
        "not started by this run: its settings are not ours",
    ]  # fmt: skip
    fixed = Settings(16, "fixed", 50 * MS, 2 * MS)
    spike = Standing(scale=1.5, spike=900, spike_until_s=30, paused=True, engine=fixed)
    assert shown_rows(spike) == [
        "the scenario's × 1.5, spike 900/s   300/s asked now", "‖ paused: nothing falls due",
        "max_batch=16  policy=fixed  slo=50ms  max_wait=2ms",
    ]  # fmt: skip
    begun = fold(View(), start(settings={"max_batch": 8, "policy": "deadline"}))
    told_by = rows(Standing(), begun, {"spec": {"engine": {"slo": "100 ms"}}})
    assert told_by[2].text == "max_batch=8  policy=deadline  slo=100ms"


def test_keys_steer_one_after_the_other_and_tell_their_command_lines(tmp_path: Path) -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), folder=tmp_path) as (app, pilot):
            await pilot.press("U", "U", "D", "shift+up", "P", "P", "exclamation_mark")
            said = await notified(app, pilot, 7)
            assert [f"{shlex.quote(str(tmp_path))} {words}" in line for line, words in zip(said, (
                "scale 1.1", "scale 1.21", "scale 1.1", "scale 1.21", "pause", "resume", "spike",
            ), strict=True)] == 7 * [True]  # fmt: skip
            assert said[0].startswith("did scale\nloadbench tell ")

    with listening(tmp_path) as came:
        asyncio.run(walk())
    assert [command.get("factor", command["command"]) for command in came] == [
        1.1, 1.21, 1.1, 1.21, "pause", "resume", "spike",
    ]  # fmt: skip


def test_line_1_says_that_the_load_is_driven_by_hand() -> None:
    async def walk(size: tuple[int, int]) -> str:
        steered = fold(told(RUNNING), Mark(230, "by hand", Standing(scale=1.5, paused=True)))
        async with shown(steered, size) as (_, pilot):
            await settle(pilot)
            first = text(pilot.app).split("\n")[0]  # type: ignore[arg-type]
            await pilot.press("space")
            await settle(pilot)
            assert "× 1.5" not in text(pilot.app).split("\n")[0]  # type: ignore[arg-type]
            return first

    for size in ((200, 60), (120, 40), (80, 24)):
        assert "◆ × 1.5, arrivals paused" in asyncio.run(walk(size))
    assert "● RUNNING" in asyncio.run(walk((60, 16)))


@pytest.mark.parametrize("size", [(200, 60), (80, 24), (60, 16)])
def test_the_panel_sends_what_is_typed_and_shows_its_command_line(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), size, tmp_path) as (app, pilot):
            await pilot.press("a")
            found = await until_told(pilot, "esc = back")
            assert isinstance(app.screen, Steer)
            assert "as the scenario says" in found
            await pilot.press(*"spike")
            assert "takes 2 words" in await until_told(pilot, "write: spike RATE FOR")
            await pilot.press(*" 900 2s")
            await until_told(pilot, "900 2s")
            await pilot.press("ctrl+y")
            copied = app.clipboard
            assert copied == f"loadbench tell {shlex.quote(str(tmp_path))} spike 900 2s"
            await pilot.press("enter")
            await until_told(pilot, "✓ did spike")
            assert app.screen.query_one(Input).value == ""
            await pilot.press(*"rate 13", "enter")
            assert "bad luck" in await until_told(pilot, "✗ the run refused")
            assert app.screen.query_one(Input).value == "rate 13"
            app.screen.query_one(Input).clear()
            await pilot.press(*"rate fast")
            assert "'fast'" in await until_told(pilot, "· ")
            app.screen.query_one(Input).clear()
            await pilot.press(*"fly", "enter")
            assert "no command 'fly'" in await until_told(pilot, "✗ there is")
            assert app.screen.query_one(Input).value == "fly"
            await pilot.press("escape")
            assert not isinstance(app.screen, Steer)

    with listening(tmp_path) as came:
        asyncio.run(walk())
    assert came == [{"command": "spike", "rate": "900", "for": "2s"},
                    {"command": "rate", "rate": "13"}]  # fmt: skip


def test_a_fault_without_a_hint_ends_where_it_ends(tmp_path: Path) -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), (120, 40), tmp_path) as (app, pilot):
            await pilot.press("a")
            await until_told(pilot, "esc = back")
            app.screen.query_one(Input).value = "engine policy=nonsense"
            found = await until_told(pilot, "'none'")
            assert "'none':" not in found

    asyncio.run(walk())


@pytest.mark.parametrize(
    "text",
    [
        "rate fast", "rate 80 %%", "rate -3", "spike 900 soon", "spike 900 0s", "spike x 2s",
        "scale much", "scale -1", "scale 1x%", 'alert "p98 > 3 ms" 5s', 'alert "p99 > 3 ms" soon',
        "engine max_batch=0", "engine max_batch=many", "engine policy=none-such", "engine slo=soon",
        "engine depth=3", "engine hold=perhaps",
    ],
)  # fmt: skip
def test_a_value_that_is_none_is_told_before_it_is_sent(text: str) -> None:
    with pytest.raises(SpecError):
        require(control.order(shlex.split(text)))


@pytest.mark.parametrize(
    "text",
    [
        "rate 500", "rate 80 %", "rate 30k/s", "spike 900 2s", "scale 1.5", "scale 150%", "pause",
        'alert "p99 > 3 ms" 5s', 'alert "p99 > 3 ms" off', "mark so it is", "stop",
        "engine max_batch=2 policy=fixed slo=50ms max_wait=2ms hold=false", "engine slo=none",
        "engine policy=efficient slo=50ms", "engine policy=efficient",
    ],
)  # fmt: skip
def test_what_can_be_is_not_held_back(text: str) -> None:
    require(control.order(shlex.split(text)))


def test_stop_at_once(tmp_path: Path) -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), folder=tmp_path) as (app, pilot):
            await pilot.press("s")
            await until_told(pilot, "End at once")
            await pilot.press("left", "left", "enter")
            assert "ending at once" in (await notified(app, pilot, 1))[0]

    with listening(tmp_path) as came:
        asyncio.run(walk())
    assert came == [{"command": "kill"}]


def test_a_real_run_is_steered_and_marks_show_in_its_charts(tmp_path: Path) -> None:
    async def walk(folder: Path) -> None:
        app = Dashboard(folder, Follow(folder), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            await until_told(pilot, "● RUNNING")
            await pilot.press("U")
            await until_told(pilot, "◆ × 1.1")
            await pilot.press("a")
            await until_told(pilot, "max_batch=8")
            await pilot.press(*"engine max_batch=4 policy=fixed", "enter")
            await until_told(pilot, "max_batch=4  policy=fixed")
            await pilot.press(*"engine max_batch=9", "enter")
            await until_told(pilot, "up to 8 were warmed up")
            await pilot.press("escape")
            charts = "\n".join((await until_told(pilot, "◆ engine")).split("\n")[7:26])
            assert "◆" in charts
            await pilot.press("s")
            await until_told(pilot, "Stop the run?")
            await pilot.press("left", "enter")
            await until_told(pilot, "■ STOPPED")

    with running(tmp_path, seconds=40):
        folder = wait_for(tmp_path, 0)
        asyncio.run(walk(folder))
    marks = [found for found in log(folder) if isinstance(found, Mark)]
    assert [mark.text for mark in marks] == [
        "the scenario's load × 1.1",
        "engine: max_batch 8 → 4, policy deadline → fixed, max_wait 5 ms",
        "stop asked for",
    ]
    assert marks[1].standing is not None
    assert marks[1].standing.scale == 1.1
