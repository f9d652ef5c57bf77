"""Streams over gRPC: one request, any number of answers, each with its moment. Against gRPC's own C
core, and against the engine's front."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from loadbench.load import frames
from loadbench.streams import Stream, merged
from loadbench.targets.messages import message
from loadbench.targets.rpc import PREFIX, _field, within
from loadbench.targets.wire import BadAnswer
from loadbench.units import MS
from tests.lanes import Done, drive, plan
from tests.rpc_client import serving_rpc
from tests.rpc_server import Answers, answer, endpoint, serving
from tests.running import loadbench, summary
from tests.secure import scripted
from tests.served import settings

GAP_MS, FIRST_MS = 20, 40


def part(packed: bytes = b"", error: str = "") -> bytes:
    """A ModelStreamInferResponse."""
    made = message("inference.ModelStreamInferResponse")(error_message=error)
    if packed:
        made.infer_response.ParseFromString(packed)
    told: bytes = made.SerializeToString()
    return told


GOOD = part(answer())


def on_a_timetable(number: int) -> Answers:
    def answers(_: bytes, __: Any) -> Iterator[bytes]:
        begun = time.monotonic()
        for each in range(number):
            time.sleep(max(0.0, begun + (FIRST_MS + each * GAP_MS) / 1000 - time.monotonic()))
            yield GOOD

    return answers


def asked(answers: Answers, seconds: float = 1.0, rate: float = 20, **changed: Any) -> Done:
    """An open loop of streams."""

    def never(_: bytes, __: Any) -> bytes:
        raise AssertionError("a single call")

    with serving(never, answers=answers) as server:
        where = endpoint(server.port, stream=True, **changed)
        found = drive(plan(server.port, rate=rate, seconds=seconds, endpoint=where))
        assert len(server.calls) == found.sum("sent")
    found.check()
    return found


def told(found: Done) -> Stream:
    stream = merged(window.stream for window in found.recorded)
    assert stream is not None
    return stream


def test_each_answer_has_its_moment() -> None:
    found = asked(on_a_timetable(4))
    done, stream = found.sum("done"), told(found)
    assert found.failed == {}
    assert done > 10
    assert (stream.first.count, stream.gaps.count, stream.pace.count) == (done, 3 * done, done)
    assert (stream.pieces, stream.generated) == (4 * done, 4 * done)
    assert (stream.told, stream.tokens, stream.prompt, stream.barren) == (0, 0, 0, 0)
    first, gap = stream.first.quantile(0.5), stream.gaps.quantile(0.5)
    assert first is not None
    assert gap is not None
    # how close: tests/benchmarks/tokens.py
    assert FIRST_MS * MS < first < (FIRST_MS + GAP_MS) * MS
    assert gap == pytest.approx(GAP_MS * MS, rel=0.5)
    whole = found.latency.quantile(0.0)
    assert whole is not None
    assert whole >= (FIRST_MS + 3 * GAP_MS) * MS


def test_an_answer_that_says_only_that_it_was_the_last_is_none() -> None:
    """As Triton's, to whoever asks for it; of the others each says that it is not the last."""
    final = message("inference.ModelInferResponse")(model_name="m")
    final.parameters["triton_final_response"].bool_param = True
    one = message("inference.ModelInferResponse").FromString(answer())
    one.parameters["triton_final_response"].bool_param = False
    good, last = part(one.SerializeToString()), part(final.SerializeToString())

    def answers(_: bytes, __: Any) -> Iterator[bytes]:
        yield from (good, good, last)

    found = asked(answers)
    assert found.failed == {}
    assert told(found).pieces == 2 * found.sum("done") > 0


def test_an_answer_without_outputs_that_is_not_the_last_is_bad() -> None:
    empty = message("inference.ModelInferResponse")(model_name="m")
    empty.parameters["triton_final_response"].bool_param = False

    def answers(_: bytes, __: Any) -> Iterator[bytes]:
        yield from (GOOD, part(empty.SerializeToString()))

    found = asked(answers)
    assert set(found.failed) == {"bad_answer"}


def test_answers_that_come_in_one_read_have_come_at_once() -> None:
    """As tokens over HTTP that do. The first of three comes alone."""
    head = b"".join(
        _field(name, value)
        for name, value in ((":status", "200"), ("content-type", "application/grpc"))
    )
    one = PREFIX.pack(0, len(GOOD)) + GOOD

    def play(sock: socket.socket) -> None:
        sock.sendall(frames.frame(frames.SETTINGS, 0, 0))
        reader = frames.Reader()
        sock.recv(24, socket.MSG_WAITALL)  # the preface
        while data := sock.recv(65_536):
            for found in reader.feed(data):
                if found.kind == frames.DATA and found.flags & frames.END_STREAM:
                    to = found.stream
                    sock.sendall(
                        frames.frame(frames.HEADERS, frames.END_HEADERS, to, head)
                        + frames.frame(frames.DATA, 0, to, one)
                    )
                    time.sleep(GAP_MS / 1000)
                    sock.sendall(
                        frames.frame(frames.DATA, 0, to, one) * 2
                        + frames.frame(frames.HEADERS, 5, to, _field("grpc-status", "0"))
                    )

    with scripted(play) as port:
        found = drive(plan(port, rate=20, seconds=0.5, endpoint=endpoint(port, stream=True)))
    assert found.failed == {}
    stream, done = told(found), found.sum("done")
    assert (stream.gaps.count, stream.together) == (2 * done, done)
    assert (stream.gaps.quantile(1.0) or 0) >= GAP_MS * MS


def test_answers_of_megabytes_come_whole() -> None:
    large = part(answer(np.arange(300_000)))

    def answers(_: bytes, __: Any) -> Iterator[bytes]:
        yield from (large, large)

    with serving(lambda *_: b"", answers=answers) as server:
        where = endpoint(server.port, out=300_000, stream=True)
        found = drive(plan(server.port, rate=10, seconds=0.5, endpoint=where))
    assert found.failed == {}
    assert told(found).pieces == 2 * found.sum("done") > 0


def failing(how: str) -> Answers:
    def answers(_: bytes, context: Any) -> Iterator[bytes]:
        if how != "nothing":
            yield GOOD
        if how == "words":
            yield part(error="no such tensor")
        elif how == "status":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such shape")
        elif how == "other":
            yield part(answer((1.0, 2.0)))

    return answers


@pytest.mark.parametrize(
    ("how", "failure", "reason"),
    [
        ("words", "grpc_UNKNOWN", "no such tensor"),
        ("status", "grpc_INVALID_ARGUMENT", "no such shape"),
        ("other", "bad_answer", "y has shape [1, 2]"),
        ("nothing", "bad_answer", "ended without an answer"),
    ],
)
def test_a_stream_fails_as_a_whole(how: str, failure: str, reason: str) -> None:
    found = asked(failing(how), seconds=0.5)
    assert found.failed == {failure: found.sum("sent")}
    assert reason in found.examples[failure].reason
    assert told(found).barren == (found.sum("sent") if how == "nothing" else 0)


def test_a_stream_that_does_not_end_in_time_is_given_up() -> None:
    def answers(_: bytes, context: Any) -> Iterator[bytes]:
        yield GOOD
        while context.is_active():
            time.sleep(0.01)

    with serving(lambda *_: b"", answers=answers) as server:
        where = endpoint(server.port, stream=True)
        wanted = plan(server.port, rate=10, seconds=0.3, endpoint=where, timeout_ns=100 * MS)
        found = drive(wanted)
    assert found.failed == {"timeout": found.sum("sent")}


@pytest.mark.parametrize(
    "broken", [b"\x12\x05ab", b"\x1a\x01a", b"\x12", b"\x08\x01", b"\xff" * 12]
)
def test_what_is_no_answer_of_a_stream_is_said(broken: bytes) -> None:
    with pytest.raises(BadAnswer):
        within(broken)


def test_an_error_and_an_answer_are_told_apart() -> None:
    assert within(GOOD) == ("", answer())
    assert within(part(error="no")) == ("no", b"")
    assert within(b"") == ("", b"")


# ---- whole runs


@pytest.mark.long
def test_the_engine_is_asked_by_streams_if_somebody_says_so(tmp_path: Path) -> None:
    with serving_rpc(*settings("fake.a=1 ms", "max_batch=8")) as (engine, client):
        port = int(client.channel._channel.target().decode().rpartition(":")[2])
        path = tmp_path / "stream.toml"
        load = 'arrivals = "constant"\nphases = [{ rate = 100, for = "2s" }]'
        target = f'[target]\nurl = "grpc://127.0.0.1:{port}"\nstream = true'
        path.write_text(f"{target}\n[load]\n{load}\n")
        found = summary(path, cwd=tmp_path)
        assert found["failed"] == {}
        assert found["done"] == 200
        assert found["tokens"]["pieces"] == 200  # the engine gives one answer to each
        assert found["tokens"]["counted"] is None  # KServe has no word for it
        shown = loadbench("show", "last", cwd=tmp_path).stdout
        assert "200 tokens (an event each)" in shown
        assert engine.stats()["inference_count"] >= 200
        dry = loadbench("run", path, "--dry-run", cwd=tmp_path)
        assert "ModelStreamInfer fake" in dry.stdout


def test_over_http_a_stream_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with serving_rpc(*settings("fake.a=1 ms")) as (engine, _):
        path = tmp_path / "stream.toml"
        url = f"http://127.0.0.1:{engine.port}"
        load = 'phases = [{ rate = 10, for = "1s" }]'
        path.write_text(f'[target]\nurl = "{url}"\nstream = true\n[load]\n{load}\n')
        found = loadbench("run", path, "--duration", "1s", cwd=tmp_path, code=2)
        assert "target.stream is of gRPC" in found.stderr
        assert "grpc://host:port" in found.stderr
