"""Our bulk histograms against the package that defines the format, bucket for bucket."""

import gc
import math
import tracemalloc

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.histogram import DIGITS, EMPTY, HIGHEST_NS, LOWEST_NS, Histogram

values = st.lists(st.integers(0, HIGHEST_NS), max_size=200)


def reference(numbers: list[int]) -> HdrHistogram:
    histogram = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    for number in numbers:
        assert histogram.record_value(number)
    return histogram


@given(values)
@settings(deadline=None)
def test_equals_one_value_at_a_time(numbers: list[int]) -> None:
    ours, theirs = Histogram.of(numbers), reference(numbers)
    assert ours.count == theirs.total_count
    decoded = HdrHistogram.decode(ours.encode())
    assert list(decoded.counts) == list(theirs.counts)
    for share in (0.5, 0.9, 0.99, 0.999, 1.0):
        if numbers:
            assert ours.quantile(share) == theirs.get_value_at_percentile(share * 100)
    assert Histogram.decode(ours.encode()) == ours


@given(values, values)
@settings(deadline=None)
def test_merging_and_taking_away(left: list[int], right: list[int]) -> None:
    both = Histogram.merged([Histogram.of(left), Histogram.of(right)])
    assert both == Histogram.of(left + right)
    assert both.minus(Histogram.of(left)) == Histogram.of(right)


@given(
    st.lists(st.tuples(st.lists(values, max_size=4), st.integers(0, 30)), min_size=1, max_size=6),
    st.sampled_from([1 << 18, 1]),
)
@settings(deadline=None)
def test_quantiles_of_many_at_once(groups: list[tuple[list[list[int]], int]], at_once: int) -> None:
    """As of each one's own histogram, however many rows of counts are made at a time."""
    shares = (0.01, 0.5, 0.99, 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("loadbench.histogram._AT_ONCE", at_once)
        found = Histogram.quantiles(
            [[Histogram.of(part) for part in parts] for parts, _ in groups],
            shares,
            [beyond for _, beyond in groups],
        )
    for (parts, beyond), told in zip(groups, found, strict=True):
        alone = Histogram.of([value for part in parts for value in part])
        assert told == tuple(alone.quantile_of_asked(share, beyond) for share in shares)


@given(values)
@settings(deadline=None)
def test_a_rough_one_is_right_to_half_a_per_cent(numbers: list[int]) -> None:
    exact, rough = Histogram.of(numbers), Histogram.of(numbers).rough()
    assert (rough.count, rough.rough()) == (exact.count, rough)
    for share in (0.01, 0.5, 0.99, 1.0):
        there, here = exact.quantile(share), rough.quantile(share)
        assert here == (there and pytest.approx(there, rel=0.005, abs=512 * 8))


def test_counters_that_were_set_back_are_all_new() -> None:
    before, after = Histogram.of([5_000_000] * 10), Histogram.of([5_000_000] * 3)
    assert after.minus(before) == after


def test_quantiles_are_good_to_three_digits() -> None:
    numbers = np.random.default_rng(3).lognormal(math.log(5e6), 1.5, 50_000).astype(np.int64)
    histogram = Histogram.of(numbers)
    for share in (0.5, 0.9, 0.99, 0.999):
        exact = float(np.quantile(numbers, share, method="inverted_cdf"))
        assert histogram.quantile(share) == pytest.approx(exact, rel=1e-3)
    assert histogram.mean == pytest.approx(float(numbers.mean()), rel=5e-4)
    assert histogram.maximum == pytest.approx(int(numbers.max()), rel=1e-3)
    over = int((numbers > 20_000_000).sum())
    assert histogram.over(20_000_000) == pytest.approx(over, rel=0.01)


def test_an_empty_one_says_nothing() -> None:
    assert EMPTY.quantile(0.5) is None
    assert EMPTY.mean is None
    assert EMPTY.over(1) == 0
    assert EMPTY.quantile_of_asked(0.5, 0) is None
    assert Histogram.decode(EMPTY.encode()) == EMPTY


def test_what_failed_lies_beyond_every_number() -> None:
    answered = Histogram.of([10_000_000] * 98)
    assert answered.quantile_of_asked(0.99, 0) == answered.quantile(0.99)
    assert answered.quantile_of_asked(0.99, 2) == math.inf
    assert answered.quantile_of_asked(0.9, 2) == answered.quantile(0.9)
    assert EMPTY.quantile_of_asked(0.5, 1) == math.inf


@pytest.mark.parametrize("text", ["", "no base64!", "AAAA", EMPTY.encode()[:-8]])
def test_what_is_no_histogram(text: str) -> None:
    with pytest.raises(ValueError, match="not an HdrHistogram"):
        Histogram.decode(text)


def test_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="another layout"):
        Histogram.decode(HdrHistogram(1, 1000, 2).encode().decode())


def test_what_it_took_to_write_and_read_one_is_free_at_once() -> None:
    """The package's objects are in cycles of 200 kB: left to the collector a long load grows."""
    found = Histogram.of([1_000_000, 2_000_000])
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(10):
            Histogram.decode(found.encode())
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()
        gc.enable()
