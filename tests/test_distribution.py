"""Distributions written as text: what they mean, their limits, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.distribution import parse
from loadbench.errors import SpecError


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


_NUMBERS = st.floats(0.1, 1e4)
_TEXTS = st.one_of(
    st.builds(lambda a: f"{a}", _NUMBERS),
    st.builds(lambda a, b: f"uniform({min(a, b)}, {max(a, b)})", _NUMBERS, _NUMBERS),
    st.builds(lambda a, b: f"lognormal({a}, {b / 1e4})", _NUMBERS, _NUMBERS),
    st.builds(lambda a, b: f"normal({a}, {b})", _NUMBERS, _NUMBERS),
    st.builds(lambda a: f"poisson({a})", _NUMBERS),
    st.builds(lambda a, b, c: f"choice({a}: {c}, {b})", _NUMBERS, _NUMBERS, _NUMBERS),
)


@given(_TEXTS, st.integers(1, 500), st.integers(0, 500), st.integers(0, 2**32))
def test_all_draws_lie_within_the_limits_and_come_again_with_the_seed(
    text: str, low: int, more: int, seed: int
) -> None:
    found = parse(f"{text} clipped {low}..{low + more}")
    drawn = found.whole(rng(seed), 50)
    assert low <= drawn.min() <= drawn.max() <= low + more
    np.testing.assert_array_equal(drawn, found.whole(rng(seed), 50))
    free = found.draw(rng(seed), 50)
    assert low <= free.min() <= free.max() <= low + more


@pytest.mark.parametrize(
    ("text", "mean", "quantiles"),
    [
        ("lognormal(64, 0.6)", 64 * np.exp(0.18), {0.5: 64, 0.8413: 64 * np.exp(0.6)}),
        ("normal(100, 20)", 100, {0.5: 100, 0.8413: 120}),
        ("uniform(0, 10)", 5, {0.25: 2.5, 0.9: 9}),
        ("poisson(50)", 50, {0.5: 50}),
        ("choice(16: 3, 128: 1)", 44, {0.7: 16, 0.8: 128}),
        ("choice(1, 3)", 2, {0.4: 1, 0.6: 3}),
        (7, 7, {0.5: 7}),
        ("lognormal(64, 0.6) clipped 64..64", 64, {0.5: 64}),
    ],
)
def test_they_are_what_they_are_called(
    text: str | int, mean: float, quantiles: dict[float, float]
) -> None:
    drawn = parse(text).draw(rng(), 200_000)
    assert drawn.mean() == pytest.approx(mean, rel=0.02)
    for share, value in quantiles.items():
        assert np.quantile(drawn, share) == pytest.approx(value, rel=0.02)


def test_whole_numbers_have_both_ends_of_a_uniform_as_often_as_the_rest() -> None:
    counts = np.bincount(parse("uniform(1, 4)").whole(rng(), 40_000))
    assert counts[1:] == pytest.approx(10_000, rel=0.05)
    assert counts[0] == 0


def test_a_file_is_drawn_from_as_often_as_its_numbers_come(tmp_path: Path) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("length,who\n16,a\n16,b\n\n16,c\n128,d\n")
    drawn = parse(f"file({path}) clipped 1..100").whole(rng(), 10_000)
    assert set(drawn) == {16, 100}
    assert (drawn == 16).mean() == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lognormal(64)", "it is lognormal(median > 0, sigma ≥ 0)"),
        ("lognormal(0, 1)", "it is lognormal"),
        ("normal(1, -1)", "it is normal"),
        ("uniform(3, 2)", "it is uniform(least, most)"),
        ("gauss(1, 2)", "known: normal, uniform"),
        ("poisson(1, 2)", "it is poisson"),
        ("poisson(x)", "'x' is not a number"),
        ("choice(1: -1, 2: 3)", "positive number"),
        ("choice()", "'' is not a number"),
        ("uniform(1, 2) clipped 5..3", "nothing lies between 5 and 3"),
        ("uniform(1, 2) clipped", "is not a distribution"),
        ("nan", "is not a distribution"),
        ("seq_len", "is not a distribution"),
        ("file(absent.txt)", "absent.txt: No such file"),
        (True, "is not a distribution"),
        ([1], "is not a distribution"),
    ],
)
def test_what_is_none_is_refused(text: object, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_a_file_at_fault_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "lengths.txt"
    path.write_text("16\n32\nmany\n")
    with pytest.raises(SpecError, match=r"lengths.txt line 3: 'many'"):
        parse(f"file({path})")
    path.write_text("length\n")
    with pytest.raises(SpecError, match="no numbers"):
        parse(f"file({path})")
