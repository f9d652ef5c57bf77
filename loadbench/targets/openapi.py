"""Parts of an OpenAPI document: what they refer to, where its paths begin, and which keys
an operation wants.

A document is of others: what is not as it should be is taken for nothing.
"""

import re
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

DEEP = 8  # that a part may be in itself, or refer on
_NAME = re.compile(r"[\w-]+", re.ASCII)  # of a header, a cookie or a parameter that needs no quotes
_TOKEN, _BASIC = "Bearer $API_TOKEN", "Basic $BASIC_AUTH"
_USUAL = (None, 80, 443)  # ports: what is before a service may take TLS off
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
    """Those that an operation wants: of several ways to be let in the first that is known here,
    else the first, with the names of what is not. None where one way is to send none."""
    ways = listed(asked.get("security", told.get("security")))
    if not all(ways):
        return Keys()
    named = [
        whole(told, whole(told, told.get("components")).get("securitySchemes")),
        whole(told, told.get("securityDefinitions")),  # of OpenAPI 2
    ]
    schemes = {name: whole(told, part) for found in named for name, part in found.items()}
    found = [_together(way, schemes) for way in ways if isinstance(way, dict)]
    first = found[0][0] if found else Keys()
    return next((one for one, known in found if known), first)


def _together(way: dict[str, Any], schemes: dict[str, dict[str, Any]]) -> tuple[Keys, bool]:
    """What all schemes of one way want, and whether all of it is known here. Two that are not to be
    had in one header are not; of cookies there may be several."""
    headers: dict[str, str] = {}
    query: dict[str, str] = {}
    rest: list[str] = []
    unknown: list[str] = []
    for scheme in way:
        one = _key(schemes.get(scheme, {}))
        if one is None or any(
            name != "Cookie" and headers.get(name, text) != text
            for name, text in one.headers.items()
        ):
            named = f'its scheme "{scheme}"' if _NAME.fullmatch(scheme) else "a scheme of its own"
            unknown.append(f"a key by {named}")
            continue
        for name, text in one.headers.items():
            before = headers.get(name, text)
            headers[name] = text if before == text else f"{before}; {text}"
        query |= one.query
        rest += one.rest
    return Keys(headers, query, (*rest, *unknown)), not unknown


def base(url: str, page: str, *described: Any) -> str:
    """The path before those of the document on this page: of the servers that the first of these
    parts with any lists, the first that is at this address; of OpenAPI 2 its `basePath`."""
    for part in described:
        servers = listed(part.get("servers")) if isinstance(part, dict) else []
        for server in servers:
            where = server.get("url") if isinstance(server, dict) else None
            path = _path_at(url, page, where) if isinstance(where, str) else None
            if path is not None:
                return path
        if servers:
            return ""
    own = described[-1].get("basePath") if described and isinstance(described[-1], dict) else None
    return (_path_at(url, page, own) or "") if isinstance(own, str) else ""


def _path_at(url: str, page: str, where: str) -> str | None:
    """None where it is elsewhere, or not said outright."""
    try:
        here, there = urlsplit(url), urlsplit(urljoin(url + page, where))
        ports = [0 if one.port in _USUAL else one.port for one in (here, there)]
        same = here.hostname == there.hostname and ports[0] == ports[1]
    except ValueError:
        return None
    return there.path.rstrip("/") if same and "{" not in where else None


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
