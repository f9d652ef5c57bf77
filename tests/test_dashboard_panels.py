"""Panels of the screens of a run made large: which take keys, what they tell then, all cards."""

import asyncio
import re

import pytest
from msgspec.structs import replace

from dashboard.measures import gpu_busy
from dashboard.screens.help import Help
from dashboard.screens.live import MachineChart, done, gpu_plot
from dashboard.screens.live import machine as machine_reading
from dashboard.widgets.tile import Tile
from loadbench.alerts import built_in
from loadbench.machine import Gpu, Machine
from loadbench.model import Record, Start, Window
from loadbench.streams import Stream
from loadbench.units import SECOND
from loadbench.view import View, fold
from tests.records import start, window
from tests.stage import folded, shown, text, told
from tests.storyline import GB, Story, records
from tests.test_dashboard_keys import press

RUNNING = Story(end=None)
LIVE = ("tile-machine", "latency", "throughput", "machine", "queue", "split", "requests", "events")
ENGINE = ("sizes", "reasons", "inside", "by-size")


@pytest.mark.parametrize(("screen", "panels"), [("1", LIVE), ("2", ENGINE)])
@pytest.mark.parametrize("size", [(200, 60), (120, 40), (80, 24)])
def test_tab_goes_through_all_panels_and_enter_makes_each_large(
    size: tuple[int, int], screen: str, panels: tuple[str, ...]
) -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), size) as (app, pilot):
            await press(pilot, screen)
            there = [name for name in panels if app.screen.query_one(f"#{name}").region.height]
            met = []
            for _ in there:
                await press(pilot, "tab")
                assert app.focused is not None
                met.append(app.focused.id)
                if app.focused.id == "latency":
                    continue  # large it is a screen of its own
                await press(pilot, "enter")
                large = app.screen.maximized
                assert large is not None
                assert (large.region.width, large.region.height) == (size[0], size[1] - 2)
                await press(pilot, "escape")
                assert app.screen.maximized is None
            assert met == there

    asyncio.run(walk())


def test_the_way_of_a_request_is_told_by_its_parts_where_there_is_room() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), (80, 24)) as (app, pilot):
            app.screen.query_one("#split").focus()
            lines = await press(pilot, "enter")
            (compute,) = [line for line in lines if "█ compute  " in line and "%" in line]
            mean, share, p50, _, p99 = compute.split("compute")[1].split()[:5]
            assert 6 < float(mean) < 7
            assert share.endswith("%")
            assert 6 < float(p50) < float(p99) < 9
            (network,) = [line for line in lines if "░ network  " in line and "%" in line]
            assert network.count("n/a") == 3  # nobody tells it

    asyncio.run(walk())


def test_help_begins_with_the_panel_in_focus() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), (120, 60)) as (app, pilot):
            app.screen.query_one("#requests").focus()
            whole = " ".join(await press(pilot, "question_mark"))
            assert isinstance(app.screen, Help)
            assert whole.index("Requests: a row for each kind") < whole.index("Tiles show")

    asyncio.run(walk())


def two_cards() -> View:
    """Ours is the second; the first is busier, and somebody else is on both."""
    found = []
    for record in records(RUNNING):
        match record:
            case Start():
                record = replace(record, device="cuda:1")
            case Window(machine=machine) if machine is not None:
                ours = replace(machine.gpus[0], index=1, utilization=0.4,
                               processes=((4121, 2 * GB),))  # fmt: skip
                other = Gpu(0, "NVIDIA H200", utilization=0.97, throttle=("power cap",),
                            memory_used=100 * GB, memory_total=141 * GB,
                            processes=((77, None),))  # fmt: skip
                record = replace(record, machine=replace(machine, gpus=(other, ours)))
        found.append(record)
    return folded(found)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_enter_on_the_tile_of_the_gpu_lists_all_cards_and_who_else_is_on_them(
    size: tuple[int, int],
) -> None:
    async def walk() -> None:
        async with shown(two_cards(), size) as (_, pilot):
            before = await press(pilot, "tab")
            assert not any("pid 4121" in line for line in before)
            lines = await press(pilot, "enter")
            text = "\n".join(lines)
            assert "GPU busy 40 %" in text
            words = ("○ 0 NVIDIA H200", "pid 77", "● 1 NVIDIA H200", "pid 4121")
            at = {word: next(i for i, line in enumerate(lines) if word in line) for word in words}
            assert list(at.values()) == sorted(at.values())
            assert "97  100 of 141" in lines[at["○ 0 NVIDIA H200"]]
            assert "power cap" in lines[at["○ 0 NVIDIA H200"]]
            assert lines[at["pid 77"]].rstrip(" │").endswith("pid 77 is on it too")
            assert "2.0 GB of its memory" in lines[at["pid 4121"]]
            top = [line for line in lines[2:8] if any(block in line for block in "▁▂▃▄▅▆▇█")]
            assert not top  # 97 % is another card's
            assert any("Latency" in line for line in await press(pilot, "escape"))

    asyncio.run(walk())


def test_of_the_cards_that_a_target_told_of_the_busiest_and_the_fullest_are_shown() -> None:
    """Which of them serves nobody knows; the device of older logs says the first of them."""

    def second(at: int) -> Window:
        idle = Gpu(0, "A10", utilization=0.0, memory_used=70 * GB, memory_total=74 * GB)
        busy = Gpu(1, "A10", utilization=0.95, memory_used=1 * GB, memory_total=74 * GB)
        machine = Machine(cpu=0.5, gpus=(idle, busy), told=True)
        return replace(window(at, [9.0] * 100), machine=machine)

    async def walk() -> None:
        story: list[Record] = [
            start(device="cuda", rules=built_in(gpu=True)),
            *map(second, range(20)),
        ]
        async with shown(folded(story), (120, 40)) as (app, pilot):
            reading = machine_reading(app.scene())
            assert (reading.value, reading.note) == ("95", "GPU 0 70/74 GB")
            text = "\n".join(await press(pilot, "tab", "enter"))
            assert "GPU busy 95 %" in text
            assert "● 0 A10" in text
            assert "● 1 A10" in text
            rules = "\n".join(await press(pilot, "escape", "3"))
            assert re.search(r"● ok +GPU utilisation +95 %", rules)
            assert re.search(r"GPU memory +95 %", rules)

    asyncio.run(walk())


def test_without_a_card_the_same_place_shows_the_processor() -> None:
    async def walk() -> None:
        async with shown(told(Story(end=None, gpu=False))) as (_, pilot):
            text = "\n".join(await press(pilot, "tab", "enter"))
            assert "CPU busy 61 %" in text
            assert "pid" not in text

    asyncio.run(walk())


def test_a_second_in_which_the_machine_was_not_read_leaves_the_card_in_its_place() -> None:
    """As the last one of a run, or one whose reading came late: figures and curves are of one."""

    async def walk() -> None:
        async with shown(fold(told(RUNNING), window(240, [9.0] * 100)), (200, 60)) as (app, pilot):
            chart, tile = app.screen.query_one(MachineChart), app.screen.query_one("#tile-machine")
            assert "GPU busy" in str(chart.border_title)
            assert chart.plot is gpu_plot("0")
            assert isinstance(tile, Tile)
            assert tile._course(app.scene()) is gpu_busy("0")
            chart.focus()
            assert "● 0 NVIDIA H200" in "\n".join(await press(pilot, "enter"))

    asyncio.run(walk())


def test_tokens_a_second_are_those_that_came_in_it() -> None:
    """A server that sends 4 tokens an event, 20 events a second, and tells of 2,000 tokens every
    25 s, when an answer ends; of the last 60 s three are in view, the third in the last 10 s."""

    def second(at: int) -> Window:
        ends = at % 25 == 23
        stream = Stream(pieces=20, tokens=2000 * ends, counted=500 * ends, told=int(ends))
        blank = window(at, [25_000.0] * ends)
        return replace(blank, requests={"infer": replace(blank.requests["infer"], stream=stream)})

    story: list[Record] = [start(planned_ns=3600 * SECOND), *map(second, range(100))]

    async def walk() -> None:
        async with shown(folded(story), (120, 40)) as (app, pilot):
            assert done(app.scene()).note == "80.0 tokens/s"
            await press(pilot, "+", "+", "+")
            assert app.scene().visible_s == 60
            (row,) = [line for line in text(app).splitlines() if " infer " in line]
            assert " 80.0 " in row

    asyncio.run(walk())
