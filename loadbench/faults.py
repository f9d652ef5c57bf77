"""pydantic's faults in our words: which file, which line, which key, what to do."""

import difflib
from collections.abc import Collection, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError


def explain(
    error: ValidationError,
    root: type[BaseModel],
    origin: str,
    text: str,
    given: Collection[str] = (),
) -> Iterator[str]:
    """One sentence for each fault: `mixed.toml line 12: unknown key 'rampp'`. Of the keys that were
    `given` in place of what stands there, without the file: `target.url: …`.

    Faults that only follow from another one deeper in the same place are left out.
    """
    found = error.errors(include_url=False)
    places = [tuple(fault["loc"]) for fault in found]
    for fault, place in zip(found, places, strict=True):
        deeper = any(other[: len(place)] == place and other != place for other in places)
        if not deeper:
            key = ".".join(map(str, place))
            own = any(f"{key}.".startswith(f"{one}.") for one in given)
            yield _fault(fault, root, "")[2:] if own else origin + _fault(fault, root, text)


def _fault(fault: Any, root: type[BaseModel], text: str) -> str:
    """One of pydantic's faults in our words: ` line 12: unknown key 'rampp'`."""
    where = [part for part in fault["loc"] if part not in ("function-before", "tuple")]
    key = ".".join(str(part) for part in where)
    line = _line(text, where)
    place = f" line {line}:" if line else ":"
    if fault["type"] == "extra_forbidden":
        return f"{place} unknown key {key!r}{_near(where, root)}"
    if fault["type"] == "missing":
        return f"{place} {key!r} is missing"
    if fault["type"] == "model_type":
        return f"{place} {key} is a table of keys, not {fault['input']!r}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "string_pattern_mismatch":
        message = f"{fault['input']!r} cannot be read: {_expected(where, root)}"
    return f"{place} {key}: {message}" if key else f"{place} {message}"


def _expected(where: list[Any], root: type[BaseModel]) -> str:
    """What a field takes: its description in the specification."""
    section = _section(where, root)
    field = section.model_fields.get(str(where[-1])) if section else None
    return (field.description if field else None) or "it has another form"


def _section(where: list[Any], root: type[BaseModel]) -> type[BaseModel] | None:
    """The table that a key is in."""
    section: Any = root
    for part in where[:-1]:
        field = section.model_fields.get(part) if isinstance(part, str) else None
        if field is None:
            continue
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        found = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not found:
            return None
        section = found[0]
    kind: type[BaseModel] = section
    return kind


def _near(where: list[Any], root: type[BaseModel]) -> str:
    section = _section(where, root)
    if section is None:
        return ""
    names = [field.alias or name for name, field in section.model_fields.items()]
    near = difflib.get_close_matches(str(where[-1]), names, 1)
    return f", did you mean {near[0]!r}?" if near else f" (known: {', '.join(names)})"


def _line(text: str, where: list[Any]) -> int | None:
    """The line that sets a key, as well as a scan by table headers can tell."""
    names = [part for part in where if isinstance(part, str)]
    table: list[str] = []
    best = None
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            table = stripped.strip("[] ").split(".")
            if table == names:
                best = best or number
            continue
        key = stripped.partition("=")[0].strip().strip('"')
        path = [*table, *key.split(".")]
        if path == names:
            return number
        if len(path) < len(names) and path == names[: len(path)] and names[-1] in line:
            best = number
        if best is None and names and names[:-1] == table[: len(names)] and names[-1] in stripped:
            best = number
    return best
