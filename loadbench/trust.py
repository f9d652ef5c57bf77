"""The trust grade of a run: what makes its numbers weaker, as notes, and how far they go.

`DOUBTS` is the whole of it, for figures; `NOTED` for what others found out and left as notes. A
target that is slow, frozen or overloaded is no doubt about how it was measured.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from loadbench import units
from loadbench.evidence import OWN_FAILURES, Evidence, matters
from loadbench.model import Note, Trust

GRADES: tuple[Trust, ...] = ("trusted", "doubtful", "invalid")
NEVER = math.inf


class Doubt(NamedTuple):
    """A figure, the values beyond which it makes a run doubtful and invalid for a latency limit in
    ns, and the words for it."""

    figure: Callable[[Evidence], float | None]  # None: not known
    doubtful: Callable[[int], float]
    invalid: Callable[[int], float]
    tell: Callable[[Evidence], Note]


def grade(
    evidence: Evidence, notes: Iterable[Note] = (), running: bool = False
) -> tuple[Trust, list[Note]]:
    """How far the run's numbers can be trusted, and why not further. `notes` are those of the run
    itself. A run that goes on is not blamed for being short."""
    worst: Trust = "trusted"
    doubts: list[Note] = []
    codes = {note.code for note in notes}
    for doubt in DOUBTS:
        found = _judged(doubt, evidence)
        if found == "trusted" or (doubt.figure is _missing_samples and running):
            continue
        worst = max(worst, found, key=GRADES.index)
        note = doubt.tell(evidence)
        if note.code not in codes:
            codes.add(note.code)
            doubts.append(note)
    if worst == "trusted" and codes & NOTED.keys():
        worst = "doubtful"
    return worst, [*doubts, *(note for note in _asides(evidence) if note.code not in codes)]


def _judged(doubt: Doubt, evidence: Evidence) -> Trust:
    value, limit = doubt.figure(evidence), evidence.limit_ns
    if value is None or value <= doubt.doubtful(limit):
        return "trusted"
    return "invalid" if value > doubt.invalid(limit) else "doubtful"


def _lateness(evidence: Evidence) -> float | None:
    return evidence.lateness.quantile(evidence.finest)


def _stall(evidence: Evidence) -> float:
    return evidence.stall_ns


def _delayed(evidence: Evidence) -> float | None:
    return _delay(evidence, evidence.delayed_ns)


def _delayed_long(evidence: Evidence) -> float | None:
    return _delay(evidence, evidence.delayed_long_ns)


def _delay(evidence: Evidence, delayed_ns: int) -> float | None:
    """The share of the time, in parts of the share of requests that the percentile leaves over;
    the longest standstill of each second counts."""
    share = _share(delayed_ns, evidence.seconds * units.SECOND)
    return None if share is None else share / (1 - evidence.finest)


def _cpu(evidence: Evidence) -> float | None:
    return evidence.cpu


def _unsent(evidence: Evidence) -> float:
    return evidence.unsent


def _own(evidence: Evidence) -> float | None:
    return _share(sum(evidence.own.values()), evidence.asked)


def _lost(evidence: Evidence) -> float:
    return evidence.lost


def _missing_samples(evidence: Evidence) -> float:
    return max(0, samples(evidence.percentile) - evidence.asked)


def _throttled(evidence: Evidence) -> float:
    return len(evidence.throttle)


def _others(evidence: Evidence) -> float:
    return len(evidence.others)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def samples(percentile: float) -> int:
    """The fewest requests that can show a percentile at 99 %: none of them over (Wilks, 1941)."""
    return math.ceil(math.log(0.01) / math.log(percentile))


def _say_late(evidence: Evidence) -> Note:
    late = evidence.lateness.quantile(evidence.finest)
    name = f"p{evidence.finest * 100:.4g}"
    text = f"the load generator was late by {units.ms(late)} ms ({name})"
    if evidence.sent < 0.99 * evidence.asked and not evidence.held and evidence.seconds:
        asked, sent = (n / evidence.seconds for n in (evidence.asked, evidence.sent))
        text += f" and sent {units.significant(sent)}/s of {units.significant(asked)}/s asked"
    if late is not None and late > evidence.limit_ns / 2:
        hint = "these latencies are its own: ask for less, or give it a core of its own"
    else:
        hint = "latencies count from the due time, so include it"
    return Note("generator-late", text, hint)


def _say_stall(evidence: Evidence) -> Note:
    why, hint = cause(evidence.stall_cause)
    text = f"the load generator stood still for {units.ms(evidence.stall_ns)} ms: {why}"
    return Note("generator-stall", text, hint)


def _say_stood(evidence: Evidence) -> Note:
    if evidence.stood_ns <= evidence.stall_ns:  # there was one
        return _say_stall(evidence)
    parts = sorted(evidence.stood.items(), key=lambda item: -item[1])[:3]
    told = "; ".join(f"{units.ms(stood)} ms: {cause(found)[0]}" for found, stood in parts)
    share = units.percent(_share(evidence.stood_ns, evidence.seconds * units.SECOND))
    text = f"the load generator stood still for {share} % of the time ({told})"
    return Note("generator-stalls", text, cause(parts[0][0])[1])


def cause(name: str) -> tuple[str, str]:
    """A standstill's cause, as a window has it, in words, and what to do about it."""
    name, _, detail = name.partition(": ")
    why, hint = CAUSES.get(name, CAUSES[""])
    return (f"{why} ({detail})" if detail else why), hint


def _say_full(evidence: Evidence) -> Note:
    text = f"the load generator used {units.percent(evidence.cpu)} % of a core"
    return Note("generator-full", text, "it may be the limit, not the target: use --workers")


def _say_unsent(evidence: Evidence) -> Note:
    text = f"{units.count(evidence.unsent)} of {units.count(evidence.asked)} asked never sent"
    if evidence.held:
        return Note("unsent", text, "raise target.connections, or ask for less")
    return Note("unsent", text, "whoever should have was gone, or too slow: see the other notes")


def _say_own(evidence: Evidence) -> Note:
    parts, hints = [], []
    for failure, words, hint in zip(
        OWN_FAILURES, ("ports", "file descriptors"), _MORE, strict=True
    ):
        if number := evidence.own.get(failure):
            parts.append(f"{units.count(number)} requests for want of {words}")
            hints.append(hint)
    text = f"this machine failed {' and '.join(parts)}: no failures of the target"
    return Note("own-failures", text, "; ".join(hints))


def _say_lost(evidence: Evidence) -> Note:
    text = f"{units.count(evidence.lost)} requests were lost with a load process"
    return Note("lost", text, "what became of them is not known; see load.log")


def _say_few(evidence: Evidence) -> Note:
    name = f"{evidence.percentile * 100:.4g}"
    need = units.count(samples(evidence.percentile))
    text = f"only {units.count(evidence.asked)} requests: a p{name} needs {need} to say anything"
    return Note("few-samples", text, "run longer")


def _say_throttled(evidence: Evidence) -> Note:
    card = evidence.device.removeprefix("cuda:")
    text = f"GPU {card} was throttled: {', '.join(evidence.throttle)}"
    return Note("throttled", text, "cool it, or lower its clock to one it can hold")


def _say_others(evidence: Evidence) -> Note:
    card = evidence.device.removeprefix("cuda:")
    pids = ", ".join(map(str, evidence.others))
    text = f"other processes used GPU {card}: pid {pids}"
    return Note("other-gpu-process", text, "stop them and run again")


def _above(number: float) -> Callable[[int], float]:
    return lambda _: number


def _of_limit(share: float) -> Callable[[int], float]:
    return lambda limit: limit * share


_MORE = (
    "widen net.ipv4.ip_local_port_range, or let the target keep connections open",
    "raise the hard limit of ulimit -n",
)

# What is looked at, beyond which value it makes a run doubtful, and beyond which invalid. `limit`
# is the latency limit of the run (100 ms where it has none).
DOUBTS = (
    # the generator, measured by itself
    Doubt(_lateness, matters, _of_limit(0.5), _say_late),  # P99; see `matters`
    Doubt(_stall, _of_limit(1), _above(NEVER), _say_stall),  # the longest standstill
    # what falls due or is answered meanwhile is late by what matters: 0.5 % each, of a P99
    Doubt(_delayed, _above(0.5), _above(NEVER), _say_stood),
    Doubt(_delayed_long, _above(1), _above(1), _say_stood),  # by > limit / 2: the P99 is its own
    Doubt(_cpu, _above(0.9), _above(NEVER), _say_full),  # of a core
    # asked, and not by the target's doing without an answer
    Doubt(_unsent, _above(0), _above(NEVER), _say_unsent),
    Doubt(_own, _above(0), _above(0.01), _say_own),  # no port, no file descriptor: of the asked
    Doubt(_lost, _above(0), _above(NEVER), _say_lost),
    # what was measured
    Doubt(_missing_samples, _above(0), _above(NEVER), _say_few),  # P90 44, P99 459, P99.9 4,603
    Doubt(_throttled, _above(0), _above(NEVER), _say_throttled),
    Doubt(_others, _above(0), _above(NEVER), _say_others),
)

# Which of them can make a run invalid, by the codes of their notes.
SPOILING = ("generator-late", "generator-stalls", "own-failures")

# Notes of the run that make it doubtful.
NOTED = {
    "other-run": "another run at the same time",
    "other-engine": "another engine on the same card",
    "lost": "a load process died or was given up",
    "told-late": "a worker heard too late which share is its own",
    "clock-drift": "a clock ran off its pace, or those of the hosts apart",
    "suspended": "the machine slept within the run",
    "state-drifts": "the model changed itself: answers depend on what came before",
    "training-mode": "a part of the model was in training mode",
}

# Codes of all notes that say that the figures are weaker than they look.
WEAKENING = frozenset(NOTED) | {
    "generator-late", "generator-stall", "generator-stalls", "generator-full", "unsent",
    "own-failures", "lost", "few-samples", "throttled", "other-gpu-process", "not-answered",
}  # fmt: skip

# How a standstill's cause (loadbench.load.stall) is told, and what to do about it.
_CORE = "give the generator a core of its own (taskset, cpuset)"
CAUSES = {
    "": ("the machine was busy or paused it", _CORE),
    "gc": ("Python looked for garbage", "keep fewer objects in what the load imports"),
    "hub": ("other code of its process ran", "keep computing out of the load process"),
    "own": ("it was computing", "send fewer or smaller requests, or use --workers"),
    "cpu": ("the kernel gave the core to others", _CORE),
    "quota": ("the container's CPU quota was used up", "raise the quota"),
    "steal": ("the hypervisor gave the core to others", "use a machine that is not shared"),
    "paused": (
        "it was paused",
        "it, or the (virtual) machine, was stopped, or it waited for a disk",
    ),
}


ASIDES = ("held", "not-answered", "cached")


def _asides(evidence: Evidence) -> Iterable[Note]:
    """What is to be known of the figures and is no doubt about the generator."""
    if evidence.held:
        text = (
            f"{units.count(evidence.held)} requests waited for one of"
            f" {units.count(evidence.connections)} connections, all of them busy with the target"
            f" (oldest answer awaited for {units.duration(evidence.oldest_ns)})"
        )
        hint = "their wait is in their latency; raise target.connections if users would not"
        yield Note("held", text, hint)
    if evidence.missed:
        share = units.percent(_share(evidence.missed, evidence.asked))
        text = f"{share} % of the asked requests were not answered well"
        hint = "latency counts them as over any limit; answered_ms leaves them out"
        yield Note("not-answered", text, hint)
    if evidence.cached:
        cached = min(evidence.cached, evidence.served)  # whose answers may come a window later
        share = units.percent(_share(cached, evidence.served))
        text = f"{share} % of the answers came from the response cache, not from the model"
        hint = "other clients repeat themselves less: to measure the model, turn the cache off"
        how = " (engine.cache = 0)" if evidence.teller == "loadbench" else ""
        yield Note("cached", text, hint + how)
