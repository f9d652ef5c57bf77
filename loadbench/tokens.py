"""What a run came to whose answers come token by token: when, how fast, and how many."""

from typing import Any

from loadbench.account import Account
from loadbench.assurance import QUANTILES
from loadbench.judge.bands import barren
from loadbench.model import Window
from loadbench.streams import TIMES
from loadbench.times import times


def tokens(total: Account) -> dict[str, Any] | None:
    """`tokens` of a summary; None for answers that come as a whole."""
    whole = total.whole
    stream = whole.stream
    if stream is None:
        return None
    lost = {"first_token": barren(whole)}
    return {
        **{f"{name}_ms": times(of(stream), lost.get(name, 0)) for name, of in TIMES.items()},
        "per_s": per_s(total),
        "generated": stream.generated,
        "counted": stream.tokens if stream.told else None,
        "prompt": stream.prompt or None,
        "pieces": stream.pieces,
    }


def per_s(total: Account) -> float | None:
    """Tokens a second while requests fell due."""
    stream = total.load.stream if total.load else None
    return stream.generated / total.seconds if stream and total.seconds else None


def quantile(name: str, whole: Window) -> float | None:
    """`first_token_p99` and the like, in ns; infinite among the answers that never began."""
    what, _, percentile = name.rpartition("_")
    if whole.stream is None:
        return None
    lost = barren(whole) if what == "first_token" else 0
    return TIMES[what](whole.stream).quantile_of_asked(QUANTILES[percentile], lost)
