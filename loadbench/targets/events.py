"""Server-sent events (WHATWG HTML, 9.2): bytes into the data of whole events."""

from loadbench.targets.wire import OverLong

_MOST = 1 << 20  # bytes of one event


class Events:
    """Puts the events of one answer together."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that are whole with these bytes. Raises OverLong."""
        held = self._rest + data
        self._rest = b""
        if b"\r" in held:
            if held.endswith(b"\r"):  # one of two, perhaps
                held, self._rest = held[:-1], b"\r"
            held = held.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *whole, rest = held.split(b"\n\n")
        self._rest = rest + self._rest
        if len(self._rest) > _MOST:
            raise OverLong(f"an event of more than {_MOST:,} bytes")
        return [found for event in whole if (found := _data(event)) is not None]

    def end(self) -> list[bytes]:
        """The last one, which some servers end with the answer instead of an empty line."""
        return self.feed(b"\n\n") if self._rest else []


def _data(event: bytes) -> bytes | None:
    """None for one without any, a comment that keeps the connection alive, say."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line.partition(b":") for line in event.split(b"\n")]
    found = [value.removeprefix(b" ") for name, _, value in lines if name == b"data"]
    return b"\n".join(found) if found else None
