"""How far a target may be loaded: what the scenario bounds it to, and that a host which may be
somebody else's is not loaded heavily by mistake.

Only paced arrivals have a rate that can be known beforehand. What asks as fast as it is answered (a
closed loop, the users of a Locust file) or all at once is never told to a target with a `max_rate`,
and a host of others gets a little of it only.
"""

import math
from collections.abc import Sequence

import numpy as np

from loadbench.courtesy import OWN, UNPACED_MOST
from loadbench.environment import shown
from loadbench.errors import SpecError
from loadbench.loadspec import LoadSpec
from loadbench.shape import Phase, peak
from loadbench.spec import Spec
from loadbench.targetspec import TargetSpec
from loadbench.trace import Replay
from loadbench.units import SECOND, count, significant

_UNPACED = {
    "closed": "a closed loop asks as fast as it is answered",
    "once": 'arrivals = "once" asks for all at the same moment',
    "journey": "the users of a Locust file ask as fast as they are answered",
}


def require_bounded(spec: Spec) -> None:
    """SpecError if the load may be more than the target is to get. Before anything is sent, so of
    rates in % of what a calibration is yet to find no more is known than that it wants all."""
    target, load = spec.target, spec.load
    if target.cap is None:
        return
    if load.calibrate is not None:
        _refuse(target, "a calibration asks for as much as the target can do")
    if load.arrivals in _UNPACED:
        _require_few(target, load)
        return
    rate = highest(load, load.resolve(None))
    if rate > target.cap:
        _refuse(target, f"the load is {significant(rate)}/s at its highest")


def require_rate(target: TargetSpec, rate: float, option: str) -> None:
    """SpecError for a rate that somebody asked for by an option, and the target is not to get."""
    if target.cap is not None and rate > target.cap:
        _refuse(target, f"{option} asks for {significant(rate)}/s")


def highest(load: LoadSpec, phases: Sequence[Phase]) -> float:
    """What the load asks for at its highest: per second, of a trace in its busiest one; of a closed
    loop at once."""
    if load.arrivals == "closed":
        return float(load.concurrency)
    replay = load.replay
    return max(peak(phases), _busiest(replay) if replay else 0.0)


def most(spec: Spec) -> float | None:
    """What the target is to get, in the unit of `highest`; None: any number."""
    if spec.load.arrivals == "closed":
        return UNPACED_MOST if spec.target.guarded else None
    return spec.target.cap


def require_most(most: float | None, asked: float, unit: str = "/s") -> None:
    """ValueError for a load by hand that is above what the target may be asked for."""
    if most is not None and asked > most:
        raise ValueError(
            f"{significant(asked)}{unit} is more than the target is to get"
            f" ({significant(most)}{unit})"
        )


def _busiest(replay: Replay) -> int:
    """The most requests in any one second."""
    due = np.sort(replay.due)
    if replay.loop:
        due = np.concatenate((due, due + replay.span_ns))
    return int((np.searchsorted(due, due + SECOND) - np.arange(len(due))).max())


def _require_few(target: TargetSpec, load: LoadSpec) -> None:
    why = _UNPACED[load.arrivals]
    if target.max_rate is not None:
        raise SpecError(
            f"{why}, so that nobody can know that it keeps to target.max_rate ="
            f" {significant(target.max_rate)}/s",
            'give the load a rate (load.arrivals = "constant"), or leave target.max_rate out',
        )
    number, what = _unpaced(load)
    if number > UNPACED_MOST:
        raise SpecError(
            f"{why}, and {shown('url', target.remote)} may be somebody else's: it gets"
            f" {UNPACED_MOST} {what} at most, not {count(number)}",
            OWN,
        )


def _unpaced(load: LoadSpec) -> tuple[int, str]:
    """How many ask, and what they are."""
    if load.arrivals == "closed":
        return load.concurrency, "connections"
    if load.arrivals == "journey":
        return load.users, "users"
    whole = math.fsum(phase.requests for phase in load.resolve(None))
    return math.floor(whole + 1e-6), "requests at once"


def _refuse(target: TargetSpec, why: str) -> None:
    text, more = whose(target)
    raise SpecError(f"{why}, and {text}", more or "lower the one or raise the other")


def whose(target: TargetSpec) -> tuple[str, str]:
    """What the cap of a target comes from; and how it gets more, where that does not say it."""
    cap = target.cap or 0.0
    if target.max_rate is not None and target.max_rate <= cap:
        return f"target.max_rate is {significant(cap)}/s", ""
    where = shown("url", target.remote)
    return f"{where} may be somebody else's: it gets {significant(cap)}/s at most", OWN
