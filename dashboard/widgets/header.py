"""Line 1 of every screen: which run, how it stands, the clock, the progress, the alerts, and the
trust in its figures where that is not full.

On a narrow terminal parts drop, hints first; the state, the number of alerts and the trust never
do.
"""

import re
from typing import NamedTuple

from rich.segment import Segment
from textual.events import Click

from dashboard.ending import checks, length
from dashboard.scene import Scene
from dashboard.theme import Palette, ink
from dashboard.widgets.board import Board, Cells, Inspect
from loadbench import units
from loadbench.standing import load_words

_BAR = 18


class State(NamedTuple):
    """A sign, a word, and what belongs to it."""

    sign: str
    word: str
    colour: str
    detail: str = ""
    hint: str = ""


def state(scene: Scene, ink: Palette) -> State:
    """How the run stands, in a word."""
    view, source = scene.view, scene.source
    at = units.clock(scene.newest * units.SECOND)
    if scene.past:
        return _past(scene, ink, at)
    if view.end is not None:
        if source.follows and view.end.reason == "done":
            if _is_last(source.part):
                return State("◔", "LAST", ink.asked, "the result follows")
            return State("◔", "NEXT", ink.asked, "the next one follows")
        return _ended(scene, ink)
    if source.problem:
        word = "KILLED" if source.killed else "FAILED"
        return State("✗", word, ink.error, f"{at} {brief(source.problem)}")
    if not source.run:
        return State("○", "NO RUN", ink.quiet, "4 = runs, old and new")
    if view.latest is None:
        return State("○", "STARTING", ink.quiet, source.said or "waiting for the run")
    if view.latest.stage == "warmup":
        planned = view.start.warmup_ns if view.start else 0
        gone = planned + (view.latest.second + 1) * units.SECOND
        detail = f"{units.clock(max(0, gone))}  {units.count(view.warmed)} requests"
        return State("◔", "WARM-UP", ink.asked, detail)
    return State("●", "RUNNING", ink.ok, f"{at}{_planned(scene)}")


def _past(scene: Scene, ink: Palette, at: str) -> State:
    """Another time than now: standing, or being played."""
    sight = scene.sight
    if sight.speed:
        here = units.clock(scene.end * units.SECOND)
        return State("↺", "REPLAY", ink.p95, f"×{sight.speed} {here} / {at}")
    seen = scene.end if sight.cursor is None else sight.cursor
    here = units.clock(seen * units.SECOND)
    over = scene.over
    detail = f"at {here} of {at}" if over else f"at {here}, run is at {at}"
    hint = "space = play on" if sight.played else f"{'end' if over else 'space'} = continue"
    return State("‖", "VIEW PAUSED", ink.asked, detail, hint)


def _ended(scene: Scene, ink: Palette) -> State:
    end, at = scene.view.end, length(scene)
    assert end is not None
    if end.reason == "failed":
        return State("✗", "FAILED", ink.error, f"{at} {brief(end.text)}".strip())
    if end.reason == "stopped":
        return State("■", "STOPPED", ink.asked, f"at {at} {checks(scene)}".strip())
    return State("■", "DONE", ink.ok, f"{at} {checks(scene)}".strip())


def _is_last(part: str) -> bool:
    """Whether `repeat 3 of 3` has no next one."""
    numbers = re.findall(r"\d+", part)
    return len(numbers) == 2 and numbers[0] == numbers[1]


def brief(text: str) -> str:
    """What went wrong, in line 1: the rest is told below it."""
    return text.partition("; ")[0]


def _planned(scene: Scene) -> str:
    start = scene.view.start
    return f" / {units.clock(start.planned_ns)}" if start and start.planned_ns else ""


def title(scene: Scene) -> list[str]:
    """What is tested: model, device, scenario; the first is kept longest."""
    start = scene.view.start
    if start is None:  # a run that failed before it began has its name alone
        return [scene.source.name] if scene.over and scene.source.name else []
    target = start.target.removeprefix("local:").removeprefix("http://").removeprefix("https://")
    return [part for part in (target, start.device, start.scenario) if part]


class Header(Board):
    """The line itself."""

    _bar_at: int | None = None  # where it was drawn

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        colours = self.ink
        now = state(scene, colours)
        names = title(scene)
        bar, part = self._bar(scene), scene.source.part
        plain, bold, quiet = ink(colours.text), ink(colours.text, bold=True), ink(colours.quiet)
        parts = {
            "brand": [Segment("loadbench", bold)],
            "names": [Segment(" · ".join(names), plain)] if names else [],
            "part": [Segment(part, plain)] if part else [],
            "state": [
                Segment(now.sign, ink(now.colour)),
                Segment(f" {now.word}", ink(colours.text, bold=True)),
            ],
            "detail": [Segment(now.detail, plain)] if now.detail else [],
            "steered": self._steered(scene),
            "bar": bar,
            "alerts": alerts(scene, colours),
            "trust": trust(scene, colours, why=True),
            "hint": [Segment(now.hint, quiet)] if now.hint else [],
        }
        short = part.removeprefix("repeat ").replace(" of ", "/")
        shorter = [
            lambda: parts.update(bar=[] if scene.past else parts["bar"]),
            lambda: parts.update(hint=[]),
            lambda: parts.update(bar=[]),
            lambda: parts.update(trust=trust(scene, colours)),
            lambda: parts.update(brand=[]),
            lambda: parts.update(detail=[Segment(now.detail.replace(" / ", "/"), plain)]),
            lambda: parts.update(part=[Segment(short, plain)] if part else []),
            lambda: parts.update(names=[Segment(" · ".join(names[:1] + names[2:]), plain)]),
            lambda: parts.update(names=[Segment(names[0] if names else "", plain)]),
            lambda: parts.update(steered=parts["steered"][:1]),
            lambda: parts.update(names=[]),
        ]
        while _length(parts) > width and shorter:
            shorter.pop(0)()
        before = {name: parts[name] for name in ("brand", "names", "part", "state", "detail")}
        fitted = _fitted(parts, width)
        used = [_width(part) for part in before.values() if part]
        self._bar_at = 1 + sum(used) + 2 * len(used) if parts["bar"] else None
        return [fitted]

    def _bar(self, scene: Scene) -> Cells:
        """How far the run is; in the past where in the run one is, by a click on it elsewhere."""
        start = scene.view.start
        if scene.past:
            at = min(_BAR - 1, scene.moment * _BAR // max(1, scene.newest))
            return [Segment("━" * at + "●", ink(self.ink.p95)), self._rest(_BAR - at - 1)]
        if not start or not start.planned_ns or not scene.going:
            return []
        done = min(_BAR, scene.newest * units.SECOND * _BAR // start.planned_ns)
        return [Segment("━" * done, ink(self.ink.p95)), self._rest(_BAR - done)]

    def _rest(self, cells: int) -> Segment:
        return Segment("─" * cells, ink(self.ink.quiet))

    def on_click(self, event: Click) -> None:
        """Into the bar: to that part of what there is of the run."""
        scene = self.scene
        if scene is None or self._bar_at is None or not 0 <= event.x - self._bar_at < _BAR:
            return
        start, share = scene.view.start, (event.x - self._bar_at) / _BAR
        if not scene.past and start and start.planned_ns:
            share = min(1.0, share * start.planned_ns / units.SECOND / max(1, scene.newest))
        self.post_message(Inspect(int(share * scene.newest)))

    def _steered(self, scene: Scene) -> Cells:
        """How the load is driven by hand: `◆ × 1.5, arrivals paused`."""
        words = load_words(scene.view.standing, scene.newest) if scene.going else []
        if not words or scene.paused:
            return []
        style = ink(self.ink.limit, bold=True)
        return [Segment("◆", style), Segment(f" {', '.join(words)}", style)]


def alerts(scene: Scene, colours: Palette) -> Cells:
    """How many alerts nobody has acknowledged, or that no data comes; none once it is over."""
    firing = scene.view.unheard
    text = f"▲ {firing} alert{'s' if firing > 1 else ''}" if firing else ""
    if scene.stale and scene.source.age_s is not None:
        text = f"▲ no data for {int(scene.source.age_s)} s"
    elif scene.view.end is not None:
        text = ""
    return [Segment(text, ink(colours.p99, bold=True))] if text else []


def trust(scene: Scene, colours: Palette, why: bool = False) -> Cells:
    """`▲ doubtful: generator late`, by the first of the reasons."""
    grade, doubts = scene.view.trust
    if grade == "trusted":
        return []
    text = f"▲ {grade}"
    if why and doubts:
        text += f": {doubts[0].code.replace('-', ' ')}"
    return [Segment(text, ink(colours.p99))]


def _width(part: Cells) -> int:
    return sum(segment.cell_length for segment in part)


def _length(parts: dict[str, Cells]) -> int:
    used = [_width(part) for part in parts.values() if part]
    return 1 + sum(used) + 2 * (len(used) - 1)


def _fitted(parts: dict[str, Cells], width: int) -> Cells:
    """In a row; if it is still too long the detail is cut, not the alerts."""
    over = _length(parts) - width
    if over > 0 and parts["detail"]:
        text = parts["detail"][0].text
        kept = text[: max(0, len(text) - over - 1)]
        parts["detail"] = [Segment(f"{kept}…", parts["detail"][0].style)]
    cells: Cells = [Segment(" ")]
    for part in parts.values():
        if part:
            cells += [*([Segment("  ")] if len(cells) > 1 else []), *part]
    return cells
