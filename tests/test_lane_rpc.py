"""The lane over gRPC: against gRPC's own C core, and against the engine's front."""

import socket
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np
import pytest

from loadbench.load import frames
from loadbench.load.lane import Lane
from loadbench.model import Tensor
from loadbench.plan import RequestPlan, Tls
from loadbench.targets import rpc
from loadbench.targets.messages import message
from loadbench.units import MS, SECOND
from tests.lanes import Done, drive, plan
from tests.rpc_client import serving_rpc
from tests.rpc_server import HANDS, Server, answer, endpoint, serving
from tests.secure import make_papers, scripted
from tests.served import settings

GOOD = answer()
WAIT_S = 20.0


def good(_: bytes, __: Any) -> bytes:
    return GOOD


def closed(server: Server, seconds: float = 0.5, **changed: Any) -> Done:
    wanted = {"concurrency": 4, "endpoint": endpoint(server.port), **changed}
    return drive(plan(server.port, seconds=seconds, arrivals="closed", **wanted))


def told(found: Done) -> int:
    """What the log says was sent, warm-up included."""
    return sum(window.sent + window.tail_sent for window in found.windows)


def eventually(what: Any) -> bool:
    until = time.monotonic() + WAIT_S
    while not what() and time.monotonic() < until:
        time.sleep(0.005)
    return bool(what())


# ---- calls that go well


def test_an_open_loop_is_counted_alike_on_both_sides() -> None:
    with serving(good) as server:
        wanted = plan(server.port, rate=200, endpoint=endpoint(server.port), warmup_ns=SECOND // 4)
        found = drive(wanted)
    found.check()
    assert found.failed == {}
    assert found.sum("done") == found.sum("asked") > 150
    assert len(server.calls) == told(found) > found.sum("sent")
    asked = message("inference.ModelInferRequest").FromString(server.calls[0])
    assert (asked.model_name, asked.inputs[0].name, list(asked.inputs[0].shape)) == (
        "m",
        "x",
        [1, 4],
    )
    assert len(asked.raw_input_contents[0]) == 16


def test_a_closed_loop_keeps_its_connections() -> None:
    with serving(good) as server:
        found = closed(server)
    found.check()
    assert found.failed == {}
    assert found.sum("done") > 50
    assert len(server.calls) == told(found)
    assert len(server.peers) == 4


def test_the_engine_counts_what_was_sent() -> None:
    with serving_rpc(*settings("fake.a=1 ms", "max_batch=8")) as (engine, client):
        port = int(client.channel._channel.target().decode().rpartition(":")[2])
        model = Tensor("x", "FP32", (16,)), Tensor("y", "FP32", (16,))
        where = msgspec.structs.replace(
            endpoint(port), model="fake", inputs=model[:1], outputs=model[1:]
        )
        opened = drive(plan(port, rate=200, seconds=0.5, endpoint=where))
        loop = drive(plan(port, seconds=0.5, arrivals="closed", concurrency=4, endpoint=where))
        count = engine.stats()["inference_stats"]["success"]["count"]
    assert opened.failed == loop.failed == {}
    assert count == told(opened) + told(loop) > 100


def test_megabytes_go_both_ways() -> None:
    """More than any window the server opens at first, and than one read of a socket takes."""
    size = 300_000
    whole = answer(np.arange(size))
    with serving(lambda *_: whole) as server:
        found = closed(server, concurrency=2, endpoint=endpoint(server.port, size, size))
    found.check()
    assert found.failed == {}
    assert found.sum("done") >= 2
    assert len(server.calls) == told(found)
    assert {len(call) > 4 * size for call in server.calls} == {True}


def test_pings_are_answered_also_while_nothing_is_asked() -> None:
    """The C core sends one with what it reads first, and ends a connection that leaves it alone."""
    with serving(good, [("grpc.http2.ping_timeout_ms", 800)]) as server:
        wanted = plan(server.port, rate=0.8, seconds=1.5, endpoint=endpoint(server.port))
        found = drive(wanted)
    assert found.failed == {}
    assert found.sum("done") == 2
    assert len(server.peers) == 1
    assert found.finished.notes == ()  # none of it was unasked for


def test_a_server_that_ends_old_connections_costs_no_request() -> None:
    options = (("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 5000))
    with serving(good, options) as server:
        found = closed(server, seconds=1.0)
    found.check()
    assert found.failed == {}
    assert len(server.calls) == told(found)
    assert len(server.peers) > 4


def test_over_tls(tmp_path: Path) -> None:
    papers = make_papers(tmp_path)
    pem = Path(papers.server).read_bytes()
    credentials = grpc.ssl_server_credentials([(pem, pem)])
    size = 50_000
    whole = answer(np.arange(size))
    with serving(lambda *_: whole, credentials=credentials) as server:
        where = endpoint(server.port, size, size, tls=Tls(papers.ca))
        found = closed(server, endpoint=where)
        distrusted = closed(server, endpoint=endpoint(server.port, tls=Tls(papers.other_ca)))
    assert found.failed == {}
    assert found.sum("done") > 2
    assert len(server.calls) == told(found)
    assert set(distrusted.failed) == {"tls_certificate"}


# ---- calls that do not


def test_a_status_other_than_ok_is_named_and_costs_no_connection() -> None:
    def refuse(_: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "zu voll: 100 % – später")
        raise AssertionError

    with serving(refuse) as server:
        found = closed(server, concurrency=2)
    found.check()
    assert set(found.failed) == {"grpc_RESOURCE_EXHAUSTED"}
    assert len(server.calls) == told(found) == found.failed["grpc_RESOURCE_EXHAUSTED"]
    assert len(server.peers) == 2
    reason = found.examples["grpc_RESOURCE_EXHAUSTED"].reason
    assert reason == "RESOURCE_EXHAUSTED: zu voll: 100 % – später"


def test_a_server_without_the_method_says_so_in_trailers_alone() -> None:
    server = grpc.server(None, options=[("grpc.so_reuseport", 0)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    found = drive(plan(port, rate=50, seconds=0.2, endpoint=endpoint(port)))
    server.stop(None).wait()
    assert set(found.failed) == {"grpc_UNIMPLEMENTED"}


def test_a_server_of_http_1_is_told() -> None:
    def play(sock: socket.socket) -> None:
        sock.recv(65_536)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with scripted(play) as port:
        found = drive(plan(port, rate=20, seconds=0.1, endpoint=endpoint(port)))
    assert set(found.failed) == {"bad_answer"}
    assert "the server speaks HTTP/1" in found.examples["bad_answer"].reason


@pytest.mark.parametrize("deadline", [True, False])
def test_the_server_gets_to_know_that_nobody_waits(deadline: bool) -> None:
    ended = threading.Semaphore(0)
    left: list[float | None] = []

    def slow(_: bytes, context: Any) -> bytes:
        gone = threading.Event()
        context.add_callback(gone.set)
        left.append(context.time_remaining())
        assert gone.wait(WAIT_S), "the client never gave up"
        ended.release()
        return GOOD

    with serving(slow) as server:
        where = endpoint(server.port, deadline_ns=500 * MS if deadline else None)
        found = drive(plan(server.port, rate=20, seconds=0.2, endpoint=where, timeout_ns=500 * MS))
        for _ in server.calls:
            assert ended.acquire(timeout=WAIT_S)
    found.check()
    assert 0 < len(server.calls) <= HANDS
    if deadline:
        assert set(found.failed) == {"grpc_DEADLINE_EXCEEDED"}
        assert all(one is not None and one <= 0.5 for one in left)
    else:
        assert set(found.failed) == {"first_byte_timeout"}
        assert all(one is None or one > 3600 for one in left)


def test_a_server_that_says_four_times_that_a_deadline_is_past() -> None:
    """As Triton does. Each call fails once, by its name, and the connection lives on."""
    opened: list[int] = []
    past = b"".join(
        rpc._field(name, value) for name, value in ((":status", "200"), ("grpc-status", "4"))
    )

    def play(sock: socket.socket) -> None:
        sock.sendall(frames.frame(frames.SETTINGS, 0, 0))
        reader = frames.Reader()
        sock.recv(24, socket.MSG_WAITALL)  # the preface
        while data := sock.recv(65_536):
            for found in reader.feed(data):
                if found.kind == frames.DATA and found.flags & frames.END_STREAM:
                    opened.append(found.stream)
                    for _ in range(4):
                        sock.sendall(
                            frames.frame(frames.HEADERS, 5, found.stream, past)
                            + frames.frame(frames.RST_STREAM, 0, found.stream, bytes(4))
                        )
                        time.sleep(0.002)

    with scripted(play) as port:
        found = drive(plan(port, rate=50, seconds=0.4, connections=1, endpoint=endpoint(port)))
    found.check()
    assert found.failed == {"grpc_DEADLINE_EXCEEDED": told(found)}
    assert opened == list(range(1, 2 * told(found), 2))  # all on the first connection


def test_a_server_that_is_shut_down_amid_calls() -> None:
    """GOAWAY, refused streams, a closed port: each request ends in a way that has a name."""

    def slow(*_: Any) -> bytes:
        time.sleep(0.005)
        return GOOD

    with serving(slow) as server:

        def stop(_: Lane) -> None:
            server.grpc.stop(0.05)

        wanted = plan(
            server.port, seconds=0.6, arrivals="closed", concurrency=4,
            endpoint=endpoint(server.port),
        )  # fmt: skip
        found = drive(wanted, [(0.3, stop)])
    found.check()
    assert found.sum("done") > 4
    names = {"refused", "closed", "truncated", "reset", "grpc_UNAVAILABLE", "grpc_CANCELLED"}
    assert set(found.failed) <= names
    assert "refused" in found.failed
    assert found.sum("done") <= len(server.calls) <= told(found)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (answer((1.0, 2.0)), "y has shape [1, 2] instead of [1, 3]"),
        (answer(name="z"), "outputs z instead of y"),
        (answer(datatype="INT32"), "y is INT32 instead of FP32"),
        (answer((1.0, 2.0), shape=[1, 3]), "8 bytes do not hold 3 FP32"),
        (b"", "outputs none instead of y"),
        (b"no message", "not a ModelInferResponse"),
        (GOOD + b"\x32\x00", "2 raw tensors for 1 outputs"),
    ],
)
def test_answers_are_looked_at_closely(wrong: bytes, words: str) -> None:
    """Also in the midst of good ones, once those are known by their bytes."""
    turns = iter(range(1 << 30))

    def infer(*_: Any) -> bytes:
        return wrong if next(turns) % 10 == 9 else GOOD

    with serving(infer) as server:
        found = closed(server, seconds=0.3, concurrency=1)
    found.check()
    assert set(found.failed) == {"bad_answer"}
    assert found.failed["bad_answer"] == len(server.calls) // 10 > 0
    assert words in found.examples["bad_answer"].reason


def test_outputs_are_compared_with_what_is_expected(tmp_path: Path) -> None:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.savez(tmp_path / "known.npz", x=x, y=x[:, :3] * 2)

    def double(request: bytes, _: Any) -> bytes:
        asked = message("inference.ModelInferRequest").FromString(request)
        given = np.frombuffer(asked.raw_input_contents[0], np.float32)
        return answer(given[:3] * (2 if given[0] == 0 else 3))

    kind = RequestPlan("known", data=str(tmp_path / "known.npz"), check=1.0)
    with serving(double) as server:
        found = closed(server, requests=(kind,), seconds=0.3, concurrency=1)
    assert set(found.failed) == {"wrong_output"}
    assert abs(found.failed["wrong_output"] - found.sum("done")) <= 1
    assert "y[0, 0] is 12 instead of 8" in found.examples["wrong_output"].reason


def test_headers_of_target_and_request_are_metadata() -> None:
    kind = RequestPlan("infer", headers={"X-Kind": "k" * 300})
    with serving(good) as server:
        where = endpoint(server.port, headers={"Authorization": "Bearer me"})
        found = closed(server, seconds=0.1, requests=(kind,), endpoint=where)
        assert eventually(lambda: server.metadata)
    assert found.failed == {}
    assert server.metadata["authorization"] == "Bearer me"
    assert server.metadata["x-kind"] == "k" * 300
