"""Made-up inputs whose dimensions and values are drawn, and pools of distinct ones."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.plan import RequestPlan
from loadbench.targets.inputs import prepare
from loadbench.targets.pool import DRAWN
from tests.test_inputs import decoded, endpoint

IDS, MASK = Tensor("ids", "INT64", (-1,)), Tensor("attention_mask", "INT64", (-1,))
SIDES = Tensor("image", "FP32", (3, -1, -1))
LENGTHS = "lognormal(64, 0.6) clipped 1..512"


def drawn(*tensors: Tensor, seed: int = 1, **asked: Any) -> tuple[list[dict[str, Any]], list[Note]]:
    pools, notes = prepare(endpoint(*tensors), [RequestPlan("r", **asked)], seed=seed)
    return [decoded(found) for found in pools[0]], notes


@settings(max_examples=20, deadline=None)
@given(low=st.integers(1, 40), more=st.integers(0, 40), seed=st.integers(0, 2**32), rows=st.just(2))
def test_inputs_with_the_same_dimension_have_it_equal_and_within_its_limits(
    low: int, more: int, seed: int, rows: int
) -> None:
    asked = {
        "rows": rows,
        "pool": 12,
        "dims": {"n": f"normal(20, 30) clipped {low}..{low + more}"},
        "shapes": {"ids": ("n",), "attention_mask": ("n",)},
        "values": {"ids": "uniform(5, 30000)"},
    }
    found, _ = drawn(IDS, MASK, seed=seed, **asked)
    for body in found:
        assert body["ids"].shape == body["attention_mask"].shape
        assert body["ids"].shape[0] == rows
        assert low <= body["ids"].shape[1] <= low + more
        assert 5 <= body["ids"].min() <= body["ids"].max() <= 30000
        assert (body["attention_mask"] == 1).all()
    again, _ = drawn(IDS, MASK, seed=seed, **asked)
    assert [body["ids"].tolist() for body in found] == [body["ids"].tolist() for body in again]


def test_lengths_are_drawn_as_asked_and_told() -> None:
    found, notes = drawn(IDS, shapes={"ids": (LENGTHS,)})
    lengths = [body["ids"].shape[1] for body in found]
    assert len(lengths) == DRAWN
    assert np.median(lengths) == pytest.approx(64, rel=0.15)
    (note,) = notes
    assert note.code == "drawn-shape"
    assert f"{np.mean(lengths):.4g} on average, {min(lengths)} … {max(lengths)} in 256" in note.text


def test_a_mask_is_as_long_as_its_tokens_where_nothing_else_is_said() -> None:
    found, notes = drawn(IDS, MASK, SIDES, shapes={"ids": (LENGTHS,)}, pool=20)
    assert all(body["ids"].shape == body["attention_mask"].shape for body in found)
    assert [note.code for note in notes] == ["drawn-shape", "assumed-shape", "assumed-shape"]


def test_one_dimension_can_stand_twice_and_beside_a_fixed_one() -> None:
    found, _ = drawn(SIDES, dims={"side": "choice(8, 16)"}, shapes={"image": (3, "side", "side")})
    shapes = {body["image"].shape for body in found}
    assert shapes == {(1, 3, 8, 8), (1, 3, 16, 16)}


def test_answers_to_other_shapes_are_learned_apart() -> None:
    asked = RequestPlan("r", shapes={"ids": ("choice(8, 16, 32)",)})
    pools, _ = prepare(endpoint(IDS), [asked], seed=1)
    by_shape = {decoded(found)["ids"].shape: set[object]() for found in pools[0]}
    for found in pools[0]:
        by_shape[decoded(found)["ids"].shape].add(found.check)
    assert len(by_shape) == 3
    assert all(len(checks) == 1 for checks in by_shape.values())
    assert len(set.union(*by_shape.values())) == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**32), st.sampled_from(["UINT8", "INT64", "BOOL"]))
def test_bodies_of_a_pool_are_distinct(pool: int, seed: int, datatype: str) -> None:
    values = {"x": "uniform(0, 1000000)"} if datatype == "INT64" else {}
    asked = RequestPlan("r", pool=pool, shapes={"x": ("uniform(1, 3)",)}, values=values)
    pools, notes = prepare(endpoint(Tensor("x", datatype, (-1,))), [asked], seed=seed)
    bodies = [found.data for found in pools[0]]
    assert len(set(bodies)) == len(bodies)
    few = [note for note in notes if note.code == "pool-cut"]
    assert bool(few) == (len(bodies) < pool)
    if datatype == "INT64":
        assert len(bodies) == pool
    if datatype == "BOOL":
        assert len(bodies) <= 14


def test_a_pool_is_as_large_as_asked_unless_memory_forbids() -> None:
    found, notes = drawn(Tensor("x", "FP32", (4,)), pool=1000)
    assert (len(found), notes) == (1000, [])
    found, notes = drawn(Tensor("x", "FP32", (1_000_000,)), pool=1000)
    assert len(found) == 16
    assert "only the first 16 bodies are sent: 64 MiB" in notes[0].text


@pytest.mark.parametrize("datatype", ["FP32", "FP16", "BF16", "INT8", "BOOL"])
def test_values_are_drawn_in_the_type(datatype: str) -> None:
    found, _ = drawn(Tensor("x", datatype, (50,)), values={"x": "choice(0: 1, 1: 3)"}, pool=5)
    values = np.concatenate([body["x"].ravel() for body in found]).astype(float)
    assert (values != 0).mean() == pytest.approx(0.75, abs=0.1)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"shapes": {"image": (3, "uniform(1, 2)", -1)}}, "[3, uniform(1, 2), -1] does not fit"),
        ({"shapes": {"image": ("uniform(1, 4)", 8, 8)}}, "does not fit input 'image'"),
        ({"dims": {"n": "4"}}, "no shape has the dimension 'n'"),
        ({"values": {"imag": "4"}}, "no input 'imag'"),
        ({"shapes": {"image": (3, "lognormal(1e5, 0)", "1e5")}}, "256 MiB at most"),
        ({"body": "{}"}, "body is only of plain HTTP"),
        ({"path": "/x"}, "path is only of plain HTTP"),
        ({"data": "x.npy", "dims": {"n": "4"}}, "dims is of made-up inputs"),
        ({"headers": {"X": "${x}"}}, "header 'X' is filled from nothing"),
    ],
)
def test_what_does_not_fit_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        drawn(SIDES, **asked)
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("datatype", "text", "words"),
    [
        ("UINT8", "uniform(0, 300)", "add: clipped 0..255"),
        ("BOOL", "uniform(0, 2)", "add: clipped 0..1"),
        ("INT64", "normal(0, 1)", ""),
        ("BYTES", "4", "numbers are no BYTES"),
    ],
)
def test_values_that_a_type_cannot_hold_are_refused(datatype: str, text: str, words: str) -> None:
    tensor = Tensor("x", datatype, (100,))
    if not words:
        assert drawn(tensor, values={"x": text})[0][0]["x"].min() < 0
        return
    with pytest.raises(SpecError) as caught:
        drawn(tensor, values={"x": text})
    assert words in f"{caught.value.message} {caught.value.hint}"
