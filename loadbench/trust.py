"""The trust grade of a run: what makes its numbers weaker, as notes, and how far they go."""

from loadbench import units
from loadbench.account import Account
from loadbench.model import Note, Trust


def grade(total: Account) -> tuple[Trust, list[Note]]:
    """How far the run's numbers can be trusted, and why not further."""
    limit = total.start.limit_ns or 100 * units.MS
    late = total.whole.lateness.quantile(0.99) or 0
    doubts: list[Note] = []
    trust: Trust = "trusted"
    if late > limit / 2:
        trust = "invalid"
        text = f"the load generator was late by {units.ms(late)} ms (p99): these latencies are its"
        doubts.append(Note("generator-late", text, "ask for less, or give it a core of its own"))
    elif late > max(5 * units.MS, limit // 10):
        text = f"the load generator was late by {units.ms(late)} ms (p99)"
        doubts.append(
            Note("generator-late", text, "latencies count from the due time, so include it")
        )
    if total.stall_ns > limit:
        text = f"the load generator stood still for {units.ms(total.stall_ns)} ms once"
        doubts.append(Note("generator-stall", text, "the machine was busy or paused it"))
    load = total.load.machine.processes.get("load") if total.load and total.load.machine else None
    if load and load.cpu is not None and load.cpu > 0.9:
        text = f"the load generator used {units.percent(load.cpu)} % of a core"
        doubts.append(Note("generator-full", text, "it may be the limit, not the target"))
    if total.unsent:
        text = f"{units.count(total.unsent)} of {units.count(total.whole.asked)} asked never sent"
        doubts.append(Note("unsent", text, "raise target.connections, or ask for less"))
    doubts += _samples(total) + _cards(total)
    weak = {"generator-late", "generator-stall", "generator-full", "unsent", "throttled"}
    weak |= {"other-gpu-process", "few-samples", "other-run", "lost"}
    codes = {note.code for note in (*doubts, *total.notes)}
    if trust == "trusted" and codes & weak:
        trust = "doubtful"
    return trust, doubts


def _samples(total: Account) -> list[Note]:
    """The smallest n that can show a P99 at 99 % is 459 (Wilks; none of them over)."""
    n = total.whole.asked
    notes = []
    if n < 459:
        text = f"only {units.count(n)} requests: a p99 needs 459 to say anything"
        notes.append(Note("few-samples", text, "run longer"))
    missed = total.missed
    if missed:
        share = units.percent(missed / n) if n else "n/a"
        text = f"{share} % of the asked requests were not answered well"
        hint = "latency counts them as over any limit; answered_ms leaves them out"
        notes.append(Note("not-answered", text, hint))
    return notes


def _cards(total: Account) -> list[Note]:
    machine = total.load.machine if total.load else None
    notes = []
    for card in machine.gpus if machine else ():
        if total.start.device != f"cuda:{card.index}":
            continue
        if card.throttle:
            text = f"GPU {card.index} was throttled: {', '.join(card.throttle)}"
            notes.append(Note("throttled", text, "cool it, or lower its clock to one it can hold"))
        if card.processes:
            pids = ", ".join(str(pid) for pid, _ in card.processes)
            text = f"other processes used GPU {card.index}: pid {pids}"
            notes.append(Note("other-gpu-process", text, "stop them and run again"))
    return notes
