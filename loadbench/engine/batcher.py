"""The batcher: requests that wait, instances that run them, and the scheduler in between.

Requests come in on the event loop's thread. Each instance of the model has a thread of its own
(`instance`), which takes the next batch by itself, so that the device does not wait for the event
loop. A batch's answers go back to the event loop in one call. What both sides touch (the
scheduler, free instances) is behind one lock that is held for microseconds. What runs when is the
scheduler's business.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from loadbench.engine.backends import Model
from loadbench.engine.buckets import padded
from loadbench.engine.device.seam import Cpu
from loadbench.engine.execution import Failing, Piece
from loadbench.engine.instance import Instance, Taken
from loadbench.engine.job import Job, Ran
from loadbench.engine.mishaps import Mishaps
from loadbench.engine.place import Place
from loadbench.engine.rides import Rides
from loadbench.engine.room import Room
from loadbench.engine.rule import NEVER
from loadbench.engine.scheduler import Scheduler
from loadbench.engine.scheduler import Terms as Terms
from loadbench.engine.service import ServiceTimes
from loadbench.engine.statistics import Account
from loadbench.engine.tensors import Refused
from loadbench.inside import Batch
from loadbench.model import Ground
from loadbench.ride import told
from loadbench.units import MS, SECOND


class Loop(Protocol):
    """What is needed of asyncio's event loop."""

    def call_soon(self, callback: Callable[..., object], *args: object) -> object: ...
    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> object: ...
    def call_later(self, delay: float, callback: Callable[..., object]) -> object: ...


class Batcher:
    """Brings requests together into batches and gives each its own answer."""

    def __init__(
        self,
        models: Sequence[Model],
        terms: Terms,
        service: ServiceTimes,
        account: Account,
        loop: Loop,
    ) -> None:
        self.rule, self.settings = terms.rule, terms.settings()
        self.account = account
        self.failing = Failing(Mishaps().tell)
        self._service = service
        self._scheduler = Scheduler(terms, service, len(models))
        self.open = 0  # requests not yet answered
        self._rides = Rides()
        self._loop = loop
        self._lock = threading.Lock()
        self._queues = self._scheduler.queues
        shared = Place(Cpu(), Room(terms.rule.max_batch), service, len(models))
        places = terms.places or [shared] * len(models)
        self._instances = [Instance(*pair) for pair in zip(models, places, strict=True)]
        self.places = tuple(dict.fromkeys(places))
        self._idle: list[Instance] = []
        self._free_ns = 0  # how long at least one instance has been free
        self._free_from = 0
        self._asked = False  # a look at the queues is on its way
        self._timer_at = NEVER

    @property
    def waiting(self) -> int:
        """Requests in the queues."""
        return self._queues.requests

    @property
    def draining(self) -> bool:
        """Whether nothing more is taken in."""
        return self._scheduler.draining

    @property
    def instances(self) -> int:
        """How many batches can run at once."""
        return len(self._instances)

    @property
    def models(self) -> tuple[Model, ...]:
        """Of each instance."""
        return tuple(instance.model for instance in self._instances)

    def replace(self, made: Callable[[Model], Model]) -> None:
        """Has the instances run other models from their next batch on."""
        for instance in self._instances:
            instance.model = made(instance.model)

    def start(self) -> None:
        """Starts the instances' threads; requests may come from now on."""
        now = time.monotonic_ns()
        self._free_from = self._scheduler.last_batch = now
        for instance in self._instances:
            instance.free_since = now
            instance.thread = threading.Thread(target=instance.work, args=(self,), daemon=True)
            self._idle.append(instance)
            instance.thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Ends the threads. False if one is still in a batch after so long."""
        for instance in self._instances:
            instance.inbox.put(None)
        until = time.monotonic() + timeout_s
        for instance in self._instances:
            if instance.thread is not None:
                instance.thread.join(max(0.0, until - time.monotonic()))
        return not any(found.thread and found.thread.is_alive() for found in self._instances)

    # ---- on the event loop's thread

    def submit(self, job: Job, timeout_ns: int | None) -> None:
        """Queues a request, to be answered by its `reply` later. Raises Refused if there is no
        room, or no time; it is counted either way."""
        now = job.arrived = time.monotonic_ns()
        with self._lock:
            refusal = self._scheduler.admit(job, timeout_ns, self._free_at)
            job.free_mark = self._free_ns + (now - self._free_from if self._idle else 0)
        if refusal is not None:
            self.account.give_up([job], refusal.reason, "refused", now)
            raise Refused(503, refusal.text, refusal.cause)
        self.open += 1
        if self._idle and not self._asked:
            # Not at once: what else the event loop has read in this round may ride along
            self._asked = True
            self._loop.call_soon(self._look)

    def cancel(self, job: Job) -> None:
        """Whoever asked, and has no answer yet, is gone: drops the request if it still waits."""
        with self._lock:
            waited = self._queues.cancel(job)
        if not waited:
            if job.taken:  # too late: it runs, for nobody
                self.account.wasted_rows += job.rows
            return
        self.open -= 1
        self.account.give_up([job], "cancelled", "cancelled", time.monotonic_ns())

    def retry_after_s(self) -> int:
        """Whole seconds until what waits now will have run."""
        with self._lock:
            most = max(place.room.most for place in self.places)
            per_batch = self._service.table[most]
            batches = self._queues.rows / most / len(self._instances)
        return max(1, math.ceil(batches * per_batch / SECOND))

    def survey(self) -> None:
        """Reads the devices and adapts to what is found. Takes milliseconds: not for the event
        loop's thread."""
        for place in self.places:
            found = place.look()
            with self._lock:
                place.apply(found)

    def grounds(self) -> tuple[Ground, ...]:
        """How each device fares, for people."""
        return tuple(place.ground() for place in self.places)

    def change(self, terms: Terms, now: int) -> None:
        """Goes on by other terms: whatever waits is served by them, batches that run end as they
        began. They ask for no more rows than were warmed up."""
        with self._lock:
            for place in self.places:
                place.ask(terms.rule.max_batch, terms.rule.max_batch != self.rule.max_batch)
            self.rule, self.settings = terms.rule, terms.settings(now)
            self._scheduler = self._scheduler.under(terms)
            self._queues = self._scheduler.queues
        self._look()

    def drain(self) -> None:
        """Takes nothing more; what waits is run without being held."""
        self._scheduler.draining = True
        self._look()

    def refuse_waiting(self) -> None:
        """Gives up on what still waits, at the end of a drain that took too long."""
        with self._lock:
            jobs = [job for queue in self._queues.in_order() for job in queue]
            for queue in self._queues.in_order():
                self._queues.remove(queue, tuple(queue))
        self.account.give_up(jobs, "draining", "refused", time.monotonic_ns())
        for job in jobs:
            job.reply(Refused(503, "the engine is shutting down"))
        self.open -= len(jobs)

    def announce(self, number: int) -> None:
        """So many requests more have begun to arrive; less: have come, or will not any more."""
        self._scheduler.announce(number, time.monotonic_ns())
        if number < 0 and self._idle and self._queues.requests and not self._asked:
            self._asked = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Starts what can start on free instances."""
        self._asked = False
        shed: list[Job] = []
        with self._lock:
            while self._idle and self._queues.requests:
                now = time.monotonic_ns()
                instance = self._least_loaded()
                batch, until = self._take(instance, now, shed)
                if batch is None:
                    self._set_timer(until)
                    break
                self._idle.remove(instance)
                if not self._idle:
                    self._free_ns += now - self._free_from
                instance.inbox.put(batch)
        self._give_up(shed)

    def _least_loaded(self) -> Instance:
        """The free instance whose device has the fewest batches to run; among those the one that
        has been free for longest."""
        if len(self._idle) == 1:
            return self._idle[0]
        return min(self._idle, key=lambda found: (found.place.busy, found.free_since))

    def _set_timer(self, until: int | None) -> None:
        if until is not None and until < self._timer_at:
            self._timer_at = until
            left = max(0, until - time.monotonic_ns())
            self._loop.call_later(left / SECOND, self._timer)

    def _timer(self) -> None:
        self._timer_at = NEVER
        self._look()

    def _over(self, instance: Instance, batch: Taken, pieces: list[Piece], ended: int) -> None:
        """A batch that nobody waited behind. Whoever it answers cannot be back before it is learned
        from: both are one turn of the event loop."""
        self._finished(batch, pieces, [])
        with self._lock:
            self._learn(instance, batch, pieces, ended)

    def _finished(self, batch: Taken, pieces: list[Piece], shed: list[Job]) -> None:
        """Answers everyone of a batch."""
        if shed:
            self._give_up(shed)
        for piece in pieces:
            if piece.fault is None:
                self._answer(piece, batch)
            elif piece.jobs:
                for job in piece.jobs:
                    job.reply(piece.fault)
                self.account.fail(piece.jobs, piece.rows, time.monotonic_ns())
            self.open -= len(piece.jobs)
        self.account.batch(
            Batch(
                number=batch.number,
                started=batch.taken,
                reason=batch.reason,
                rows=batch.rows,
                requests=len(batch.jobs),
                padded=sum([piece.padded for piece in pieces if piece.jobs]),
                oldest_wait_ns=batch.taken - min([job.arrived for job in batch.jobs]),
                predicted_ns=batch.predicted_ns or None,
                compute_ns=max([piece.ended for piece in pieces]) - batch.begun,
                shed=batch.shed,
                lacks=sum([piece.memory for piece in pieces]),
                between_ns=batch.between_ns,
            )
        )

    def _answer(self, piece: Piece, batch: Taken) -> None:
        jobs, rows = piece.jobs, piece.rows
        reason = batch.reason if jobs is batch.jobs else "bisect"
        ride = told(batch.ride, batch.waited_ns)
        ran = Ran(piece.outputs, rows, piece.compute_ns, len(jobs) == 1, ride)
        bad: list[Job] = []
        at = 0
        for job in jobs:
            if not job.served(ran, at):
                bad.append(job)
            at += job.rows
        now = time.monotonic_ns()
        self._scheduler.answer_times.observe(now - piece.ended)
        good = [job for job in jobs if job not in bad] if bad else jobs
        self.account.ran(piece, good, reason, now)
        if bad:
            self.account.fail(bad, rows, now)

    def _give_up(self, shed: list[Job]) -> None:
        """Answers requests that will not be run."""
        if not shed:
            return
        now = time.monotonic_ns()
        for reason in ("expired", "infeasible"):
            jobs = [job for job in shed if (job.deadline <= now) == (reason == "expired")]
            if jobs:
                self.account.give_up(jobs, reason, "shed", now)
        for job in shed:
            late = max(0, now - job.deadline)
            text = (
                f"its deadline passed {late / MS:.3g} ms ago"
                if late
                else "its deadline is out of reach"
            )
            job.reply(Refused(503, f"given up before it ran: {text}", "deadline"))
        self.open -= len(shed)

    # ---- on an instance's thread

    def ahead(self, instance: Instance) -> Taken | None:
        """The batch to run when what the instance runs now has ended; None: it is not known yet."""
        shed: list[Job] = []
        with self._lock:
            batch, _ = self._take(instance, time.monotonic_ns(), shed)
        if shed:
            self._loop.call_soon_threadsafe(self._give_up, shed)
        return batch

    def ended(
        self, instance: Instance, batch: Taken, pieces: list[Piece], coming: Taken | None = None
    ) -> Taken | None:
        """Has a batch that ended answered and learns from it; first the former where nobody waits,
        since then only the client does. `coming` is what the instance runs now; with nothing the
        next batch is taken, or there is none and the instance is free."""
        shed: list[Job] = []
        following: Taken | None = None
        until: int | None = None
        if batch.waited_ns:  # as for a free instance
            for job in batch.jobs:
                job.queue_ns += batch.waited_ns
        with self._lock:
            now = time.monotonic_ns()
            instance.place.ends(batch.size)
            instance.free_since = now
            instance.until = now + coming.predicted_ns if coming else now
            waited_for = bool(self._queues.requests or coming)
            if waited_for:
                self._learn(instance, batch, pieces, now)
            if waited_for and coming is None:
                before = max([piece.ended for piece in pieces])
                following, until = self._take(instance, now, shed, before)
            if following is None and coming is None:
                if not self._idle:
                    self._free_from = now
                self._idle.append(instance)
        if until is not None:
            self._loop.call_soon_threadsafe(self._set_timer, until)
        if waited_for:
            self._loop.call_soon_threadsafe(self._finished, batch, pieces, shed)
        else:
            self._loop.call_soon_threadsafe(self._over, instance, batch, pieces, now)
        return following

    def _learn(self, instance: Instance, batch: Taken, pieces: list[Piece], now: int) -> None:
        self._scheduler.answered(batch.jobs, now, instance.place.service)
        place = instance.place
        for piece in pieces:
            rows = piece.rows + piece.padded
            if piece.memory and rows > 1:
                place.room.ran_out(rows)
            elif piece.broken:
                place.verdict.failed(piece.broken)
            elif piece.fault is None:
                place.ran()
                if len(pieces) == 1:
                    wait_ns = batch.taken - batch.jobs[0].arrived
                    took = max(piece.compute_ns, batch.least_ns)
                    self._scheduler.ended(rows, took, wait_ns, now, place.service)

    # ---- under the lock

    def _take(
        self, instance: Instance, now: int, shed: list[Job], before: int | None = None
    ) -> tuple[Taken | None, int | None]:
        """The next batch for an instance that is free, or will be; else when to ask again. It
        waited for the one `before`, which ended then."""
        place = instance.place
        start = max(now, instance.until)
        since = max(instance.free_since, instance.until)
        decision = self._scheduler.take(since, now, place.room.most, place.service, start)
        jobs = decision.take
        shed += decision.shed
        if not jobs:
            return None, decision.until
        free = self._free_clock(now)
        for job in jobs:
            job.batch_wait_ns = free - job.free_mark
            job.queue_ns = now - job.arrived - job.batch_wait_ns
        table = place.service.table
        rows = sum([job.rows for job in jobs])
        predicted = table[min(rows, len(table) - 1)]
        size = padded(place.sizes, rows)
        ride = self._rides.next(instance, jobs[0].shapes, rows, size, decision.reason, now)
        place.begins(size)
        instance.until = start + predicted
        between_ns = 0 if before is None else now - before
        return Taken(jobs, ride, now, predicted, len(shed), rows, size, between_ns), None

    def _free_at(self) -> int:
        """When an instance is planned to be free."""
        now = time.monotonic_ns()
        return now if self._idle else max(now, min([found.until for found in self._instances]))

    def _free_clock(self, now: int) -> int:
        """How long at least one instance has been free, ever."""
        return self._free_ns + (now - self._free_from if self._idle else 0)
