"""Inputs: made from metadata or read from files, encoded once, refused by name when they do not
fit."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from loadbench.errors import SpecError
from loadbench.model import Tensor
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets.datatypes import DTYPES, bf16, floats
from loadbench.targets.inputs import prepare
from loadbench.targets.pool import POOL
from loadbench.targets.wire import Prepared


def endpoint(*tensors: Tensor, binary: bool = True, batched: bool = True) -> Endpoint:
    return Endpoint(
        host="host", port=80, protocol="kserve", model="a/b", version="2", inputs=tensors,
        outputs=(), batched=batched, binary=binary,
    )  # fmt: skip


def decoded(prepared: Prepared) -> dict[str, Any]:
    """The arrays of a request, read independently of what wrote it."""
    head, _, body = prepared.data.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert int(fields[b"Content-Length"]) == len(body)
    size = int(fields.get(b"Inference-Header-Content-Length", len(body)))
    asked, tail = json.loads(body[:size]), body[size:]
    found = {}
    for tensor in asked["inputs"]:
        if "data" in tensor:
            values: Any = np.array(tensor["data"])
        else:
            count = tensor["parameters"]["binary_data_size"]
            raw, tail = tail[:count], tail[count:]
            if tensor["datatype"] == "BYTES":
                found[tensor["name"]] = raw
                continue
            values = np.frombuffer(raw, DTYPES[tensor["datatype"]])
        found[tensor["name"]] = values.reshape(tensor["shape"])
    assert not tail
    return found


def one(where: Endpoint, **asked: Any) -> dict[str, Any]:
    pools, _ = prepare(where, [RequestPlan("r", **asked)], seed=1)
    return decoded(pools[0][0])


def huge() -> bytes:
    """The head of a .npy file that says it holds 4 EB."""
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }" % 10**18
    return b"\x93NUMPY\1\0" + (len(head) + 1).to_bytes(2, "little") + head + b"\n"


ALL = [Tensor(f"t{name}", name, (3, 2)) for name in DTYPES]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("tensor", ALL, ids=lambda tensor: tensor.datatype)
def test_every_datatype_is_drawn_in_a_sane_range(tensor: Tensor, binary: bool) -> None:
    found = one(endpoint(tensor, binary=binary), rows=4)[tensor.name]
    if tensor.datatype == "BYTES":
        assert b"word" in bytes(found) if binary else str(found[0, 0, 0]).startswith("word")
        return
    assert found.shape == (4, 3, 2)
    if tensor.datatype == "BF16" and binary:
        found = floats(found)
    assert abs(found.astype(float)).max() < 1000
    assert len(np.unique(found)) > 1


def test_a_mask_of_integers_hides_nothing() -> None:
    found = one(endpoint(Tensor("attention_mask", "INT64", (7,))), rows=2)
    np.testing.assert_array_equal(found["attention_mask"], np.ones((2, 7)))


def test_the_same_seed_gives_the_same_bytes_and_a_pool_of_distinct_ones() -> None:
    where = endpoint(Tensor("x", "FP32", (8,)))
    requests = [RequestPlan("a"), RequestPlan("b", rows=2)]
    first, _ = prepare(where, requests, seed=1)
    again, _ = prepare(where, requests, seed=1)
    other, _ = prepare(where, requests, seed=2)
    bodies = [[found.data for found in pool] for pool in first]
    assert bodies == [[found.data for found in pool] for pool in again]
    assert bodies != [[found.data for found in pool] for pool in other]
    assert [len(set(pool)) for pool in bodies] == [POOL, POOL]


def test_a_pool_of_large_requests_is_bounded() -> None:
    pools, _ = prepare(endpoint(Tensor("x", "FP32", (2_000_000,))), [RequestPlan("a")], seed=1)
    assert sum(len(found.data) for found in pools[0]) <= 64 << 20


def test_open_dimensions_are_taken_from_the_request_or_made_up_and_said() -> None:
    image, text = Tensor("image", "FP32", (3, -1, -1)), Tensor("ids", "INT64", (-1,))
    where = endpoint(image, text)
    pools, notes = prepare(where, [RequestPlan("r", shapes={"ids": (7,)})], seed=1)
    found = decoded(pools[0][0])
    assert found["image"].shape == (1, 3, 64, 64)
    assert found["ids"].shape == (1, 7)
    assert [note.code for note in notes] == ["assumed-shape"]
    assert "image" in notes[0].text


@pytest.mark.parametrize(
    ("shape", "filled"),
    [
        ((-1, -1, -1), (3, 64, 64)),
        ((-1, 224, 3), (64, 224, 3)),
        ((-1, 32, 32), (3, 32, 32)),
        ((-1, 128), (32, 128)),
        ((), ()),
    ],
)
def test_what_is_made_up(shape: tuple[int, ...], filled: tuple[int, ...]) -> None:
    assert one(endpoint(Tensor("x", "FP32", shape)))["x"].shape == (1, *filled)


def test_an_unbatched_model_gets_its_whole_shape() -> None:
    assert one(endpoint(Tensor("x", "FP32", (1, 5)), batched=False))["x"].shape == (1, 5)


def test_the_request_goes_where_it_should() -> None:
    pools, _ = prepare(
        endpoint(Tensor("x", "FP32", (1,))), [RequestPlan("r", headers={"X-Key": "secret"})], seed=1
    )
    head = pools[0][0].data.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"POST /v2/models/a%2Fb/versions/2/infer HTTP/1.1"
    assert b"Host: host:80" in head
    assert b"X-Key: secret" in head


def test_plain_http() -> None:
    where = Endpoint(host="::1", port=8, protocol="http", path="/p?q=1", method="POST")
    pools, _ = prepare(where, [RequestPlan("r", body="häh")], seed=1)
    assert pools[0][0].data == (
        "POST /p?q=1 HTTP/1.1\r\nHost: [::1]:8\r\nContent-Length: 4\r\n\r\nhäh".encode()
    )
    got, _ = prepare(Endpoint(host="h", port=8, protocol="http"), [RequestPlan("r")], seed=1)
    assert got[0][0].data == b"GET / HTTP/1.1\r\nHost: h:8\r\n\r\n"


def test_npy_rows_are_dealt_out(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.save(path, rows)
    where = endpoint(Tensor("x", "FP32", (2,)))
    pools, _ = prepare(where, [RequestPlan("r", data=str(path), rows=3)], seed=1)
    parts = [decoded(found)["x"] for found in pools[0]]
    np.testing.assert_array_equal(parts, [rows[:3], rows[3:]])
    pools, _ = prepare(where, [RequestPlan("r", data=str(path), rows=4)], seed=1)
    parts = [decoded(found)["x"] for found in pools[0]]
    np.testing.assert_array_equal(parts, [rows[:4], rows[[4, 5, 0, 1]]])
    np.testing.assert_array_equal(one(where, data=str(path), rows=8)["x"], rows[[*range(6), 0, 1]])


def test_npz_and_json_give_arrays_by_name(tmp_path: Path) -> None:
    where = endpoint(Tensor("x", "FP32", (2,)), Tensor("n", "INT32", ()))
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2)), n=np.array([1, 2, 3]))
    (tmp_path / "a.json").write_text('{"x": [[1, 1], [1, 1], [1, 1]], "n": [1, 2, 3]}')
    for name in ("a.npz", "a.json"):
        pools, _ = prepare(where, [RequestPlan("r", data=str(tmp_path / name))], seed=1)
        assert [int(decoded(found)["n"][0]) for found in pools[0]] == [1, 2, 3]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_rows_may_differ_in_shape(tmp_path: Path, name: str) -> None:
    where = endpoint(Tensor("ids", "INT64", (-1,)), Tensor("n", "FP32", ()))
    ids = [[1, 2, 3], [4], [5, 6, 7]]
    lines = [json.dumps({"ids": row, "n": len(row)}) for row in ids]
    whole = json.dumps({"ids": ids, "n": [3, 1, 3]})
    (tmp_path / name).write_text(whole if name == "a.json" else "\n".join(lines))
    asked = RequestPlan("r", data=str(tmp_path / name))
    pools, _ = prepare(where, [asked], seed=1)
    assert [decoded(found)["ids"].tolist() for found in pools[0]] == [[row] for row in ids]
    checks = [found.check for found in pools[0]]
    assert checks[0] is checks[2] is not checks[1]
    with pytest.raises(SpecError, match="different shapes cannot share a request"):
        prepare(where, [RequestPlan("r", data=str(tmp_path / name), rows=2)], seed=1)


def test_a_text_in_each_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("häh\n\nb\n")
    for shape in ((), (1,)):
        asked = RequestPlan("r", data=str(tmp_path / "a.txt"))
        pools, _ = prepare(endpoint(Tensor("t", "BYTES", shape)), [asked], seed=1)
        found = [decoded(prepared)["t"] for prepared in pools[0]]
        assert found == [b"\4\0\0\0h\xc3\xa4h", b"\1\0\0\0b"]


def test_a_folder_of_many_images_is_cut_and_that_is_said(tmp_path: Path) -> None:
    for number in range(300):
        Image.new("L", (1, 1), number % 256).save(tmp_path / f"{number:03}.png")
    where = endpoint(Tensor("i", "UINT8", (1, 2, 2)))
    pools, notes = prepare(where, [RequestPlan("r", data=str(tmp_path))], seed=1)
    assert len(pools[0]) == 256
    assert "44 images are left out" in notes[0].text
    pools, notes = prepare(where, [RequestPlan("r", data=str(tmp_path), pool=290)], seed=1)
    assert (len(pools[0]), notes) == (290, [])


def test_a_kserve_request_as_a_file_says_its_own_types(tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    asked = {"inputs": [{"name": "t", "datatype": "BYTES", "shape": [2], "data": ["a", "bc"]}]}
    path.write_text(json.dumps(asked))
    where = endpoint(Tensor("t", "BYTES", ()))
    pools, _ = prepare(where, [RequestPlan("r", data=str(path))], seed=1)
    assert [decoded(found)["t"] for found in pools[0]] == [b"\1\0\0\0a", b"\2\0\0\0bc"]
    unknown = endpoint()  # a server that does not tell its inputs
    assert decoded(prepare(unknown, [RequestPlan("r", data=str(path))], 1)[0][0][0]) == {
        "t": b"\1\0\0\0a\2\0\0\0bc"
    }


@pytest.mark.parametrize(
    ("tensor", "shape", "top"),
    [
        (Tensor("i", "FP32", (3, 8, 6)), (3, 8, 6), 1.0),
        (Tensor("i", "UINT8", (8, 6, 3)), (8, 6, 3), 255),
        (Tensor("i", "FP32", (1, 8, 6)), (1, 8, 6), 1.0),
        (Tensor("i", "FP32", (3, -1, -1)), (3, 64, 64), 1.0),
        (Tensor("i", "UINT8", (8, 6)), (8, 6), 255),
        (Tensor("i", "UINT8", (-1, -1)), (64, 64), 255),
    ],
)
def test_a_folder_of_images_is_resized_to_the_input(
    tmp_path: Path, tensor: Tensor, shape: tuple[int, ...], top: float
) -> None:
    Image.new("RGB", (40, 30), (255, 255, 255)).save(tmp_path / "white.png")
    Image.new("L", (10, 10), 0).save(tmp_path / "black.jpg")
    (tmp_path / "notes.txt").write_text("not an image")
    pools, _ = prepare(endpoint(tensor), [RequestPlan("r", data=str(tmp_path))], seed=1)
    black, white = (decoded(found)["i"] for found in pools[0])
    assert black.shape == white.shape == (1, *shape)
    assert black.max() == 0
    assert white.min() == top


def test_images_take_the_size_that_is_asked_for_and_one_made_up_is_said(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    where = endpoint(Tensor("i", "FP32", (3, -1, -1)))
    asked = RequestPlan("r", data=str(tmp_path), shapes={"i": (3, 24, 20)})
    pools, notes = prepare(where, [asked], seed=1)
    assert (decoded(pools[0][0])["i"].shape, notes) == ((1, 3, 24, 20), [])
    _, notes = prepare(where, [RequestPlan("r", data=str(tmp_path))], seed=1)
    assert [note.code for note in notes] == ["assumed-shape"]
    assert "3×64×64 taken" in notes[0].text
    for shapes, words in (
        ({"i": (1, 24, 20)}, "does not fit"),
        ({"i": (3, "uniform(1, 9)", 20)}, "is not drawn"),
        ({"x": (3, 24, 20)}, "no input 'x'"),
    ):
        with pytest.raises(SpecError, match=words):
            one(where, data=str(tmp_path), shapes=shapes)


def test_channels_lie_where_the_shape_says(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    first = one(endpoint(Tensor("i", "FP32", (3, 4, 4))), data=str(tmp_path))["i"][0]
    last = one(endpoint(Tensor("i", "FP32", (4, 4, 3))), data=str(tmp_path))["i"][0]
    assert (first[0] == 1).all()
    assert (first[1:] == 0).all()
    assert (last[..., 0] == 1).all()
    assert (last[..., 1:] == 0).all()


def test_single_values_are_sent_without_an_axis(tmp_path: Path) -> None:
    where = endpoint(Tensor("n", "FP32", ()), Tensor("s", "BYTES", ()), batched=False)
    (tmp_path / "a.json").write_text('{"n": [1, 2], "s": ["a", "bc"]}')
    pools, _ = prepare(where, [RequestPlan("r", data=str(tmp_path / "a.json"))], seed=1)
    found = [decoded(prepared) for prepared in pools[0]]
    assert [(item["n"].shape, float(item["n"])) for item in found] == [((), 1.0), ((), 2.0)]
    assert [item["s"] for item in found] == [b"\1\0\0\0a", b"\2\0\0\0bc"]


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "BF16"])
def test_json_cannot_carry_what_is_no_number(tmp_path: Path, datatype: str) -> None:
    np.save(tmp_path / "a.npy", np.array([1.0, np.inf]))
    where = endpoint(Tensor("i", datatype, (2,)), binary=False)
    with pytest.raises(SpecError, match="NaN or infinity"):
        one(where, data=str(tmp_path / "a.npy"))


@pytest.mark.parametrize(
    ("datatype", "number", "good"),
    [("FP16", 1e6, 65504.0), ("FP32", 1e300, 3.4e38), ("BF16", 3.4e38, 3.38e38)],
)
def test_a_number_is_not_made_infinite(
    tmp_path: Path, datatype: str, number: float, good: float
) -> None:
    path, where = tmp_path / "a.npy", endpoint(Tensor("i", datatype, (2,)))
    np.save(path, np.array([1.0, number]))
    told = re.escape(f"'i': {number:g} is beyond what {datatype} holds")
    with pytest.raises(SpecError, match=told):
        one(where, data=str(path))
    np.save(path, np.array([good, np.inf]))
    one(where, data=str(path))


def test_nor_is_one_that_was_drawn() -> None:
    with pytest.raises(SpecError, match="values of 'i': -70000 is beyond what FP16 holds"):
        one(endpoint(Tensor("i", "FP16", (2,))), values={"i": "-70000"})


def test_bfloat16_is_rounded_to_the_nearest() -> None:
    values = np.array([1.0, -2.5, 1.00390625, 3.14159265, 1e-30], np.float32)
    back = floats(bf16(values))
    assert (np.abs(back - values) <= np.abs(values) / 256).all()
    assert back[2] == 1.0  # a tie goes to the even


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("absent.npy", None, "no such file"),
        ("a.csv", lambda path: path.write_text("1,2"), "cannot be read from .csv"),
        ("cut.npy", lambda path: path.write_bytes(b"\x93NUMPY\x01"), "not readable"),
        ("huge.npy", lambda path: path.write_bytes(huge()), "not readable"),
        ("cut.npz", lambda path: path.write_bytes(b"PK\x03\x04"), "not readable"),
        ("bad.json", lambda path: path.write_text("{"), "not readable"),
        ("shape.npy", lambda path: np.save(path, np.ones((2, 5))), "[2, 5]"),
        ("empty.npy", lambda path: np.save(path, np.ones((0, 2))), "no rows"),
        ("type.npy", lambda path: np.save(path, np.array(["a", "b"])), "wants FP32"),
        ("pickle.npy", lambda path: np.save(path, np.array([{}]), allow_pickle=True), "pickle"),
        ("name.npz", lambda path: np.savez(path, z=np.ones(2)), "no input 'z'"),
        ("few.json", lambda path: path.write_text("{}"), "neither"),
        ("a.jsonl", lambda path: path.write_text('{"x": [1, 2]}\n{"y": 1}'), "line 2: y after x"),
        ("b.jsonl", lambda path: path.write_text('{"x": [1, 2]}\n{"x": [1]}'), "[1, 1]"),
        ("c.jsonl", lambda path: path.write_text('{"x": [[1], [2, 3]]}'), "not readable"),
        ("d.jsonl", lambda path: path.write_text(""), "no data"),
        ("folder", lambda path: path.mkdir(), "no images"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path: Path, name: str, make: Any, words: str) -> None:
    path = tmp_path / name
    if make:
        make(path)
    with pytest.raises(SpecError) as caught:
        one(endpoint(Tensor("x", "FP32", (2,))), data=str(path))
    assert str(path) in caught.value.message
    assert words in caught.value.message


def test_values_that_the_type_cannot_hold_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1.5, 300]]))
    for datatype in ("INT64", "UINT8", "BOOL"):
        with pytest.raises(SpecError, match=datatype):
            one(endpoint(Tensor("x", datatype, (2,))), data=str(tmp_path / "x.npy"))


def test_inputs_that_differ_in_rows_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2)), n=np.arange(2))
    with pytest.raises(SpecError, match="x 3, n 2"):
        one(endpoint(Tensor("x", "FP32", (2,)), Tensor("n", "INT64", ())),
            data=str(tmp_path / "a.npz"))  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"shapes": {"z": (2,)}}, "no input 'z'"),
        ({"shapes": {"x": (3,)}}, "[3]"),
        ({"shapes": {"x": (2, 2)}}, "[2, 2]"),
        ({"headers": {"a": "b\r\nc: d"}}, "header 'a'"),
        ({"headers": {"Content-Length": "5"}}, "'Content-Length'"),
    ],
)
def test_requests_that_do_not_fit_are_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        one(endpoint(Tensor("x", "FP32", (2,))), **asked)
    assert words in caught.value.message


def test_rows_of_a_model_without_a_batch_axis_are_refused() -> None:
    with pytest.raises(SpecError, match="no batch axis"):
        one(endpoint(Tensor("x", "FP32", (2,)), batched=False), rows=2)
