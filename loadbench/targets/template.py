"""Texts with places that are filled from data: `${name}`, or `${name|filter}`.

Without a filter a value is written as its place needs it: as JSON in a body, percent-encoded in a
path, plainly elsewhere. Filters: `json`, `url`, `raw` (plainly), `base64`, and `file`, which reads
the file that the value names and is followed by another. `$${` is a `${` that is meant. Also paths
into JSON: `outputs[0].label`.
"""

import base64
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from loadbench.errors import SpecError

MOST = 256 << 20  # bytes of one file or body
_PLACE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_STEP = re.compile(r'\.?([^.\[\]]+)|\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]')


class Place(NamedTuple):
    """Where a value goes, and what is done to it on the way."""

    name: str
    filters: tuple[str, ...]


Parts = Sequence[str | Place]


def parse(whole: str) -> Parts:
    """The text cut into what stands and what is filled in. Raises SpecError."""
    parts: list[str | Place] = []
    at = 0
    for found in _PLACE.finditer(whole):
        parts.append(whole[at : found.start()])
        at = found.end()
        parts.append("${" if found[0] == "$${" else _place(found[1], whole))
    return [part for part in (*parts, whole[at:]) if part]


def _place(inside: str | None, whole: str) -> Place:
    if inside is None:
        raise SpecError(f"{whole!r}: a ${{ without its }}", "write $${ for a ${ that is meant")
    name, *filters = (word.strip() for word in inside.split("|"))
    if not name:
        raise SpecError(f"{whole!r}: ${{{inside}}} names nothing", "write it like ${column}")
    for word in filters:
        if word not in _FILTERS:
            raise SpecError(f"{whole!r}: unknown filter {word!r}", f"known: {', '.join(_FILTERS)}")
    return Place(name, tuple(filters))


def names(parts: Parts) -> list[str]:
    """The names of what is filled in."""
    return [part.name for part in parts if isinstance(part, Place)]


def fill(parts: Parts, values: Mapping[str, Any], default: str, folder: Path) -> bytes:
    """The text with its places filled; those without a filter are written by `default`. Files are
    looked for in `folder`. Raises SpecError for a value that is missing or does not fit."""
    pieces = []
    for part in parts:
        if isinstance(part, str):
            pieces.append(part.encode())
        else:
            pieces.append(_filled(part, values, default, folder))
    return b"".join(pieces)


def value(parts: Parts, values: Mapping[str, Any], folder: Path) -> Any:
    """The value itself where the text is nothing but one place, else the text."""
    if len(parts) == 1 and isinstance(parts[0], Place) and not parts[0].filters:
        return _of(parts[0], values)
    return text(parts, values, "raw", folder)


def text(parts: Parts, values: Mapping[str, Any], default: str, folder: Path) -> str:
    """As `fill`, where only text will do."""
    try:
        return fill(parts, values, default, folder).decode()
    except UnicodeDecodeError as error:
        raise SpecError("the bytes of a file are no text", 'write "${…|base64}"') from error


def _of(place: Place, values: Mapping[str, Any]) -> Any:
    if place.name not in values:
        near = difflib.get_close_matches(place.name, values, 1)
        guess = f"did you mean ${{{near[0]}}}? " if near else ""
        known = ", ".join(values)
        raise SpecError(f"there is nothing for ${{{place.name}}}", f"{guess}known: {known}")
    return values[place.name]


def _filled(place: Place, values: Mapping[str, Any], default: str, folder: Path) -> bytes:
    found = _of(place, values)
    for word in place.filters:
        found = _read(folder, _plain(found)) if word == "file" else _FILTERS[word](found)
    if not place.filters or place.filters[-1] == "file":
        found = _FILTERS[default](found)
    return found if isinstance(found, bytes) else _plain(found)


def _json(found: Any) -> bytes:
    if isinstance(found, bytes):
        raise SpecError("bytes of a file have no JSON form", 'write "${…|base64}" for them')
    return msgspec.json.encode(found)


def _plain(found: Any) -> bytes:
    if isinstance(found, bytes):
        return found
    return found.encode() if isinstance(found, str) else msgspec.json.encode(found)


def _url(found: Any) -> bytes:
    return quote(_plain(found), safe="").encode()


def _base64(found: Any) -> bytes:
    return base64.b64encode(_plain(found))


def _read(folder: Path, name: bytes) -> bytes:
    path = folder / name.decode()
    try:
        if path.stat().st_size > MOST:
            raise SpecError(f"{path}: more than {MOST >> 20} MiB")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SpecError(f"{path}: {reason}", "paths count from where the data are") from error


_FILTERS: dict[str, Callable[[Any], bytes]] = {
    "json": _json, "url": _url, "raw": _plain, "base64": _base64, "file": _plain,
}  # fmt: skip


def json_path(path: str) -> tuple[str | int, ...]:
    """`outputs[0].label` → ("outputs", 0, "label"), `a["b.c"]` → ("a", "b.c"); a leading `$` stands
    for the whole."""
    rest = path.strip().removeprefix("$")
    steps: list[str | int] = []
    at = 0
    for found in _STEP.finditer(rest):
        if found.start() != at:
            break
        try:
            quoted = msgspec.json.decode(found[3]) if found[3] else None
        except msgspec.DecodeError:  # an escape that is none
            break
        steps.append(found[1] or (int(found[2]) if quoted is None else quoted))
        at = found.end()
    if at != len(rest) or not path.strip():
        raise SpecError(
            f"{path!r} is no path into JSON",
            'write it like outputs[0].label, a key with dots or brackets like a["b.c"]',
        )
    return tuple(steps)
