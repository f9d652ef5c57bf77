"""What is open and late already, or stays open at the end, counts the same wherever it is shown."""

import asyncio
from dataclasses import replace

from dashboard.scene import Sight, Source, scene
from dashboard.screens import live
from loadbench.model import End
from loadbench.units import MS
from loadbench.view import View
from tests.records import start, window
from tests.stage import folded, settle, shown, text


def flooded(end: End | None) -> View:
    """Each second ten of a hundred requests are answered, the others wait."""
    seconds = [
        window(at, [40.0] * 10, asked=100, sent=100, in_flight=90 * (at + 1), overdue=90 * at)
        for at in range(20)
    ]
    return folded([start(planned_ns=20_000_000_000), *seconds, *([end] if end else [])])


def lines(view: View, cursor: int | None, at: int | None = 20) -> list[str]:
    async def read() -> str:
        async with shown(view) as (app, pilot):
            app.sight = replace(app.sight, at=at, held=60, cursor=cursor)
            app.redraw()
            await settle(pilot)
            return text(app)

    return asyncio.run(read()).split("\n")


def test_a_second_has_the_same_p99_in_words_as_in_the_picture() -> None:
    for end in (None, End(20, "stopped")):
        for second in (12, 19):
            assert "p99 > 100 ms" in lines(flooded(end), second)[1]
    assert "p99 40.0 ms" in lines(flooded(None), 0)[1]  # nothing is late yet


def failed(found: list[str]) -> str:
    """`fail` in the panel of the requests."""
    row = next(line for line in found if line.startswith("│ infer "))
    return row.partition("││")[0].split()[-2]


def test_what_is_never_answered_failed_whichever_second_is_looked_at() -> None:
    over = flooded(End(20, "stopped"))
    whole = failed(lines(over, None, None))
    assert whole == "1,800"
    for cursor in (None, 12, 19):
        assert failed(lines(over, cursor)) == whole
    assert failed(lines(flooded(None), 12)) == "0"  # it may still be answered
    assert failed(lines(over, None, 15)) == "0"


def test_of_a_run_that_is_over_the_rates_are_of_its_load_and_the_rest_of_its_end() -> None:
    """In the last second nothing is asked any more: it is not what the load came to."""
    seconds = [window(at, [20.0] * 200, rate=200.0) for at in range(30)]
    last = window(30, [900.0] * 2, stage="drain", asked=0, sent=0, rate=0.0)
    scenes = [
        scene(folded([start(), *seconds, last, *end]), Sight(), Source())
        for end in ([], [End(30, "done")])
    ]
    assert [live.done(each).value for each in scenes] == ["180", "200"]
    assert [live.done(each).note for each in scenes] == ["asked 180", "asked 200"]
    slowest = [each.recent.latency.maximum or 0 for each in scenes if each.recent]
    assert [round(value / MS) for value in slowest] == [900] * 2
    before = scene(scenes[1].view, Sight(at=31, cursor=29), Source())
    assert live.done(before).value == "200"
