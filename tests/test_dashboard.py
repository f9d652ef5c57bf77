"""The screens as text: the right figures in the right places at each size, nothing cut."""

import asyncio
import re

import pytest
from msgspec.structs import replace

from dashboard.screens.alerts import Alerts
from dashboard.screens.engine import Engine
from dashboard.screens.latency import Latency
from loadbench import units
from loadbench.model import Ground, Mark, Note, Part, Server, Window
from loadbench.units import MS
from loadbench.view import View, fold, recent
from tests import records, storyline
from tests.stage import folded, settle, shown, text, told
from tests.storyline import Story

SIZES = [(80, 24), (120, 40), (200, 60), (100, 32), (60, 16)]
RUNNING = Story(end=None)


def screen(
    view: View,
    size: tuple[int, int] = (120, 40),
    keys: str = "",
    theme: str = "loadbench",
) -> list[str]:
    """The lines of the screen after some keys."""

    async def read() -> str:
        async with shown(view, size, theme=theme) as (app, pilot):
            if keys:
                await pilot.press(*keys.split())
                await settle(pilot)
            assert not any(
                widget.show_vertical_scrollbar or widget.show_horizontal_scrollbar
                for widget in app.screen.query("*")
            )
            return text(app)

    lines = asyncio.run(read()).split("\n")
    assert len(lines) == size[1]
    assert all(len(line) <= size[0] for line in lines)
    return lines


def column(lines: list[str], left: int, right: int) -> str:
    return "\n".join(line[left:right] for line in lines)


def test_live_shows_the_figures_of_the_last_ten_seconds() -> None:
    lines = screen(told(RUNNING))
    near = recent(told(RUNNING), 240)
    assert near is not None
    p99 = units.ms(near.latency.quantile(0.99))
    assert lines[0].startswith(
        " loadbench  resnet-tiny · cuda:0 · ramp-1200  ● RUNNING  04:00 / 10:00"
    )
    titles = re.findall(r"─ (Throughput|Latency p99|Errors|Queue|GPU) ", lines[1])
    assert titles == ["Throughput", "Latency p99", "Errors", "Queue", "GPU"]
    asked = f"asked {units.significant(near.asked / 10)}"
    assert re.findall(rf"{asked}|limit 100|16 of 41k|max 62|31/141 GB 412 W", lines[6]) == [
        asked, "limit 100", "16 of 41k", "max 62", "31/141 GB 412 W",
    ]  # fmt: skip
    assert f"■ p99 {p99} ms" in lines[7]
    assert f"■ {units.significant(near.done / 10)} ─ {asked} ─" in lines[7]
    assert "Where the time goes (mean request, last 4m)" in lines[27]


def test_the_spike_its_mark_and_its_alert_are_in_the_charts() -> None:
    lines = screen(told(RUNNING))
    chart = [line[7:79] for line in lines[8:25]]
    at = chart[0].index("▲")
    assert chart[0].index("◆") < at
    assert 40 < at < 50  # 155 s of 240 in 72 columns
    top = min(row for row, line in enumerate(chart) if "█" in line)
    assert "█" in chart[top][at - 1 : at + 6]
    assert "█" not in chart[top][:40]
    assert chart[top].rstrip()[-1] not in "█"
    assert any(line.count("┄") > 60 for line in chart)
    assert lines[25][1:].lstrip().startswith("ms └-4m")
    assert lines[25][:79].rstrip().endswith("now")


def test_the_requests_are_those_in_view() -> None:
    lines = screen(told(RUNNING))
    rows = [line[1:79].split() for line in lines[32:37]]
    assert rows[0][:6] == ["request", "done", "/s", "p50", "p95", "p99"]
    done = [int(row[-9].replace(",", "")) for row in rows[1:]]
    assert done[3] == sum(done[:3])
    assert rows[4][0] == "all"
    assert [row[-2] for row in rows[1:]] == ["16", "0", "0", "16"]


def test_how_requests_failed_stands_below_them_as_far_as_there_is_room() -> None:
    window = records.window(240, [5.0] * 300)
    kinds = {"http_503": 12, "first_byte_timeout": 300, "truncated": 4, "bad_answer": 1}
    part = replace(window.requests["infer"], failed=kinds)
    view = fold(told(Story(end=None, spike=(-1, -1))), replace(window, requests={"infer": part}))
    whole = "✗ first_byte_timeout 300 · http_503 12 · truncated 4 · bad_answer 1"
    assert whole in "\n".join(screen(view, (120, 40)))
    assert "✗ first_byte_timeout 300 · http_503 12 · 2 more" in "\n".join(screen(view, (100, 32)))


def test_events_tell_newest_first() -> None:
    events = column(screen(told(RUNNING)), 81, 120)
    assert events.index("03:02 ✓ p99 latency back under") < events.index("02:35 ▲ p99 latency >")
    wide = "\n".join(screen(told(RUNNING), (200, 60)))
    assert "01:00 · load reached 200/s" in wide
    assert f"00:00 · warm-up done ({told(RUNNING).warmed} requests)" in wide


@pytest.mark.parametrize("size", SIZES)
def test_line_1_keeps_state_and_alerts_at_every_size(size: tuple[int, int]) -> None:
    firing = Story(seconds=165, end=None)
    line = screen(told(firing), size)[0]
    assert "● RUNNING" in line
    assert "▲ 1 alert" in line
    assert ("━" in line) == (size[0] >= 120)


@pytest.mark.parametrize("size", SIZES)
def test_each_screen_fits_each_size(size: tuple[int, int]) -> None:
    found = {"1": "p99", "2": "Batch size", "3": "limit", "enter": "Percentiles"}

    async def walk() -> None:
        async with shown(told(RUNNING), size) as (app, pilot):
            for key, title in found.items():
                await pilot.press("1", key)
                await settle(pilot)
                lines = text(app).split("\n")
                assert "RUNNING" in lines[0]
                assert title in "\n".join(lines)
                assert ("k Acknowledge" if key == "3" else "space Pause") in lines[-1]
                assert "? Help" in lines[-1]
                assert max(map(len, lines)) <= size[0]
                borders = [line for line in lines if line.startswith(("╭", "╰"))]
                assert "…" not in "".join(borders)  # no title is cut

    asyncio.run(walk())


def test_a_short_terminal_has_two_rows_of_tiles_and_a_ticker() -> None:
    lines = screen(told(RUNNING), (80, 24))
    assert re.match(r"done \d+/s +p99 [\d.]+ms +errors 0% +queue 12 +GPU 88%", lines[1])
    assert set(lines[2]) <= set(" ▁▂▃▄▅▆▇█")
    assert lines[3].startswith("╭─ Latency  ■ p50")
    assert lines[-2].startswith(" 03:02 ✓ p99 latency back under 100 ms")
    assert re.match(r" all +\d", lines[-3])


def test_a_wide_terminal_has_a_third_column() -> None:
    lines = screen(told(RUNNING), (200, 60))
    assert "GPU busy 88 %" in lines[7]
    assert any("Queue 12 waiting" in line for line in lines)


def test_below_the_smallest_size_one_line_says_so() -> None:
    for size in ((52, 12), (59, 16), (60, 15), (20, 5)):
        whole = " ".join("".join(screen(told(RUNNING), size)).split())
        assert re.sub(r"\s", "", whole) == f"loadbenchneeds60×16,thisis{size[0]}×{size[1]}"


def test_the_footer_shows_the_palette_where_there_is_room() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), (60, 16)) as (app, pilot):
            for width, there in ((60, False), (120, True), (60, False), (80, True)):
                await pilot.resize_terminal(width, 40)
                await settle(pilot)
                assert ("^p palette" in text(app).split("\n")[-1]) is there

    asyncio.run(walk())


def test_resizing_back_and_forth_changes_nothing_else() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), (120, 40)) as (app, pilot):
            before = text(app)
            for width, height in ((80, 24), (200, 60), (52, 12), (70, 20), (120, 40)):
                await pilot.resize_terminal(width, height)
                await settle(pilot)
                lines = text(app).split("\n")
                assert len(lines) == height
                assert max(map(len, lines)) <= width
            assert text(app) == before

    asyncio.run(walk())


@pytest.mark.parametrize("keys", ["1 tab", "3"])
def test_what_was_in_focus_has_its_keys_again_after_a_size_that_is_too_small(keys: str) -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), (80, 24)) as (app, pilot):
            await pilot.press(*keys.split())
            await settle(pilot)
            before = app.focused
            assert before is not None
            for width, height in ((58, 24), (52, 12), (80, 24)):
                await pilot.resize_terminal(width, height)
                await settle(pilot)
                assert (app.focused is before) is (width == 80)

    asyncio.run(walk())


def test_line_1_stands_over_a_large_panel_too() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING), (80, 24)) as (app, pilot):
            await pilot.press("2", "tab", "tab", "tab", "enter")
            await settle(pilot)
            lines = text(app).split("\n")
            assert "● RUNNING" in lines[0]
            assert "Time inside the engine" in lines[1]
            assert "Batch size" not in text(app)
            await pilot.resize_terminal(50, 10)
            await settle(pilot)
            assert text(app).strip() == "loadbench needs 60×16, this is 50×10"
            await pilot.resize_terminal(80, 24)
            await settle(pilot)
            assert text(app).split("\n") == lines
            await pilot.press("enter")
            await settle(pilot)
            assert "Batch size" in text(app)

    asyncio.run(walk())


def test_the_split_of_time_enlarged_tells_what_compute_is_made_of() -> None:
    parts = {
        name: Part(60, of_it * 60 * MS)
        for name, of_it in (("queue", 1), ("compute", 6), ("compute_input", 1),
                            ("compute_output", 2))
    }  # fmt: skip
    server = replace(Server("kserve statistics", requests=60), **parts)
    begun = records.start(planned_ns=60 * units.SECOND)
    seconds = [records.window(at, [9.0] * 60, server=server) for at in range(20)]

    async def read() -> tuple[str, str]:
        async with shown(folded([begun, *seconds])) as (app, pilot):
            small = text(app)
            app.screen.query_one("#split").focus()
            await pilot.press("enter")
            await settle(pilot)
            return small, text(app)

    small, large = asyncio.run(read())
    assert "(input 1.00, infer 3.00, output 2.00)" in small
    rows = [line.strip("│ ").split() for line in large.split("\n")]
    told_ = {row[0]: row[1] for row in rows if len(row) > 1}
    assert [told_.get(name) for name in ("input", "infer", "output")] == ["1.00", "3.00", "2.00"]


def test_engine_shows_how_batches_form() -> None:
    lines = screen(told(RUNNING), keys="2")
    titles = ("Batches", "Batch fill", "Queue wait", "Compute", "Instances")
    assert all(title in lines[1] for title in titles)
    assert "18.5 of 32" in lines[6]
    left = column(lines, 0, 46)
    assert re.search(r"32 full █+·+ +18%", left)
    assert re.search(r"fill █+.░+ +58%", left)
    assert re.search(r"instance came free +82% █", left)
    assert re.search(r"full \(32\) +18% █", left)
    assert re.search(r"32 full +480 +18% +2.00 +1.00 +8.40 +0.26 +27%", "\n".join(lines))
    assert "■ compute  ■ batch wait  ■ queue  (p95, ms)" in lines[7]


def test_an_event_that_does_not_fit_ends_with_a_sign_that_it_goes_on() -> None:
    view = told(RUNNING)
    for second in (200, 201):
        view = fold(view, Mark(second, "a long one, " * 9 + "and its end"))
    found = [line[81:118].strip("│ ") for line in screen(view)[32:38]]
    assert found[4].endswith("its end")
    assert re.fullmatch(r"03:20 ◆ a long one, .* …", found[5])  # the second of them goes on


def test_engine_weighs_batches_by_the_limit_of_their_own_time() -> None:
    story = [
        replace(record, server=replace(record.server, max_batch=64))
        if isinstance(record, Window) and record.server and record.second >= 160
        else record
        for record in storyline.records(RUNNING)
    ]
    lines = screen(folded(story), keys="2")
    assert "limit 32-64" in lines[7]
    assert "32 full" not in "\n".join(lines)
    assert re.search(r"fill █+.░+ +43%", column(lines, 0, 46))  # 29 if all counted as 64


def test_engine_says_what_makes_batches_smaller_than_asked_for() -> None:
    story = Story(end=None, grounds=(Ground("sim:0", 24, "memory"), Ground("sim:1", 20, "oom")))
    lines = screen(told(story), keys="2")
    assert " of 24 (memory) " in lines[6]


def test_alerts_says_why_a_run_is_not_to_be_trusted() -> None:
    found = told(Story(seconds=20, end=None))
    own = Note("other-run", "another run at the same time: 0146", "run one at a time")
    late = replace(found.evidence, stall_ns=400 * MS, stall_cause="gc", held=7)
    for size in ((80, 24), (120, 40)):
        view = replace(found, notes=(own,), evidence=late)
        whole = " ".join(screen(view, size, keys="3"))
        assert "Why this run is doubtful" in whole
        parts = (
            "stood still for 400 ms: Python looked for",
            "at the same time: 0146",
            "waited for",
        )
        places = [whole.find(part) for part in parts]
        assert -1 < places[0] < places[1] < places[2]
        assert "why this run" not in " ".join(screen(found, size, keys="3")).lower()


def test_the_large_latency_panel_has_the_distribution() -> None:
    lines = screen(told(RUNNING), keys="enter")
    whole = "\n".join(lines)
    assert re.search(r"p99.99 +> 100 +4\b", whole)
    rows = (re.match(r"│ +[\d.]+ … *[\d.]+ .*? ([\d,]+) +││", line) for line in lines)
    counts = [int(row[1].replace(",", "")) for row in rows if row]
    assert sum(counts) == told(RUNNING).totals.done


def test_screens_are_those_of_their_classes() -> None:
    async def walk() -> None:
        async with shown(told(RUNNING)) as (app, pilot):
            for key, kind in (("2", Engine), ("3", Alerts), ("enter", Latency)):
                await pilot.press("1", key)
                await settle(pilot)
                if key == "enter":
                    assert isinstance(app.screen, kind)
                    await pilot.press("escape")
                assert isinstance(app.screen, kind) or key == "enter"

    asyncio.run(walk())
