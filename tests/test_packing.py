"""Answers packed for those who ask, and deadlines that a client gives in a header."""

import gzip
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from loadbench.engine.packing import LEAST, MOST, chosen, packed
from tests.served import (
    Engine,
    read_answer,
    request_binary,
    request_json,
    rows,
    serving,
    settings,
    whole,
)

INFER = "/v2/models/fake/infer"
ALIKE = np.zeros((8, 16), np.float32)  # 512 bytes in binary, 1.3 kB in JSON


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with serving("fake", *settings("fake.a=1 ms", "max_batch=64")) as found:
        yield found


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_answers_are_packed_on_demand_and_hold_the_same(engine: Engine, encoding: str) -> None:
    x = np.zeros((64, 16), np.float32)
    x[:, 3] = 7
    body, headers = request_binary(x)
    plain = engine.call(INFER, body, **headers)
    for _ in range(3):  # the second time the head is known already
        found = engine.call(INFER, body, Accept_Encoding=encoding, **headers)
        assert found.headers["content-encoding"] == encoding
        assert int(found.headers["content-length"]) == len(found.body) < len(plain.body)
        unpack = gzip.decompress if encoding == "gzip" else zlib.decompress
        assert unpack(found.body) == plain.body
        name = "inference-header-content-length"
        assert found.headers[name] == plain.headers[name]  # counts the unpacked JSON


def test_only_what_is_asked_for_and_worth_it_is_packed(engine: Engine) -> None:
    body, headers = request_binary(rows(1))
    for asked, wish in ((body, "gzip"), (body, "identity"), (body, "br")):
        assert (
            "content-encoding"
            not in engine.call(INFER, asked, Accept_Encoding=wish, **headers).headers
        )
    large = request_json(ALIKE)
    assert "content-encoding" not in engine.call(INFER, large).headers
    assert "content-encoding" not in engine.call("/metrics", Accept_Encoding="gzip").headers


def test_one_connection_with_and_without(engine: Engine) -> None:
    body, headers = request_binary(np.zeros((64, 16), np.float32))
    plain = whole(body, int(headers["Inference_Header_Content_Length"]))
    wish = plain.replace(b"Host: x", b"Host: x\r\nAccept-Encoding: gzip", 1)
    with engine.connect() as connection, connection.makefile("rb") as stream:
        for raw in (wish, plain, wish, wish, plain, plain):
            connection.sendall(raw)
            assert ("content-encoding" in read_answer(stream).headers) == (raw is wish)


@pytest.mark.parametrize(
    ("accepts", "form"),
    [
        (b"gzip", "gzip"), (b"gzip, deflate, br", "gzip"), (b"deflate", "deflate"),
        (b"gzip;q=0.2, deflate;q=0.9", "deflate"), (b"GZIP", "gzip"), (b"*", "gzip"),
        (b"identity", None), (b"br, zstd", None), (b"gzip;q=0", None), (b"", None),
        (b"gzip;q=0, *;q=0.5", "deflate"), (b"gzip;q=x", None), (b"identity, gzip;q=0.5", None),
    ],
)  # fmt: skip
def test_the_form_that_a_client_likes_best(accepts: bytes, form: str | None) -> None:
    assert chosen(accepts) == form


def test_what_is_small_large_or_does_not_shrink_stays() -> None:
    random = np.random.default_rng(1)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    for body in (bytes(LEAST - 1), bytes(MOST + 1), random.bytes(LEAST)):
        answer = head % len(body) + body
        assert packed(answer, b"gzip") is answer
    found = packed(head % LEAST + bytes(LEAST), b"gzip")
    assert len(found) < LEAST


def test_a_header_says_how_long_a_client_waits() -> None:
    with serving("fake", *settings("fake.a=100 ms", "max_batch=1")) as engine:
        body, headers = request_binary(rows(1))
        for name in ("Timeout_Ms", "X_Envoy_Expected_Rq_Timeout_Ms"):
            for _ in range(2):
                refused = engine.call(INFER, body, **headers, **{name: "20"})
                assert refused.status == 503
                assert "deadline" in refused.json["error"]
                assert refused.headers["loadbench-cause"] == "deadline"
        assert engine.call(INFER, body, **headers, Timeout_Ms="20000").status == 200
        assert engine.call(INFER, body, **headers, Timeout_Ms="0").status == 200
        assert engine.call(INFER, body, **headers, Timeout_Ms="soon").status == 400
        sooner = request_json(rows(1), parameters={"timeout": 20_000_000})  # µs
        assert engine.call(INFER, sooner, Timeout_Ms="20").status == 503
