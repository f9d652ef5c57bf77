"""Colours: three palettes and Textual's themes made of them.

The bands p50 → p95 → p99 get brighter on dark (darker on light), so they stay apart in grey, in
print and for any colour vision. Nothing is told by colour alone: each use has a sign or a word too.
"""

from dataclasses import dataclass
from functools import lru_cache

from rich.style import Style
from textual.theme import BUILTIN_THEMES, Theme


@dataclass(frozen=True, slots=True)
class Palette:
    """One colour for each use."""

    p50: str
    p95: str
    p99: str
    area: str  # a single filled series: done, GPU
    asked: str
    limit: str  # limit line, marks
    ok: str
    error: str
    quiet: str
    text: str


DARK = Palette(
    p50="#2a6fb0", p95="#56b4e9", p99="#ffc857", area="#4a9fd8", asked="#f0e442",
    limit="#cc79a7", ok="#2fb58c", error="#ff6f3c", quiet="#8a8f98", text="#d7dae0",
)  # fmt: skip
LIGHT = Palette(
    p50="#9ecae1", p95="#3182bd", p99="#8a4b00", area="#5b9fd0", asked="#5c1a6b",
    limit="#a3326f", ok="#0b6e4f", error="#b93a06", quiet="#5f6672", text="#1d2127",
)  # fmt: skip
ANSI = Palette(
    p50="blue", p95="cyan", p99="bright_yellow", area="cyan", asked="bright_yellow",
    limit="magenta", ok="green", error="bright_red", quiet="bright_black", text="default",
)  # fmt: skip

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
