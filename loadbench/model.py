"""The types that flow: what a run is made of, from one request to the summary.

    Sample → Window → Record (one line of the log) → View / Summary → what people see

All are frozen and know nothing of where they came from or where they go. Times are ns of the
monotonic clock unless a name says otherwise; seconds of a run count from the moment the recorded
load began, so warm-up has negative ones. What a window tells of the server is defined in
`serverside`, of the machine in `machine`, what all types share in `value`; all of it can be had
from here.
"""

from typing import Any, Literal

import msgspec

from loadbench.histogram import EMPTY, Histogram
from loadbench.machine import THROTTLE as THROTTLE
from loadbench.machine import Gpu as Gpu
from loadbench.machine import Machine as Machine
from loadbench.machine import Process as Process
from loadbench.printable import harmless_json
from loadbench.ride import Ride as Ride
from loadbench.serverside import BatchSize as BatchSize
from loadbench.serverside import Ground as Ground
from loadbench.serverside import Part as Part
from loadbench.serverside import Server as Server
from loadbench.standing import Standing
from loadbench.streams import Stream as Stream
from loadbench.streams import merged as merged_streams
from loadbench.value import Note as Note
from loadbench.value import Shown as Shown
from loadbench.value import Value as Value
from loadbench.value import decode as decode
from loadbench.value import encode as encode
from loadbench.value import from_json
from loadbench.value import plain as plain

Stage = Literal["warmup", "load", "drain"]
AlertState = Literal["ok", "pending", "firing", "no data", "few data"]
Trust = Literal["trusted", "doubtful", "invalid"]


class Tensor(Value, frozen=True):
    """An input or output of a model. `shape` has no batch axis; −1 is a dimension left open."""

    name: str
    datatype: str  # KServe's names: FP32, INT64, BOOL, BYTES, …
    shape: tuple[int, ...]


class Sample(Value, frozen=True):
    """One request. Its stamps in monotonic ns: due ≤ begun ≤ sent ≤ done."""

    request: str
    due: int
    begun: int
    sent: int
    done: int
    failure: str = ""
    queue_ns: int | None = None  # as the server told with this answer
    batch_wait_ns: int | None = None
    compute_ns: int | None = None
    batch: int | None = None
    ride: Ride | None = None  # of that batch, where our engine serves
    held: bool = False  # it was begun late because every connection was busy
    parts: dict[str, int] = {}  # what compute is made of, in ns, by the server's own names
    first: int | None = None  # stamp of its first piece, of an answer that comes piece by piece

    @property
    def told(self) -> dict[str, int]:
        """In ns, what the server told with this answer, by the names of `Window.timing`."""
        waits = {"queue": self.queue_ns, "batch": self.batch_wait_ns, "compute": self.compute_ns}
        return {name: ns for name, ns in {**waits, **self.parts}.items() if ns is not None}


class Example(Value, frozen=True):
    """The first request that failed in one way. Its texts are bounded and safe to print."""

    second: int  # of the run, in which it failed
    request: str
    peer: str  # the address it went to
    after_ns: int  # since it was begun
    reason: str  # in words, or the answer's first line
    answer: str  # the beginning of what came instead of a good answer

    @property
    def text(self) -> str:
        return f"{self.reason} · {self.answer}" if self.answer else self.reason


class Requests(Value, frozen=True):
    """What came of the requests of one name in one window, by the second of their end."""

    done: int = 0
    failed: dict[str, int] = {}
    latency: Histogram = EMPTY  # done − due of those done
    service: Histogram = EMPTY  # done − begun of those done
    stream: Stream | None = None  # of answers that come piece by piece


class Window(Value, frozen=True, tag_field="kind", tag="window"):
    """One second. Each event counts in the second in which it happened: asked by due, sent by sent,
    done or failed and its latency by done. So at the end of every window
    asked = sent + unsent + waiting and sent = done + failed + lost + in flight, summed from the
    start of the stages `load` and `drain`; warm-up keeps its own account in its own windows."""

    second: int
    stage: Stage
    phase: int | None = None  # index into the phases of the load
    rate: float | None = None  # what the schedule asks for, per second; None in a closed loop
    asked: int = 0
    unsent: int = 0
    sent: int = 0
    lost: int = 0
    in_flight: int = 0  # sent and unanswered at the end of the second
    waiting: int = 0  # due and not sent at the end of the second
    held: int = 0  # begun in this second after a wait for a free connection
    requests: dict[str, Requests] = {}
    tail_sent: int = 0  # warm-up requests sent, done, failed after warm-up: in no statistic
    tail_done: int = 0
    tail_failed: int = 0
    # of those done, summed from begun and from due: the server's means are over these, too
    tail_service_ns: int = 0
    tail_latency_ns: int = 0
    lateness: Histogram = EMPTY  # begun − due of those begun and not held
    oldest_ns: int = 0  # age since due of the oldest unanswered request
    overdue: int = 0  # unanswered and already older than the limit of the run
    stall_ns: int = 0  # longest time the generator's loop stood still
    stall_cause: str = ""  # why, as loadbench.load.stall names it; a detail after ": "
    cpu_ns: int | None = None  # CPU time of the load process; of several, of the fullest
    connections: int = 0
    users: int | None = None  # of a Locust file: the most that ran at once
    slowest: tuple[Sample, ...] = ()
    examples: dict[str, Example] = {}  # failure → the first that failed so in this run, if here
    # of some of the answers: where the server says its time went; until it is taken into `server`
    timing: dict[str, Part] = {}
    server: Server | None = None
    machine: Machine | None = None

    @property
    def done(self) -> int:
        return sum(part.done for part in self.requests.values())

    @property
    def failed(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for part in self.requests.values():
            for failure, number in part.failed.items():
                total[failure] = total.get(failure, 0) + number
        return total

    @property
    def latency(self) -> Histogram:
        return Histogram.merged(part.latency for part in self.requests.values())

    @property
    def stream(self) -> Stream | None:
        return merged_streams(part.stream for part in self.requests.values())


class Rule(Value, frozen=True):
    """An alert rule: fires when `quantity` is beyond `limit` for `for_ns` without a break."""

    name: str
    quantity: str  # a key of alerts.QUANTITIES
    above: bool  # True: beyond means greater
    limit: float  # in the quantity's own unit: ms, share, per second
    for_ns: int


class Check(Value, frozen=True):
    """A condition on a whole run. `limit` is in ns, a fraction or per second."""

    name: str
    above: bool  # True: passes when greater
    limit: float
    text: str  # as it was written


class Start(Value, frozen=True, tag_field="kind", tag="start"):
    """First line of a log: what a reader needs to know before the first window."""

    run: str
    scenario: str
    target: str
    planned_ns: int | None  # of the recorded load; None if it has no end
    warmup_ns: int
    limit_ns: int | None  # the latency limit drawn in the charts
    rules: tuple[Rule, ...]
    wall_time: str  # ISO 8601 with zone, when the recorded load was due to begin
    checks: tuple[Check, ...] = ()
    device: str = ""  # "cuda:0", "cpu"; empty for remote targets
    settings: dict[str, Any] = {}  # max_batch, policy, precision … of a local engine
    notes: tuple[Note, ...] = ()
    origin_ns: int | None = None  # second 0 on the machine's monotonic clock
    warm_ns: dict[int, int] = {}  # of a local engine: rows → the model alone at its warm-up
    schema: int = 1  # of the log; goes up when an earlier loadbench would misread it

    @property
    def ours(self) -> bool:
        """Whether the target is an engine that the run has started."""
        return self.target.startswith("local:")


class Optimum(Value, frozen=True):
    """What a batcher reached of the best that anyone could have who knew all arrivals: requests
    served within `slo_ns` of their arrival at the batcher. `hosted` is the best with the time that
    this engine's host adds to each batch, `best` that of the model alone. Where it is not `exact`
    both are rather too high, so what was reached is at least the share told."""

    slo_ns: int
    arrivals: int  # that were looked at
    of: int  # that came
    reached: int
    hosted: int
    best: int
    above: int = 0  # reached beyond what the measured times allow: so far do they scatter
    exact: bool = True
    notes: tuple[Note, ...] = ()

    @property
    def share(self) -> float | None:
        """Of the best; None if nobody could have served a single one in time."""
        return self.reached / self.best if self.best else None

    @property
    def scheduling(self) -> float | None:
        """What was lost by which requests rode together and when."""
        return (self.hosted - self.reached) / self.best if self.best else None

    @property
    def host(self) -> float | None:
        """What was lost to all that is not the model."""
        return (self.best - self.hosted) / self.best if self.best else None


class Minute(Value, frozen=True, tag_field="kind", tag="minute"):
    """Sixty windows merged, so that long runs open quickly."""

    window: Window
    seconds: int


class AlertChange(Value, frozen=True, tag_field="kind", tag="alert"):
    """A rule went into another state. `since` is the second in which the episode began."""

    second: int
    rule: str
    state: AlertState
    value: float | None
    since: int | None = None
    peak: float | None = None
    context: str = ""
    limit: float | None = None  # that the rule had, of a change to or from firing
    words: tuple[str, ...] = ()  # of the same changes: the verdict, a sentence each
    acknowledged: bool = False  # a firing one told again: somebody has seen it
    worst: int | None = None  # in which second it was at its peak; older logs: not among the failed


class Mark(Value, frozen=True, tag_field="kind", tag="mark"):
    """Something done to the run while it ran: by hand, by a command, by the schedule."""

    second: int
    text: str
    standing: Standing | None = None  # from here on, if that is what was changed
    rules: tuple[Rule, ...] | None = None  # if it changed them: all alert rules from here on
    shown: Shown | None = None  # if it says that a check is


class Remark(Value, frozen=True, tag_field="kind", tag="note"):
    """A note that came up during the run."""

    second: int
    note: Note


class End(Value, frozen=True, tag_field="kind", tag="end"):
    """Last line of a complete log."""

    second: int
    reason: Literal["done", "stopped", "failed"]
    text: str = ""
    optimum: Optimum | None = None  # of a local engine
    early: bool = False  # done, and before the time that was planned: in the midst of a second


Record = Start | Window | Minute | AlertChange | Mark | Remark | End


LOG_SCHEMA = 1  # the last that is known here
_BEGINNING = b'{"kind":"start"'
_record = msgspec.json.Decoder(Record, dec_hook=from_json)


class _Version(msgspec.Struct):
    schema: int = 1


def decode_record(line: bytes) -> Record:
    """One line of the log, safe to show. Raises MsgspecError or ValueError if it is none, or the
    beginning of a log that a later loadbench wrote."""
    try:
        if line.startswith(_BEGINNING):
            version = msgspec.json.decode(line, type=_Version).schema
            if not 1 <= version <= LOG_SCHEMA:
                text = f"it is of schema {version}, and this loadbench reads up to {LOG_SCHEMA}"
                raise ValueError(f"{text}: read it with the version that wrote it")
        record: Record = _record.decode(harmless_json(line))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    return record
