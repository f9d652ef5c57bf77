"""Watching a model while it serves: what goes wrong slowly, or only now and then.

`Watched` looks at each batch (`finite`, `drift`), `Watcher` looks now and then from a thread of its
own (`modules`, `memory`, `drift`), the account tells of slow requests (`slow`). What they find are
notes, which end up in the run's log. A trace of a few batches, on request, is made by `profile`.
"""

import os
import threading
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from numpy.typing import NDArray

from loadbench.engine.backends import Arrays, Model
from loadbench.engine.device import cuda
from loadbench.engine.watch.drift import Drift, Sample, read
from loadbench.engine.watch.finite import guard, modules_of
from loadbench.engine.watch.memory import PERIOD_NS, Growth
from loadbench.errors import RunError, SpecError
from loadbench.model import Note
from loadbench.units import SECOND
from loadbench.watchspec import WatchSpec

Check = Callable[[Arrays, dict[str, NDArray[Any]]], None]
Look = Callable[[], Iterable[Note]]

_SELDOM = 32  # looks


class Watched:
    """A Model (see backends) whose batches are looked at. A check that raises fails the batch, of
    which the batcher then finds the request to blame."""

    def __init__(self, inner: Model, checks: Sequence[Check]) -> None:
        self.inner = inner
        self._checks = tuple(checks)
        self.name, self.version, self.platform = inner.name, inner.version, inner.platform
        self.inputs, self.outputs = inner.inputs, inner.outputs
        self.batched, self.max_batch = inner.batched, inner.max_batch
        self.device, self.precision = inner.device, inner.precision
        self.notes, self.metadata = inner.notes, inner.metadata

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        found = self.inner.run(arrays)
        for check in self._checks:
            check(arrays, found)
        return found

    def memory(self) -> dict[str, int]:
        return self.inner.memory()


class Watcher:
    """Looks now and then until it is stopped; `tell` gets each note, from the watcher's thread."""

    def __init__(
        self,
        looks: Sequence[Look],
        tell: Callable[[Note], None],
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self._looks = looks
        self._tell = tell
        self._end = end
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        if self._looks:
            self._thread.start()

    def stop(self) -> None:
        """To be called when the last batch has run."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._end()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            self.look()

    def look(self) -> None:
        """Looks once, which is every second."""
        for look in self._looks:
            for note in look():
                self._tell(note)


class Watch(NamedTuple):
    """A model under watch: its instances as they are to be run, and who looks now and then."""

    models: tuple[Model, ...]
    watcher: Watcher


def watch(models: Sequence[Model], wanted: WatchSpec, tell: Callable[[Note], None]) -> Watch:
    """Puts the instances of a model under watch. SpecError for a reference that is none, or that
    can be written nowhere."""
    if wanted.record:
        _require_room(Path(wanted.record))
    sample = Sample(models[0]) if wanted.drift or wanted.record else None
    states = _states(models) if wanted.state else []
    looks = [seldom(look) for look in states]
    if wanted.memory:
        looks.append(every(PERIOD_NS // SECOND, _memory(models)))
    if sample and wanted.drift:
        looks.append(seldom(Drift(sample, read(Path(wanted.drift), models[0])).look))

    def end() -> None:
        for note in (note for look in states for note in look()):
            tell(note)
        if sample and wanted.record:
            try:
                sample.write(Path(wanted.record))
            except RunError as error:  # that is no reason for others not to come to their end
                tell(Note("not-recorded", error.message))

    checked = tuple(_checked(model, wanted, sample) for model in models)
    return Watch(checked, Watcher(looks, tell, end))


def _require_room(path: Path) -> None:
    """Found out before a run rather than after it."""
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise SpecError(
            f"engine.watch.record: cannot write {path}",
            "name a file in a folder that is there; it counts from the current one",
        )
    if path.exists() and not zipfile.is_zipfile(path):
        raise SpecError(
            f"engine.watch.record: {path} is there, and is something else", "choose another name"
        )


def _checked(model: Model, wanted: WatchSpec, sample: Sample | None) -> Model:
    checks: list[Check] = [guard(model)] if wanted.finite else []
    if sample is not None:
        checks.append(sample.add)
    return Watched(model, checks) if checks else model


def _states(models: Sequence[Model]) -> list[Look]:
    """Of the torch modules among them."""
    found = {id(module): module for model in models for module in modules_of(model)}
    if not found:
        return []
    from loadbench.engine.watch.modules import State  # torch is loaded already

    return [State(module).look for module in found.values()]


def _memory(models: Sequence[Model]) -> Look:
    host = Growth("the engine's memory")
    card = Growth("torch's memory on the GPU")
    cards = {int(model.device[5:]) for model in models if model.device.startswith("cuda:")}
    process = psutil.Process()

    def look() -> Iterable[Note]:
        held = max(map(cuda.reserved, cards), default=0)
        notes = (host.look(process.memory_info().rss), card.look(held))
        return [note for note in notes if note is not None]

    return look


def every(number: int, look: Look) -> Look:
    """The look at every so-manieth time."""
    times = 0

    def found() -> Iterable[Note]:
        nonlocal times
        times += 1
        return () if times % number else look()

    return found


def seldom(look: Look) -> Look:
    """The look at every 1st, 2nd, 4th, … time, from the 32nd on at every 32nd: what goes wrong at
    once is seen at once, and a long run pays nothing for it."""
    times = 0

    def found() -> Iterable[Note]:
        nonlocal times
        times += 1
        due = times % _SELDOM == 0 or (times < _SELDOM and times & (times - 1) == 0)
        return look() if due else ()

    return found
