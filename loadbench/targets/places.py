"""Where the name of a server leads to, now and later: which of its addresses is asked, and whether
it still is one.

What a server has counted means something only beside what the same one had counted before. So who
asks holds on to one address, as the load does, and is told when the name means others.
"""

import ipaddress
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

# So long after it was seen that a name has changed the load moves: whoever reads what servers count
# is to be at the new one before it, and looks once a second
LEAD_S = 2.0
_TRIAL_S = 2.0
LOOK_S = 0.1  # that whoever wants to know waits for all looks; most name servers are quicker


def may_change(host: str) -> bool:
    """Whether it is a name that may mean something else later."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host != "localhost"
    return False


def addresses(host: str, port: int) -> list[str]:
    """Those of a name, as it is now; none if it cannot be looked up."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(where[0]) for *_, where in found]


def listening(host: str, port: int) -> str:
    """Of the addresses of a name the first that can be connected to; the first at all if none can
    be now. Empty for a name that never changes, or is not known."""
    known = addresses(host, port) if may_change(host) else []
    for at in known if len(known) > 1 else ():
        with suppress(OSError), socket.create_connection((at, port), _TRIAL_S):
            return at
    return known[0] if known else ""


class Pin:
    """The address of a name that is held on to: the one that is given, else the first that listens
    when it is needed."""

    def __init__(self, host: str, port: int, at: str = "") -> None:
        self.host, self.port = host, port
        self._at = at

    @property
    def at(self) -> str:
        """Empty where there is nothing to hold on to."""
        self._at = self._at or listening(self.host, self.port)
        return self._at


class Lookups:
    """Looks a name up again and again, beside whoever wants to know: a name server that is silent
    is to hold up nobody."""

    def __init__(self, host: str, port: int) -> None:
        self._where = host, port
        self._found: list[str] = []
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Begins a look, unless one is under way."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._look, name="names", daemon=True)
            self._thread.start()

    def latest(self, until: float) -> list[str]:
        """The addresses as they were found last, by a look that ends before that moment (of
        `time.monotonic`), or by one before it; none as long as none were."""
        if self._thread is not None:
            self._thread.join(max(0.0, until - time.monotonic()))
        return self._found

    def _look(self) -> None:
        self._found = addresses(*self._where)


def moved(at: str, found: Sequence[str]) -> str:
    """Where to go from an address that is none of its name's any more: to one of the same family if
    there is one. Of several always to the same: load and inside view look a name up each by itself,
    and name servers tell its addresses in another order each time. Empty as long as it still is
    one, and where none is known."""
    if not found or at in found:
        return ""
    alike = [one for one in found if (":" in one) is (":" in at)]
    return min(alike or found)
