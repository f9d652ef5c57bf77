"""Commands that change the load: what they come to, and what is refused in words."""

from typing import Any

import pytest
from msgspec.structs import replace

from loadbench.runner.helm import Situation, steer
from loadbench.shape import Steering
from loadbench.units import SECOND

RUN = Situation("poisson", Steering(), 10 * SECOND, 60 * SECOND, None)


def told(name: str, run: Situation = RUN, **words: Any) -> tuple[Steering, str]:
    return steer({"command": name, **words}, run)


def test_each_command_says_what_it_did() -> None:
    assert told("rate", rate=500) == (Steering(rate=500), "rate 500/s by hand")
    assert told("rate", rate="30/min") == (Steering(rate=0.5), "rate 0.500/s by hand")
    assert told("scale", factor=1.5) == (Steering(scale=1.5), "the scenario's load × 1.5")
    assert told("scale", factor="150 %")[0] == Steering(scale=1.5)
    assert told("pause") == (Steering(paused=True), "arrivals paused")
    spike = Steering(spike=1500, spike_until_ns=15 * SECOND)
    assert told("spike", RUN, rate=1500, **{"for": "5s"}) == (spike, "spike of 1500/s for 5 s")


def test_commands_build_on_each_other() -> None:
    held = RUN._replace(steering=Steering(rate=500, paused=True))
    assert told("resume", held) == (Steering(rate=500), "arrivals resumed")
    assert told("scale", held, factor=1) == (
        Steering(paused=True), "the scenario's load again",
    )  # fmt: skip
    scaled = RUN._replace(steering=Steering(scale=3.0))
    assert told("rate", scaled, rate=50)[0] == Steering(rate=50)
    spike = told("spike", scaled, rate=9, **{"for": "1s"})[0]
    assert replace(spike, spike=None, spike_until_ns=0) == Steering(scale=3.0)


def test_in_warm_up_a_spike_begins_with_the_load() -> None:
    early = RUN._replace(now_ns=-SECOND)
    assert told("spike", early, rate=9, **{"for": "1s"})[0].spike_until_ns == SECOND


def test_a_calibrated_run_takes_rates_in_percent() -> None:
    assert told("rate", RUN._replace(capacity=2000.0), rate="80 %")[0].rate == 1600


@pytest.mark.parametrize(
    ("run", "name", "words", "message"),
    [
        (RUN, "rate", {}, "give a rate"),
        (RUN, "rate", {"rate": True}, "give a rate"),
        (RUN, "rate", {"rate": "fast"}, "fast"),
        (RUN, "rate", {"rate": -1}, "not a rate"),
        (RUN, "rate", {"rate": 1e9}, "more than any machine"),
        (RUN, "rate", {"rate": "nan"}, "not a rate"),
        (RUN, "rate", {"rate": 10**400}, "not a rate"),
        (RUN, "rate", {"rate": "80 %"}, "calibrated"),
        (RUN, "scale", {"factor": -1}, "give a factor"),
        (RUN, "scale", {"factor": None}, "give a factor"),
        (RUN, "scale", {"factor": True}, "give a factor"),
        (RUN, "scale", {"factor": float("nan")}, "give a factor"),
        (RUN, "scale", {"factor": [2]}, "give a factor"),
        (RUN, "scale", {"factor": 10**400}, "give a factor"),
        (RUN, "resume", {}, "not paused"),
        (RUN._replace(steering=Steering(paused=True)), "pause", {}, "paused already"),
        (RUN, "spike", {"rate": 5}, "for"),
        (RUN, "spike", {"rate": 5, "for": "0s"}, "longer than nothing"),
        (RUN._replace(now_ns=60 * SECOND), "rate", {"rate": 5}, "over"),
        (RUN._replace(arrivals="once"), "pause", {}, "nothing to change"),
        (RUN._replace(arrivals="trace"), "rate", {"rate": 5}, "no rate"),
        (RUN._replace(arrivals="trace"), "scale", {"factor": 5}, "cannot be scaled"),
        (RUN._replace(arrivals="closed"), "spike", {"rate": 5, "for": "1s"}, "no rate"),
    ],
)
def test_what_cannot_be_done_is_refused(
    run: Situation, name: str, words: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        told(name, run, **words)


def test_a_closed_loop_can_be_scaled_and_a_trace_paused() -> None:
    assert told("scale", RUN._replace(arrivals="closed"), factor=2)[0] == Steering(scale=2.0)
    assert told("pause", RUN._replace(arrivals="trace"))[0] == Steering(paused=True)
