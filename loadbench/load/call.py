"""A connection of the lane that speaks HTTP/2 with a gRPC server: one call at a time, each on a
stream of its own. `session` knows HTTP/2, `reply` what an answer has to be.
"""

import contextlib
import select

from loadbench.load.answer import Kind
from loadbench.load.connection import BOTH, SENDING, WAITING
from loadbench.load.frames import number
from loadbench.load.reply import Learned
from loadbench.load.session import Reply, Session
from loadbench.load.tls import Shared, TlsConnection
from loadbench.plan import Endpoint
from loadbench.targets.rpc import PREFIX
from loadbench.targets.wire import BadAnswer
from loadbench.units import duration


class Peer(Learned):
    """What the connections to one target have in common. SpecError for unusable files of TLS."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self.deadline_ns = endpoint.deadline_ns  # what calls say that they wait
        self.tls = Shared(endpoint) if endpoint.tls else None
        if self.tls:
            self.tls.context.set_alpn_protocols(["h2"])


class CallConnection(TlsConnection):
    """TLS only where the target's address says so."""

    __slots__ = ("_came", "_peer", "_put", "_said", "_session")

    def __init__(self, kind: Kind, tries: int, peer: Peer) -> None:
        super().__init__(kind, tries, peer.tls)
        self._peer = peer
        self._session = Session(peer.blocks)
        self._came = 0  # bytes of the answer
        self._said = b""  # the beginning of its message

    def establish(self) -> int:
        events = super().establish()
        if self.state == SENDING:
            self._put, self.send = self.send, self._call
        return events

    # ---- requests

    @property
    def room(self) -> int:
        """A server whose window is shut tells when it is open: nothing but that is awaited."""
        return BOTH if self._session.out else select.EPOLLIN

    def _call(self, data: bytes | memoryview) -> int:
        """Sends a request: its length if all of it is out, else 0, and `flush` goes on."""
        session = self._session
        piece = session.whole(bytes(data))
        if not piece:
            session.begin(data)
            return len(data) if self._push() else 0
        try:
            sent = self._put(piece)
        except BlockingIOError:
            sent = 0
        if sent == len(piece):
            return len(data)
        session.out += piece[sent:]
        return 0

    def flush(self) -> bool:
        assert self.rest is not None
        if not self._session.under_way:
            self._session.begin(self.rest)
        if not self._push():
            return False
        self.rest = None
        return True

    def _push(self) -> bool:
        """Sends what the server and the socket take now; whether nothing is left."""
        session = self._session
        while True:
            session.fill()
            if not session.out:
                return session.sent
            try:
                with memoryview(session.out) as piece:
                    sent = self._put(piece)
            except BlockingIOError:
                return False
            del session.out[:sent]

    # ---- answers

    def take(self, data: bytes) -> str | None:
        if not data:
            return self.ended()
        session = self._session
        template = self._peer.templates.get(self.kind) if session.simple else None
        try:
            if template is not None and template.fits(data, number(session.stream)):
                end = template.cut.size
                if len(data) == end or session.windows(data, end):
                    session.passed(template.data)
                    return ""
            return self._slowly(data)
        except BadAnswer as error:
            self.reason = str(error)
            return error.failure

    def _slowly(self, data: bytes) -> str | None:
        session, bare = self._session, self._session.bare
        reply = self._received(data)
        if reply is None:
            return None
        self._said = reply.parts[0][PREFIX.size : 1024] if reply.parts else b""
        found, self.reason = self._peer.verdict(reply, self.kind)
        if not found and bare:
            self._peer.learn(self.kind, data, session.stream)
        return found

    def _received(self, data: bytes) -> Reply | None:
        """The reply, if it is whole with these bytes; what HTTP/2 has to say to them is sent."""
        session = self._session
        self.partial = True  # so that all is forgotten before the next
        reply = session.receive(data)
        if session.reply.fields is not None:
            self._came += len(data)
        if session.out and self.rest is None:
            with contextlib.suppress(OSError):  # what is wrong with it is read next
                self._push()
        return reply

    def heard(self, data: bytes) -> bool:
        """What an idle server says is its business as long as it is HTTP/2."""
        try:
            self._session.receive(data)
            self._push()
        except (BadAnswer, OSError):
            return False
        self._session.settle()
        return True

    @property
    def received(self) -> int:
        return self._came

    @property
    def reusable(self) -> bool:
        return not self.retired and self.rest is None and self._session.usable

    def head(self, data: bytes) -> bytes:
        return b""

    def answer(self, data: bytes) -> bytes:
        return self._said

    def forget(self) -> None:
        super().forget()
        self._came = 0
        self._said = b""
        self._session.settle()

    # ---- the end

    def expired(self, limit_ns: int) -> str:
        found = super().expired(limit_ns)
        if self.state != WAITING or self._peer.deadline_ns is None:
            return found
        self.reason = f"no answer within {duration(limit_ns)}, which the server was told"
        return "grpc_DEADLINE_EXCEEDED"

    def close(self) -> None:
        """The server gets to know that nobody waits for an answer any more."""
        session = self._session
        if self.state in (SENDING, WAITING) and session.under_way and not session.out:
            with contextlib.suppress(OSError):
                self._put(session.farewell())
        if self.fd >= 0:
            self.recv, self.send = self.sock.recv, self.sock.send  # no circle of references
        super().close()
