"""The band of every percentile that a summary tells, or why it has none.

Latency is of all that was asked; what else is told in percentiles (of the answered alone, service,
lateness, the server's parts, each kind of request) is looked at in the same way.
"""

from collections.abc import Iterator, Sequence

from loadbench import units
from loadbench.account import Account
from loadbench.assurance import QUANTILES, Band, Blocks, Quantity, band_or_why
from loadbench.histogram import EMPTY, Histogram
from loadbench.model import Check, Part, Window
from loadbench.streams import CHECKS, PERCENTILES, TIMES

Bands = dict[str, tuple[float, float | None]]  # percentile → [low, high] in ms
Whys = dict[str, str]  # percentile → why it has none
_PARTS = ("queue", "batch_wait", "compute")
_TOLD = ("p50", "p99")  # of the server's parts


def of_blocks(blocks: Blocks, names: tuple[str, ...] = tuple(QUANTILES)) -> tuple[Bands, Whys]:
    """Of the percentiles of these names."""
    bands: Bands = {}
    whys: Whys = {}
    for name in names:
        found = band_or_why(blocks, QUANTILES[name])
        if isinstance(found, Band):
            high = None if found.high is None else found.high / units.MS
            bands[name] = (found.low / units.MS, high)
        else:
            whys[name] = found
    return bands, whys


def of_the_rest(total: Account) -> tuple[dict[str, Bands], dict[str, Whys]]:
    """All but the latency of what was asked, by the names that a summary gives them."""
    bands: dict[str, Bands] = {}
    whys: dict[str, Whys] = {}
    for name, quantity, told in _quantities(total):
        found = of_blocks(Blocks(total.steady, total.rest, of=quantity), told)
        bands[name], whys[name] = found
    return bands, {name: found for name, found in whys.items() if found}


def of_request(total: Account, name: str) -> tuple[Bands, Whys]:
    """Of one kind of request."""

    def values(window: Window) -> Histogram:
        part = window.requests.get(name)
        return part.latency if part else EMPTY

    def lost(window: Window) -> int:
        part = window.requests.get(name)
        return sum(part.failed.values()) if part else 0

    return of_blocks(Blocks(total.steady, total.rest, of=Quantity(values, lost)))


def _quantities(total: Account) -> Iterator[tuple[str, Quantity, tuple[str, ...]]]:
    yield "answered_ms", Quantity(lambda window: window.latency, _none), tuple(QUANTILES)
    yield "service_ms", Quantity(_service, _none), tuple(QUANTILES)
    yield "lateness_ms", Quantity(lambda window: window.lateness, _none), tuple(QUANTILES)
    if total.whole.stream is not None:
        for name in TIMES:
            yield f"{name}_ms", of_stream(name), PERCENTILES
    server = total.whole.server
    for name in _PARTS:
        part: Part | None = getattr(server, name) if server else None
        if part is not None and part.histogram is not None:
            yield f"{name}_ms", Quantity(_Part(name), _none), _TOLD


class _Part:
    """One part of the server's time, of a window."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, window: Window) -> Histogram:
        part: Part | None = getattr(window.server, self._name) if window.server else None
        return part.histogram if part and part.histogram else EMPTY


def about(
    check: Check,
    windows: Sequence[Window],
    rest: Sequence[Window],
    blocks: Blocks,
    whole: Window | None = None,
) -> Blocks:
    """What a check is about: of times of tokens those of the windows, else `blocks`. `whole` is
    all of them together, where that is known already."""
    if check.name not in CHECKS:
        return blocks
    quantity = of_stream(check.name.rpartition("_")[0])
    return Blocks(windows, rest, whole=quantity.values(whole) if whole else None, of=quantity)


def of_stream(name: str) -> Quantity:
    """Times of tokens. An answer that fails before its first has none, however long one waits."""
    times = TIMES[name]

    def values(window: Window) -> Histogram:
        streams = (part.stream for part in window.requests.values())
        return Histogram.merged(times(stream) for stream in streams if stream)

    return Quantity(values, barren if name == "first_token" else _none)


def barren(window: Window) -> int:
    """Asked, and never a token of it."""
    streams = (part.stream for part in window.requests.values())
    return sum(stream.barren for stream in streams if stream) + window.unsent + window.lost


def _service(window: Window) -> Histogram:
    return Histogram.merged(part.service for part in window.requests.values())


def _none(_: Window) -> int:
    return 0
