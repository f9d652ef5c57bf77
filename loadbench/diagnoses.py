"""What can be behind an alert: a fixed list of causes, each of which looks at the figures alone.

`DIAGNOSES` is the whole of it, from what spoils the measurement itself to what is left when nothing
stands out. A cause tells what was measured, then what is likely behind it, then what to try. How a
verdict is made of them is `words`'s.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from loadbench import units
from loadbench.explained import EXPLAINED_BY
from loadbench.failing import AWAY, INSIDE, OUTAGE, RESTARTED, behind
from loadbench.machine import Gpu, Machine, highest
from loadbench.outages import said_of
from loadbench.ride import WHY_CLOSED
from loadbench.sentences import finished
from loadbench.situation import LESS, Situation, parts_ms
from loadbench.targets.region import NO_REGION
from loadbench.trust import cause
from loadbench.units import count, percent, significant

_LATE_NS = 5 * units.MS
_STALL_NS = 100 * units.MS
_PART = 0.2  # of the p99 latency: less of it is not what makes it high
_FULL = 0.9  # of a core, of all cores, of a memory, of the instances' time
_FEW_BUSY = 0.5  # of their time: the instances wait for requests
_LOW = 0.3  # of the time with a kernel running: the GPU idles
_ONE_KIND = 0.8  # of the failures: they have one cause
_FAILING = 0.01  # of what ended
_SMALL, _TINY = 0.5, 0.25  # of the rows that a batch could have
_SLOWER, _SAME = 1.3, 1.25  # times as long, for batches of about the same size
_OUTSIDE, _OUTSIDE_MS = 0.6, 5.0
_GROWTH = 0.02  # of what is asked
_ALL = 0.95  # of what is asked gets done: the rest is on its way
_NOT_COMPUTE = ("cpu", "lateness", "silence")  # what takes the cores from them need not slow it


class Finding(NamedTuple):
    """A cause: what was measured, what is likely behind it, what to try."""

    code: str
    text: str
    guess: str
    hint: str


def diagnoses(situation: Situation) -> list[Finding]:
    """All causes that the figures show and the quantity can have, what was changed just before
    first, then what the alert itself is about; at least one. A change of the target is not behind
    what is not its fault."""
    own, others = EXPLAINED_BY.get(situation.quantity, ((), None))
    found = [
        finding
        for look in DIAGNOSES
        if (finding := look(situation))
        and (others is None or finding.code in own or finding.code in others)
    ]
    late = any(finding.code == "generator-late" for finding in found)
    if late and situation.quantity not in ("lateness", "errors", *LESS):
        found = [finding for finding in found if finding.code != "changed"]
    first = ("changed", *own)
    found.sort(key=lambda finding: finding.code not in first)  # stable: the list's order otherwise
    return found or [_nothing(situation)]


def _changed(now: Situation) -> Finding | None:
    if now.changed is None:
        return None
    mark, during = now.changed
    when = units.clock(mark.second * units.SECOND)
    before = "before its worst" if during else "before"
    text = finished(f"Shortly {before}, at {when}, this was changed: {mark.text}")
    return Finding("changed", text, "that change", "take it back, and see whether this ends")


def _silent(now: Situation) -> Finding | None:
    if now.quantity != "silence":
        return None
    text = "The load generator told nothing in that time."
    guess = "it was stopped, starved of its core, or waited for memory or a disk"
    return Finding("silent", text, guess, "read load.log, and what else this machine did")


def _generator(now: Situation) -> Finding | None:
    cpu, tail = now.load_cpu, 0.0 if now.quantity == "lateness" else _PART * _p99(now)
    late = now.late_ns if (now.late_ns or 0) > max(_LATE_NS, tail) else None
    stall = now.now.stall_ns if now.now.stall_ns > max(_STALL_NS, tail) else 0
    full = cpu is not None and cpu >= _FULL
    unknown = now.closed and now.late_ns is None  # nothing is due in a closed loop, so never late
    if not (late or stall or (full and unknown)):
        return None
    parts = [f"is {units.ms(late)} ms late (p99)"] if late else []
    parts += [f"uses {percent(cpu)} % of a core"] if full else []
    why, hint = cause(now.now.stall_cause)
    parts += [f"stood still for {units.ms(stall)} ms"] if stall else []
    text = f"The load generator {' and '.join(parts)}: not the target's fault."
    if full:
        guess, hint = "one load process cannot send this much here", _MORE_PROCESSES
    elif stall:
        guess = f"{why} while the generator had work to do"
    else:
        guess, hint = _kept_waiting(now)
        text += "" if guess else " Nothing that is measured tells why."
    return Finding("generator-late", text, guess, hint)


def _p99(now: Situation) -> float:
    """Of the answered; infinite where a percentile lies among what failed: no lateness is a part
    of that."""
    share = {"p50": 0.5, "p95": 0.95, "p99": 0.99}.get(now.quantity)
    failed = sum(now.now.failed.values())
    if share and math.isinf(now.now.latency.quantile_of_asked(share, failed) or 0):
        return math.inf
    return now.now.latency.quantile(0.99) or 0


_MORE_PROCESSES = "more load processes (--workers), or a core of its own for the generator"


def _kept_waiting(now: Situation) -> tuple[str, str]:
    """What is likely behind a generator that is late with a core that is not full, and what to
    try; "" and what to look at where nothing shows it."""
    machine = now.now.machine
    if machine is not None and _no_core_left(machine):
        return _who_has_the_cores(machine, now.ours)
    return "", "read load.log, and what else this machine did; a core of its own for the generator"


def _unsent(now: Situation) -> Finding | None:
    """What never left here, or was given up with who sent it, counts as failed and beyond any
    limit; the target knows nothing of it."""
    number = now.now.unsent + now.now.lost
    if not number or number < _FAILING * now.now.asked:
        return None
    text = f"{count(number)} of {count(now.now.asked)} asked were not sent, or lost with the load"
    text += " process that sent them: the target has not failed these."
    guess = "a load process was killed, or could not keep up"
    return Finding("unsent", text, guess, "read load.log (o): which one, and when")


def _errors(now: Situation) -> Finding | None:
    failed = now.now.failed
    number, ended = sum(failed.values()), now.now.done + sum(failed.values())
    if not number or number < _FAILING * ended:
        return None
    kind = max(failed, key=lambda name: failed[name])
    away = said_of(now.outages)
    if kind == NO_REGION or (NO_REGION in failed and failed.keys() <= RESTARTED):
        kinds = ", ".join(f"{name} {count(n)}" for name, n in failed.items())
        text = f"{percent(number / ended)} % fail: {kinds}."
        return Finding("errors", text, *(behind(NO_REGION) if kind == NO_REGION else OUTAGE))
    if failed[kind] < _ONE_KIND * number:
        kinds = ", ".join(f"{name} {count(n)}" for name, n in failed.items())
        text = f"{percent(number / ended)} % fail, in several ways: {kinds}."
        trouble = ("the target is in trouble as a whole", "read its log")
        return Finding("errors", text, *(away or trouble))
    guess, hint = away or behind(kind, now.sent)
    if now.ours and away:
        hint = hint.replace("its log", "engine.log (o)")
    elif now.ours and behind(kind) in (AWAY, INSIDE):
        hint += ": engine.log (o)" if hint == INSIDE[1] else " read engine.log (o)"
    share = "all" if failed[kind] == number else f"{percent(failed[kind] / number)} % of them"
    text = f"{percent(number / ended)} % fail, {share} by {kind} ({count(failed[kind])})."
    return Finding("errors", text, guess, hint)


def _other_process(now: Situation) -> Finding | None:
    others = now.others
    if not others:
        return None
    each = [
        f"pid {pid}" + (f", {units.gigabytes(size)} GB" if size else "")
        for pid, size in list(others.items())[:3]
    ]
    many = "another process is" if len(others) == 1 else f"{len(others)} other processes are"
    text = f"{many[:1].upper()}{many[1:]} on {now.device or 'the device'} ({'; '.join(each)})."
    guess = f"{many} using the GPU"
    return Finding("other-process", text, guess, "stop it, or measure on a card of your own")


def _throttled(now: Situation) -> Finding | None:
    if not now.throttle:
        return None
    text = f"The clock of {now.device or 'the device'} is held down: {', '.join(now.throttle)}."
    guess = "the device is slower than it can be"
    return Finding("throttled", text, guess, "cool it, or fix its clock to one that it can hold")


def _memory(now: Situation) -> Finding | None:
    card, machine = highest(now.cards, lambda card: card.filled), now.now.machine
    least = 0.8 if now.quantity in ("memory", "gpu_memory") else _FULL
    if (
        card
        and now.quantity not in ("memory", "lateness", "silence")
        and _fills(card.memory_used, card.memory_total, least)
    ):
        text = f"GPU {card.title} holds {_of(card)} GB."
        guess = "the next larger batch finds no memory and is cut or fails"
        largest = "engine.max_batch" if now.settings else "maximum batch there"
        return Finding("memory", text, guess, f"a smaller {largest}, or fewer instances")
    if machine and _fills(machine.memory_used, machine.memory_total, least):
        text = f"This machine's memory holds {_of(machine)} GB."
        guess = "it is nearly full: the machine swaps, or will end a process"
        return Finding("memory", text, guess, "a smaller model, or fewer instances")
    return None


def _fills(used: int | None, total: int | None, share: float) -> bool:
    return used is not None and bool(total) and used >= share * (total or 0)


def _of(found: Gpu | Machine) -> str:
    return f"{units.gigabytes(found.memory_used)} of {units.gigabytes(found.memory_total)}"


def _cpu(now: Situation) -> Finding | None:
    machine = now.now.machine
    if machine is None or not _no_core_left(machine):
        return None
    guess, hint = _who_has_the_cores(machine, now.ours)
    if now.quantity not in _NOT_COMPUTE:
        slower = _got_slower(now)
        saturated = (now.busy or 0) >= _FULL and guess == _OTHERS
        if slower is False or (slower is None and saturated):
            return None  # who takes the cores makes compute slower, or it is not felt
    each = ", ".join(f"{name} {percent(cpu)} % of a core" for name, cpu in _used(machine).items())
    text = f"The CPU is {percent(machine.cpu)} % busy" + (f": {each}." if each else ".")
    return Finding("cpu", text, guess, hint)


def _got_slower(now: Situation) -> bool | None:
    """Whether compute takes longer than before; None where that is not known."""
    compute = now.parts_ms.get("compute")
    before = parts_ms(now.before.server if now.before else None).get("compute")
    return compute >= _SLOWER * before if compute and before else None


def _no_core_left(machine: Machine) -> bool:
    return machine.cpu is not None and machine.cpu >= _FULL


def _used(machine: Machine) -> dict[str, float]:
    """Cores that our own processes used."""
    return {name: found.cpu for name, found in machine.processes.items() if found.cpu}


_OTHERS = "other programs take this machine's cores"


def _who_has_the_cores(machine: Machine, ours: bool) -> tuple[str, str]:
    """The guess, and what to try, where all cores are taken."""
    if sum(_used(machine).values()) < _FEW_BUSY:  # of a core
        return _OTHERS, "stop them"
    if not ours:
        guess = "the generator and the rest of this machine take each other's time"
        return guess, "the load on another host, or nothing else on this one"
    guess = "engine, generator and the rest of this machine take each other's time"
    return guess, "fewer engine.threads, or the load on another host"


def _idle_gpu(now: Situation) -> Finding | None:
    """What a GPU that is hardly used means here."""
    card = highest(now.cards, lambda card: card.utilization)
    busy, server = now.busy, now.now.server
    if card is None or (used := card.utilization or 0.0) >= _LOW or not now.asked:
        return None
    which = f", the busiest of {len(now.cards)}," if len(now.cards) > 1 else ""
    text = f"GPU {card.title}{which} is busy {percent(used)} % of the time"
    if busy is not None and busy < _FEW_BUSY:
        return _waits(now, f"{text}, the engine {percent(busy)} %")
    if (share := now.prepared) is not None and share >= 0.4:
        text += f"; preprocessing takes {percent(share)} % of a batch's time."
        guess = "preprocessing on the CPU keeps the GPU waiting"
        return Finding("idle-gpu", text, guess, "put it into the model, or more engine.instances")
    if server and server.fill is not None and server.fill < _TINY:
        text += f"; batches have {significant(server.mean_batch)} of {server.room_text} rows."
        guess = "batches are too small: the GPU waits for the host between them"
        host = "engine.graphs = true" if now.settings else "a longer delay of its batching"
        return Finding("idle-gpu", text, guess, f"more requests at once, or {host}")
    if (share := now.inferred) is not None and share < 0.6:
        text += f"; of a batch's time the model itself takes {percent(share)} %."
        guess = "the host prepares and copies for longer than the GPU computes"
        return Finding("idle-gpu", text, guess, "loadbench doctor MODEL; smaller inputs, fp16")
    guess = "the host, not the GPU, sets the pace"
    graphs = "engine.graphs = true" if now.settings else "CUDA graphs"
    return Finding("idle-gpu", f"{text}.", guess, f"{graphs}, or a compiled backend")


def _waits(now: Situation, text: str) -> Finding:
    """The engine waits for requests: who lets it wait?"""
    room = now.now.server.room if now.now.server else None
    full = (now.load_cpu or 0) >= _FULL
    if full or (now.late_ns or 0) > _LATE_NS:
        guess = "the GPU is starved by the load generator"
        hint = "more load processes: --workers 2" if full else _kept_waiting(now)[1]
        return Finding("idle-gpu", f"{text}.", guess, hint)
    if now.closed and room and now.open < room:
        text += f"; only {count(now.open)} requests are open at a time."
        guess = "too few users at once to keep it busy"
        return Finding("idle-gpu", text, guess, "a higher load.concurrency")
    text += f"; all of the {significant(now.asked)}/s asked are answered as they come."
    guess = "little is asked of this GPU, which is no fault"
    return Finding("idle-gpu", text, guess, "a higher rate, until the latency limit is near")


def _as_asked(now: Situation) -> Finding | None:
    """A rule on what gets done, where the load is what bounds it."""
    if now.quantity != "throughput" or now.closed or not now.asked or now.done < _ALL * now.asked:
        return None
    text = f"{significant(now.asked)}/s are asked, and {significant(now.done)}/s get done."
    guess = "the load is what bounds it, not the target"
    return Finding("as-asked", text, guess, "another rate, or another limit of the rule")


def _standstill(now: Situation) -> Finding | None:
    if now.now.done or not now.open:
        return None
    age = units.duration(now.now.oldest_ns)
    text = f"Nothing was answered; {count(now.open)} requests are open, the oldest for {age}."
    hint = f"read its log{' (o)' if now.ours else ''}; is it alive?"
    return Finding("standstill", text, "the target hangs", hint)


def _small_batches(now: Situation) -> Finding | None:
    server, parts = now.now.server, now.parts_ms
    if server is None or server.fill is None or not server.room:
        return None
    waits = parts.get("queue", 0.0) > parts.get("compute", 0.0) or (
        server.waiting is not None and server.waiting > server.room
    )
    if not waits or server.fill >= _SMALL:
        return None
    rows = f"{significant(server.mean_batch)} of {server.room_text} rows"
    text = f"Batches have {rows} though requests wait"
    reasons = {reason: sum(by.values()) for reason, by in server.closed.items()}
    if not reasons:
        hint = "its batching: the size it prefers, the delay it allows"
        return Finding("small-batches", f"{text}.", "the target does not batch what it could", hint)
    reason = max(reasons, key=lambda name: reasons[name])
    share = percent(reasons[reason] / sum(reasons.values()))
    text += f"; {share} % of them close by “{WHY_CLOSED.get(reason, reason)}”."
    guess, hint = _CLOSED.get(reason, _CLOSED[""])
    return Finding("small-batches", text, guess, hint)


_CLOSED = {
    "deadline": ("the SLO leaves no time for larger batches", "a longer engine.slo"),
    "bucket": ("requests of different shapes cannot ride together", "fewer shapes, or padding"),
    "full": ("single requests fill batches of their shape", "a larger engine.max_batch"),
    "": ("the policy does not wait for more", 'engine.policy = "deadline"'),
}


def _slower(now: Situation) -> Finding | None:
    """Compute takes longer than before, for batches of about the same size."""
    server, earlier = now.now.server, now.before.server if now.before else None
    if server is None or earlier is None:
        return None
    if not _got_slower(now):
        return None
    compute, before = parts_ms(server)["compute"], parts_ms(earlier)["compute"]
    size, sized = server.mean_batch, earlier.mean_batch
    if size and sized and size > _SAME * sized:
        return None  # larger batches take longer
    text = f"Compute takes {significant(compute)} ms; before it took {significant(before)} ms"
    text += f" for batches of {significant(size)} rows." if size else "."
    guess = "something else uses the processor or the device"
    return Finding("slower", text, guess, "look at what else runs; screen 2 has the parts")


def _grows(now: Situation) -> Finding | None:
    busy, parts = now.busy, now.parts_ms
    growing = now.growth > max(1.0, _GROWTH * now.asked)
    queued = parts.get("queue", 0.0) > sum(parts.values()) / 2
    if now.closed or not (growing or (busy is not None and busy >= _FULL and queued)):
        return None
    text = f"{significant(now.asked)}/s are asked, {significant(now.done)}/s get done"
    text += f", {count(now.open)} are open" + (
        f"; the engine is busy {percent(busy)} % of the time." if busy is not None else "."
    )
    guess = "this is more than the target can do"
    return Finding("overload", text, guess, "ask for less; more instances or devices")


def _generator_full(now: Situation) -> Finding | None:
    """No verdict by itself: while it is neither late nor stands still nothing is felt of it."""
    if (cpu := now.load_cpu) is None or cpu < _FULL or _generator(now):
        return None
    text = f"The load generator uses {percent(cpu)} % of a core."
    guess = "one load process can send little more than this here"
    return Finding("generator-full", text, guess, _MORE_PROCESSES)


def _outside(now: Situation) -> Finding | None:
    parts, mean = now.parts_ms, now.mean_ms
    if not parts or mean is None:
        return None
    outside = mean - sum(parts.values())
    if outside < max(_OUTSIDE_MS, _OUTSIDE * mean):
        return None
    of = f"{significant(outside)} of a request's {significant(mean)} ms"
    text = f"The server does not tell where {of} went."
    if now.now.stream is not None:
        guess = "the model is between its answers' pieces, which the server does not count"
        return Finding("outside", text, guess, "look at first_token and token_gap")
    if now.untold:
        guess = "a queue within it, which it does not tell of"
        return Finding("outside", text, guess, "ask for less, and see whether that part shrinks")
    text = f"{of} pass outside the server."
    guess = "its front end, large bodies or the network"
    return Finding("outside", text, guess, "smaller bodies, more connections, or a nearer host")


def _nothing(now: Situation) -> Finding:
    if now.quantity == "lateness":
        text = "In these seconds the load generator is on time."
        if now.late_ns is None:
            text = "Every request waited for a connection: how late it is cannot be told."
        elif now.late_ns > _LATE_NS:
            text = "Nothing that is measured tells why."
        return Finding("nothing", text, "", "read load.log, and what else this machine did")
    text = "Nothing else that is measured stands out."
    if now.now.server is None:
        text = "This target does not tell what it does; nothing else that is measured stands out."
    return Finding("nothing", text, "", "look at the log of the target for that time")


DIAGNOSES: tuple[Callable[[Situation], Finding | None], ...] = (
    _silent,
    _changed,
    _generator,
    _unsent,
    _standstill,
    _other_process,
    _throttled,
    _errors,  # before what its device is at: a server that is away, or refuses, is not slow
    _memory,
    _cpu,
    _idle_gpu,
    _as_asked,
    _small_batches,
    _slower,
    _grows,
    _generator_full,
    _outside,
)
