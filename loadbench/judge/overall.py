"""The repeats of a series as one: the median of each figure, the worst of each check and grade.

It is what a list shows of a series, and what its exit code looks at. Nothing is judged by it:
comparisons take every repeat by itself.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from loadbench.trust import GRADES

# from the worst; what is not known here is as bad as it gets
_GRADES = GRADES[::-1]
_STATES = ("failed", "no data", "passed")
_ENDS = ("failed", "killed", "stopped", "done")
_COUNTS = ("seconds", "asked", "done", "missed")
_TIMES = ("rate", "latency_ms")
MEDIAN = "it is a median of repeats, which tell how much it moves"  # why it has no band


def overall(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Of the summaries in the snapshots of a series, as plain values with the names of a summary;
    None if there are none. A percentile that is among the failed is larger than any number, so
    that it is one (None) where it is in half of the repeats. One that was broken off before
    anything was asked is not in the medians."""
    if not summaries:
        return None
    measured = [one for one in summaries if one["asked"]] or summaries
    first = measured[0]
    found: dict[str, Any] = {name: median(one[name] for one in measured) for name in _COUNTS}
    for name in _TIMES:
        found[name] = {key: middle([one[name].get(key) for one in measured]) for key in first[name]}
    percentiles = [name for name in first["latency_ms"] if name.startswith("p")]
    found["no_bands"] = {"latency_ms": dict.fromkeys(percentiles, MEDIAN)}
    found["limit_ms"] = first.get("limit_ms")
    found["checks"] = _checks(summaries)
    found["trust"] = _worst([str(one.get("trust")) for one in summaries], _GRADES)
    found["reason"] = _worst([str(one.get("reason")) for one in summaries], _ENDS)
    found["notes"] = _notes(summaries)
    return found


def middle(values: Sequence[float | None]) -> float | None:
    """The median of values of which None is larger than any number."""
    if not values:
        return None
    ordered = sorted(values, key=lambda value: (value is None, value or 0.0))
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return None if low is None or high is None else (low + high) / 2


def _worst(found: Sequence[str], ranks: tuple[str, ...]) -> str:
    return min(found, key=lambda one: ranks.index(one) if one in ranks else -1)


def _checks(summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each check as in the repeat in which it went worst: all have to pass, and to be shown. Where
    it went the same way in all of them its value is the median of theirs, like any other figure."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for one in summaries:
        for check in one["checks"]:
            by_name.setdefault(check["name"], []).append(check)
    return list(map(_check, by_name.values()))


def _check(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    worst = min(
        found,
        key=lambda check: (_STATES.index(check["state"]), check.get("certainty") == "shown"),
    )
    if any(check["state"] != worst["state"] for check in found):
        return worst
    return {**worst, "value": middle([check.get("value") for check in found])}


def _notes(summaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every doubt once, with how many repeats have it where not all do."""
    codes: dict[str, list[dict[str, Any]]] = {}
    for one in summaries:
        for note in {note["code"]: note for note in one["notes"]}.values():
            codes.setdefault(note["code"], []).append(note)
    total = len(summaries)
    return [
        {**same[0], "text": f"{same[0]['text']} ({len(same)} of {total} repeats)"}
        if len(same) < total
        else same[0]
        for same in codes.values()
    ]
