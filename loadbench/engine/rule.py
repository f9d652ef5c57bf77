"""What the dispatch rule is asked with and what it answers: values, no decisions.

`policy` and `baselines` decide; the batcher, simulations and tests ask them.
"""

from collections.abc import Sequence
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from loadbench.engine.returns import Hold

NEVER = 1 << 62  # a deadline that nothing can miss


class Waiting(Protocol):
    """A request in the queue: what a rule may know of it. Times are monotonic ns."""

    @property
    def rows(self) -> int: ...
    @property
    def arrived(self) -> int: ...
    @property
    def deadline(self) -> int: ...
    @property
    def level(self) -> int: ...  # 1 is the most urgent


W = TypeVar("W", bound=Waiting)
Policy = Literal["deadline", "efficient", "failfast", "fixed", "adaptive", "none"]


class Level(NamedTuple):
    """How requests of one priority wait under `fixed`, as in Triton's ModelQueuePolicy."""

    timeout_ns: int = 0  # 0: none
    override: bool = False  # a request's own timeout counts, where it is the shorter
    delay: bool = False  # who has waited too long is served after the others, not refused
    most: int = 0  # requests that may wait; 0: no limit of its own

    def limit(self, own_ns: int | None) -> int:
        """The timeout of a request that names its own; 0: none."""
        if self.override and own_ns:
            return min(own_ns, self.timeout_ns)
        return self.timeout_ns


class Rule(NamedTuple):
    """The batcher's settings.

    deadline   start when an instance is free; give up the requests whose deadline the batch that
               they would be part of cannot meet ("window drop": Nexus, SOSP'19)
    efficient  the same, but wait for more as long as one more would still fit, until a batch is
               worth its fixed cost ("frontrun": Symphony, 2023): fewer executions, more latency
    failfast   as deadline, and who would be given up is refused when it comes
    fixed      Triton's dynamic batcher: up to `max_batch` rows, held for at most `max_wait_ns`
               since the oldest arrived, let go early at the largest preferred size that is reached
    adaptive   BentoML's dispatcher: waits by what it has learned of durations and waits
    none       one request at a time

    `levels` are the priorities that are told apart, the most urgent first; at least one.
    """

    policy: Policy
    max_batch: int
    max_wait_ns: int = 0
    preferred: tuple[int, ...] = ()
    levels: tuple[Level, ...] = (Level(),)
    normal: int = 1  # the level of a request that says none, or none that there is
    hold: bool = False  # deadline and failfast: wait for clients who are usually back at once

    @property
    def foreseeing(self) -> bool:
        """Whether requests are served by their deadlines and given up before these pass."""
        return self.policy in ("deadline", "efficient", "failfast")

    def level(self, priority: int) -> int:
        """The level of a request's `priority`."""
        return priority if 0 < priority <= len(self.levels) else self.normal


class Learned(NamedTuple):
    """What `adaptive` has learned: duration = a row's · rows + a batch's, and the mean wait of a
    batch's first request; ns."""

    row_ns: float
    batch_ns: float
    wait_ns: float
    latest_ns: float  # the latency that it aims at


class State(NamedTuple):
    """What `decide` looks at. `service` is the planned time (ns) of a batch by its rows, until its
    answers are out."""

    free_since: int  # when the instance that asks became free
    service: Sequence[int]
    draining: bool = False
    stale: bool = False  # no batch has run for so long that the planned times may be wrong
    held: str = ""  # why the decision before this one was to wait
    announced: int = 0  # requests that have begun to arrive
    rate: float = 0.0  # rows that came per ns for each instance, lately
    learned: Learned | None = None
    returning: Hold | None = None  # clients who are worth waiting for


class Ahead(NamedTuple):
    """What is to run before a request that has just come."""

    rows: int  # of its own shapes
    apart: int  # rows of others
    first: Waiting | None  # of its own shapes


class Decision(NamedTuple, Generic[W]):
    """Requests to run now and to give up, both from near the front of the queue; else wait.

    With nothing to take, `until` says when to ask again (None: when something arrives).
    """

    take: list[W]
    # idle, late-bind, full, bucket, hold, announced, defer, probe, drain; of a wait: why, too
    reason: str = ""
    shed: Sequence[W] = ()
    until: int | None = None


def prompt(batch: Sequence[Waiting], state: State) -> str:
    """Why a batch starts that is not full: what it was held for, or that it found an instance
    idle, or waited for one."""
    if state.draining:
        return "drain"
    if state.held:
        return state.held
    return "idle" if batch[0].arrived >= state.free_since else "late-bind"
