"""Expected outputs: what is right, what is said of what is not, and how many are compared."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.errors import SpecError
from loadbench.load.deck import deal
from loadbench.model import Tensor
from loadbench.plan import Endpoint, RequestPlan
from loadbench.shape import Phase
from loadbench.targets.datatypes import DTYPES, bf16
from loadbench.targets.expected import COMPARED
from loadbench.targets.inputs import prepare
from loadbench.targets.wire import BadAnswer, Prepared, WrongOutput
from loadbench.units import SECOND
from tests.lanes import drive, plan
from tests.served import serving
from tests.served import settings as engine_settings


def endpoint(*outputs: Tensor, batched: bool = True) -> Endpoint:
    return Endpoint(
        host="h", port=1, protocol="kserve", model="m", inputs=(Tensor("x", "FP32", (2,)),),
        outputs=outputs, batched=batched,
    )  # fmt: skip


def made(tmp_path: Path, outputs: dict[str, Any], *tensors: Tensor, **asked: Any) -> list[Prepared]:
    """The pool of a request with these expected outputs, three rows."""
    np.save(tmp_path / "x.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    np.savez(tmp_path / "y.npz", **outputs)
    asked = {"data": str(tmp_path / "x.npy"), "expect": str(tmp_path / "y.npz"), **asked}
    pools, _ = prepare(endpoint(*tensors), [RequestPlan("r", **asked)], seed=1)
    return pools[0]


def answer(binary: bool = True, **outputs: Any) -> tuple[dict[bytes, bytes], bytes]:
    """(headers, body) of a server that says this."""
    entries, tail = [], b""
    for name, (datatype, array) in outputs.items():
        entry = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if not binary:
            entries.append(entry | {"data": array.ravel().tolist()})
            continue
        if datatype == "BYTES":
            raw = b"".join(len(item).to_bytes(4, "little") + item for item in array.ravel())
        else:
            raw = array.astype(DTYPES[datatype]).tobytes()
        entries.append(entry | {"parameters": {"binary_data_size": len(raw)}})
        tail += raw
    head = json.dumps({"outputs": entries}).encode()
    return {b"inference-header-content-length": str(len(head)).encode()}, head + tail


def verdict(prepared: Prepared, *given: Any) -> str:
    """What the comparison says, "" if all is as expected."""
    assert prepared.strict is not None
    try:
        assert prepared.strict(*given) is None  # nothing to be learned
    except WrongOutput as error:
        return str(error)
    return ""


Y = Tensor("y", "FP32", (2,))
EXPECTED = np.array([[1.0, -2.0], [0.5, 0.25], [3.0, 4.0]])


@pytest.mark.parametrize("binary", [True, False])
def test_an_answer_is_compared_with_its_own_rows(tmp_path: Path, binary: bool) -> None:
    first, second, third = made(tmp_path, {"y": EXPECTED}, Y)
    assert verdict(first, *answer(binary, y=("FP32", EXPECTED[:1]))) == ""
    assert verdict(third, *answer(binary, y=("FP32", EXPECTED[2:]))) == ""
    said = verdict(second, *answer(binary, y=("FP32", EXPECTED[:1])))
    assert said == "y[0, 0] is 1 instead of 0.5, and 1 more of 2 compared"


def test_rows_of_a_request_are_counted_on(tmp_path: Path) -> None:
    pair, last = made(tmp_path, {"y": EXPECTED}, Y, rows=2)
    assert verdict(pair, *answer(y=("FP32", EXPECTED[:2]))) == ""
    off = EXPECTED[:2] + np.array([[0, 0], [0, 0.125]])
    assert verdict(pair, *answer(y=("FP32", off))) == "y[1, 1] is 0.375 instead of 0.25"
    assert verdict(last, *answer(y=("FP32", EXPECTED[[2, 0]]))) == ""


def test_the_ordinary_check_comes_first(tmp_path: Path) -> None:
    first = made(tmp_path, {"y": EXPECTED}, Y)[0]
    assert first.strict is not None
    with pytest.raises(BadAnswer) as caught:
        first.strict(*answer(y=("FP64", EXPECTED[:1])))
    assert not isinstance(caught.value, WrongOutput)


@settings(max_examples=50, deadline=None)
@given(
    st.floats(0, 1e6).map(lambda value: round(value, 3)),
    st.floats(-3, 3),
    st.sampled_from([1e-2, 1e-3, 1e-5]),
)
def test_the_tolerance_is_of_the_value_and_of_the_usual_size(
    tmp_path_factory: pytest.TempPathFactory, value: float, times: float, tolerance: float
) -> None:
    tensor = Tensor("y", "FP64", (1,))
    rows = np.array([[value], [value], [value]])
    first = made(tmp_path_factory.mktemp("e"), {"y": rows}, tensor, tolerance=tolerance)[0]
    allowed = tolerance * 2 * abs(value) or tolerance
    off = rows[:1] + times * allowed
    said = verdict(first, *answer(y=("FP64", off)))
    if abs(abs(times) - 1) > 1e-3:
        assert bool(said) == (abs(times) > 1)


@pytest.mark.parametrize(
    ("datatype", "good", "bad"),
    [
        ("FP32", 1e-3, 3e-3),
        ("FP16", 1e-2, 3e-2),
        ("BF16", 3e-2, 1e-1),
        ("FP64", 1e-3, 3e-3),
    ],
)
def test_the_usual_tolerance_is_that_of_the_type(
    tmp_path: Path, datatype: str, good: float, bad: float
) -> None:
    def sent(array: Any) -> Any:
        return bf16(array) if datatype == "BF16" else array

    tensor = Tensor("y", datatype, (4,))
    rows = np.ones((3, 4))
    first = made(tmp_path, {"y": rows}, tensor)[0]
    assert verdict(first, *answer(y=(datatype, sent(rows[:1] + good)))) == ""
    assert "y[0, 0]" in verdict(first, *answer(y=(datatype, sent(rows[:1] + bad))))


@pytest.mark.parametrize(
    ("datatype", "want", "got", "said"),
    [
        ("INT64", [[1, 2]], [[1, 3]], "y[0, 1] is 3 instead of 2"),
        ("INT64", [[2**62, 2]], [[2**62 + 1, 2]], "y[0, 0]"),
        ("BOOL", [[True, False]], [[True, True]], "y[0, 1] is True instead of False"),
        ("BYTES", [["cat", "dog"]], [[b"cat", b"cow"]], "y[0, 1] is b'cow' instead of b'dog'"),
        ("FP32", [[np.nan, np.inf]], [[np.nan, np.inf]], ""),
        ("FP32", [[0.0, 1.0]], [[np.nan, 1.0]], "y[0, 0] is nan instead of 0"),
        ("FP32", [[0.0, np.inf]], [[0.0, 1e30]], "y[0, 1] is 1e+30 instead of inf"),
        ("FP32", [[0.0, 0.0]], [[0.0, 0.0]], ""),
    ],
)
def test_every_type_is_compared(
    tmp_path: Path, datatype: str, want: Any, got: Any, said: str
) -> None:
    rows = np.array(want * 3)
    first = made(tmp_path, {"y": rows}, Tensor("y", datatype, (2,)))[0]
    sent = np.array(got, object if datatype == "BYTES" else None)
    found = verdict(first, *answer(y=(datatype, sent)))
    assert found.startswith(said) if said else not found


def test_large_outputs_are_compared_in_part_and_their_shape_whole(tmp_path: Path) -> None:
    wide = 10 * COMPARED
    rows = np.zeros((3, wide), np.float32)
    first = made(tmp_path, {"y": rows}, Tensor("y", "FP32", (-1,)))[0]
    assert verdict(first, *answer(y=("FP32", rows[:1]))) == ""
    said = verdict(first, *answer(y=("FP32", rows[:1] + 1)))
    assert said.endswith(f"{COMPARED - 1:,} more of {COMPARED:,} compared")
    short = verdict(first, *answer(y=("FP32", rows[:1, :-1])))
    assert short == f"y has shape [1, {wide - 1}] instead of [1, {wide}]"


def test_outputs_may_lie_beside_the_inputs_and_some_be_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=np.ones((3, 2), np.float32), y=EXPECTED)
    both = endpoint(Y, Tensor("n", "INT64", ()))
    asked = RequestPlan("r", data=str(tmp_path / "all.npz"), check=1.0)
    first = prepare(both, [asked], seed=1)[0][0][0]
    n = ("INT64", np.array([5]))
    assert verdict(first, *answer(y=("FP32", EXPECTED[:1]), n=n)) == ""
    assert verdict(first, *answer(y=("FP32", EXPECTED[1:2]), n=n)).startswith("y[0, 0]")


def test_rows_of_different_shapes_are_each_compared_with_their_own(tmp_path: Path) -> None:
    rows = [{"x": [0, 1], "y": [0.5, 1.5, -1]}, {"x": [0, 1], "y": [7]}]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    asked = RequestPlan("r", data=str(tmp_path / "a.jsonl"), check=0.05)
    pools, notes = prepare(endpoint(Tensor("y", "FP32", (-1,))), [asked], seed=1)
    assert verdict(pools[0][0], *answer(y=("FP32", np.array([[0.5, 1.5, -1]])))) == ""
    assert verdict(pools[0][1], *answer(y=("FP32", np.array([[7]])))) == ""
    said = verdict(pools[0][1], *answer(y=("FP32", np.array([[0.5, 1.5, -1]]))))
    assert said == "y has shape [1, 3] instead of [1, 1]"
    assert "5 % of the answers are compared with" in notes[0].text


def test_an_unbatched_model_has_an_answer_for_each_entry(tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", x=np.ones((3, 2), np.float32), y=EXPECTED)
    asked = RequestPlan("r", data=str(tmp_path / "all.npz"))
    pool = prepare(endpoint(Y, batched=False), [asked], seed=1)[0][0]
    assert verdict(pool[1], *answer(y=("FP32", EXPECTED[1]))) == ""
    assert verdict(pool[1], *answer(y=("FP32", EXPECTED[2]))) != ""


@pytest.mark.parametrize(
    ("outputs", "asked", "words"),
    [
        ({"z": EXPECTED}, {}, "the model has no output 'z'"),
        ({"y": EXPECTED[:2]}, {}, "2 rows of 'y' are expected"),
        ({"y": EXPECTED[:, :1]}, {}, "output 'y' has shape [3, 1] in the file"),
        ({"y": np.array([["a", "b"]] * 3)}, {}, "the model wants FP32"),
        ({"y": EXPECTED}, {"expect": "absent.npz"}, "absent.npz: no such file"),
        ({"y": EXPECTED}, {"expect": "", "check": 0.5}, "check needs expected outputs"),
    ],
)
def test_what_cannot_be_expected_is_named(
    tmp_path: Path, outputs: dict[str, Any], asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError) as caught:
        made(tmp_path, outputs, Y, **asked)
    assert words in caught.value.message


def test_the_share_is_dealt_and_each_of_the_pool_gets_its_turn() -> None:
    def careful(headers: Any, body: bytes) -> None: ...

    def plainly(headers: Any, body: bytes) -> None: ...

    def own(index: int) -> Prepared:
        return Prepared("a", b"%d" % index, plainly, lambda headers, body: careful(headers, body))

    pools = [[own(index) for index in range(200)], [Prepared("b", b"", plainly)]]
    requests = [RequestPlan("a", weight=1, check=0.05), RequestPlan("b", weight=3)]
    cards = deal(requests, pools, seed=1)
    dealt = [cards() for _ in range(200_000)]
    mine = [card for card in dealt if card[2].name == "a"]
    compared = [card for card in mine if card[2].check is not plainly]
    assert len(mine) / len(dealt) == pytest.approx(0.25, rel=0.02)
    assert len(compared) / len(mine) == pytest.approx(0.05, rel=0.05)
    assert {card[0] for card in mine} == {found.data for found in pools[0]}
    assert {card[0] for card in compared} == {found.data for found in pools[0]}
    again = deal(requests, pools, seed=1)
    assert [card[0] for card in dealt[:1000]] == [again()[0] for _ in range(1000)]


def test_mistakes_of_a_real_engine_are_found_in_their_share(tmp_path: Path) -> None:
    """20 % of the answers are false, half of all are compared: a tenth is found, by 2,000 requests
    to within 3.7 standard deviations (P < 0.0003)."""
    rows = np.random.default_rng(1).standard_normal((64, 16)).astype(np.float32)
    np.savez(tmp_path / "all.npz", x=rows, y=rows)
    asked = RequestPlan("infer", data=str(tmp_path / "all.npz"), check=0.5)
    with serving("fake", *engine_settings("fake.a=0ms", "fake.mistakes=20 %")) as engine:
        x, y = Tensor("x", "FP32", (16,)), Tensor("y", "FP32", (16,))
        where = Endpoint(
            "127.0.0.1", engine.port, "kserve", model="fake", inputs=(x,), outputs=(y,)
        )
        wanted = plan(
            engine.port, endpoint=where, requests=(asked,),
            phases=(Phase(1000, 1000, 2 * SECOND),), connections=8,
        )  # fmt: skip
        found = drive(wanted)
    found.check()
    assert set(found.failed) == {"wrong_output"}
    assert found.failed["wrong_output"] == pytest.approx(200, abs=50)
    assert found.sum("done") + found.failed["wrong_output"] == 2000
