"""pydantic's faults in our words: which file, which line, which key, what to do."""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from loadbench import environment


def explain(
    error: ValidationError,
    root: type[BaseModel],
    origin: str,
    text: str,
    given: Collection[str] = (),
) -> Iterator[str]:
    """One sentence for each fault: `mixed.toml line 12: unknown key 'rampp'`. Of the keys that were
    `given` in place of what stands there, without the file: `target.url: …`.

    Faults that only follow from another one deeper in the same place are left out. What may be of
    one kind or another has a fault for each of them, which are one sentence.
    """
    found: dict[tuple[Any, ...], list[Any]] = {}
    for fault in error.errors(include_url=False):
        where = tuple(part for part in fault["loc"] if not _KIND.fullmatch(str(part)))
        found.setdefault(where, []).append(fault)
    for where, faults in found.items():
        deeper = any(other[: len(where)] == where and other != where for other in found)
        if not deeper:
            key = ".".join(map(str, where))
            own = any(f"{key}.".startswith(f"{one}.") for one in given)
            lacks = faults[0]["type"] == "missing"  # then what it is missing in has a line
            place = _place(text, list(where[:-1] if lacks else where))
            for said in dict.fromkeys(_said(faults, list(where), root)):
                yield said if own else f"{origin}{place} {said}"


# what pydantic has in a place beside the keys: the kind that was tried
_KIND = re.compile(r"function-.*|tuple|str|bool|int|float|\[key\]|(?:literal|list|tuple|dict)\[.*")
_WANTED = {  # its names of faults → what to write
    "string_type": "a text in quotes",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list, [ … ]",
    "tuple_type": "a list, [ … ]",
    "dict_type": "a table of keys, {{ … }}",
    "model_type": "a table of keys, {{ … }}",
    "literal_error": "{expected}",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "a number below {lt}",
    "less_than_equal": "{le} or less",
    "too_short": "{min_length} of them or more",
    "too_long": "{max_length} of them or fewer",
}
_LONGEST = 60  # characters of what was written


def _said(faults: list[Any], where: list[Any], root: type[BaseModel]) -> Iterator[str]:
    """Faults of one key in our words: `unknown key 'rampp'`."""
    key = ".".join(map(str, where))
    wanted = dict.fromkeys(_wanted(fault) for fault in faults if fault["type"] in _WANTED)
    for fault in faults:
        if fault["type"] == "extra_forbidden":
            yield f"unknown key {key!r}{_near(where, root)}"
        elif fault["type"] == "missing":
            yield f"{key!r} is missing"
        else:
            message = fault["msg"].removeprefix("Value error, ")
            got = _toml(environment.kept(fault["input"], key))
            if fault["type"] == "string_pattern_mismatch":
                message = f"{got} cannot be read: {_expected(where, root)}"
            elif fault["type"] in _WANTED:
                message = f"{got} cannot be taken: write {' or '.join(wanted)}"
            yield f"{key}: {message}" if key else message


def _wanted(fault: Any) -> str:
    facts = fault.get("ctx", {}).items()
    shown = {name: f"{is_:.15g}" if isinstance(is_, int | float) else is_ for name, is_ in facts}
    return _WANTED[fault["type"]].format(**shown)


def _toml(value: Any) -> str:
    """Roughly as it was written; the beginning, if that is long."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} = {_toml(part)}" for key, part in value.items())
        text = f"{{ {text} }}" if text else "{}"
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(_toml, value))}]"
    else:
        text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _place(text: str, where: list[Any]) -> str:
    """` line 12:`, of the key or of what it is in."""
    for depth in range(len(where), 0, -1):
        if line := _line(text, where[:depth]):
            return f" line {line}:"
    return ":"


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
    # of tables of one name ([[request]]) the one that is meant, and how many of them came by now
    meant = {tuple(where[:at]): part for at, part in enumerate(where) if isinstance(part, int)}
    seen = dict.fromkeys(meant, -1)
    table: list[str] = []
    best = None
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            table = stripped.partition("#")[0].strip("[] ").split(".")
            if stripped.startswith("[[") and tuple(table) in seen:
                seen[tuple(table)] += 1
        own = tuple(table)
        if any(0 <= seen[of] != meant[of] for of in meant if own[: len(of)] == of):
            continue
        if stripped.startswith("["):
            if table == names:
                best = best or number
            continue
        key = stripped.partition("=")[0].strip().strip('"')
        path = [*table, *key.split(".")]
        if path == names:
            return number
        if len(path) < len(names) and path == names[: len(path)] and names[-1] in line:
            best = number
        if (
            best is None
            and len(names) > 1
            and names[:-1] == table[: len(names)]
            and names[-1] in stripped
        ):
            best = number
    return best
