"""All clients together: too many connections, idle ones, bodies that are half arrived."""

import time
from typing import Any

from loadbench.engine.crowd import IDLE_S, REFUSED, Crowd
from loadbench.engine.http import Connection, Limits
from tests.test_serve_http import Nobody, Wire, message


def arrive(crowd: Crowd) -> tuple[Connection, Any]:
    """A new connection, and what is written to it."""
    wire: Any = Wire()
    found = Connection(Nobody(), Limits(), crowd)
    found.connection_made(wire)
    return found, wire


def begin(found: Connection, size: int) -> None:
    """Sends half of a body of `size` bytes."""
    head = b"POST /v2/models/fake/infer HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size
    found.data_received(head)
    found.data_received(bytes(size // 2))


def test_the_connection_that_is_idle_for_longest_makes_room() -> None:
    crowd = Crowd(most=3)
    (busy, busy_wire), (_, old_wire), (young, young_wire) = (arrive(crowd) for _ in range(3))
    now = time.monotonic()
    busy.data_received(message(1))
    crowd.sweep(now)  # nothing was idle for the whole time since the sweep before
    crowd.sweep(now + 1)
    young.data_received(message(1)[:9])
    young.data_received(message(1)[9:])  # Nobody answers: it stays in flight
    _, fourth = arrive(crowd)
    assert (old_wire.closed, busy_wire.closed, young_wire.closed) == (True, False, False)
    assert not fourth.written
    _, fifth = arrive(crowd)  # and now none is idle
    assert fifth.written.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 1\r\n" in fifth.written
    assert fifth.ended


def test_who_paused_only_between_two_requests_is_not_closed_for_others() -> None:
    crowd = Crowd(most=1)
    found, wire = arrive(crowd)
    now = time.monotonic()
    crowd.sweep(now)
    crowd.sweep(now + 1)
    found.data_received(b"GET /v2 HTTP/1.1\r\n\r\n")
    crowd.sweep(now + 2)
    _, second = arrive(crowd)
    assert not wire.closed
    assert b" 503 " in second.written


def test_a_flood_is_cut_off_without_a_word() -> None:
    crowd = Crowd(most=1)
    wires = [arrive(crowd)[1] for _ in range(1 + REFUSED + 5)]
    assert sum(wire.closed for wire in wires) == 5
    assert sum(b" 503 " in wire.written for wire in wires) == REFUSED


def test_a_connection_that_has_long_been_idle_is_closed_and_leaves_its_place() -> None:
    crowd = Crowd()
    found, wire = arrive(crowd)
    now = time.monotonic()
    crowd.sweep(now)
    crowd.sweep(now + 1)
    crowd.sweep(now + IDLE_S)
    assert not wire.closed
    crowd.sweep(now + IDLE_S + 2)
    assert wire.closed
    found.connection_lost(None)
    assert len(crowd) == 0


def test_of_half_arrived_bodies_the_one_that_stands_still_for_longest_is_given_up() -> None:
    crowd = Crowd(most_bytes=100_000)
    (slow, slow_wire), (quick, quick_wire), (third, third_wire) = (arrive(crowd) for _ in range(3))
    begin(slow, 80_000)
    begin(quick, 80_000)
    slow.data_received(bytes(2_000))
    quick.data_received(bytes(2_000))
    begin(third, 80_000)
    assert slow_wire.written.startswith(b"HTTP/1.1 503 ")
    assert not quick_wire.written
    assert not third_wire.written
    quick.connection_lost(None)
    third.data_received(bytes(40_000))
    assert crowd.arriving == 0


def test_small_chunks_count_with_what_they_cost() -> None:
    crowd = Crowd(most_bytes=100_000)
    found, wire = arrive(crowd)
    found.data_received(
        b"POST /v2/models/fake/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    found.data_received(b"2\r\nab\r\n" * 2_000)
    assert wire.written.startswith(b"HTTP/1.1 503 ")
