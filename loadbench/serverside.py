"""What a window tells of the server: where its time went, how its batches were, what binds them.

Our engine tells all of it, servers of others what KServe's statistics have.
"""

from msgspec.structs import replace

from loadbench.histogram import Histogram
from loadbench.value import Note, Value

TIMING = "Server-Timing"


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
    uuid: str = ""  # of the card: CUDA may count the machine's cards in another way than the driver


class Server(Value, frozen=True):
    """The server's inside view of a window. A target without our extension has no histograms,
    no batch wait and no close reasons; what is None was not told."""

    source: str  # "loadbench", "kserve statistics", "metrics of vLLM", "Server-Timing" …
    queue: Part | None = None
    batch_wait: Part | None = None
    compute: Part | None = None
    sizes: dict[int, BatchSize] = {}
    closed: dict[str, dict[int, int]] = {}  # reason → batch size → batches
    requests: int | None = 0  # answered; None, as of the next three, where it is not told
    rows: int | None = 0
    batches: int | None = 0
    failed: int | None = 0
    shed: int = 0
    padded_rows: int = 0
    waiting: int | None = None  # in the queue now
    instances: int | None = None
    busy_ns: int | None = None  # summed over instances
    max_batch: int | None = None
    remarks: tuple[Note, ...] = ()  # what came up in the server
    parts: dict[str, Part] = {}  # what its batches are made of; counts batches
    cached: int = 0  # of the requests: answered from the response cache
    cache_misses: int = 0  # looked for there in vain; 0 also of a server that has none
    grounds: tuple[Ground, ...] = ()  # one for each device; a server of others does not tell
    # of `compute`: until the inputs were where the model is, and until its outputs were handed back
    compute_input: Part | None = None
    compute_output: Part | None = None
    # the same by the names that the server itself has for it, one after the other
    steps: dict[str, Part] = {}
    # rows that a batch might have → batches that ran while it was so; {}: as `room` is, all of them
    rooms: dict[int, int] = {}

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
        """Rows of the room that the batches had, of each the room of its own time."""
        mean, rooms = self.mean_batch, self.ran_in
        room = sum(room * batches for room, batches in rooms.items())
        return min(1.0, mean * sum(rooms.values()) / room) if mean is not None and room else None

    @property
    def ran_in(self) -> dict[int, int]:
        """Room → batches that ran while it was so; empty where no room is told."""
        ran = sum(found.batches for found in self.sizes.values()) or self.batches
        return {self.room: ran} if self.room and ran and not self.rooms else self.rooms

    @property
    def room_text(self) -> str:
        """`32`, or `4-32` where it was changed meanwhile; "" where it is not told."""
        rooms = (*self.rooms, *filter(None, [self.room]))
        low, high = min(rooms, default=0), max(rooms, default=0)
        return f"{low}-{high}" if low < high else str(high or "")

    changes: tuple[str, ...] = ()  # what became of the model's versions

    @property
    def modelled(self) -> float:
        """Share of the requests that the model was asked; the times of the others are not told."""
        return max(0.0, 1 - self.cached / self.requests) if self.requests else 1.0

    @property
    def compute_parts_ms(self) -> dict[str, float]:
        """What the mean compute is made of: input, infer, output, or by the server's own names;
        empty where it is not told."""
        if self.steps and self.compute and self.compute.count:
            return {
                name: part.total_ns / self.compute.count / 1e6 for name, part in self.steps.items()
            }
        parts = self.compute, self.compute_input, self.compute_output
        if any(part is None or not part.count for part in parts):
            return {}
        whole, given, taken = (part.total_ns / part.count / 1e6 for part in parts if part)
        return {"input": given, "infer": max(0.0, whole - given - taken), "output": taken}

    @property
    def mean_batch(self) -> float | None:
        """Rows per batch that ran; rows of batches that failed are not among `rows`."""
        batches = sum(found.batches for found in self.sizes.values())
        if batches:
            return sum(size * found.batches for size, found in self.sizes.items()) / batches
        return self.rows / self.batches if self.batches and self.rows is not None else None

    @property
    def parts_ms(self) -> dict[str, float]:
        """What the mean batch is made of; only parts that ran."""
        return {
            name: part.total_ns / part.count / 1e6
            for name, part in self.parts.items()
            if part.count
        }


def with_timing(server: Server | None, timing: dict[str, Part]) -> Server | None:
    """With what some of the answers told (`model.Window.timing`), where the server does not tell of
    its times in another way: that is of all of them."""
    if not timing or (server and (server.queue or server.batch_wait or server.compute)):
        return server
    steps = dict(timing)
    waits = [steps.pop(name, None) for name in ("queue", "batch")]
    compute = steps.pop("compute", None)
    nothing = Server(source=TIMING, requests=None, rows=None, batches=None, failed=None)
    base = server or nothing
    return replace(base, queue=waits[0], batch_wait=waits[1], compute=compute, steps=steps)
