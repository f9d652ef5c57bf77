"""Every datatype in both forms, through the protocol's reader and writer."""

import json
import struct
from typing import Any

import numpy as np
import pytest

from loadbench.engine.protocol import Contract, Reader
from loadbench.engine.tensors import Refused
from loadbench.engine.writer import Answer, Writer
from loadbench.model import Tensor
from tests.served import strings

PACKED = {
    "BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B",
    "UINT16": "H", "UINT32": "I", "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d", "BF16": "H",
}  # fmt: skip
VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, True, True],
    "FP16": [0.5, -2.0, 65504.0, 0.0],
    "BF16": [0x3F80, 0x4000, 0xBF80, 0],
    "FP32": [1.5, -2.0, 3.0e38, 0.0],
    "FP64": [1.5, -2.0, 1e300, 0.0],
    "INT8": [0, -128, 127, 7],
    "INT16": [0, -(1 << 15), (1 << 15) - 1, 7],
    "INT32": [0, -(1 << 31), (1 << 31) - 1, 7],
    "INT64": [0, -(1 << 63), (1 << 63) - 1, 7],
    "UINT8": [0, 1, 255, 7],
    "UINT16": [0, 1, (1 << 16) - 1, 7],
    "UINT32": [0, 1, (1 << 32) - 1, 7],
    "UINT64": [0, 1, (1 << 64) - 1, 7],
}


def signature(datatype: str, shape: tuple[int, ...] = (2,), batched: bool = True) -> Contract:
    x, y = Tensor("x", datatype, shape), Tensor("y", datatype, shape)
    return Contract("echo", "3", {"x": x}, {"y": y}, batched, 8 if batched else 0)


def raw_of(datatype: str, values: list[Any]) -> bytes:
    return struct.pack(f"<{len(values)}{PACKED[datatype]}", *values)


def echo(found: Contract, body: bytes, length: int | None) -> Answer:
    """What a model that gives its input back would be answered with."""
    call = Reader(found).read(body, length)
    return Writer(found).write(call.plan, {"y": call.arrays["x"]})


def request(datatype: str, shape: list[int], raw: bytes, **more: Any) -> tuple[bytes, int]:
    entry: dict[str, Any] = {"name": "x", "shape": shape, "datatype": datatype}
    entry["parameters"] = {"binary_data_size": len(raw)}
    header = json.dumps({"inputs": [entry], **more}).encode()
    return header + raw, len(header)


BINARY = {"parameters": {"binary_data_output": True}}


@pytest.mark.parametrize("datatype", sorted(VALUES))
def test_binary_in_binary_out(datatype: str) -> None:
    raw = raw_of(datatype, VALUES[datatype])
    answer = echo(signature(datatype), *request(datatype, [2, 2], raw, **BINARY))
    assert answer.binary
    assert answer.tensors == [raw]
    assert json.loads(answer.header) == {
        "model_name": "echo",
        "model_version": "3",
        "outputs": [
            {
                "name": "y",
                "datatype": datatype,
                "shape": [2, 2],
                "parameters": {"binary_data_size": len(raw)},
            }
        ],
    }


@pytest.mark.parametrize("datatype", sorted(VALUES.keys() - {"FP16", "BF16"}))
@pytest.mark.parametrize("nested", [False, True])
def test_json_in_json_out(datatype: str, nested: bool) -> None:
    values = VALUES[datatype]
    data = [values[:2], values[2:]] if nested else values
    entry = {"name": "x", "shape": [2, 2], "datatype": datatype, "data": data}
    answer = echo(signature(datatype), json.dumps({"inputs": [entry]}).encode(), None)
    assert not answer.binary
    output = json.loads(answer.header)["outputs"][0]
    assert output["data"] == pytest.approx(values)
    assert [type(value) for value in output["data"]] == [type(value) for value in values]


@pytest.mark.parametrize("datatype", sorted(VALUES.keys() - {"FP16", "BF16"}))
def test_json_in_binary_out_and_the_other_way(datatype: str) -> None:
    values = VALUES[datatype]
    entry = {"name": "x", "shape": [2, 2], "datatype": datatype, "data": values}
    outputs = [{"name": "y", "parameters": {"binary_data": True}}]
    body = json.dumps({"inputs": [entry], "outputs": outputs}).encode()
    assert echo(signature(datatype), body, None).tensors == [raw_of(datatype, values)]
    answer = echo(signature(datatype), *request(datatype, [2, 2], raw_of(datatype, values)))
    assert json.loads(answer.header)["outputs"][0]["data"] == pytest.approx(values)


def test_bytes_in_both_forms() -> None:
    found = signature("BYTES")
    words = [b"a", b"", "ä€".encode(), b"long " * 100]
    texts = [word.decode() for word in words]
    body, length = request("BYTES", [2, 2], strings(*words))
    assert json.loads(echo(found, body, length).header)["outputs"][0]["data"] == texts
    body, length = request("BYTES", [2, 2], strings(*words), **BINARY)
    assert echo(found, body, length).tensors == [strings(*words)]
    entry = {"name": "x", "shape": [2, 2], "datatype": "BYTES", "data": texts}
    body = json.dumps({"inputs": [entry], **BINARY}).encode()
    assert echo(found, body, None).tensors == [strings(*words)]


def test_bytes_that_are_no_text_have_no_json_form() -> None:
    body, length = request("BYTES", [1, 2], strings(b"\xff", b""))
    with pytest.raises(UnicodeDecodeError):
        echo(signature("BYTES"), body, length)


@pytest.mark.parametrize("datatype", ["FP32", "INT16", "FP16", "BOOL"])
def test_a_raw_request_is_one_row(datatype: str) -> None:
    raw = raw_of(datatype, VALUES[datatype][:2])
    answer = echo(signature(datatype), raw, 0)
    assert answer.tensors == [raw]
    assert json.loads(answer.header)["outputs"][0]["shape"] == [1, 2]


def test_a_raw_request_finds_one_open_dimension_and_takes_bytes_whole() -> None:
    answer = echo(signature("FP32", (-1, 2)), bytes(24), 0)
    assert json.loads(answer.header)["outputs"][0]["shape"] == [1, 3, 2]
    assert echo(signature("BYTES", (1,)), b"a jpeg", 0).tensors == [strings(b"a jpeg")]
    with pytest.raises(Refused, match="20 bytes are no row"):
        echo(signature("FP32", (-1, 2)), bytes(20), 0)
    with pytest.raises(Refused, match="24 bytes; FP32"):
        echo(signature("FP32", (2,)), bytes(24), 0)


def test_scalars_and_unbatched_shapes() -> None:
    answer = echo(signature("FP32", ()), *request("FP32", [3], bytes(12), **BINARY))
    assert json.loads(answer.header)["outputs"][0]["shape"] == [3]
    answer = echo(signature("FP32", (), False), *request("FP32", [], bytes(4), **BINARY))
    assert json.loads(answer.header)["outputs"][0]["shape"] == []
    answer = echo(signature("INT8", (2, -1), False), *request("INT8", [2, 3], bytes(6), **BINARY))
    assert json.loads(answer.header)["outputs"][0]["shape"] == [2, 3]


def two() -> Contract:
    inputs = {"a": Tensor("a", "FP32", (2,)), "b": Tensor("b", "INT64", (-1,))}
    outputs = {name: Tensor(name, "FP32", (2,)) for name in ("p", "q", "r")}
    return Contract("two", "1", inputs, outputs, True, 8)


def test_inputs_of_both_kinds_in_one_request_and_outputs_as_asked() -> None:
    header = json.dumps({
        "id": "\"quoted\" 7",
        "inputs": [
            {"name": "b", "shape": [1, 3], "datatype": "INT64", "data": [4, 5, 6]},
            {"name": "a", "shape": [1, 2], "datatype": "FP32",
             "parameters": {"binary_data_size": 8}},
        ],
        "outputs": [{"name": "r"}, {"name": "p", "parameters": {"binary_data": True}}],
        "parameters": {"timeout": 2500, "priority": 1},
    }).encode()  # fmt: skip
    call = Reader(two()).read(header + struct.pack("<2f", 1.5, 2.5), len(header))
    assert call.arrays["a"].tolist() == [[1.5, 2.5]]
    assert call.arrays["b"].tolist() == [[4, 5, 6]]
    assert call.plan.timeout_ns == 2_500_000
    assert call.plan.priority == 1
    assert call.plan.shapes == ((2,), (3,))
    outputs = {name: np.full((1, 2), at, np.float32) for at, name in enumerate("pqr")}
    answer = Writer(two()).write(call.plan, outputs)
    told = json.loads(answer.header)
    assert told["id"] == '"quoted" 7'
    assert [output["name"] for output in told["outputs"]] == ["r", "p"]
    assert told["outputs"][0]["data"] == [2.0, 2.0]
    assert answer.tensors == [bytes(8)]


def test_a_kept_header_gives_the_same_as_a_new_one_and_ids_are_not_mixed_up() -> None:
    found = signature("FP32")
    reader, writer = Reader(found), Writer(found)
    for value in (1.0, 2.0, 3.0):
        body, length = request("FP32", [1, 2], struct.pack("<2f", value, -value), **BINARY)
        call = reader.read(body, length)
        assert call.arrays["x"].tolist() == [[value, -value]]
        assert "id" not in json.loads(writer.write(call.plan, {"y": call.arrays["x"]}).header)
        with pytest.raises(Refused, match="7 bytes of binary data instead of 8"):
            reader.read(body[:-1], length)
        body, length = request("FP32", [1, 2], bytes(8), id=str(value), **BINARY)
        call = reader.read(body, length)
        assert json.loads(writer.write(call.plan, {"y": call.arrays["x"]}).header)["id"] == str(
            value
        )


def entry(**changed: Any) -> dict[str, Any]:
    given = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]} | changed
    return {key: value for key, value in given.items() if value is not None}


FAULTS: dict[str, tuple[str, Any]] = {
    "unknown input": ("no input 'z', it has 'x'", [entry(name="z")]),
    "missing input": ("missing input 'x'", []),
    "twice": ("given twice", [entry(), entry()]),
    "wrong datatype": ("is FP32, not FP64", [entry(datatype="FP64")]),
    "wrong shape": (r"shape \[1, 3\], the model takes \[-1, 2\]", [entry(shape=[1, 3])]),
    "wrong rank": (r"shape \[1, 1, 2\], the model takes", [entry(shape=[1, 1, 2])]),
    "wrong row": (r"shape \[3\], the model takes \[-1, 2\]", [entry(shape=[3])]),
    "no rows": (r"shape \[0, 2\]", [entry(shape=[0, 2], data=[])]),
    "negative": (r"shape \[-1, 2\]", [entry(shape=[-1, 2])]),
    "huge": ("over the engine's limit of 8", [entry(shape=[1 << 30, 2])]),
    "enormous": ("the model takes", [entry(shape=[1 << 62, 2])]),
    "too few": ("has 1 values", [entry(data=[1])]),
    "too many": ("has 3 values", [entry(data=[1, 2, 3])]),
    "ragged": ("different lengths", [entry(shape=[2, 2], data=[[1, 2], [3]])]),
    "text": ("not all of type FP32", [entry(data=["1", "2"])]),
    "null": ("not all of type FP32", [entry(data=[1, None])]),
    "object": ("not a list", [entry(data={"a": 1})]),
    "too large for FP32": ("does not fit into FP32", [entry(data=[1, 1e39])]),
    "no data": ("neither data nor", [entry(data=None)]),
    "both": ("stand without data", [entry(parameters={"binary_data_size": 8})]),
    "size no number": (
        "a number of bytes",
        [entry(data=None, parameters={"binary_data_size": "8"})],
    ),
    "shared memory": (
        "are numbers",
        [entry(parameters={"shared_memory_region": "r"})],
    ),
    "bytes missing": ("instead of 8", [entry(data=None, parameters={"binary_data_size": 8})]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_input_is_refused_with_what_is_wrong(name: str) -> None:
    message, inputs = FAULTS[name]
    with pytest.raises(Refused, match=message) as refused:
        Reader(signature("FP32")).read(json.dumps({"inputs": inputs}).encode(), None)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("datatype", "data", "message"),
    [
        ("INT8", [1, 128], "does not fit into INT8"),
        ("UINT8", [1, -1], "does not fit into UINT8"),
        ("UINT64", [1, 1 << 64], "does not fit into UINT64"),
        ("FP64", [1, 1 << 64], "too large"),
        ("INT64", [1, 1 << 63], "does not fit into INT64"),
        ("INT32", [1, 1.5], "not all of type INT32"),
        ("INT32", [True, False], "not all of type INT32"),
        ("BOOL", [1, 0], "not all of type BOOL"),
        ("BYTES", ["a", 1], "BYTES takes texts"),
        ("FP16", [1, 2], "no JSON form"),
    ],
)
def test_values_that_the_type_cannot_hold_are_refused(
    datatype: str, data: list[Any], message: str
) -> None:
    body = json.dumps({"inputs": [entry(datatype=datatype, data=data)]}).encode()
    with pytest.raises(Refused, match=message):
        Reader(signature(datatype)).read(body, None)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"outputs": [{"name": "z"}]}, "no output 'z', it has 'y'"),
        ({"outputs": [{"name": "y"}, {"name": "y"}]}, "asked for twice"),
        ({"outputs": [{"name": "y", "parameters": {"classification": 3}}]}, "not supported"),
        ({"outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, "not true or false"),
        ({"parameters": {"timeout": -5}}, "timeout is -5"),
        ({"parameters": {"timeout": "soon"}}, "timeout is 'soon'"),
        ({"parameters": {"priority": -1}}, "priority is -1"),
        ({"parameters": {"priority": True}}, "priority is True"),
        ({"parameters": {"binary_data_output": "yes"}}, "binary_data_output is 'yes'"),
        ({"parameters": []}, "not an inference request"),
        ({"id": 7}, "not an inference request"),
    ],
)
def test_wrong_wishes_are_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        Reader(signature("FP32")).read(json.dumps({"inputs": [entry()], **more}).encode(), None)


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"", None), (b"null", None), (b"[]", None), (b'"x"', None), (b"{}", None),
        (b'{"inputs": 3}', None), (b'{"inputs": [3]}', None), (b'{"inputs": [{}]}', None),
        (b"\xff\xfe", None), (b'{"inputs":', None), (b"[" * 100_000, None),
        (b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":' + b"[" * 50_000, None),
        (b"{}", 3), (b"{}", 1), (b"", 0),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused(body: bytes, length: int | None) -> None:
    with pytest.raises(Refused) as refused:
        Reader(signature("FP32")).read(body, length)
    assert refused.value.status == 400


def test_broken_bytes_elements_are_refused() -> None:
    found = Reader(signature("BYTES"))
    for raw, message in (
        (b"\x01\x00", "middle of an element's length"),
        (b"\x05\x00\x00\x00ab", "middle of element 0"),
        (strings(b"a"), "has 1 elements instead of 2"),
        (strings(b"a", b"b", b"c"), "has 3 elements instead of 2"),
    ):
        with pytest.raises(Refused, match=message):
            found.read(*request("BYTES", [1, 2], raw))
