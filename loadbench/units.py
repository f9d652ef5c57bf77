"""Every quantity is parsed and printed here, and nowhere else.

Inside the program time is an int of nanoseconds, a share is a fraction of 1, memory is bytes.
The words and the number of digits are those of the screens and reports: three significant digits,
one unit per quantity, `n/a` for what is missing.
"""

import ipaddress
import math
import re
import socket

from loadbench.errors import SpecError

NS = 1
US = 1_000
MS = 1_000_000
SECOND = 1_000_000_000
BEYOND = 1e15  # no figure of ours comes to so much

_DURATIONS = {
    "ns": NS,
    "us": US,
    "µs": US,
    "ms": MS,
    "s": SECOND,
    "m": 60 * SECOND,
    "min": 60 * SECOND,
    "h": 3600 * SECOND,
}
_SIZES = {
    "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
}  # fmt: skip
_NUMBER = re.compile(r"\s*([0-9][0-9_,]*\.?[0-9]*(?:e[+-]?[0-9]+)?|\.[0-9]+)\s*([^\s0-9.]*)\s*")


def _split(text: str, what: str, example: str) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise SpecError(f"{text!r} is not {what}", f"write it like {example}")
    return float(match[1].replace(",", "").replace("_", "")), match[2]


def _bare(value: object, what: str, lacks: str) -> str:
    """What is wrong with a value that is no text, as TOML has it."""
    if isinstance(value, bool):
        return f"{str(value).lower()} is not {what}"
    return (
        f"{value} is {what} without {lacks}"
        if isinstance(value, int | float)
        else f"{value} is not {what}"
    )


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """What the system takes a host for that is written as an address, also as `127.1`, `0x7f000001`
    or `::ffff:127.0.0.1`; None of a name. Nothing is looked up."""
    try:
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST) if host else ()
    except (OSError, UnicodeError):
        return None
    for *_, at in found:
        address = ipaddress.ip_address(at[0])
        return getattr(address, "ipv4_mapped", None) or address
    return None


def loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    address = address_of(host)
    return address.is_loopback if address else host.lower().removesuffix(".") == "localhost"


def leads_here(host: str) -> bool:
    """Whether who asks for it asks its own machine. No other name is looked up for that: it may
    lead elsewhere a moment later."""
    address = address_of(host)
    return loopback(host) or (address is not None and address.is_unspecified)


def hostport(host: str, port: int) -> str:
    """`10.0.0.7:8000`; an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_duration(text: str | int | float) -> int:
    """`"100 ms"`, `"1m30s"` → nanoseconds. A bare number is refused: its unit would be a guess."""
    hint = 'write it like "100 ms", "20s" or "1m30s"'
    if not isinstance(text, str):
        raise SpecError(_bare(text, "a duration", "a unit"), hint)
    total, rest = 0.0, text.strip()
    if not rest:
        raise SpecError("an empty text is not a duration", hint)
    while rest:
        match = re.match(r"([0-9]*\.?[0-9]+)\s*([a-zµ]+)\s*", rest)
        if match is None or match[2] not in _DURATIONS:
            raise SpecError(f"{text!r} is not a duration", hint)
        total += float(match[1]) * _DURATIONS[match[2]]
        rest = rest[match.end() :]
    return round(total)


def parse_rate(text: str | int | float) -> float:
    """`300`, `"300/s"`, `"1.2k/s"`, `"600/min"` → per second."""
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise SpecError(_bare(text, "a rate", "a unit"), 'write it like 300 or "300/s"')
    if not isinstance(text, str):
        value, unit = (float(text) if text < 1e300 else math.inf), "/s"
    else:
        value, unit = _split(text, "a rate", '300 or "300/s"')
    factor = {
        "": 1.0, "/s": 1.0, "k": 1e3, "k/s": 1e3, "/m": 1 / 60, "/min": 1 / 60, "/h": 1 / 3600,
    }.get(unit)  # fmt: skip
    if factor is None or not math.isfinite(value) or value < 0:
        raise SpecError(f"{text!r} is not a rate", 'write it like 300 or "300/s"')
    return value * factor


def parse_share(text: str | int | float) -> float:
    """`"1 %"` → 0.01. A bare number is refused: 1 could be 1 % or all."""
    if not isinstance(text, str):
        raise SpecError(_bare(text, "a share", "a sign"), 'write it like "1 %"')
    value, unit = _split(text, "a share", '"1 %"')
    if unit != "%":
        raise SpecError(f"{text!r} is not a share", 'write it like "1 %"')
    return value / 100


def parse_size(text: str | int | float) -> int:
    """`"64 MB"`, `"1 GiB"`, `0` → bytes. Other bare numbers are refused: the unit is a guess."""
    hint = 'write it like "64 MB" or "1 GiB"'
    if text == 0 and not isinstance(text, bool | str):
        return 0
    if not isinstance(text, str):
        raise SpecError(_bare(text, "a size", "a unit"), hint)
    value, unit = _split(text, "a size", '"64 MB"')
    factor = _SIZES.get(unit)
    if (factor is None and value) or value * (factor or 0) > 1 << 60:
        raise SpecError(f"{text!r} is not a size", hint)
    return round(value * (factor or 0))


def exact_duration(ns: int) -> str:
    """A length of time as scenarios write it, losing nothing: `100 ms`, `90 s`, `1500 us`."""
    for unit in ("h", "m", "s", "ms", "us"):
        if ns and ns % _DURATIONS[unit] == 0:
            return f"{ns // _DURATIONS[unit]} {unit}"
    return f"{ns} ns"


def significant(value: float | None, digits: int = 3) -> str:
    """Three significant digits without exponents: 0.0312, 18.3, 1184, 34,043; `n/a` if missing.
    What no measurement comes to, a damaged run's 1e+308, has one: all its digits break tables."""
    if value is None or not math.isfinite(value):
        return "n/a"
    if value == 0:
        return "0"
    if abs(value) >= BEYOND:
        return f"{value:.{digits}g}"
    magnitude = math.floor(math.log10(abs(value)))
    decimals = max(0, digits - 1 - magnitude)
    rounded = round(value, decimals)
    if abs(rounded) >= 10 ** (magnitude + 1):  # 9.996 → 10.0, which has one decimal less
        decimals = max(0, decimals - 1)
    text = f"{rounded:,.{decimals}f}"
    return text.replace(",", "") if abs(rounded) < 10_000 else text


def ms(ns: int | float | None) -> str:
    """Nanoseconds as milliseconds: `46.2`."""
    return significant(None if ns is None else ns / MS)


def percent(share: float | None) -> str:
    """A fraction as a percentage without its sign: 0.0002 → `0.02`."""
    if share is None:
        return "n/a"
    value = share * 100
    if abs(value) >= BEYOND:
        return f"{value:.3g}"
    if value == 0 or value >= 99.995:
        return f"{value:.0f}"
    if value >= 99.5:  # all is all: 99.6 and 99.97 are not 100
        return f"{value:.1f}" if value < 99.95 else f"{value:.2f}"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}" if value < 1 else f"{value:.1f}"


def growth(share: float) -> str:
    """A fraction by which something grew as a percentage without its sign: 0.041 → `+4.1`."""
    value = share * 100
    return f"{value:+.1f}" if abs(value) < BEYOND else f"{value:+.3g}"


def count(number: int | None) -> str:
    """Thousands apart: `34,043`."""
    return "n/a" if number is None else f"{number:,}"


def gigabytes(size: int | None) -> str:
    """Bytes as GB: `31`, `0.4`."""
    if size is None:
        return "n/a"
    value = size / 1e9
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def clock(ns: int) -> str:
    """A moment of the run: `04:12`, `1:04:12` from an hour on, `-00:05` during warm-up."""
    seconds = abs(ns) // SECOND
    sign = "-" if ns < 0 and seconds else ""
    hours, rest = divmod(seconds, 3600)
    text = f"{rest // 60:02d}:{rest % 60:02d}"
    return f"{sign}{hours}:{text}" if hours else sign + text


def duration(ns: int) -> str:
    """A length of time in short words, to three digits: `5 ms`, `1m 30s`."""
    if ns < SECOND:
        return f"{ns / MS:.3g} ms"
    if ns < 60 * SECOND:
        return f"{ns / SECOND:.3g} s"
    hours, rest = divmod(round(ns / SECOND), 3600)
    parts = [f"{hours}h"] if hours else []
    if rest // 60 or not parts:
        parts.append(f"{rest // 60}m")
    if rest % 60:
        parts.append(f"{rest % 60:02d}s")
    return " ".join(parts)
