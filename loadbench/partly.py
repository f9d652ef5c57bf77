"""Whether a server's figures are of just what was sent to it: it may have stopped to tell them, or
have counted what others asked, too."""

from collections.abc import Iterable, Sequence

from loadbench import units
from loadbench.account import Account
from loadbench.model import Note, Window
from loadbench.serverside import TIMING

_MEANS = ("queue", "compute")
_MORE = 1.5  # times as many as were sent
_LOOKS = 2  # a second: whoever looks whether the server is up may be counted


def partly(total: Account) -> Iterable[Note]:
    """What is to be known of the server's figures besides."""
    server, windows = total.whole.server, (*total.steady, *total.rest)
    if server is None or server.source == TIMING:  # that is of some answers anyway
        return
    named = ["requests", *_MEANS]
    told = [name for name in named if getattr(server, name) is not None]
    lost = {name: gap for name in told if (gap := _lost(windows, name))}
    if lost:
        seconds = f"{max(lost.values())} of {sum(window.stage == 'load' for window in windows)}"
        yield Note(
            "inside-partly",
            f"the server's figures ({', '.join(lost)}) are missing for {seconds} seconds: they are"
            " of the others alone",
            "it told nothing then, nor later what it had done",
        )
    whole = total.whole
    sent = whole.sent + whole.tail_done + whole.tail_failed
    if (server.requests or 0) > _MORE * sent + _LOOKS * total.seconds:
        counted = units.count(server.requests)
        yield Note(
            "counted-more",
            f"the server counted {counted} requests, and {units.count(sent)} were sent to it: its"
            " figures are of all that it counted",
            "does somebody else ask it, or is the page that of more than this target?",
        )


def _lost(windows: Sequence[Window], name: str) -> int:
    """The seconds of the load that are in none of the server's figures of that name. What a whole
    reading missed is in the next one, and so are counts; but a mean of which a part was gone is
    told anew from when all is there."""
    lost = missed = 0
    for window in windows:
        if window.server is not None and getattr(window.server, name) is not None:
            missed = 0
            continue
        missed += window.stage == "load" and window.done > 0
        if window.server is not None and name in _MEANS:
            lost, missed = lost + missed, 0
    return lost + missed
