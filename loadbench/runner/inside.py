"""What the servers of a target tell of their inside, second by second: one view of all of them."""

from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from loadbench.errors import LoadbenchError
from loadbench.machine import Gpu
from loadbench.merge import beside
from loadbench.model import Server
from loadbench.plan import Endpoint
from loadbench.targets.ask import Asker, difference
from loadbench.targets.scrape import Scraper


class Told(NamedTuple):
    """One server: who asks it, and who reads its page of metrics, if it has one."""

    asker: Asker
    endpoint: Endpoint
    scraper: Scraper | None


class Inside:
    """Of all replicas together. KServe's statistics tell more than metrics do; these are for who
    has none of those, and for cards."""

    def __init__(self, told: list[Told]) -> None:
        self._told = told
        self._since = [_since(one.asker, one.endpoint) for one in told]

    def read(self) -> Server | None:
        """What came since the last call; None if none of them tells, or answers now."""
        found = []
        for one, since in zip(self._told, self._since, strict=True):
            scraped = one.scraper.server() if one.scraper else None
            found.append(since() or scraped)
        return beside([server for server in found if server])

    def cards(self) -> tuple[Gpu, ...]:
        """Those of servers of others, as they told of them last, numbered one after the other."""
        found = [card for one in self._told if one.scraper for card in one.scraper.cards]
        if len(self._told) < 2:
            return tuple(found)
        return tuple(replace(card, index=index) for index, card in enumerate(found))


def _since(asker: Asker, endpoint: Endpoint) -> Callable[[], Server | None]:
    """Cumulative statistics as differences; a reading that fails is made up by the next."""
    latest = [asker.statistics(endpoint)]

    def read() -> Server | None:
        try:
            now = asker.statistics(endpoint)
        except LoadbenchError:
            return None
        before, latest[0] = latest[0], now
        return None if now is None or before is None else difference(before, now)

    return read
