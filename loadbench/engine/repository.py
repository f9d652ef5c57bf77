"""The models the engine serves: loading, swapping, unloading, and what may be asked for.

A new version is opened and warmed up beside the one that serves, which goes on until the new one
takes its place between two requests; then it leaves with its last answer. A load that fails changes
nothing but the index, which says why. Everything here runs on the event loop's thread; the work of
loading is the loader's.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from loadbench.engine.arrivals import ArrivalLog
from loadbench.engine.assembly import Wanted, assemble
from loadbench.engine.endpoint import Endpoint
from loadbench.engine.exchange import Inferring
from loadbench.engine.loader import Loader, load, may_be_low
from loadbench.engine.modelconfig import Configured, configured
from loadbench.engine.modelconfig import Versions as Policy
from loadbench.engine.models import ZOO
from loadbench.engine.store import VERSION, Source, Store, stamp
from loadbench.engine.tensors import Refused
from loadbench.engine.uploads import Uploads
from loadbench.engine.versions import Loaded, Row, Versions
from loadbench.errors import LoadbenchError
from loadbench.model import Note
from loadbench.spec import EngineSpec
from loadbench.units import parse_share

LEAVING_S = 60.0  # for the last answers of a version that was replaced
POLL_S = 0.01
NOTES = 32

Done = Callable[[Refused | None], None]


class Offer(NamedTuple):
    """What the engine was started with."""

    models: tuple[str, ...]
    settings: EngineSpec
    trust: bool
    arrivals: ArrivalLog | None = None


class _Order(NamedTuple):
    """What a load is to bring."""

    source: Source
    settings: EngineSpec
    versions: dict[str | None, str]  # what to open; None: the version that the file names
    share: float  # of the requests, for the newest, as a canary; 0: it takes over
    shadow: bool


class Repository:
    """All models, by name."""

    def __init__(self, offer: Offer, loop: asyncio.AbstractEventLoop) -> None:
        """Raises SpecError if there is no such model."""
        self.models: dict[str, Versions] = {}
        self.paths: dict[bytes, Inferring] = {}
        self.notes: deque[Note] = deque(maxlen=NOTES)  # what came up while it served
        self.draining = False
        self._offer = offer
        self._loop = loop
        self._store = Store(offer.models)
        self._uploads = Uploads()
        self._loader = Loader(loop)
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- at the start

    def open_all(self) -> None:
        """Opens and warms up every model there is, one after the other. Raises SpecError and
        RunError."""
        for name in self._store.names():
            source = self._store.source(name)
            assert source is not None
            order = self._order(source, {})
            model = self._model(name)
            found = [
                self._loaded(self._wanted(order, version), model, start=True)
                for version in order.versions
            ]
            self._take(model, order, found)

    def _loaded(self, wanted: Wanted, model: Versions, *, start: bool) -> Loaded:
        """Opens a version; on the loader's thread unless at the start."""
        seen = stamp(wanted.what)
        if start:
            endpoint = assemble(wanted, model.books, self._loop)
        else:
            current = model.find(wanted.version or "") or model.find("")
            beside = current.endpoint.model if current else None
            endpoint = load(wanted, model.books, self._loop, beside)
        return Loaded(endpoint.signature.version, endpoint, wanted.settings, seen)

    def start(self) -> None:
        """Requests may come from now on."""
        for endpoint in self.endpoints():
            endpoint.batcher.start()

    # ---- who answers

    def endpoints(self) -> Iterator[Endpoint]:
        """Of all versions that are loaded, or still have requests in hand."""
        for model in self.models.values():
            for loaded in (*model.loaded.values(), *model.leaving.values()):
                yield loaded.endpoint

    def find(self, name: str, version: str = "") -> Endpoint:
        """A version by its number or alias, or the current one. Raises Refused if it is not
        loaded."""
        model = self.model(name)
        loaded = model.find(version)
        if loaded is None:
            raise Refused(404, f"{name} has no version {version!r}" if version
                          else f"{name} is not loaded")  # fmt: skip
        return loaded.endpoint

    def answering(self, name: str, version: str = "") -> Inferring:
        """Who answers an infer call: as `find`, but a canary has its share of those that name no
        version. Raises Refused."""
        return self.model(name).routes().get(version) or self.find(name, version)

    def model(self, name: str) -> Versions:
        """Raises Refused if there is none."""
        if name not in self.models:
            known = ", ".join(map(repr, self.models)) or "none"
            raise Refused(404, f"there is no model {name!r}, only {known}")
        return self.models[name]

    @property
    def ready(self) -> bool:
        """Whether anything can be answered."""
        return not self.draining and any(model.loaded for model in self.models.values())

    def index(self) -> list[Row]:
        """Every model there is, loaded or not."""
        rows = [row for model in self.models.values() for row in model.rows()]
        told = {row.name for row in rows}
        try:
            others = [name for name in self._store.names() if name not in told]
        except LoadbenchError:  # a folder is gone
            others = []
        return rows + [Row(name, "", "UNAVAILABLE", "") for name in others]

    def _model(self, name: str) -> Versions:
        if name not in self.models:
            self.models[name] = Versions(name, self._offer.arrivals)
        return self.models[name]

    def _show(self) -> None:
        """Infer calls find their way by these paths: after every change, all at once."""
        self.paths = {
            f"/v2/models/{name}{'/versions/' * bool(version)}{version}/infer".encode(): answering
            for name, model in self.models.items()
            for version, answering in model.routes().items()
        }

    # ---- load

    def load(self, name: str, parameters: Mapping[str, Any], done: Done) -> None:
        """Loads what the model's source holds now; `done` is called when it serves. Raises
        Refused and LoadbenchError for what cannot be asked for."""
        if self.draining:
            raise Refused(503, "the engine is shutting down")
        source = self._source(name, parameters)
        order = self._order(source, parameters)
        model = self._model(name)
        fresh = [self._wanted(order, version) for version in order.versions]
        changed = [wanted for wanted in fresh if not self._is_loaded(model, wanted)]
        for wanted in changed:
            model.states[wanted.version or ""] = ("LOADING", "")

        def work() -> list[Loaded]:
            return [self._loaded(wanted, model, start=False) for wanted in changed]

        def ended(result: list[Loaded] | LoadbenchError) -> None:
            for wanted in changed:
                model.states.pop(wanted.version or "", None)
            if isinstance(result, LoadbenchError):
                why = "; ".join(filter(None, (result.message, result.hint)))
                for wanted in changed:
                    model.states[wanted.version or model.current or "1"] = ("UNAVAILABLE", why)
                done(Refused(400, f"failed to load {name!r}: {why}"))
                return
            try:
                self._take(model, order, result)
            except Refused as fault:  # loaded, but no canary or shadow
                done(fault)
                return
            done(None)

        low = all(may_be_low(wanted) for wanted in changed)
        self._loader.ask(work, ended, low=low)

    def _source(self, name: str, parameters: Mapping[str, Any]) -> Source:
        files = {key: value for key, value in parameters.items() if key.startswith("file:")}
        if not files:
            if source := self._store.source(name):
                return source
            raise Refused(404, f"there is no model {name!r} below what the engine was started with")
        if not self._offer.trust:
            raise Refused(403, "files in a load call need an engine that was started with --trust")
        return self._uploads.take(name, files)

    def _order(self, source: Source, parameters: Mapping[str, Any]) -> _Order:
        known = {"config", "version", "canary", "shadow"}
        for key in parameters:
            if key not in known and not key.startswith("file:"):
                raise Refused(400, f"unknown parameter {key!r}: {', '.join(sorted(known))}")
        found = self._configured(source, parameters.get("config"))
        settings, asked = found.settings, parameters.get("version")
        if asked is not None and not VERSION.fullmatch(str(asked)):
            raise Refused(400, f"{asked!r} is no version: they are whole numbers")
        share = _share(parameters.get("canary", settings.canary))
        shadow = parameters.get("shadow", settings.shadow)
        if not isinstance(shadow, bool) or (shadow and share):
            raise Refused(400, "shadow is true or false, and not beside a canary")
        there = source.versions()
        if not there:
            return _Order(source, settings, {asked and str(asked): source.what}, share, shadow)
        policy = found.versions or Policy(2 if share or shadow else 1)
        if asked is not None:
            policy = Policy(None, (str(asked),))
        versions: dict[str | None, str] = {number: there[number] for number in policy.of([*there])}
        return _Order(source, settings, versions, share, shadow)

    def _configured(self, source: Source, given: Any) -> Configured:
        """The engine's settings, changed by the model's config.json or else by the call."""
        if given is None:
            trust, origin = self._offer.trust, f"config.json of {source.name}"
            return configured(source.config(), self._offer.settings, origin, trust=trust)
        try:
            found = msgspec.json.decode(given) if isinstance(given, str) else given
        except msgspec.DecodeError as error:
            raise Refused(400, f"config is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise Refused(400, "config is no object")
        return configured(found, self._offer.settings, "config", trust=False)

    def _wanted(self, order: _Order, version: str | None) -> Wanted:
        what = order.versions[version]
        name, trust = order.source.name, self._offer.trust
        return Wanted(name, version, what, order.settings, trust)

    def _is_loaded(self, model: Versions, wanted: Wanted) -> bool:
        """Whether that version is served as it is wanted: then it need not be loaded again."""
        loaded = model.loaded.get(wanted.version or model.current)
        if loaded is None or loaded.settings != wanted.settings:
            return False
        return wanted.what not in (*ZOO, "fake") and loaded.stamp == stamp(wanted.what)

    # ---- swap

    def _take(self, model: Versions, order: _Order, found: list[Loaded]) -> None:
        """Lets new versions serve. Raises Refused if the newest cannot be a canary or shadow: then
        it is loaded, and the current version stays."""
        for loaded in found:
            model.put(loaded)
            if model.leaving or self.paths:  # serving: at the start all begin together
                loaded.endpoint.batcher.start()
        numbers = sorted(
            (number or (found[0].number if found else model.current) for number in order.versions),
            key=int,
        )
        newest = numbers[-1]
        try:
            if not model.current and len(numbers) > 1 and (order.share or order.shadow):
                model.use(numbers[-2])
            if not model.current or newest == model.current:
                model.use(newest)
            elif order.share or order.shadow:
                model.try_out(newest, None if order.shadow else order.share, order.settings.seed)
            else:
                model.use(newest)
            model.keep(set(numbers))
        finally:
            self._changed(model)

    def _changed(self, model: Versions) -> None:
        """Shows what is now, and sees off what left."""
        self._show()
        for number, gone in list(model.leaving.items()):
            if not gone.endpoint.batcher.draining:
                self._tasks.add(task := self._loop.create_task(self._see_off(model, number, gone)))
                task.add_done_callback(self._tasks.discard)

    async def _see_off(self, model: Versions, number: str, gone: Loaded) -> None:
        """Waits for the last answers of a version, then ends its threads and lets it go."""
        batcher = gone.endpoint.batcher
        batcher.drain()
        until = time.monotonic() + LEAVING_S
        while batcher.open and time.monotonic() < until:
            await asyncio.sleep(POLL_S)
        batcher.refuse_waiting()
        await asyncio.to_thread(batcher.stop, 1.0)
        if model.leaving.get(number) is gone:
            model.left(number)

    # ---- unload, traffic, the end

    def unload(self, name: str, version: str, done: Done) -> None:
        """A version, or all of them, take no more requests; `done` is called when their last ones
        are answered. Raises Refused."""
        model = self.model(name)
        if version and version not in model.loaded:
            raise Refused(404, f"{name} has no version {version!r}")
        gone = [model.loaded[number] for number in ([version] if version else [*model.loaded])]
        for loaded in gone:
            model.remove(loaded.number)
        self._changed(model)
        waiting = [*self._tasks]

        async def wait() -> None:
            await asyncio.gather(*waiting)
            done(None)

        self._tasks.add(task := self._loop.create_task(wait()))
        task.add_done_callback(self._tasks.discard)

    def direct(self, name: str, asked: Mapping[str, Any]) -> None:
        """Changes who answers: `version` becomes the current one, `canary` gets a `share`,
        `shadow` runs beside; null ends either. `aliases` maps names to versions. Raises Refused."""
        model = self.model(name)
        for key in asked.keys() - {"version", "canary", "share", "shadow", "aliases"}:
            raise Refused(400, f"unknown {key!r}: version, canary and share, shadow, aliases")
        aliases = asked.get("aliases", {})
        if not isinstance(aliases, Mapping):
            raise Refused(400, "aliases maps names to versions")
        for alias, number in aliases.items():
            model.name_one(alias, None if number is None else str(number))
        if "version" in asked:
            number = str(asked["version"])
            if number not in model.loaded:
                raise Refused(404, f"{name} has no version {number!r}")
            model.use(number)
            model.keep({number})
        trials = [key for key in ("canary", "shadow") if key in asked]
        if len(trials) > 1:
            raise Refused(400, "a canary or a shadow, not both")
        for key in trials:
            share = _share(asked.get("share", 0.1)) if key == "canary" else None
            if asked[key] is None:
                model.end_trial()
            else:
                model.try_out(str(asked[key]), share, self._offer.settings.seed)
        self._changed(model)

    def tick(self) -> None:
        """Once a second: gives up canaries that do badly."""
        for model in self.models.values():
            if why := model.judge():
                self.notes.append(Note("rolled-back", why, "its statistics and the log say more"))
                self._changed(model)

    def drain(self) -> None:
        """Nothing more is taken; what waits is run."""
        self.draining = True
        for endpoint in self.endpoints():
            endpoint.batcher.drain()

    @property
    def open(self) -> int:
        """Requests in hand."""
        return sum(endpoint.batcher.open for endpoint in self.endpoints())

    def refuse_waiting(self) -> None:
        """Gives up what still waits, at the end of a drain that took too long."""
        for endpoint in self.endpoints():
            endpoint.batcher.refuse_waiting()

    def stop(self, timeout_s: float) -> bool:
        """Ends all threads that serve. False if one of them is still in a batch."""
        ended = [endpoint.batcher.stop(timeout_s) for endpoint in self.endpoints()]
        return all(ended)


def _share(found: Any) -> float:
    try:
        share = parse_share(found) if isinstance(found, str) else float(found)
    except (LoadbenchError, TypeError, ValueError):
        share = math.nan
    if isinstance(found, bool) or not 0 <= share <= 1:
        raise Refused(400, f'{found!r} is no share: 0 to 1, or "10 %"')
    return share
