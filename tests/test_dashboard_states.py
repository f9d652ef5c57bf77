"""Every state of a run has its sign, its word and what to do; what is unknown is never 0."""

import asyncio
import re
import time
from dataclasses import replace as looks
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.color import ColorSystem

from dashboard.app import Dashboard
from dashboard.follow import Follow, Post, ViewChanged
from dashboard.widgets.chart import Chart
from loadbench import runlog
from loadbench.histogram import Histogram
from loadbench.model import AlertChange, End, Part
from loadbench.view import View, fold
from tests.records import start, window
from tests.stage import folded, settle, shown, text, told
from tests.storyline import Story, records

BARS = tuple("▁▂▃▄▅▆▇█")


def screen(
    view: View, size: tuple[int, int] = (120, 40), keys: str = "", theme: str = "loadbench"
) -> list[str]:
    async def read() -> str:
        async with shown(view, size, theme=theme) as (app, pilot):
            if keys:
                await pilot.press(*keys.split())
                await settle(pilot)
            return text(app)

    return asyncio.run(read()).split("\n")


def ended(reason: str, story: str = "done") -> View:
    return told(Story(seconds=30, end=reason, spike=(0, 0)))


def test_before_the_first_record() -> None:
    lines = screen(View())
    assert "○ STARTING  waiting for the run" in lines[0]
    assert any("waiting for the run" in line for line in lines[8:20])
    assert "n/a" in lines[3]
    assert "nothing yet" in "\n".join(lines)


def test_warm_up_is_shown_and_not_recorded() -> None:
    warm = [window(at, [5.0] * 60, stage="warmup") for at in (-3, -2)]
    lines = screen(folded([start(warmup_ns=3_000_000_000, planned_ns=60_000_000_000), *warm]))
    assert "◔ WARM-UP  00:02  120 requests" in lines[0]
    assert any("warming up, not recorded" in line for line in lines[8:20])
    assert "asked n/a" in lines[6]


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
def test_the_trust_in_the_figures_is_told_where_it_is_not_full(size: tuple[int, int]) -> None:
    def first_line(lateness_ms: float) -> str:
        late = Histogram.of([round(lateness_ms * 1e6)] * 500)
        windows = [window(at, [5.0] * 500, lateness=late) for at in range(20)]
        return screen(folded([start(planned_ns=60_000_000_000), *windows]), size)[0]

    assert "doubtful" not in first_line(1) + first_line(4)
    assert "▲ doubtful" in first_line(20)
    assert "▲ invalid" in first_line(80)
    if size[0] == 120:
        assert "▲ doubtful: generator late" in first_line(20)


def test_paused_says_where_and_how_to_go_on() -> None:
    lines = screen(told(Story(end=None)), keys="left")
    assert "‖ VIEW PAUSED  at 03:12, run is at 04:00  space = continue" in lines[0]
    assert "03:12" in lines[25]
    assert "now" not in lines[25]


def test_failed_says_why_and_where_to_look() -> None:
    line = screen(ended("failed"))[0]
    assert "✗ FAILED  00:30 engine stopped: killed, out of memory?" in line
    narrow = screen(ended("failed"), (80, 24))[0]
    assert "✗ FAILED  00:30 engine stopped" in narrow
    assert len(narrow) <= 80


def test_a_run_that_failed_before_it_began_is_named_and_promises_nothing() -> None:
    """The banner writes a path as it is: there is none with a capital."""
    why = "scenarios/users.py line 4: KeyError: 'models'"

    async def read() -> str:
        async with shown(folded([End(0, "failed", why)]), folder=Path("0147-users")) as (app, _):
            return text(app)

    found = asyncio.run(read())
    lines = found.split("\n")
    assert "0147-users" in lines[0]
    assert f" ✗ {why}." in lines[1]
    assert "no data yet" not in found
    assert "nothing yet" not in found
    assert found.count("nothing was recorded") > 1


def test_done_counts_its_checks(tmp_path: Path) -> None:
    states = [{"name": "p99", "state": "passed"}, {"name": "errors", "state": "failed"}]
    runlog.write_snapshot(tmp_path, {"summary": {"checks": states}})

    async def read() -> str:
        async with shown(ended("done"), folder=tmp_path) as (app, _):
            return text(app)

    assert "■ DONE  00:30 ✗ 1 of 2 checks failed" in asyncio.run(read())
    states[1]["state"] = "no data"
    runlog.write_snapshot(tmp_path, {"summary": {"checks": states}})
    assert "■ DONE  00:30 ○ 1 of 2 checks without data" in asyncio.run(read())


def test_a_run_that_is_played_says_how_fast_and_where() -> None:
    async def read() -> str:
        async with shown(ended("done")) as (app, pilot):
            await pilot.press("p")
            await settle(pilot)
            return text(app)

    assert "↺ REPLAY  ×1 00:01 / 00:30" in asyncio.run(read())


def test_stopped_early() -> None:
    assert "■ STOPPED  at 00:30" in screen(ended("stopped"))[0]


class Silent(Follow):
    """A reader whose newest record came long ago."""

    def __init__(self, view: View, age: float) -> None:
        super().__init__(Path("nowhere"))
        self.view, self.age = view, age

    async def run(self, post: Post) -> None:
        post(ViewChanged(self.view, time.monotonic() - self.age))


def test_no_data_is_told_after_three_seconds() -> None:
    async def read(age: float) -> tuple[str, int]:
        """The first line, and how bright the digits of the first tile are."""
        app = Dashboard(Path("nowhere"), Silent(told(Story(end=None)), age), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            await settle(pilot)
            tiles = app.screen._compositor.render_strips()[2:6]
            digits = next(part for line in tiles for part in line if "╶" in part.text)
            assert digits.style is not None
            assert digits.style.color is not None
            return text(app).split("\n")[0], max(digits.style.color.get_truecolor())

    fresh, bright = asyncio.run(read(-3600.0))  # however busy this machine is
    silent, dim = asyncio.run(read(6.2))
    assert "● RUNNING" in fresh
    assert "● RUNNING" in silent
    assert "no data" not in fresh
    assert re.search(r"▲ no data for ([6-9]|\d\d) s", silent)  # the screen takes a moment, too
    assert dim < bright - 40


def test_of_another_machine_it_is_not_known_whether_its_runner_is_there(tmp_path: Path) -> None:
    runlog.write_snapshot(tmp_path, {"pid": 1, "host": "ci-7", "state": "running"})

    async def read() -> str:
        app = Dashboard(tmp_path, Silent(told(Story(end=None)), 6.2), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            app._tick()
            await settle(pilot)
            return text(app)

    found = asyncio.run(read())
    assert "▲ Nothing comes from the run: its runner at ci-7 stands still, or is gone." in found
    assert "s = stop" not in found


def test_a_killed_runner_is_seen_by_its_process(tmp_path: Path) -> None:
    dead = 2**22 + 1  # above the largest process number there can be
    runlog.write_snapshot(tmp_path, {"pid": dead, "state": "running"})

    async def read() -> str:
        async with shown(told(Story(seconds=30, end=None)), folder=tmp_path) as (app, pilot):
            for _ in range(3):
                app._tick()
            await settle(pilot)
            return text(app)

    assert "✗ KILLED  00:30 the runner is gone: killed?" in asyncio.run(read())


def test_without_a_gpu_the_cpu_takes_its_place() -> None:
    view = told(Story(gpu=False, end=None))
    lines = screen(view, (200, 60))
    assert "CPU %" in lines[1]
    assert "memory 3.0/8.0 GB" in lines[6]
    assert "CPU busy 61 %" in lines[7]
    assert "GPU" not in "\n".join(lines)
    assert "resnet-tiny · cpu" in lines[0]
    assert "CPU 61%" in screen(view, (80, 24))[1]


def test_a_target_that_tells_nothing_of_its_inside() -> None:
    view = told(Story(server="none", end=None))
    whole = "\n".join(screen(view))
    assert "10.0.0.7:8000 · ramp-1200" in whole
    assert "This target does not report queue and batch times. Shown: client side only." in whole
    assert re.search(r"─ In flight open ─", whole)
    engine = "\n".join(screen(view, keys="2"))
    assert engine.count("This target does not report queue and batch") >= 2
    assert "client side only" in "\n".join(screen(view, (80, 24)))


def test_a_target_that_tells_means_says_mean() -> None:
    view = told(Story(server="means", end=None))
    lines = screen(view, keys="2")
    assert "Queue wait ms mean" in lines[1]
    assert "(mean, ms)" in lines[7]
    assert "■ batch wait" not in lines[7]  # not told, so not drawn as 0
    assert "not told by this target" in "\n".join(lines)
    assert "batch wait" not in "\n".join(screen(view)[27:31])


def test_a_percentile_among_the_failed_is_no_number() -> None:
    busy = [window(at, [5.0] * 80, {"http 503": 20}) for at in range(30)]
    lines = screen(folded([start(), *busy]))
    assert "■ p50 5.00" in lines[7]
    assert "■ p99 > 100 ms" in lines[7]
    chart = [line[7:79] for line in lines[8:25]]
    assert chart[1].strip("│ ┊")  # to the top of the chart
    assert screen(folded([start(), *busy]), (80, 24))[1].split()[2:4] == ["p99", ">100ms"]


def test_what_was_never_sent_is_in_the_table_of_requests() -> None:
    """As in the tiles and the end text: a request that found no connection was asked too."""
    slow = [window(at, [5.0] * 60, asked=100, unsent=40) for at in range(30)]
    whole = "\n".join(screen(folded([start(), *slow])))
    assert re.search(r"infer +1,800 +60\.0 +5\.00 +> 100 +> 100 .* 1,200 +40\b", whole)
    kinds = [
        replace(second, requests={"a": second.requests["infer"], "b": second.requests["infer"]})
        for second in slow
    ]
    whole = "\n".join(screen(folded([start(), *kinds])))
    assert re.search(r"│ a +1,800 .* 0 +0 +││", whole)  # nobody knows which kind they were
    assert re.search(r"│ all +3,600 .* 1,200 +25 +││", whole)


def test_a_server_that_stands_still_is_not_fast() -> None:
    """The open requests that are over the limit count before they are answered or given up."""
    quick = [window(at, [5.0] * 100) for at in range(10)]
    still = [
        window(10 + at, [], asked=100, sent=100, in_flight=100 * at + 100, overdue=100 * at + 90)
        for at in range(5)
    ]
    lines = screen(folded([start(), *quick, *still]))
    assert "■ p50 5.00  ■ p95 > 100  ■ p99 > 100 ms" in lines[7]
    assert "0 of 1,000" in lines[6]  # not failed yet
    assert re.search(r"infer +1,000 +66\.7 +5\.00 +> 100 +> 100 .* 0 +0 +││", "\n".join(lines))
    assert "█" in lines[12][70:78]  # full to the top, no gap
    lines = screen(folded([start(), *quick, *still, End(14, "stopped")]))
    assert "500 of 1,500" in lines[7]  # nobody will answer them
    assert re.search(r"infer +1,000 .* 500 +33 +││", "\n".join(lines))


def test_a_server_that_stood_still_is_not_fast_when_one_looks_back_either() -> None:
    """At a tenth second, whose ten seconds there are as one bin, too."""
    still = [window(at, [], asked=100, sent=100, overdue=90) for at in range(10, 25)]
    view = folded([start(), *(window(at, [5.0] * 100) for at in range(10)), *still])

    async def read(at: int) -> str:
        async with shown(view) as (app, pilot):
            app.sight = looks(app.sight, at=at, held=60)
            app.redraw()
            await settle(pilot)
            return text(app).split("\n")[7]

    for at in (19, 20):
        assert "■ p99 > 100 ms" in asyncio.run(read(at))


def test_asked_and_done_are_of_the_same_seconds() -> None:
    """After the last request the schedule asks for nothing: of that second there is no rate."""
    load = [window(at, [5.0] * 100) for at in range(20)]
    drained = window(20, [], stage="drain", rate=0.0)
    lines = screen(folded([start(planned_ns=20_000_000_000), *load, drained, End(20, "done")]))
    assert "■ 100 ─ asked 100 ─" in lines[8]
    assert any("00:21 ■ run done" in line for line in lines)
    assert "■ DONE  00:20" in lines[0]


def test_short_times_stay_short() -> None:
    """A queue wait of half a microsecond is no wait: six digits of it would be noise."""
    view = told(Story(seconds=30, end=None, spike=(0, 0)))
    latest = view.rings[0][-1].window.server
    assert latest is not None
    quick = Part(10, 5_110, Histogram.of([511] * 10))
    seconds = [
        window(at, [5.0] * 10, server=replace(latest, queue=quick)) for at in range(20)
    ]  # fmt: skip
    lines = screen(folded([start(), *seconds]), (80, 24), keys="2")
    assert "queue 0.00ms" in lines[1]


def test_seconds_without_data_are_a_gap() -> None:
    parts = [
        *(window(at, [5.0] * 9) for at in range(20)),
        *(window(at, [5.0] * 9) for at in range(40, 60)),
    ]
    lines = screen(folded([start(planned_ns=None), *parts]))
    bottom = lines[24][7:79]
    assert re.fullmatch(r"█{24}\s{24}█{24}", bottom)


def test_a_closed_loop_and_an_endless_run() -> None:
    view = folded([start(planned_ns=None), *(window(at, [5.0] * 9, rate=None) for at in range(70))])
    lines = screen(view)
    assert "● RUNNING  01:10" in lines[0]
    assert "/" not in lines[0].split("RUNNING")[1]
    assert "asked 9.00" in lines[6]


@pytest.mark.parametrize("theme", ["loadbench", "loadbench-light", "ansi-dark", "nord"])
def test_every_theme_draws_the_same_cells(theme: str) -> None:
    assert screen(told(Story(end=None)), theme=theme) == screen(told(Story(end=None)))


def test_no_color_leaves_bands_that_differ_in_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def read() -> list[tuple[int, int, int]]:
        async with shown(told(Story(end=None))) as (app, _):
            strips = app.screen._compositor.render_strips()
            legend = [segment for segment in strips[7] if segment.text.startswith("■")][:3]
            colours = [s.style.color for s in legend if s.style is not None and s.style.color]
            return [tuple(colour.get_truecolor()) for colour in colours]  # type: ignore[misc]

    greys = asyncio.run(read())
    assert all(red == green == blue for red, green, blue in greys)
    assert greys[0][0] + 35 < greys[1][0] < greys[2][0] - 35


def test_no_color_holds_where_there_are_only_sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 16 of a terminal cannot be made grey, so that theme is not taken then."""

    async def theme() -> str:
        app = Dashboard(Path("nowhere"), Silent(View(), 0))
        app.console._color_system = ColorSystem.STANDARD
        async with app.run_test():
            return app.theme

    assert asyncio.run(theme()) == "ansi-dark"
    monkeypatch.setenv("NO_COLOR", "1")
    assert asyncio.run(theme()) == "loadbench-grey"


@pytest.mark.parametrize("theme", ["loadbench", "loadbench-light", "ansi-dark", "loadbench-grey"])
@pytest.mark.parametrize(("key", "chart"), [("1", "#latency"), ("2", "#inside")])
def test_bands_differ_on_every_terminal(theme: str, key: str, chart: str) -> None:
    """Also while nothing comes, where all else is dim: of a cell's two colours that takes one."""
    few = theme in ("ansi-dark", "loadbench-grey")
    system = ColorSystem.STANDARD if few else ColorSystem.TRUECOLOR

    async def read(age: float) -> set[str]:
        app = Dashboard(Path("nowhere"), Silent(told(Story(end=None)), age), theme=theme)
        async with app.run_test(size=(120, 40)) as pilot:
            await settle(pilot)
            await pilot.press(key)
            await settle(pilot)
            shown = app.screen.query_one(chart, Chart)
            cells = [cell for y in range(shown.size.height) for cell in shown.render_line(y)]
            bands = [cell.style for cell in cells if cell.text[:1] in BARS and cell.style]
            assert not any(style.dim for style in bands)
            return {str(style.color.downgrade(system).name) for style in bands if style.color}

    now, later = asyncio.run(read(0.0)), asyncio.run(read(9.0))
    assert len(later) == len(now) == 3


def test_buttons_stand_in_one_line_with_sixteen_colours() -> None:
    lines = screen(told(Story(end=None)), theme="ansi-dark", keys="3 e")
    assert any("Change the run" in line and "Cancel" in line for line in lines)
    assert "● RUNNING" in lines[0]  # what lies below a dialog is still seen


def test_sixteen_colours_are_the_terminals_own() -> None:
    async def read() -> set[str]:
        async with shown(told(Story(end=None)), theme="ansi-dark") as (app, _):
            return {
                str(segment.style.color.name)
                for strip in app.screen._compositor.render_strips()[8:25]
                for segment in strip
                if segment.style is not None and segment.style.color is not None
            }

    colours = asyncio.run(read())
    assert {"blue", "cyan", "bright_yellow", "magenta"} <= colours
    assert not any(name.startswith("#") for name in colours)


def test_failures_are_in_the_terminals_own_red() -> None:
    async def read() -> set[int | None]:
        async with shown(told(Story(end=None)), theme="ansi-dark") as (app, _):
            cells = [cell for strip in app.screen._compositor.render_strips() for cell in strip]
            found = [cell.style for cell in cells if "http 503" in cell.text and cell.style]
            return {style.color.number for style in found if style.color}

    assert asyncio.run(read()) == {9}  # bright red


def test_an_alert_marks_its_tile() -> None:
    view = fold(told(Story(seconds=60, end=None)), AlertChange(59, "errors", "firing", 0.02))
    lines = screen(view)
    assert "▲ Errors %" in lines[1]
    assert "▲ 1 alert" in lines[0]
    over = fold(view, End(60, "done"))
    assert "▲" not in screen(over)[0]


def test_a_damaged_log_is_said(tmp_path: Path) -> None:
    with open(tmp_path / runlog.LOG, "wb") as file:
        from loadbench.model import encode

        file.writelines(encode(record) + b"\n" for record in records(Story(seconds=5, end=None)))
        file.write(b"{broken\n")

    async def read() -> str:
        app = Dashboard(tmp_path, Follow(tmp_path), theme="loadbench")
        async with app.run_test(size=(120, 40)) as pilot:
            until = time.monotonic() + 10
            while not app.problem and time.monotonic() < until:
                await pilot.pause(0.05)
            await settle(pilot)
            return text(app)

    assert "✗ FAILED  00:05 the log is damaged at '{broken'" in asyncio.run(read())
