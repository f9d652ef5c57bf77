"""The first request that failed in each way, told with the window in which it did.

Warm-up is in no figure, so its failures have examples of their own, in its own windows.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from loadbench.environment import hidden
from loadbench.load.connection import Connection
from loadbench.model import Example
from loadbench.printable import printable
from loadbench.units import SECOND


class Examples:
    """Of one load process. Costs nothing while nothing fails."""

    def __init__(self, origin: int) -> None:
        self._origin = origin
        self._known: set[tuple[str, bool]] = set()  # (failure, whether of a warm-up request)
        self._untold: list[tuple[int, bool, str, Example]] = []  # when, of warm-up, failure

    def wanted(self, failure: str, due: int) -> bool:
        """Whether none of this kind is known yet."""
        return (failure, due < self._origin) not in self._known

    def add(self, failure: str, due: int, done: int, found: Example) -> None:
        warm = due < self._origin
        self._known.add((failure, warm))
        found = replace(found, second=(done - self._origin) // SECOND)
        self._untold.append((done, warm, failure, found))

    def take(self, begin: int, end: int) -> dict[str, Example]:
        """Those of the window [begin, end). Windows are taken in order."""
        if not self._untold:
            return {}
        mine = [found for found in self._untold if found[0] < end]
        self._untold = [found for found in self._untold if found[0] >= end]
        return {name: found for _, warm, name, found in mine if warm == (begin < self._origin)}


def example(
    connection: Connection, done: int, peer: str, data: bytes, headers: Mapping[str, str]
) -> Example:
    """The request on the connection, as one that failed. `data` came last of its answer; the
    headers are what `told_to` gives, whose secrets some servers repeat."""
    first = connection.head(data).partition(b"\r\n")[0]
    reason = connection.reason or first.decode(errors="backslashreplace")
    return Example(
        second=0,
        request=connection.kind.name,
        peer=peer,
        after_ns=done - connection.begun,
        reason=printable(hidden(reason, headers)),
        answer=printable(hidden(connection.answer(data), headers)),
    )
