"""What the widgets draw from: a run as it is known, and what of it is looked at.

`Sight` is what keys change (zoom, pause, place, scale); `scene` puts it together with a View into
one frozen Scene. All pure: the clock and the state of the runner come in as arguments. In the past
a scene is as the run was then: its alerts, and that it had not ended.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from msgspec import structs

from loadbench import units
from loadbench import view as views
from loadbench.model import Window
from loadbench.view import Bin, View

if TYPE_CHECKING:
    from dashboard.moments import Moment

ZOOMS = (60, 240, 900, 3600, 21_600)
STALE_S = 3.0


@dataclass(frozen=True, slots=True)
class Sight:
    """Where the user looks. `zoom` None grows with the run, up to its planned length; `at` None
    is now; `held` is the span at which a growing view was paused. `cursor` is the second that is
    looked at; `speed` above zero plays the run, and `played` says that it did before a pause."""

    zoom: int | None = None
    everything: bool = False
    at: int | None = None
    log: bool = False
    planned: int | None = None
    held: int | None = None
    cursor: int | None = None
    speed: int = 0
    played: bool = False
    moments: "tuple[Moment, ...]" = ()  # kept to be compared: A, B

    def zoomed(self, steps: int, newest: int) -> "Sight":
        """Closer (negative) or wider; after the widest step comes all of the run."""
        here = self.span(newest)
        if steps < 0:
            closer = [zoom for zoom in ZOOMS if zoom < here]
            zoom = closer[-1] if closer else ZOOMS[0]
            return replace(self, zoom=zoom, everything=False, held=None)
        wider = [zoom for zoom in ZOOMS if zoom > here]
        if self.everything or not wider:
            return replace(self, zoom=None, everything=True, held=newest)
        return replace(self, zoom=wider[0], everything=False, held=None)

    def paused(self, at: int, newest: int) -> "Sight":
        """Standing still at a second, at the present width."""
        return replace(self, at=at, held=self.span(newest), speed=0)

    def running(self) -> "Sight":
        """With the run again."""
        return replace(self, at=None, held=None, cursor=None, speed=0, played=False)

    def moved(self, steps: int, newest: int) -> "Sight":
        """A fifth of what is visible to the left or right; moving pauses the view."""
        at = newest if self.at is None else self.at
        newest = max(newest, 1)
        step = max(1, self.span(newest) // 5)
        return self.paused(max(1, min(newest, at + steps * step)), newest)

    def span(self, newest: int) -> int:
        """The visible seconds."""
        if self.at is not None and self.held is not None:
            return max(10, self.held)
        if self.everything:
            return max(10, newest)
        if self.zoom is not None:
            return self.zoom
        if self.at is not None and self.played:
            newest = self.at  # a run that is played grows as it did
        step = next((zoom for zoom in ZOOMS if newest <= zoom), ZOOMS[-1])
        return step if self.planned is None else min(step, max(self.planned, newest, ZOOMS[0]))


@dataclass(frozen=True, slots=True)
class Source:
    """Where the records come from, and how it stands with it."""

    age_s: float | None = None  # since the newest record came
    problem: str = ""  # why no more will come, though the run has no end
    killed: bool = False  # because its runner is gone
    said: str = ""  # what the runner does before it writes records
    snapshot: dict[str, Any] = field(default_factory=dict)
    run: str = ""  # its folder: which run this is
    name: str = ""  # by which the commands find it
    part: str = ""  # `repeat 2 of 6`: which one of a series it is
    follows: bool = False  # another one may follow it
    verdict: str = ""  # a sign, and what its runner said of it in the end
    hasty: bool = False  # see Scene


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture: everything any widget may show of it."""

    view: View
    sight: Sight
    source: Source
    newest: int
    begin: int  # visible: [begin, end) in seconds of the run
    end: int
    recent: Window | None  # the 10 s before `moment`
    recent_s: int
    paced: Window | None  # what rates are of: the same, but of a run that is over its last of load
    paced_s: int
    visible: Window | None
    visible_s: int
    service_ns: float  # summed over the visible requests
    overdue: int = 0  # open at `moment` and over the limit already
    unfinished: int = 0  # never answered: the run is over, and `moment` is its end
    visible_overdue: int = 0  # the same at `end`
    visible_unfinished: int = 0
    over: bool = False  # nothing more will come, now
    hasty: bool = False  # somebody is on the way through the run: what takes long comes later
    _columns: dict[int, dict[int, list[Bin]]] = field(default_factory=dict, compare=False)

    def columns(self, width: int) -> dict[int, list[Bin]]:
        """The visible bins by column; found once for all panels of that width."""
        if width not in self._columns:
            found = views.bins(self.view, self.begin, self.end)
            self._columns[width] = columns(found, self.span, self.end, width) if found else {}
        return self._columns[width]

    @property
    def paused(self) -> bool:
        """Standing still; a run that is played is not."""
        return self.sight.at is not None and not self.sight.speed

    @property
    def past(self) -> bool:
        """Whether this is another time than now."""
        return self.sight.at is not None

    @property
    def moment(self) -> int:
        """What is looked at ends here."""
        return self.end if self.sight.cursor is None else self.sight.cursor + 1

    @property
    def span(self) -> int:
        return self.sight.span(self.newest)

    @property
    def stretch(self) -> str:
        """What is visible, in words: `last 4m`, or in the past `4m until 03:12`."""
        until = units.clock(self.end * units.SECOND)
        return f"{words(self.span)} until {until}" if self.past else f"last {words(self.span)}"

    @property
    def stale(self) -> bool:
        """Values are shown dim: nothing has come for a while though something should."""
        age = self.source.age_s
        return age is not None and age > STALE_S and self.going and not self.past

    @property
    def going(self) -> bool:
        """At the time that is looked at."""
        return self.view.end is None and (self.past or not self.source.problem)

    @property
    def limit_ns(self) -> int | None:
        return self.view.start.limit_ns if self.view.start else None


def scene(view: View, sight: Sight, source: Source) -> Scene:
    """What there is to see."""
    newest = view.newest or 0
    end = newest if sight.at is None else min(sight.at, newest)
    begin = end - sight.span(newest)
    first = view.first or 0
    moment = end if sight.cursor is None else sight.cursor + 1
    near = views.pieces(view, max(first, moment - 10), moment, fine=True)
    wide = views.pieces(view, max(first, begin), end)
    over = view.end is not None or bool(source.problem)
    paced = near
    if over and moment == newest:  # what was waited for after the load has no rate
        until = _load_until(view)
        paced = views.pieces(view, max(first, until - 10), until, fine=True)
    overdue, unfinished = _open(view, moment, over)
    visible_overdue, visible_unfinished = _open(view, end, over)
    return Scene(
        view=view if sight.at is None or moment == newest else views.as_of(view, moment),
        sight=sight,
        source=source,
        newest=newest,
        begin=begin,
        end=end,
        recent=_with(views.merged(near), unfinished),
        recent_s=views.seconds(near),
        paced=views.merged(paced),
        paced_s=views.seconds(paced),
        visible=_with(views.merged(wide), visible_unfinished),
        visible_s=views.seconds(wide),
        service_ns=sum(bin.service_ns for bin in wide),
        overdue=overdue,
        unfinished=unfinished,
        visible_overdue=visible_overdue,
        visible_unfinished=visible_unfinished,
        over=over,
        hasty=source.hasty,
    )


def _load_until(view: View) -> int:
    """The second after the last of the load."""
    found = (bin for ring in view.rings for bin in reversed(ring) if bin.window.stage == "load")
    return next((bin.until for bin in found), view.newest or 0)


def _open(view: View, end: int, over: bool) -> tuple[int, int]:
    """(overdue, unfinished) at the end of a stretch. What is open at the end of a run that is over
    is unfinished; before that it may still have been answered."""
    last = views.pieces(view, max(view.first or 0, end - 1), end, fine=True)
    if not last:
        return 0, 0
    window = last[-1].window
    if over and end == view.newest:
        return 0, window.in_flight + window.waiting
    return window.overdue, 0


def _with(window: Window | None, unfinished: int) -> Window | None:
    """What is still open when a run is over will not be answered: it is lost."""
    return structs.replace(window, lost=window.lost + unfinished) if window else None


def columns(found: Sequence[Bin], span: int, end: int, width: int) -> dict[int, list[Bin]]:
    """Bins by column. Columns stand still in time (column k is [k·span/width, (k+1)·span/width)),
    so the picture slides and never flickers; the last one drawn is `last_column`."""
    last = last_column(span, end, width)
    if max((bin.seconds for bin in found), default=0) * width <= span:
        return _narrow(found, span, last, width)
    found_in: dict[int, list[Bin]] = {}
    for bin in found:
        low = bin.second * width // span
        high = max(low, -(-bin.until * width // span) - 1)
        wide = bin.seconds * width > span
        for at in range(max(low, last - width + 1), min(high if wide else low, last) + 1):
            found_in.setdefault(at, []).append(bin)
    return found_in


def _narrow(found: Sequence[Bin], span: int, last: int, width: int) -> dict[int, list[Bin]]:
    """The same of bins no wider than a column, each of which is in the one that it begins in: there
    are many more of them than columns."""
    begins = [bin.window.second for bin in found]
    columns = range(last - width + 1, last + 2)
    edges = [bisect_left(begins, -(-at * span // width)) for at in columns]
    edges[-1] = len(found)  # what reaches beyond the last is drawn in it
    return {
        at: list(found[low:high])
        for at, low, high in zip(columns, edges, edges[1:], strict=False)
        if low < high
    }


def last_column(span: int, end: int, width: int) -> int:
    """The column that the second before `end` falls into."""
    return -(-end * width // span) - 1


def words(seconds: int) -> str:
    """A span as titles say it: 1m, 15m, 6h, 95s."""
    if seconds % 3600 == 0 and seconds:
        return f"{seconds // 3600}h"
    if seconds % 60 == 0 and seconds:
        return f"{seconds // 60}m"
    if seconds > 3600:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}"
    return f"{seconds // 60}m{seconds % 60:02d}" if seconds > 99 else f"{seconds}s"
