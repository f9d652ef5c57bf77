"""How good the batcher was, in words: one sentence for summaries and screens, a page on its own."""

from collections.abc import Mapping
from typing import Any

from loadbench import units
from loadbench.optimum import Costs
from loadbench.units import count, percent


def of_the_best(found: Mapping[str, Any], room: int = 1000) -> str:
    """`98.9 % of the best possible on this very trace; 0.7 % lost to scheduling, 0.4 % to host
    time`, from the member `optimum` of a summary; shorter where there is no room for so much."""
    if found["share"] is None:
        slo = units.significant(found["slo_ms"])
        return f"nobody could have served a request within {slo} ms"
    least, most = ("", "") if found["exact"] else ("at least ", "at most ")
    short = f"{least}{_share(found['share'])} % of the best possible"
    scheduling, host = _share(found["scheduling"]), _share(found["host"])
    trace = f"{short} on this very trace"
    if found["share"] == 1:
        texts = [trace]
    else:
        texts = [
            f"{trace}; {most}{scheduling} % lost to scheduling, {host} % to host time",
            f"{short}; lost: {most}{scheduling} % to scheduling, {host} % to host time",
        ]
    return next((text for text in texts if len(text) <= room), short)


def _share(share: float) -> str:
    return percent(share) if share < 0.001 or share > 0.995 else f"{share * 100:.1f}"


def optimum_page(run: str, found: Mapping[str, Any], costs: Costs) -> str:
    """The sentence, the counts behind it, the times it rests on, and what qualifies it."""
    slo = units.significant(found["slo_ms"])
    lines = [f"loadbench {run}   {of_the_best(found)}", ""]
    looked = "" if found["arrivals"] == found["of"] else f"   (of {count(found['of'])} that came)"
    for name, number, hint in (
        ("arrivals", found["arrivals"], looked),
        ("best possible", found["best"], f"   within {slo} ms, knowing them all beforehand"),
        ("with host time", found["hosted"], "   the same with what the engine adds to the model"),
        ("reached", found["reached"], "   what this run served in time"),
    ):
        lines.append(f"  {name:<15} {count(number):>11}{hint}")
    lines += ["", f"  {'rows a batch':<15} {'model ms':>11} {'host ms':>9} {'answer ms':>10}"]
    largest = len(costs.model) - 1
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power < largest]
    for rows in (*sizes, largest):
        model, host, answer = (units.ms(int(times[rows])) for times in costs)
        lines.append(f"  {rows:<15} {model:>11} {host:>9} {answer:>10}")
    if found["notes"]:
        lines.append("")
    for note in found["notes"]:
        lines.append(f"  · {note['text']}" + (f": {note['hint']}" if note.get("hint") else ""))
    return "\n".join(lines)
