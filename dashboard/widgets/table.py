"""Tables as plain text: columns that fit by priority, never a scrollbar.

Textual's DataTable is for rows one moves through; a table that only shows is cheaper as cells.
"""

from collections.abc import Sequence
from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style

from dashboard.widgets.board import Cells

_GAP = 2


class Column(NamedTuple):
    """`rank` decides who stays when it gets narrow: 0 always, the highest goes first."""

    title: str
    rank: int = 0
    left: bool = False


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[str]],
    width: int,
    styles: tuple[Style, Style, Style],
) -> list[Cells]:
    """Header and rows in `width` cells. `styles`: header, row, the last row if it is a sum."""
    widths = [
        max(len(column.title), *(len(row[at]) for row in rows), 0)
        if rows
        else len(column.title)
        for at, column in enumerate(columns)
    ]  # fmt: skip
    shown = _fitting(columns, widths, width - 2)
    over = sum(widths[at] + _GAP for at in shown) - _GAP - (width - 2)
    if over > 0:
        widths[shown[0]] = max(1, widths[shown[0]] - over)
    head, plain, total = styles
    titles = [column.title for column in columns]
    lines = [_row(titles, columns, widths, shown, head)]
    for number, row in enumerate(rows):
        style = total if number == len(rows) - 1 else plain
        lines.append(_row(row, columns, widths, shown, style))
    return lines


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    shown = list(range(len(columns)))
    while sum(widths[at] + _GAP for at in shown) - _GAP > width:
        droppable = [at for at in shown if columns[at].rank]
        if not droppable:
            break
        shown.remove(max(droppable, key=lambda at: (columns[at].rank, at)))
    return shown


def _row(
    texts: Sequence[str],
    columns: Sequence[Column],
    widths: Sequence[int],
    shown: Sequence[int],
    style: Style,
) -> Cells:
    cells = []
    for at in shown:
        text, width = texts[at], widths[at]
        if len(text) > width:
            text = f"{text[: width - 1]}…"
        cells.append(text.ljust(width) if columns[at].left else text.rjust(width))
    return [Segment(" " + (" " * _GAP).join(cells), style)]
