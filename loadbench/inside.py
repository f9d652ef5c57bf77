"""What our engine tells of its inside: the member `loadbench` of a model's statistics.

The engine writes it, whoever asks a server's statistics reads it; a server of others has none.
"""

from loadbench.histogram import EMPTY, Histogram
from loadbench.model import BatchSize, Ground, Note, Value
from loadbench.standing import Settings


class Batch(Value, frozen=True):
    """One batch as the engine ran it."""

    number: int
    started: int
    # why it closed: idle, late-bind, full, bucket, deadline, announced, hold, defer, probe, drain
    reason: str
    rows: int
    requests: int
    padded: int
    oldest_wait_ns: int
    predicted_ns: int | None
    compute_ns: int
    shed: int = 0
    lacks: int = 0  # how often there was no memory for it, or for a part of it
    between_ns: int = 0  # from the end of the batch before to the start of this one, which waited


class Shadow(Value, frozen=True):
    """A version that runs what another one is asked, compared with it: largest differences over
    all requests, and latencies of the same requests at both. A difference is None where shapes
    differ, or a value is no number at one of them only."""

    compared: int = 0  # requests
    rows: int = 0
    changed: int = 0  # rows whose largest value is another one
    dropped: int = 0  # requests that the shadow was too far behind for
    failed: int = 0
    absolute: float | None = 0.0
    relative: float | None = 0.0  # of the largest value of the output
    latency: Histogram = EMPTY
    beside: Histogram = EMPTY  # of the version that answered


class Cache(Value, frozen=True):
    """The response cache since the engine started, and what it holds now."""

    hits: int
    misses: int
    entries: int
    held_bytes: int
    limit_bytes: int


class EngineStatistics(Value, frozen=True):
    """Our member `loadbench` of a model's statistics: everything since the engine started.

    `queue` is the time a request waited while every instance was busy, `batch_wait` while one was
    free and the batcher held it back, `compute` from dispatch to its batch's outputs.
    """

    queue: Histogram = EMPTY
    batch_wait: Histogram = EMPTY
    compute: Histogram = EMPTY
    sizes: dict[int, BatchSize] = {}
    closed: dict[str, dict[int, int]] = {}  # reason → batch size → batches
    shed: dict[str, int] = {}  # reason → requests refused or given up before they ran
    failed: int = 0
    wasted_rows: int = 0  # of clients that were gone when theirs ran
    padded_rows: int = 0
    lacks: int = 0  # of memory: batches, or parts of one, that had to be cut
    waiting: int = 0
    instances: int = 1
    busy_ns: int = 0
    max_batch: int = 1
    policy: str = ""
    settings: Settings | None = None  # of the batcher, as they are now
    device: str = ""
    precision: str = ""
    recent: tuple[Batch, ...] = ()  # the last 256
    grounds: tuple[Ground, ...] = ()  # one for each device
    parts: dict[str, tuple[int, int]] = {}  # plugin or stage → batches, ns; warm-up too
    cache: Cache | None = None  # None: there is none
    warm_ns: dict[int, int] = {}  # rows → the model alone at warm-up
    remarks: tuple[Note, ...] = ()  # what came up since the start; a run's log gets what is new
    role: str = ""  # of this version: "current", "canary", "shadow", "loaded", "unloaded"
    share: float | None = None  # of the requests that name no version
    reason: str = ""  # why the version is not what it was: "rolled back: …"
    shadow: Shadow | None = None
