"""What waits and what is next: the queues, and the dispatch rule with all that it looks at.

Holds no lock, starts no thread and reads no clock: the batcher brings these, simulations and tests
their own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from loadbench.engine.job import Job
from loadbench.engine.learned import Answering, Line, Rate
from loadbench.engine.place import Place
from loadbench.engine.policy import decide, late_by
from loadbench.engine.queues import Queues
from loadbench.engine.returns import Returns
from loadbench.engine.rule import NEVER, Decision, Rule, State
from loadbench.engine.service import ServiceTimes
from loadbench.standing import Settings
from loadbench.units import MS, SECOND

PATIENCE_NS = SECOND  # in the order of service a request counts as due after so long, or earlier
STALE_NS = SECOND  # without any batch for so long, planned times are doubted
SWEEP_NS = 10 * MS  # between two looks at all deadlines
SOON_NS = 20 * MS  # a body that takes longer keeps nobody waiting
RATE_SLOS = 3  # SLOs that the rate of arrivals is averaged over
LATEST_NS = 60 * SECOND  # BentoML's latency, if none is asked for
LEVEL = 1 << 62  # in the order of service


class Terms(NamedTuple):
    """When batches start, how much may wait, and for how long if the request does not say."""

    rule: Rule
    waiting_rows: int
    waiting_bytes: int
    slo_ns: int | None  # of foreseeing rules and of `adaptive`
    places: Sequence[Place] = ()  # of the models, one for each; none: devices without limits

    def settings(self, since_ns: int | None = None) -> Settings:
        """What of it can be changed while the batcher serves."""
        most, policy, wait_ns = self.rule.max_batch, self.rule.policy, self.rule.max_wait_ns
        return Settings(most, policy, self.slo_ns, wait_ns, self.rule.hold, since_ns)


class Refusal(NamedTuple):
    """Why a request may not wait: in a word for the books, in a sentence for the client, and which
    `cause` that is."""

    reason: str
    text: str
    cause: str


class Scheduler:
    """The requests of one batcher that wait, and the rule by which they leave."""

    def __init__(self, terms: Terms, service: ServiceTimes, instances: int = 1) -> None:
        self.rule = terms.rule
        self.queues = Queues(len(terms.rule.levels))
        self._announced = 0  # requests that have begun to arrive,
        self._announced_at = 0  # the last of them then
        self.draining = False
        self.last_batch = 0
        self._terms = terms
        self._service = service
        self._instances = instances
        self._rate = Rate(RATE_SLOS * terms.slo_ns if terms.slo_ns else SECOND)
        self._line = Line(terms.slo_ns or LATEST_NS) if terms.rule.policy == "adaptive" else None
        self._returns = Returns() if terms.rule.hold else None
        self._held = ""
        self._swept = 0
        self.answer_times = Answering()
        rule = terms.rule  # what is asked for each request stands ready
        self._foreseeing = rule.foreseeing
        self._leveled = len(rule.levels) > 1 or rule.normal > 1
        self._lenient = rule.policy != "failfast" and not any(level.most for level in rule.levels)

    def under(self, terms: Terms) -> "Scheduler":
        """The same requests under other terms: those that wait are served as if they had come
        under these, but none is refused that was taken in. What was learned is kept."""
        new = Scheduler(terms, self._service, self._instances)
        new._announced, new._announced_at = self._announced, self._announced_at
        new.draining, new.last_batch = self.draining, self.last_batch
        new.answer_times = self.answer_times
        new._rate = self._rate.over(RATE_SLOS * terms.slo_ns if terms.slo_ns else SECOND)
        if new._line and self._line and terms.slo_ns == self._terms.slo_ns:
            new._line = self._line
        if new._returns is not None:
            new._returns = self._returns or new._returns
        waiting = [job for queue in self.queues.in_order() for job in queue]
        for job in sorted(waiting, key=lambda job: job.arrived):
            new.stamp(job, job.timeout_ns)
            new.queues.add(job)
        new.queues.rows_added = self.queues.rows_added
        return new

    def admit(self, job: Job, timeout_ns: int | None, free_at: Callable[[], int]) -> Refusal | None:
        """Takes in a request that has arrived; else why not."""
        if self.draining:
            return Refusal("draining", "the engine is shutting down", "")
        if timeout_ns:
            job.timeout_ns = timeout_ns
        self.stamp(job, timeout_ns)
        queues, terms = self.queues, self._terms
        if not (
            self._lenient
            and queues.rows + job.rows <= terms.waiting_rows
            and queues.bytes + job.size_bytes <= terms.waiting_bytes
        ):
            refusal = self.refusal(job, free_at)
            if refusal is not None:
                return refusal
        queues.add(job)
        if self._returns is not None:
            self._returns.arrived(job.client, job.rows, job.shapes, job.arrived)
        return None

    def stamp(self, job: Job, timeout_ns: int | None) -> None:
        """Says by when the batch of a request that has arrived must have ended, and in which order
        it is to be served."""
        rule, arrived = self.rule, job.arrived
        if self._leveled:
            job.level = rule.level(job.priority)
        if self._foreseeing:
            limit = timeout_ns or self._terms.slo_ns
            if job.patience_ns:
                limit = min(limit or job.patience_ns, job.patience_ns)
            job.deadline = NEVER
            if limit:  # an answer that takes long to write must not eat up all of it
                job.deadline = arrived + limit - min(self.answer_times.ns, limit // 8)
            job.order = arrived + (limit if limit and limit < PATIENCE_NS else PATIENCE_NS)
        else:
            if rule.policy == "fixed":
                timeout_ns = rule.levels[job.level - 1].limit(timeout_ns)
            if job.patience_ns:
                timeout_ns = min(timeout_ns or job.patience_ns, job.patience_ns)
            job.deadline = arrived + timeout_ns if timeout_ns else NEVER
            job.order = arrived
        if job.level > 1:
            job.order += (job.level - 1) * LEVEL

    def announce(self, number: int, now: int) -> None:
        """So many requests more have begun to arrive; less: have come, or will not any more."""
        self._announced += number
        if number > 0:
            self._announced_at = now

    def refusal(self, job: Job, free_at: Callable[[], int]) -> Refusal | None:
        """Why a stamped request cannot be taken in; `free_at` tells when an instance is free."""
        queues, terms = self.queues, self._terms
        for unit, waiting, own, most in (
            ("rows", queues.rows, job.rows, terms.waiting_rows),
            ("bytes", queues.bytes, job.size_bytes, terms.waiting_bytes),
        ):
            if waiting + own > most:
                return Refusal(
                    "queue full", f"queue full: {waiting} {unit} wait, {most} may", "full"
                )
        level = self.rule.levels[job.level - 1]
        if level.most and queues.by_level[job.level] >= level.most:
            text = f"{level.most} requests of priority {job.level} wait, as many as may"
            return Refusal("queue full", f"queue full: {text}", "full")
        if self.rule.policy == "failfast" and job.deadline < NEVER:
            late = late_by(self.rule, job, queues.ahead(job), self._service.table, free_at())
            if late > 0:
                text = f"it could only be answered {late / MS:.3g} ms after its deadline"
                return Refusal("infeasible", f"refused at once: {text}", "deadline")
        return None

    def answered(self, jobs: Sequence[Job], now: int, service: ServiceTimes) -> None:
        """A batch of these has ended, well or not, on a device with these times."""
        self.last_batch = max(self.last_batch, now)
        if self._returns is None:
            return
        waiting = self.queues.in_order()
        if waiting and min(map(len, waiting)) >= self.rule.max_batch:
            self._returns.unawaited()  # whatever is next is full, and held for nobody
        else:
            self._returns.answered([job.client for job in jobs], now, service.table)

    def take(
        self,
        free_since: int,
        now: int,
        most: int,
        service: ServiceTimes | None = None,
        start: int = 0,
    ) -> Decision[Job]:
        """What an instance that is free is to run next, `most` rows at most, and everyone to give
        up; all of these have left the queues. With nothing to run: when to ask again. `service` is
        that of the instance's device; if it still runs something, `start` is when that will have
        ended."""
        service = service or self._service
        rule = self.rule if most == self.rule.max_batch else self.rule._replace(max_batch=most)
        state = self._state(free_since, service, now)
        shed = self._expired(now)
        held, until = "", NEVER
        for queue in self.queues.in_order():
            if self._returns is not None and len(queue) < most:
                rows = sum([job.rows for job in queue])
                returning = self._returns.hold(rows, queue[0].shapes, most, now)
                state = state._replace(returning=returning)
            while True:
                decision = decide(rule, queue, state, max(now, start))
                self.queues.remove(queue, [*decision.take, *decision.shed])
                shed += decision.shed
                # All that it looked at may be given up, and there may be more behind them
                if decision.take or not decision.shed or not queue or decision.until is not None:
                    break
            if decision.take:
                if self._returns is not None:
                    self._returns.started(now)
                self._held = ""
                return Decision(decision.take, decision.reason, shed)
            if decision.until is not None and decision.until < until:
                held, until = decision.reason, decision.until
        self._held = held
        return Decision([], held, shed, until if until < NEVER else None)

    def _state(self, free_since: int, service: ServiceTimes, now: int) -> State:
        return State(
            free_since,
            service.table,
            self.draining,
            now - self.last_batch > STALE_NS,
            self._held,
            self._announced if now - self._announced_at < SOON_NS else 0,
            self._rate.of(self.queues.rows_added, now) / self._instances,
            self._line.found if self._line else None,
        )

    def _expired(self, now: int) -> list[Job]:
        """Those who may be behind what any decision looks at: where the urgent fill every batch,
        the others must not keep their places."""
        if not (self._leveled and self._foreseeing) or now - self._swept < SWEEP_NS:
            return []
        self._swept = now
        return self.queues.expire(now)

    def ended(
        self, rows: int, took_ns: int, wait_ns: int, now: int, service: ServiceTimes | None = None
    ) -> None:
        """A whole batch ran without a fault; its first request had waited so long. `service` is
        that of the device where it ran."""
        (service or self._service).observe(rows, took_ns)
        if self._line:
            self._line.observe(rows, wait_ns, took_ns, now)
