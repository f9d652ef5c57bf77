"""Asks a server for its pages of metrics, once a second; what they tell is for `metrics` to say."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import httpx
from msgspec.structs import replace

from loadbench.environment import shown
from loadbench.errors import SpecError, TargetError
from loadbench.machine import Gpu
from loadbench.model import Note, Server
from loadbench.plan import Endpoint, Tls
from loadbench.targets import figures, metrics, processes
from loadbench.targets.cards import cards
from loadbench.targets.exposition import Page, joined, page
from loadbench.targets.pinned import PLAIN, WHOLE_S, Pinned
from loadbench.targets.places import Pin
from loadbench.targets.question import Question
from loadbench.targets.tls import context
from loadbench.targets.wire import own_headers
from loadbench.units import hostport

if TYPE_CHECKING:  # it brings pydantic, which not all who ask need
    from loadbench.metricspec import MetricsSpec

_TIMEOUT = httpx.Timeout(0.8, connect=0.5)  # it is asked anew each second
_WHOLE_S = 3.0  # for all of a page
_MOST = 16 << 20  # bytes of it
_TRITON = 8002  # the port of its metrics, unless told otherwise
_SHOWN = 12  # names of a page, in a note
_PATHS = ("/metrics", "/monitoring/prometheus/metrics")  # the second is TensorFlow Serving's


class Scraper:
    """The metrics of one server. Use it as a context manager."""

    def __init__(self, endpoint: Endpoint, spec: "MetricsSpec", tls: Tls | None = None) -> None:
        """`tls`: how to speak https with the page where the target itself speaks none. Raises
        SpecError for files that cannot be used."""
        self._endpoint = endpoint
        self._spec = spec
        verify = context(endpoint.tls or tls or Tls())
        pinned = Pinned(Pin(endpoint.host, endpoint.port, endpoint.at), verify)
        self._client = httpx.Client(
            timeout=_TIMEOUT, trust_env=False, transport=pinned, headers=PLAIN
        )
        self._urls: list[str] = []
        self._questions: dict[str, Question[Page]] = {}  # each page's
        self._asked: figures.Wanted | None = None
        self._latest: processes.Reading | None = None
        self.cards: tuple[Gpu, ...] = ()  # as they were when last asked
        self.notes: tuple[Note, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Waits for pages that are under way. May be called twice."""
        for question in self._questions.values():
            question.end()
        self._client.close()

    def find(self) -> bool:
        """Looks where the server tells of itself; False if it does not, or nobody wants to know.
        Raises TargetError and SpecError if the scenario says where, or by which names, and that is
        not so."""
        if self._spec.url == "off":
            return False
        if named := self._spec.urls:
            pages = {url: self._page(url) for url in named}
            self.notes = tuple(
                _unread(url, found) for url, found in pages.items() if not self._known(found)
            )
            return self._take(named, _whole(named, pages))
        for usual in self._usual():
            try:
                found = self._page(usual)
            except TargetError:
                continue
            # Triton's port may be that of another server on the same host, whose cards are the same
            own = urlsplit(usual).port != _TRITON or figures.tells_of(found, self._endpoint.model)
            if self._take([usual], found, own):
                return True
        if self._spec.given:
            raise SpecError(
                "target.metrics: no page of metrics was found at the target",
                'say where it is: [target.metrics] url = "http://host:port/metrics"',
            )
        return False

    def _usual(self) -> Iterator[str]:
        """Where servers have their page."""
        host, scheme = self._endpoint.host, "https" if self._endpoint.tls else "http"
        for path in _PATHS if not self._endpoint.rpc else ():
            yield f"{scheme}://{hostport(host, self._endpoint.port)}{path}"
        if self._endpoint.kserve:
            yield f"http://{hostport(host, _TRITON)}/metrics"

    def _known(self, found: Page) -> bool:
        """Whether something of a page is read: the names that are given may be on another one."""
        given = [figures.expression(key, text) for key, text in self._spec.given.items()]
        return bool(
            figures.wanted(found, {})
            or cards(found)
            or any(figures.there(term, found) for one in given for term in one.terms)
        )

    def _take(self, urls: list[str], found: Page, own: bool = True) -> bool:
        model = self._endpoint.model
        self._asked = figures.wanted(found, self._spec.given, model) if own else None
        seen = cards(found)
        if self._asked is None and not seen:
            return False
        self._asked = self._asked or figures.Wanted("metrics", {})
        self._urls, self._asked = urls, self._asked._replace(process=self._spec.labels)
        self._questions = {url: Question(partial(self._page_now, url)) for url in urls}
        self.notes += self._asked.notes
        self._latest = metrics.read(found, self._asked)
        self.cards = seen
        return True

    @property
    def urls(self) -> list[str]:
        """Where the pages are; none as long as none is found."""
        return self._urls

    @property
    def tells(self) -> bool:
        """Whether there is more than cards."""
        return bool(self._asked and self._asked.figures)

    @property
    def timed(self) -> bool:
        """Whether it tells how long something took."""
        return bool(self._asked and self._asked.figures.keys() & {"queue", "compute"})

    @property
    def awaited(self) -> bool:
        """Whether a page is still to come."""
        return any(question.awaited for question in self._questions.values())

    @property
    def late(self) -> int:
        """How often a page was not there when it was wanted: of several the worst."""
        return max((question.late for question in self._questions.values()), default=0)

    @property
    def slow_s(self) -> float:
        """How long its pages take, if that is long: of several the worst."""
        return max((question.slow_s for question in self._questions.values()), default=0.0)

    def ask(self, patient: bool = False) -> None:
        """Asks for the pages, side by side; `server` then waits for them. Whoever is patient waits
        for those before first."""
        for question in self._questions.values():
            question.put(patient)

    def server(self, until: float | None = None) -> Server | None:
        """What the server did since it was asked last; None if it does not answer until that moment
        (of `time.monotonic`). A page that comes later is there for the next call."""
        if self._asked is None or self._latest is None:
            return None
        pages = {}
        for url, question in self._questions.items():  # one that is not there is a gap in it
            if found := question.answers(until):
                pages[url] = found[-1]  # it has what those before it counted
        if not pages:
            self.cards = ()
            return None
        whole = _whole(self._urls, pages)
        self._asked = figures.narrowed(self._asked, whole, self._endpoint.model)
        now = metrics.read(whole, self._asked)
        if len(pages) < len(self._urls):  # whom another page tells of is not gone
            now = now._replace(there=now.there | self._latest.there)
        before, self._latest = self._latest, metrics.together(self._latest, now)
        self.cards = now.gpus
        if not self.tells:
            return None
        told = metrics.difference(before, now, self._asked)
        where = " and ".join(str(shown("url", url)) for url in self._urls)
        notes = [figures.mixed(whole, self._asked.vocabulary, self._asked.shared)]
        notes += processes.remarks(before, now, where)
        return replace(told, remarks=self._new(note for note in notes if note))

    def _new(self, notes: Iterable[Note]) -> tuple[Note, ...]:
        """Those of a kind that was not told of yet: what happens again and again is told once."""
        told = {note.code for note in self.notes}
        new = tuple(note for note in notes if note.code not in told)
        self.notes += new
        return new

    def _headers(self, url: str) -> httpx.Headers:
        """The target's go to nobody else."""
        where, endpoint = urlsplit(url), self._endpoint
        port = where.port or (443 if where.scheme == "https" else 80)
        own = "https" if endpoint.tls else "http", endpoint.host, endpoint.port
        same = (where.scheme, where.hostname, port) == own
        return httpx.Headers(own_headers(endpoint) if same else [], encoding="latin-1")

    def _page_now(self, url: str) -> Page | None:
        try:
            return self._page(url)
        except TargetError:
            return None

    def _page(self, url: str) -> Page:
        asked = f"GET {shown('url', url)}"  # as it is told of
        try:
            bound, headers = {WHOLE_S: _WHOLE_S}, self._headers(url)
            with self._client.stream("GET", url, headers=headers, extensions=bound) as answer:
                if answer.status_code != 200:
                    raise TargetError(f"{asked}: HTTP {answer.status_code}", _hint(url))
                body = bytearray()
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > _MOST:
                        raise TargetError(f"{asked}: more than {_MOST >> 20} MB", _hint(url))
            named = any("_bucket" in text for text in self._spec.given.values())
            return page(body.decode("utf-8-sig"), buckets=named)
        except httpx.HTTPError as error:
            raise TargetError(f"{asked}: {error or type(error).__name__}", _hint(url)) from error
        except ValueError as error:  # of the text, or of its encoding
            raise TargetError(f"{asked}: is no page of metrics: {error}", _hint(url)) from error


def _whole(urls: list[str], pages: Mapping[str, Page]) -> Page:
    """Those of the pages that answered, as one."""
    if len(urls) == 1:
        return pages[urls[0]]
    return joined({url.partition("://")[2]: found for url, found in pages.items()})


def _unread(url: str, found: Page) -> Note:
    """Somebody asked for this page, and must not think that it was quiet."""
    names = ", ".join(sorted(found)[:_SHOWN]) or "nothing"
    text = f"target.metrics.url: no name on {shown('url', url)} is known, so nothing of it is read"
    hint = f"it tells of {names}; say what they mean: [target.metrics] requests = …, queue = …"
    return Note("metrics-unread", text, hint)


def _hint(url: str) -> str:
    port = urlsplit(url).port
    return f'see [target.metrics] url{"" if port else ", which names no port"}; "off" asks nothing'
