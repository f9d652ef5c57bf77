"""Numbers drawn from a distribution that is written as text: lengths, values, whatever varies.

    128 · uniform(1, 512) · lognormal(64, 0.6) · normal(100, 20) · poisson(50)
    choice(16: 0.5, 128: 0.3, 512: 0.2) · file(lengths.txt)

each also with limits: `lognormal(64, 0.6) clipped 1..512`. The first number of lognormal is its
median, the second the standard deviation of the logarithm. What is beyond a limit becomes the
limit, so that the limits are as frequent as everything beyond them.
"""

import csv
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench.errors import SpecError

EXAMPLE = 'write it like 128, "uniform(1, 512)" or "lognormal(64, 0.6) clipped 1..512"'
_MOST = 1e15
_CALL = re.compile(r"([a-z]+)\s*\((.*)\)", re.DOTALL)
_CLIP = re.compile(r"(.*?)\s+clipped\s+(\S+?)\s*(?:\.\.+|…)\s*(\S+)", re.DOTALL)

Numbers = NDArray[np.float64]


class Distribution(NamedTuple):
    """Where numbers come from. `weights` and more than two `numbers` are only a choice's."""

    kind: str
    numbers: tuple[float, ...]
    weights: tuple[float, ...] = ()
    low: float = -math.inf
    high: float = math.inf

    def draw(self, draw: np.random.Generator, number: int) -> Numbers:
        """So many numbers within the limits."""
        return np.clip(_DRAWS[self.kind](self, draw, number), self.low, self.high)

    def whole(self, draw: np.random.Generator, number: int) -> NDArray[np.int64]:
        """So many whole numbers; of uniform(a, b) both ends as often as all between."""
        first, last = math.ceil(self.numbers[0]), math.floor(self.numbers[-1])
        if self.kind != "uniform" or first > last:
            return np.rint(self.draw(draw, number)).astype(np.int64)
        found = draw.integers(first, last, number, endpoint=True).astype(np.float64)
        return np.rint(np.clip(found, self.low, self.high)).astype(np.int64)


def _normal(of: Distribution, draw: np.random.Generator, number: int) -> Numbers:
    return draw.normal(of.numbers[0], of.numbers[1], number)


def _uniform(of: Distribution, draw: np.random.Generator, number: int) -> Numbers:
    return draw.uniform(of.numbers[0], of.numbers[1], number)


def _lognormal(of: Distribution, draw: np.random.Generator, number: int) -> Numbers:
    return draw.lognormal(math.log(of.numbers[0]), of.numbers[1], number)


def _poisson(of: Distribution, draw: np.random.Generator, number: int) -> Numbers:
    return draw.poisson(of.numbers[0], number).astype(np.float64)


def _choice(of: Distribution, draw: np.random.Generator, number: int) -> Numbers:
    weights = np.array(of.weights) / sum(of.weights) if of.weights else None
    return draw.choice(np.array(of.numbers), number, p=weights)


_DRAWS: dict[str, Callable[[Distribution, np.random.Generator, int], Numbers]] = {
    "normal": _normal,
    "uniform": _uniform,
    "lognormal": _lognormal,
    "poisson": _poisson,
    "choice": _choice,
}
# what their two numbers must be like
_RULES: dict[str, tuple[str, Callable[..., bool]]] = {
    "normal": ("(mean, standard deviation ≥ 0)", lambda mean, deviation: deviation >= 0),
    "uniform": ("(least, most)", lambda least, most: least <= most),
    "lognormal": ("(median > 0, sigma ≥ 0)", lambda median, sigma: median > 0 and 0 <= sigma <= 20),
    "poisson": ("(mean ≥ 0)", lambda mean: mean >= 0),
}


def parse(given: Any) -> Distribution:
    """The distribution that a text or a number means. Raises SpecError."""
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        raise SpecError(f"{given!r} is not a distribution", EXAMPLE)
    text = str(given).strip()
    clipped = _CLIP.fullmatch(text)
    if clipped is None:
        return _bare(text, text)
    low, high = _number(clipped[2], text), _number(clipped[3], text)
    if low > high:
        raise SpecError(f"{text!r}: nothing lies between {low:g} and {high:g}", EXAMPLE)
    return _bare(clipped[1].strip(), text)._replace(low=low, high=high)


def file_of(text: str) -> str | None:
    """The file that a distribution is read from; None of what is none, or names no file."""
    clipped = _CLIP.fullmatch(text.strip())
    call = _CALL.fullmatch(clipped[1].strip() if clipped else text.strip())
    return _named(call[2]) if call and call[1] == "file" else None


def _named(inside: str) -> str:
    return inside.strip().strip("'\"")


def _bare(text: str, whole: str) -> Distribution:
    call = _CALL.fullmatch(text)
    if call is None:
        return Distribution("choice", (_number(text, whole),))
    kind, inside = call[1], call[2].strip()
    if kind == "file":
        return Distribution("choice", _read(_named(inside)))
    parts = [part.strip() for part in inside.split(",")]
    if kind == "choice":
        return _weighted(parts, whole)
    if kind not in _RULES:
        known = ", ".join([*_DRAWS, "file"])
        raise SpecError(f"{whole!r}: {kind!r} is not a distribution", f"known: {known}")
    numbers = tuple(_number(part, whole) for part in parts)
    shown, fits = _RULES[kind]
    if len(numbers) != shown.count(",") + 1 or not fits(*numbers):
        raise SpecError(f"{whole!r} is not a distribution", f"it is {kind}{shown}")
    return Distribution(kind, numbers)


def _weighted(parts: list[str], whole: str) -> Distribution:
    pairs = [part.partition(":") for part in parts]
    numbers = tuple(_number(number.strip(), whole) for number, _, _ in pairs)
    if not any(colon for _, colon, _ in pairs):
        return Distribution("choice", numbers)
    weights = tuple(_number(weight.strip() or "1", whole) for _, _, weight in pairs)
    if min(weights) < 0 or sum(weights) <= 0:
        raise SpecError(f"{whole!r}: a weight is a positive number", "choice(16: 0.5, 128: 0.5)")
    return Distribution("choice", numbers, weights)


def _number(text: str, whole: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not abs(found) <= _MOST:
        said = f"{whole!r} is not a distribution" if text == whole else f"{whole!r}: {text!r}"
        raise SpecError(said if text == whole else f"{said} is not a number", EXAMPLE)
    return found


def _read(path: str) -> tuple[float, ...]:
    """The first column of a CSV file; its first line may be a heading."""
    hint = "one number in each line, as often as it comes"
    found = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for line, row in enumerate(csv.reader(file), 1):
                if not any(row):
                    continue
                try:
                    found.append(_number(row[0].strip(), row[0].strip()))
                except SpecError as error:
                    if line > 1:
                        text = f"{path} line {line}: {row[0]!r} is not a number"
                        raise SpecError(text, hint) from error
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}", hint) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path}: {error}", hint) from error
    if not found:
        raise SpecError(f"{path}: no numbers in it", hint)
    return tuple(found)
