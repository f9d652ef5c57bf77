"""Looks where the users of people's own Locust files go, as they go there: the file may name a host
only when a user is made, or in a task, or be sent to another one by an answer.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from gevent import GreenletExit
from locust.clients import HttpSession
from locust.contrib.fasthttp import LocustUserAgent
from locust.user import User

from loadbench.courtesy import elsewhere


def watch(refuse: Callable[[str], None]) -> None:
    """Before anything is sent to a host that may be somebody else's, `refuse` is called with its
    address, and it is not sent. Of users with a client of their own the host that they have when
    they begin is all that can be seen."""

    def look(url: str) -> None:
        if elsewhere(url):
            refuse(url)
            raise GreenletExit  # the user is not to go on

    HttpSession.send = _first(HttpSession.send, lambda _, request: look(request.url))
    LocustUserAgent._urlopen = _first(
        LocustUserAgent._urlopen, lambda _, request: look(request.url)
    )
    User.run = _first(User.run, lambda user: look(user.host or ""))


def _first(method: Callable[..., Any], look: Callable[..., None]) -> Any:
    """The method, after a look at what it is called with."""

    @wraps(method)
    def looked(*given: Any, **more: Any) -> Any:
        look(*given)
        return method(*given, **more)

    return looked
