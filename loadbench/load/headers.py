"""The target's headers on what the users of people's own Locust files send: on each message as it
goes out, to the target alone. So a redirection to somebody else, or a request to another host, does
not take a secret along.

What the file gives by itself stands in for them; what its library puts there unasked does not.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

import locust
from geventhttpclient.client import HTTPClient
from locust.clients import HttpSession
from locust.contrib.fasthttp import LocustUserAgent
from locust.user.users import PytestUser, User
from requests.utils import default_headers

from loadbench.errors import SpecError
from loadbench.targets.wire import filled_headers

_CLIENTS = (locust.HttpUser, locust.FastHttpUser, PytestUser)
_PORTS = {"http": 80, "https": 443}
_UNASKED = {
    *((name.lower(), value) for name, value in default_headers().items()),
    *((name.lower(), value) for name, value in HTTPClient.DEFAULT_HEADERS.items()),
    ("accept-encoding", "gzip, deflate, br"),  # of FastHttpUser
}
Origin = tuple[str, str, int]


def lend(headers: Mapping[str, str], users: Sequence[type[User]], host: str | None) -> None:
    """Has what the users send to this host, or else to their own, carry the headers, with the
    values of the environment. SpecError if it lacks one, if nobody knows the host yet, or if a user
    has a client of its own, which cannot be reached."""
    own = filled_headers(headers)
    if not own:
        return
    names = ", ".join(name for name, _ in own)
    for foreign in (user for user in users if not issubclass(user, _CLIENTS)):
        raise SpecError(
            f"{foreign.__name__} sends by a client of its own, which target.headers ({names})"
            " do not reach",
            "leave target.headers out and have the file send them, or use HttpUser or FastHttpUser",
        )
    hosts = [host or user.host or "" for user in users]
    if not all(hosts):
        raise SpecError(
            f"target.headers ({names}): {users[hosts.index('')].__name__} does not say beforehand"
            " to which host they may go",
            "give --target URL, or the class a host",
        )
    origins = {_origin(found) for found in hosts}
    HttpSession.send = _sends(HttpSession.send, own, origins)
    LocustUserAgent._urlopen = _opens(LocustUserAgent._urlopen, own, origins)


def _sends(send: Callable[..., Any], own: list[tuple[str, str]], origins: set[Origin]) -> Any:
    @wraps(send)
    def sends(session: Any, request: Any, **settings: Any) -> Any:
        _dress(request.headers, own, _origin(request.url) in origins)
        return send(session, request, **settings)

    return sends


def _opens(opens: Callable[..., Any], own: list[tuple[str, str]], origins: set[Origin]) -> Any:
    @wraps(opens)
    def opened(agent: Any, request: Any) -> Any:
        _dress(request.headers, own, _origin(request.url) in origins)
        return opens(agent, request)

    return opened


def _dress(headers: Any, own: list[tuple[str, str]], ours: bool) -> None:
    """`headers` know no upper and lower case."""
    for name, value in own:
        found = headers.get(name)
        if ours and (found is None or (name.lower(), found) in _UNASKED):
            headers[name] = value
        elif not ours and found == value:  # it was redirected
            del headers[name]


def _origin(url: str) -> Origin:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
