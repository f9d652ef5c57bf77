"""Asks the engine what a gRPC call asks, in the words of HTTP, and reads its answer.

So both fronts give the same answers, whatever stands behind a path. An infer request is the same
object for the batcher, from the first byte to the answer; JSON is written and read once for
requests and answers of the same form.
"""

import asyncio
from typing import Any, NamedTuple

import msgspec

from loadbench.engine.exchange import CAUSE, Exchange
from loadbench.engine.http import Handler
from loadbench.engine.tensors import Refused
from loadbench.units import SECOND

_CAUSE = b"\r\n" + CAUSE.encode() + b": "
_RETRY = b"\r\nRetry-After: "
_JSON_LENGTH = b"\r\nInference-Header-Content-Length: "


class Heard(NamedTuple):
    """A good answer: its JSON, and the tensors behind it."""

    header: bytes
    tensors: memoryview


class Declined(Refused):
    """An answer that is an error; `retry_s` says when it is worth to ask again, if ever."""

    def __init__(self, status: int, message: str, cause: str, retry_s: int) -> None:
        super().__init__(status, message, cause)
        self.retry_s = retry_s


class _Waiting:
    """Stands where a connection stands for HTTP: takes one exchange's answer."""

    client = None  # a channel has the requests of many

    def __init__(self, answer: "asyncio.Future[bytes]") -> None:
        self._answer = answer
        self.exchange = Exchange(self)

    def flush(self) -> None:
        """The exchange has its answer."""
        data, exchange = self.exchange.data, self.exchange
        if data is None:
            return
        if exchange.rest:  # as the fake engine does on demand
            whole = data + exchange.rest
            asyncio.get_running_loop().call_later(exchange.gap_s, self._tell, whole)
        else:
            self._tell(data)

    def send(self, _: Exchange, data: bytes) -> None:
        """The exchange has this answer."""
        self._tell(data)

    def _tell(self, data: bytes) -> None:
        if not self._answer.done():  # a client that is gone waits for none
            self._answer.set_result(data)


async def post(
    handler: Handler, path: bytes, body: bytes, header_length: int | None = None,
    limit_s: float | None = None,
) -> Heard:  # fmt: skip
    """What a POST gives, of JSON or, with `header_length`, of binary tensors behind it.

    `limit_s` is how long the client waits. Raises Refused; cancelled, it gives up the request's
    place.
    """
    endpoint = handler.endpoint(path)
    if endpoint is None:
        return read(handler.answer(b"POST", path, body))
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    exchange = _Waiting(answer).exchange
    exchange.endpoint = endpoint
    exchange.header_length = header_length
    if limit_s is not None:
        exchange.patience_ns = max(1, int(limit_s * SECOND))
    endpoint.infer(exchange, body, 0)
    try:
        return read(await answer)
    except asyncio.CancelledError:
        if exchange.endpoint is not None:  # it has not been answered just now
            exchange.endpoint.abandon(exchange)
        raise


def get(handler: Handler, path: bytes) -> Any:
    """What the JSON of a GET says. Raises Refused."""
    return decoded(read(handler.answer(b"GET", path, b"")))


def decoded(heard: Heard) -> Any:
    """An answer that is all JSON."""
    return msgspec.json.decode(heard.header) if heard.header else {}


def read(answer: bytes) -> Heard:
    """A whole HTTP answer. Raises Refused if it is an error, or not whole."""
    end = answer.find(b"\r\n\r\n") + 4
    status = int(answer[9:12])
    if status != 200:
        found = msgspec.json.decode(answer[end:]) if len(answer) > end else {}
        cause = _value(answer, _CAUSE, end).decode()
        retry = int(_value(answer, _RETRY, end) or 0)
        raise Declined(status, found.get("error", f"status {status}"), cause, retry)
    if len(answer) - end != int(_value(answer, b"\r\nContent-Length: ", end)):
        raise Refused(503, "the answer was cut off")
    length = _value(answer, _JSON_LENGTH, end)
    behind = end + int(length) if length else len(answer)
    return Heard(answer[end:behind], memoryview(answer)[behind:])


def _value(answer: bytes, name: bytes, end: int) -> bytes:
    """A header's value; nothing if it is not there."""
    at = answer.find(name, 0, end)
    return answer[at + len(name) : answer.index(b"\r\n", at + 2)] if at >= 0 else b""
