"""The target of a run, ready to be loaded: an engine that we start, or an endpoint that is there.

Both are asked the same way, over their protocol; ours has no back door.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from loadbench import environment
from loadbench.errors import SpecError, TargetError
from loadbench.machine import Gpu, Machine, card_number
from loadbench.model import Note, Server
from loadbench.plan import Endpoint, Tls, kinds
from loadbench.runner.children import Child, start_engine, wait_ready
from loadbench.runner.inside import Inside, Reader, Reopen, Told
from loadbench.spec import Scenario, Spec
from loadbench.standing import Settings
from loadbench.targets.ask import Asker
from loadbench.targets.inputs import prepare
from loadbench.targets.lacking import lacking
from loadbench.targets.places import LEAD_S
from loadbench.targets.scrape import Scraper
from loadbench.targets.tls import doubts
from loadbench.targets.unheeded import unheeded
from loadbench.units import SECOND, hostport

_UNKNOWN = Endpoint(host="", port=0, protocol="http")  # only the Locust file knows what is there
_READY_S = 600.0  # a large model on a cold disk; its log says what it does meanwhile


@dataclass(frozen=True, slots=True)
class Target:
    """What the runner needs to know of a target. `statistics` gives what came since its last
    call, None if the target tells nothing or does not answer now. It may be given how many seconds
    a server has to answer, so that those which do are told without the others."""

    endpoint: Endpoint
    replicas: tuple[Endpoint, ...]  # further servers, which share the load with it
    url: str
    title: str
    engine: Child | None
    device: str
    settings: dict[str, Any]
    notes: tuple[Note, ...]
    statistics: Callable[..., Server | None]
    # of an engine that the run started: other settings of its batcher; those before and after
    retune: Callable[[Mapping[str, Any]], tuple[Settings, Settings]] | None = None
    warm_ns: dict[int, int] = field(default_factory=dict)  # rows → the model alone at its warm-up
    card: str = ""  # the UUID of the card that the device is
    # those of a server of others, as it told of them when its statistics were asked last; None as
    # long as it has told of none
    cards: Callable[[], tuple[Gpu, ...] | None] = lambda: None
    paged: bool = False  # whether it has pages of metrics, which may tell of cards later
    timed: bool = False  # whether `statistics` has times; else what answers tell of theirs is taken
    known_by: str = ""  # how its protocol was recognised, in words

    @property
    def gpu(self) -> int | None:
        """Index of the card that serves the model, if it is one of this machine."""
        return card_number(self.device) if self.engine else None

    @property
    def on_cards(self) -> bool | None:
        """Whether cards serve the model; None where that may still be told."""
        return card_number(self.device) is not None or (None if self.paged else False)

    def seen(self, machine: Machine) -> Machine:
        """The machine, with the cards of the server if it is one of others and tells of them: this
        machine's do not serve the model. A second without them is a gap then."""
        cards = self.cards()
        return machine if cards is None else msgspec.structs.replace(machine, gpus=cards, told=True)


@contextmanager
def open_target(
    scenario: Scenario, folder: Path, trust: bool, say: Callable[[str], None], python: str = ""
) -> Iterator[Target]:
    """Starts or finds the target; stops the engine in the end. `python` is the interpreter of
    another build that the engine is started with."""
    wanted = scenario.spec.target
    if not wanted.url:  # the Locust file says where, and what is there is not asked
        yield Target(_UNKNOWN, (), "", "", None, "", {}, (), lambda *_: None)
        return
    model = wanted.url.removeprefix("local:")
    if model == wanted.url:
        title = str(environment.shown("url", wanted.url))
        yield from _asked(scenario, wanted.url, None, title, say)
        return
    if not model:
        raise SpecError('target.url = "local:" names no model', 'write "local:mlp" or a path')
    settings = scenario.raw.get("engine", {})
    say(f"starting the engine: {model}")
    extra = ["--arrivals", str(folder / "arrivals.bin"), *(["--trust"] if trust else [])]
    extra += ["--shared-memory"] if wanted.shared_memory else []
    engine = start_engine(model, settings, extra, folder, python)
    try:
        url = wait_ready(engine, _READY_S)
        yield from _asked(scenario, url, engine, f"local:{model}", say)
    finally:
        engine.stop()


def _asked(
    scenario: Scenario, url: str, engine: Child | None, title: str, say: Callable[[str], None]
) -> Iterator[Target]:
    spec = scenario.spec
    journey = spec.load.arrivals == "journey"
    with ExitStack() as opened:
        asker = opened.enter_context(_asker(url, spec))
        endpoint, unseen = _described(asker, scenario)
        if not engine and endpoint.host:
            of = f"; model {endpoint.model}" if endpoint.model else ""
            say(f"target {title}: {asker.known_by}{of}")
        found, unread = (None, ()) if engine else _scraper(endpoint, spec, opened)
        # a page that the scenario names, or that is found at one address, tells of all of them; so
        # does one beside the target, which stays where it is when the target moves
        named = bool(spec.target.replicas) or not _goes_along(spec, endpoint)
        named = named and bool(spec.target.metrics.urls)
        told = [Told(asker, endpoint, None if named else found)]
        same = []  # whose page is another one's too
        for further in spec.target.replicas:
            other = opened.enter_context(_asker(further, spec))
            replica = other.describe(spec.target, endpoint)
            scraper = None if named else _scraper(replica, spec, opened)[0]
            known = [one.scraper.urls for one in told if one.scraper]
            again = scraper is not None and scraper.urls in known
            told.append(Told(other, replica, None if again else scraper))
            same += [replica] if again else []
        if journey and len(told) > 1:
            raise SpecError(
                "target.replicas: a Locust file's users know one host",
                "leave them out, or have its classes choose their host",
            )
        if engine and not journey:  # elsewhere the server counts no request that the log lacks
            _try_out(asker, endpoint, spec)
        elif endpoint.protocol == "http" and not journey:
            remark = lacking(asker, endpoint, spec)
            if remark:
                say(f"{remark.text}: {remark.hint}")
                unseen = (*unseen, remark)
        facts = asker.engine_facts(endpoint) if engine else {}
        # until the load has seen it, too, and its last answers are there
        linger_s = (spec.target.resolve + spec.target.timeout) / SECOND + LEAD_S
        follow = None if engine or not spec.target.resolve else _again(spec)
        along = named and found is not None and _goes_along(spec, endpoint)
        turn = _page_again(spec, endpoint) if along and follow else None
        inside = Inside(told, found if named else None, follow, linger_s, turn)
        opened.callback(inside.close)
        yield Target(
            endpoint=endpoint,
            replicas=tuple(one.endpoint for one in told[1:]),
            url=url,
            title=f"{title} and {len(told) - 1} more" if len(told) > 1 else title,
            engine=engine,
            device=str(facts.get("device", "")) or _device_of(inside.cards()),
            settings={
                key: facts[key]
                for key in ("policy", "max_batch", "precision", "instances", "model")
                if key in facts
            },
            notes=(
                *unseen,
                *unread,
                *_silent([one for one in inside.silent if one not in same]),
                *(() if journey else unheeded(endpoint, spec.target)),
                *(Note(**note) for note in facts.get("notes", ())),
                *(() if journey else doubts(endpoint.tls or _tls_of_metrics(spec))),
            ),
            warm_ns=facts.get("warm_ns", {}),
            statistics=inside.read,
            card=str(facts.get("card", "")),
            retune=partial(asker.retune, endpoint) if engine and endpoint.model else None,
            cards=inside.cards,
            paged=inside.paged,
            timed=inside.timed,
            known_by="" if engine else asker.known_by,
        )


def _silent(found: Sequence[Endpoint]) -> Iterator[Note]:
    """What there is to say of servers that tell nothing of their inside while others do."""
    if found:
        where = ", ".join(hostport(one.host, one.port) for one in found)
        yield Note(
            "inside-some",
            f"{where} tells nothing of its inside: the server's figures are of the others alone",
            "does it tell elsewhere? [target.metrics] url takes a list of pages, for all of them",
        )


def _goes_along(spec: Spec, endpoint: Endpoint) -> bool:
    """Whether a page of metrics is at the name of the target."""
    return any(urlsplit(url).hostname == endpoint.host for url in spec.target.metrics.urls)


def _tls_of_metrics(spec: Spec) -> Tls | None:
    """How its page of metrics is spoken to, if that is by https."""
    return spec.target.tls if spec.target.metrics.secure else None


def _device_of(cards: tuple[Gpu, ...] | None) -> str:
    """The device of a server of others: its card, or one of several, for it does not say which."""
    if not cards:
        return ""
    return f"cuda:{cards[0].index}" if len(cards) == 1 else "cuda"


def _asker(url: str, spec: Spec, at: str = "") -> Asker:
    target = spec.target
    return Asker(url, target.protocol, target.tls, target.headers, at=at)


def _again(spec: Spec) -> Reopen:
    """Who asks the same server at another address, from when it is known to be there."""

    def reopen(told: Told, at: str) -> Reader:
        endpoint = msgspec.structs.replace(told.endpoint, at=at)
        with ExitStack() as new:
            asker = new.enter_context(_asker(told.asker.url, spec, at))
            scraper = _scraper(endpoint, spec, new)[0] if told.scraper else None
            if told.scraper and not scraper:
                raise TargetError(f"{told.asker.url}: there is no page of metrics at {at} yet")
            reader = Reader(Told(asker, endpoint, scraper))
            reader.close = new.pop_all().close
        return reader

    return reopen


def _page_again(spec: Spec, endpoint: Endpoint) -> Callable[[str], Scraper]:
    """Who reads the page of all replicas at another address of its name, from when it is there;
    whoever turns to it closes it."""

    def turn(at: str) -> Scraper:
        with ExitStack() as new:
            found = _scraper(msgspec.structs.replace(endpoint, at=at), spec, new)[0]
            if found is None:
                raise TargetError(f"{endpoint.host}: there is no page of metrics at {at} yet")
            new.pop_all()
        return found

    return turn


def _scraper(
    endpoint: Endpoint, spec: Spec, opened: ExitStack
) -> tuple[Scraper | None, tuple[Note, ...]]:
    """Who reads its page of metrics, None if it has none; and what is to be said of that."""
    if not endpoint.host:
        return None, ()
    scraper = opened.enter_context(Scraper(endpoint, spec.target.metrics, spec.target.tls))
    return scraper if scraper.find() else None, scraper.notes


def _described(asker: Asker, scenario: Scenario) -> tuple[Endpoint, tuple[Note, ...]]:
    """What the server says of itself. A journey knows what to send, so that it can do without."""
    try:
        return asker.describe(scenario.spec.target), ()
    except SpecError as error:
        if scenario.spec.load.arrivals == "journey":
            return _UNKNOWN, (Note("no-inside-view", error.message, error.hint),)
        if scenario.wrote(error.message.partition(" ")[0].rstrip(":")):
            raise SpecError(f"{scenario.file}: {error.message}", error.hint) from error
        raise


def _try_out(asker: Asker, endpoint: Endpoint, spec: Spec) -> None:
    """One request of each kind, before anything is counted: a model that refuses what it is sent
    says why, and a run of nothing but failures would not."""
    pools, _ = prepare(endpoint, kinds(spec), spec.load.seed, most=1)
    for pool in pools:
        asker.attempt(pool[0])
