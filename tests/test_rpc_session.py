"""HTTP/2 as the lane speaks it, without sockets: what a server may say, rightly or not, at once or
in pieces cut anywhere; and answers taken by their bytes against answers that are read."""

import contextlib
from random import Random
from typing import Any

import numpy as np
import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from loadbench.load import frames
from loadbench.load.answer import Kind
from loadbench.load.call import CallConnection, Peer
from loadbench.load.connection import WAITING
from loadbench.load.frames import Frame, Reader, frame, number
from loadbench.load.reply import message
from loadbench.load.session import Reply, Session
from loadbench.plan import RequestPlan
from loadbench.targets import rpc
from loadbench.targets.kserve import Given
from loadbench.targets.wire import BadAnswer, OverLong
from tests.rpc_server import answer, endpoint

LARGEST = (1 << 31) - 1
SETTINGS = frame(frames.SETTINGS, 0, 0)
TARGET = endpoint(1)
CALL = rpc.request(
    TARGET, {"x": Given("FP32", np.ones((1, 4), np.float32))}, RequestPlan("a"), None
)
BODY = answer()
DATA = rpc.PREFIX.pack(0, len(BODY)) + BODY
GOOD = {b":status": b"200", b"content-type": b"application/grpc"}


def block(fields: dict[bytes, bytes]) -> bytes:
    """Headers, all literal."""
    return b"".join(rpc._field(name.decode(), value.decode()) for name, value in fields.items())


HEADERS, TRAILERS = block(GOOD), block({b"grpc-status": b"0"})


def whole(stream: int = 1, data: bytes = DATA, first: bytes = HEADERS) -> bytes:
    """An answer as servers send it."""
    return b"".join((
        frame(frames.HEADERS, frames.END_HEADERS, stream, first),
        frame(frames.DATA, 0, stream, data),
        frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream, TRAILERS),
    ))  # fmt: skip


def asked(call: bytes = CALL) -> Session:
    """A session whose first call is under way, all of it that fits."""
    session = Session({})
    session.begin(call)
    session.fill()
    return session


def sent(session: Session) -> list[Frame]:
    """What it would have sent since last."""
    data = bytes(session.out).removeprefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    session.out.clear()
    return Reader().feed(data)


def heard(session: Session, *data: bytes) -> Reply:
    """The reply that is whole with the last of these bytes, and not before."""
    *first, last = data
    for piece in first:
        assert session.receive(piece) is None
    reply = session.receive(last)
    assert reply is not None
    return reply


# ---- what is sent


def test_a_call_opens_with_settings_and_is_a_stream_of_its_own() -> None:
    session = asked()
    opening, window, head, data = sent(session)
    assert (opening.kind, window.kind) == (frames.SETTINGS, frames.WINDOW_UPDATE)
    assert (head.kind, head.stream, head.flags) == (frames.HEADERS, 1, frames.END_HEADERS)
    assert (data.kind, data.stream, data.flags) == (frames.DATA, 1, frames.END_STREAM)
    assert data.payload == CALL[rpc.head_length(CALL) :]
    heard(session, SETTINGS + whole())
    session.settle()
    sent(session)
    again = Reader().feed(session.whole(CALL))
    assert [(one.kind, one.stream) for one in again] == [(frames.HEADERS, 3), (frames.DATA, 3)]
    assert again[1].payload == data.payload


def test_windows_and_frames_of_the_server_are_kept_to() -> None:
    """100 kB through a stream that takes 10 kB, in frames of 16 kB, then on as it opens."""
    call = CALL[: rpc.head_length(CALL)] + bytes(100_000)
    session = Session({})
    small = (4).to_bytes(2, "big") + number(10_000)
    session.receive(frame(frames.SETTINGS, 0, 0, small))
    assert session.whole(call) == b""
    session.begin(call)
    session.fill()
    data = [one for one in sent(session) if one.kind == frames.DATA]
    assert [len(one.payload) for one in data] == [10_000]
    assert not session.sent
    session.receive(frame(frames.WINDOW_UPDATE, 0, 1, number(90_000)))
    session.fill()
    data = [one for one in sent(session) if one.kind == frames.DATA]
    # the connection's window is what holds it up now: 65,535 as long as nothing else is said
    assert [len(one.payload) for one in data] == [16_384, 16_384, 16_384, 6_383]
    session.receive(frame(frames.WINDOW_UPDATE, 0, 0, number(LARGEST - 65_535)))
    session.fill()
    rest = [one for one in sent(session) if one.kind == frames.DATA]
    assert sum(len(one.payload) for one in rest) == 100_000 - 65_535
    assert [one.flags for one in rest] == [0, 0, frames.END_STREAM]
    assert session.sent


def test_a_setting_changes_the_window_of_the_stream_under_way() -> None:
    session = Session({})
    session.receive(frame(frames.SETTINGS, 0, 0, (4).to_bytes(2, "big") + number(0)))
    session.begin(CALL)
    session.fill()
    assert frames.DATA not in [one.kind for one in sent(session)]
    session.receive(frame(frames.SETTINGS, 0, 0, (4).to_bytes(2, "big") + number(1000)))
    session.fill()
    assert [one.kind for one in sent(session)] == [frames.SETTINGS, frames.DATA]
    assert session.sent


def test_settings_and_pings_are_answered_once_each() -> None:
    session = Session({})
    sent(session)
    session.receive(SETTINGS + frame(frames.PING, 0, 0, b"12345678"))
    session.receive(frame(frames.PING, frames.ACK, 0, bytes(8)) + frame(frames.SETTINGS, 1, 0))
    assert sent(session) == [
        Frame(frames.SETTINGS, frames.ACK, 0, b""), Frame(frames.PING, frames.ACK, 0, b"12345678")
    ]  # fmt: skip


def test_streams_come_to_an_end() -> None:
    session = Session({}, last=3)
    session.receive(SETTINGS)
    sent(session)
    for stream in (1, 3):
        assert session.usable
        session.whole(CALL)
        heard(session, whole(stream))
        session.settle()
    assert not session.usable


def test_what_was_received_is_given_back_in_time() -> None:
    session = asked()
    session.receive(SETTINGS)
    sent(session)
    for _ in range(1100):
        session.passed(1 << 20)
    (found,) = sent(session)
    assert (found.kind, found.stream) == (frames.WINDOW_UPDATE, 0)
    assert int.from_bytes(found.payload, "big") > 1 << 30


# ---- what comes


PADDED = frame(frames.DATA, frames.PADDED, 1, b"\3" + DATA + bytes(3))
SPLIT = b"".join((
    frame(frames.HEADERS, 0, 1, HEADERS[:5]), frame(frames.MORE, 0, 1, HEADERS[5:9]),
    frame(frames.MORE, frames.END_HEADERS, 1, HEADERS[9:]),
    frame(0x20, 0xFF, 1, b"nobody knows this kind"), frame(frames.PRIORITY, 0, 1, bytes(5)),
    frame(frames.DATA, 0, 1, DATA[:7]), frame(frames.PING, 0, 0, bytes(8)),
    frame(frames.DATA, 0, 1, b""), frame(frames.DATA, 0, 1, DATA[7:]),
    frame(frames.HEADERS, 0x2D, 1, bytes([2]) + bytes(5) + TRAILERS + bytes(2)),
))  # fmt: skip
SOON = frame(frames.HEADERS, 4, 1, block({b":status": b"103"})) + whole()
FORMS = {
    "plain": whole(), "in pieces": SPLIT, "after a hint": SOON,
    "padded": whole().replace(frame(frames.DATA, 0, 1, DATA), PADDED),
    "with a table": whole(first=Encoder().encode(list(GOOD.items()))),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 10_000])
def test_answers_are_read_however_they_come(name: str, step: int) -> None:
    data = SETTINGS + FORMS[name]
    reply = heard(asked(), *(data[at : at + step] for at in range(0, len(data), step)))
    assert message(reply) == BODY
    assert reply.fields == GOOD
    assert reply.trailers == {b"grpc-status": b"0"}


def ended(*last: bytes, fields: bytes = HEADERS) -> tuple[str, str]:
    """(failure, reason) of a call whose answer is this."""
    reply = heard(asked(), SETTINGS, *last)
    return Peer(TARGET).verdict(reply, Kind(0, "infer", rpc.checker(TARGET, 1)))


def alone(**fields: str) -> bytes:
    """An answer of trailers alone."""
    told = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    return frame(frames.HEADERS, 5, 1, block({b":status": b"200"} | told))


def test_how_calls_end() -> None:
    assert ended(whole()) == ("", "")
    assert ended(alone(grpc_status="14")) == ("grpc_UNAVAILABLE", "UNAVAILABLE")
    said = alone(grpc_status="3", grpc_message="100%25 f%C3%bcr%20n%")
    assert ended(said) == ("grpc_INVALID_ARGUMENT", "INVALID_ARGUMENT: 100% für n%")
    assert ended(alone(grpc_status="77"))[0] == "grpc_UNKNOWN"
    assert ended(alone(grpc_status="²"))[0] == "grpc_UNKNOWN"
    proxy = frame(frames.HEADERS, 5, 1, block({b":status": b"502"}))
    assert ended(proxy)[0] == "http_502"
    resets = {
        7: "UNAVAILABLE",
        8: "CANCELLED",
        11: "RESOURCE_EXHAUSTED",
        2: "INTERNAL",
        99: "INTERNAL",
    }
    for code, name in resets.items():
        assert ended(frame(frames.RST_STREAM, 0, 1, number(code)))[0] == f"grpc_{name}"


def test_a_server_that_goes_away_ends_what_it_has_not_seen_alone() -> None:
    bye = frame(frames.GOAWAY, 0, 0, number(0) + number(11) + b"too_many_pings")
    failure, reason = ended(bye)
    assert failure == "grpc_UNAVAILABLE"
    assert "too_many_pings" in reason
    session = asked()
    reply = heard(session, SETTINGS, frame(frames.GOAWAY, 0, 0, number(1) + number(0)), whole())
    assert message(reply) == BODY
    assert not session.usable


LATE = {b":status": b"200", b"grpc-status": b"4", b"grpc-message": b"Deadline Exceeded"}


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("when", ["at once", "while idle", "amid the next", "cut in two"])
def test_trailers_that_are_said_again_count_once(when: str, step: int) -> None:
    """As Triton ends a call past its deadline; their headers are in the table all the same."""
    encoder = Encoder()

    def late(stream: int) -> bytes:
        packed, flags = encoder.encode(list(LATE.items())), frames.END_STREAM
        if when != "cut in two":
            told = frame(frames.HEADERS, flags | frames.END_HEADERS, stream, packed)
        else:
            told = frame(frames.HEADERS, flags, stream, packed[:1])
            told += frame(frames.MORE, frames.END_HEADERS, stream, packed[1:])
        return told + frame(frames.RST_STREAM, 0, stream, number(0))

    session = asked()
    first, again = late(1), late(1) + late(1)
    more = {b":status": b"200", b"content-type": b"application/grpc", b"x": b"new"}
    good = whole(3, first=encoder.encode(list(more.items())))
    reply = heard(session, SETTINGS, first + (again if when == "at once" else b""))
    assert Peer(TARGET).verdict(reply, Kind(0, "infer", rpc.checker(TARGET, 1)))[0] == (
        "grpc_DEADLINE_EXCEEDED"
    )
    session.settle()
    if when in ("while idle", "cut in two"):
        assert session.receive(again[:12]) is None
        session.settle()
        assert not session.simple
        assert session.receive(again[12:]) is None
        session.settle()
    session.begin(CALL)
    session.fill()
    data = (again if when == "amid the next" else b"") + good
    reply = heard(session, *(data[at : at + step] for at in range(0, len(data), step)))
    assert (message(reply), reply.fields, reply.reset) == (BODY, more, None)


WRONG = {
    "HTTP/1": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "no settings": whole(),
    "a huge frame": SETTINGS + b"\xff\xff\xff" + bytes(6),
    "no status": SETTINGS + frame(frames.HEADERS, 5, 1, HEADERS),
    "data first": SETTINGS + frame(frames.DATA, 0, 1, DATA),
    "data on no stream": SETTINGS + frame(frames.DATA, 0, 0, DATA),
    "a stream of nobody": SETTINGS + whole(3),
    "an end of nobody's stream": SETTINGS + frame(frames.HEADERS, 5, 3, TRAILERS),
    "an end of no stream": SETTINGS + frame(frames.HEADERS, 5, 0, TRAILERS),
    "headers behind the end": SETTINGS + whole() + frame(frames.HEADERS, 4, 1, HEADERS),
    "a push": SETTINGS + frame(frames.PUSH_PROMISE, 4, 1, bytes(4)),
    "a broken table": SETTINGS + frame(frames.HEADERS, 4, 1, b"\xff\xff\xff\xff"),
    "an interruption": SETTINGS + frame(frames.HEADERS, 0, 1, HEADERS) + SETTINGS,
    "a continuation of nothing": SETTINGS + frame(frames.MORE, 4, 1, HEADERS),
    "an empty continuation": SETTINGS + frame(frames.HEADERS, 0, 1) + frame(frames.MORE, 0, 1),
    "padding and no room": SETTINGS + frame(frames.HEADERS, 0xC, 1, b"\x09abc"),
    "a short ping": SETTINGS + frame(frames.PING, 0, 0, b"1"),
    "odd settings": frame(frames.SETTINGS, 0, 0, b"12345"),
    "settings of a stream": frame(frames.SETTINGS, 0, 1),
    "tiny frames": frame(frames.SETTINGS, 0, 0, (5).to_bytes(2, "big") + number(1)),
    "a window beyond all": SETTINGS + frame(frames.WINDOW_UPDATE, 0, 0, number(LARGEST)),
    "a window of nothing": SETTINGS + frame(frames.WINDOW_UPDATE, 0, 1, number(0)),
    "a compressed message": SETTINGS + whole(data=b"\1" + DATA[1:]),
    "no message": SETTINGS + whole(data=b""),
    "half a message": SETTINGS + whole(data=DATA[:-1]),
    "two messages": SETTINGS + whole(data=DATA * 2),
    "more headers": SETTINGS + frame(frames.HEADERS, 4, 1, HEADERS) * 2,
    "not gRPC": SETTINGS + whole(first=block({b":status": b"200", b"content-type": b"text/html"})),
    "data behind the end": SETTINGS + whole() + frame(frames.DATA, 0, 1, b"more"),
    "endless headers": SETTINGS + frame(frames.HEADERS, 0, 1, HEADERS)
    + frame(frames.MORE, 0, 1, bytes(60_000)),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_answer_is_told(name: str) -> None:
    with pytest.raises(BadAnswer) as found:
        ended_whole(WRONG[name])
    assert str(found.value)


def ended_whole(data: bytes) -> tuple[str, str]:
    reply = asked().receive(data)
    assert reply is not None, "it waits for more"
    return Peer(TARGET).verdict(reply, Kind(0, "infer", rpc.checker(TARGET, 1)))


def drown(session: Session) -> None:
    for _ in range(100):
        session.receive(frame(frames.PING, 0, 0, bytes(8)) * 1000)


def test_a_server_that_only_asks_is_given_up() -> None:
    session = asked()
    session.receive(SETTINGS)
    with pytest.raises(OverLong):
        drown(session)


# ---- taken by their bytes


def connection(peer: Peer, kind: Kind) -> CallConnection:
    """One that has had a good answer, so that the next can be taken by its bytes."""
    found = CallConnection(kind, 0, peer)
    found._put = lambda data: len(data)
    found.state = WAITING
    found._session.begin(CALL)
    found._push()
    assert found.take(SETTINGS + whole(first=b"\x20" + HEADERS)) == ""
    found.forget()
    for stream in (3, 5):
        assert found._call(CALL) == len(CALL)
        assert found.take(whole(stream)) == ""
        if found.partial:
            found.forget()
    assert found._call(CALL) == len(CALL)
    return found


def pair() -> tuple[CallConnection, CallConnection]:
    """One that takes answers by their bytes, one that does not."""
    made = []
    for _ in range(2):
        kind = Kind(0, "infer", rpc.checker(TARGET, 1))
        made.append(connection(Peer(TARGET), kind))
    assert made[0]._peer.templates
    made[1]._peer.templates.clear()
    return made[0], made[1]


def test_a_good_answer_is_taken_by_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = pair()[0]
    monkeypatch.setattr(CallConnection, "_slowly", lambda *_: pytest.fail("it was read"))
    other = answer((9.0, 8.0, 7.0))
    opens = frame(frames.WINDOW_UPDATE, 0, 0, number(100))
    assert found.take(whole(7, rpc.PREFIX.pack(0, len(other)) + other) + opens) == ""
    assert found._call(CALL) == len(CALL)
    assert found.take(whole(9)) == ""


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_what_is_taken_by_its_bytes_is_what_reading_takes(random: Random) -> None:
    data = changed(whole(7) + frame(frames.WINDOW_UPDATE, 0, 0, number(5)), random)
    fast, slow = pair()
    assert fast.take(data) == slow.take(data), data


def changed(data: bytes, random: Random) -> bytes:
    found = bytearray(data)
    for _ in range(random.choice((0, 1, 1, 2))):
        at = random.randrange(len(found))
        match random.randrange(4):
            case 0:
                found[at] ^= 1 << random.randrange(8)
            case 1:
                del found[at : at + random.choice((1, 4, 13))]
            case 2:
                found[at:at] = random.randbytes(random.choice((1, 9)))
            case _:
                found += frame(random.randrange(12), random.randrange(256), 7, random.randbytes(4))
    return bytes(found)


KINDS = st.sampled_from([*range(10), 0x42])
PIECES = st.one_of(
    st.builds(
        frame, KINDS, st.sampled_from([0, 1, 4, 5, 8, 0xD, 0x25, 0xFF]),
        st.sampled_from([0, 1, 2, 3, LARGEST]), st.binary(max_size=40),
    ),
    st.sampled_from([SETTINGS, whole(), HEADERS, frame(frames.HEADERS, 4, 1, HEADERS)]),
    st.binary(max_size=30),
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=12), st.integers(1, 200))
def test_nothing_that_comes_breaks_it(pieces: list[bytes], step: int) -> None:
    """Whatever it is, it is an answer, or told to be none; or more is awaited."""
    data = SETTINGS + b"".join(pieces)
    session = asked()
    with contextlib.suppress(BadAnswer):
        for at in range(0, len(data), step):
            reply = session.receive(data[at : at + step])
            if reply is not None:
                Peer(TARGET).verdict(reply, Kind(0, "infer", rpc.checker(TARGET, 1)))
                session.settle()
            session.fill()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.randoms(use_true_random=False).map(lambda r: changed(BODY, r)))
def test_no_message_breaks_the_check(body: bytes) -> None:
    check: Any = rpc.checker(TARGET, 1)
    try:
        check({}, body)
    except BadAnswer:
        return
    assert rpc.read({}, body)["y"].shape == (1, 3)
