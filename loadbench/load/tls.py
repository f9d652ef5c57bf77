"""Connections over TLS that look to the lane like plain ones.

OpenSSL works on memory here, and the socket stays the lane's: one `recv` takes all that has come,
where OpenSSL's own reading takes two for each record of 16 kB, and all of it is decrypted at once,
so that nothing is left inside OpenSSL of which a level-triggered epoll could not know. Measured
against OpenSSL on the socket: a few per cent more tiny answers per CPU second, a fifth less CPU for
answers of megabytes (tests/benchmarks/README.md).
"""

import _socket
import contextlib
import select
import ssl
import time

from loadbench.load.answer import Kind
from loadbench.load.connection import BOTH, CONNECTING, SENDING, Connection
from loadbench.load.failure import CLOSED_EARLY
from loadbench.plan import Endpoint
from loadbench.targets.tls import context, refused
from loadbench.units import MS

# How TLS fails, beside what is the socket's: what came was no TLS, or had been tampered with; the
# other names say when or why.
BROKEN = "tls"
HANDSHAKE = "tls_handshake"  # it came to no end: no protocol in common, closed amid it
CERTIFICATE = "tls_certificate"  # the server's cannot be verified
REFUSED = "tls_refused"  # the server says so: it does not trust our certificate, say

_RECORD = 16_384  # bytes of text in one record at most
_PIECE = 1 << 18  # encrypted at a time; so much memory a connection may keep for it
_LEAST, _MOST = 1 << 12, 1 << 18  # read at a time
_PATIENCE_NS = 10 * MS  # until a connection has got its ticket: it comes with the first answer


class Shared:
    """What the connections to one target have in common. Raises SpecError for unusable files."""

    def __init__(self, endpoint: Endpoint) -> None:
        assert endpoint.tls is not None
        self.context = context(endpoint.tls)
        self.host = endpoint.host
        self.take = _LEAST  # bytes read at a time; grows with the answers
        self._session: ssl.SSLSession | None = None
        self._source: ssl.SSLObject | None = None  # where it comes from
        self._look = 0  # not before then

    def session(self) -> ssl.SSLSession | None:
        """What spares a new connection a third of its handshake, once an older one has got it."""
        if self._session is None and self._source and time.monotonic_ns() > self._look:
            found = self._source.session
            self._look = time.monotonic_ns() + _PATIENCE_NS  # reading it costs as much as it spares
            if found is not None and found.has_ticket:
                self._session = found
        return self._session

    def established(self, tls: ssl.SSLObject, offered: bool) -> None:
        """A handshake is done. If the session was refused, the next are to have a newer one."""
        if self._source is None or (offered and not tls.session_reused):
            self._session, self._source = None, tls
            self._look = time.monotonic_ns() + _PATIENCE_NS


class Channel:
    """TLS over a connected socket. `recv` and `send` are as a non-blocking socket's, errors too;
    `failure` names what went wrong if that was in TLS, `reason` has it in words."""

    __slots__ = (
        "_decrypt", "_drawn", "_encrypt", "_feed", "_get", "_give", "_in", "_offered", "_out",
        "_owed", "_rest", "_shared", "_sock", "_tls", "_up", "failure", "reason",
    )  # fmt: skip

    def __init__(self, sock: _socket.socket, shared: Shared) -> None:
        self._shared = shared
        self._sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = shared.session()
        self._offered = session is not None
        self._tls = shared.context.wrap_bio(
            self._in, self._out, server_hostname=shared.host, session=session
        )
        self._get, self._feed, self._decrypt = sock.recv, self._in.write, self._tls.read
        self._encrypt, self._drawn, self._give = self._tls.write, self._out.read, sock.send
        self._rest = b""  # encrypted, and still to be sent
        self._owed = 0  # so many bytes of a request are in it, and were not told to be out
        self._up = False
        self.failure = self.reason = ""

    @property
    def choked(self) -> bool:
        """Whether something waits for room in the socket."""
        return bool(self._rest)

    def shake(self) -> bool:
        """Goes on with the handshake; whether it is done. The last of it goes out together with the
        first request."""
        try:
            self._arrive()
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._speak()
                return False
        except ssl.SSLError as error:
            self._fail(error, HANDSHAKE)
            raise
        self._up = True
        self._shared.established(self._tls, self._offered)
        return True

    def _arrive(self) -> None:
        """Takes what the server has said in the handshake, if anything."""
        try:
            data = self._get(_RECORD)
        except BlockingIOError:
            return
        self._in.write(data) if data else self._in.write_eof()

    def recv(self, size: int) -> bytes:
        """What has come, decrypted, empty at the server's farewell; it may be more than `size`."""
        shared = self._shared
        take = shared.take
        if size > take:
            take = size
        cipher = self._get(take)
        try:
            if not cipher:
                self._in.write_eof()
            elif len(cipher) == take:
                shared.take = min(2 * take, _MOST)
            size = self._feed(cipher) if cipher else _RECORD
            data = self._decrypt(size)
            # a record is longer than its text: less than what came is all of it
            if len(data) < size and not self._in.pending:
                return data
            return self._drain(data)
        except ssl.SSLWantReadError:
            self._speak()
            raise BlockingIOError from None
        except ssl.SSLError as error:
            self._fail(error, BROKEN if cipher else CLOSED_EARLY)
            raise

    def _drain(self, data: bytes) -> bytes:
        """What else there is, behind `data`."""
        parts = [data]
        while data and (self._in.pending or self._tls.pending()):
            try:
                data = self._decrypt(_RECORD)
            except ssl.SSLWantReadError:
                self._speak()
                break
            parts.append(data)
        if not data and len(parts) > 1:  # a farewell behind the rest: the socket has to tell of it
            with contextlib.suppress(OSError):  # it is told already where that does not work
                self._sock.shutdown(_socket.SHUT_RD)
        return b"".join(parts)

    def send(self, data: bytes | memoryview) -> int:
        """How much of `data` is out: encrypted, and with the kernel. What is not has to come
        again, from there on, as with OpenSSL's own writing."""
        if self._rest or len(data) > _RECORD:
            return self._push(data)
        self._seal(data)
        try:
            sent = self._give(self._rest)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._last_words()
            raise
        self._rest = self._rest[sent:]
        if self._rest:
            raise BlockingIOError
        done, self._owed = self._owed, 0
        return done

    def _push(self, data: bytes | memoryview) -> int:
        """The same for much, and for what is left over."""
        view, out = memoryview(data), 0
        while True:
            try:
                self._flush()
            except OSError:
                self._last_words()
                raise
            if self._rest:
                break
            out, self._owed = out + self._owed, 0
            if out == len(view):
                return out
            try:
                self._seal(view[out : out + _PIECE])
            except BlockingIOError:
                break
        if not out:
            raise BlockingIOError
        return out

    def _seal(self, data: bytes | memoryview) -> None:
        """Encrypts what it can of the data, behind whatever else OpenSSL has to say."""
        done = 0
        try:
            while done < len(data):  # one record at a time
                done += self._encrypt(data[done:])
        except ssl.SSLWantReadError:  # the server wants a new handshake first
            if not done:
                self._speak()
                raise BlockingIOError from None
        except ssl.SSLError as error:
            self._fail(error, BROKEN)
            raise
        self._rest, self._owed = self._drawn(), done

    def _speak(self) -> None:
        """Sends what OpenSSL has to say of its own: in handshakes and when keys change."""
        if self._out.pending:
            self._rest += self._drawn()
        self._flush()

    def _flush(self) -> None:
        """Sends what it can of what is encrypted."""
        if self._rest:
            with contextlib.suppress(BlockingIOError):
                self._rest = self._rest[self._give(self._rest) :]

    def _last_words(self) -> None:
        """The server hung up amid a request: why, if it said so before."""
        with contextlib.suppress(OSError):
            self.recv(_RECORD)
        if self.failure == CLOSED_EARLY:  # it did not: then what the socket says is the reason
            self.failure = ""

    def _fail(self, error: ssl.SSLError, otherwise: str) -> None:
        """Names the failure; the server is told, if there is anything to tell."""
        self.reason = str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            self.failure = CERTIFICATE
        else:
            self.failure = REFUSED if refused(error) else otherwise
        with contextlib.suppress(OSError):
            self._speak()

    def close(self) -> None:
        """Says farewell, and awaits none. The socket is left to its owner."""
        if self._up and not self.failure and not self._rest:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            with contextlib.suppress(OSError):
                self._speak()


class TlsConnection(Connection):
    """A connection whose handshake is part of connecting; a plain one if nothing is shared."""

    __slots__ = ("_channel", "_shared")

    def __init__(self, kind: Kind, tries: int, shared: Shared | None) -> None:
        super().__init__(kind, tries)
        self._shared = shared
        self._channel: Channel | None = None

    def establish(self) -> int:
        if self._shared is None:
            return super().establish()
        if self._channel is None:
            super().establish()
            self.state = CONNECTING  # what comes now is part of it
            self._channel = Channel(self.sock, self._shared)
            self.recv, self.send = self._channel.recv, self._channel.send
        if self._channel.shake():
            self.state = SENDING
            return BOTH
        # with room awaited when there is enough of it, epoll would never rest
        return BOTH if self._channel.choked else select.EPOLLIN

    def failure(self, number: int | None) -> str:
        channel = self._channel
        if channel is None or not channel.failure:
            return super().failure(number)
        if channel.failure == CLOSED_EARLY:
            return self.ended()
        self.reason = channel.reason
        return channel.failure

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
        super().close()
