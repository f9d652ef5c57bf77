"""What is said of servers that were away: how often, for how long, which of several."""

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from loadbench import alerts
from loadbench.model import Requests, Window
from loadbench.outages import outages, said_of, second_of
from loadbench.units import SECOND
from tests.records import window
from tests.test_words import CALM, DOWN, HALF, ends_of

Part = tuple[int, int, dict[str, int]]
Course = tuple[Part, ...]
UP: Part = (6, 50, {})
BRIEF, BREAKS = (1, 25, {"refused": 25}), (3, 25, {"reset": 25})


def windows(*each: Course) -> Iterator[Window]:
    """Of one server or, where there are several courses, of as many."""
    courses = [[part for part in course for _ in range(part[0])] for course in each]
    for second, parts in enumerate(zip(*courses, strict=True)):
        names = [f"infer → 10.0.0.{n}:8000" for n in range(len(each))] if each[1:] else ["infer"]
        kinds = {
            name: Requests(done, failed)
            for name, (_, done, failed) in zip(names, parts, strict=True)
        }
        number = sum(done + sum(failed.values()) for _, done, failed in parts)
        yield replace(window(second), requests=kinds, asked=number, sent=number)


def verdict(*each: Course) -> str:
    rule = alerts.parse_rule("errors > 1 %", 5 * SECOND)
    return " ".join(ends_of(rule, windows(*each)).words)


@pytest.mark.parametrize(
    ("course", "said"),
    [
        ((CALM, HALF, DOWN, HALF, UP, HALF, DOWN, HALF, CALM), "twice, about 8 s in all"),
        ((CALM, DOWN, UP, DOWN, UP, DOWN, CALM), "three times, about 9 s in all"),
        ((CALM, BRIEF, UP, BRIEF, UP, BRIEF, UP, BRIEF, CALM), "four times, about 2 s in all"),
        ((CALM, *(DOWN, UP) * 9, CALM), "9 times, about 27 s in all"),
        ((CALM, *(DOWN, UP) * 30, CALM), "30 times, about 1m 30s in all"),  # of minutes
        ((CALM, DOWN, HALF, DOWN, CALM), "twice, about 6 s in all"),  # for less than a second
        ((CALM, DOWN, HALF, HALF, DOWN, CALM), "twice, about 7 s in all"),
    ],
)
def test_a_server_that_was_away_several_times_is_said_to_have_been(
    course: Course, said: str
) -> None:
    assert f"the server was away {said}, and is back" in verdict(course)


@pytest.mark.parametrize(
    "course",
    [
        (CALM, DOWN, UP, BREAKS, CALM),  # the second time it was there
        (CALM, DOWN, UP, (2, 0, {"http_500": 50}), CALM),
        (CALM, DOWN, BREAKS, DOWN, CALM),
    ],
)
def test_other_trouble_besides_is_not_told_as_outages(course: Course) -> None:
    assert "is back" not in verdict(course)


def test_which_of_several_servers_was_away_is_said() -> None:
    fine: Course = (CALM, UP, UP, CALM)
    one: Course = (CALM, (4, 0, {"refused": 50}), (8, 50, {}), CALM)
    twice: Course = (CALM, DOWN, (3, 50, {}), DOWN, (3, 50, {}), CALM)
    assert "10.0.0.1:8000 was away for about 4 s, and is back" in verdict(fine, one)
    told = verdict(one, fine, twice)
    assert "10.0.0.0:8000 was away for about 4 s, and is back; 10.0.0.2:8000 was away" in told
    assert "away twice, about 6 s in all, and is back" in told
    assert "read their logs" in told


def test_of_several_servers_one_that_is_away_still_is_named() -> None:
    fine, one = (CALM, UP), (CALM, (6, 0, {"refused": 50}))
    back: Course = (CALM, DOWN, (3, 50, {}))
    found = outages(map(second_of, windows(fine, back, one)), 27, 36)
    assert said_of(found) == (
        "10.0.0.1:8000 was away for about 3 s, and is back; nothing listens at 10.0.0.2:8000"
        " (any more)",
        "is it up, and is this its port?",
    )
    hangs = (CALM, (6, 0, {"connect_timeout": 5}))
    assert said_of(outages(map(second_of, windows(fine, hangs)), 27, 36)) is None


def test_of_seconds_that_are_not_known_no_more_is_said_than_what_is_known() -> None:
    course = (CALM, DOWN, UP, DOWN, UP)
    found = outages([second_of(one) for one in windows(course)][31:], 27, 48)
    assert said_of(found) == (
        "the server was away at least twice, at least 5 s in all, and is back",
        "read its log: why it ended",
    )
