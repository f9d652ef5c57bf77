"""The Alerts screen: what it says of rules and episodes, and what its keys do."""

import asyncio
import os
import re
from dataclasses import replace as looks
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from textual.pilot import Pilot
from textual.widgets import Button, Input, Label

from dashboard.ringing import news, notification, way
from dashboard.screens.ask import Word
from dashboard.screens.live import Live
from dashboard.screens.rule import Edit
from loadbench import runlog, spec
from loadbench.alerts import built_in
from loadbench.model import AlertChange, Check, End, Mark, Note, Remark, Rule, Start, encode
from loadbench.standing import Standing
from loadbench.units import SECOND
from loadbench.view import View, fold
from tests.records import start, window
from tests.stage import ended, folded, settle, shown, text, told, until
from tests.storyline import Story, records
from tests.test_dashboard_keys import desk, press
from tests.test_dashboard_run import terminal

FIRING = Story(seconds=165, end=None)
OVER = Story(end=None)


def screen(view: View, size: tuple[int, int] = (120, 40), *keys: str) -> list[str]:
    async def read() -> list[str]:
        async with shown(view, size) as (_, pilot):
            return await press(pilot, "3", *keys)

    return asyncio.run(read())


def row(lines: list[str], words: str) -> str:
    return next(line for line in lines if words in line)


def test_each_rule_has_its_state_its_value_now_and_its_last_change() -> None:
    view = told(FIRING)
    pending = AlertChange(161, "queue_growth", "pending", 25.0, 161, 25.0)
    few = AlertChange(3, "errors", "few data", None)
    lines = screen(fold(fold(view, pending), few))
    head = lines[2]
    assert head.split() == ["│", "state", "rule", "now", "limit", "for", "last", "change", "│"]
    assert re.search(r"▲ FIRING +p99 latency +80\.5 ms +> 100 ms +5 s +02:30  \(15 s\)", lines[3])
    assert re.search(r"● ok +GPU utilisation +88 % +< 30 % +10 s +never", row(lines, "GPU util"))
    growing = row(lines, "queue growing")
    assert re.search(r"◔ pending .*> 20/s +10 s +02:41  \(4 of 10 s\)", growing)
    assert re.search(r"○ few data +errors .*under 100 requests", row(lines, "errors"))
    ended = screen(told(OVER))
    assert re.search(r"● ok +p99 latency .*03:02  ended", ended[3])
    gone = screen(fold(view, AlertChange(165, "p99", "no data", None, 150, 184.0, limit=100)))
    assert re.search(r"○ no data +p99 latency .*02:45  ended", gone[3])


def test_a_slope_lacks_seconds_however_many_requests_there_are() -> None:
    early = folded(
        [start(rules=built_in(gpu=False)), *(window(at, [9.0] * 100) for at in range(2))]
    )
    view = fold(early, AlertChange(0, "queue_growth", "few data", None))
    growing = row(screen(view), "queue growing")
    assert re.search(r"○ few data +queue growing .*needs 10 s of load", growing)


def test_a_quantity_that_this_machine_has_not_is_no_data() -> None:
    view = told(Story(seconds=60, end=None, gpu=False))
    lines = screen(fold(view, AlertChange(0, "gpu_utilization", "no data", None)))
    assert re.search(r"○ no data +GPU utilisation +n/a +< 30 %", row(lines, "GPU utilisation"))


def test_what_was_known_until_the_last_second_is_not_said_to_be_unknown() -> None:
    view = told(Story(seconds=60, end=None, gpu=False))
    lines = screen(fold(view, window(60, [9.0] * 100)))  # as runs end: the machine is not in it
    assert re.search(r"● ok +memory +38 % +> 80 % +5 s +never", row(lines, " memory "))


def test_history_has_one_row_an_episode_and_the_lower_panel_says_why() -> None:
    lines = screen(told(FIRING))
    assert "History of this run (1 alert;" in row(lines, "History")
    episode = row(lines, "›02:30")
    assert re.search(
        r"▲ on +p99 latency > 100 ms +15 s \+ +184 ms +200/s asked, 150/s done", episode
    )
    why = lines[
        next(at for at, line in enumerate(lines) if "p99 latency > 100 ms for 5 s ─" in line) :
    ]
    whole = " ".join(line.strip("│ ") for line in why)
    assert "p99 latency: up to 184 ms (limit 100 ms) for the last 15 s." in whole
    assert re.search(r"Queue wait makes up 8\d % of the mean request; compute is unchanged", whole)
    assert re.search(r"\d+/s are asked, 1\d\d/s get done, .* are open", whole)
    assert whole.index("are asked") < whole.index("Likely: ") < whole.index("Try: ")
    ended = screen(told(OVER))
    assert re.search(r"›02:30 +✓ ended +p99 latency > 100 ms +32 s +184 ms", row(ended, "›02:30"))
    assert any("p99 latency: up to 184 ms (limit 100 ms) for 32 s." in line for line in ended)


def test_a_long_episode_that_is_over_is_told_by_its_worst_seconds() -> None:
    found = [
        replace(record, worst=200)
        if isinstance(record, AlertChange) and record.state == "ok" else record
        for record in records(Story(seconds=400, spike=(100, 300), end=None))
    ]  # fmt: skip
    whole = "\n".join(screen(folded(found)))
    assert "for 3m 30s; what follows is of its worst, 03:01-03:31." in whole
    assert "Queue wait makes up 8" in whole


def test_of_a_run_that_is_over_no_rule_fires_nor_waits_to() -> None:
    pending = AlertChange(163, "errors", "pending", 0.02, 163, 0.02)
    going = fold(told(FIRING), pending)
    for end in (End(165, "failed", "engine stopped"), End(165, "done")):
        lines = screen(fold(going, end), (120, 40), "up")
        assert re.search(r"▲ to the end +p99 latency +80", row(lines, "p99 latency  "))
        assert re.search(r"◔ at the end +errors .*02:43  \(2 of 5 s\)", row(lines, "errors "))
        assert re.search(r"◔ at the end +errors > 1 % +2 s ", row(lines, "errors > 1 %"))
        assert any("errors > 1 % for 5 s: only for the last 2 s." in line for line in lines)
        assert not any(word in line for line in lines for word in ("FIRING", "pending", "yet"))
    assert any("not long enough yet to fire." in line for line in screen(going, (120, 40), "up"))


def test_without_episodes_the_screen_says_so() -> None:
    lines = screen(told(Story(seconds=60, end=None)))
    assert any("no alert has fired" in line for line in lines)
    assert any("p99 latency has not been > 100 ms for 5 s." in line for line in lines)
    lines = screen(told(Story(seconds=60, end=None)), (120, 40), "enter")
    assert any("No alert has fired: there is nothing to show." in line for line in lines)


def test_what_fires_is_in_sight_where_there_is_little_room() -> None:
    view = told(FIRING)
    for name in ("silence", "lateness"):
        view = fold(view, AlertChange(160, name, "firing", 9.0, 155, 9.0, "", 5.0))
    for size in ((60, 16), (80, 24)):
        lines = screen(view, size)
        found = [line for line in lines if "▲ FIRING" in line]
        assert len(found) == 3
        assert any("Try: " in line for line in lines)
        assert any(line.strip("│").startswith("›02:35") for line in lines)
        assert all(len(line) <= size[0] for line in lines)


def test_rules_have_the_room_that_is_left_and_say_how_many_more_there_are() -> None:
    lines = screen(told(Story(seconds=60, end=None)), (60, 16))
    assert sum("● ok" in line for line in lines) == 7
    assert not any(" more" in line or "+" in line for line in lines)
    lines = screen(told(FIRING), (60, 16))
    assert sum("● ok" in line or "▲ FIRING" in line for line in lines) == 3
    assert lines[1].endswith(" +4")


def test_what_to_try_is_in_sight_on_the_smallest_screen_of_a_run_that_is_over() -> None:
    """Two lines above, and two checks: the most that has to fit."""
    limits = tuple(Check(name, False, 1.0, "< 1") for name in ("errors", "p99"))
    found = [
        replace(record, checks=limits) if isinstance(record, Start) else record
        for record in records(Story(seconds=165))
    ]
    lines = screen(folded(found), (60, 16))
    assert "DONE" in lines[0]
    assert sum("errors" in line or "p99" in line for line in lines[5:8]) >= 2
    assert any("Try: " in line for line in lines)


def seen(view: View) -> View:
    """As the log has it once somebody acknowledged what fires."""
    change = AlertChange(165, "p99", "firing", None, 150, 190.0, "", 100.0, (), True)
    return fold(view, change)


def test_an_acknowledged_alert_leaves_line_1_and_stays_in_history(tmp_path: Path) -> None:
    async def walk() -> None:
        async with shown(told(FIRING), folder=tmp_path) as (app, pilot):
            lines = await press(pilot, "3")
            assert "▲ 1 alert" in lines[0]
            await press(pilot, "k")
            await ended(app)
            app.run_view = seen(app.run_view)
            app.redraw()
            lines = await press(pilot)
            assert "▲ 1 alert" not in lines[0]
            assert "△ seen" in row(lines, "›02:30")
            assert "△ seen" in lines[3]
            await press(pilot, "k")
            await ended(app)

    with desk(tmp_path / "control") as came:
        runlog.write_snapshot(tmp_path, {"control": str(tmp_path / "control"), "pid": os.getpid()})
        asyncio.run(walk())
    assert came == [{"command": "acknowledge", "rule": "p99"}]  # the second had nothing to do


def test_what_is_read_stays_under_the_cursor_when_another_alert_fires() -> None:
    """`k` is about what is read: another one must not come under it unasked."""

    async def walk() -> None:
        async with shown(told(FIRING)) as (app, pilot):
            lines = await press(pilot, "3")
            assert "p99 latency > 100 ms" in row(lines, "›02:30")
            errors = AlertChange(164, "errors", "firing", 0.02, 160, 0.02, "", 0.01)
            app.run_view = fold(app.run_view, errors)
            app.redraw()
            lines = await press(pilot)
            assert "errors > 1 %" in row(lines, "│ 02:40 ")
            assert "p99 latency > 100 ms" in row(lines, "›02:30")
            app.run_view = fold(app.run_view, AlertChange(164, "p99", "ok", 40.0, 150, 184.0))
            app.redraw()
            lines = await press(pilot)
            assert "errors > 1 %" in row(lines, "›02:40")  # what fires matters more

    asyncio.run(walk())


def test_how_long_nothing_came_is_of_now_and_not_said_of_the_past() -> None:
    async def walk() -> None:
        async with shown(told(FIRING)) as (app, pilot):
            assert app._came is not None
            app._came -= 3622  # so long ago the records came, of which the past knows nothing
            lines = await press(pilot, "3", "left")
            assert "VIEW PAUSED" in lines[0]
            assert re.search(r"● ok +no data +0 s +> 3 s", row(lines, " no data "))

    asyncio.run(walk())


def as_looked_at(view: View, cursor: int) -> list[str]:
    """The screen of somebody who has put the cursor on a second of a run that went on."""

    async def read() -> list[str]:
        async with shown(view, (120, 56)) as (app, pilot):
            app.sight = looks(app.sight, at=view.newest, held=240, cursor=cursor)
            return await press(pilot, "3")

    return asyncio.run(read())


def test_everything_is_as_of_the_moment_that_is_looked_at() -> None:
    limits = (Check("p99", False, 50e6, "< 50 ms"), Check("throughput", True, 1.0, "> 1/s"))
    found = [
        replace(record, checks=limits) if isinstance(record, Start) else record
        for record in records(Story(seconds=300, end=None, gpu=False))
    ]
    pending = AlertChange(156, "queue_growth", "pending", 25.0, 156, 25.0)
    late = AlertChange(200, "errors", "firing", 0.02, 196, 0.02, "", 0.01)
    stood = Remark(250, Note("lost", "worker 2 was killed", "see load.log"))
    view = folded([*found, pending, late, stood])
    lines = as_looked_at(view, 157)
    assert re.search(r"▲ FIRING +p99 latency .*02:30  \(8 s\)", row(lines, "p99 latency"))
    assert re.search(r"◔ pending .*02:36  \(2 of 10 s\)", row(lines, "queue growing"))
    assert re.search(r" memory +38 % ", row(lines, " memory "))
    assert any(re.search(r"● ok +no data +0 s ", line) for line in lines)
    assert re.search(r"▲ on .* 8 s \+", row(lines, "p99 latency > 100 ms"))
    assert any("(limit 100 ms) for the last 8 s." in line for line in lines)
    assert not any("02:40" in line or "03:16" in line for line in lines)
    assert not any("was killed" in line for line in lines)
    early, after = as_looked_at(view, 100), as_looked_at(view, 210)
    assert "● ok" in row(early, "p99 latency")
    assert any("✓ p99" in line for line in early)
    assert any("✗ p99" in line for line in after)
    assert any("no alert has fired" in line for line in early)
    assert any(re.search(r"02:30 +✓ ended .* 32 s ", line) for line in after)


def test_what_a_rule_reads_is_known_at_every_second_of_the_past() -> None:
    """Also where its ten seconds are those of one coarser bin."""
    for cursor in (158, 159):
        lines = as_looked_at(told(OVER), cursor)
        assert re.search(r"▲ FIRING +p99 latency +[\d.]+ ms +> 100 ms", row(lines, "p99 latency "))
        assert re.search(r"● ok +GPU utilisation +88 % ", row(lines, "GPU utilisation"))


def test_how_far_an_episode_came_later_is_not_told_of_the_moment_before() -> None:
    begun = AlertChange(151, "p99", "firing", 70.0, 150, 70.0, "", 60.0)
    view = fold(told(Story(seconds=165, end=None, spike=(150, 300))), begun)

    async def walk() -> None:
        async with shown(view) as (app, pilot):
            lines = await press(pilot, "3")
            now = float(re.findall(r"([\d.]+) ms", row(lines, "›02:30"))[-1])
            app.sight = looks(app.sight, at=165, held=240, cursor=151)
            app.redraw()
            lines = await press(pilot)
            then = float(re.findall(r"([\d.]+) ms", row(lines, "›02:30"))[-1])
            assert then < now

    asyncio.run(walk())


def test_enter_shows_the_episode_in_the_charts() -> None:
    async def walk() -> None:
        async with shown(told(OVER)) as (app, pilot):
            lines = await press(pilot, "3", "enter")
            assert isinstance(app.screen, Live)
            assert "VIEW PAUSED  at 03:18" in lines[0]  # half of it after its end
            assert app.sight.span(240) == 32 + 2 * 16
            assert any("▲" in line[7:79] for line in lines[8:25])
            await press(pilot, "end")
            assert "RUNNING" in text(app)
            none = await press(pilot, "3", "slash", *"nothing", "enter", "enter")
            assert any("nothing with these words" in line for line in none)

    asyncio.run(walk())


def test_a_click_picks_an_episode_and_a_double_click_shows_it() -> None:
    view = fold(told(OVER), AlertChange(200, "errors", "firing", 0.02, 196, 0.02, "", 0.01))

    async def walk() -> None:
        async with shown(view) as (app, pilot):
            lines = await press(pilot, "3")
            assert "›03:16" in row(lines, "errors > 1 %")
            await pilot.click("#history", offset=(5, 3))
            lines = await press(pilot)
            assert "›02:30" in row(lines, "✓ ended")
            await pilot.click("#history", offset=(5, 3), times=2)
            await settle(pilot)
            assert isinstance(app.screen, Live)

    asyncio.run(walk())


def test_the_filter_leaves_out_what_has_not_its_words() -> None:
    async def walk() -> None:
        async with shown(told(FIRING)) as (app, pilot):
            await press(pilot, "3", "slash")
            assert isinstance(app.screen, Word)
            lines = await press(pilot, *"memory", "enter")
            assert "only: memory" in lines[1]
            assert [line for line in lines if "● ok" in line] == [row(lines, "GPU memory")]
            lines = await press(pilot, "slash", "ctrl+u", "enter")
            assert len([line for line in lines if "● ok" in line]) == 6

    asyncio.run(walk())


def test_tab_and_arrows_pick_the_rule_that_is_told_of() -> None:
    async def walk() -> None:
        async with shown(told(FIRING)) as (app, pilot):
            await press(pilot, "3")
            app.screen.query_one("#rules").focus()
            lines = await press(pilot, "down", "down")
            assert "›● ok" in row(lines, "GPU memory ") or "› ok" in row(lines, "GPU memory ")
            assert any("GPU memory has not been > 80 % for 5 s." in line for line in lines)
            lines = await press(pilot, "enter")  # others have
            assert any("GPU memory has not fired: there is nothing to show." in li for li in lines)
            lines = await press(pilot, "tab")
            assert any("p99 latency: up to 184 ms" in line for line in lines)

    asyncio.run(walk())


OWN = """[load]
phases = [ {rate = 3, for = "3s"} ]  # mine
"""


def test_a_rule_is_edited_with_every_fault_told_while_typing(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(OWN)

    async def typed(pilot: Pilot[Any], field: str, words: str) -> str:
        pilot.app.screen.query_one(field, Input).value = words
        await settle(pilot)
        said = pilot.app.screen.query_one("#said", Label)
        return str(said.content)

    async def walk() -> None:
        async with shown(told(FIRING), folder=tmp_path) as (app, pilot):
            lines = await press(pilot, "3", "e")
            assert isinstance(app.screen, Edit)
            assert "p99 > 100 ms" in "\n".join(lines)
            apply = app.screen.query_one("#run", Button)
            assert "did you mean 'p9" in await typed(pilot, "#when", "p98 > 100 ms")
            assert apply.disabled
            assert "not a duration" in await typed(pilot, "#when", "p99 > 100")
            assert "for how long?" in await typed(pilot, "#for", " ")
            await typed(pilot, "#for", "10s")
            assert "p99 latency > 250 ms for 10 s" in await typed(pilot, "#when", "p99 > 250 ms")
            assert not apply.disabled
            await pilot.click("#both")
            await ended(app)
            await settle(pilot)
            assert not isinstance(app.screen, Edit)
            await press(pilot, "e")
            await typed(pilot, "#for", "off")
            await pilot.click("#run")
            await ended(app)

    with desk(tmp_path / "control") as came:
        snapshot = {"control": str(tmp_path / "control"), "pid": os.getpid()}
        runlog.write_snapshot(tmp_path, {**snapshot, "scenario_file": str(path)})
        asyncio.run(walk())
    assert came == [
        {"command": "alert", "when": "p99 > 250 ms", "for": "10 s"},
        {"command": "alert", "when": "p99 > 100 ms", "for": "off"},
    ]
    (alert,) = spec.load(str(path)).spec.alert
    assert (alert.when, alert.length) == ("p99 > 250 ms", 10 * SECOND)
    assert path.read_text().startswith(OWN)


def test_of_a_run_that_is_over_a_rule_can_only_be_saved(tmp_path: Path) -> None:
    runlog.write_snapshot(tmp_path, {"scenario_file": str(tmp_path / "users.py")})

    async def walk() -> None:
        async with shown(told(Story(seconds=60)), folder=tmp_path) as (app, pilot):
            await press(pilot, "3", "e")
            off = {name for name in ("run", "file", "both")
                   if app.screen.query_one(f"#{name}", Button).disabled}  # fmt: skip
            assert off == {"run", "file", "both"}
            assert "no place for alert rules" in " ".join(text(app).split())
            await press(pilot, "escape", "k")
            assert "nobody has seen" in text(app).splitlines()[-1]

    asyncio.run(walk())


def test_changed_rules_are_those_that_are_shown() -> None:
    view = told(FIRING)
    rules = tuple(replace(rule, limit=250.0) if rule.name == "p99" else rule for rule in view.rules)
    lines = screen(fold(view, Mark(164, "alert changed", rules=rules[:3])))
    assert re.search(r"p99 latency +80\.5 ms +> 250 ms", lines[3])
    assert not any("queue growing" in line for line in lines)


# ── making itself heard ──────────────────────────────────────────────────────

FIRED = AlertChange(151, "p99", "firing", 184.0, 146, 184.0, "", 100.0)


def test_an_alert_is_news_once_and_only_while_the_run_goes_on() -> None:
    before = told(Story(seconds=150, end=None))
    after = fold(before, FIRED)
    assert [spell.rule.name for spell in news(before, after)] == ["p99"]
    assert news(after, after) == []
    assert news(after, seen(after)) == []
    assert news(View(), after) == []  # it fired before we looked
    ended = fold(after, AlertChange(170, "p99", "ok", 44.0, 146, 190.0, limit=100.0))
    assert news(after, ended) == []
    again = fold(ended, AlertChange(180, "p99", "firing", 120.0, 176, 120.0, "", 100.0))
    assert len(news(ended, again)) == 1


@pytest.mark.parametrize(
    ("chosen", "environment", "expected"),
    [
        ("auto", {"TERM": "xterm-256color"}, "off"),
        ("auto", {"TERM": "xterm-kitty"}, "osc9"),
        ("auto", {"TERM": "foot"}, "osc777"),
        ("auto", {"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "osc9"),
        ("auto", {"TERM": "tmux-256color", "TERM_PROGRAM": "WezTerm"}, "off"),
        ("auto", {"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"}, "off"),
        ("osc9", {"TERM": "screen", "TMUX": "/tmp/tmux"}, "osc9"),
        ("off", {"TERM": "foot"}, "off"),
    ],
)
def test_only_terminals_that_know_notifications_get_them(
    chosen: Any, environment: dict[str, str], expected: str
) -> None:
    assert way(chosen, environment) == expected


def test_a_notification_holds_nothing_that_steers_a_terminal() -> None:
    fired = news(
        told(Story(seconds=150, end=None)), fold(told(Story(seconds=150, end=None)), FIRED)
    )
    text = notification(fired, "0147-a;b\x1b]0;\x07x", "osc777", tmux=False)
    assert text.startswith("\x1b]777;notify;loadbench 0147-a,b")
    assert text.endswith(";▲ p99 latency > 100 ms for 5 s (184 ms)\x07")
    assert text.count("\x1b") == text.count("\x07") == 1
    assert notification(fired, "0147", "osc9", tmux=False) == (
        "\x1b]9;loadbench 0147: ▲ p99 latency > 100 ms for 5 s (184 ms)\x07"
    )
    failing = fold(told(Story(seconds=150, end=None)), replace(FIRED, value=None, peak=None))
    assert notification(list(failing.spells), "0147", "osc9", tmux=False) == (
        "\x1b]9;loadbench 0147: ▲ p99 latency > 100 ms for 5 s (> 100 ms)\x07"
    )  # as on the screen
    wrapped = notification(fired, "0147", "osc9", tmux=True)
    assert wrapped.startswith("\x1bPtmux;\x1b\x1b]9;")
    assert wrapped.endswith("\x07\x1b\\")
    assert notification(fired, "0147", "off", tmux=False) == ""
    assert notification([], "0147", "osc9", tmux=False) == ""


def test_the_terminal_rings_and_is_told_once(tmp_path: Path) -> None:
    folder = tmp_path / "0001-story"
    folder.mkdir()
    runlog.write_snapshot(folder, {"state": "running", "pid": os.getpid()})
    story = list(records(Story(seconds=12, end=None)))
    log = folder / runlog.LOG
    log.write_bytes(b"".join(encode(record) + b"\n" for record in story))
    with terminal("--attach", str(folder), "--notify", "osc777") as screen:
        screen.until("● RUNNING  00:12")
        screen.written = ""
        fired = replace(FIRED, second=11, since=6)
        with open(log, "ab") as file:
            file.write(encode(fired) + b"\n")
        screen.until("▲ 1 alert")
        with open(log, "ab") as file:
            file.write(encode(replace(fired, acknowledged=True)) + b"\n")
            file.write(encode(Mark(12, "a mark after it")) + b"\n")
        screen.until("a mark after it")
        assert screen.written.count("\x1b]777;notify;loadbench 0001-story;▲ p99 latency") == 1
        rest = re.sub(r"\x1b\][^\x07]*\x07", "", screen.written)
        assert rest.count("\x07") == 1  # the bell
        screen.press("q")
        screen.end()


def test_a_start_without_rules_is_drawn() -> None:
    lines = screen(folded([start(rules=())]))
    assert any("no rules yet" in line for line in lines)


def test_the_peak_of_an_episode_that_goes_on_follows_what_is_measured() -> None:
    begun = AlertChange(151, "p99", "firing", 70.0, 150, 70.0, "", 60.0)
    view = fold(told(Story(seconds=155, end=None)), begun)
    later = fold(told(FIRING), begun)  # 80.5 ms are measured by now

    async def walk() -> None:
        async with shown(replace(view, spells=view.spells[-1:])) as (app, pilot):
            lines = await press(pilot, "3")
            first = re.search(r"p99 latency > 60 ms .*?([\d.]+) ms", row(lines, "›02:30"))
            app.run_view = replace(later, spells=view.spells[-1:])
            app.redraw()
            lines = await press(pilot)
            then = re.search(r"p99 latency > 60 ms .*?([\d.]+) ms", row(lines, "›02:30"))
            assert first is not None
            assert then is not None
            assert float(then[1]) >= float(first[1]) >= 70.0
            calm = fold(later, AlertChange(165, "p95", "no data", None))
            app.run_view = replace(calm, spells=view.spells[-1:], rings=told(OVER).rings)
            app.redraw()
            lines = await press(pilot)
            last = re.search(r"p99 latency > 60 ms .*?([\d.]+) ms", row(lines, "›02:30"))
            assert last is not None
            assert float(last[1]) >= float(then[1])  # it does not fall

    asyncio.run(walk())


def test_outages_are_told_as_the_log_tells_them() -> None:
    """As long as the alert goes on by what is measured, then by the log itself."""
    rules = (Rule("errors", "errors", True, 0.01, 5 * SECOND),)
    down = {*range(30, 33), *range(40, 43)}
    each = [
        window(s, [] if s in down else [5.0] * 50, {"refused": 50} if s in down else {})
        for s in range(48)
    ]
    fires = AlertChange(36, "errors", "firing", 0.3, 30, 0.3)
    view = fold(folded([start(rules=rules), *each[:37], fires]), each[37])
    for one in each[38:]:
        view = fold(view, one)
    said = "Likely: the server was away twice, about 6 s in all, and is back."
    assert any(said in line for line in screen(view))
    over = AlertChange(48, "errors", "ok", 0.0, 30, 0.3, words=("It was so.", "Likely: that."))
    lines = screen(fold(view, over))
    assert any("It was so." in line for line in lines)
    assert not any(said in line for line in lines)


def test_what_was_changed_by_hand_before_an_alert_is_told_as_its_cause() -> None:
    changed = Mark(148, "engine: max_batch 8 → 2", Standing())
    lines = screen(fold(told(FIRING), changed))
    assert any("Likely: that change." in line for line in lines)
    assert any("at 02:28, this was changed: engine: max_batch 8 → 2." in line for line in lines)


def test_a_screen_that_is_being_put_together_is_drawn_when_it_is() -> None:
    async def walk() -> None:
        async with shown(told(Story())) as (app, pilot):
            app.switch_screen("alerts")
            app.redraw()  # as a record that comes just now has it done
            await until(pilot, lambda: "History" in text(app))

    asyncio.run(walk())
