"""Colours: a palette for each ground, the same on screens and on pages.

The bands p50 → p95 → p99 get brighter on dark (darker on light), so they stay apart in grey, in
print and for any colour vision. Nothing is told by colour alone: each use has a sign or a word too.
"""

from dataclasses import dataclass


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
