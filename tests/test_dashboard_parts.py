"""What batches are made of, and the cache's share, on the Engine screen."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from loadbench.model import Part, Record, Window
from loadbench.units import MS
from loadbench.view import View
from tests.stage import folded, settle, shown, text
from tests.storyline import Story, records

PARTS = {"preprocess prep:normalise": Part(100, 120 * MS), "model": Part(100, 340 * MS)}


def view(**told: Any) -> View:
    def with_parts(record: Record) -> Record:
        if not isinstance(record, Window) or record.server is None:
            return record
        return replace(record, server=replace(record.server, **told))

    return folded(map(with_parts, records(Story(seconds=30, spike=(100, 100), end=None))))


def engine(given: View, size: tuple[int, int] = (120, 40), key: str = "2") -> str:
    async def look() -> str:
        async with shown(given, size) as (app, pilot):
            await pilot.press(key)
            await settle(pilot)
            return text(app)

    return asyncio.run(look())


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_plugins_and_the_cache_have_a_line(size: tuple[int, int]) -> None:
    found = engine(view(parts=PARTS, cached=40, requests=100), size)
    assert "40 % from the cache · preprocess prep:normalise 1.20 ms, model 3.40 ms" in found


def test_a_line_that_is_too_long_is_cut_and_says_so() -> None:
    many = {f"stage {'long' * 5}{n}": Part(1, MS) for n in range(9)}
    line = next(line for line in engine(view(parts=many)).splitlines() if "stage longlong" in line)
    assert line.rstrip().endswith("…")
    assert len(line.rstrip()) <= 120


def test_a_model_without_any_has_none() -> None:
    assert "from the cache" not in engine(view())
    assert "a batch" not in engine(view())


STEPS = {"db": Part(100, 120 * MS), "model": Part(100, 340 * MS)}


@pytest.mark.parametrize(("size", "told"), [((80, 24), False), ((200, 60), True)])
def test_where_there_is_room_what_compute_is_made_of_stands_beside_it(
    size: tuple[int, int], told: bool
) -> None:
    given = view(steps=STEPS, compute=Part(100, 460 * MS), batch_wait=None)
    assert ("(db 1.20, model 3.40)" in engine(given, size, "1")) is told
