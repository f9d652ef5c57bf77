"""A connection of the lane whose answers come as events, token by token: when each came, beside
what becomes of the request as a whole.

The time to the first token counts from when the request was due, as all of its latency does.
"""

import time
from collections.abc import Callable
from functools import partial

from loadbench.load.answer import Incoming, Kind
from loadbench.load.tls import Shared, TlsConnection
from loadbench.load.tokens import Pieces, Tokens
from loadbench.targets.events import Events
from loadbench.targets.openai import EMPTY, STREAM, UNENDED, Usage, piece, usage
from loadbench.targets.wire import BadAnswer, decoded

_SHOWN = 4096  # bytes kept of an answer


class _Answer(Incoming):
    """One answer, as a whole or as events. `pieces` with text were in what was fed last."""

    def __init__(self) -> None:
        super().__init__()
        self.streams = False  # it comes as events
        self.ended = False  # as a completion ends
        self.told = False  # something of a completion, were it only why it ends
        self.usage: Usage | None = None
        self.pieces = 0
        self._events = Events()
        self._fault: BadAnswer | None = None  # httptools would hide it in an error of its own
        self._kept = 0

    def feed(self, data: bytes) -> None:
        self.pieces = 0
        super().feed(data)
        if self._fault is not None:
            raise self._fault

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        kind = self.headers.get(b"content-type", b"").lower()
        self.streams = 200 <= self.status < 300 and kind.startswith(STREAM)
        if self.streams and self.headers.get(b"content-encoding", b"identity") != b"identity":
            self._fault = BadAnswer("the events are compressed, which was not asked for")

    def on_body(self, data: bytes) -> None:
        if not self.streams:
            super().on_body(data)
            return
        if self._kept < _SHOWN:
            super().on_body(data[: _SHOWN - self._kept])
            self._kept += len(data)
        self._read(data)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.complete and self.streams:
            self._read(None)

    def _read(self, data: bytes | None) -> None:
        """The events in it, or what is left of them at the end."""
        try:
            for event in self._events.end() if data is None else self._events.feed(data):
                found = piece(event)
                self.pieces += found.says
                self.ended = self.ended or found.ends
                self.told = self.told or found.tells
                self.usage = found.usage or self.usage
        except BadAnswer as error:
            self._fault = self._fault or error

    def end(self) -> bool:
        self.pieces = 0
        before, found = self.complete, super().end()
        if found and not before and self.streams:
            self._read(None)
        if self._fault is not None:
            raise self._fault
        return found

    def verdict(self, kind: Kind) -> str:
        if not self.streams:
            found = super().verdict(kind)
            if not found:
                self.usage = usage(decoded(self.headers, b"".join(self._body)))
            return found
        if not self.ended:
            raise BadAnswer(UNENDED)
        if not self.told:
            raise BadAnswer(EMPTY)
        return ""


class StreamConnection(TlsConnection):
    """TLS only where the target's address says so."""

    __slots__ = ("_pieces",)
    _incoming: _Answer | None

    def __init__(self, kind: Kind, tries: int, shared: Shared | None, tokens: Tokens) -> None:
        super().__init__(kind, tries, shared)
        self._pieces = Pieces(tokens)

    @property
    def first(self) -> int:
        return self._pieces.first

    def _piece(self, data: bytes) -> str | None:
        self.partial = True  # so that all is forgotten before the next
        if self._incoming is None:
            self._incoming = _Answer()
        answer = self._incoming
        return self._taken(answer, partial(answer.feed, data))

    def _end(self) -> str:
        answer = self._incoming
        found = self._taken(answer, answer.end) if answer is not None else None
        return self.ended() if found is None else found

    def _taken(self, answer: _Answer, take: Callable[[], object]) -> str | None:
        """What is new of it; its failure once it is whole, "" for none."""
        now = time.monotonic_ns()
        try:
            take()
        finally:
            for _ in range(answer.pieces):
                self._pieces.came(self.kind.index, self.due, now)
        if not answer.complete:
            return None
        found = answer.verdict(self.kind)
        if not found and answer.streams and not self._pieces.number:
            self.failed(now)  # it is good, and had no first piece
        if not found and answer.usage is not None:
            told = answer.usage
            self._pieces.counted(
                self.kind.index, self.due, now, told.completion_tokens, told.prompt_tokens
            )
        return found

    def failed(self, now: int) -> None:
        self._pieces.failed(self.kind.index, self.due, now)

    def forget(self) -> None:
        super().forget()
        self._pieces.forget()
