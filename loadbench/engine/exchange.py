"""One HTTP request and its answer, and what answers look like on the wire.

An infer request is itself the job that the batcher gets: one object from the socket to the model
and back. Connections are the business of `http`, what is in a body that of `endpoint`.
"""

from typing import Any, NamedTuple, Protocol

import msgspec

from loadbench.engine.job import Job, Ran, Reply, Served
from loadbench.engine.packing import packed
from loadbench.engine.returns import Client
from loadbench.engine.split import Whole
from loadbench.engine.tensors import Refused
from loadbench.engine.writer import Answer
from loadbench.units import MS

REASONS = {
    200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    408: "Request Timeout", 413: "Content Too Large", 415: "Unsupported Media Type",
    417: "Expectation Failed", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable",
}  # fmt: skip
CAUSE = "Loadbench-Cause"  # a header: tells 503s apart, "full" from "deadline"
LARGE = 65_536  # bytes of a request's outputs; what is larger is not copied once more to save time


def response(
    status: int, body: bytes = b"", *headers: str, kind: str = "application/json"
) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", *headers, f"Content-Length: {len(body)}"]
    if body:
        lines.append(f"Content-Type: {kind}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def refusal(fault: Refused, *headers: str) -> bytes:
    """The protocol's form of an error."""
    if fault.cause:
        headers = (*headers, f"{CAUSE}: {fault.cause}")
    return response(fault.status, msgspec.json.encode({"error": fault.message}), *headers)


def object_of(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is; an empty one is one without members. Raises Refused."""
    try:
        found = msgspec.json.decode(body) if body.strip() else {}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Refused(400, f"not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Refused(400, "the body is not an object")
    return found


class Inferring(Protocol):
    """Whoever answers infer requests."""

    def infer(self, exchange: "Exchange", data: bytes, start: int) -> None:
        """Answers, now or later. The body begins at `data[start]`. Raises Refused."""

    def abandon(self, exchange: "Exchange") -> None:
        """The client of an exchange in flight is gone."""

    def announce(self, number: int) -> None:
        """So many requests have begun to arrive; −1: one has come, or will not any more."""

    def settle(self, exchange: "Exchange", result: Served | Refused) -> bool:
        """Answers by the outcome; False if it is no good answer."""

    def form(self, exchange: "Exchange", ran: Ran) -> "Form | None":
        """What the answers to requests of the same plan and batch share; None: write each alone."""


class Sending(Protocol):
    """Whoever sends answers in the order of their requests."""

    @property
    def client(self) -> Client | None:
        """Who is known by the connection; None: nobody."""

    def flush(self) -> None:
        """Sends those that are ready."""

    def send(self, exchange: "Exchange", data: bytes) -> None:
        """Sends this one, or keeps it until its turn."""


class Form(NamedTuple):
    """The common parts of a batch's answers: all outputs in binary, the same rows in each."""

    raw: bytes  # of all rows, each with all of its outputs
    step: int  # bytes of a row
    size: int  # bytes of a request
    middle: bytes  # the answer from behind the request's own times up to the tensors


class Exchange(Job):
    """One request and the place of its answer among the connection's."""

    header_length: int | None = None  # of the binary tensor extension; −1: not a number
    encoding = b""
    accepts = b""  # encodings of the answer
    expects = b""
    of_page = False  # a browser sends it for some web page
    endpoint: Inferring | None = None  # who has it in hand
    asked: Whole | None = None  # what the endpoint made of it, if it is too large for a job
    last = False  # the connection ends after it
    data: bytes | None = None  # the answer, once there is one
    rest = b""  # sent `gap_s` after it
    gap_s = 0.0
    hang_up = False  # after `data`

    def __init__(self, connection: Sending) -> None:  # the rest stands on the class
        self.connection = connection

    def answer(self, data: bytes) -> None:
        """Gives the answer; it is sent when those before it are."""
        self.endpoint = None
        if self.accepts and self.plan is not None and not (self.rest or self.hang_up):
            data = packed(data, self.accepts)
        self.data = data
        self.connection.flush()

    @property
    def client(self) -> Client | None:
        return self.connection.client

    @property
    def reply(self) -> Reply:
        return self._reply or self._settle

    @reply.setter
    def reply(self, reply: Reply) -> None:
        self._reply = reply

    def _settle(self, result: Served | Refused) -> bool:
        return self.endpoint is not None and self.endpoint.settle(self, result)

    def served(self, ran: Ran, at: int) -> bool:
        if self._reply is not None or self.endpoint is None:
            return super().served(ran, at)
        plan = id(self.plan)
        if plan not in ran.forms:
            ran.forms[plan] = self.endpoint.form(self, ran)
        form = ran.forms[plan]
        if form is None:
            return super().served(ran, at)
        raw, step, size, middle = form
        at *= step
        self.endpoint = None
        self.connection.send(
            self,
            b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
            b"Server-Timing: queue;dur=%.3f, batch;dur=%.3f%b%b"
            % (self.queue_ns / MS, self.batch_wait_ns / MS, middle, raw[at : at + size]),
        )
        return True


def written(answer: Answer, served: Served) -> bytes:
    """The answer to an infer request."""
    tensors = answer.tensors
    kind = b"octet-stream" if answer.binary else b"json"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/%b\r\n" % kind
    times = b"Server-Timing: %bqueue;dur=%.3f, batch;dur=%.3f" % (
        b"cache;desc=hit, " if served.cached else b"", served.queue_ns / MS,
        served.batch_wait_ns / MS,
    )  # fmt: skip
    tail = sum(map(len, tensors))
    middle = middle_of(answer, tail, served.compute_ns, served.size, served.ride)
    return b"".join((head, times, middle, *tensors))


def middle_of(answer: Answer, tail: int, compute_ns: int, size: int, ride: bytes) -> bytes:
    """An answer from behind the request's own times up to its `tail` bytes of tensors."""
    length = len(answer.header)
    timing = b", compute;dur=%.3f, size;desc=%d%b\r\n" % (compute_ns / MS, size, ride)
    extension = b"Inference-Header-Content-Length: %d\r\n" % length if answer.binary else b""
    return b"%b%bContent-Length: %d\r\n\r\n%b" % (timing, extension, length + tail, answer.header)
