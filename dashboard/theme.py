"""Textual's themes made of the palettes of reports, and styles of their colours.

The bands p50 → p95 → p99 get brighter on dark (darker on light), so they stay apart in grey, in
print and for any colour vision. Nothing is told by colour alone: each use has a sign or a word too.
"""

from functools import lru_cache

from rich.style import Style
from textual.theme import BUILTIN_THEMES, Theme

from loadbench.report.colours import ANSI, DARK, LIGHT
from loadbench.report.colours import Palette as Palette

DARK_THEME = Theme(
    name="loadbench",
    primary=DARK.p95, secondary=DARK.p50, accent=DARK.limit, warning=DARK.p99,
    error=DARK.error, success=DARK.ok, foreground=DARK.text,
    background="#0f1216", surface="#14181e", panel="#1b2028", dark=True,
    variables={"footer-key-foreground": DARK.p95, "quiet": DARK.quiet, "frame": "#4a505a",
               "chosen": DARK.p95},
)  # fmt: skip
LIGHT_THEME = Theme(
    name="loadbench-light",
    primary=LIGHT.p95, secondary=LIGHT.p95, accent=LIGHT.limit, warning=LIGHT.p99,
    error=LIGHT.error, success=LIGHT.ok, foreground=LIGHT.text,
    background="#ffffff", surface="#f5f6f8", panel="#e9ecf0", dark=False,
    variables={"footer-key-foreground": "#1b5f93", "quiet": LIGHT.quiet, "frame": "#a9b0ba",
               "chosen": LIGHT.p95},
)  # fmt: skip
THEMES = (DARK_THEME, LIGHT_THEME)
SIXTEEN = "ansi-dark"  # Textual's own: the terminal's 16 colours, nothing else


def palette(theme: str) -> Palette:
    """The palette that goes with a theme of any name."""
    if theme == LIGHT_THEME.name:
        return LIGHT
    known = BUILTIN_THEMES.get(theme)
    if known is None:
        return DARK
    if known.ansi:
        return ANSI
    return DARK if known.dark else LIGHT


@lru_cache(maxsize=512)
def ink(colour: str | None = None, on: str | None = None, bold: bool = False) -> Style:
    """A style by colour names; without `on` the widget's own background stays."""
    return Style(color=colour, bgcolor=on, bold=bold or None)


def markup(colour: str) -> str:
    """The colour as Textual's markup in border titles names it."""
    return colour if colour.startswith("#") else f"ansi_{colour}"


def legend(sign: str, colour: str, name: str, value: str = "") -> str:
    """Markup of a series in a border: its sign in its colour, its name, its value."""
    words = " ".join(word for word in (name, f"[b]{value}[/b]" if value else "") if word)
    return f"[{markup(colour)}]{sign}[/] {words}"
