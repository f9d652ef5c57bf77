"""What a run's batcher reached of the best possible, on the Engine screen."""

import asyncio

import pytest
from msgspec.structs import replace

from loadbench.model import End, Optimum
from loadbench.view import View, fold
from tests.stage import settle, shown, text, told
from tests.storyline import Story

FOUND = Optimum(slo_ns=50_000_000, arrivals=1000, of=1000, reached=890, hosted=896, best=900)


def ended(optimum: Optimum | None) -> View:
    return fold(told(Story(seconds=30, spike=(100, 100), end=None)), End(30, "done", "", optimum))


def engine(optimum: Optimum | None, size: tuple[int, int]) -> str:
    async def look() -> str:
        async with shown(ended(optimum), size) as (app, pilot):
            await pilot.press("2")
            await settle(pilot)
            return text(app)

    return asyncio.run(look())


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((80, 24), "98.9 % of the best possible; lost: 0.7 % to scheduling, 0.4 % to host time"),
        (
            (120, 40),
            "98.9 % of the best possible on this very trace; 0.7 % lost to scheduling, 0.4 % to",
        ),
        ((200, 60), "on this very trace; 0.7 % lost to scheduling, 0.4 % to host time"),
    ],
)
def test_the_engine_screen_tells_it_once_the_run_is_over(size: tuple[int, int], words: str) -> None:
    assert words in engine(FOUND, size)
    assert "best possible" not in engine(None, size)


def test_a_bound_says_that_it_is_one() -> None:
    bound = replace(FOUND, exact=False)
    assert "at least 98.9 % of the best possible" in engine(bound, (120, 40))


def test_an_slo_that_nobody_can_meet() -> None:
    nothing = replace(FOUND, reached=0, hosted=0, best=0)
    assert "nobody could have served a request within 50.0 ms" in engine(nothing, (80, 24))
