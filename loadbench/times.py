"""A histogram as summaries tell it: mean, percentiles and maximum, in ms."""

import math

from loadbench import units
from loadbench.assurance import QUANTILES
from loadbench.histogram import Histogram

Times = dict[str, float | None]  # `mean`, `p50` … `p99_9`, `max`; None where there is no number


def times(histogram: Histogram, missed: int = 0) -> Times:
    """Of all values and of `missed` that lie beyond them."""
    found: Times = {"mean": ms(histogram.mean) if not missed else None}
    for name, share in QUANTILES.items():
        found[name] = ms(histogram.quantile_of_asked(share, missed))
    found["max"] = ms(histogram.maximum) if not missed else None
    return found


def ms(ns: float | None) -> float | None:
    """None of what is none, and of what lies beyond every number."""
    return None if ns is None or math.isinf(ns) else ns / units.MS
