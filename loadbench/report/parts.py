"""Where the time goes inside a target: that of the mean request, that of a batch in its plugins and
stages, and what the response cache spared."""

from collections.abc import Mapping
from typing import Any

from loadbench.streams import rest
from loadbench.summary import Summary
from loadbench.units import percent, significant


def mean_split(summary: Summary) -> dict[str, float]:
    """Where the time of the mean request goes, in ms: means add up, medians do not. Empty where the
    target does not tell."""
    server = summary.server
    if server is None:
        return {}
    mean = server.get("mean_ms", summary.service_ms["mean"])  # logs of old have none
    if mean is None:
        return {}
    parts: dict[str, float] = {}
    asked = _share_asked(server)
    for name, key in (
        ("queue", "queue_ms"),
        ("batch wait", "batch_wait_ms"),
        ("compute", "compute_ms"),
    ):
        found = server[key]
        if found and found["mean"] is not None:
            parts[name] = found["mean"] * asked
    left = max(0.0, mean - sum(parts.values()))
    return {**parts, rest(parts, bool(summary.tokens)): left} if parts else {}


def compute_split(summary: Summary) -> dict[str, float]:
    """What the compute of the mean request is made of, in ms; empty where it is not told."""
    server = summary.server or {}
    parts: dict[str, float] = server.get("compute_parts_ms") or {}  # logs of old have none
    return {name: value * _share_asked(server) for name, value in parts.items()}


def _share_asked(server: dict[str, Any]) -> float:
    """Share of the requests that the model was asked, of a summary's server: the cache's took
    none of its time. Its hits may be told where its requests are not."""
    share: float = 1 - server["cached"] / max(1, server["requests"] or 0)
    return max(0.0, share)


def made_of(
    parts_ms: Mapping[str, float], cached: int, requests: int | None, misses: int = 0
) -> str:
    """`43 % from the cache · preprocess prep:normalise 1.20 ms, model 3.40 ms a batch`: the share
    of good answers (0 where all looked there in vain), and the mean batch; empty if there is
    neither. A server may have counted hits whose answers it counts in the next window."""
    words = []
    if requests and (cached or misses):
        words.append(f"{percent(min(1.0, cached / requests))} % from the cache")
    if parts_ms:
        each = [f"{name} {significant(value)} ms" for name, value in parts_ms.items()]
        words.append(f"{', '.join(each)} a batch")
    return " · ".join(words)
