"""What was learned of good answers never says otherwise than the parser does, of whatever comes:
answers changed, spliced, cut off, folded, chunked, doubled, and in pieces cut anywhere.

tests/benchmarks/fuzz_answer.py looks on for as long as one likes (make fuzz).
"""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.answers import (
    CHECKS,
    DATED,
    GOOD,
    OTHER,
    Case,
    answer,
    body,
    both,
    change,
    chunked,
    made,
    single,
)

PAIR, ONE, DAY = answer(body()), answer(single([0.25])), answer(single([0.25]), DATED)
NOTHING = b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"
MOVED = body(data=[1, 2, 3, 4, 5]).replace(b"[1, 2]}]", b"[1, 2, 3]}]")  # as many commas


def said(text: bytes) -> Case:
    """This in the place of the only value."""
    return Case("one", (ONE,), answer(single([0.25]).replace(b"0.25", text)), (), True)


# found to differ once, and whether it is good
ONCE = {
    "no value": (said(b""), False),
    "a number that is none": (said(b"0.2."), False),
    "a large number": (said(b"1e99"), True),
    "a number beyond all numbers": (said(b"1e999"), False),
    "a value in the other output": (Case("pair", (PAIR,), answer(MOVED), (), True), False),
    "a control character": (Case("one", (DAY,), DAY.replace(b"Mon", b"M\x7f"), (), True), False),
    "a length and no body": (Case("plain", (NOTHING,), NOTHING, (), False), True),
}


def agree(case: Case) -> None:
    fast, slow = both(case)
    assert fast == slow, case


@pytest.mark.parametrize("name", ONCE)
def test_what_once_differed(name: str) -> None:
    case, good = ONCE[name]
    fast, slow = both(case)
    assert fast == slow
    assert (slow.failure == "") == good


@settings(max_examples=800, deadline=None)
@given(
    check=st.sampled_from(list(GOOD)),
    data=st.data(),
    number=st.integers(0, 6),
    cuts=st.lists(st.integers(1, 600), max_size=5),
    closes=st.booleans(),
)
def test_changed_answers(
    check: str, data: st.DataObject, number: int, cuts: list[int], closes: bool
) -> None:
    good = GOOD[check]
    taught = tuple(data.draw(st.lists(st.sampled_from(good), min_size=1, max_size=3)))
    found = data.draw(st.sampled_from([*taught, *good, *OTHER]))
    draw = data.draw(st.randoms(use_true_random=False))
    for _ in range(number):
        found = change(found, draw, OTHER)
    agree(Case(check, taught, found, tuple(cuts), closes))


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(
        st.sampled_from(
            [*"0123456789-+.eE,[] \n", "1e5", "1e400", "-0", "null", '"1"', "NaN", ", "]
        ),
        max_size=14,
    ),
    check=st.sampled_from(["one", "pair"]),
    cut=st.integers(1, 300),
)
def test_what_stands_where_numbers_should(values: list[str], check: str, cut: int) -> None:
    text, taught = "".join(values).encode(), PAIR if check == "pair" else ONE
    content = body() if check == "pair" else single([0.25])
    numbers = b"0.5, -1.25, 3, 0.004, 5, 6" if check == "pair" else b"0.25"
    agree(Case(check, (taught,), answer(content.replace(numbers, text)), (cut,), True))


@settings(max_examples=200, deadline=None)
@given(
    value=st.binary(max_size=8) | st.text("0123456789 \t,;:-+x\0\x7f\xff", max_size=16).map(
        lambda text: text.encode("latin-1")
    ),
    name=st.sampled_from([b"Content-Length", b"Date", b"Connection", b"Content-Type"]),
    cut=st.integers(1, 300),
)  # fmt: skip
def test_what_stands_in_a_header(value: bytes, name: bytes, cut: int) -> None:
    lines = answer(single([0.25]), DATED + b"Connection: keep-alive\r\n")
    before, _, after = lines.partition(b"\r\n" + name + b": ")
    changed = b"%b\r\n%b: %b\r\n%b" % (before, name, value, after.partition(b"\r\n")[2])
    agree(Case("one", (lines,), changed, (cut,), True))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(GOOD)), st.data())
def test_many_answers_on_one_connection_and_bytes_of_any_kind(
    check: str, data: st.DataObject
) -> None:
    parts = st.sampled_from([*GOOD[check], *OTHER, chunked(body())]) | st.binary(max_size=30)
    found = b"".join(data.draw(st.lists(parts, min_size=1, max_size=3)))
    cuts = data.draw(st.lists(st.integers(1, max(1, len(found))), max_size=4))
    agree(Case(check, tuple(GOOD[check][:2]), found, tuple(cuts), data.draw(st.booleans())))


def test_the_cases_of_the_byte_fuzzer_reach_every_outcome() -> None:
    """Else it would look for differences where there can be none."""
    draw, seen, fast_ones = Random(7), set(), 0
    for _ in range(3000):
        case = made(draw)
        fast, slow = both(case)
        assert fast == slow, case
        seen.add(slow.failure)
        fast_ones += fast.failure == ""
    assert {"", None, "bad_answer", "closed", "http_503", "http_302"} <= seen
    assert fast_ones > 300
    assert set(CHECKS) == set(GOOD)
