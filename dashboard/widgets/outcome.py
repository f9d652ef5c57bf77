"""What became of the run, to whom, and what to press now: the line under line 1.

It is there when a run is over, when it lost one of its workers a moment ago and when nothing comes
from it any more. Line 1 has the state in a word; here it is a sentence that is never cut.
"""

import re
import textwrap
from typing import NamedTuple

from rich.segment import Segment
from textual.geometry import Size

from dashboard.ending import unjudged
from dashboard.scene import Scene
from dashboard.theme import ink
from dashboard.widgets.board import Board, Cells
from loadbench import control, units
from loadbench.sentences import finished
from loadbench.view import over_at

LOSSES = ("lost", "worker-gone")  # codes of notes: one of several load processes is gone
_FRESH_S = 30  # of the run, for which a loss is told here; it stays among the events
_GAP = "   "
_FOLDER = re.compile(r"\S*/(?=(?:engine|load)\.log\b)")
_WORD = re.compile(r"[a-z'-]+[,:;]?(?:\s|$)")

_LOGS, _STOP, _NEW = ("o", "logs"), ("s", "stop"), ("n", "new run")
_AGAIN = ("R", "run again")
_AFTER = (_LOGS, _AGAIN, _NEW, ("q", "quit"))
_DONE = (("r", "report"), ("c", "compare"), _AGAIN, ("q", "summary"))


class Told(NamedTuple):
    """A sign, a sentence (or none: line 1 says it all), and keys with what they do."""

    sign: str
    text: str
    keys: tuple[tuple[str, str], ...]


def told(scene: Scene) -> Told | None:
    """What is to be told now; in the past there is nothing."""
    view, source = scene.view, scene.source
    if scene.past or not source.run:
        return None
    if view.end is not None:
        if view.end.reason == "failed":
            return Told("✗", _sentence(view.end.text or "the run failed") + _kept(scene), _AFTER)
        if source.follows:
            return Told(" ", "", (_LOGS, _STOP, ("4", "runs")))
        if source.verdict:
            sign, _, words = source.verdict.partition(" ")
            return Told(sign, _sentence(words), _DONE)
        if why := unjudged(scene):
            return Told("▲", _sentence(f"no verdict: {why}"), _DONE)
        return Told(" ", "", _DONE)
    if source.problem:
        return Told("✗", _sentence(source.problem) + _kept(scene), _AFTER)
    if scene.stale and (host := control.elsewhere(source.snapshot)):
        text = f"Nothing comes from the run: its runner at {host} stands still, or is gone."
        return Told("▲", text, (_LOGS,))
    if scene.stale:
        text = "Nothing comes from the run: its runner stands still, or this machine is too busy."
        return Told("▲", text, (_LOGS, _STOP))
    loss = _loss(scene)
    return Told("▲", f"{_sentence(loss)} The run goes on.", (_LOGS, _STOP)) if loss else None


def _loss(scene: Scene) -> str:
    """What was said of a worker that was lost not long ago; "" if none was."""
    found = {note.text for note in scene.view.notes if note.code in LOSSES}
    for event in reversed(scene.view.events if found else ()):
        if event.second < scene.newest - _FRESH_S:
            break
        if event.text in found:
            return event.text
    return ""


def _kept(scene: Scene) -> str:
    """That what was measured is not lost with it."""
    if scene.view.newest is None:
        return ""
    until = units.clock(over_at(scene.view) * units.SECOND)
    return f" All until {until} is kept: loadbench\xa0show\xa0{scene.source.name}"


def without_folder(text: str) -> str:
    """`see engine.log`: the folder that it is in is the run's, and takes all the room."""
    return _FOLDER.sub("", text)


def _sentence(text: str) -> str:
    text = without_folder(text).rstrip(". ")
    first = text[:1].upper() if _WORD.match(text) else text[:1]  # a path is written as it is
    return finished(f"{first}{text[1:]}")


class Outcome(Board):
    """Folded, with its keys behind the last words or below them. Without words it takes no room."""

    def show(self, scene: Scene) -> None:
        before = self._lines(self.size.width)
        self.display = told(scene) is not None
        super().show(scene)
        if len(self._lines(self.size.width)) != len(before):
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(1, len(self._lines(width)))

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        return self._lines(width)

    def _lines(self, width: int) -> list[Cells]:
        found = told(self.scene) if self.scene else None
        if found is None or width < 20:
            return []
        colours = self.ink
        colour = {"✗": colours.error, "▲": colours.p99}.get(found.sign, colours.ok)
        keys: Cells = []
        for key, word in found.keys:
            keys += [Segment(key, ink(colours.p95, bold=True)), Segment(f" = {word}{_GAP}")]
        keys[-1] = Segment(keys[-1].text.rstrip(), keys[-1].style)
        lines: list[Cells] = [
            [Segment("   "), Segment(line.replace("\xa0", " "), ink(colours.text, bold=True))]
            for line in textwrap.wrap(found.text, width - 4)
        ]
        needed = sum(segment.cell_length for segment in keys) + len(_GAP)
        last = sum(segment.cell_length for segment in lines[-1]) if lines else width
        if last + needed <= width:
            lines[-1] += [Segment(_GAP), *keys]
        else:
            lines.append([Segment("   "), *keys])
        lines[0][0] = Segment(f" {found.sign} ", ink(colour, bold=True))
        return lines
