"""What a find says of its result: the interval or why there is none, reasons once, its chart."""

import json
import os
import platform
from pathlib import Path

import pytest
from msgspec.structs import replace

from loadbench import runlog
from loadbench.cli.find import FOUND, NOWHERE, _exit_code
from loadbench.judge.search import Probe, crossing_of, ended, following
from loadbench.judge.searches import Hunt, Setting
from loadbench.report.find import (
    chart,
    find_facts,
    find_text,
    headline,
    results,
    unbounded,
)
from loadbench.units import significant
from tests.published import holds
from tests.test_durable import searched
from tests.test_find_search import TERMS, stage


def test_a_result_that_nothing_bounds_says_so() -> None:
    capped = replace(TERMS, most=50.0)
    held = (stage(25.0), stage(50.0, kind="confirm"))
    found = ended(capped, held, 20.0, "cap")
    assert (found.low, found.high) == (50.0, None)
    why = "no rate was seen that it does not hold"
    assert headline(found) == f"✓ 50.0/s, confirmed; the highest is 50.0/s or above: {why}"
    assert headline(ended(capped, held[:1], 9.0, "budget")) == f"▲ 25.0/s, not confirmed; {why}"
    both = ended(TERMS, (*held, stage(60.0, holds=False)), 30.0, "latency")
    assert both.unbounded == ""
    assert "the highest lies in" in headline(both)


def test_no_line_is_too_long_for_paper(tmp_path: Path) -> None:
    reasons = "; ".join(f"reason {number} why a percentile has no band" for number in range(8))
    folder = searched(tmp_path)
    snapshot = runlog.read_snapshot(folder)
    for seen in snapshot["find"]["settings"][0]["seen"]:
        seen["no_bands"] = reasons
    snapshot["find"]["settings"][0]["found"]["text"] = "why no higher rate was to be tried " * 5
    runlog.write_snapshot(folder, snapshot)
    text = find_text(folder)
    assert max(map(len, text.splitlines()[:-1])) <= 100
    assert " ".join(text.split()).count("reason 7 why a percentile has no band") == 1


def test_a_reason_is_told_once() -> None:
    short, linked = "80 seconds at one rate are needed", "slow requests come in bunches"
    seen = [stage(no_bands=why) for why in (short, f"{linked}; {short}", f"{short}; {linked}")]
    told = unbounded(seen)
    assert (told.count(short), told.count(linked)) == (1, 1)


@pytest.mark.parametrize("knee", [980.0, 990.0, 1000.0, 1192.0, 400.0])
def test_the_chart_names_the_rate_and_the_knee(knee: float) -> None:
    seen = [stage(990.0), stage(knee), stage(1400.0, holds=False)]
    found = ended(TERMS, seen, 20.0, "latency")
    drawn = chart(seen, replace(found, rate=990.0, knee=knee), TERMS.claim)
    words = " ".join(drawn[drawn.index(next(line for line in drawn if "└" in line)) :]).split()
    assert "990" in words
    assert "knee" in words
    assert words[words.index("knee") - 1] == significant(knee)


@pytest.mark.parametrize("over", [11, 200])
@pytest.mark.parametrize("spent_s", [0.0, 800.0, 880.0])
def test_no_rate_above_the_cap_is_tried_or_told(over: int, spent_s: float) -> None:
    """A stage at the cap that fails by chance, or barely: the crossing may well lie above it."""
    capped = replace(TERMS, most=500.0)
    below = stage(250.0)
    failed = stage(500.0, holds=False, over=over, kind="confirm", seconds=60)
    seen = [below, failed, replace(below, kind="re-check")]
    for _ in range(20):
        step = following(capped, seen, spent_s)
        if not isinstance(step, Probe):
            break
        assert step.rate <= 500.0
        held = replace(failed, holds=True, over=8)  # barely, so that the next lies higher
        seen.append(replace(held, kind=step.kind, rate=step.rate, seconds=step.seconds))
    told = ended(capped, seen[:3], spent_s, "budget").rate
    assert told is not None
    assert told <= 500.0
    assert (crossing_of(capped.claim, seen[:3]).quantile(0.65) > 500.0) == (over == 11)


@pytest.mark.parametrize(
    ("held", "code"), [((True, True), FOUND), ((True, False), FOUND), ((False, False), NOWHERE)]
)
def test_one_setting_that_holds_is_a_find(held: tuple[bool, ...], code: int) -> None:
    full = ended(TERMS, [stage(kind="confirm"), stage(120.0, holds=False)], 30.0, "latency")
    none = ended(TERMS, [stage(holds=False)], 9.0, "nothing holds")
    settings = [Setting({"v": n}, found=full if one else none) for n, one in enumerate(held)]
    assert _exit_code(Hunt(TERMS, tuple(settings)), failed=False) == code


def test_a_search_that_goes_on_has_not_been_stopped(tmp_path: Path) -> None:
    folder = searched(tmp_path)
    snapshot = runlog.read_snapshot(folder)
    snapshot["find"]["settings"][0] |= {"found": None, "over": {"engine.max_batch": 8}}
    snapshot["find"]["settings"][0]["seen"].pop()  # that confirmed it
    snapshot["find"]["settings"] *= 2
    told = {"scenario": "steady", "text": ""}
    here = {"pid": os.getpid(), "host": platform.node(), **told}
    for state, why in (("running", "going on"), ("stopped", "stopped")):
        runlog.write_snapshot(folder, {**snapshot, **here, "state": state})
        assert f"not confirmed: {why}" in find_text(folder)
        facts = find_facts(folder)["settings"][0]
        assert (facts["limit"], facts["ended"]) == (why, False)
        assert results(folder)[0].startswith("max_batch 8: ")
        holds("find", json.loads(json.dumps(find_facts(folder))))
