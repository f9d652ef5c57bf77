"""The types that flow: what a run is made of, from one request to the summary.

    Sample → Window → Record (one line of the log) → View / Summary → what people see

All are frozen and know nothing of where they came from or where they go. msgspec makes them JSON
and back (`encode`, `decode_record`); a Histogram travels as HdrHistogram's base64 text. Times are
ns of the monotonic clock unless a name says otherwise; seconds of a run count from the moment the
recorded load began, so warm-up has negative ones.
"""

from typing import Any, Literal, TypeVar

import msgspec

from loadbench.histogram import EMPTY, Histogram
from loadbench.printable import harmless_json
from loadbench.standing import Standing

Stage = Literal["warmup", "load", "drain"]
AlertState = Literal["ok", "pending", "firing", "no data", "few data"]
Trust = Literal["trusted", "doubtful", "invalid"]
T = TypeVar("T")


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of all: frozen, compared by value, absent fields left out of the JSON."""


class Note(Value, frozen=True):
    """A doubt or a decision that travels with the numbers: what it is, and what to do about it."""

    code: str
    text: str
    hint: str = ""


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


class Part(Value, frozen=True):
    """Time requests spent in one part of the server; the histogram where the server gives one."""

    count: int
    total_ns: int
    histogram: Histogram | None = None

    @property
    def mean_ns(self) -> float | None:
        return self.total_ns / self.count if self.count else None


class BatchSize(Value, frozen=True):
    """All batches of one size (in rows) that ran: how many, and the time they took together."""

    batches: int
    requests: int = 0
    queue_ns: int | None = None  # summed over their requests
    batch_wait_ns: int | None = None
    compute_ns: int = 0  # summed over batches
    infer_ns: int | None = None  # of it, the model alone
    between_ns: int | None = None  # from the end of the batch before, where this one waited for it
    answer_ns: int | None = None  # from the outputs until every answer was handed over


class Ground(Value, frozen=True):
    """How a device fares on which the model runs: how many rows a batch may have there now, and
    what binds it (max_batch, model, memory, knee, oom); what throttles the device, by how much its
    clock is slower for it, and the processes of others on it."""

    device: str
    limit: int
    bound: str
    throttle: tuple[str, ...] = ()
    slowdown: float = 1.0
    others: tuple[int, ...] = ()


class Server(Value, frozen=True):
    """The server's inside view of a window. A target without our extension has no histograms,
    no batch wait and no close reasons; what is None was not told."""

    source: str  # "loadbench" | "kserve statistics"
    queue: Part | None = None
    batch_wait: Part | None = None
    compute: Part | None = None
    sizes: dict[int, BatchSize] = {}
    closed: dict[str, dict[int, int]] = {}  # reason → batch size → batches
    requests: int = 0
    rows: int = 0
    batches: int = 0
    failed: int = 0
    shed: int = 0
    padded_rows: int = 0
    waiting: int | None = None  # in the queue now
    instances: int | None = None
    busy_ns: int | None = None  # summed over instances
    max_batch: int | None = None
    remarks: tuple[Note, ...] = ()  # what came up in the server
    parts: dict[str, Part] = {}  # what its batches are made of; counts batches
    cached: int = 0  # of the requests: answered from the response cache
    grounds: tuple[Ground, ...] = ()  # one for each device; a server of others does not tell

    @property
    def room(self) -> int | None:
        """Rows that a batch may have now, where it may have the most."""
        return max((ground.limit for ground in self.grounds), default=self.max_batch)

    @property
    def bound(self) -> str:
        """What makes that less than was asked for; "" if nothing does."""
        whys = [ground.bound for ground in self.grounds if ground.limit == self.room]
        return "" if not whys or self.room == self.max_batch else whys[0]

    @property
    def fill(self) -> float | None:
        """Rows of the room that the batches had, as far as it is now."""
        mean, room = self.mean_batch, self.room
        return min(1.0, mean / room) if mean is not None and room else None

    changes: tuple[str, ...] = ()  # what became of the model's versions

    @property
    def mean_batch(self) -> float | None:
        """Rows per batch that ran; rows of batches that failed are not among `rows`."""
        batches = sum(found.batches for found in self.sizes.values())
        if batches:
            return sum(size * found.batches for size, found in self.sizes.items()) / batches
        return self.rows / self.batches if self.batches else None

    @property
    def parts_ms(self) -> dict[str, float]:
        """What the mean batch is made of; only parts that ran."""
        return {
            name: part.total_ns / part.count / 1e6
            for name, part in self.parts.items()
            if part.count
        }


# NVML's bits of nvmlDeviceGetCurrentClocksEventReasons that slow the clock down against its will.
# Idle (0x1), application clocks (0x2) and sync boost (0x10) are choices, no throttling.
THROTTLE = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power brake",
}


class Gpu(Value, frozen=True):
    """NVML's readings of one card; None where the card, the driver or a container hides it."""

    index: int
    name: str
    uuid: str = ""
    utilization: float | None = None  # share of time with a kernel running
    memory_used: int | None = None
    memory_total: int | None = None
    power_w: float | None = None
    temperature_c: float | None = None
    sm_clock_mhz: int | None = None
    throttle: tuple[str, ...] = ()
    processes: tuple[tuple[int, int | None], ...] = ()  # (pid, bytes) of others than our engine


class Process(Value, frozen=True):
    """One of our own processes: CPU seconds per second (1.0 is one core) and resident bytes."""

    cpu: float | None
    memory: int | None


class Machine(Value, frozen=True):
    """The machine during a window."""

    cpu: float | None = None  # share of all cores
    memory_used: int | None = None
    memory_total: int | None = None
    gpus: tuple[Gpu, ...] = ()
    processes: dict[str, Process] = {}  # "engine", "load", "runner"


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


class Mark(Value, frozen=True, tag_field="kind", tag="mark"):
    """Something done to the run while it ran: by hand, by a command, by the schedule."""

    second: int
    text: str
    standing: Standing | None = None  # from here on, if that is what was changed


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


Record = Start | Window | Minute | AlertChange | Mark | Remark | End


def _enc(value: Any) -> Any:
    if isinstance(value, Histogram):
        return value.encode()
    raise NotImplementedError(f"{type(value).__name__} has no JSON form")


def _dec(kind: type, value: Any) -> Any:
    if kind is Histogram:
        return Histogram.decode(value)
    raise NotImplementedError(f"{kind.__name__} has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=_enc)
_record = msgspec.json.Decoder(Record, dec_hook=_dec)


def encode(value: Any) -> bytes:
    """One line of JSON without the newline."""
    return _encoder.encode(value)


def decode_record(line: bytes) -> Record:
    """One line of the log, safe to show. Raises MsgspecError or ValueError if it is none."""
    record: Record = _record.decode(harmless_json(line))
    return record


def decode(kind: type[T], data: bytes | str) -> T:
    """JSON of any of the types here."""
    return msgspec.json.decode(data, type=kind, dec_hook=_dec)


def plain(value: Any) -> Any:
    """The value as dicts, lists, numbers and texts."""
    return msgspec.to_builtins(value, enc_hook=_enc, str_keys=True)
