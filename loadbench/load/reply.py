"""What a gRPC call came to: its status, and whether its message is what was asked for.

Three ways, each falling back to the next: the bytes of the answer are those of an earlier good one
but for the stream's number and the contents of tensors (`Template`); the message is; the protocol
checks it in full.
"""

import struct
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from loadbench.load import frames
from loadbench.load.answer import Kind, fits
from loadbench.load.frames import Reader, number
from loadbench.load.session import Blocks, Fields, Reply
from loadbench.targets.rpc import CODES, PREFIX
from loadbench.targets.wire import BadAnswer, Form, OverLong

_PLAIN = b"application/grpc"
# What ends a stream without a status has one all the same (gRPC over HTTP/2, "Errors")
_RESETS = {7: "UNAVAILABLE", 8: "CANCELLED", 11: "RESOURCE_EXHAUSTED", 12: "PERMISSION_DENIED"}
_NAMES = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
    "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
    "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip


class Template(NamedTuple):
    """The bytes of good answers of one kind: headers, one frame of data, trailers."""

    cut: struct.Struct
    first: bytes  # up to the first number of the stream
    second: bytes  # from there to the second
    literals: tuple[bytes, ...]  # of the message, between the contents of tensors
    third: bytes  # the beginning of the trailers' frame
    last: bytes
    data: int  # bytes of the frame of data

    def fits(self, answer: bytes, stream: bytes) -> bool:
        """Whether these bytes begin with a good answer on this stream."""
        if len(answer) < self.cut.size:
            return False
        wanted = (
            self.first, stream, self.second, stream, *self.literals, self.third, stream, self.last
        )  # fmt: skip
        return self.cut.unpack_from(answer) == wanted


class Learned:
    """What is known of a target's answers. Shared by all connections to it."""

    def __init__(self) -> None:
        self.blocks: Blocks = {}
        self.templates: dict[Kind, Template] = {}
        self._forms: dict[Kind, Form] = {}

    def verdict(self, reply: Reply, kind: Kind) -> tuple[str, str]:
        """The failure of a whole reply and the reason in words, both empty if it is good. Raises
        BadAnswer."""
        failure, reason = ended(reply)
        if not failure:
            self.check(reply.fields or {}, message(reply), kind)
        return failure, reason

    def check(self, fields: Fields, body: bytes, kind: Kind) -> None:
        """Raises BadAnswer unless this message is what was asked for."""
        if not fields.get(b"content-type", b"").startswith(_PLAIN):
            raise BadAnswer(f"not gRPC but {fields.get(b'content-type', b'nothing')!r:.80}")
        form = self._forms.get(kind)
        if form is None or not fits(form, body, 0):
            form = kind.check(fields, body)
            if form is not None:
                self._forms[kind] = form

    def learn(self, kind: Kind, answer: bytes, stream: int) -> None:
        """From now on answers like this one, whole and good, are taken by their bytes."""
        form = self._forms.get(kind)
        template = _template(answer, stream, form) if form else None
        if template:
            self.templates[kind] = template


def ended(reply: Reply) -> tuple[str, str]:
    """The failure that a whole reply is by how it ended, and the reason; both empty for OK. Raises
    BadAnswer."""
    if reply.refused:
        return "grpc_UNAVAILABLE", reply.refused
    if reply.reset is not None:
        code = reply.reset
        name = _NAMES[code] if code < len(_NAMES) else str(code)
        return f"grpc_{_RESETS.get(code, 'INTERNAL')}", f"the server reset the stream: {name}"
    return _status(reply.fields or {}, reply.trailers or {})


def _status(fields: Fields, trailers: Fields) -> tuple[str, str]:
    """The failure that a call ended with, and its reason."""
    code = trailers.get(b"grpc-status")
    status = fields.get(b":status", b"")
    if code is None:
        if status != b"200" and status.isdigit() and len(status) == 3:
            return f"http_{status.decode()}", f"HTTP {status.decode()}, and no status of gRPC"
        raise BadAnswer("the call ended without a grpc-status")
    known = code.isdigit() and len(code) <= 2 and int(code) < len(CODES)
    name = CODES[int(code)] if known else "UNKNOWN"
    if name == "OK":
        return "", ""
    said = unquote_to_bytes(trailers.get(b"grpc-message", b"")).decode("utf-8", "replace")
    return f"grpc_{name}", f"{name}: {said}" if said else name


def message(reply: Reply) -> bytes:
    """The one message of a reply. Raises BadAnswer."""
    data = reply.parts[0] if len(reply.parts) == 1 else b"".join(reply.parts)
    if len(data) < PREFIX.size:
        raise BadAnswer(f"status OK, and {len(data)} bytes that are no message")
    packed, size = PREFIX.unpack_from(data)
    if packed:
        raise BadAnswer("the message is compressed, which was not asked for")
    left = len(data) - PREFIX.size
    if left > size:
        raise OverLong(f"{left - size:,} bytes behind a message of {size:,}")
    if left < size:
        raise BadAnswer(f"{left:,} bytes of a message of {size:,}")
    return data[PREFIX.size :]


def _template(answer: bytes, stream: int, form: Form) -> Template | None:
    """None for answers in other frames than usual, or behind others."""
    try:
        found = Reader().feed(answer)[:3]
    except BadAnswer:
        return None
    ends = (frames.END_HEADERS, frames.END_HEADERS | frames.END_STREAM)
    usual = [(frames.HEADERS, ends[0]), (frames.DATA, 0), (frames.HEADERS, ends[1])]
    if [(one.kind, one.flags) for one in found] != usual or form.length is None:
        return None
    head, data, tail = (len(one.payload) for one in found)
    if data != PREFIX.size + form.length or any(one.stream != stream for one in found):
        return None
    begin = 2 * frames.HEAD + head + PREFIX.size  # of the message
    literals = [
        answer[begin - PREFIX.size : begin] + form.prefix,
        *(text for _, text in form.later),
    ]
    cut, at = f"<5s4s{head + 5}s4s{len(literals[0])}s", len(form.prefix)
    for start, text in form.later:
        cut += f"{start - at}x{len(text)}s"
        at = start + len(text)
    cut += f"{form.length - at}x5s4s{tail}s"
    third = begin + form.length
    made = Template(
        struct.Struct(cut), answer[:5], answer[9 : 14 + head], tuple(literals),
        answer[third : third + 5], answer[third + 9 : third + 9 + tail], data,
    )  # fmt: skip
    return made if made.fits(answer, number(stream)) else None
