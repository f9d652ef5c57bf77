"""The base of every live widget: a Scene in, rows of cells out.

Rows are drawn when first asked for after a change and kept until the next one, so that a redraw
for another reason (an overlay closing, say) costs nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.content import Content
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from dashboard.scene import Scene
from dashboard.theme import Palette, palette

Cells = list[Segment]
_CORNERS = 6  # of a border's width that no text can take


@dataclass
class Inspect(Message):
    """Somebody clicked at this second of the run."""

    second: int


class Board(Widget):
    """Draws `draw(scene, width, height)`; fewer rows are filled up, more are cut off."""

    dims = True  # while nothing comes

    def __init__(self, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.scene: Scene | None = None
        self._strips: list[Strip] | None = None
        self._drawn_for: tuple[int, int, str] | None = None

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
        self._strips = None

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
    return Content.from_markup(markup).cell_length
