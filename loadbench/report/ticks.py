"""Round values for axes, and how a tick is written: for the charts of screens and of pages."""

import math

TIME_STEPS = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200,
)  # fmt: skip


def nice_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 5 × 10ⁿ that divides the span into at most `most` parts."""
    raw = span / max(1, most)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    return next(step for m in (1, 2, 5, 10) if (step := m * magnitude) >= raw * (1 - 1e-9))


def ticks(top: float, most: int) -> list[float]:
    """Round values above zero and up to the top."""
    step = nice_step(top, most)
    return [round(step * at, 12) for at in range(1, int(top / step + 1e-9) + 1)]


def log_ticks(low: float, top: float, most: int) -> list[float]:
    """1-2-5 values between two powers; only the powers where that would be too many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(top)) + 1)
    for multiples in ((1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**d for d in decades for m in multiples]
        found = [value for value in found if low < value <= top]
        if len(found) <= most:
            return found
    return found[:: max(1, -(-len(found) // max(1, most)))]


def label(value: float) -> str:
    """A tick: 0.5, 150, 1.2k, 34k."""
    for factor, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{sign}"
    return f"{value:.3g}"
