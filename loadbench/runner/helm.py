"""What the commands that change a running load mean: a Steering, and the words of its mark. The
runner sends the one to the load and writes the other into the log. And those that change a local
engine, which are passed on to it.

A rate is held until another command; a scale multiplies what the scenario asks for, and 1 returns
to it; a spike is over by itself. Pausing leaves out what falls due, and never shifts what comes
after: the run ends when it was to end.
"""

from typing import Any, NamedTuple, Protocol

from msgspec.structs import replace

from loadbench import units
from loadbench.bounds import require_most
from loadbench.errors import SpecError
from loadbench.judge.pilot import Order
from loadbench.model import Note, Window
from loadbench.plan import Plan
from loadbench.runner.target import Target
from loadbench.shape import Arrivals, Steering
from loadbench.standing import Settings, Standing, differences
from loadbench.units import SECOND, duration, significant

COMMANDS = ("rate", "scale", "pause", "resume", "spike")
STEERED = Note(
    "steered",
    "the load was changed by hand: the marks tell when and how",
    "compare runs that follow their scenario",
)
RETUNED = Note(
    "retuned",
    "the engine's settings were changed by hand: the marks tell when and how",
    "compare runs of one setting",
)
_PACED = ("constant", "poisson", "gamma")
_MOST_RATE, _MOST_SCALE = 1e7, 1e4


class Lead(Protocol):
    """Who leads a run from one rate to the next instead of its scenario."""

    def planned(self, plan: Plan, target: Target) -> Plan:
        """The plan with the first rate, now that the target is known."""

    def see(self, window: Window) -> Order | None:
        """Hears of each window of the run; what is to be done from now on."""


class Situation(NamedTuple):
    """Where a run is when a command comes."""

    arrivals: Arrivals
    steering: Steering
    now_ns: int  # since second 0, when the load is to follow
    end_ns: int  # of the load
    capacity: float | None  # what 100 % is, if it was calibrated
    peak: float = 0.0  # of the scenario's load, per second; of a closed loop at once, as the next
    cap: float | None = None  # what the target may be asked for, per second


def steer(command: dict[str, Any], run: Situation) -> tuple[Steering, str]:
    """The Steering from now on, and what was done in words. ValueError if it cannot be done."""
    name = command["command"]
    if run.arrivals == "journey":
        raise ValueError("the Locust file says how many users there are: it can only be stopped")
    if run.now_ns >= run.end_ns:
        raise ValueError("the load is over")
    if run.arrivals == "once":
        raise ValueError("everything was asked for at the beginning: there is nothing to change")
    before = run.steering
    match name:
        case "rate":
            rate = _rate(command, run)
            return replace(before, rate=rate, scale=1.0), f"rate {significant(rate)}/s by hand"
        case "scale":
            factor = _factor(command, run)
            text = "the scenario's load again" if factor == 1 else f"the scenario's load × {factor}"
            return replace(before, rate=None, scale=factor), text
        case "pause" | "resume":
            paused = name == "pause"
            if paused == before.paused:
                raise ValueError("arrivals are " + ("paused already" if paused else "not paused"))
            return replace(before, paused=paused), f"arrivals {name}d"
        case "spike":
            rate, length = _rate(command, run), _length(command)
            until = max(run.now_ns, 0) + length
            text = f"spike of {significant(rate)}/s for {duration(length)}"
            return replace(before, spike=rate, spike_until_ns=until), text
    raise ValueError(f"there is no command {name!r}")


def standing(steering: Steering, before: Standing) -> Standing:
    """The same for the log."""
    until = -(-steering.spike_until_ns // SECOND) if steering.spike is not None else None
    return Standing(
        steering.rate, steering.scale, steering.paused, steering.spike, until, before.engine
    )


def retune(command: dict[str, Any], target: Target) -> tuple[Settings, str]:
    """Changes the settings of the target's batcher; what they are now, and the words of the mark.
    ValueError or SpecError if that cannot be done."""
    if target.retune is None:
        title = target.title or "the target"
        raise ValueError(f"{title} is no engine that this run started: it is not ours to change")
    before, after = target.retune({key: command[key] for key in command if key != "command"})
    return after, f"engine: {differences(before, after)}"


def _rate(command: dict[str, Any], run: Situation) -> float:
    if run.arrivals not in _PACED:
        raise ValueError(f"{run.arrivals} arrivals have no rate to change")
    value = command.get("rate")
    try:
        if isinstance(value, str) and value.rstrip().endswith("%"):
            if run.capacity is None:
                raise ValueError("a rate in % needs a calibrated run: give it per second")
            rate = units.parse_share(value) * run.capacity
        elif isinstance(value, str | int | float) and not isinstance(value, bool):
            rate = units.parse_rate(value)
        else:
            raise ValueError('give a rate: {"command": "rate", "rate": 300}')
    except SpecError as error:
        raise ValueError(f"{error.message}: {error.hint}") from error
    if rate > _MOST_RATE:
        raise ValueError(f"{value!r} is more than any machine sends")
    require_most(run.cap, rate)
    return rate


def _factor(command: dict[str, Any], run: Situation) -> float:
    if run.arrivals not in (*_PACED, "closed"):
        raise ValueError(f"{run.arrivals} arrivals cannot be scaled while they run")
    value = command.get("factor")
    try:
        found = units.parse_share(value) if isinstance(value, str) and "%" in value else value
        factor = float(found)  # type: ignore[arg-type]
    except (SpecError, TypeError, ValueError, OverflowError):
        factor = -1.0
    if not 0 <= factor <= _MOST_SCALE or isinstance(value, bool):
        raise ValueError(f'give a factor in 0 … {_MOST_SCALE:g}, or like "150 %"')
    unit = " at once" if run.arrivals == "closed" else "/s"
    require_most(run.cap, factor * run.peak, unit)
    return factor


def _length(command: dict[str, Any]) -> int:
    try:
        length = units.parse_duration(command.get("for", ""))
    except SpecError as error:
        raise ValueError(f"for: {error.message}: {error.hint}") from error
    if length <= 0:
        raise ValueError("for: a spike lasts longer than nothing")
    return length
