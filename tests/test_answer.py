"""Reading answers: every cheap verdict agrees with the parser's, however the bytes are cut."""

import gzip
import json
import zlib
from itertools import pairwise
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.load.answer import Kind, Sight
from loadbench.load.connection import Connection
from loadbench.load.exemplar import sample
from loadbench.model import Tensor, encode
from loadbench.plan import Endpoint
from loadbench.targets import kserve, plain
from loadbench.targets.wire import Form

ENDPOINT = Endpoint(
    host="h", port=1, protocol="kserve", model="m",
    inputs=(Tensor("x", "FP32", (2,)),),
    outputs=(Tensor("y", "FP32", (3,)), Tensor("n", "INT64", ())),
)  # fmt: skip


def kind() -> Kind:
    return Kind(0, "infer", kserve.checker(ENDPOINT, rows=2))


def body(values: list[float] | None = None, **changed: Any) -> bytes:
    y = {"name": "y", "datatype": "FP32", "shape": [2, 3], "data": values or [0.5] * 6}
    n = {"name": "n", "datatype": "INT64", "shape": [2], "data": [1, 2]}
    return json.dumps({"model_name": "m", "outputs": [{**y, **changed}, n]}).encode()


def answer(content: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Type: application/json", *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(content), b"", content])


def binary(head: dict[str, Any], tail: bytes, *headers: bytes) -> bytes:
    text = json.dumps(head).encode()
    length = b"Inference-Header-Content-Length: %d" % len(text)
    return answer(text + tail, length, *headers)


def read(found: Kind, *pieces: bytes) -> str | None:
    """What one connection makes of these pieces."""
    connection = Connection(found, 0)
    connection.rest = None
    for piece in pieces:
        verdict = connection.take(piece)
        if verdict is not None:
            return verdict
    return None


GOOD = answer(body())


@pytest.mark.parametrize("digit", [b"1", b"0"])
def test_a_length_of_too_many_digits_is_a_bad_answer(digit: bytes) -> None:
    length = b"Inference-Header-Content-Length: " + 5000 * digit
    assert read(kind(), answer(body(), length)) == "bad_answer"


def test_a_shape_beyond_all_numbers_is_a_bad_answer() -> None:
    endpoint = Endpoint(host="h", port=1, protocol="kserve", model="m")  # it says no outputs
    found = Kind(0, "infer", kserve.checker(endpoint, rows=2))
    assert read(found, answer(body(shape=[10**17] * 400))) == "bad_answer"


@pytest.mark.parametrize(
    ("text", "queue_ns", "batch"),
    [
        ("queue;dur=1.5, size;desc=4", 1_500_000, 4),
        (f"queue;dur={'9' * 400}, size;desc={'9' * 5000}", None, None),
        (1000 * "x" + ", queue;dur=1, size;desc=4", None, None),  # nobody reads for ever
    ],
)
def test_what_a_server_says_of_its_parts(
    text: str, queue_ns: int | None, batch: int | None
) -> None:
    connection = Connection(kind(), 0)
    found = sample(connection, 7, "", answer(body(), b"Server-Timing: " + text.encode()))
    assert (found.queue_ns, found.batch) == (queue_ns, batch)
    encode(found)


def test_the_first_answer_is_checked_in_full_and_teaches_the_rest() -> None:
    found = kind()
    assert found.look(GOOD) is Sight.UNSURE
    assert read(found, GOOD) == ""
    assert found.look(GOOD) is Sight.GOOD
    assert found.exact == GOOD


def test_other_values_dates_and_lengths_are_good_without_the_parser() -> None:
    found = kind()
    first = answer(body(), b"Date: Mon", b"Server-Timing: queue;dur=1")
    other = answer(
        body([1e-9, -2.25, 3, 4, 5, 123456789.5]), b"Date: Tuesday", b"Server-Timing: queue;dur=12"
    )
    assert read(found, first) == ""
    assert len(other) != len(first)
    assert found.look(other) is Sight.GOOD
    assert found.look(other[:-1]) is Sight.MORE
    assert found.wanted == len(other)


def test_a_retired_connection_takes_a_shorter_answer_than_the_one_before() -> None:
    connection = Connection(kind(), 0)
    assert connection.take(GOOD) == ""
    connection.forget()
    assert connection.take(GOOD[:-9]) is None
    assert connection.take(GOOD[-9:]) == ""
    connection.forget()
    connection.retire()
    assert connection.take(answer(b"", status=b"503 Service Unavailable")) == "http_503"


WRONG = {
    "a value less": answer(body([0.5] * 5)),
    "a value more": answer(body([0.5] * 7)),
    "texts for values": answer(body(data=["a"] * 6)),
    "nothing for a value": answer(body(data=[0.5] * 5 + [None])),
    "truth for a value": answer(body(data=[[0.5, 1, 2], [0.5, True, 2]])),
    "another name": answer(body(name="z")),
    "another type": answer(body(datatype="FP64")),
    "another shape": answer(body(shape=[1, 3], data=[1, 2, 3])),
    "another rank": answer(body(shape=[6])),
    "no outputs": answer(b'{"outputs": []}'),
    "one output": answer(b'{"outputs":[{"name":"y","datatype":"FP32","shape":[2,3],"data":[]}]}'),
    "an error as 200": answer(b'{"error": "no"}'),
    "no JSON": answer(b"<html>"),
    "nothing": answer(b""),
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
    "a length of its own": GOOD.replace(b"Content-Length: ", b"Content-Length: 1, "),
    "two lengths": answer(body(), b"Content-Length: 5"),
    "an unknown coding": answer(body(), b"Content-Encoding: br"),
    "not gzip": answer(body(), b"Content-Encoding: gzip"),
    "half a gzip": answer(gzip.compress(body())[:-9], b"Content-Encoding: gzip"),
}


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("name", WRONG)
def test_a_fast_wrong_answer_is_a_bad_answer(name: str, taught: bool) -> None:
    found = kind()
    if taught:
        assert read(found, GOOD) == ""
    assert found.look(WRONG[name]) is not Sight.GOOD
    assert read(found, WRONG[name], b"") == "bad_answer"


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_answers_that_have_no_body_are_not_waited_for(status: bytes) -> None:
    found = Kind(0, "r", lambda *_: Form(), (204, 304))
    whole = b"HTTP/1.1 " + status + b"\r\nContent-Length: 7\r\n\r\n"
    assert read(found, whole) == ""
    assert read(found, whole) == ""


@pytest.mark.parametrize(
    ("datatype", "value", "verdict"),
    [
        ("BYTES", "a", ""), ("BYTES", 1, "bad_answer"), ("BOOL", True, ""), ("BOOL", 1, ""),
        ("BOOL", "true", "bad_answer"), ("INT64", 7, ""), ("INT64", "7", "bad_answer"),
        ("FP16", 7, ""), ("FP16", {"a": 1}, "bad_answer"), ("HOUSE", "of its own", ""),
    ],
)  # fmt: skip
def test_values_are_what_json_has_for_their_type(datatype: str, value: Any, verdict: str) -> None:
    where = Endpoint(host="h", port=1, protocol="kserve", outputs=(Tensor("y", datatype, (1,)),))
    said = {"name": "y", "datatype": datatype, "shape": [1, 1], "data": [value]}
    found = Kind(0, "infer", kserve.checker(where, rows=1))
    assert read(found, answer(json.dumps({"outputs": [said]}).encode())) == verdict


def test_any_other_status_is_named() -> None:
    found = kind()
    assert read(found, GOOD) == ""
    for status in (b"400 Bad Request", b"429 Too Many Requests", b"503 Service Unavailable"):
        assert read(found, answer(body(), status=status)) == f"http_{status[:3].decode()}"
    assert read(found, answer(b"", b"Location: /", status=b"302 Found")) == "http_302"


CODED = {
    "gzip": answer(gzip.compress(body()), b"Content-Encoding: gzip"),
    "deflate": answer(zlib.compress(body()), b"Content-Encoding: deflate"),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%s\r\n0\r\n\r\n" % (len(body()), body()),
    "after 100": b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD,
    "after 103": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + GOOD,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + body(),
    "no length": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body(),
}


@pytest.mark.parametrize("cut", [1, 20, 100, 10_000])
@pytest.mark.parametrize("name", CODED)
def test_everything_http_allows_is_read(name: str, cut: int) -> None:
    found = kind()
    data = CODED[name]
    pieces = [data[at : at + cut] for at in range(0, len(data), cut)]
    assert read(found, *pieces, b"") == ""


LONG = {
    "a byte more": GOOD + b"x",
    "two answers": GOOD + GOOD,
    "an answer and more after the last": answer(body(), b"Connection: close") + b"x",
    "chunks and more": CODED["chunked"] + b"x",
    "too long to be taken": GOOD.replace(b"Content-Length: ", b"Content-Length: 99999999"),
    "a bomb": answer(gzip.compress(bytes((256 << 20) + 1), 1), b"Content-Encoding: gzip"),
}


@pytest.mark.parametrize("taught", [False, True])
@pytest.mark.parametrize("name", LONG)
def test_more_than_an_answer_is_over_long(name: str, taught: bool) -> None:
    found = kind()
    if taught:
        assert read(found, GOOD) == ""
    assert read(found, LONG[name], b"") == "over_long"


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n\r\n"])
def test_what_never_ends_is_over_long_before_it_fills_the_memory(begin: bytes) -> None:
    connection = Connection(kind(), 0)
    assert connection.take(begin) is None
    line = b"X-More: " + b"x" * 65_526 + b"\r\n"
    verdicts = (connection.take(line) for _ in range(4096))
    assert next(found for found in verdicts if found is not None) == "over_long"


def test_connection_close_is_obeyed_and_not_taken_for_the_usual() -> None:
    found = kind()
    assert read(found, GOOD) == ""
    last = answer(body(), b"Connection: close")
    assert found.look(last) is Sight.UNSURE
    connection = Connection(found, 0)
    connection.rest = None
    assert connection.take(last) == ""
    assert not connection.reusable
    assert found.look(GOOD) is Sight.GOOD


def test_the_end_of_a_connection_amid_an_answer() -> None:
    found = kind()
    assert read(found, GOOD[:50], b"") == "truncated"
    assert read(found, GOOD) == ""
    assert read(found, GOOD[:-1], b"") == "truncated"
    assert read(found, b"") == "closed"
    assert read(found, CODED["chunked"][:-1], b"") == "truncated"
    assert read(found, CODED["after 100"][:25], b"") == "truncated"


def test_a_connection_closed_after_good_answers_is_not_closed_amid_one() -> None:
    connection = Connection(kind(), 0)
    connection.rest = None
    for values in ([0.5] * 6, [1.5] * 6, [2.5] * 6):
        assert connection.take(answer(body(values))) == ""
        if connection.partial:
            connection.forget()
    assert connection.take(b"") == "closed"


def test_binary_answers() -> None:
    def outputs(size: int, dims: list[int]) -> dict[str, Any]:
        y = {"name": "y", "datatype": "FP32", "shape": dims}
        n = {"name": "n", "datatype": "INT64", "shape": [2]}
        sizes = [{"parameters": {"binary_data_size": number}} for number in (size, 16)]
        return {"outputs": [y | sizes[0], n | sizes[1]]}

    found = kind()
    assert read(found, binary(outputs(24, [2, 3]), bytes(40))) == ""
    assert found.look(binary(outputs(24, [2, 3]), b"\x01" * 40)) is Sight.GOOD
    wrong = {
        "short": binary(outputs(24, [2, 3]), bytes(39)),
        "long": binary(outputs(24, [2, 3]), bytes(41)),
        "another size": binary(outputs(20, [2, 3]), bytes(36)),
        "another shape": binary(outputs(24, [3, 2]), bytes(40)),
        "no JSON length": answer(json.dumps(outputs(24, [2, 3])).encode() + bytes(40)),
        "a long JSON length": answer(bytes(9), b"Inference-Header-Content-Length: 10"),
    }
    for name, data in wrong.items():
        assert found.look(data) is not Sight.GOOD, name
        assert read(found, data) == "bad_answer", name


def test_strings_and_booleans_are_checked_in_full_each_time() -> None:
    where = Endpoint(
        host="h", port=1, protocol="kserve", batched=False,
        outputs=(Tensor("t", "BYTES", (-1,)), Tensor("b", "BOOL", (2,))),
    )  # fmt: skip
    found = Kind(0, "x", kserve.checker(where, 1))

    def said(texts: list[str], size: int) -> bytes:
        t = {"name": "t", "datatype": "BYTES", "shape": [size], "data": texts}
        b = {"name": "b", "datatype": "BOOL", "shape": [2], "data": [True, False]}
        return answer(json.dumps({"outputs": [t, b]}).encode())

    assert read(found, said(["a,b", "c"], 2)) == ""
    assert read(found, said(["a"], 1)) == ""
    assert read(found, said(["a", "b", "c"], 2)) == "bad_answer"


def test_a_plain_server_may_say_anything_with_2xx() -> None:
    found = Kind(0, "get", plain.check)
    assert read(found, answer(b"hello")) == ""
    assert found.look(answer(b"something else")) is Sight.GOOD
    assert read(found, b"HTTP/1.1 204 No Content\r\n\r\n") == ""
    assert read(found, answer(b"", status=b"404 Not Found")) == "http_404"


class _Whole:
    """httptools alone, fed at once: how many answers the bytes hold, and the first one's body."""

    def __init__(self) -> None:
        self.begun = self.complete = 0
        self.content = b""
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_body(self, data: bytes) -> None:
        self.content += data

    def on_message_complete(self) -> None:
        self.complete += 1


@settings(max_examples=400, deadline=None)
@given(
    at=st.integers(0, len(GOOD) - 1),
    byte=st.integers(0, 255),
    cuts=st.lists(st.integers(1, len(GOOD) - 1), max_size=4),
)
def test_what_the_cheap_way_calls_good_the_parser_does_too(
    at: int, byte: int, cuts: list[int]
) -> None:
    """One byte of a good answer changed, anywhere, to anything, cut anyhow."""
    data = GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
    taught, fresh = kind(), kind()
    assert read(taught, GOOD) == ""
    edges = [0, *sorted(set(cuts)), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    verdict = read(taught, *pieces, b"")
    slow = read(fresh, *pieces, b"")
    assert verdict == slow
    if verdict == "":
        whole = _Whole()
        whole.parser.feed_data(data)
        assert whole.begun == 1  # complete, or ended by the end of the connection
        assert whole.content == data[data.index(b"\r\n\r\n") + 4 :]
