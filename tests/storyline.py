"""A made-up run, record by record: ramp, hold, a spike that fires an alert, recovery.

For tests of what reads a run. Latencies are drawn from a seeded generator through the real
histograms, so percentiles, merges and the log's encoding are those of a real run.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from loadbench.alerts import built_in
from loadbench.histogram import Histogram
from loadbench.model import (
    AlertChange,
    BatchSize,
    End,
    Gpu,
    Ground,
    Machine,
    Mark,
    Note,
    Part,
    Process,
    Record,
    Remark,
    Requests,
    Server,
    Start,
    Window,
)

MS = 1_000_000
SECOND = 1_000_000_000
GB = 10**9
LOST = Note(
    "lost",
    "worker 2 (pid 4121) was killed (signal 9) at 00:20: 3 requests in flight are lost, 12 were not"
    " sent; 1 took over its share",
)


@dataclass(frozen=True)
class Story:
    """What kind of run."""

    seconds: int = 240
    rate: float = 200.0
    warmup: int = 2
    gpu: bool = True
    server: str = "histograms"  # "means", "none"
    names: tuple[str, ...] = ("classify 224px", "classify 384px", "embed")
    spike: tuple[int, int] = (150, 172)
    end: str | None = "done"
    why: str = "engine stopped: killed, out of memory?"  # of a failed one
    lost: int = -1  # in this second a worker is lost
    seed: int = 7
    grounds: tuple[Ground, ...] = ()


def records(story: Story | None = None) -> Iterator[Record]:
    """All records of the run in the order of its log."""
    story = story or Story()
    random = np.random.default_rng(story.seed)
    yield Start(
        run="0147-ramp-resnet-tiny",
        scenario="ramp-1200",
        target="local:resnet-tiny" if story.server == "histograms" else "http://10.0.0.7:8000",
        planned_ns=600 * SECOND,
        warmup_ns=story.warmup * SECOND,
        limit_ns=100 * MS,
        rules=built_in(story.gpu),
        wall_time="2026-01-05T14:02:00+00:00",
        device=("cuda:0" if story.gpu else "cpu") if story.server == "histograms" else "",
        settings={"max_batch": 32, "policy": "deadline"},
    )
    for second in range(-story.warmup, 0):
        yield window(story, random, second)
    low, high = story.spike
    for second in range(story.seconds):
        yield window(story, random, second)
        if second == story.lost:
            yield Remark(second, LOST)
        if second == low - 1:
            yield Mark(second, "contention started")
        if second == low + 5:
            yield AlertChange(second, "p99", "firing", 184.0, since=low, peak=184.0,
                              context="200/s asked, 150/s done")  # fmt: skip
        if second == high + 10:
            yield AlertChange(second, "p99", "ok", 44.0, since=low, peak=184.0)
    if story.end is not None:
        text = story.why if story.end == "failed" else ""
        yield End(story.seconds, story.end, text)  # type: ignore[arg-type]


def window(story: Story, random: np.random.Generator, second: int) -> Window:
    """One second of it."""
    spike = story.spike[0] <= second < story.spike[1]
    rate = story.rate * min(1.0, max(second, 2) / 60)
    asked = int(random.poisson(rate))
    done = int(asked * (0.7 if spike else 1.0))
    failed = 2 if spike and second % 3 == 0 else 0
    queue = random.lognormal(1.0, 0.5, done) + (60.0 if spike else 0.0)
    waits = random.uniform(0.0, 4.0, done)
    computes = random.normal(6.4, 0.4, done)
    total = queue + waits + computes + random.exponential(1.0, done)
    return Window(
        second=second,
        stage="warmup" if second < 0 else "load",
        phase=0 if second < 60 else 1,
        rate=rate,
        asked=asked,
        sent=asked,
        in_flight=int(rate * total.mean() / 1000) if done else 0,
        requests=_requests(story, total, failed),
        lateness=Histogram.of((random.exponential(0.1, done) * MS).astype(np.int64)),
        server=_server(story, (queue, waits, computes), 12 + 50 * spike),
        machine=_machine(story, rate / story.rate),
    )


def _histogram(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Histogram:
    return Histogram.of((values * MS).astype(np.int64))


def _requests(
    story: Story, total: "np.ndarray[tuple[int], np.dtype[np.float64]]", failed: int
) -> dict[str, Requests]:
    shares = np.array([0.83, 0.15, 0.02] if len(story.names) == 3 else [1.0])
    edges = (np.cumsum(shares) * len(total)).round().astype(int)
    found, before = {}, 0
    for name, edge in zip(story.names, edges, strict=False):
        values = total[before:edge]
        failures = {"http 503": failed} if failed and not before else {}
        found[name] = Requests(
            done=len(values),
            failed=failures,
            latency=_histogram(values),
            service=_histogram(values * 0.99),
        )
        before = edge
    return found


def _server(
    story: Story, parts: tuple["np.ndarray[tuple[int], np.dtype[np.float64]]", ...], waiting: int
) -> Server | None:
    if story.server == "none":
        return None
    queue, waits, computes = parts
    full, count = story.server == "histograms", len(queue)
    found = [
        Part(count, int(values.sum() * MS), _histogram(values) if full else None)
        for values in (queue, waits, computes)
    ]
    sizes = {4: 2, 16: 3, 21: 4, 32: 2}
    rows = sum(size * batches for size, batches in sizes.items())
    return Server(
        source="loadbench" if full else "kserve statistics",
        queue=found[0],
        batch_wait=found[1] if full else None,
        compute=found[2],
        sizes={
            size: BatchSize(
                batches=batches,
                requests=size * batches if full else 0,
                queue_ns=size * batches * 2 * MS if full else None,
                batch_wait_ns=size * batches * MS if full else None,
                compute_ns=batches * (2 * MS + size * MS // 5),
            )
            for size, batches in sizes.items()
        },
        closed={"late-bind": {4: 2, 16: 3, 21: 4}, "full": {32: 2}} if full else {},
        requests=rows,
        rows=rows,
        batches=sum(sizes.values()),
        waiting=waiting if full else None,
        instances=1 if full else None,
        busy_ns=int(0.6 * SECOND) if full else None,
        max_batch=32 if full else None,
        grounds=story.grounds,
    )


def _machine(story: Story, share: float) -> Machine:
    card = Gpu(
        index=0,
        name="NVIDIA H200",
        utilization=0.88 * share,
        memory_used=31 * GB,
        memory_total=141 * GB,
        power_w=412.0,
        temperature_c=61.0,
    )
    return Machine(
        cpu=0.61,
        memory_used=3 * GB,
        memory_total=8 * GB,
        gpus=(card,) if story.gpu else (),
        processes={"engine": Process(0.9, 2 * GB), "load": Process(0.43, GB // 5)},
    )
