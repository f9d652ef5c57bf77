"""What commands print.

When nobody reads it any more (the reader of a pipe ended, the terminal was closed), a measurement
goes on, and so do its files and its exit code; nor is that a fault of a command that only looks.
"""

import errno
import os
import sys
from typing import TextIO

import click

from loadbench.errors import RunError
from loadbench.printable import harmless


def say(text: str) -> None:
    """A line for whoever watches, on stderr."""
    _print(harmless(text), to_stderr=True)


def show(text: str) -> None:
    """What was asked for, on stdout."""
    _print(text, to_stderr=False)


def give(text: str | bytes) -> None:
    """What a command that only looks was asked for, on stdout: a line or more, or bytes as they
    are. RunError where it cannot be written, as on a full disk: it was all there is to be had."""
    try:
        click.echo(text, nl=isinstance(text, str))
    except OSError as error:
        _close(sys.stdout)
        if error.errno not in _UNREAD:
            said = f"what was asked for cannot be written: {error.strerror}"
            raise RunError(said, "is there room where it goes?") from error


_UNREAD = (errno.EPIPE, errno.EIO)  # a pipe's reader has ended, a terminal was closed


def _print(text: str, *, to_stderr: bool) -> None:
    try:
        click.echo(text, err=to_stderr)
    except OSError:
        _close(sys.stderr if to_stderr else sys.stdout)


def _close(stream: TextIO) -> None:
    """What else is written there goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
