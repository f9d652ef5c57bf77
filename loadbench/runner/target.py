"""The target of a run, ready to be loaded: an engine that we start, or an endpoint that is there.

Both are asked the same way, over their protocol; ours has no back door.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from loadbench.errors import LoadbenchError, SpecError
from loadbench.machine import Gpu, Machine
from loadbench.model import Note, Server
from loadbench.plan import Endpoint, kinds
from loadbench.runner.children import Child, start_engine, wait_ready
from loadbench.spec import Scenario, Spec
from loadbench.standing import Settings
from loadbench.targets.ask import Asker, difference
from loadbench.targets.inputs import prepare
from loadbench.targets.scrape import Scraper
from loadbench.targets.tls import doubts

_UNKNOWN = Endpoint(host="", port=0, protocol="http")  # only the Locust file knows what is there
_READY_S = 600.0  # a large model on a cold disk; its log says what it does meanwhile


@dataclass(frozen=True, slots=True)
class Target:
    """What the runner needs to know of a target. `statistics` gives what came since its last
    call, None if the target tells nothing or does not answer now."""

    endpoint: Endpoint
    url: str
    title: str
    engine: Child | None
    device: str
    settings: dict[str, Any]
    notes: tuple[Note, ...]
    statistics: Callable[[], Server | None]
    # of an engine that the run started: other settings of its batcher; those before and after
    retune: Callable[[Mapping[str, Any]], tuple[Settings, Settings]] | None = None
    warm_ns: dict[int, int] = field(default_factory=dict)  # rows → the model alone at its warm-up
    card: str = ""  # the UUID of the card that the device is
    # those of a server of others, as it told of them when its statistics were asked last
    cards: Callable[[], tuple[Gpu, ...]] = tuple
    known_by: str = ""  # how its protocol was recognised, in words

    @property
    def gpu(self) -> int | None:
        """Index of the card that serves the model, if it is one of this machine."""
        kind, _, index = self.device.partition(":")
        return int(index or 0) if kind == "cuda" else None

    def seen(self, machine: Machine) -> Machine:
        """The machine, with the cards of the server if it is one of others and tells of them: this
        machine's do not serve the model."""
        cards = self.cards()
        return msgspec.structs.replace(machine, gpus=cards) if cards else machine


@contextmanager
def open_target(
    scenario: Scenario, folder: Path, trust: bool, say: Callable[[str], None], python: str = ""
) -> Iterator[Target]:
    """Starts or finds the target; stops the engine in the end. `python` is the interpreter of
    another build that the engine is started with."""
    wanted = scenario.spec.target
    if not wanted.url:  # the Locust file says where, and what is there is not asked
        yield Target(_UNKNOWN, "", "", None, "", {}, (), lambda: None)
        return
    model = wanted.url.removeprefix("local:")
    if model == wanted.url:
        yield from _asked(scenario.spec, wanted.url, None, wanted.url, say)
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
        yield from _asked(scenario.spec, url, engine, f"local:{model}", say)
    finally:
        engine.stop()


def _asked(
    spec: Spec, url: str, engine: Child | None, title: str, say: Callable[[str], None]
) -> Iterator[Target]:
    journey = spec.load.arrivals == "journey"
    with (
        Asker(url, spec.target.protocol, spec.target.tls, spec.target.headers) as asker,
        ExitStack() as open_too,
    ):
        endpoint, unseen = _described(asker, spec)
        if not engine and endpoint.host:
            of = f"; model {endpoint.model}" if endpoint.model else ""
            say(f"target {url}: {asker.known_by}{of}")
        if engine and not journey:  # elsewhere the server counts no request that the log lacks
            _try_out(asker, endpoint, spec)
        facts = asker.engine_facts(endpoint) if engine else {}
        scraper = Scraper(endpoint, spec.target.metrics) if not engine and endpoint.host else None
        if scraper and not open_too.enter_context(scraper).find():
            scraper = None
        yield Target(
            endpoint=endpoint,
            url=url,
            title=title,
            engine=engine,
            device=str(facts.get("device", "")) or _card_of(scraper),
            settings={
                key: facts[key]
                for key in ("policy", "max_batch", "precision", "instances", "model")
                if key in facts
            },
            notes=(
                *unseen,
                *(Note(**note) for note in facts.get("notes", ())),
                *(() if journey else doubts(endpoint.tls)),
            ),
            warm_ns=facts.get("warm_ns", {}),
            statistics=_inside(_since(asker, endpoint), scraper),
            card=str(facts.get("card", "")),
            retune=partial(asker.retune, endpoint) if engine and endpoint.model else None,
            cards=(lambda: scraper.cards) if scraper else tuple,
            known_by="" if engine else asker.known_by,
        )


def _card_of(scraper: Scraper | None) -> str:
    """The device of a server of others, if it tells of a card: the first one."""
    return f"cuda:{scraper.cards[0].index}" if scraper and scraper.cards else ""


def _inside(
    statistics: Callable[[], Server | None], scraper: Scraper | None
) -> Callable[[], Server | None]:
    """KServe's statistics tell more than metrics do; these are for who has none of those, and for
    cards."""
    if scraper is None:
        return statistics

    def read() -> Server | None:
        told = scraper.server()
        return statistics() or told

    return read


def _described(asker: Asker, spec: Spec) -> tuple[Endpoint, tuple[Note, ...]]:
    """What the server says of itself. A journey knows what to send, so that it can do without."""
    try:
        return asker.describe(spec.target), ()
    except SpecError as error:
        if spec.load.arrivals != "journey":
            raise
        note = Note("no-inside-view", error.message, error.hint)
        return _UNKNOWN, (note,)


def _try_out(asker: Asker, endpoint: Endpoint, spec: Spec) -> None:
    """One request of each kind, before anything is counted: a model that refuses what it is sent
    says why, and a run of nothing but failures would not."""
    pools, _ = prepare(endpoint, kinds(spec), spec.load.seed, most=1)
    for pool in pools:
        asker.attempt(pool[0])


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
