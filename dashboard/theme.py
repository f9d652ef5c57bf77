"""Textual's themes made of the palettes of reports, and styles of their colours.

The bands p50 → p95 → p99 get brighter on dark (darker on light), so they stay apart in grey, in
print and for any colour vision. Nothing is told by colour alone: each use has a sign or a word too.
"""

from dataclasses import astuple
from functools import lru_cache, partial

from rich.style import Style
from textual.color import Color
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
               "chosen": LIGHT.p95, "block-cursor-background": "#1b5f93"},
)  # fmt: skip
GREY = Palette(
    p50="#555555", p95="#aaaaaa", p99="#ffffff", area="#aaaaaa", asked="#ffffff",
    limit="#555555", ok="#ffffff", error="#ffffff", quiet="#aaaaaa", text="#ffffff",
)  # fmt: skip
GREY_THEME = Theme(
    name="loadbench-grey",  # of 16 colours the three that are none, each of them another band
    primary=GREY.p95, secondary=GREY.p50, accent=GREY.p95, warning=GREY.p99,
    error=GREY.error, success=GREY.ok, foreground=GREY.text,
    background="#000000", surface="#000000", panel="#000000", dark=True,
    variables={"footer-key-foreground": GREY.text, "quiet": GREY.quiet, "frame": "#555555",
               "chosen": GREY.text},
)  # fmt: skip
THEMES = (DARK_THEME, LIGHT_THEME, GREY_THEME)
SIXTEEN = "ansi-dark"  # Textual's own: the terminal's 16 colours, nothing else


def fitting(colours: str | None, no_color: bool) -> str:
    """The theme for a terminal whose colours Rich calls so. The 16 of a terminal cannot be made
    grey, so SIXTEEN is not for who wants no colours."""
    if colours not in ("standard", "windows"):
        return DARK_THEME.name
    return GREY_THEME.name if no_color else SIXTEEN


def palette(theme: str) -> Palette:
    """The palette that goes with a theme of any name."""
    if theme in (LIGHT_THEME.name, GREY_THEME.name):
        return LIGHT if theme == LIGHT_THEME.name else GREY
    known = BUILTIN_THEMES.get(theme)
    if known is None:
        return DARK
    if known.ansi:
        return ANSI
    return DARK if known.dark else LIGHT


@lru_cache(maxsize=8)
def faded(theme: str, ground: Color) -> Palette:
    """Half way to the ground, where there is a way: colours of a terminal's 16 stay."""
    found = palette(theme)
    return found if found is GREY else Palette(*map(partial(_half, ground), astuple(found)))


def _half(ground: Color, colour: str) -> str:
    return Color.parse(colour).blend(ground, 0.5, alpha=1).hex if colour[0] == "#" else colour


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
