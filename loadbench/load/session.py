"""One HTTP/2 connection as its client sees it, one stream after the other (RFC 9113).

Bytes in, bytes out: it owns no socket. What a server may say at any time (settings, pings, windows,
that it goes away) is dealt with here; what the answer on a stream means is not.
"""

import struct
from collections.abc import Callable

from hpack import Decoder, HPACKError

from loadbench.load import frames
from loadbench.load.frames import Frame, Reader, frame, number, unpadded
from loadbench.targets.rpc import head_length
from loadbench.targets.wire import MOST, BadAnswer, OverLong

Fields = dict[bytes, bytes]
Blocks = dict[bytes, Fields]  # header blocks that mean the same on every connection

_LARGEST = (1 << 31) - 1  # a window, and a stream's number
_USUAL = 65_535  # a window, until something else is said
_LEAST_FRAME = 16_384
_TABLE, _PUSH, _WINDOW, _FRAME, _LIST = 1, 2, 4, 5, 6  # settings
_MOST_BLOCK = 1 << 15  # bytes of headers, packed or not
_PIECE = 1 << 18  # of a request, framed at a time
_UNREAD = 1 << 16  # bytes of our own words that a server leaves lying before it is given up
_GIVE_BACK = 1 << 30
_KEPT = 64  # header blocks
# Without a table of headers seen before, equal headers are equal bytes. Windows never shut: how
# fast a server may send is not to be our doing.
_SETTINGS = b"".join(
    name.to_bytes(2, "big") + number(value)
    for name, value in (
        (_TABLE, 0), (_PUSH, 0), (_WINDOW, _LARGEST), (_FRAME, frames.MOST), (_LIST, _MOST_BLOCK)
    )
)  # fmt: skip
_UPDATE, _OPENS = frames.HEAD + 4, b"\0\0\4\x08\0"  # a frame that opens a window
_numbers = struct.Struct(">II").unpack_from
_OPENING = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + frame(frames.SETTINGS, 0, 0, _SETTINGS)
    + frame(frames.WINDOW_UPDATE, 0, 0, number(_LARGEST - _USUAL))
)


class Reply:
    """What came on the stream so far. `reset` is the code with which the server broke it off;
    `refused` its words when it went away without looking at the request."""

    __slots__ = ("fields", "parts", "refused", "reset", "size", "trailers")

    def __init__(self) -> None:
        self.fields: Fields | None = None
        self.parts: list[bytes] = []
        self.size = 0
        self.trailers: Fields | None = None
        self.reset: int | None = None
        self.refused = ""


class Session:
    """`out` is to be sent before anything else. `simple` says that answers on this connection can
    be taken by their bytes: nothing is half read, and headers do not depend on earlier ones."""

    __slots__ = (
        "_block", "_blocks", "_decoder", "_end", "_frame", "_initial", "_last",
        "_left", "_of", "_reader", "_room", "_settled", "_taken", "_window", "going", "out",
        "reply", "simple", "stream", "under_way",
    )  # fmt: skip

    def __init__(self, blocks: Blocks, last: int = _LARGEST) -> None:
        self.out = bytearray(_OPENING)
        self.stream = -1  # the latest of ours
        self.under_way = False
        self.going = False  # no further stream may be opened
        self.simple = False
        self.reply = Reply()
        self._last = last
        self._blocks = blocks
        self._decoder = Decoder(_MOST_BLOCK)
        self._reader = Reader()
        self._settled = False  # the server has said its settings
        self._window = self._initial = _USUAL
        self._room = 0  # of the stream's window
        self._frame = _LEAST_FRAME
        self._left = memoryview(b"")  # of the message
        self._taken = 0  # bytes of ours that the server may not send again yet
        self._block: bytearray | None = None  # headers that go on
        self._of = 0  # the stream that they are on
        self._end = False  # they end the stream

    @property
    def usable(self) -> bool:
        """Whether another request can go on it."""
        return not self.going and self.stream + 2 <= self._last

    @property
    def bare(self) -> bool:
        """Whether nothing of an answer is here, and none of its headers can depend on others."""
        begun = self._half_read or self.reply.fields is not None
        return not begun and self._decoder.header_table_size == 0

    @property
    def _half_read(self) -> bool:
        return self._reader.begun or self._block is not None

    @property
    def sent(self) -> bool:
        """Nothing is left to be sent."""
        return not self.out and not self._left

    # ---- requests

    def whole(self, data: bytes) -> bytes:
        """Opens a stream with a request that goes out in one piece; empty: `begin` has to do it."""
        start = head_length(data)
        size = len(data) - start
        if self.out or size > self._frame or size > self._window or size > self._initial:
            return b""
        self._open()
        self._window -= size
        self._room = self._initial - size
        stream = number(self.stream)
        head = b"%b\0\1%b" % (size.to_bytes(3, "big"), stream)
        return b"".join((data[:5], stream, data[9:start], head, data[start:]))

    def begin(self, data: bytes | memoryview) -> None:
        """Opens a stream for a prepared call."""
        self._open()
        self._room = self._initial
        start = head_length(data)
        self.out += b"".join((data[:5], number(self.stream), data[9:start]))
        self._left = memoryview(data)[start:]

    def _open(self) -> None:
        self.stream += 2
        self.under_way = True

    def fill(self) -> None:
        """Frames of the message what the server's windows let through."""
        while self._left and len(self.out) < _PIECE:
            size = min(len(self._left), self._frame, self._window, self._room)
            if size <= 0:
                return
            piece, self._left = self._left[:size], self._left[size:]
            flags = 0 if self._left else frames.END_STREAM
            self.out += size.to_bytes(3, "big") + bytes((frames.DATA, flags))
            self.out += number(self.stream)
            self.out += piece
            self._window -= size
            self._room -= size

    def farewell(self) -> bytes:
        """What tells the server that nobody waits for the answer any more."""
        cancel = frame(frames.RST_STREAM, 0, self.stream, number(8))  # CANCEL
        return cancel + frame(frames.GOAWAY, 0, 0, bytes(8))

    # ---- answers

    def passed(self, size: int) -> None:
        """An answer with so many bytes of data was taken by its bytes."""
        self.under_way = False
        self._count(size)

    def windows(self, data: bytes, at: int) -> bool:
        """Takes what comes from there on if all of it is about windows. Raises BadAnswer."""
        end = len(data)
        if (end - at) % _UPDATE:
            return False
        for place in range(at, end, _UPDATE):
            if data[place : place + 5] != _OPENS:
                return False
        for place in range(at, end, _UPDATE):
            self._opened(*_numbers(data, place + 5))
        return True

    def receive(self, data: bytes) -> Reply | None:
        """The reply on the stream, if it is whole with these bytes. Raises BadAnswer for what is
        no HTTP/2."""
        waiting = self.under_way
        self.simple = False
        for found in self._reader.feed(data):
            self._one(found)
        if len(self.out) > _PIECE + _UNREAD:
            raise OverLong("the server asks for more words than it reads")
        return self.reply if waiting and not self.under_way else None

    def settle(self) -> None:
        """The reply has been dealt with."""
        self.reply = Reply()
        bare = self._decoder.header_table_size == 0
        self.simple = bare and self.usable and not self._half_read and not self.out

    def _one(self, found: Frame) -> None:
        kind = found.kind
        if not self._settled and (kind != frames.SETTINGS or found.flags & frames.ACK):
            raise BadAnswer("not HTTP/2: it does not begin with settings")
        if self._block is not None and (kind != frames.MORE or found.stream != self._of):
            raise BadAnswer("HTTP/2: headers that go on are interrupted")
        handle = _HANDLERS.get(kind)
        if handle is not None:  # whatever else there is can be left alone
            handle(self, found)

    def _ours(self, found: Frame, what: str) -> bool:
        """Whether a frame is of the stream under way. Raises BadAnswer for what cannot be of an
        earlier one either: a reset can, and trailers, which servers of gRPC's core (Triton) send
        up to four times for a call that is past its deadline."""
        if found.stream % 2 == 0 or found.stream > self.stream:
            raise BadAnswer(f"HTTP/2: {what} on stream {found.stream}, which nobody opened")
        if found.stream == self.stream and self.under_way:
            return True
        trailers = found.kind == frames.HEADERS and found.flags & frames.END_STREAM
        if found.kind != frames.RST_STREAM and not trailers:
            raise OverLong(f"{what} came after the end of the answer")
        return False

    def _data(self, found: Frame) -> None:
        self._ours(found, "data")
        self._count(len(found.payload))
        if self.reply.fields is None:
            raise BadAnswer("HTTP/2: data before the headers of the answer")
        data = unpadded(frames.DATA, found.flags, found.payload)
        self.reply.size += len(data)
        if self.reply.size > MOST:
            raise OverLong(f"more than {MOST:,} bytes")
        self.reply.parts.append(data)
        if found.flags & frames.END_STREAM:
            self.under_way = False

    def _headers(self, found: Frame) -> None:
        self._ours(found, "headers")
        self._block = bytearray(unpadded(frames.HEADERS, found.flags, found.payload))
        self._of = found.stream
        self._end = bool(found.flags & frames.END_STREAM)
        self._go_on(found)

    def _more(self, found: Frame) -> None:
        if self._block is None:
            raise BadAnswer("HTTP/2: headers that go on from nothing")
        if not found.payload:
            raise BadAnswer("HTTP/2: headers that go on with nothing")
        self._block += found.payload
        self._go_on(found)

    def _go_on(self, found: Frame) -> None:
        assert self._block is not None
        if len(self._block) > _MOST_BLOCK:
            raise OverLong(f"more than {_MOST_BLOCK:,} bytes of headers")
        if found.flags & frames.END_HEADERS:
            fields = self._decoded(bytes(self._block))
            self._block = None
            if self.under_way and self._of == self.stream:  # else only the table is to know them
                self._told(fields)

    def _decoded(self, block: bytes) -> Fields:
        bare = self._decoder.header_table_size == 0
        known = self._blocks.get(block) if bare else None
        if known is not None:
            return known
        try:
            fields: Fields = {}
            for name, value in self._decoder.decode(block, raw=True):
                fields[bytes(name).lower()] = bytes(value)
        except HPACKError as error:
            raise BadAnswer(f"HTTP/2: headers that cannot be read: {error}") from error
        resizes = block[:1] and block[0] & 0xE0 == 0x20
        if bare and not resizes and len(self._blocks) < _KEPT:
            self._blocks[block] = fields
        return fields

    def _told(self, fields: Fields) -> None:
        reply = self.reply
        if reply.fields is None:
            if fields.get(b":status", b"").startswith(b"1") and not self._end:
                return  # the answer proper comes after it
            reply.fields = fields
        elif not self._end:
            raise BadAnswer("HTTP/2: headers amid the answer")
        if self._end:
            reply.trailers = fields
            self.under_way = False

    def _reset(self, found: Frame) -> None:
        _exactly(found, 4)
        if self._ours(found, "a reset"):
            self.reply.reset = int.from_bytes(found.payload, "big")
            self.under_way = False

    # ---- what may be said at any time

    def _settings(self, found: Frame) -> None:
        _of_connection(found)
        if found.flags & frames.ACK:
            return
        if len(found.payload) % 6:
            raise BadAnswer("HTTP/2: settings of another size than they have")
        for at in range(0, len(found.payload), 6):
            name = int.from_bytes(found.payload[at : at + 2], "big")
            self._set(name, int.from_bytes(found.payload[at + 2 : at + 6], "big"))
        self._settled = True
        self.out += frame(frames.SETTINGS, frames.ACK, 0)

    def _set(self, name: int, value: int) -> None:
        if name == _WINDOW:
            if value > _LARGEST:
                raise BadAnswer(f"HTTP/2: windows of {value:,} bytes")
            self._room += value - self._initial
            self._initial = value
        elif name == _FRAME:
            if not _LEAST_FRAME <= value < 1 << 24:
                raise BadAnswer(f"HTTP/2: frames of {value:,} bytes")
            self._frame = value

    def _ping(self, found: Frame) -> None:
        _of_connection(found)
        _exactly(found, 8)
        if not found.flags & frames.ACK:
            self.out += frame(frames.PING, frames.ACK, 0, found.payload)

    def _goaway(self, found: Frame) -> None:
        _of_connection(found)
        if len(found.payload) < 8:
            raise BadAnswer("HTTP/2: a farewell that is cut short")
        self.going = True
        if self.under_way and self.stream > int.from_bytes(found.payload[:4], "big") & _LARGEST:
            said = found.payload[8:208].decode("utf-8", "replace")
            code = int.from_bytes(found.payload[4:8], "big")
            words = f", code {code}" * bool(code) + f": {said}" * bool(said)
            self.reply.refused = f"the server goes away (GOAWAY{words}) and has not looked at it"
            self.under_way = False

    def _window_update(self, found: Frame) -> None:
        _exactly(found, 4)
        self._opened(found.stream, int.from_bytes(found.payload, "big"))

    def _opened(self, stream: int, more: int) -> None:
        more &= _LARGEST
        if not stream:
            self._window += more
        elif stream == self.stream:
            self._room += more
        if not more or self._window > _LARGEST or self._room > _LARGEST:
            raise BadAnswer(f"HTTP/2: a window is opened by {more:,} bytes")

    def _pushed(self, _: Frame) -> None:
        raise BadAnswer("HTTP/2: the server pushes, which was ruled out")

    def _count(self, size: int) -> None:
        """Has the server send on, long before the connection's window would be used up."""
        self._taken += size
        if self._taken > _GIVE_BACK:
            self.out += frame(frames.WINDOW_UPDATE, 0, 0, number(self._taken))
            self._taken = 0


def _exactly(found: Frame, size: int) -> None:
    if len(found.payload) != size:
        raise BadAnswer(f"HTTP/2: a frame of kind {found.kind} with {len(found.payload)} bytes")


def _of_connection(found: Frame) -> None:
    if found.stream:
        raise BadAnswer(f"HTTP/2: a frame of kind {found.kind} on stream {found.stream}")


_HANDLERS: dict[int, Callable[[Session, Frame], None]] = {
    frames.DATA: Session._data,
    frames.HEADERS: Session._headers,
    frames.RST_STREAM: Session._reset,
    frames.SETTINGS: Session._settings,
    frames.PUSH_PROMISE: Session._pushed,
    frames.PING: Session._ping,
    frames.GOAWAY: Session._goaway,
    frames.WINDOW_UPDATE: Session._window_update,
    frames.MORE: Session._more,
}
