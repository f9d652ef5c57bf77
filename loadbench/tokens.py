"""What a run came to whose answers come token by token: when, how fast, and how many."""

from typing import Any

from loadbench import units
from loadbench.account import Account
from loadbench.assurance import QUANTILES
from loadbench.judge.bands import barren
from loadbench.model import Note, Window
from loadbench.streams import TIMES
from loadbench.times import times

_TOGETHER = 0.05  # of the tokens: fewer come so by chance on any network


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


def together(total: Account) -> Note | None:
    """What is to be known of gaps between tokens where many came at the same time."""
    stream = total.whole.stream
    if stream is None or stream.together < max(1.0, _TOGETHER * stream.gaps.count):
        return None
    text = (
        f"{units.percent(stream.together / stream.gaps.count)} % of the tokens after a first came"
        " together with the one before, in one read: no time is between those"
        f" ({units.ms(stream.gaps.quantile(0.0))} ms stands for none)"
    )
    hint = (
        "the server sends several at once, the way here gathers them, or this process came late to"
        " them; see the pace"
    )
    return Note("tokens-together", text, hint)


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
