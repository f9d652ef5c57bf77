"""An alert that begins to fire makes itself heard: by the bell, and by a notification of the
desktop where the terminal knows one.

Terminals take such notifications as escape sequences: OSC 9 (iTerm2, kitty) or OSC 777 (foot,
ghostty, WezTerm). Others could print them, so nothing is sent to one that is not known to take
them, unless the user says so. tmux lets them through if `allow-passthrough` is on.
"""

import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from loadbench.alerts import describe, show
from loadbench.episodes import Spell
from loadbench.printable import printable
from loadbench.view import View

if TYPE_CHECKING:
    from dashboard.app import Dashboard

Way = Literal["auto", "osc9", "osc777", "off"]
_PROGRAMS: dict[str, Way] = {"iTerm.app": "osc9", "WezTerm": "osc777", "ghostty": "osc777"}
_TERMINALS: dict[str, Way] = {
    "xterm-kitty": "osc9", "foot": "osc777", "foot-extra": "osc777", "xterm-ghostty": "osc777",
}  # fmt: skip
_LONGEST = 200  # characters


def ring(app: "Dashboard", view: View) -> None:
    """Tells of what has begun to fire in this view, once; a replay is silent."""
    fired = news(app.run_view, view)
    if not fired or app.reader.play:
        return
    app.bell()
    how, tmux = way(app.notify_by, os.environ), "TMUX" in os.environ
    text = notification(fired, app.folder.name, how, tmux)
    if text and app._driver is not None:
        app._driver.write(text)


def news(before: View, after: View) -> list[Spell]:
    """What has begun to fire between two views of a run; nothing of what was over when it was
    first looked at."""
    if before.start is None or after.end is not None:
        return []
    known = {(spell.rule.name, spell.began) for spell in before.spells if spell.fired is not None}
    return [
        spell
        for spell in after.spells
        if spell.firing and (spell.rule.name, spell.began) not in known
    ]


def way(chosen: Way, environment: Mapping[str, str]) -> Way:
    """How this terminal takes a notification; `off` if it is not known to."""
    if chosen != "auto":
        return chosen
    if "TMUX" in environment or environment.get("TERM", "").startswith(("screen", "tmux")):
        return "off"  # what is behind it is not known
    by_program = _PROGRAMS.get(environment.get("TERM_PROGRAM", ""))
    return by_program or _TERMINALS.get(environment.get("TERM", ""), "off")


def notification(spells: list[Spell], run: str, how: Way, tmux: bool) -> str:
    """The escape sequence that tells of what fires; "" if there is none."""
    if not spells or how in ("off", "auto"):
        return ""
    told = "; ".join(map(_words, spells))
    text, title = (printable(part)[:_LONGEST] for part in (told, f"loadbench {run}"))
    if how == "osc777":
        text = f"\x1b]777;notify;{title.replace(';', ',')};▲ {text}\x07"
    else:
        text = f"\x1b]9;{title}: ▲ {text}\x07"
    return f"\x1bPtmux;{text.replace(chr(27), chr(27) * 2)}\x1b\\" if tmux else text


def _words(spell: Spell) -> str:
    """As the screen has it; one without a value is a percentile among the failed."""
    value = math.inf if spell.value is None else spell.value
    return f"{describe(spell.rule)} ({show(spell.rule, value)})"
