"""What a server may answer who is asked about itself: no more than was expected, packed or not."""

import gzip
import zlib

import pytest

from loadbench.errors import TargetError
from loadbench.metricspec import MetricsSpec
from loadbench.plan import Endpoint
from loadbench.targets.ask import Asker
from loadbench.targets.scrape import Scraper
from loadbench.targets.wire import Prepared
from tests.telling import telling

MOST = 1 << 20


@pytest.fixture(autouse=True)
def less(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a bomb need not be large."""
    monkeypatch.setattr("loadbench.targets.pinned._MOST", MOST)


@pytest.mark.parametrize("size", [MOST + 1, 40 * MOST])
def test_what_becomes_large_when_it_is_unpacked_is_given_up(size: int) -> None:
    with telling() as server, Asker(server.url) as asker:
        server.headers = {"Content-Encoding": "gzip"}
        server.pages = {"/v2": gzip.compress(bytes(size))}
        with pytest.raises(TargetError, match=f"more than {MOST:,} bytes when unpacked"):
            asker.ask("GET", "/v2")
        server.headers, server.pages = {}, {"/v2": b"{}"}
        assert asker.json("/v2") == {}  # the next question is asked as ever


def test_so_is_a_page_of_metrics() -> None:
    with telling() as server:
        server.headers = {"Content-Encoding": "gzip"}
        server.pages = {"/metrics": gzip.compress(b"a 1\n" * MOST)}
        where = Endpoint("127.0.0.1", server.server_port, "http")
        with (
            Scraper(where, MetricsSpec(url=f"{server.url}/metrics")) as scraper,
            pytest.raises(TargetError, match="when unpacked"),
        ):
            scraper.find()


def test_what_is_packed_and_small_is_read() -> None:
    """Nobody asks for it; some servers pack all the same."""
    body = b'{"name": "theirs"}'
    packed = {"gzip": gzip.compress(body), "deflate": zlib.compress(body), "identity": body}
    with telling() as server, Asker(server.url) as asker:
        for coding, sent in packed.items():
            server.headers, server.pages = {"Content-Encoding": coding}, {"/v2": sent}
            assert asker.json("/v2") == {"name": "theirs"}
        server.headers = {"Content-Encoding": "gzip"}
        server.pages = {"/v2": (404, "")}
        assert asker.ask("GET", "/v2").status_code == 404
        assert {headers["Accept-Encoding"] for _, headers in server.asked} == {"identity"}


@pytest.mark.parametrize(
    ("coding", "words"), [("br", "was not asked for"), ("gzip, gzip", "was not"), ("gzip", "not")]
)
def test_what_cannot_be_unpacked_is_said(coding: str, words: str) -> None:
    with telling() as server, Asker(server.url) as asker:
        server.headers, server.pages = {"Content-Encoding": coding}, {"/v2": b"\x1b\x00nonsense"}
        with pytest.raises(TargetError, match=words):
            asker.ask("GET", "/v2")


def test_an_answer_to_a_request_may_be_as_large_as_the_loads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadbench.targets.pinned.MOST", 8 * MOST)
    request = Prepared("infer", b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n", lambda headers, body: None)
    with telling() as server, Asker(server.url) as asker:
        server.headers = {"Content-Encoding": "gzip"}
        server.pages = {"/x": gzip.compress(bytes(8 * MOST))}
        assert len(asker.exchange(request).body) == 8 * MOST
        server.pages = {"/x": gzip.compress(bytes(8 * MOST + 1))}
        with pytest.raises(TargetError, match="when unpacked"):
            asker.exchange(request)
