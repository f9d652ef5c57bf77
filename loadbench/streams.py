"""What answers that come piece by piece tell: when their tokens came, and how many they were."""

from collections.abc import Callable, Container, Iterable

from loadbench.histogram import EMPTY, Histogram
from loadbench.value import Value

# What the server's parts leave of a request: an answer that comes piece by piece is on its way for
# as long as the model makes it, of which servers tell little or nothing. Of a server that tells no
# queue, or no compute, it may be just that.
NETWORK, STREAMED, UNTOLD = "network", "network and stream", "untold"
RESTS = (NETWORK, STREAMED, UNTOLD)


def rest(parts: Container[str], streamed: bool) -> str:
    """What is left beside these parts of the server's is called so."""
    if "queue" not in parts or "compute" not in parts:
        return UNTOLD
    return STREAMED if streamed else NETWORK


class Stream(Value, frozen=True):
    """Of the answers of one name in one window, each event in the second in which it happened.

    A piece is what the server sent as one event with text in it; most servers send each token as
    one. `tokens` are as the server counted them, of answers that are done."""

    first: Histogram = EMPTY  # first piece − due
    gaps: Histogram = EMPTY  # one piece − the one before it in the same answer
    pace: Histogram = EMPTY  # of each answer done: (last piece − first) / (tokens − 1)
    pieces: int = 0
    tokens: int = 0
    prompt: int = 0  # tokens of what was asked
    told: int = 0  # answers done of which the server told how many tokens they have
    counted: int = 0  # pieces of those
    barren: int = 0  # answers that failed, or ended, before their first piece

    @property
    def together(self) -> int:
        """Pieces that came with the one before them, in one read: two reads are never so near each
        other as a histogram's first bucket is wide."""
        return self.gaps.count - self.gaps.over(0)

    @property
    def generated(self) -> int:
        """Tokens of a whole run: as they came, a piece each, unless the server counted more of
        them. A short window's are those of `came`."""
        return max(self.pieces, self.tokens)

    def came(self, tokens: int, counted: int) -> float:
        """Tokens of a short window out of a run of which so many tokens were counted, in so many
        pieces. A server tells its count when an answer ends, seconds after most of it came."""
        return self.pieces * max(1.0, tokens / counted if counted else 1.0) or self.tokens


def merged(
    parts: Iterable[Stream | None],
    join: Callable[[Iterable[Histogram]], Histogram] = Histogram.merged,
) -> Stream | None:
    """All of them as one; None if there is none."""
    found = [part for part in parts if part is not None]
    if len(found) < 2:
        return found[0] if found else None
    return Stream(
        first=join(part.first for part in found),
        gaps=join(part.gaps for part in found),
        pace=join(part.pace for part in found),
        pieces=sum(part.pieces for part in found),
        tokens=sum(part.tokens for part in found),
        prompt=sum(part.prompt for part in found),
        told=sum(part.told for part in found),
        counted=sum(part.counted for part in found),
        barren=sum(part.barren for part in found),
    )


# what of it is told in percentiles, by the names that checks and summaries give it
TIMES: dict[str, Callable[[Stream], Histogram]] = {
    "first_token": lambda stream: stream.first,
    "token_gap": lambda stream: stream.gaps,
    "token_pace": lambda stream: stream.pace,
}
PERCENTILES = ("p50", "p90", "p95", "p99")
CHECKS = tuple(f"{name}_{percentile}" for name in TIMES for percentile in PERCENTILES)
