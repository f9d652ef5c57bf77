"""Parts of an OpenAPI document: what they refer to, and which keys an operation wants.

A document is of others: what is not as it should be is taken for nothing.
"""

import re
from typing import Any, NamedTuple

DEEP = 8  # that a part may be in itself, or refer on
_NAME = re.compile(r"[\w-]+", re.ASCII)  # of a header, a cookie or a parameter that needs no quotes
_TOKEN, _BASIC = "Bearer $API_TOKEN", "Basic $BASIC_AUTH"
_CERTIFICATE = "[target] cert and key"


class Keys(NamedTuple):
    """What is sent along to be let in, each with the name of the environment's value that it is of:
    headers, parameters of the query; and what else a scenario has to say."""

    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    rest: tuple[str, ...] = ()


def listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def whole(told: dict[str, Any], part: Any) -> dict[str, Any]:
    """A part of a document, or what it refers to; empty for what is none."""
    for _ in range(DEEP):
        if not isinstance(part, dict) or not isinstance(part.get("$ref"), str):
            break
        part = referred(told, part["$ref"])
    return part if isinstance(part, dict) else {}


def referred(told: dict[str, Any], reference: str) -> Any:
    """What `#/components/schemas/Asked` stands for."""
    found: Any = told
    for name in reference.removeprefix("#/").split("/"):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def keys(told: dict[str, Any], asked: dict[str, Any]) -> Keys:
    """Those that an operation wants: of several ways to be let in the first that is known here.
    None where one way is to send none."""
    ways = listed(asked.get("security", told.get("security")))
    if not all(ways):
        return Keys()
    named = [
        whole(told, whole(told, told.get("components")).get("securitySchemes")),
        whole(told, told.get("securityDefinitions")),  # of OpenAPI 2
    ]
    schemes = {name: whole(told, part) for found in named for name, part in found.items()}
    for way in ways:
        if not isinstance(way, dict):
            continue
        found = [_key(schemes.get(name, {})) for name in way]
        known = [one for one in found if one is not None]
        if len(known) == len(found):
            return _together(known)
    return Keys()


def _together(found: list[Keys]) -> Keys:
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    for one in found:
        for name, text in one.headers.items():  # of cookies there may be several
            headers[name] = f"{headers[name]}; {text}" if name in headers else text
        query |= one.query
    return Keys(headers, query, tuple(text for one in found for text in one.rest))


def _key(scheme: dict[str, Any]) -> Keys | None:
    """What one scheme wants; None where that is not known here."""
    kind, name = scheme.get("type"), scheme.get("name")
    if kind == "apiKey" and isinstance(name, str) and _NAME.fullmatch(name):
        value = f"${name.replace('-', '_').upper()}"
        ways = {
            "header": Keys(headers={name: value}),
            "query": Keys(query={name: value}),
            "cookie": Keys(headers={"Cookie": f"{name}={value}"}),
        }
        return ways.get(str(scheme.get("in")))
    if kind == "mutualTLS":
        return Keys(rest=(_CERTIFICATE,))
    form = str(scheme.get("scheme")).lower() if kind == "http" else str(kind)
    values = {"basic": _BASIC, "bearer": _TOKEN, "oauth2": _TOKEN, "openIdConnect": _TOKEN}
    return Keys(headers={"Authorization": values[form]}) if form in values else None
