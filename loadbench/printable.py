"""Text of others made safe to print in any terminal.

Servers, their models' names, people's files and logs from elsewhere may hold what steers a terminal
or turns the direction of writing. Here that is escaped; logs are read through `harmless`, so that
whoever shows what they hold need not think of it.
"""

import re
from typing import Any

import msgspec

_SHOWN = 300  # bytes of an answer, and characters of a reason
# in a line of JSON: an escape other than of " \ / and the newline, or a character beyond ASCII
_SUSPECT = re.compile(rb'[^\x20-\x7e\n]|\\[^"\\/n]')
_PLAIN = bytes({*range(0x20, 0x7F), ord("\n")} - {ord("\\")})


def printable(data: bytes | str) -> str:
    """The beginning of what came; what is no UTF-8 is escaped as well."""
    text = data if isinstance(data, str) else data[:_SHOWN].decode(errors="backslashreplace")
    shown = _line(text[:_SHOWN])
    return f"{shown}…" if len(data) > _SHOWN else shown


def harmless(text: str) -> str:
    """All of a text, its line ends as they are."""
    return "\n".join(map(_line, text.split("\n")))


def harmless_json(line: bytes) -> bytes:
    """A line of JSON with harmless keys and texts. Raises msgspec.DecodeError if it is none."""
    if not suspect(line):
        return line
    return msgspec.json.encode(harmless_value(msgspec.json.decode(line)))


def suspect(text: bytes) -> bool:
    """Whether JSON may hold what is not harmless; False means that it does not."""
    if not text.translate(None, _PLAIN):  # all is plain: seen in a tenth of the time
        return False
    return _SUSPECT.search(text) is not None


def harmless_value(value: Any) -> Any:
    """What JSON can hold, with harmless keys and texts."""
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, list):
        return [harmless_value(part) for part in value]
    if isinstance(value, dict):
        return {_line(key): harmless_value(part) for key, part in value.items()}
    return value


def _line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode()
