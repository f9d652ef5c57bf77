"""What the servers of a target tell of their inside, second by second: one view of all of them.

A server whose name means another address is somebody else: what that one counted before is not
ours. The one that was there is asked on for a while, for its last answers are still to come.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from loadbench.environment import hidden
from loadbench.errors import LoadbenchError, TargetError
from loadbench.machine import Gpu
from loadbench.merge import beside, in_turn
from loadbench.model import Note, Server
from loadbench.plan import Endpoint
from loadbench.runner.opening import Opening
from loadbench.targets.ask import Asker, Reading, began_anew, difference, together
from loadbench.targets.places import LOOK_S, Lookups, may_change, moved
from loadbench.targets.question import Question
from loadbench.targets.restarted import restarted
from loadbench.targets.scrape import Scraper

_OPEN_S = 0.1  # that those who answer wait for who is opened elsewhere; most are there by then
_LATE = 3  # times that one of them was late before it is told: once may be chance


class Told(NamedTuple):
    """One server: who asks it, and who reads its page of metrics, if it has one."""

    asker: Asker
    endpoint: Endpoint
    scraper: Scraper | None


class Inside:
    """Of all replicas together. KServe's statistics tell more than metrics do; these are for who
    has none of those, and for cards. `page` is one that tells of all replicas, instead of one for
    each, and `turn` opens it where the first of them is now. With `reopen` names are followed; who
    has moved is asked for `linger_s` more. One that hangs is a gap in its own part alone."""

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
        # closes who is left amid a run: an answer may still be under way
        self._closing = ThreadPoolExecutor(1, "closing")
        self._opening = [Opening(Reader.end, self._closing) for _ in told]
        self._turning = Opening(Scraper.close, self._closing)
        self._remarks: list[Note] = []  # that nobody has been told yet
        self._numbers: dict[str, int] = {}  # of cards
        self._seen_cards = False
        self._hidden = partial(hidden, headers=told[0].endpoint.headers)
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

    @property
    def silent(self) -> tuple[Endpoint, ...]:
        """Of several servers, those that tell nothing while others do, each for itself."""
        told = [reader.counted.there or reader.paged for reader in self._readers]
        if self._page or not any(told):
            return ()
        each = zip(self._readers, told, strict=True)
        return tuple(reader.told.endpoint for reader, tells in each if not tells)

    def read(self, within_s: float | None = None) -> Server | None:
        """What came since the last call; None if none of them tells, or answers now. Who does not
        answer within that time is left out, and told of when it has; else all are awaited."""
        begun = time.monotonic()
        old = [reader for left, reader in self._left if left > begun]
        self._ask([*self._readers, *old], patient=within_s is None)
        if self._reopen is not None:  # while they answer
            self._follow(self._reopen, patient=within_s is None)
        found = self._told(begun, None if within_s is None else begun + within_s)
        if within_s is not None:
            self._late(within_s)
        if found and self._remarks:
            found = replace(found, remarks=(*found.remarks, *self._remarks))
            self._remarks.clear()
        if found and found.remarks:  # they quote labels, which may hold what was sent
            found = replace(found, remarks=tuple(map(self._told_without, found.remarks)))
        return found

    def _told_without(self, note: Note) -> Note:
        return Note(note.code, self._hidden(note.text), self._hidden(note.hint))

    def _ask(self, readers: Sequence["Reader"], patient: bool) -> None:
        """All, before the first is waited for, so that slow ones do not add up."""
        if self._page:
            self._page.ask(patient)
        for reader in readers:
            reader.ask(patient)

    def _told(self, begun: float, until: float | None) -> Server | None:
        old = [reader for left, reader in self._left if left > begun]
        asked = [*self._readers, *old]
        whole = self._page.server(until) if self._page else None
        found = [reader.read(until) for reader in asked]
        silent = [reader for reader, server in zip(asked, found, strict=True) if not server]
        self._leave([one for one in old if one not in silent or one.awaited])
        if self._page and not all(reader.counted.there for reader in self._readers):
            return whole  # what some of them told besides is in it already
        return beside([server for server in found if server])

    def _leave(self, staying: Sequence["Reader"]) -> None:
        """Of those who have moved all others are asked no more."""
        for _, reader in self._left:
            if reader not in staying:
                self._closing.submit(reader.end)
        self._left = [(left, reader) for left, reader in self._left if reader in staying]

    def _follow(self, reopen: "Reopen", patient: bool) -> None:
        """Whoever is patient waits for those who are opened where they have moved to."""
        for reader in self._readers:
            if reader.names:
                reader.names.look()
        until = time.monotonic() + LOOK_S  # for all of them together
        for at, (reader, opening) in enumerate(zip(self._readers, self._opening, strict=True)):
            where = reader.elsewhere(until)
            back = self._back(reader, where) if where else None
            if back:
                self._move(at, back)
            if back or not where:
                opening.give_up()
            else:
                opening.begin(where, partial(_opened, reopen, reader, where))
        until = time.monotonic() + _OPEN_S  # for those, too
        for at, opening in enumerate(self._opening):
            if found := opening.found(None if patient else until):
                found.ask()
                self._move(at, found)
        if self._turn is not None:
            self._turn_page(self._turn, None if patient else until)

    def _move(self, at: int, to: "Reader") -> None:
        reader, self._readers[at] = self._readers[at], to
        self._left.append((time.monotonic() + self._linger_s, reader))
        self._remark(reader.told.endpoint.host, to.told.endpoint.at)

    def _turn_page(self, turn: Callable[[str], Scraper], until: float | None) -> None:
        where = self._readers[0].told.endpoint.at
        if where == self._page_at:
            self._turning.give_up()
            return
        self._turning.begin(where, partial(turn, where))
        if found := self._turning.found(until):
            found.ask()
            before, self._page = self._page, found
            self._page_at = where
            if before:
                self._closing.submit(before.close)

    def _remark(self, host: str, where: str) -> None:
        """The load looks names up by itself, and may have been told of other addresses."""
        text = f"{host} leads elsewhere: its inside is seen at {where}"
        hint = "that is the server that is loaded if the note `moved` names the same place"
        note = Note("inside-moved", text, hint)
        if note not in self._remarked:
            self._remarked.add(note)
            self._remarks.append(note)

    def _late(self, within_s: float) -> None:
        """Says of who is late, or slow, again and again that its seconds are not the client's."""
        asked: list[Reader | Scraper] = [*self._readers, *([self._page] if self._page else [])]
        slow_s = max(one.slow_s for one in asked)
        if max(one.late for one in asked) >= _LATE:
            text = "what is told of the target's inside comes over "
            text += f"{within_s:g} s after a second's end: it stands in the next one, beside the"
            text += " client's figures of that"
        elif slow_s:
            text = f"the target takes {slow_s:.1f} s and more to tell of its inside: what stands in"
            text += " a second is of up to so much later, and of the first so much may stand with"
            text += " the warm-up"
        else:
            return
        hint = "the sums of warm-up and load together are right; its single seconds are not the"
        note = Note("inside-behind", text, f"{hint} client's")
        if note.code not in {one.code for one in self._remarked}:
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
        """Nobody who was reopened is asked any more. Waits for what is under way."""
        for opening in self._opening:
            opening.give_up()
        self._turning.give_up()
        for reader in (*self._readers, *(reader for _, reader in self._left)):
            reader.end()
        if self._page:
            self._page.close()
        self._closing.shutdown()

    @property
    def paged(self) -> bool:
        """Whether there are pages of metrics."""
        return bool(self._scrapers)

    def cards(self) -> tuple[Gpu, ...] | None:
        """Those of servers of others, as they told of them last, each once, though several tell of
        it; None as long as nobody has told of any. Those of several pages are numbered as they came
        to be known, so that one keeps its number while the page of another is not there."""
        places = [self._page, *(reader.told.scraper for reader in self._readers)]
        found: dict[tuple[str, str], Gpu] = {}  # by the card and its part
        for place, scraper in enumerate(places):
            for card in scraper.cards if scraper else ():
                own = replace(card, name=self._hidden(card.name), uuid=self._hidden(card.uuid))
                found.setdefault((card.uuid or f"{place}:{card.index}", card.part), own)
        self._seen_cards |= bool(found)
        if not self._seen_cards:
            return None
        if sum(len(scraper.urls) for scraper in self._scrapers) < 2:
            return tuple(found.values())
        numbers = {who: self._numbers.setdefault(who, len(self._numbers)) for who, _ in found}
        return tuple(replace(card, index=numbers[who]) for (who, _), card in found.items())


class Reader:
    """One server, as long as it is the same. Raises TargetError if it does not answer at first."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.close: Callable[[], None] = lambda: None  # who opened the first closes them, too
        self.counted = _Counted(told.asker, told.endpoint)
        where = told.endpoint
        self.names = Lookups(where.host, where.port) if may_change(where.host) else None

    def ask(self, patient: bool = False) -> None:
        """Asks, unless it owes an answer; whoever is patient waits for that one first."""
        if self.told.scraper:
            self.told.scraper.ask(patient)
        self.counted.ask(patient)

    def read(self, until: float | None = None) -> Server | None:
        """What it tells until that moment (of `time.monotonic`), of what it was asked."""
        scraped = self.told.scraper.server(until) if self.told.scraper else None
        since = self.counted.since(until)
        return since if self.counted.there else scraped

    @property
    def paged(self) -> bool:
        """Whether it has a page that tells more than cards."""
        return self.told.scraper is not None and self.told.scraper.tells

    @property
    def awaited(self) -> bool:
        """Whether it owes an answer."""
        scraper = self.told.scraper
        return self.counted.awaited or (scraper is not None and scraper.awaited)

    @property
    def late(self) -> int:
        """How often what it told was not there when it was wanted: its page, or its counts."""
        scraper = self.told.scraper
        return max(self.counted.late, scraper.late if scraper else 0)

    @property
    def slow_s(self) -> float:
        """How long it takes to tell, if that is long."""
        scraper = self.told.scraper
        return max(self.counted.slow_s, scraper.slow_s if scraper else 0.0)

    def end(self) -> None:
        """Closes it once nothing is under way."""
        self.counted.end()
        self.close()

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
        self._restarted = False  # that was told
        self._question = Question(self._now)
        self.end = self._question.end

    @property
    def there(self) -> bool:
        """Whether the server has any."""
        return self._latest is not None

    @property
    def awaited(self) -> bool:
        """Whether an answer is still to come."""
        return self._question.awaited

    @property
    def late(self) -> int:
        """How many answers were not there when they were wanted."""
        return self._question.late

    @property
    def slow_s(self) -> float:
        """How long its answers take, if that is long."""
        return self._question.slow_s

    def ask(self, patient: bool) -> None:
        """Who has none is not asked."""
        if self.there:
            self._question.put(patient)

    def since(self, until: float | None) -> Server | None:
        """What came since the last call; None also where the server does not answer until then, or
        tells nothing of the model: that is a gap."""
        if self._latest is None:
            return None
        found = []
        for now in self._question.answers(until):
            before, self._latest = self._latest, together(self._latest, now)
            told = difference(before, now)
            if not self._restarted and began_anew(before, now):
                self._restarted = True
                told = replace(told, remarks=(*told.remarks, restarted(self._asker.url)))
            found.append(told)
        return in_turn(found)

    def _now(self) -> Reading | None:
        try:
            return self._asker.statistics(self._endpoint)
        except LoadbenchError:
            return None
