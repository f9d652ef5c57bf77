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

FAILURE = "failure"  # the file itself said so, in words of its own
_NAMES: tuple[tuple[type[BaseException], str], ...] = (
    (http.client.RemoteDisconnected, "closed"),  # before reset, which it claims to be as well
    (http.client.IncompleteRead, "truncated"),
    (HTTPConnectionClosed, "closed"),
    (ConnectionRefusedError, "refused"),
    (ConnectionResetError, "reset"),
    (BrokenPipeError, "reset"),
    (ConnectionAbortedError, "reset"),
    (requests.ConnectTimeout, "connect_timeout"),
    (requests.Timeout, "timeout"),
    (TimeoutError, "timeout"),
    (gevent.Timeout, "timeout"),
    (socket.gaierror, "dns"),
    (ssl.SSLError, "tls"),
)
_CLIENTS = (requests.RequestException, ConnectionError)  # what their errors of status are
_ERRORS = {
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EADDRNOTAVAIL: "no_ports",  # of this machine, as is the next
    errno.EMFILE: "no_files",
    errno.ENFILE: "no_files",
}


def failure(error: Any, response: Any) -> str:
    """The name of a failure; `error` is what the request event brought, of any type."""
    if not isinstance(error, BaseException) or isinstance(error, CatchResponseError):
        return FAILURE
    for found in _chain(error):
        for kind, name in _NAMES:
            if isinstance(found, kind):
                return name
        if isinstance(found, OSError) and found.errno in _ERRORS:
            return _ERRORS[found.errno]
    status = getattr(response, "status_code", 0)
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
