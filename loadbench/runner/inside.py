"""What the servers of a target tell of their inside, second by second: one view of all of them."""

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
    has none of those, and for cards. `page` is one that tells of all replicas, instead of one for
    each."""

    def __init__(self, told: list[Told], page: Scraper | None = None) -> None:
        self._told = told
        self._page = page
        self._counted = [_Counted(one.asker, one.endpoint) for one in told]
        scrapers = [page, *(one.scraper for one in told)]
        self._scrapers = [scraper for scraper in scrapers if scraper is not None]

    @property
    def timed(self) -> bool:
        """Whether somebody tells of the times of all requests."""
        counted = any(one.there for one in self._counted)
        return counted or any(scraper.timed for scraper in self._scrapers)

    def read(self) -> Server | None:
        """What came since the last call; None if none of them tells, or answers now."""
        whole = self._page.server() if self._page else None
        found = []
        for one, counted in zip(self._told, self._counted, strict=True):
            scraped, since = one.scraper.server() if one.scraper else None, counted.since()
            found.append(since if counted.there else scraped)
        if self._page and not all(counted.there for counted in self._counted):
            return whole  # what some of them told besides is in it already
        return beside([server for server in found if server])

    def cards(self) -> tuple[Gpu, ...]:
        """Those of servers of others, as they told of them last, numbered one after the other; each
        once, though several tell of it."""
        found: list[Gpu] = []
        for card in (card for scraper in self._scrapers for card in scraper.cards):
            if not card.uuid or all(card.uuid != known.uuid for known in found):
                found.append(card)
        if len(self._scrapers) < 2:
            return tuple(found)
        return tuple(replace(card, index=index) for index, card in enumerate(found))


class _Counted:
    """Cumulative statistics as differences; a reading that fails is made up by the next."""

    def __init__(self, asker: Asker, endpoint: Endpoint) -> None:
        self._asker, self._endpoint = asker, endpoint
        self._latest = asker.statistics(endpoint)

    @property
    def there(self) -> bool:
        """Whether the server has any."""
        return self._latest is not None

    def since(self) -> Server | None:
        """What came since the last call; None also where the server does not answer now."""
        try:
            now = self._asker.statistics(self._endpoint)
        except LoadbenchError:
            return None
        before, self._latest = self._latest, now
        return None if now is None or before is None else difference(before, now)
