"""Quantities: every spelling people use, and the digits that screens show."""

import pytest

from loadbench import units
from loadbench.errors import SpecError


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("100 ms", 100_000_000),
        ("20s", 20_000_000_000),
        ("1m", 60_000_000_000),
        ("1m30s", 90_000_000_000),
        ("8h", 8 * 3600 * 10**9),
        ("250 us", 250_000),
        ("1.5 s", 1_500_000_000),
        (".5ms", 500_000),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert units.parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "5", 5, "5 parsecs", "ms", "-3 s", "1m x", None, True])
def test_a_duration_needs_a_unit(text: object) -> None:
    with pytest.raises(SpecError):
        units.parse_duration(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "rate"), [(300, 300), ("300/s", 300), ("1.2k/s", 1200), ("600/min", 10), ("90", 90)]
)
def test_rates(text: str | int, rate: float) -> None:
    assert units.parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", [True, "300 %", "-3", -3, "fast", float("nan"), float("inf")])
def test_what_is_no_rate(text: object) -> None:
    with pytest.raises(SpecError):
        units.parse_rate(text)  # type: ignore[arg-type]


def test_shares_need_their_sign() -> None:
    assert units.parse_share("1 %") == 0.01
    assert units.parse_share("99.5%") == pytest.approx(0.995)
    for wrong in (1, "1", "1/s", ""):
        with pytest.raises(SpecError):
            units.parse_share(wrong)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0312, "0.0312"),
        (18.34, "18.3"),
        (9.996, "10.0"),
        (99.96, "100"),
        (999.6, "1000"),
        (1184.4, "1184"),
        (34043, "34,043"),
        (0, "0"),
        (None, "n/a"),
        (float("inf"), "n/a"),
        (-2.5, "-2.50"),
        (9.994e14, "999,400,000,000,000"),
        (1e15, "1e+15"),
        (1e308, "1e+308"),
        (-1.234e20, "-1.23e+20"),
    ],
)
def test_three_significant_digits(value: float | None, text: str) -> None:
    assert units.significant(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0002, "0.02"),
        (0, "0"),
        (1, "100"),
        (0.9999999, "100"),
        (0.996, "99.6"),
        (0.9996, "99.96"),
        (0.63, "63"),
        (0.034, "3.4"),
        (1e308, "inf"),
        (-1e300, "-1e+302"),
    ],
)
def test_percentages(share: float, text: str) -> None:
    assert units.percent(share) == text


@pytest.mark.parametrize("text", ["100 ms", "90 s", "1500 us", "8 h", "7 ns", "1 m", "0 ns"])
def test_durations_written_out_lose_nothing(text: str) -> None:
    assert units.exact_duration(units.parse_duration(text)) == text


def test_moments_and_lengths() -> None:
    assert units.clock(252 * units.SECOND) == "04:12"
    assert units.clock(3852 * units.SECOND) == "1:04:12"
    assert units.clock(-5 * units.SECOND) == "-00:05"
    assert units.duration(5 * units.MS) == "5 ms"
    assert units.duration(90 * units.SECOND) == "1m 30s"
    assert units.duration(8 * 3600 * units.SECOND) == "8h"


@pytest.mark.parametrize(
    ("text", "size"),
    [("64 MB", 64_000_000), ("1 GiB", 1 << 30), ("1.5kB", 1500), ("7 B", 7), (0, 0), ("0", 0)],
)
def test_sizes(text: str | int, size: int) -> None:
    assert units.parse_size(text) == size


@pytest.mark.parametrize("text", ["64", 64, "64 Mb", "-1 MB", "", True, "1e30 GB"])
def test_what_is_no_size_is_refused(text: str | int) -> None:
    with pytest.raises(SpecError):
        units.parse_size(text)
