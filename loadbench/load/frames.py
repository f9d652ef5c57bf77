"""HTTP/2's frames (RFC 9113, section 4): bytes into frames and back; what they mean is for
`session` to say."""

from typing import NamedTuple

from loadbench.targets.wire import BadAnswer

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, MORE = (
    range(10)
)  # MORE: CONTINUATION of headers
END_STREAM = ACK = 0x01
END_HEADERS, PADDED, PRIORITISED = 0x04, 0x08, 0x20
HEAD = 9  # bytes before the payload
MOST = 1 << 20  # of a payload that we take; more fits into none of what is worth sending
_HTTP1 = b"HTTP/"


class Frame(NamedTuple):
    """A whole frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame as bytes."""
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags))
    return head + stream.to_bytes(4, "big") + payload


def number(value: int) -> bytes:
    """Four bytes, as all of HTTP/2's larger numbers."""
    return value.to_bytes(4, "big")


class Reader:
    """Puts frames together. `begun` says that a part of one is here."""

    __slots__ = ("_held", "_needed", "_new", "_size")

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._size = self._needed = 0
        self._new = True

    @property
    def begun(self) -> bool:
        return bool(self._held)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole with these bytes. Raises BadAnswer."""
        if self._held:
            self._held.append(data)
            self._size += len(data)
            if self._size < self._needed:
                return []
            data = b"".join(self._held)
            self._held = []
        if self._new and data.startswith(_HTTP1):
            said = data.partition(b"\r\n")[0][:80].decode("latin-1")
            raise BadAnswer(f"the server speaks HTTP/1, not HTTP/2: {said}")
        return self._split(data)

    def _split(self, data: bytes) -> list[Frame]:
        found: list[Frame] = []
        at, end, needed = 0, len(data), HEAD
        while end - at >= HEAD:
            length = int.from_bytes(data[at : at + 3], "big")
            if length > MOST:
                raise BadAnswer(f"not HTTP/2: a frame of {length:,} bytes")
            needed = HEAD + length
            if end - at < needed:
                break
            stream = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFF_FFFF
            payload = data[at + HEAD : at + needed]
            found.append(Frame(data[at + 3], data[at + 4], stream, payload))
            at, needed = at + needed, HEAD
        if at < end:
            self._held, self._size, self._needed = [data[at:]], end - at, needed
        self._new = self._new and not found
        return found


def unpadded(kind: int, flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without padding and priority. Raises BadAnswer."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise BadAnswer("HTTP/2: a padded frame without its padding")
        start, end = 1, end - payload[0]
    if kind == HEADERS and flags & PRIORITISED:
        start += 5
    if start > end:
        raise BadAnswer("HTTP/2: a frame of more padding than it has room for")
    return payload[start:end]
