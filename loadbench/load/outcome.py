"""How a request of people's own users failed, in the words of the lane, where it can be told.

Clients wrap what happened in exceptions of their own; the first one in the chain that has a name
here counts. What has none keeps the name of its class.
"""

import errno
import http.client
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import gevent
import requests
from geventhttpclient.response import HTTPConnectionClosed
from geventhttpclient.useragent import ConnectionError
from locust.exception import CatchResponseError

from loadbench.load.diary import Failed
from loadbench.load.failure import CLOSED_EARLY, CONNECT_TIMEOUT, TIMEOUT, TRUNCATED, of_error

FAILURE = "failure"  # the file itself said so, in words of its own
_NAMES: tuple[tuple[type[BaseException], str], ...] = (
    (http.client.RemoteDisconnected, CLOSED_EARLY),  # before RESET, which it claims to be as well
    (http.client.IncompleteRead, TRUNCATED),
    (HTTPConnectionClosed, CLOSED_EARLY),
    (requests.ConnectTimeout, CONNECT_TIMEOUT),
    (requests.Timeout, TIMEOUT),
    (TimeoutError, TIMEOUT),
    (gevent.Timeout, TIMEOUT),
    (socket.gaierror, "dns"),
    (ssl.SSLError, "tls"),
)
_CLIENTS = (requests.RequestException, ConnectionError)  # what their errors of status are


def outcome(error: Any, response: Any) -> Failed:
    """How it failed; `error` is what the request event brought, of any type."""
    status = getattr(response, "status_code", 0)
    reason = str(error) or type(error).__name__
    return Failed(_name(error, status), reason, f"HTTP {status}" if status else "")


def _name(error: Any, status: Any) -> str:
    if not isinstance(error, BaseException) or isinstance(error, CatchResponseError):
        return FAILURE
    for found in _chain(error):
        for kind, name in _NAMES:
            if isinstance(found, kind):
                return name
        number = found.errno if isinstance(found, OSError) else None
        if number is not None and number in errno.errorcode:
            return of_error(number, connecting=False)
    if isinstance(error, _CLIENTS) and isinstance(status, int) and status >= 300:
        return f"http_{status}"
    return type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was made of, the inner ones later."""
    seen: list[BaseException] = []
    ahead: list[object] = [error]
    while ahead:
        found = ahead.pop(0)
        if isinstance(found, BaseException) and found not in seen:
            seen.append(found)
            yield found
            wrapped = [getattr(found, name, None) for name in ("reason", "original")]
            ahead += [found.__cause__, found.__context__, *wrapped, *found.args]
