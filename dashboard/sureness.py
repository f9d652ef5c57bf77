"""How sure the figures on the screen are: the view's bins as blocks of `assurance`, checks judged
as the summary will judge them.

Looking takes some milliseconds, so that it is done anew every few seconds of the run, and when
somebody stays at another stretch.
"""

from collections import Counter

from dashboard.scene import Scene
from loadbench.account import Account
from loadbench.assurance import BRIEF, Band, Blocks, Certainty, band_or_why, known
from loadbench.histogram import Histogram
from loadbench.model import Window
from loadbench.summary import CheckResult, judge
from loadbench.view import Bin, View, bins, merged, pieces

_EVERY_S = 5
_ENOUGH = 84  # bins of 10 s: fewer could hardly be doubled


class InView:
    """Bands of percentiles of what is visible."""

    def __init__(self) -> None:
        self._key: object = None
        self._bands: dict[float, Band | str] = {}
        self._known: Certainty | None = None
        self._blocks: Blocks | None = None

    def band(self, scene: Scene, share: float) -> Band | None:
        """Of this percentile; None where there is none (yet)."""
        found = self._found(scene, share)
        return found if isinstance(found, Band) else None

    def why_none(self, scene: Scene, share: float) -> str:
        """Why this percentile has no band, in few words; "" if it has one, or is not known yet."""
        found = self._found(scene, share)
        return BRIEF.get(found, found) if isinstance(found, str) else ""

    def certainty(self, scene: Scene) -> Certainty:
        """By how much its requests depend on each other, or why nothing can be told."""
        blocks = self._look(scene)
        if blocks is None:
            return Certainty(why="…")
        if self._known is None:
            self._known = known(blocks)
        return self._known

    def _found(self, scene: Scene, share: float) -> Band | str:
        blocks = self._look(scene)
        if blocks is None:
            return ""
        if share not in self._bands:
            self._bands[share] = band_or_why(blocks, share)
        return self._bands[share]

    def _look(self, scene: Scene) -> Blocks | None:
        run = scene.view.start.run if scene.view.start else ""
        end = scene.end if scene.paused else scene.end // _EVERY_S
        key = (run, scene.begin if scene.paused else scene.span, end, scene.going, scene.over)
        if scene.hasty and key != self._key:
            return None
        empty = self._blocks is None or not self._blocks.total  # in the first seconds of a run
        if self._blocks is None or empty or key != self._key:
            self._key, self._bands, self._known = key, {}, None
            whole = scene.visible.latency if scene.visible else None
            first = max(scene.view.first or 0, scene.begin)
            self._blocks = _blocks(scene, first, scene.end, whole)
        return self._blocks


def judged(scene: Scene) -> tuple[tuple[CheckResult, ...], Blocks]:
    """The checks of the run on all that is recorded of it until what is looked at."""
    view, first, until = scene.view, scene.view.first or 0, scene.moment
    start, whole = view.start, merged(pieces(view, first, until))
    steady, rest, failed = _seconds(view, first, until)
    missed = failed + scene.overdue + scene.unfinished
    blocks = Blocks(steady, rest, missed, whole.latency if whole else None)
    if start is None or whole is None:
        return (), blocks
    load = [bin for bin in pieces(view, first, until) if bin.window.stage == "load"]
    total = Account(
        start=start,
        end=view.end,
        whole=whole,
        load=merged(load),
        seconds=float(sum(bin.seconds for bin in load)),
        alerts=(),
        notes=(),
        evidence=view.evidence,
        steady=tuple(steady),
        rest=tuple(rest),
        overdue=scene.overdue + scene.unfinished,
    )
    return tuple(judge(check, total, blocks) for check in start.checks), blocks


def _blocks(scene: Scene, begin: int, end: int, latency: Histogram | None) -> Blocks:
    steady, rest, failed = _seconds(scene.view, begin, end)
    missed = failed + scene.visible_overdue + scene.visible_unfinished
    return Blocks(steady, rest, missed, latency)


def _seconds(view: View, begin: int, end: int) -> tuple[list[Window], list[Window], int]:
    """The stretch in bins of one length, that of most of it; the other bins; how many failed."""
    found = _stretch(view, begin, end)
    covered = Counter[int]()  # by length: of a few minutes the seconds may not be read yet
    for bin in found:
        covered[bin.seconds] += bin.seconds
    length = max(covered, key=lambda seconds: (covered[seconds], seconds), default=1)
    steady: list[Window] = []
    rest: list[Window] = []
    for bin in found:
        whole = bin.seconds == length and bin.window.stage == "load"
        (steady if whole else rest).append(bin.window)
    return steady, rest, sum(bin.failures for bin in found)


def _stretch(view: View, begin: int, end: int) -> tuple[Bin, ...]:
    """The finest bins, or where those are many the next coarser ones."""
    coarse = tuple(bin for bin in view.rings[1] if begin <= bin.second and bin.until <= end)
    if len(coarse) < _ENOUGH:
        return bins(view, begin, end)
    return (*coarse, *bins(view, coarse[-1].until, end))
