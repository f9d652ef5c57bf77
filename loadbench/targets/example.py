"""A value as a schema of an OpenAPI document has them, as far as that is easily said."""

import math
import operator
import re
from typing import Any

import msgspec

from loadbench.targets.openapi import listed, referred

LONG = 4096  # bytes of a value, and parts of the schema that are read for one
_DEEP = 50  # schemas within schemas
_TEXT = "text"  # any
_BOUNDS = {
    "minimum": operator.ge, "exclusiveMinimum": operator.gt,
    "maximum": operator.le, "exclusiveMaximum": operator.lt,
}  # fmt: skip
_FORMATS = {  # texts that are not just any
    "uuid": "00000000-0000-4000-8000-000000000000",
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00",
    "duration": "PT1S",
    "email": "one@example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "http://example.com/",
}


class Untold(Exception):
    """There is no end to it, or it has no name to put in its place."""


def is_json(schema: dict[str, Any]) -> bool:
    """Whether it is of a text that holds JSON."""
    kind = str(schema.get("contentMediaType")).partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def any_text(text: str) -> bool:
    """Whether it is one that says nothing."""
    return text == _text(len(text))


def capitals(name: str) -> str:
    return re.sub(r"\W", "_", name).upper()


def wanted(schema: dict[str, Any]) -> dict[str, Any]:
    """The properties that an object has to have; all if none has to be there."""
    properties = schema.get("properties")
    parts = properties if isinstance(properties, dict) else {}
    required = listed(schema.get("required")) or parts
    return {name: part for name, part in parts.items() if name in required}


class Example:
    """What users have to replace is the name of its field in capitals, and stands in `unknown`."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.unknown: dict[str, None] = {}
        self._told = told
        self._open: list[int] = []  # the schemas that are being read
        self._left = LONG

    def of(self, schema: Any, name: str = "") -> Any:
        """None where nothing is told. Raises Untold."""
        if not isinstance(schema, dict):
            return None
        self._left -= 1
        if id(schema) in self._open or len(self._open) == _DEEP or self._left < 0:
            raise Untold
        self._open.append(id(schema))
        try:
            return self._of(schema, name)
        finally:
            self._open.pop()

    def _of(self, schema: dict[str, Any], name: str) -> Any:
        for key in ("example", "default", "const"):
            if key in schema:
                return schema[key]
        for key in ("examples", "enum"):
            if isinstance(schema.get(key), list) and schema[key]:
                return schema[key][0]
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list) and schema[key]:
                return self._first(schema[key], name)
        if isinstance(schema.get("allOf"), list) and schema["allOf"]:
            return self.of(schema["allOf"][0], name)
        if isinstance(schema.get("$ref"), str):
            return self.of(referred(self._told, schema["$ref"]), name)
        kind = schema.get("type")
        if kind == "array":
            return self._array(schema, name)
        if kind == "object":
            return self._object(schema)
        if kind == "string":
            return self._string(schema, name)
        if kind in ("number", "integer"):
            found = _number(schema, float if kind == "number" else int)
            return self._named(name) if found is None else found
        return True if kind == "boolean" else None

    def _named(self, name: str) -> str:
        if not name:
            raise Untold
        self.unknown[capitals(name)] = None
        return capitals(name)

    def _first(self, ways: list[Any], name: str) -> Any:
        """Of several ways the first that has an end."""
        for way in ways:
            before = dict(self.unknown)
            try:
                return self.of(way, name)
            except Untold:
                self.unknown = before
        raise Untold

    def _array(self, schema: dict[str, Any], name: str) -> Any:
        items, least = schema.get("items"), schema.get("minItems")
        least = least if isinstance(least, int) else 0
        places = listed(schema.get("prefixItems")) or listed(items)  # of OpenAPI 3.0
        if places:
            return [self.of(place, name) for place in places]
        if schema.get("maxItems") == 0:
            return []
        before = dict(self.unknown)
        try:
            item = self.of(items, name)
        except Untold:
            if least > 0:
                raise
            self.unknown = before
            return []
        if least > 1 and (
            schema.get("uniqueItems") is True or least * len(msgspec.json.encode(item)) > LONG
        ):
            return self._named(name)
        return [item] * max(1, least)

    def _object(self, schema: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for name, part in wanted(schema).items():
            before = dict(self.unknown)
            try:
                found[name] = self.of(part, name)
            except Untold:
                if name in listed(schema.get("required")):
                    raise
                self.unknown = before
        return found

    def _string(self, schema: dict[str, Any], name: str) -> str:
        if is_json(schema):
            found = self.of(schema.get("contentSchema"), name)
            return self._named(name) if found is None else msgspec.json.encode(found).decode()
        if str(schema.get("format")) in _FORMATS:
            return _FORMATS[str(schema["format"])]
        least, most = schema.get("minLength"), schema.get("maxLength")
        least = least if isinstance(least, int) else 0
        most = most if isinstance(most, int) else LONG
        if "pattern" in schema or "format" in schema or least > min(most, LONG):
            return self._named(name)
        return _text(max(0, least, min(most, len(_TEXT))))


def _text(length: int) -> str:
    return (_TEXT * (length // len(_TEXT) + 1))[:length]


def _number(schema: dict[str, Any], kind: type[float]) -> float | None:
    """One, or another that its bounds allow; None where none was found."""
    found = {key: schema[key] for key in _BOUNDS if type(schema.get(key)) in (int, float)}
    step: Any = schema.get("multipleOf")
    try:
        ends = [float(end) for end in found.values()]
        tried = [1, *ends, *(end + 1 for end in ends), *(end - 1 for end in ends)]
        tried += [sum(ends) / len(ends)] if ends else []
        if type(step) in (int, float) and step > 0:
            tried = [1, step, *(math.ceil(one / step) * step for one in tried)]
            tried += [one - step for one in tried]
            tried = [one for one in tried if math.fmod(kind(one), step) == 0]
        numbers = [kind(one) for one in tried]
    except (OverflowError, ValueError):  # of infinities, or beyond them
        return None
    return next(
        (one for one in numbers if all(_BOUNDS[key](one, end) for key, end in found.items())), None
    )
