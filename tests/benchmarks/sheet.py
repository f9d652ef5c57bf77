"""Cells on an image, as a terminal draws them.

Blocks, lines and shades are drawn as shapes, so that neither a font nor an SVG renderer can move
them; letters come from DejaVu Sans Mono (Debian: fonts-dejavu-core). Left to others: where the
cells come from.
"""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.color import Color
from rich.segment import Segment
from rich.style import Style

WIDE, HIGH, POINTS = 9, 19, 15
PAPER, INK = (15, 18, 22), (215, 218, 224)
Rgb = tuple[int, int, int]

# which of left, right, up, down a line character joins
LINES = {
    "─": "lr", "│": "ud", "┌": "rd", "┐": "ld", "└": "ru", "┘": "lu", "├": "udr", "┤": "udl",
    "┬": "lrd", "┴": "lru", "┼": "lrud", "╭": "rd", "╮": "ld", "╰": "ru", "╯": "lu", "╴": "l",
    "╵": "u", "╶": "r", "╷": "d", "━": "lr", "┃": "ud",
}  # fmt: skip
SHADES = {"░": 0.25, "▒": 0.5, "▓": 0.75}


def rgb(colour: Color | None, default: Rgb) -> Rgb:
    if colour is None or colour.is_default:
        return default
    red, green, blue = colour.get_truecolor()
    return red, green, blue


def blend(one: Rgb, other: Rgb, share: float) -> Rgb:
    mixed = [round(a + (b - a) * share) for a, b in zip(one, other, strict=True)]
    return mixed[0], mixed[1], mixed[2]


class Sheet:
    """Cells on an image."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width * WIDE, height * HIGH), PAPER)
        self.pen = ImageDraw.Draw(self.image)
        self.plain = ImageFont.truetype("DejaVuSansMono.ttf", POINTS)
        self.bold = ImageFont.truetype("DejaVuSansMono-Bold.ttf", POINTS)

    def cell(self, column: int, row: int, char: str, style: Style) -> None:
        ink, paper = rgb(style.color, INK), rgb(style.bgcolor, PAPER)
        if style.reverse:
            ink, paper = paper, ink
        if style.dim:
            ink = blend(ink, paper, 0.5)
        x, y = column * WIDE, row * HIGH
        self.pen.rectangle((x, y, x + WIDE - 1, y + HIGH - 1), fill=paper)
        code = ord(char)
        if 0x2581 <= code <= 0x2588:
            top = y + round(HIGH * (1 - (code - 0x2580) / 8))
            self.pen.rectangle((x, top, x + WIDE - 1, y + HIGH - 1), fill=ink)
        elif 0x2589 <= code <= 0x258F:
            right = x + round(WIDE * (0x2590 - code) / 8) - 1
            self.pen.rectangle((x, y, max(x, right), y + HIGH - 1), fill=ink)
        elif char in SHADES:
            shade = blend(paper, ink, SHADES[char])
            self.pen.rectangle((x, y, x + WIDE - 1, y + HIGH - 1), fill=shade)
        elif char in LINES or char in "┄┊▏▕":
            self._line(x, y, char, ink)
        elif char != " ":
            self.pen.text((x, y + 1), char, font=self.bold if style.bold else self.plain, fill=ink)

    def _line(self, x: int, y: int, char: str, ink: Rgb) -> None:
        middle, centre = x + WIDE // 2, y + HIGH // 2
        right, bottom = x + WIDE - 1, y + HIGH - 1
        if char == "┄":
            for left in range(x, x + WIDE, 4):
                self.pen.line((left, centre, min(left + 1, right), centre), fill=ink)
        elif char == "┊":
            for top in range(y + 1, y + HIGH, 5):
                self.pen.line((middle, top, middle, min(top + 2, bottom)), fill=ink)
        elif char in "▏▕":
            edge = x if char == "▏" else right
            self.pen.line((edge, y, edge, bottom), fill=ink)
        else:
            thick = 1 if char in "━┃" else 0
            ends = {
                "l": (x, centre), "r": (right, centre), "u": (middle, y), "d": (middle, bottom),
            }  # fmt: skip
            for side in LINES[char]:
                (a, c), (b, d) = sorted((ends[side], (middle, centre)))
                c, d = min(c, d), max(c, d)
                self.pen.rectangle((a, c, b + (a == b) * thick, d + (c == d) * thick), fill=ink)


def draw(lines: Iterable[Iterable[Segment]], size: tuple[int, int], path: Path) -> None:
    """Lines of segments as a PNG."""
    sheet = Sheet(*size)
    for row, line in enumerate(lines):
        column = 0
        for segment in line:
            for char in segment.text:
                sheet.cell(column, row, char, segment.style or Style())
                column += 1
    sheet.image.save(path, optimize=True)
