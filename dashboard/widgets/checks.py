"""The checks of the run as they stand: passed or failed on what was measured, and beside it whether
that is shown, or about how many requests more would show it."""

from collections.abc import Mapping

from rich.segment import Segment
from textual.geometry import Size

from dashboard.scene import Scene
from dashboard.sureness import judged
from dashboard.theme import ink
from dashboard.widgets.board import Board, Cells
from loadbench import units
from loadbench.assurance import QUANTILES, Blocks, band, known
from loadbench.report.certain import check_words, effect_words
from loadbench.summary import CheckResult

_EVERY_S = 5
_ORDER = ("failed", "no data", "passed")


class Checks(Board):
    """A row a check, and what their certainty rests on. Without checks it takes no room."""

    _results: tuple[CheckResult, ...] = ()
    _blocks: Blocks | None = None
    _bands: Mapping[str, tuple[float, float | None] | None] = {}  # of percentiles, in ms
    _key: object = None

    def show(self, scene: Scene) -> None:
        until = scene.moment if scene.paused else scene.moment // _EVERY_S
        key = (until, scene.going, scene.view.start)
        if key != self._key:
            before = len(self._results)
            self._key = key
            self._results, self._blocks = judged(scene)
            self._bands = {check.name: _band(check.name, self._blocks) for check in self._results}
            if len(self._results) != before:
                self.refresh(layout=True)
        super().show(scene)

    def titles(self, scene: Scene) -> None:
        self.display = bool(scene.view.start and scene.view.start.checks)
        self.head("Checks [dim](of the run until here)[/]", "Checks")

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(1, len(self._results) + bool(self._rests()))

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        quiet = ink(self.ink.quiet)
        if not self._results or self._blocks is None:
            return [[Segment("no requests yet", quiet)]]
        results, share = self._results, self._share(self._blocks)
        hidden = len(results) - max(1, height)
        if hidden > 0:  # what failed must not be what is cut
            results = tuple(sorted(results, key=lambda found: _ORDER.index(found.state)))
            results = results[:-hidden]
        more = f"  +{hidden} more" if hidden > 0 else ""
        words = [check_words(found, share, self._bands.get(found.name)) for found in results]
        wide = max(map(len, words)) + 3
        rows = [
            self._row(found, text, wide, width - len(more))
            for found, text in zip(results, words, strict=True)
        ]
        if more:
            room = width - sum(segment.cell_length for segment in rows[-1])
            rows[-1].append(Segment(more.rjust(room), quiet))
        rests = self._rests()
        return [*rows, [Segment(rests[:width], quiet)]] if rests else rows

    def _rests(self) -> str:
        """What their certainty rests on; "" where each row says already why there is none."""
        if self._blocks is None:
            return ""
        found = effect_words(known(self._blocks), self._blocks.total)
        return "" if all(check.why == found for check in self._results) else found

    def _row(self, found: CheckResult, text: str, wide: int, width: int) -> Cells:
        """What is shown stands below each other; a reason that is too long for it further left."""
        colours = {"passed": self.ink.ok, "failed": self.ink.error}
        sure = found.sure or (found.why and f"nothing can be shown: {found.why}")
        text = f"{text:<{wide}}"
        if len(text) + len(sure) > width and not found.sure:
            text, sure = f"{text.rstrip()}   ", found.why
        room = width - len(text)
        shown = self.ink.text if found.certainty == "shown" else self.ink.quiet
        return [
            Segment(text[:1], ink(colours.get(found.state, self.ink.quiet))),
            Segment(text[1:], ink(self.ink.text)),
            Segment(sure if len(sure) <= room else f"{sure[: max(0, room - 1)]}…", ink(shown)),
        ]

    def _share(self, blocks: Blocks) -> float:
        return int(blocks.missed.sum()) / blocks.total if blocks.total else 0.0


def _band(check: str, blocks: Blocks) -> tuple[float, float | None] | None:
    """Of the percentile of latency that is checked, in ms; None for another check."""
    share = QUANTILES.get(check)
    found = None if share is None else band(blocks, share)
    if found is None:
        return None
    return found.low / units.MS, found.high and found.high / units.MS
