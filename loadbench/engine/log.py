"""What the engine tells on stderr while it serves.

A log that takes nothing (its disk is full, its reader has gone) must not cost anyone an answer: it
is written from the middle of batches and connections.
"""

import sys
from typing import TextIO


def write(text: str, stream: TextIO | None = None) -> None:
    """A line, or several; on stderr where no stream is given."""
    try:
        print(text, file=stream or sys.stderr, flush=True)
    except (OSError, ValueError):  # ValueError: it was closed
        return
