"""Windows in their order as one: counts add up, histograms merge, states are the last one's. And
windows of the same second, of several load processes, as one: there states add up too.

Every view of more than one second (a tile's 10 s, a chart's column, a minute of the log, the
summary) is made here, so percentiles are always those of the merged histogram, never averages.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from loadbench import streams
from loadbench.histogram import Histogram
from loadbench.machine import highest
from loadbench.model import (
    BatchSize,
    Example,
    Gpu,
    Ground,
    Machine,
    Part,
    Process,
    Requests,
    Sample,
    Server,
    Stage,
    Window,
)

_STAGES: tuple[Stage, ...] = ("load", "drain", "warmup")


Join = Callable[[Iterable[Histogram]], Histogram]


def merge(windows: Sequence[Window], join: Join = Histogram.merged) -> Window:
    """One window for all of them, its histograms made by `join`. Raises ValueError when there are
    none."""
    if not windows:
        raise ValueError("no windows to merge")
    last = windows[-1]
    if len(windows) == 1:
        return last
    longest = max(windows, key=lambda window: window.stall_ns)
    names = dict.fromkeys(name for window in windows for name in window.requests)
    return Window(
        second=windows[0].second,
        stage=last.stage,
        phase=last.phase,
        rate=last.rate,
        asked=sum(window.asked for window in windows),
        unsent=sum(window.unsent for window in windows),
        sent=sum(window.sent for window in windows),
        lost=sum(window.lost for window in windows),
        in_flight=last.in_flight,
        waiting=last.waiting,
        held=sum(window.held for window in windows),
        requests={name: _requests(name, windows, join) for name in names},
        tail_sent=sum(window.tail_sent for window in windows),
        tail_done=sum(window.tail_done for window in windows),
        tail_failed=sum(window.tail_failed for window in windows),
        tail_service_ns=sum(window.tail_service_ns for window in windows),
        tail_latency_ns=sum(window.tail_latency_ns for window in windows),
        lateness=join(window.lateness for window in windows),
        oldest_ns=max(window.oldest_ns for window in windows),
        overdue=max(window.overdue for window in windows),
        stall_ns=longest.stall_ns,
        stall_cause=longest.stall_cause,
        cpu_ns=_sum(window.cpu_ns for window in windows),
        connections=max(window.connections for window in windows),
        users=max((w.users for w in windows if w.users is not None), default=None),
        slowest=_slowest(windows, 5),
        examples=_examples(windows),
        server=servers([window.server for window in windows if window.server], join),
        machine=machines([window.machine for window in windows if window.machine]),
    )


def together(windows: Sequence[Window], slowest: int = 5) -> Window:
    """The same second as several load processes saw it, with so many of the slowest requests. The
    percentiles are those of all their samples. Server and machine are not theirs to tell. Raises
    ValueError when there are none."""
    if not windows:
        raise ValueError("no windows to merge")
    longest = max(windows, key=lambda window: window.stall_ns)
    stages = {window.stage for window in windows}
    names = dict.fromkeys(name for window in windows for name in window.requests)
    rates = [window.rate for window in windows if window.rate is not None]
    phases = [window.phase for window in windows if window.phase is not None]
    return Window(
        second=windows[0].second,
        stage=next(stage for stage in _STAGES if stage in stages),
        phase=max(phases, default=None),
        rate=max(rates, default=None),  # each tells that of the whole load
        asked=sum(window.asked for window in windows),
        unsent=sum(window.unsent for window in windows),
        sent=sum(window.sent for window in windows),
        lost=sum(window.lost for window in windows),
        in_flight=sum(window.in_flight for window in windows),
        waiting=sum(window.waiting for window in windows),
        held=sum(window.held for window in windows),
        requests={name: _requests(name, windows) for name in names},
        tail_sent=sum(window.tail_sent for window in windows),
        tail_done=sum(window.tail_done for window in windows),
        tail_failed=sum(window.tail_failed for window in windows),
        tail_service_ns=sum(window.tail_service_ns for window in windows),
        tail_latency_ns=sum(window.tail_latency_ns for window in windows),
        lateness=Histogram.merged(window.lateness for window in windows),
        oldest_ns=max(window.oldest_ns for window in windows),
        overdue=sum(window.overdue for window in windows),
        stall_ns=longest.stall_ns,
        stall_cause=longest.stall_cause,
        cpu_ns=_most(window.cpu_ns for window in windows),  # a full one is as bad as all
        connections=sum(window.connections for window in windows),
        users=_sum(window.users for window in windows),
        slowest=_slowest(windows, slowest),
        examples=_examples(windows),
        timing=_parts(window.timing for window in windows),
    )


def _slowest(windows: Sequence[Window], most: int) -> tuple[Sample, ...]:
    found = [sample for window in windows for sample in window.slowest]
    return tuple(sorted(found, key=lambda sample: sample.due - sample.done)[:most])


def _examples(windows: Sequence[Window]) -> dict[str, Example]:
    """The first of each kind of failure."""
    return {name: found for window in reversed(windows) for name, found in window.examples.items()}


def _requests(name: str, windows: Sequence[Window], join: Join = Histogram.merged) -> Requests:
    parts = [window.requests[name] for window in windows if name in window.requests]
    return Requests(
        done=sum(part.done for part in parts),
        failed=_added(part.failed for part in parts),
        latency=join(part.latency for part in parts),
        service=join(part.service for part in parts),
        stream=streams.merged((part.stream for part in parts), join),
    )


def _added(counters: Iterable[dict[Any, int]]) -> dict[Any, int]:
    total: dict[Any, int] = {}
    for counter in counters:
        for key, number in counter.items():
            total[key] = total.get(key, 0) + number
    return total


def servers(found: Sequence[Server], join: Join = Histogram.merged) -> Server | None:
    """The server's view over all windows that had one."""
    if len(found) < 2:
        return found[0] if found else None
    last = found[-1]
    reasons = dict.fromkeys(reason for server in found for reason in server.closed)
    busy = [server.busy_ns for server in found if server.busy_ns is not None]
    return Server(
        source=last.source,
        queue=merged_part([server.queue for server in found], join),
        batch_wait=merged_part([server.batch_wait for server in found], join),
        compute=merged_part([server.compute for server in found], join),
        sizes=_sizes(found),
        closed={
            reason: _added(server.closed.get(reason, {}) for server in found) for reason in reasons
        },
        requests=_sum(server.requests for server in found),
        rows=_sum(server.rows for server in found),
        batches=_sum(server.batches for server in found),
        failed=_sum(server.failed for server in found),
        shed=sum(server.shed for server in found),
        padded_rows=sum(server.padded_rows for server in found),
        waiting=last.waiting,
        instances=last.instances,
        busy_ns=sum(busy) if busy else None,
        max_batch=last.max_batch,
        parts=_parts(server.parts for server in found),
        steps=_parts(server.steps for server in found),
        cached=sum(server.cached for server in found),
        cache_misses=sum(server.cache_misses for server in found),
        grounds=_grounds(found),
        compute_input=merged_part([server.compute_input for server in found], join),
        compute_output=merged_part([server.compute_output for server in found], join),
        rooms=_rooms(found),
    )


def _rooms(found: Sequence[Server]) -> dict[int, int]:
    """How many batches ran in which room; nothing where it was the same for all."""
    total = _added(server.ran_in for server in found)
    now = {room for server in found[-1:] if (room := server.room)}
    return total if total.keys() - now else {}


def beside(found: Sequence[Server]) -> Server | None:
    """Of several servers in the same second: there states add up, too."""
    whole = in_turn(found)
    if whole is None or len(found) < 2:
        return whole
    return replace(
        whole,
        waiting=_sum(server.waiting for server in found),
        instances=_sum(server.instances for server in found),
        max_batch=_most(server.max_batch for server in found),
    )


def in_turn(found: Sequence[Server]) -> Server | None:
    """Of readings one after the other: also what they remark is all there."""
    whole = servers(found)
    if whole is None or len(found) < 2:
        return whole
    return replace(
        whole,
        remarks=tuple(note for server in found for note in server.remarks),
        changes=tuple(change for server in found for change in server.changes),
    )


def _grounds(found: Sequence[Server]) -> tuple[Ground, ...]:
    """Each device as it was last, with all that ever slowed it down."""
    latest: dict[str, Ground] = {}
    for ground in (ground for server in found for ground in server.grounds):
        before = latest.get(ground.device, ground)
        latest[ground.device] = replace(
            ground,
            throttle=tuple(dict.fromkeys((*before.throttle, *ground.throttle))),
            others=tuple(dict.fromkeys((*before.others, *ground.others))),
        )
    return tuple(latest.values())


def merged_part(parts: Sequence[Part | None], join: Join = Histogram.merged) -> Part | None:
    """A part of the server's time over all windows that told it."""
    found = [part for part in parts if part is not None]
    if not found:
        return None
    histograms = [part.histogram for part in found if part.histogram is not None]
    return Part(
        count=sum(part.count for part in found),
        total_ns=sum(part.total_ns for part in found),
        histogram=join(histograms) if len(histograms) == len(found) else None,
    )


def _parts(found: Iterable[dict[str, Part]]) -> dict[str, Part]:
    merged: dict[str, Part] = {}
    for name, part in (item for parts in found for item in parts.items()):
        before = merged.get(name, Part(0, 0))
        merged[name] = Part(before.count + part.count, before.total_ns + part.total_ns)
    return merged


def _sizes(found: Sequence[Server]) -> dict[int, BatchSize]:
    told: dict[int, list[BatchSize]] = {}
    for server in found:
        for size, part in server.sizes.items():
            told.setdefault(size, []).append(part)
    merged = {}
    for size, parts in sorted(told.items()):
        merged[size] = BatchSize(
            batches=sum(part.batches for part in parts),
            requests=sum(part.requests for part in parts),
            queue_ns=_sum(part.queue_ns for part in parts),
            batch_wait_ns=_sum(part.batch_wait_ns for part in parts),
            compute_ns=sum(part.compute_ns for part in parts),
            infer_ns=_sum(part.infer_ns for part in parts),
            between_ns=_sum(part.between_ns for part in parts),
            answer_ns=_sum(part.answer_ns for part in parts),
        )
    return merged


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _most(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def machines(found: Sequence[Machine]) -> Machine | None:
    """Shares and watts as means, memory and temperature at their highest."""
    if len(found) < 2:
        return found[0] if found else None
    names = dict.fromkeys(name for machine in found for name in machine.processes)
    told = any(machine.told for machine in found)  # then this machine's are no cards of the target
    readings = [gpu for machine in found if machine.told == told for gpu in machine.gpus]
    return Machine(
        cpu=_mean(machine.cpu for machine in found),
        memory_used=_most(machine.memory_used for machine in found),
        memory_total=found[-1].memory_total,
        gpus=tuple(
            _gpu([gpu for gpu in readings if gpu.title == title])
            for title in dict.fromkeys(gpu.title for gpu in readings)
        ),
        processes={
            name: _process([m.processes[name] for m in found if name in m.processes])
            for name in names
        },
        told=told,
    )


def _gpu(readings: Sequence[Gpu]) -> Gpu:
    last = readings[-1]
    full = highest(readings, lambda gpu: gpu.memory_used)  # its total may be another one later
    temperatures = [gpu.temperature_c for gpu in readings if gpu.temperature_c is not None]
    return Gpu(
        index=last.index,
        name=last.name,
        uuid=last.uuid,
        utilization=_mean(gpu.utilization for gpu in readings),
        memory_used=full.memory_used if full else None,
        memory_total=(full or last).memory_total or last.memory_total,
        power_w=_mean(gpu.power_w for gpu in readings),
        temperature_c=max(temperatures, default=None),
        sm_clock_mhz=last.sm_clock_mhz,
        throttle=tuple(dict.fromkeys(reason for gpu in readings for reason in gpu.throttle)),
        # one that came and went disturbed the run as well
        processes=tuple(
            {pid: (pid, size) for gpu in readings for pid, size in gpu.processes}.values()
        ),
        part=last.part,
    )


def _process(readings: Sequence[Process]) -> Process:
    return Process(
        cpu=_mean(reading.cpu for reading in readings),
        memory=_most(reading.memory for reading in readings),
        waited=_mean(reading.waited for reading in readings),
    )
