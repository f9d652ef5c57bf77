"""The slowest requests of a run in words: what they rode in, how the machine was then, and why."""

from typing import Any

from loadbench.causes import latency
from loadbench.machine import card_number
from loadbench.model import Sample, Start, Window
from loadbench.ride import WHY_CLOSED
from loadbench.units import SECOND, clock, ms, percent, significant


def rode(sample: Sample) -> str:
    """`batch 812 of 32 rows: instance came free`; as much of it as the server told."""
    if sample.batch is None:
        return ""
    rows = f"{sample.batch} row{'s' * (sample.batch != 1)}"
    if sample.ride is None:
        return f"a batch of {rows}"
    why = WHY_CLOSED.get(sample.ride.closed, sample.ride.closed)
    return f"batch {sample.ride.number} of {rows}: {why}"


def machine_then(then: Window | None, start: Start | None) -> str:
    """`GPU 99 %, throttled, CPU 61 %`; "" where it was not read."""
    machine = then.machine if then else None
    if machine is None:
        return ""
    parts = []
    cards = machine.serving(card_number(start.device)) if start else ()
    for card in cards:
        which = f"GPU {card.title}" if len(cards) > 1 else "GPU"
        busy = "" if card.utilization is None else f"{which} {percent(card.utilization)} %"
        parts += [busy, f"throttled ({', '.join(card.throttle)})" if card.throttle else ""]
    if machine.cpu is not None:
        parts.append(f"CPU {percent(machine.cpu)} %")
    return ", ".join(filter(None, parts))


def slowest_text(found: dict[str, Any]) -> str:
    """`312 ms at 03:41, infer: arrived 0.4 ms after …  (queue 280, compute 20.1 ms)`."""
    when = "" if found["second"] is None else f" at {clock(found['second'] * SECOND)}"
    parts = ", ".join(f"{name} {significant(took)}" for name, took in found["parts_ms"].items())
    head = f"{significant(found['latency_ms'])} ms{when}, {found['request']}"
    return f"{head}: {found['text']}   ({parts} ms)"


def took(sample: Sample) -> str:
    """`312 ms`."""
    return f"{ms(latency(sample))} ms"
