"""Filled bands as cells: the drawing that charts and sparks share, without widgets.

Each column is a stretch of time, each cell has eight heights (▁▂▃▄▅▆▇█) with the band as ink and
the next outer one as paper, so that two edges fit into one cell; where more meet the outer edge
wins, because the tail must not be hidden.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style

from dashboard.theme import ink
from dashboard.widgets.axis import Scale, highest

EIGHTHS = " ▁▂▃▄▅▆▇█"


class Point(NamedTuple):
    """One column: band heights rising from the innermost, and the value of the line over them."""

    bands: tuple[float | None, ...]
    line: float | None = None


class Cell(NamedTuple):
    """One character with its two colours; None is the background."""

    char: str
    colour: str | None = None
    on: str | None = None


EMPTY = Cell(" ")
Grid = list[list[Cell]]


def draw_bands(
    points: Mapping[int, Point], colours: Sequence[str], width: int, scale: Scale
) -> Grid:
    """Bands in `width` columns; `points` has the columns that hold data, 0 is the leftmost."""
    height, names = scale.height, tuple(colours)
    blank = (EMPTY,) * height
    columns = [blank] * width
    for x, point in points.items():
        edges = tuple([None if one is None else scale.eighths(one) for one in point.bands])
        columns[x] = _column(edges, names, height)
    return [list(row) for row in zip(*columns, strict=True)] if width else [[]] * height


@lru_cache(4096)
def _column(
    heights: tuple[int | None, ...], colours: tuple[str, ...], height: int
) -> tuple[Cell, ...]:
    """The cells of one, the uppermost first. Columns that move keep theirs."""
    edges = [(edge, colour) for edge, colour in zip(heights, colours, strict=True)
             if edge is not None]  # fmt: skip
    cells = []
    for low in range(0, height * 8, 8):
        if edges and low + 8 < edges[0][0]:
            cells.append(_full(edges[0][1]))  # most cells
            continue
        inside = [(edge, colour) for edge, colour in edges if edge > low]
        cells.append(_cell(inside, low) if inside else EMPTY)
    return tuple(reversed(cells))


@lru_cache(64)
def _full(colour: str) -> Cell:
    return Cell(EIGHTHS[8], colour)


def _cell(inside: Sequence[tuple[int, str]], low: int) -> Cell:
    """The cell between `low` and `low` + 8 eighths; `inside` are the bands that reach into it."""
    outer, outer_colour = max(reversed(inside), key=lambda band: band[0])
    edge, colour = inside[0]
    if len(inside) > 1 and outer <= low + 8:
        return Cell(EIGHTHS[outer - low], outer_colour)
    above = next((band[1] for band in inside[1:] if band[0] > edge), None)
    return Cell(EIGHTHS[min(8, edge - low)], colour, above)


def draw_line(grid: Grid, points: Mapping[int, Point], colour: str, scale: Scale) -> None:
    """The line over the bands."""
    for x, point in points.items():
        row = scale.row(point.line) if point.line is not None else None
        if row is None:
            continue
        grid[row][x] = _over(grid[row][x], "─", colour)


def draw_limit(grid: Grid, row: int | None, colour: str) -> None:
    """The limit, behind the bands."""
    if row is not None:
        grid[row] = [Cell("┄", colour) if cell.char == " " else cell for cell in grid[row]]


def draw_moment(grid: Grid, x: int, sign: str, colour: str) -> None:
    """A moment: its sign on top and a thin line where nothing else is."""
    for row in grid:
        if row[x].char == " ":
            row[x] = Cell("┊", colour)
    if grid:
        grid[0][x] = _over(grid[0][x], sign, colour)


def _over(under: Cell, sign: str, colour: str) -> Cell:
    """The sign over a cell, whose band shines through as its paper; where that has the colour of
    the sign it is cut out, or nobody would see it."""
    paper = under.colour if under.char == "█" else under.on
    return Cell(sign, colour, None if paper == colour else paper)


def join(row: Sequence[Cell]) -> list[Segment]:
    """A row of cells as few segments."""
    found: list[Segment] = []
    text, last = "", row[0] if row else EMPTY
    for cell, run in groupby(row):
        if (cell.colour, cell.on) != (last.colour, last.on):
            found.append(Segment(text, ink(last.colour, last.on)))
            text, last = "", cell
        text += cell.char * len(tuple(run))
    found.append(Segment(text, ink(last.colour, last.on)))
    return found


class Spark(NamedTuple):
    """One row, from zero: 1 % of noise does not fill it."""

    values: Sequence[float | None]

    def cells(self, style: Style) -> Segment:
        scale = Scale(highest([self.values]) or 1.0, 1)
        return Segment(
            "".join(" " if v is None else EIGHTHS[max(1, scale.eighths(v))] for v in self.values),
            style,
        )
