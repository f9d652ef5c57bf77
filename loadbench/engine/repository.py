"""The models the engine serves: loading, swapping, unloading, and what may be asked for.

A new version is opened and warmed up beside the one that serves, which goes on until the new one
takes its place between two requests; then it leaves with its last answer. A load that fails changes
nothing but the index, which says why. Everything here runs on the event loop's thread; the work of
loading is the loader's.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from loadbench.engine.assembly import Wanted, assemble
from loadbench.engine.endpoint import Endpoint
from loadbench.engine.exchange import Inferring
from loadbench.engine.loader import Loader, load, may_be_low
from loadbench.engine.models import ZOO
from loadbench.engine.orders import Offer, Order, Orders, directions_of
from loadbench.engine.retune import retune
from loadbench.engine.store import Store, stamp
from loadbench.engine.tensors import Refused
from loadbench.engine.versions import Loaded, Row, Versions
from loadbench.errors import LoadbenchError, SpecError
from loadbench.model import Note

LEAVING_S = 60.0  # for the last answers of a version that was replaced
POLL_S = 0.01
NOTES = 32

Done = Callable[[Refused | None], None]


class Repository:
    """All models, by name."""

    def __init__(self, offer: Offer, loop: asyncio.AbstractEventLoop) -> None:
        """Raises SpecError if there is no such model."""
        self.models: dict[str, Versions] = {}
        self.paths: dict[bytes, Inferring] = {}
        self.notes: deque[Note] = deque(maxlen=NOTES)  # what came up while it served
        self.draining = self._serving = False
        self._offer = offer
        self._loop = loop
        self._store = Store(offer.models)
        self._orders = Orders(offer, self._store)
        self._loader = Loader(loop)
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- at the start

    def open_all(self) -> None:
        """Opens and warms up every model there is, one after the other. Raises SpecError and
        RunError."""
        names = self._store.names()
        if len(names) > 1 and self._offer.settings.watch.record:
            raise SpecError(
                f"engine.watch.record is a file for one model, not for {len(names)}",
                "serve one of them alone",
            )
        for name in names:
            order = self._orders.of(name, {})
            model = self._model(name)
            found = [self._loaded(wanted, model, start=True) for wanted in order.wanted]
            try:
                self._take(model, order, found)
            except Refused as fault:
                raise SpecError(
                    f"{name}: {fault.message}", "start it without that trial"
                ) from fault

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
        self._serving = True
        for endpoint in self.endpoints():
            endpoint.start()

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
        loaded = any(model.loaded for model in self.models.values())
        return loaded and not self.draining and not self.broken

    @property
    def broken(self) -> str:
        """Why a device is unfit to run anything; empty: none is."""
        return next((why for found in self.endpoints() if (why := found.broken)), "")

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
        order = self._orders.of(name, parameters)
        model = self._model(name)
        changed = [wanted for wanted in order.wanted if not self._is_loaded(model, wanted)]

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
            if self.draining:  # nobody would see it off
                done(Refused(503, "the engine is shutting down"))
                return
            try:
                self._take(model, order, result)
            except Refused as fault:  # loaded, but no canary or shadow
                done(fault)
                return
            done(None)

        low = all(may_be_low(wanted) for wanted in changed)
        self._loader.ask(work, ended, low=low)
        for wanted in changed:
            model.states[wanted.version or ""] = ("LOADING", "")

    def _is_loaded(self, model: Versions, wanted: Wanted) -> bool:
        """Whether that version is served as it is wanted: then it need not be loaded again."""
        loaded = model.loaded.get(wanted.version or model.current)
        if loaded is None or loaded.settings != wanted.settings:
            return False
        return wanted.what not in (*ZOO, "fake") and loaded.stamp == stamp(wanted.what)

    # ---- swap

    def _take(self, model: Versions, order: Order, found: list[Loaded]) -> None:
        """Lets new versions serve. Raises Refused if the newest cannot be a canary or shadow: then
        it is loaded, and the current version stays; or if none of those wanted is left."""
        for loaded in found:
            model.put(loaded)
            if self._serving:
                loaded.endpoint.start()
        own = found[0].number if found else model.current  # of a file that names its version
        wanted = {wanted.version or own for wanted in order.wanted}
        numbers = sorted(wanted & model.loaded.keys(), key=int)
        if not numbers:  # none was to be loaded anew
            raise Refused(503, f"{model.name} was unloaded meanwhile: ask again")
        newest, on_trial = numbers[-1], order.shadow or order.share > 0
        try:
            if not model.current and on_trial and len(numbers) > 1:
                model.use(numbers[-2])
            if model.current and newest != model.current and on_trial:
                model.try_out(newest, None if order.shadow else order.share, order.seed)
            else:
                model.use(newest)
            model.wanted = set(numbers) if order.lasting else {newest}
            model.keep()
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
        try:
            await asyncio.to_thread(gone.endpoint.stop, 1.0)
        finally:
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
            if waiting:  # a fault of one that leaves is told by its task
                await asyncio.wait(waiting)
            done(None)

        self._tasks.add(task := self._loop.create_task(wait()))
        task.add_done_callback(self._tasks.discard)

    def direct(self, name: str, asked: Mapping[str, Any]) -> None:
        """Changes who answers: `version` becomes the current one, `canary` gets a `share`,
        `shadow` runs beside; null ends either. `aliases` maps names to versions. Raises Refused."""
        model = self.model(name)
        model.direct(directions_of(asked), self._offer.settings.seed)
        self._changed(model)

    def retune(self, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Has the current version, or the `version` that is named, go on by other settings of its
        batcher. Raises Refused and SpecError."""
        wanted = dict(asked)
        model = self.model(name)
        number = self.find(name, str(wanted.pop("version", ""))).signature.version
        loaded = model.loaded[number]
        settings, before, after = retune(loaded.endpoint, loaded.settings, wanted)
        model.loaded[number] = loaded._replace(settings=settings)
        return {"name": name, "version": number, "before": before, "after": after}

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

    def remarks(self) -> list[Note]:
        """Whatever came up in any version since the start, each once."""
        books = [found for model in self.models.values() for found in model.all_books()]
        return list(dict.fromkeys(note for account in books for note in account.remarks()))

    def stop(self, timeout_s: float) -> bool:
        """Ends all threads that serve. False if one of them is still in a batch, or a load is under
        way."""
        ended = [endpoint.stop(timeout_s) for endpoint in self.endpoints()]
        return all(ended) and not self._loader.busy
