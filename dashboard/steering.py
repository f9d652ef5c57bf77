"""Steering a run from its screens: what keys ask for as commands of its control socket, and how the
run is driven now. What was told a moment ago and is not in the log yet counts as done, so that keys
pressed one after the other build on each other.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from msgspec.structs import replace

from loadbench import control, units
from loadbench.alerts import parse_rule
from loadbench.errors import LoadbenchError, RunError, SpecError
from loadbench.standing import Standing, load_words
from loadbench.view import View

STEP = 1.1
SPIKE, SPIKE_FOR = 2.0, "5s"  # times what is asked now
_ENGINE = ("max_batch", "policy", "slo", "max_wait", "hold")
_ONE = 0.02  # so close to the scenario's load is the scenario's load

Wish = Literal["more", "less", "arrivals", "spike"]


class Refused(Exception):
    """It cannot even be asked for; why, in words."""


def require(command: Mapping[str, Any]) -> None:
    """What is wrong with the values of a command whatever the run: SpecError. The rest the run
    knows."""
    match command:
        case {"command": "rate" | "spike", "rate": str(rate)}:
            if rate.rstrip().endswith("%"):
                units.parse_share(rate)
            else:
                units.parse_rate(rate)
            if "for" in command and units.parse_duration(command["for"]) <= 0:
                raise SpecError("a spike lasts longer than nothing", 'write it like "5s"')
        case {"command": "scale", "factor": str(factor)}:
            units.parse_share(factor) if "%" in factor else _number(factor)
        case {"command": "alert", "when": str(when), "for": str(length)}:
            parse_rule(when, 0 if length == "off" else units.parse_duration(length))
        case {"command": "engine"}:
            from loadbench.overrides import put  # not at the start: pydantic takes a while
            from loadbench.spec import EngineSpec, checked

            for key, value in command.items():
                if key == "command":
                    continue
                if key not in _ENGINE:
                    raise SpecError(f"engine: {key!r} cannot be changed", ", ".join(_ENGINE))
                if key != "slo" or value not in ("none", ""):
                    # what a policy has to agree with, the run knows
                    raw: dict[str, Any] = {"slo": "1s"} if key == "policy" else {}
                    put(raw, key, value)
                    checked(EngineSpec, raw, "engine")


def _number(text: str) -> None:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not found >= 0:
        raise SpecError(f"{text!r} is not a factor", 'write it like "1.5" or "150 %"')


class Row(NamedTuple):
    """A line of how a run is driven."""

    name: str
    text: str


class Helm:
    """What stands, as far as this dashboard knows."""

    def __init__(self) -> None:
        self._ahead: Standing | None = None  # of the log
        self._seen: Standing | None = None  # in the log when that was asked for
        self._under_way = 0
        self._in_order = asyncio.Lock()

    def standing(self, view: View) -> Standing:
        """How the run is driven, what was just asked for included."""
        if self._ahead is not None and not self._under_way and view.standing is not self._seen:
            self._ahead = None
        return view.standing if self._ahead is None else self._ahead

    def wanted(self, wish: Wish, view: View) -> dict[str, Any]:
        """The command for a key. Raises Refused."""
        now = self.standing(view)
        if wish == "arrivals":
            return {"command": "resume" if now.paused else "pause"}
        if wish == "spike":
            if now.paused:
                raise Refused("the arrivals are paused: nothing falls due (P = resume)")
            rate = now.rate or _asked(view)
            if not rate:
                raise Refused("no rate is asked for now that a spike could be twice of")
            return {"command": "spike", "rate": _round(rate * SPIKE), "for": SPIKE_FOR}
        step = STEP if wish == "more" else 1 / STEP
        if now.rate is not None:
            return {"command": "rate", "rate": _round(now.rate * step)}
        factor = round(now.scale * step, 3)
        return {"command": "scale", "factor": 1.0 if abs(factor - 1) < _ONE else factor}

    def _foresee(self, command: Mapping[str, Any], view: View) -> None:
        now = self.standing(view)
        self._seen, self._under_way = view.standing, self._under_way + 1
        match command:
            case {"command": "scale", "factor": float(factor)}:
                now = replace(now, rate=None, scale=factor)
            case {"command": "rate", "rate": float(rate)}:
                now = replace(now, rate=rate, scale=1.0)
            case {"command": "pause" | "resume" as name}:
                now = replace(now, paused=name == "pause")
        self._ahead = now

    async def tell(self, path: str | None, command: Mapping[str, Any], view: View) -> str:
        """A command over the run's socket, and what was done. Commands keep their order; in a
        thread, because the runner may take its time. Raises LoadbenchError."""
        if not path:
            raise RunError("the run takes no commands yet", "try again in a moment")
        self._foresee(command, view)
        try:
            async with self._in_order:
                answer = await asyncio.to_thread(control.send, str(path), command)
        except LoadbenchError:
            self._ahead = None  # nothing of it stands
            raise
        finally:
            self._under_way -= 1
        return str(answer.get("mark", command["command"]))


def _asked(view: View) -> float | None:
    """Per second, at last: a second that was paused, which is over, asked for nothing."""
    return next((bin.window.rate for bin in reversed(view.rings[0]) if bin.window.rate), None)


def _round(rate: float) -> float:
    """To three digits."""
    return float(f"{rate:.3g}")


def rows(standing: Standing, view: View, snapshot: Mapping[str, Any]) -> list[Row]:
    """How a run is driven: its load, its arrivals, its engine's batcher."""
    words = [text for text in load_words(standing, view.newest or 0) if text != "arrivals paused"]
    load = ", ".join(words).replace("× ", "the scenario's × ") or "as the scenario says"
    rate = view.latest.rate if view.latest else None
    asked = f"   {units.significant(rate)}/s asked now" if rate else ""
    return [
        Row("load", load + asked),
        Row("arrivals", "‖ paused: nothing falls due" if standing.paused else "● come"),
        Row("engine", engine(standing, view, snapshot)),
    ]


def engine(standing: Standing, view: View, snapshot: Mapping[str, Any]) -> str:
    """The settings of the batcher as they are written; of a server elsewhere none are ours."""
    if standing.engine is not None:
        return "  ".join(f"{key}={_tight(text)}" for key, text in standing.engine.texts.items())
    settings = view.start.settings if view.start else {}
    if "max_batch" not in settings:
        return "not started by this run: its settings are not ours"
    spec = snapshot.get("spec")
    asked = spec.get("engine") if isinstance(spec, dict) else None
    asked = asked if isinstance(asked, dict) else {}
    slo = asked.get("slo") or "none"
    return f"max_batch={settings['max_batch']}  policy={settings.get('policy')}  slo={_tight(slo)}"


def _tight(text: Any) -> str:
    return str(text).replace(" ", "")
