"""How sure the screen says figures are: what the summary says of the same run."""

import numpy as np
from msgspec.structs import replace

from dashboard.scene import Sight, Source, scene
from dashboard.sureness import InView, judged
from loadbench.histogram import Histogram
from loadbench.model import Check, End, Record, Window
from loadbench.streams import Stream
from loadbench.summary import summarise
from loadbench.units import MS
from tests.records import start, window
from tests.stage import folded

CHECKS = (
    Check("p99", False, 100.0 * MS, "< 100 ms"),
    Check("first_token_p99", False, 60.0 * MS, "< 60 ms"),
    Check("token_gap_p50", False, 90.0 * MS, "< 90 ms"),
)


def of_tokens(second: int) -> Window:
    """A second of thirty answers, of which one failed before its first token."""
    draw = np.random.default_rng(second)
    found = window(second, draw.uniform(10, 60, 29).tolist(), {"timeout": 1})
    first, gaps = (Histogram.of(draw.uniform(10, 50, 29) * MS // 1) for _ in range(2))
    part = found.requests["infer"]
    stream = Stream(first, gaps, gaps, 58, 58, barren=1)
    return replace(found, requests={"infer": replace(part, stream=stream)})


def test_checks_on_tokens_are_as_sure_on_the_screen_as_in_the_summary() -> None:
    for seconds in (6, 200):
        records: list[Record] = [
            start(checks=CHECKS, planned_ns=seconds * 1000 * MS),
            *map(of_tokens, range(seconds)),
            End(seconds, "done"),
        ]
        wanted = summarise(records)
        found, _ = judged(scene(folded(records), Sight(), Source(run="here")))
        assert wanted is not None
        assert [(one.name, one.sure, one.why, one.effective) for one in found] == [
            (one.name, one.sure, one.why, one.effective) for one in wanted.checks
        ]
        assert all(one.certainty for one in found)


def test_figures_of_the_first_seconds_lack_seconds_for_a_band() -> None:
    """Not requests: those are there, though none was when the screen was looked at first."""
    sure = InView()
    for seconds in range(5):
        view = folded([start(planned_ns=60_000 * MS), *map(of_tokens, range(seconds))])
        why = sure.why_none(scene(view, Sight(), Source(run="here")), 0.5)
        assert why == ("needs 80 s of one rate" if seconds else "no requests")
