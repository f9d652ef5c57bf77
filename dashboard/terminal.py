"""Whether anybody is at the other end of the terminal."""

import select
from typing import TextIO


def is_gone(stream: TextIO | None) -> bool:
    """Whether the terminal was closed. Not every one that closes sends a signal (SIGHUP goes only
    to whom it controls), and reading on from its end would take a core for ever."""
    if stream is None or stream.closed:
        return True
    watch = select.poll()
    watch.register(stream.fileno(), 0)  # that it was hung up is told unasked
    return bool(watch.poll(0))
