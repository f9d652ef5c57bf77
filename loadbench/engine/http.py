"""HTTP/1.1 for the engine: one `Connection` per client on asyncio's Protocol, parsed by httptools.

Requests may be pipelined; answers go out in their order. What a client may cost is bounded: sizes
of head and body, requests in flight per connection, the time a request may take to arrive, and
what a compressed body may grow to. What all of them together may cost is the business of `crowd`,
what is asked and answered that of `serving`.
"""

import time
import traceback
from asyncio import BaseTransport, Protocol, Transport, get_running_loop
from collections import deque
from typing import NamedTuple, cast
from typing import Protocol as Interface

import httptools

from loadbench.engine import log
from loadbench.engine.crowd import Crowd
from loadbench.engine.exchange import Exchange, Inferring, refusal
from loadbench.engine.packing import inflated
from loadbench.engine.returns import Client
from loadbench.engine.tensors import Refused
from loadbench.units import MS

HEAD_BYTES = 64 * 1024
KNOWN_BYTES = 4096  # of a head that is kept for its connection
IN_FLIGHT = 128  # requests of one connection; more are not read until some are answered
SLOWEST_S = 10.0  # for a request to arrive, and a second more for each…
SLOWEST_RATE = 64 * 1024  # …of these bytes received
STUCK_S = 30.0  # an answer that a client does not read
# Headers that say how long a client waits, in ms; proxies of Envoy's kind send the second
PATIENCE = (b"timeout-ms", b"x-envoy-expected-rq-timeout-ms")
PIECE_BYTES = 64  # what keeping a piece of a body takes beside its bytes
LINGER_S = 2.0  # after an answer that ends the connection, for the client to read it


class Limits(NamedTuple):
    """What a client may send."""

    body: int = 64 << 20


class Handler(Interface):
    """What a connection needs of the engine."""

    def endpoint(self, path: bytes) -> Inferring | None:
        """Who answers if the path is an infer call; asked anew for each."""

    def answer(self, method: bytes, path: bytes, body: bytes) -> bytes:
        """A whole answer to anything else."""


class _Known(NamedTuple):
    """A head that this client has sent before, and what httptools found in it."""

    head: bytes
    start: int  # of the body
    total: int  # bytes with the body
    path: bytes
    header_length: int | None
    wishes: tuple[bytes, int] | None  # encodings of the answer; how long the client waits


class Connection(Protocol):
    """One client. Everything runs on the event loop's thread."""

    def __init__(self, handler: Handler, limits: Limits, crowd: Crowd) -> None:
        self.client = Client()
        self._handler = handler
        self._limits = limits
        self._crowd = crowd
        self.stirred = True  # something came since the last sweep
        self._transport: Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Exchange] = deque()
        self._ended = False  # nothing that comes is read any more
        self._begun = 0.0  # when the request that is arriving began; 0: none is
        self._in_head = False
        self._asks = False  # whether to send the body of the request that is arriving
        self._head_bytes = self._received = 0
        self._paused = self._full = False
        self._abort_at = 0.0
        self._path = b""
        self._body: list[bytes] = []
        self._body_bytes = self._held = 0  # what it takes, and what of that the crowd knows of
        self._exchange = Exchange(self)
        self._piece: bytes | None = None  # received last, if a request began with it
        self._known: _Known | None = None
        self._announced: Inferring | None = None  # to whom the request that is arriving is

    # ---- asyncio

    def connection_made(self, transport: BaseTransport) -> None:
        self._transport = cast(Transport, transport)
        self._crowd.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._ended = True
        self._crowd.leave(self)
        self._retract()
        for exchange in self._waiting:
            if exchange.endpoint is not None:
                exchange.endpoint.abandon(exchange)
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self.stirred = True
        known = self._known
        if (
            known is None
            or len(data) != known.total
            or self._begun
            or not data.startswith(known.head)
            or (endpoint := self._handler.endpoint(known.path)) is None
        ):
            self._parse(data)
            return
        # A whole request with the head of an earlier one needs no parser: the same bytes mean the
        # same, and the body's length is part of them
        exchange = Exchange(self)
        exchange.endpoint = endpoint
        exchange.header_length = known.header_length
        if known.wishes is not None:
            exchange.accepts, exchange.patience_ns = known.wishes
        waiting = self._waiting
        waiting.append(exchange)
        if len(waiting) >= IN_FLIGHT:
            self._regulate()
        try:
            endpoint.infer(exchange, data, known.start)
        except Refused as fault:
            exchange.answer(refusal(fault))
        except Exception:  # noqa: BLE001  a fault of ours, not of the client's
            log.write(traceback.format_exc().rstrip())
            self._exchange = exchange
            self.refuse(Refused(500, "internal error"))

    def _learn(self, exchange: Exchange, body: bytes) -> None:
        """Keeps the head of a request that came in one piece and asked for nothing special."""
        piece = self._piece
        if piece is None or exchange.encoding or exchange.expects or exchange.of_page:
            return
        end = piece.find(b"\r\n\r\n") + 4
        if len(piece) == end + len(body) and end <= KNOWN_BYTES:
            wishes = (exchange.accepts, exchange.patience_ns)
            self._known = _Known(
                piece[:end], end, len(piece), self._path, exchange.header_length,
                wishes if any(wishes) else None,
            )  # fmt: skip

    def _parse(self, data: bytes) -> None:
        self._piece = None if self._begun else data
        arriving = self._exchange if self._begun else None
        before = self._body_bytes
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # the request itself was answered as if it had not asked to switch
        except httptools.HttpParserCallbackError:  # a fault of ours, not of the client's
            log.write(traceback.format_exc().rstrip())
            self.refuse(Refused(500, "internal error"))
        except httptools.HttpParserError as error:
            self.refuse(Refused(400, f"not HTTP: {error}"))
        finally:
            self._piece = None
        if self._begun and self._exchange is arriving and self._body_bytes == before:
            # All of it is of one head, or of what chunks have beside their bytes: trailers too
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.refuse(Refused(431, f"headers of more than {HEAD_BYTES} bytes"))
        else:
            self._head_bytes = 0
        if self._begun and not self._in_head and self._announced is None and not self._ended:
            self._announce()
        if self._body_bytes != self._held:
            self._held = self._body_bytes
            self._crowd.hold(self, self._held)

    def _announce(self) -> None:
        """Tells whoever will answer that a request's head is here and its body is not."""
        if self._parser.get_method() == b"POST":
            self._announced = self._handler.endpoint(self._path)
            if self._announced is not None:
                self._announced.announce(1)

    def _retract(self) -> None:
        if self._announced is not None:
            self._announced.announce(-1)
            self._announced = None

    def pause_writing(self) -> None:
        self._full = True
        self._abort_at = time.monotonic() + STUCK_S
        self._regulate()

    def resume_writing(self) -> None:
        self._full = False
        self._abort_at = 0.0
        self._regulate()

    # ---- httptools

    def on_message_begin(self) -> None:
        self._begun = time.monotonic()
        self._in_head = True
        self._head_bytes = self._received = self._body_bytes = 0
        self._path = b""
        self._exchange = Exchange(self)

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:  # a trailer says nothing of how the body is to be read
            return
        name = name.lower()
        if name == b"inference-header-content-length":
            number = len(value) <= 12 and value.isdigit()
            self._exchange.header_length = int(value) if number else -1
        elif name == b"content-length":
            if len(value) > 12 or int(value) > self._limits.body:
                self._too_large()
        elif name == b"content-encoding":
            self._exchange.encoding = value.lower()
        elif name == b"accept-encoding":
            self._exchange.accepts = value
        elif name in PATIENCE:
            self._wait_at_most(value)
        elif name == b"expect":
            self._exchange.expects = value.lower()
        elif name == b"origin":
            self._exchange.of_page = True

    def _wait_at_most(self, value: bytes) -> None:
        """A request is worth nothing to its client after so many ms; 0 says nothing."""
        if not value.isdigit() or len(value) > 12:
            self.refuse(Refused(400, f"{PATIENCE[0].decode()} is not a number of milliseconds"))
        else:
            self._exchange.patience_ns = int(value) * MS

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._ended or not self._exchange.expects:
            return
        if self._exchange.expects != b"100-continue":
            self.refuse(Refused(417, "the only expectation is 100-continue"))
        else:
            self._asks = True
            self._go_on()

    def _go_on(self) -> None:
        """Asks for the body, in its turn: behind the answers to the requests before."""
        if self._transport and not (self._waiting or self._ended):
            self._asks = False
            self._begun = time.monotonic()  # the client waited for this
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._ended:
            return
        self._body.append(body)
        self._body_bytes += len(body) + PIECE_BYTES
        if len(self._body) > 1 and self._received > self._limits.body + HEAD_BYTES:
            self._too_large()

    def on_message_complete(self) -> None:
        self._begun = 0.0
        self._asks = False
        self._retract()
        parts, self._body, self._body_bytes = self._body, [], 0
        if self._ended:
            return
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        exchange = self._exchange
        parser = self._parser
        path, method = self._path, parser.get_method()
        exchange.last = (
            not parser.should_keep_alive()
            or parser.get_http_version() == "1.0"
            or parser.should_upgrade()
        )
        self._ended = exchange.last
        self._waiting.append(exchange)
        if len(self._waiting) >= IN_FLIGHT:
            self._regulate()
        try:
            if exchange.encoding:
                body = inflated(body, exchange.encoding, self._limits.body)
            endpoint = self._handler.endpoint(path) if method == b"POST" else None
            if endpoint is not None:
                exchange.endpoint = endpoint
                self._learn(exchange, body)
                endpoint.infer(exchange, body, 0)
                return
            answer = self._handler.answer(b"GET" if method == b"HEAD" else method, path, body)
        except Refused as fault:
            answer = refusal(fault)
        if method == b"HEAD":
            answer = answer[: answer.index(b"\r\n\r\n") + 4]
        exchange.answer(answer)

    # ---- answers

    def send(self, exchange: Exchange, data: bytes) -> None:
        """Sends an answer now if it is its turn; as `Exchange.answer`, which can do more."""
        waiting, transport = self._waiting, self._transport
        plain = not (exchange.last or exchange.accepts)
        if len(waiting) == 1 and waiting[0] is exchange and transport and plain:
            waiting.popleft()
            transport.write(data)
            if self._asks:
                self._go_on()
        else:
            exchange.answer(data)

    def flush(self) -> None:
        """Sends the answers that are ready, in the order of their requests."""
        waiting, transport = self._waiting, self._transport
        if transport is None:
            return
        was_full = len(waiting) >= IN_FLIGHT
        while waiting and (data := waiting[0].data) is not None:
            exchange = waiting[0]
            if exchange.last:
                data = data.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            transport.write(data)
            exchange.data = None
            if exchange.hang_up:
                transport.close()
                return
            if exchange.rest:
                get_running_loop().call_later(exchange.gap_s, self._send_rest, exchange)
                return
            waiting.popleft()
            if exchange.last:
                self._end(transport)
                return
        if self._asks:
            self._go_on()
        if was_full:
            self._regulate()

    def _send_rest(self, exchange: Exchange) -> None:
        if self._transport is None:
            return
        self._transport.write(exchange.rest)
        self._waiting.popleft()
        if exchange.last:
            self._end(self._transport)
        self.flush()

    def _end(self, transport: Transport) -> None:
        """Closes; what the client may still be sending is read away for a while, because a close
        with unread bytes would make it lose the answer."""
        self._ended = True
        if not self._begun:
            transport.close()
        elif transport.can_write_eof() and not transport.is_closing():
            transport.resume_reading()
            transport.write_eof()
            self._abort_at = time.monotonic() + LINGER_S

    def refuse(self, fault: Refused) -> None:
        """Answers a request that was not read to its end, and ends the connection."""
        if self._ended:
            return
        self._ended = True
        self._retract()
        self._body, self._body_bytes = [], 0
        self._begun = self._begun or time.monotonic()
        self._exchange.last = True
        self._waiting.append(self._exchange)
        headers = ("Retry-After: 1",) if fault.status == 503 else ()
        self._exchange.answer(refusal(fault, *headers))

    def _too_large(self) -> None:
        self.refuse(Refused(413, f"a body of more than {self._limits.body} bytes"))

    def _regulate(self) -> None:
        """Reads no further while the client leaves answers unread or has too much in flight."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        pause = not self._ended and (self._full or len(self._waiting) >= IN_FLIGHT)
        if pause != self._paused:
            self._paused = pause
            if pause:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def sweep(self, now: float) -> None:
        """Ends what takes too long. Called every second."""
        if self._transport is None:
            return
        if self._abort_at and now > self._abort_at:
            self._transport.abort()
            return
        allowed_s = SLOWEST_S + self._received / SLOWEST_RATE
        reading = self._begun and not (self._ended or self._paused or self._asks)
        if reading and now - self._begun > allowed_s:
            self.refuse(Refused(408, "the request takes too long to arrive"))

    def is_idle(self) -> bool:
        """Whether nothing is in flight now."""
        return not (self._waiting or self._begun or self._full or self._ended)

    def close_idle(self) -> None:
        """Closes the connection if no request is in flight, else after the answers."""
        if self._waiting:
            self._waiting[-1].last = True
        elif self._transport is not None:
            self._transport.close()
