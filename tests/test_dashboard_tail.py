"""The tail: the slowest requests in view as bars with a cause; and how sure figures are, beside
them."""

import asyncio
import re
from collections.abc import Iterator
from functools import cache

import pytest
from msgspec.structs import replace

from loadbench.assurance import AMONG, BRIEF, CHANGED, EMPTY, LINKED, SHORT, UNPACED
from loadbench.bin import SLOWEST
from loadbench.model import Check, Record, Ride, Sample, Start, Window
from loadbench.units import MS, SECOND
from loadbench.view import View, bins
from tests.stage import folded, settle, shown, text
from tests.storyline import Story, records

ORIGIN = 10**6 * SECOND
CHECKS = (
    Check("p99", False, 100 * MS, "< 100 ms"),
    Check("errors", False, 0.05, "< 5 %"),
    Check("mean", False, 30 * MS, "< 30 ms"),
)
STEADY = Story(seconds=400, rate=200.0, spike=(900, 900), end=None, names=("infer",))


def told(story: Story, slow: bool = True) -> Iterator[Record]:
    """The story at one rate, each second with requests that were slow for a full batch."""
    for record in records(story):
        if isinstance(record, Start):
            yield replace(record, origin_ns=ORIGIN, checks=CHECKS)
        elif isinstance(record, Window) and slow:
            samples = tuple(slowly(record.second, 80 + n) for n in (9, 6, 3, 1))
            yield replace(record, rate=200.0, slowest=samples)
        else:
            yield record


def slowly(second: int, queue: int) -> Sample:
    """It waited for so many ms in the queue, having come 2 ms after a full batch was closed."""
    due = ORIGIN + second * SECOND
    sent = due + MS
    ride = Ride(second * 30, "late-bind", False, (queue + 4) * MS, 32, "full")
    done = sent + (queue + 2 + 7 + 1) * MS
    done += second * 100  # the later the slower, by nothing that shows
    parts = (queue * MS, 2 * MS, 7 * MS)
    return Sample("infer", due, due, sent, done, "", *parts, batch=9, ride=ride)


@cache
def view(slow: bool = True) -> View:
    return folded(told(STEADY, slow))


def screen(given: View, *keys: str, size: tuple[int, int] = (120, 40)) -> list[str]:
    async def walk() -> str:
        async with shown(given, size) as (app, pilot):
            for key in keys:
                await pilot.press(key)
                await settle(pilot)
            return text(app)

    return asyncio.run(walk()).split("\n")


def test_what_nobody_tells_is_an_answer_and_no_network() -> None:
    end = replace(slowly(359, 80), queue_ns=None, batch_wait_ns=None, compute_ns=None, batch=None)
    plain = replace(end, ride=None)
    for sample, way in (
        (plain, "answer 90.0 ms"),
        (replace(plain, first=plain.sent + 20 * MS), "first token 20.0  the others 70.0 ms"),
    ):
        one = Window(5, "load", rate=200.0, slowest=(sample,))
        whole = "\n".join(screen(folded([next(told(STEADY)), one]), "t"))
        assert way in whole
        assert way.split(" ")[0] in whole.split("due")[0]
        assert "network" not in whole


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (120, 40), (200, 60)])
def test_each_is_a_bar_with_its_cause_at_every_size(size: tuple[int, int]) -> None:
    lines = screen(view(), "t", size=size)
    whole = "\n".join(lines)
    assert "│ 100 ms   at 06:39" in lines[2]
    assert "▓▓▓▓▓" in lines[3]
    assert "█" in lines[3]
    assert "→ arrived 2.00 ms after a batch of 32 closed" in whole
    assert "sending 1.00  queue 89.0  batch wait 2.00" in whole
    assert "compute 7.00  network 1.04 ms" in whole
    assert "due" in whole
    assert all(len(line) <= size[0] for line in lines)
    assert "batch 11970 of 9 rows: instance came free" in whole
    assert "GPU 88 %, CPU 61 %" in whole
    if size[0] >= 120:
        assert "batch 11970 of 9 rows: instance came free   GPU 88 %, CPU 61 %" in whole
        assert whole.count("→ arrived") == 5


def test_what_the_server_says_compute_is_made_of_stands_with_it() -> None:
    slow = replace(slowly(5, 1), compute_ns=40 * MS, parts={"db": 30 * MS, "model": 10 * MS})
    window = Window(5, "load", rate=200.0, slowest=(slow,))
    whole = "\n".join(screen(folded([next(told(STEADY)), window]), "t"))
    assert "(db 30.0, model 10.0)" in whole


def test_all_bars_are_on_one_time_axis() -> None:
    """Half as long a way is half as long a bar."""
    first = next(told(STEADY))
    pair = (slowly(5, 90), slowly(5, 40))
    lines = screen(folded([first, Window(5, "load", rate=200.0, slowest=pair)]), "t")
    longer, shorter = (line.strip("│ ") for line in lines if "▓▓" in line and "queue" not in line)
    assert len(longer) == 116
    assert len(shorter) == round(116 * 51 / 101)
    assert longer.count("▓") == pytest.approx(90 / 101 * 116, abs=1)


def test_the_slowest_are_those_of_the_log_though_all_ended_in_one_second() -> None:
    bad = Window(5, "load", rate=200.0, slowest=tuple(slowly(5, 90 - n) for n in range(5)))
    fair = Window(6, "load", rate=200.0, slowest=tuple(slowly(6, 60 - n) for n in range(5)))
    lines = screen(folded([next(told(STEADY)), bad, fair]), "t")
    heads = [line for line in lines if " ms   at " in line]
    assert len(heads) == 5
    assert all("at 00:05" in line for line in heads)


def test_escape_and_the_key_of_a_screen_lead_back() -> None:
    assert "The slowest requests" in "\n".join(screen(view(), "t"))
    assert "Where the time goes" in "\n".join(screen(view(), "t", "escape"))
    assert "Batch size" in "\n".join(screen(view(), "t", "2"))
    assert "The slowest requests" in "\n".join(screen(view(), "2", "t"))


def test_what_is_in_view_counts() -> None:
    """Paused a minute earlier other requests are the slowest."""
    newest = "\n".join(screen(view(), "plus", "plus", "t"))
    earlier = "\n".join(screen(view(), "plus", "plus", "left", "left", "left", "left", "left", "t"))
    assert "at 06:39" in newest
    assert "at 06:39" not in earlier


def test_a_run_without_any_says_what_to_do() -> None:
    assert "No request ended in view. Move or zoom" in "\n".join(screen(View(), "t"))
    none = "\n".join(screen(view(False), "t"))
    assert "The log has no single requests of what is in view" in none  # though some ended
    assert "No request ended" not in none


def test_rings_keep_few_of_them() -> None:
    found = bins(view(), 0, 400)
    assert {len(bin.window.slowest) for bin in found if bin.seconds == 1} == {4}  # all there were
    many = tuple(slowly(5, queue) for queue in range(90, 70, -1))
    crowd = folded([next(told(STEADY)), Window(5, "load", rate=200.0, slowest=many)])
    assert bins(crowd, 5, 6)[0].window.slowest == many[:SLOWEST]
    assert max(len(bin.window.slowest) for ring in view().rings for bin in ring) <= 5


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_checks_stand_with_what_is_shown_of_them(size: tuple[int, int]) -> None:
    whole = "\n".join(screen(view(), "3", size=size))
    assert "✓ p99 " in whole
    assert "< 100 ms   shown" in whole
    assert "✓ errors 0 % < 5 %" in whole
    assert "only percentiles and shares of requests can be shown" in whole
    assert "requests say as much as" in whole


def test_a_percentile_that_is_checked_carries_its_band() -> None:
    assert re.search(r"✓ p99 19.\d ±0.\d+ ms < 100 ms   shown", "\n".join(screen(view(), "3")))


def test_a_check_that_failed_is_in_sight_where_there_is_no_room_for_all() -> None:
    lines = screen(view(), "3", size=(60, 16))
    assert sum("✓" in line for line in lines) == 2
    assert any(line.endswith("+1 more") for line in lines)
    failing = Check("mean", False, 1 * MS, "< 1 ms")
    records = [
        replace(record, checks=(*CHECKS[:2], failing)) if isinstance(record, Start) else record
        for record in told(STEADY)
    ]
    lines = screen(folded(records), "3", size=(60, 16))
    assert "✗ mean 12.5 ms < 1 ms" in next(line for line in lines if "✗" in line)


def test_one_goes_through_the_slowest_where_there_is_no_room_for_all() -> None:
    small = (60, 16)
    assert " of 5" not in screen(view(), "t")[1]
    assert "  1-2 of 5 ↑ ↓" in screen(view(), "t", size=(80, 24))[1]
    assert "  1 of 5 ↑ ↓" in screen(view(), "t", size=small)[1]
    assert "  3 of 5 ↑ ↓" in screen(view(), "t", "down", "down", size=small)[1]
    assert "  2 of 5 ↑ ↓" in screen(view(), "t", "pagedown", size=small)[1]
    assert "  1 of 5 ↑ ↓" in screen(view(), "t", "down", "up", "up", size=small)[1]
    last = screen(view(), "t", *["down"] * 9, size=small)
    assert "  5 of 5 ↑ ↓" in last[1]
    assert "→ arrived 2.00 ms" in "\n".join(last)


def test_a_run_without_checks_has_no_panel_of_them() -> None:
    assert "Checks" not in "\n".join(screen(folded(records(STEADY)), "3"))


def test_percentiles_on_live_carry_their_band_where_there_is_room() -> None:
    lines = screen(view())
    assert "p99 in view " in "\n".join(lines)
    assert "±" in "\n".join(lines)
    requests = next(line for line in lines if " ± " in line and "request" in line)
    assert requests.index(" ± ") > requests.index("p99")
    assert "p99 in view" in "\n".join(screen(view(), size=(80, 24)))


def test_there_is_none_where_the_rate_changed_and_it_is_said_why() -> None:
    changing = folded(records(Story(seconds=240, end=None)))
    assert "p99 in view" not in "\n".join(screen(changing))
    for size in ((60, 16), (80, 24), (120, 40), (200, 60)):
        assert "no ±: the rate changed" in "\n".join(screen(changing, "enter", size=size))
        assert "no ±: the rate changed" in "\n".join(screen(changing, size=size))


@pytest.mark.parametrize("why", [CHANGED, UNPACED, EMPTY, AMONG, LINKED, SHORT])
def test_every_reason_fits_where_there_is_least_room(why: str) -> None:
    assert len(f"no ±: {BRIEF[why]}") <= 28


def test_the_large_panel_has_a_band_for_each() -> None:
    lines = screen(view(), "enter")
    p50 = next(line for line in lines if "│ p50 " in line)
    assert "±" in p50
    assert "design effect" in "\n".join(lines)
