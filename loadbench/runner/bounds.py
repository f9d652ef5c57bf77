"""How far a target may be loaded: what the scenario bounds it to, and that a host which may be
somebody else's is not loaded heavily by mistake."""

from loadbench.errors import SpecError
from loadbench.shape import peak
from loadbench.spec import Spec
from loadbench.targetspec import USUAL_MOST, TargetSpec
from loadbench.units import significant

_PACED = ("constant", "poisson", "gamma", "trace")
OWN = "--set target.owned=true says that you may: the host is yours, or its owner agrees"


def require_bounded(spec: Spec) -> None:
    """SpecError if the load may be more than the target is to get. Before anything is sent, so of
    rates in % of what a calibration is yet to find no more is known than that it wants all."""
    target, load = spec.target, spec.load
    if target.cap is None or load.arrivals == "journey":
        return
    if load.calibrate is not None:
        _refuse(target, "a calibration asks for as much as the target can do")
    elif load.arrivals in _PACED:
        rate = peak(load.resolve(None))
        if rate > target.cap:
            _refuse(target, f"the load is {significant(rate)}/s at its highest")
    elif load.arrivals == "closed":
        if target.max_rate is not None:
            _refuse(target, "a closed loop asks as fast as it is answered")
        elif load.concurrency is not None and load.concurrency > USUAL_MOST:
            _refuse(target, f"the load is {load.concurrency} requests at once")


def require_rate(cap: float | None, rate: float) -> None:
    """ValueError for a rate by hand that is above what the target may be asked for."""
    if cap is not None and rate > cap:
        raise ValueError(
            f"{significant(rate)}/s is more than the target is to get ({significant(cap)}/s)"
        )


def _refuse(target: TargetSpec, why: str) -> None:
    cap = target.cap or 0.0
    if target.max_rate is not None and target.max_rate <= cap:
        raise SpecError(
            f"{why}, and target.max_rate is {significant(cap)}/s",
            "lower the one or raise the other",
        )
    raise SpecError(
        f"{why}, and {target.url} may be somebody else's: it gets {significant(cap)}/s at most", OWN
    )
