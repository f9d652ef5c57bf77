"""What commands that measure print.

When nobody reads it any more (the reader of a pipe ended, the terminal was closed), the measurement
goes on, and so do its files and its exit code.
"""

import os
import sys

import click

from loadbench.printable import harmless


def say(text: str) -> None:
    """A line for whoever watches, on stderr."""
    _print(harmless(text), to_stderr=True)


def show(text: str) -> None:
    """What was asked for, on stdout."""
    _print(text, to_stderr=False)


def _print(text: str, *, to_stderr: bool) -> None:
    try:
        click.echo(text, err=to_stderr)
    except OSError:
        stream = sys.stderr if to_stderr else sys.stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
