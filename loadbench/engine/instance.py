"""One instance of a model and its thread, which runs batch after batch.

A model that blocks runs one, and the next is taken when it has ended. Where the model can launch
(see backends), the next is staged and launched while the device is busy with the one before, so
that the device never waits for the host: it is taken as late as that allows, for whoever comes
until then rides along. What is taken, and what becomes of those that ran, is the batcher's
business.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from loadbench.engine.backends import Model
from loadbench.engine.device.broken import fault_of
from loadbench.engine.device.turns import Seat
from loadbench.engine.execution import Failing, Piece, execute, settled
from loadbench.engine.flight import Launched, launch
from loadbench.engine.job import Job
from loadbench.engine.place import Place
from loadbench.engine.tensors import Refused
from loadbench.ride import Ride
from loadbench.units import MS, SECOND

RECENT = 16  # batches by which the next is timed
WAKE_NS = MS // 5  # by which a thread may wake up late
NAP_NS = 5 * MS  # between two looks whether the device is done earlier than ever


class Taken(NamedTuple):
    """Requests on their way to an instance."""

    jobs: list[Job]
    ride: Ride
    taken: int
    predicted_ns: int
    shed: int
    rows: int
    size: int  # the same, padding included
    between_ns: int = 0
    waited_ns: int = 0  # since it was taken, for the batch before it, or one that had to be alone
    least_ns: int = 0  # that the next one like it is to be planned with: host or device held it up

    @property
    def reason(self) -> str:
        """Why it closed."""
        return self.ride.closed

    @property
    def number(self) -> int:
        return self.ride.number

    @property
    def begun(self) -> int:
        """When its own time began."""
        return self.taken + self.waited_ns


class Owner(Protocol):
    """What an instance needs of the batcher."""

    failing: Failing

    def ahead(self, instance: "Instance") -> Taken | None: ...

    def ended(
        self,
        instance: "Instance",
        batch: Taken,
        pieces: list[Piece],
        coming: Taken | None = None,
    ) -> Taken | None: ...


class _Pace:
    """When the next batch has to be taken so that it is launched before the device is done."""

    def __init__(self) -> None:
        self._host: deque[int] = deque(maxlen=RECENT)
        self._device: dict[int, deque[int]] = {}
        self._lags: deque[int] = deque(maxlen=RECENT)  # from an end to when it was seen

    def launched(self, ns: int) -> None:
        """The host took so long for a batch."""
        self._host.append(ns)

    def computed(self, size: int, ns: int) -> None:
        """The device took so long for one."""
        self._device.setdefault(size, deque(maxlen=RECENT)).append(ns)

    def end(self, begun: int, ns: int, seen: int) -> int:
        """When a batch ended that the device computed for `ns`. A thread may see that late, by
        chance; of the last few ends one was seen at once."""
        self._lags.append(seen - begun - ns)
        least = min(self._lags)
        self._lags = deque([lag - least for lag in self._lags], RECENT)
        return begun + ns + least

    def due(self, begun: int, size: int) -> int:
        """The moment, if a batch of `size` began then: by the slowest of the host's times and the
        fastest of the device's, for that size or the next below. At once where none is known."""
        known = self._device.get(size)
        if known is None:
            below = max((n for n in self._device if n < size), default=0)
            known = self._device.get(below)
        if known is None or not self._host:
            return begun
        return begun + min(known) - max(self._host) - WAKE_NS


class _Flying(NamedTuple):
    """A batch that was launched, and when that was done; behind another one, or not."""

    batch: Taken
    launched: Launched
    at: int
    host_ns: int  # that it took the host
    behind: bool


class Instance:
    """A model on its place. What the batcher keeps of it is touched under the batcher's lock."""

    def __init__(
        self,
        model: Model,
        place: Place,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.model = model
        self.place = place
        self.inbox: SimpleQueue[Taken | None] = SimpleQueue()
        self.free_since = 0
        self.until = 0  # when what it runs is planned to end
        self.thread: threading.Thread | None = None
        self._clock = clock
        self._sleep = sleep
        self._seat = Seat(place.turns)
        self._pace = _Pace()
        self._landed = 0  # when the last batch had ended
        self._late = 0  # by how much the thread woke up too late for the batch that is taken

    def work(self, owner: Owner) -> None:
        """Runs what comes into the inbox, and what follows, until it is told None."""
        failing = self._failing(owner)
        with self._seat as seat:
            batch = self.inbox.get()
            while batch is not None:
                if seat.begin():
                    batch = batch._replace(waited_ns=self._clock() - batch.taken)
                flying = self._launch(batch, False)
                if flying is not None:
                    batch = self._fly(flying, owner)
                else:
                    batch = owner.ended(self, batch, self._run(batch, failing))
                if batch is None:
                    seat.end()
                    batch = self.inbox.get()

    def _run(self, batch: Taken, failing: Failing) -> list[Piece]:
        try:
            return execute(self.model, batch.jobs, batch.begun, failing, self.place.sizes)
        except BaseException as error:  # noqa: BLE001  as in `_lost`
            return self._lost(batch, failing, error)

    def _lost(self, batch: Taken, failing: Failing, error: BaseException) -> list[Piece]:
        """A batch that some fault of the engine ended. Nobody starts the thread anew, and who waits
        for it would wait for ever: so the fault is the batch's."""
        fault = Refused(500, f"the engine failed: {type(error).__name__}: {error}")
        failing.tell(batch.jobs, fault, error)
        rows, now = sum([job.rows for job in batch.jobs]), self._clock()
        took = max(0, now - batch.begun)
        return [Piece(batch.jobs, rows, 0, took, now, {}, fault, broken=fault_of(error))]

    def _failing(self, owner: Owner) -> Failing:
        return owner.failing._replace(alone=self._seat.alone)

    def _fly(self, flying: _Flying, owner: Owner) -> Taken | None:
        """Waits for a batch that was launched and for all that are launched behind it; then what
        follows, or nothing."""
        begun = flying.at
        while True:
            following = self._ahead(flying, begun, owner)
            coming = self._launch(following, True) if following is not None else None
            late = flying.launched.done
            try:
                batch, pieces = self._land(flying, late, owner)
            except BaseException as error:  # noqa: BLE001  as in `_lost`
                batch, self._landed = flying.batch, self._clock()
                pieces = self._lost(batch, owner.failing, error)
            ended = self._landed
            if pieces[0].fault is None and not late:
                ended = self._pace.end(begun, pieces[0].infer_ns, ended)
            if following is None:
                return owner.ended(self, batch, pieces)
            if coming is None:  # it cannot be launched: it runs, from now on
                following = following._replace(waited_ns=self._landed - following.taken)
                owner.ended(self, batch, pieces, following)
                return following
            owner.ended(self, batch, pieces, following)
            begun = coming.at if late else max(coming.at, ended)
            flying = coming

    def _launch(self, batch: Taken, behind: bool) -> _Flying | None:
        begun = self._clock()
        launched = launch(self.model, batch.jobs, self.place.sizes)
        if launched is None:
            return None
        now = self._clock()
        self._pace.launched(now - begun + (self._late if behind else 0))
        return _Flying(batch, launched, now, now - begun, behind)

    def _ahead(self, flying: _Flying, begun: int, owner: Owner) -> Taken | None:
        """The batch behind the one that flies since `begun`, if there is one in time; none behind
        one that failed when it was launched, and is to be run again in parts, and none while
        somebody waits for the device."""
        if flying.launched.failed:
            return None
        due = self._pace.due(begun, flying.batch.size)
        self._late = 0
        while (left := due - self._clock()) > 0 and not flying.launched.done:
            self._sleep(min(left, NAP_NS) / SECOND)
            self._late = max(0, self._clock() - due)  # other threads may have had the interpreter
        return None if self._seat.awaited else owner.ahead(self)

    def _land(self, flying: _Flying, late: bool, owner: Owner) -> tuple[Taken, list[Piece]]:
        """What came of a batch. Its time is that by which it held up the next: from the end of the
        one before, if it was there by then. The device's own where `late` says that the end was not
        seen: then the host is slower than the device, and the plan has to go by it."""
        batch = flying.batch
        tried = flying.launched.land(self._clock)
        piece = tried.piece
        if piece.fault is not None:
            batch = batch._replace(waited_ns=piece.ended - batch.taken)
            model, sizes, failing = self.model, self.place.sizes, self._failing(owner)
            if piece.memory and flying.behind and flying.launched.failed:
                # The one before, which has ended, may have had what it lacked
                pieces = execute(model, batch.jobs, piece.ended, failing, sizes)
                pieces.append(piece._replace(jobs=()))
            else:
                pieces = settled(model, tried, piece.ended, failing, sizes)
            self._landed = self._clock()
            return batch, pieces
        self._pace.computed(batch.size, piece.infer_ns)
        followed = batch.taken < self._landed
        whole = piece.infer_ns
        if not late:
            whole = max(whole, piece.ended - max(batch.begun, self._landed))
        gap = flying.launched.gap_ns if followed else 0
        least = max(piece.infer_ns + gap, flying.host_ns) if late else 0
        own = max(piece.infer_ns, whole - gap)
        piece = piece._replace(input_ns=own - piece.infer_ns)
        waited = max(0, piece.ended - batch.taken - own)
        batch = batch._replace(waited_ns=waited, least_ns=least)
        if followed:
            batch = batch._replace(between_ns=gap)
        self._landed = piece.ended
        return batch, [piece]
