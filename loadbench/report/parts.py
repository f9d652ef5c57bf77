"""What a model's batches are made of (plugins, stages), and what the response cache spared it."""

from collections.abc import Mapping

from loadbench.units import percent, significant


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
