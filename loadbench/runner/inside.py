"""What the servers of a target tell of their inside, second by second: one view of all of them.

A server whose name means another address is somebody else: what that one counted before is not
ours. The one that was there is asked on for a while, for its last answers are still to come.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from msgspec.structs import replace

from loadbench.errors import LoadbenchError, TargetError
from loadbench.machine import Gpu
from loadbench.merge import beside
from loadbench.model import Note, Server
from loadbench.plan import Endpoint
from loadbench.targets.ask import Asker, difference, together
from loadbench.targets.places import LOOK_S, Lookups, may_change, moved
from loadbench.targets.scrape import Scraper

_AT_ONCE = 64  # replicas that are asked


class Told(NamedTuple):
    """One server: who asks it, and who reads its page of metrics, if it has one."""

    asker: Asker
    endpoint: Endpoint
    scraper: Scraper | None


class Inside:
    """Of all replicas together. KServe's statistics tell more than metrics do; these are for who
    has none of those, and for cards. `page` is one that tells of all replicas, instead of one for
    each, and `turn` opens it where the first of them is now. With `reopen` names are followed; who
    has moved is asked for `linger_s` more."""

    def __init__(
        self,
        told: Sequence[Told],
        page: Scraper | None = None,
        reopen: "Reopen | None" = None,
        linger_s: float = 0.0,
        turn: Callable[[str], Scraper] | None = None,
    ) -> None:
        self._page, self._turn = page, turn
        self._readers = [Reader(one) for one in told]
        self._page_at = told[0].endpoint.at
        self._left: list[tuple[float, Reader]] = []  # until when, who has moved
        self._reopen, self._linger_s = reopen, linger_s
        self._pool = ThreadPoolExecutor(_AT_ONCE, "inside")
        self._remarks: list[Note] = []  # that nobody has been told yet
        self._remarked = set[Note]()  # a name that leads to and fro is told of once

    @property
    def _scrapers(self) -> list[Scraper]:
        scrapers = [self._page, *(reader.told.scraper for reader in self._readers)]
        return [scraper for scraper in scrapers if scraper is not None]

    @property
    def timed(self) -> bool:
        """Whether somebody tells of the times of all requests."""
        counted = any(reader.counted.there for reader in self._readers)
        return counted or any(scraper.timed for scraper in self._scrapers)

    def read(self) -> Server | None:
        """What came since the last call; None if none of them tells, or answers now."""
        if self._reopen is not None:
            self._follow(self._reopen)
        found = self._told()
        if found and self._remarks:
            found = replace(found, remarks=(*found.remarks, *self._remarks))
            self._remarks.clear()
        return found

    def _told(self) -> Server | None:
        whole = self._page.server() if self._page else None
        found = self._each(self._readers) + self._of_old()
        if self._page and not all(reader.counted.there for reader in self._readers):
            return whole  # what some of them told besides is in it already
        return beside([server for server in found if server])

    def _each(self, readers: Sequence["Reader"]) -> list[Server | None]:
        """Of each what it tells now; side by side, so that slow ones do not add up."""
        if len(readers) < 2:
            return [reader.read() for reader in readers]
        return list(self._pool.map(Reader.read, readers))

    def _of_old(self) -> list[Server | None]:
        """What those tell who have moved, as long as they answer."""
        now = time.monotonic()
        asked = [reader for until, reader in self._left if until > now]
        told = dict(zip(asked, self._each(asked), strict=True))
        for _, reader in self._left:
            if not told.get(reader):
                reader.close()
        self._left = [(until, reader) for until, reader in self._left if told.get(reader)]
        return list(told.values())

    def _follow(self, reopen: "Reopen") -> None:
        names = [reader.names for reader in self._readers if reader.names]
        for one in names:
            one.look()
        until = time.monotonic() + LOOK_S  # for all of them together
        for at, reader in enumerate(self._readers):
            where = reader.elsewhere(until)
            if not where:
                continue
            try:
                self._readers[at] = self._back(reader, where) or _opened(reopen, reader, where)
            except LoadbenchError:  # it is not up yet
                continue
            self._left.append((time.monotonic() + self._linger_s, reader))
            self._remark(reader.told.endpoint.host, where)
        self._turn_page(self._readers[0].told.endpoint.at)

    def _turn_page(self, where: str) -> None:
        if self._turn is None or where == self._page_at:
            return
        with suppress(LoadbenchError):  # it is not up yet
            self._page = self._turn(where)
            self._page_at = where

    def _remark(self, host: str, where: str) -> None:
        """The load looks names up by itself, and may have been told of other addresses."""
        text = f"{host} leads elsewhere: its inside is seen at {where}"
        hint = "that is the server that is loaded if the note `moved` names the same place"
        note = Note("inside-moved", text, hint)
        if note not in self._remarked:
            self._remarked.add(note)
            self._remarks.append(note)

    def _back(self, reader: "Reader", where: str) -> "Reader | None":
        """Who is asked there still, for the name led there before: a second one would count the
        same once more."""
        endpoint = replace(reader.told.endpoint, at=where)
        for one in self._left:
            if one[1].told.endpoint == endpoint:
                self._left.remove(one)
                one[1].names = reader.names  # its own are of when it was left
                return one[1]
        return None

    def close(self) -> None:
        """Nobody who was reopened is asked any more."""
        self._pool.shutdown()
        for reader in (*self._readers, *(reader for _, reader in self._left)):
            reader.close()

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


class Reader:
    """One server, as long as it is the same. Raises TargetError if it does not answer now."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.close: Callable[[], None] = lambda: None  # who opened the first closes them, too
        self.counted = _Counted(told.asker, told.endpoint)
        where = told.endpoint
        self.names = Lookups(where.host, where.port) if may_change(where.host) else None

    def read(self) -> Server | None:
        scraped = self.told.scraper.server() if self.told.scraper else None
        since = self.counted.since()
        return since if self.counted.there else scraped

    def elsewhere(self, until: float) -> str:
        """Where its name leads to, if that is not where it is any more. Of the look that is under
        way no more is awaited than until then."""
        at = self.told.endpoint.at
        return moved(at, self.names.latest(until)) if self.names and at else ""


# the same server, where its name leads to now. Raises LoadbenchError if it is not there
Reopen = Callable[[Told, str], Reader]


def _opened(reopen: Reopen, before: Reader, where: str) -> Reader:
    """Who reads the server there. Raises LoadbenchError also while it has no statistics yet, as
    until its model is loaded, where the one before has: who has none is not asked again."""
    found = reopen(before.told, where)
    if before.counted.there and not found.counted.there:
        found.close()
        raise TargetError(f"{before.told.endpoint.host} has no statistics at {where} yet")
    return found


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
        """What came since the last call; None also where the server does not answer now, or tells
        nothing of the model: that is a gap."""
        if self._latest is None:
            return None
        try:
            now = self._asker.statistics(self._endpoint)
        except LoadbenchError:
            return None
        if now is None:
            return None
        before, self._latest = self._latest, together(self._latest, now)
        return difference(before, now)
