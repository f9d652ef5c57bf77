"""The lane over https, against real TLS servers on loopback."""

import hashlib
import socket
import time
from collections.abc import Callable

import pytest

from loadbench.model import Tensor
from loadbench.plan import RequestPlan, Tls
from loadbench.targets.inputs import prepare
from loadbench.units import MS, SECOND
from tests.known_server import GOOD
from tests.lanes import drive, known_server, plan, run_process
from tests.secure import Papers, make_papers, page, read_request, scripted, secure, server_context


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return make_papers(tmp_path_factory.mktemp("papers"))


def test_an_open_loop_over_tls(papers: Papers) -> None:
    with known_server(cert=papers.server, service_ms=2) as server:
        wanted = plan(server.port, rate=400, arrivals="poisson", warmup_ns=SECOND // 4)
        found = drive(secure(wanted, papers.tls))
    found.check()
    assert found.failed == {}
    assert found.sum("done") == found.sum("asked") > 300
    assert server.counts["got"] == sum(w.done + w.tail_done for w in found.windows)
    assert (found.latency.quantile(0.5) or 0) > 2 * MS


def test_a_closed_loop_over_tls(papers: Papers) -> None:
    with known_server(cert=papers.server) as server:
        wanted = plan(server.port, arrivals="closed", concurrency=8, seconds=0.5)
        found = drive(secure(wanted, papers.tls, host="localhost"))
    found.check()
    assert found.failed == {}
    assert found.sum("done") > 500
    assert server.counts["connections"] == 8


def test_an_answer_until_the_end_needs_a_farewell(papers: Papers) -> None:
    """Without one nobody knows whether the rest was cut off."""
    context = server_context(papers.server)

    def play(farewell: bool) -> Callable[[socket.socket], None]:
        def run(sock: socket.socket) -> None:
            with context.wrap_socket(sock, server_side=True) as stream:
                read_request(stream)
                stream.sendall(b"HTTP/1.0 200 OK\r\n\r\nsome text")
                if farewell:
                    stream.unwrap()

        return run

    with scripted(play(farewell=True)) as port:
        whole = drive(page(port, papers.tls))
    with scripted(play(farewell=False)) as port:
        cut = drive(page(port, papers.tls))
    assert whole.failed == {}
    assert whole.sum("done") == 5
    cut.check()
    assert sum(cut.failed.values()) == 5
    assert set(cut.failed) <= {"truncated", "reset"}


def test_a_farewell_amid_an_answer(papers: Papers) -> None:
    context = server_context(papers.server)

    def play(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as stream:
            read_request(stream)
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all")
            stream.unwrap()  # waits for the lane's own

    with scripted(play) as port:
        begin = time.monotonic()
        found = drive(page(port, papers.tls))
    assert time.monotonic() - begin < 1.5  # at the farewell, not at the end of the connection
    found.check()
    assert found.failed == {"truncated": 5}


def test_the_lane_says_farewell(papers: Papers) -> None:
    """Servers take a connection that just ends for cut off."""
    context = server_context(papers.server)
    ends: list[str] = []

    def play(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False) as stream:
            read_request(stream)
            stream.sendall(GOOD)
            ends.append("cut off")
            if not stream.recv(1):  # an error without one
                ends[-1] = "farewell"

    with scripted(play) as port:
        drive(secure(plan(port, rate=10, seconds=0.1), papers.tls))
    assert ends == ["farewell"]


def test_answers_of_megabytes(papers: Papers) -> None:
    body = bytes(range(256)) * 20_000
    context = server_context(papers.server)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def play(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as stream:
            while True:
                read_request(stream)
                stream.sendall(answer)

    with scripted(play) as port:
        wanted = page(port, papers.tls, arrivals="closed", concurrency=2, seconds=0.7)
        found = drive(wanted)
    found.check()
    assert found.failed == {}
    assert found.sum("done") > 4


@pytest.mark.parametrize("size", [150_000, 8_000_000])
def test_large_requests_arrive_whole(papers: Papers, size: int) -> None:
    """The larger does not fit into the kernel's buffers: it goes out piece by piece."""
    context = server_context(papers.server)
    seen: set[str] = set()

    def play(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as stream:
            while True:
                time.sleep(0.05)
                seen.add(hashlib.sha256(read_request(stream)).hexdigest())
                stream.sendall(GOOD)

    with scripted(play) as port:
        wanted = plan(port, arrivals="closed", concurrency=2, seconds=0.3, drain_ns=5 * SECOND)
        inputs = (Tensor("x", "UINT8", (size,)),)
        wanted = secure(wanted, papers.tls, inputs=inputs, binary=True)
        found = drive(wanted)
    ((*requests,),), _ = prepare(wanted.endpoint, wanted.requests, wanted.seed)
    found.check()
    assert found.failed == {}
    assert found.sum("done") >= 2
    sent = {hashlib.sha256(r.data.partition(b"\r\n\r\n")[2]).hexdigest() for r in requests}
    assert seen
    assert seen <= sent


def test_small_and_large_requests_take_turns(papers: Papers) -> None:
    context = server_context(papers.server)
    got: list[int] = []

    def play(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as stream:
            while True:
                got.append(len(read_request(stream)))
                stream.sendall(GOOD)

    kinds = (RequestPlan("small"), RequestPlan("large", rows=20))
    with scripted(play) as port:
        wanted = plan(port, arrivals="closed", concurrency=1, seconds=0.3, requests=kinds)
        inputs = (Tensor("x", "UINT8", (1000,)),)
        found = drive(secure(wanted, papers.tls, inputs=inputs, outputs=(), binary=True))
    found.check()
    assert found.failed == {}
    assert len(got) == found.sum("sent") > 20
    assert len({length // 1000 for length in got}) == len(set(got)) == 2


def test_the_load_process_speaks_tls_under_gevent(papers: Papers) -> None:
    with known_server(cert=papers.server, client_ca=papers.ca) as server:
        wanted = secure(plan(server.port, rate=100), Tls(papers.ca, cert=papers.client))
        found = run_process(wanted, lambda _process, _started: None)
    found.check()
    assert found.failed == {}
    assert found.sum("done") == 100
