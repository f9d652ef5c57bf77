"""The base of every live widget: a Scene in, rows of cells out.

Rows are drawn when first asked for after a change and kept until the next one, so that a redraw
for another reason (an overlay closing, say) costs nothing. What stands around them, border and
padding, is Textual's, but kept as long as it stays the same: to make it anew for each row takes as
long as what is drawn within.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from dashboard.scene import Scene
from dashboard.theme import Palette, palette

Cells = list[Segment]
NEVER = "nothing was recorded"  # of a run that is over
_TAG = re.compile(r"\[[^\[\]]*\]")
_CORNERS = 6  # of a border's width that no text can take


@dataclass
class Inspect(Message):
    """Somebody clicked at this second of the run."""

    second: int


class Board(Widget):
    """Draws `draw(scene, width, height)`; fewer rows are filled up, more are cut off."""

    dims = True  # while nothing comes
    large = ""  # the id of what enter makes large instead of it
    reading: Sequence[str] = ()  # how to read it: paragraphs of the help

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.scene: Scene | None = None
        self._strips: list[Strip] | None = None
        self._drawn_for: tuple[int, int, str] | None = None
        self._edges: dict[int, tuple[Content | None, Strip]] = {}  # of the border, by their rows
        self._sides: tuple[Cells, Cells] = ([], [])  # of the rows within
        self._framed_for: object = None

    @property
    def ink(self) -> Palette:
        return palette(self.app.theme)

    def show(self, scene: Scene) -> None:
        """Takes what to draw next."""
        self.scene = scene
        self._strips = None
        self.titles(scene)
        self.refresh()

    def on_resize(self) -> None:
        """Some titles say more where there is more room."""
        if self.scene is not None:
            self.titles(self.scene)

    def titles(self, scene: Scene) -> None:
        """Sets the border's texts; nothing by default."""

    def head(self, *titles: str, below: Sequence[str] = ("",)) -> None:
        """The texts in the border, markup: of each the first that fits, so that none is cut.

        They are set only when they are others: each change lays the border out anew."""
        room = self.outer_size.width - _CORNERS
        title, under = _fitting(titles, room), _fitting(below, room)
        if self.border_title != title:
            self.border_title = title
        if self.border_subtitle != under:
            self.border_subtitle = under

    def draw(self, scene: Scene, width: int, height: int) -> Iterable[Cells | Strip]:
        """The rows, top to bottom."""
        raise NotImplementedError

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._strips = self._framed_for = None

    def render_lines(self, crop: Region) -> list[Strip]:
        width, height = self.outer_size
        if crop.x or crop.width != width or self.opacity < 1:
            return super().render_lines(crop)
        space = self.styles.gutter
        within = range(space.top, height - space.bottom)
        state = (width, within, self.app.theme)
        if state != self._framed_for:
            self._framed_for, self._edges = state, {}
            self._sides = self._made_sides(width, within)
        filters, ground = self.get_line_filters(), self.background_colors[1]
        left, right = self._sides
        rows = []
        for y in crop.line_range:
            if y not in within:
                rows.append(self._edge(y, width))
                continue
            row = self.render_line(y - space.top)
            for one in filters:
                row = row.apply_filter(one, ground)
            rows.append(Strip([*left, *row, *right], width) if left or right else row)
        return rows

    def _made_sides(self, width: int, within: range) -> tuple[Cells, Cells]:
        space = self.styles.gutter
        if not within or not (space.left or space.right):
            return [], []
        row = super().render_lines(Region(0, within[0], width, 1))[0]
        return list(row.crop(0, space.left)), list(row.crop(width - space.right, width))

    def _edge(self, y: int, width: int) -> Strip:
        """A row of the border, or of the padding below it."""
        title = self._border_title if y == 0 else self._border_subtitle
        known = self._edges.get(y)
        if known is None or known[0] is not title:
            self._edges[y] = known = (title, super().render_lines(Region(0, y, width, 1))[0])
        return known[1]

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        state = (width, height, self.app.theme)
        if self._strips is None or state != self._drawn_for:
            self._drawn_for = state
            self._strips = self._paint(width, height)
        return self._strips[y] if y < len(self._strips) else Strip.blank(width, self.rich_style)

    def _paint(self, width: int, height: int) -> list[Strip]:
        if self.scene is None or width < 1 or height < 1:
            return []
        base = self.rich_style
        if self.scene.stale and self.dims:
            base += Style(dim=True)
        rows = islice(self.draw(self.scene, width, height), height)
        return [_strip(row, width, base) for row in rows]


def _strip(row: Cells | Strip, width: int, base: Style) -> Strip:
    """A row in its style and width: one strip, not one for each step, since a picture has
    hundreds."""
    room, cells = width, list[Segment]()
    for text, style, control in row:
        cells.append(Segment(text, base + style, control))
        room -= cell_len(text)
    if room > 0:
        cells.append(Segment(" " * room, base))
    strip = Strip(cells, width - min(room, 0))
    return strip if room >= 0 else strip.crop(0, width)


def _fitting(texts: Sequence[str], room: int) -> str:
    return next((text for text in texts if _width(text) <= room), texts[-1])


@lru_cache(256)
def _width(markup: str) -> int:
    if "\\" in markup:  # brackets that are meant
        return Content.from_markup(markup).cell_length
    return cell_len(_TAG.sub("", markup))  # many times as fast: titles are others in each picture
