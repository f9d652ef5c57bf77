"""How requests fail: each in its own way, counted exactly, with an example, and never sent again.

`test_lane.test_every_kind_of_answer` has what servers answer; here is all else: connections that
are not made, targets that die and come back, what is said of each, and who waits how long.
"""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.load.answer import Kind
from loadbench.load.connection import IDLE, SENDING, WAITING, Address, Connection
from loadbench.load.examples import example
from loadbench.load.patience import Patience
from loadbench.load.ready import several
from loadbench.load.rest import Rest
from loadbench.load.schedule import NEVER
from loadbench.plan import RequestPlan
from loadbench.printable import harmless_json, printable
from loadbench.targets import kserve, plain
from loadbench.units import MS, SECOND
from tests.lanes import Known, drive, known_server, plan

LOOPS = ("constant", "closed")


@contextmanager
def bound() -> Iterator[tuple[socket.socket, int]]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock, sock.getsockname()[1]


WORDS = {
    "wrong": "y has shape [1, 2] instead of [1, 3]",
    "garbage": "not an HTTP answer",
    "long": "bytes came after the end of the answer",
    "short": "the server closed the connection after 195 bytes",
    "close": "the server closed the connection without a byte of an answer",
    "busy": "HTTP/1.1 503 Service Unavailable",
    "hang": "no byte of an answer came in 100 ms",
    "trickle": "195 bytes of an answer came in 100 ms, not the whole",
    "reset": "Connection reset by peer, 0 bytes of an answer had come",
}


@pytest.mark.parametrize("misbehave", WORDS)
def test_the_first_example_of_a_failure_is_kept(misbehave: str) -> None:
    with known_server(misbehave=misbehave) as server:
        found = drive(plan(server.port, rate=50, seconds=0.2, timeout_ns=100 * MS))
    ((name, first),) = found.examples.items()
    assert set(found.failed) == {name}
    assert WORDS[misbehave] in first.reason
    assert (first.second, first.request, first.peer) == (0, "infer", f"127.0.0.1:{server.port}")
    assert 0 < first.after_ns < SECOND
    shown = {"busy": '{"error":"busy"}', "garbage": "no HTTP at all", "wrong": '{"outputs"'}
    assert shown.get(misbehave, "") in first.answer
    assert ("\n" in first.answer, len(first.answer) < 900) == (False, True)


def test_an_example_of_warm_up_is_none_of_the_load() -> None:
    with known_server(misbehave="busy") as server:
        found = drive(plan(server.port, rate=100, seconds=0.5, warmup_ns=SECOND // 2))
    warm, *recorded = found.windows
    assert warm.examples["http_503"].second == -1
    assert recorded[0].examples["http_503"].second == 0


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)))
def test_what_came_is_safe_to_print(data: bytes | str) -> None:
    found = printable(data)
    assert found.isprintable()
    assert len(found) <= 10 * 300 + 1


def test_what_a_server_puts_into_a_reason_is_safe_to_print_too() -> None:
    connection = Connection(Kind(0, "infer", kserve.checker(plan(1).endpoint, 1)), 0)
    body = b'{"outputs":[{"name":"\\u001b[2J","datatype":"FP32","shape":[1,3],"data":[1,2,3]}]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert connection.take(head + body) == "bad_answer"
    found = example(connection, SECOND, "peer", head + body, {})
    assert found.reason == "outputs \\x1b[2J instead of y"
    assert found.answer == body.decode()


@given(st.recursive(st.text(), lambda part: st.lists(part) | st.dictionaries(st.text(), part)))
def test_a_line_of_a_log_is_safe_to_show(value: Any) -> None:
    def texts(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            yield from part
            part = list(part.values())
        if isinstance(part, list):
            for inner in part:
                yield from texts(inner)
        elif isinstance(part, str):
            yield part.replace("\n", "")

    found = msgspec.json.decode(harmless_json(msgspec.json.encode(value)))
    assert all(text.isprintable() for text in texts(found))
    if all(text.isprintable() for text in texts(value)) and "\\n" not in repr(value):
        assert found == value


def test_words_stay_readable() -> None:
    assert printable("müde\x1b[31m\u202e".encode() + b"\xff") == "müde\\x1b[31m\\u202e\\xff"


@pytest.mark.parametrize("arrivals", LOOPS)
def test_refused(arrivals: str) -> None:
    """In an open loop every arrival is an attempt; in a closed one the places rest in between."""
    with bound() as (_, port):  # bound, not listening
        found = drive(plan(port, rate=100, seconds=0.5, arrivals=arrivals, concurrency=2))
    found.check()
    assert found.failed == {"refused": found.sum("asked")}
    assert found.sum("sent") == found.sum("asked")
    assert found.sum("asked") == 50 if arrivals == "constant" else found.sum("asked") < 25
    assert found.examples["refused"].reason == "Connection refused"


@pytest.mark.parametrize("arrivals", LOOPS)
def test_a_target_that_does_not_take_connections_in_time(arrivals: str) -> None:
    with bound() as (listener, port):
        listener.listen(0)
        with socket.create_connection(("127.0.0.1", port)):  # fills its backlog
            wanted = plan(port, rate=50, seconds=0.3, arrivals=arrivals, concurrency=3)
            found = drive(msgspec.structs.replace(wanted, connect_timeout_ns=100 * MS))
    found.check()
    assert found.failed == {"connect_timeout": found.sum("sent")}
    first = found.examples["connect_timeout"]
    assert first.reason == "not connected within 100 ms"
    assert 100 * MS <= first.after_ns < 200 * MS


def test_a_request_that_does_not_get_out_in_time() -> None:
    with bound() as (listener, port):
        listener.listen(8)  # takes connections and reads nothing
        wanted = plan(port, rate=20, seconds=0.1, timeout_ns=150 * MS)
        where = msgspec.structs.replace(wanted.endpoint, protocol="http", method="POST")
        requests = (RequestPlan("large", body="x" * 8_000_000),)
        found = drive(msgspec.structs.replace(wanted, endpoint=where, requests=requests))
    found.check()
    assert found.failed == {"timeout": 2}
    assert "bytes of the request could not be sent in 150 ms" in found.examples["timeout"].reason


def test_an_answer_before_the_request_is_out_is_taken_for_what_it_says() -> None:
    """The server refuses a large body by its head, and closes without having read it."""

    def refuse() -> None:
        taken, _ = listener.accept()
        with taken:
            taken.recv(1000)
            taken.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")

    with bound() as (listener, port):
        listener.listen(8)
        thread = threading.Thread(target=refuse)
        thread.start()
        wanted = plan(port, rate=20, seconds=0.05)
        where = msgspec.structs.replace(wanted.endpoint, protocol="http", method="POST")
        requests = (RequestPlan("large", body="x" * 8_000_000),)
        found = drive(msgspec.structs.replace(wanted, endpoint=where, requests=requests))
        thread.join()
    found.check()
    assert found.failed == {"http_413": 1}
    assert found.examples["http_413"].reason == "HTTP/1.1 413 Too Large"


def test_an_answer_to_nothing_is_told_and_is_no_request() -> None:
    with known_server(misbehave="stray", every=2) as server:
        found = drive(plan(server.port, rate=10, seconds=1))
    found.check()
    assert found.sum("done") == found.sum("sent") == server.counts["got"] == 10
    (note,) = found.finished.notes
    assert note.code == "unasked"
    assert note.text.startswith(f"{server.counts['bad']} times")
    assert "first in 00:00: HTTP/1.1 408 Request Timeout" in note.text


def test_an_answer_to_nothing_tells_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "Request Timeout")
    with known_server(misbehave="stray", every=2) as server:
        wanted = plan(server.port, rate=10, seconds=1)
        where = msgspec.structs.replace(wanted.endpoint, headers={"X-Key": "$SECRET"})
        found = drive(msgspec.structs.replace(wanted, endpoint=where))
    (note,) = found.finished.notes
    assert "HTTP/1.1 408 $SECRET" in note.text


class Outage(threading.Thread):
    """Kills a server and starts it again at the same port."""

    def __init__(self, first: Known, after_s: float, length_s: float) -> None:
        super().__init__()
        self._first = first
        self._after, self._length = after_s, length_s
        self._over = threading.Event()
        self.second: Known | None = None

    def run(self) -> None:
        time.sleep(self._after)
        self._first.process.kill()
        self._first.process.wait()
        time.sleep(self._length)
        with known_server(port=self._first.port) as self.second:
            self._over.wait()

    def counts(self) -> dict[str, list[int]]:
        self._over.set()
        self.join()
        assert self.second is not None
        return self.second.counts


@pytest.mark.parametrize("arrivals", LOOPS)
def test_a_target_that_comes_back_is_used_again_at_once(arrivals: str) -> None:
    """The places of the closed loop have long been resting 1.28 s each when it does."""
    with known_server() as first:
        wanted = plan(first.port, rate=200, seconds=4, arrivals=arrivals, concurrency=16)
        outage = Outage(first, 0.4, 1.5)
        outage.start()
        found = drive(wanted)
        counts = outage.counts()
    found.check()
    assert set(found.failed) <= {"refused", "reset", "closed"}
    assert found.failed["refused"] > 20
    assert found.windows[-1].failed == {}
    assert counts["got"] == counts["good"]
    made = counts["made"]
    if arrivals == "constant":
        assert found.sum("asked") == found.sum("sent") == 800
    else:
        assert len(made) == 16
        assert found.failed["refused"] < 16 * 20
    assert made[0] < 500 * MS
    assert made[-1] < 700 * MS or arrivals == "constant"


def test_places_rest_longer_each_time_but_one_tries_often() -> None:
    rest = Rest()
    for _ in range(3):
        rest.add(0, 8)
    attempts = []
    for _ in range(30):
        now = rest.next
        attempts.append(now)
        rest.add(now, rest.take(now) + 1)
    gaps = [after - before for before, after in zip([0, *attempts], attempts, strict=False)]
    assert max(gaps) == 100 * MS
    assert attempts[-1] > 15 * 100 * MS


def test_a_place_that_fails_once_rests_shortly() -> None:
    rest = Rest()
    rest.add(SECOND, 1)
    assert rest.next == SECOND + 10 * MS
    assert rest.take(rest.next) == 1
    rest.add(2 * SECOND, 2)
    assert rest.next == 2 * SECOND + 20 * MS
    assert Rest().next == NEVER


def test_once_one_gets_through_none_rests_any_longer() -> None:
    rest = Rest()
    for failures in (3, 5, 8):
        rest.add(0, failures)
    rest.wake(MS)
    assert [(rest.next, rest.take(MS)) for _ in range(3)] == [(MS, 0)] * 3
    rest.wake(MS)
    assert rest.next == NEVER


def under_way(begun: int, state: int) -> Connection:
    connection = Connection(Kind(0, "infer", plain.check), 0)
    connection.begun, connection.state = begun, state
    return connection


def test_patience_ends_for_each_in_its_time_and_for_no_other() -> None:
    """Looked at each ms; connections end, connect and begin anew in between."""
    known = {
        0: under_way(0, SENDING),
        1: under_way(30 * MS, WAITING),
        2: under_way(0, IDLE),
        3: under_way(10 * MS, 0),
        4: under_way(20 * MS, 0),
    }
    patience = Patience(known, 40 * MS, 100 * MS)
    ended: dict[int, int] = {}
    for now in range(0, 300 * MS, MS):
        if now == 45 * MS:
            known[4].state = WAITING  # has connected
        if now == 90 * MS:
            known[1].begun = now  # has been answered and begun anew
        if now == 150 * MS:
            known[2].begun, known[2].state = now, WAITING
        if now < patience.next:
            continue
        for connection in patience.expired(now):
            (fd,) = (fd for fd, found in known.items() if found is connection)
            ended[fd] = now
            del known[fd]
    assert ended == {3: 50 * MS, 0: 100 * MS, 4: 120 * MS, 1: 190 * MS, 2: 250 * MS}


def test_patience_gives_up_a_limited_number_at_once() -> None:
    known = {fd: under_way(0, WAITING) for fd in range(1000)}
    patience = Patience(known, 40 * MS, 100 * MS)
    patience.expired(90 * MS)
    while known:
        found = patience.expired(100 * MS)
        assert 0 < len(found) <= 256
        for connection in found:
            known = {fd: other for fd, other in known.items() if other is not connection}
        if known:
            assert patience.next <= 100 * MS


@pytest.mark.parametrize(
    ("host", "code"), [("no.such.host.invalid", 3), ("a" * 70, 2), ("a..b", 2)]
)
def test_a_name_that_is_not_known_is_said_once(host: str, code: int, tmp_path: Path) -> None:
    command = ["run", "steady", "--target", f"http://{host}:8000", "--out", str(tmp_path)]
    found = subprocess.run(
        [sys.executable, "-m", "loadbench", *command], capture_output=True, text=True, timeout=60
    )
    assert found.returncode == code, found.stderr
    said = [line for line in found.stderr.splitlines() if not line.startswith("run ")]
    assert len(said) == 2
    assert host in said[0]
    assert "→" in said[1]


def test_a_name_of_several_servers_is_doubted() -> None:
    known = [Address(socket.AF_INET, (f"10.0.0.{last}", 80)) for last in (2, 3, 3)]
    known.append(Address(socket.AF_INET6, ("::1", 80, 0, 0)))
    (note,) = several("pods.local", known, known[1])
    assert note.text.startswith("pods.local has 2 addresses (10.0.0.2, 10.0.0.3): ")
    assert note.text.endswith("all of the load goes to 10.0.0.3")
    assert several("localhost", known[2:], known[3]) == []
