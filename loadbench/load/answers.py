"""A connection of the lane whose calls are streams (KServe's ModelStreamInfer): one request each,
any number of answers, each with its moment. The call has ended with the stream; the time to the
first answer counts from when the request was due, as all of its latency does.
"""

import time

from loadbench.load.answer import Kind
from loadbench.load.call import CallConnection, Peer
from loadbench.load.reply import ended
from loadbench.load.session import Fields
from loadbench.load.tokens import Pieces, Tokens
from loadbench.targets.rpc import PREFIX, only_ends, within
from loadbench.targets.wire import BadAnswer

_SHOWN = 1024  # bytes kept of an answer
_REFUSED = "grpc_UNKNOWN"  # what a server says in words only


class AnswersConnection(CallConnection):
    """Of the server's HTTP/2 it reads every frame: what comes when is what is measured."""

    __slots__ = ("_fault", "_held", "_here", "_needed", "_pieces")

    def __init__(self, kind: Kind, tries: int, peer: Peer, tokens: Tokens) -> None:
        super().__init__(kind, tries, peer)
        self._pieces = Pieces(tokens)
        self._held: list[bytes] = []  # of a message that has not come whole
        self._here, self._needed = 0, PREFIX.size  # bytes of it
        self._fault = ("", "")  # the first failure that an answer was, and its reason

    @property
    def first(self) -> int:
        return self._pieces.first

    def _slowly(self, data: bytes) -> str | None:
        """The only way there is: no bytes of whole answers are ever learned."""
        now = time.monotonic_ns()  # of all that came in these bytes
        whole = self._received(data)
        reply = self._session.reply
        if reply.parts:
            self._held += reply.parts
            self._here += sum(map(len, reply.parts))
            reply.parts.clear()
            if self._here >= self._needed:
                self._read(b"".join(self._held), reply.fields or {}, now)
        if whole is None:
            return None
        failure, self.reason = ended(whole)
        if failure:
            return failure
        if self._here:
            raise BadAnswer(f"the stream ended amid a message: {self._here:,} bytes of it")
        if self._fault[0]:
            failure, self.reason = self._fault
            return failure
        if not self._pieces.number:
            raise BadAnswer("the stream ended without an answer")
        self._pieces.paced(self.kind.index, self.due, now, self._pieces.number)
        return ""

    def _read(self, data: bytes, fields: Fields, now: int) -> None:
        """The messages that are whole with these bytes."""
        at, self._needed = 0, PREFIX.size
        while len(data) - at >= PREFIX.size:
            packed, size = PREFIX.unpack_from(data, at)
            if packed:
                raise BadAnswer("a message is compressed, which was not asked for")
            if len(data) - at < PREFIX.size + size:
                self._needed = PREFIX.size + size
                break
            at += PREFIX.size
            self._answered(data[at : at + size], fields, now)
            at += size
        self._held, self._here = [data[at:]], len(data) - at

    def _answered(self, message: bytes, fields: Fields, now: int) -> None:
        error, body = within(message)
        self._said = self._said or message[:_SHOWN]
        if error:
            self._fault = self._fault if self._fault[0] else (_REFUSED, error)
            return
        if only_ends(body):
            return
        self._peer.check(fields, body, self.kind)
        self._pieces.came(self.kind.index, self.due, now)

    def failed(self, now: int) -> None:
        self._pieces.failed(self.kind.index, self.due, now)

    def forget(self) -> None:
        super().forget()
        self._held, self._here, self._needed = [], 0, PREFIX.size
        self._fault = ("", "")
        self._pieces.forget()
