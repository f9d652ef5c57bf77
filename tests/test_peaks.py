"""How far an open episode has come, whoever looked on."""

import math
import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from dashboard.peaks import Peaks
from dashboard.scene import Scene, Sight, Source, scene
from loadbench.model import AlertChange, Window
from loadbench.view import View
from tests.records import start, window
from tests.stage import folded
from tests.test_words import P99, card, server

FIRES = AlertChange(104, "p99", "firing", 150.0, 100, 150.0, "", 100.0, worst=100)
WORST = range(120, 125)


def seconds(until: int, worst: Window) -> Iterator[Window]:
    """Slow from 100 on, and for a few seconds worse."""
    calm, slow = (window(0, [ms] * 100, server=server(), machine=card()) for ms in (8.0, 150.0))
    for second in range(until):
        one = calm if second < 100 else worst if second in WORST else slow
        yield replace(one, second=second)


def view(until: int, worst: Window | None = None, *later: AlertChange) -> View:
    found = seconds(until, worst or window(0, [600.0] * 100))
    return folded([start(rules=(P99,)), *found, FIRES, *later])


def at(view: View, cursor: int | None = None) -> Scene:
    sight = Sight() if cursor is None else Sight(at=view.newest, held=240, cursor=cursor)
    return scene(view, sight, Source())


def test_what_came_while_nobody_looked_on_is_told() -> None:
    peaks, now = Peaks(), at(view(160))
    peaks.look(now)
    value, worst = peaks.of(now.view.spells[0], now.moment)
    assert value == pytest.approx(600, rel=1e-2)
    assert worst == 120
    assert peaks.of(now.view.spells[0], 120).value == pytest.approx(150, rel=1e-2)


def test_of_the_past_nothing_is_told_that_came_later_nor_less_than_had_come() -> None:
    run = view(160)
    for cursor, most in ((115, 150), (140, 600)):
        peaks, then = Peaks(), at(run, cursor)
        peaks.look(then)
        found = peaks.of(then.view.spells[0], then.moment)
        assert found.value == pytest.approx(most, rel=1e-2), cursor


def test_of_percentiles_among_the_failed_the_worst_is_where_most_fail() -> None:
    peaks, now = Peaks(), at(view(160, window(0, [150.0] * 50, {"http_503": 50})))
    peaks.look(now)
    assert peaks.of(now.view.spells[0], now.moment) == (math.inf, 124)  # all five seconds of it


def test_of_an_episode_that_is_over_the_log_tells() -> None:
    ended = AlertChange(150, "p99", "ok", 9.0, 100, 700.0, "", 100.0, worst=123)
    peaks, now = Peaks(), at(view(160, None, ended))
    peaks.look(now)
    assert peaks.of(now.view.spells[0], now.moment) == (700.0, 123)


def test_a_quarter_of_an_hour_is_read_at_once_and_only_once() -> None:
    peaks, now = Peaks(), at(view(1000))
    spent = []
    for _ in range(2):
        begun = time.process_time()
        peaks.look(now)
        spent.append(time.process_time() - begun)
    assert spent[1] < spent[0] / 10
