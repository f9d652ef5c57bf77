"""Reading answers: with the least work that is still strict, and with a real parser beyond that.

Three ways, each falling back to the next: the bytes equal the last good answer; the head equals a
good one but for values that do not matter (Date, Server-Timing) and the body has its `Form`;
httptools' parser reads the answer (chunked, 1xx, closed at the end, compressed, HTTP/1.0) and the
protocol checks it in full. What the last finds good teaches the second.
"""

import enum
import re

import httptools
import msgspec

from loadbench.targets.wire import MOST, BadAnswer, Check, Form, OverLong, decoded, welcome

# header fields that decide how the rest is read; a template keeps their values literally
_LITERAL = (
    b"connection",
    b"content-encoding",
    b"content-type",
    b"inference-header-content-length",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
)
_VALUE = rb"[\t\x20-\x7e\x80-\xff]*"  # of any other: what the parser lets through
_TEMPLATES = 4  # an answer can take so many forms before the oldest is forgotten
_MOST_HEAD = 1 << 20
_numbers = msgspec.json.Decoder(list[float]).decode


class Sight(enum.Enum):
    """What a cheap look at the bytes of an answer says."""

    GOOD = enum.auto()
    MORE = enum.auto()  # it begins well and goes on
    UNSURE = enum.auto()  # the parser must look


class Kind:
    """A kind of request and what has been learned of its good answers."""

    __slots__ = ("_templates", "check", "exact", "index", "name", "statuses", "wanted")

    def __init__(self, index: int, name: str, check: Check, statuses: tuple[int, ...] = ()) -> None:
        self.index = index
        self.name = name
        self.check = check
        self.statuses = statuses  # see `Prepared`
        self.exact: bytes | None = None  # the last good answer, whole
        self.wanted = 0  # after MORE: how long the answer will be
        self._templates: list[tuple[re.Pattern[bytes], Form]] = []

    def look(self, data: bytes) -> Sight:
        """Whether these bytes are one whole good answer."""
        for head, form in self._templates:
            found = head.match(data)
            if found is None:
                continue
            start = found.end()
            self.wanted = start + int(found[1])
            if len(data) < self.wanted:
                return Sight.MORE if self.wanted <= MOST else Sight.UNSURE
            if len(data) == self.wanted and fits(form, data, start):
                self.exact = data
                return Sight.GOOD
        return Sight.UNSURE

    def learn(self, head: bytes, form: Form) -> None:
        """From now on heads like this one with bodies of this form are good."""
        pattern = re.compile(_pattern(head))
        self._templates = [(pattern, form), *self._templates][:_TEMPLATES]


def fits(form: Form, data: bytes, start: int) -> bool:
    """Whether what begins there is of this form."""
    if form.length is not None and len(data) - start != form.length:
        return False
    if form.pattern is None:
        later = all(data.startswith(text, start + at) for at, text in form.later)
        return later and data.startswith(form.prefix, start)
    found = form.pattern.fullmatch(data, start)
    if found is None:
        return False
    try:
        return all(map(_holds, found.groups(), form.counts))
    except msgspec.DecodeError:
        return False


def _holds(array: bytes, number: int) -> bool:
    return len(_numbers(array)) == number


def _pattern(head: bytes) -> bytes:
    """An expression for heads with the same fields in the same order, the same values in those
    that decide about framing, and the content length as group 1."""
    status, *fields = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    parts = [re.escape(status)]
    for field in fields:
        name, colon, value = field.partition(b":")
        if name.lower() == b"content-length":
            value = rb"[ \t]*([0-9]{1,12})[ \t]*"
        else:
            value = re.escape(value) if name.lower() in _LITERAL else _VALUE
        parts.append(re.escape(name + colon) + value)
    return b"\r\n".join([*parts, b"", b""])


class Incoming:
    """One answer as httptools reads it, from its first byte on."""

    def __init__(self) -> None:
        self.complete = False
        self.keep_alive = False  # whether the connection can be used on after the whole answer
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.head = b""
        self._repeated: set[bytes] = set()
        self.size = 0  # of all that came
        self._body: list[bytes] = []
        self._excess = ""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Takes the next bytes. Raises BadAnswer for what is no answer, OverLong for more."""
        if not self.status:
            self.head += data
        self.size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise BadAnswer("the server switches to another protocol (HTTP 101)") from error
        except httptools.HttpParserError as error:
            if self.complete:
                raise OverLong("bytes came after the end of the answer") from error
            raise BadAnswer(f"not an HTTP answer: {error}") from error
        if self.size > MOST:
            self._excess = f"more than {MOST:,} bytes"
        elif not self.status and len(self.head) > _MOST_HEAD:
            self._excess = f"a head of more than {_MOST_HEAD:,} bytes"
        if self._excess:
            raise OverLong(self._excess)

    def on_message_begin(self) -> None:
        if self.complete:
            self._excess = "bytes came after the end of the answer"

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in self.headers:
            self._repeated.add(name)
        self.headers[name] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        length = self.headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > MOST:
            self._excess = f"{int(length):,} bytes are said to come, more than {MOST:,}"

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        if self.status < 200:  # 100 Continue, 103 Early Hints: the answer proper comes after it
            self.headers.clear()
            self.head = b""
            self.status = 0
            return
        self.complete = True
        self.keep_alive = bool(self._parser.should_keep_alive())  # it forgets this afterwards

    def end(self) -> bool:
        """The server closed. True if that was how the answer ends."""
        framed = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        if self.status >= 200 and not framed:
            self.complete = True
        return self.complete

    def verdict(self, kind: Kind) -> str:
        """The failure of the complete answer, "" if it is good. A good one teaches its kind.
        Raises BadAnswer."""
        if not welcome(self.status, kind.statuses):
            return f"http_{self.status}"
        form = kind.check(self.headers, decoded(self.headers, b"".join(self._body)))
        if form is not None and self._simple():
            kind.learn(self.head[: self.head.index(b"\r\n\r\n") + 4], form)
        return ""

    def beginning(self) -> bytes:
        """What came first: of the body if there is one, unpacked where that is possible."""
        body = b"".join(self._body)
        try:
            return decoded(self.headers, body) or body
        except BadAnswer:
            return body

    def _simple(self) -> bool:
        """Whether the cheap way can read such answers: their length is said, once."""
        return (
            self._parser.get_http_version() == "1.1"
            and self.status not in (204, 304)  # they have no body, whatever length they say
            and b"content-length" in self.headers
            and not self.headers.keys() & {b"transfer-encoding", b"content-encoding"}
            and b"\n " not in self.head
            and b"\n\t" not in self.head
            and b"\r\n\r\n" in self.head
            and not self._repeated & {b"content-length", *_LITERAL}
            and self.keep_alive
        )
