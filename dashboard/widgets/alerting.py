"""The panels of the Alerts screen: where each rule stands, what it did, and why."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import replace

from rich.segment import Segment
from textual.geometry import Size
from textual.markup import escape

from dashboard.measures import own_number
from dashboard.peaks import Peaks, key_of
from dashboard.scene import Scene
from dashboard.theme import ink
from dashboard.widgets.board import Board, Cells
from dashboard.widgets.picker import Picker, Row
from dashboard.widgets.table import Column
from loadbench import units
from loadbench import view as views
from loadbench.alerts import QUANTITIES, condition, describe, limit_text, show
from loadbench.episodes import LIKELY, TRY, Spell
from loadbench.merge import merge
from loadbench.model import AlertChange, AlertState, Note, Rule, Window
from loadbench.outages import outages, second_of
from loadbench.quantities import ENOUGH, NEWEST, SPAN_S, Reading, Span
from loadbench.situation import Situation, Stretch, changed, ever, stretches
from loadbench.units import SECOND, clock
from loadbench.words import explain

_SIGNS = {
    "ok": "● ok", "pending": "◔ pending", "firing": "▲ FIRING", "seen": "△ seen",
    "no data": "○ no data", "few data": "○ few data",
}  # fmt: skip
_OVER = {"pending": "◔ at the end", "firing": "▲ to the end"}  # of a run that is over
_LACKS = {"queue_growth": f"needs {SPAN_S} s of load"}  # of few data; others need requests
_WORTH, _HIGH = 40, 99  # columns of a verdict, at least; its lines, at most


def windows(scene: Scene, part: Stretch) -> list[Window]:
    """The windows of a stretch of the run until what is looked at, as fine as they are known."""
    first = scene.view.first or 0
    found = views.pieces(scene.view, max(first, part.begin), min(part.end, scene.moment))
    return [bin.window for bin in found]


def standing(scene: Scene, rule: Rule, seen: Span | None) -> str:
    """The rule's state: a key of `_SIGNS`. Where nothing was told of it, it was fine for as long as
    there was something to look at."""
    if rule.quantity == "silence" and scene.stale and (scene.source.age_s or 0) > rule.limit:
        return "firing"  # who would write that is what is silent
    change = scene.view.alerts.get(rule.name)
    if change is None:
        return "no data" if scene.view.latest is None or _unknown(scene, rule, seen) else "ok"
    return "seen" if change.state == "firing" and change.acknowledged else change.state


def _unknown(scene: Scene, rule: Rule, seen: Span | None) -> bool:
    """Whether it is told neither now nor elsewhere in view: the second in which a run ends, or one
    in which the machine was not looked at, is no proof."""
    if seen is None:
        return False
    whole = (Span((scene.visible,), scene.visible, seen.gpu),) if scene.visible else ()
    return all(QUANTITIES[rule.quantity].read(span) is None for span in (seen, *whole))


def _reading(rule: Rule, seen: Span) -> Reading:
    """Memory is read of the newest second, and the one in which a run ends may not have it: then
    it is that of the last which has."""
    read, windows = QUANTITIES[rule.quantity].read, seen.windows
    if rule.quantity not in NEWEST:
        return read(seen)
    spans = (replace(seen, windows=windows[:number]) for number in range(len(windows), 0, -1))
    return next((found for span in spans if (found := read(span)) is not None), None)


def _silence_s(scene: Scene) -> float | None:
    """For how long nothing had been told; of the past by the seconds that the log has."""
    if not scene.past:
        return scene.source.age_s if scene.going else None
    near = views.pieces(scene.view, scene.moment - SPAN_S, scene.moment, fine=True)
    return scene.moment - near[-1].until if near else None


def spell_of(scene: Scene, rule: Rule) -> Spell | None:
    """The rule's last episode."""
    return next((s for s in reversed(scene.view.spells) if s.rule.name == rule.name), None)


def span(scene: Scene) -> Span | None:
    """The 10 s until what is looked at, as rules look at them; None where single seconds are not
    known any more."""
    near = views.pieces(scene.view, scene.moment - SPAN_S, scene.moment, fine=True)
    if scene.recent is None or any(bin.seconds > 1 for bin in near):
        return None
    return Span(tuple(bin.window for bin in near), scene.recent, own_number(scene))


class Rules(Picker):
    """One row a rule: its state, its value now, its limit, for how long, its last change."""

    COLUMNS = (
        Column("state", left=True),
        Column("rule", left=True),
        Column("now", 1, left=True),
        Column("limit", 2, left=True),
        Column("for", 3, left=True),
        Column("last change", 4, left=True),
    )
    EMPTY = "no rules yet"
    _known = 0

    def titles(self, scene: Scene) -> None:
        start = scene.view.start
        self.set_class(bool(start and start.checks), "-checked")
        of = f"of {escape(start.scenario)}, " if start else ""
        only = f" only: {escape(self.words)}" if self.words else ""
        hidden = len(scene.view.rules) - max(1, self.size.height - 1)
        below = f"{hidden} more" if hidden > 0 and self.size.height and not self.words else ""
        title = f"Rules [dim]({of}over the last 10 s){only}[/]"
        self.head(title, f"Rules[dim]{only}[/]", below=(below,))
        if len(scene.view.rules) != self._known:
            self._known = len(scene.view.rules)
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return 1 + max(1, self._known)

    def rows(self, scene: Scene) -> list[Row]:
        seen = span(scene)
        found = [self._row(scene, rule, seen) for rule in scene.view.rules]
        if self.size.height - 1 < len(found):  # what matters is in sight
            urgent = ("firing", "seen", "pending")
            names = [
                rule.name for rule in scene.view.rules if standing(scene, rule, seen) in urgent
            ]
            found.sort(key=lambda row: row.key not in names)
        return found

    def _row(self, scene: Scene, rule: Rule, seen: Span | None) -> Row:
        state = standing(scene, rule, seen)
        colour = {
            "firing": self.ink.p99, "pending": self.ink.asked, "ok": self.ink.ok,
        }.get(state, self.ink.quiet)  # fmt: skip
        sign = ">" if rule.above else "<"
        cells = [
            _SIGNS[state] if scene.going else _OVER.get(state, _SIGNS[state]),
            QUANTITIES[rule.quantity].title,
            self._now(scene, rule, seen),
            f"{sign} {limit_text(rule)}",
            units.duration(rule.for_ns) if rule.for_ns else "0 s",
            self._last(scene, rule, state),
        ]
        return Row(rule.name, cells, colour, state == "firing" and scene.going)

    def _now(self, scene: Scene, rule: Rule, seen: Span | None) -> str:
        if rule.quantity == "silence":
            age = _silence_s(scene)
            return "n/a" if age is None else f"{int(age)} s"
        reading = _reading(rule, seen) if seen else None
        return reading if isinstance(reading, str) else show(rule, reading)

    def _last(self, scene: Scene, rule: Rule, state: str) -> str:
        spell = spell_of(scene, rule)
        if state == "no data" and spell is None:
            return "not known here" if scene.view.latest else ""
        if state == "few data":
            return _LACKS.get(rule.quantity, f"under {ENOUGH} requests in {SPAN_S} s")
        if rule.quantity == "silence" and state == "firing" and not scene.past:
            return f"{clock(scene.newest * SECOND)}  ({self._now(scene, rule, None)})"
        if spell is None:
            return "never"
        began = clock(spell.began * SECOND)
        if spell.ended is not None:
            return f"{clock(spell.ended * SECOND)}  ended"
        length = spell.seconds(scene.moment)
        if spell.fired is None:
            return f"{began}  ({length} of {units.duration(rule.for_ns)})"
        return f"{began}  ({units.duration(length * SECOND)})"


class History(Picker):
    """One row an episode, the newest first."""

    COLUMNS = (
        Column("began", left=True),
        Column("", left=True),
        Column("what", left=True),
        Column("lasted", 1, left=True),
        Column("peak", 2, left=True),
        Column("while", 3, left=True),
    )
    EMPTY = "no alert has fired"

    def __init__(self, peaks: Peaks, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.peaks = peaks

    def titles(self, scene: Scene) -> None:
        number = sum(spell.fired is not None for spell in scene.view.spells)
        told = f" [dim]({number} alert{'s' * (number != 1)}; enter shows one in the charts)[/]"
        self.head(f"History of this run{told if number else ''}", "History of this run")

    def rows(self, scene: Scene) -> list[Row]:
        spells = [spell for spell in scene.view.spells if spell.began < max(1, scene.moment)]
        self.peaks.look(scene)
        return [self._row(scene, spell) for spell in reversed(spells)]

    def _row(self, scene: Scene, spell: Spell) -> Row:
        open_now = spell.ended is None
        sign, colour = "▲ on", self.ink.p99
        if spell.fired is None:
            sign, colour = "◔ pending" if scene.going else _OVER["pending"], self.ink.asked
        elif not open_now:
            sign, colour = "✓ ended", self.ink.ok
        elif not scene.going:
            sign = _OVER["firing"]
        elif spell.acknowledged:
            sign, colour = "△ seen", self.ink.quiet
        length = units.duration(spell.seconds(scene.moment) * SECOND)
        cells = [
            clock(spell.began * SECOND),
            sign,
            describe(spell.rule).partition(" for ")[0],
            f"{length} +" if open_now and scene.going else length,
            show(spell.rule, self.peaks.of(spell, scene.moment).value),
            spell.context,
        ]
        return Row(key_of(spell), cells, colour, spell.firing)


class Why(Board):
    """The verdict on what is picked: measured first, then the guess and what to try; below it
    what casts doubt on the run."""

    def __init__(self, peaks: Peaks, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._peaks = peaks
        self.rule: Rule | None = None
        self.spell: Spell | None = None
        self._high = 0
        self._told_of: tuple[Scene, Rule | None, Spell | None] | None = None
        self._words: Sequence[str] = ()

    def titles(self, scene: Scene) -> None:
        title = "Nothing fires"
        if self.rule is not None:
            title = describe(self.rule)
        self.set_class(bool(scene.view.start and scene.view.start.checks), "-checked")
        grade = scene.view.trust[0]
        told = f"this run is {grade}" if grade != "trusted" else ""
        if told and self.spell is None:
            self.head(f"Why {told}")
        else:
            self.head(title, below=(told, ""))
        high = len(self._all(scene, max(_WORTH, self.size.width), _HIGH))
        if high != self._high:
            self._high = high
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(1, self._high)

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        return self._all(scene, width, height)

    def _all(self, scene: Scene, width: int, height: int) -> list[Cells]:
        """What fits: the guess and what to try stay, then of what was measured the first."""
        of, before = (scene, self.rule, self.spell), self._told_of
        if before is None or any(a is not b for a, b in zip(of, before, strict=True)):
            self._told_of, self._words = of, self._verdict(scene)
        measured, guessed = (
            [self._told(text, width) for text in self._words
             if text.startswith((LIKELY, TRY)) is guess]
            for guess in (False, True)
        )  # fmt: skip
        room = height - sum(map(len, guessed))
        least = 0 if guessed else 1
        while len(measured) > least and sum(map(len, measured)) > room:
            measured.pop()  # sentences stay whole
        doubts = [self._doubt(note, width) for note in scene.view.trust[1]]
        if self.spell is None:  # nothing has gone wrong: how it is measured matters more
            return _whole([*doubts, *measured, *guessed], height)
        verdict = [line for sentence in (*measured, *guessed) for line in sentence]
        return _whole([verdict, *doubts], height)

    def _verdict(self, scene: Scene) -> Sequence[str]:
        """Its sentences. An episode that is over is told as it was in the log."""
        rule, spell = self.rule, self.spell
        if rule is None:
            return ["No rules are watched."] if scene.view.start else ["Waiting for the run."]
        if spell is None:
            return self._calm(scene, rule)
        if spell.ended is not None and spell.words:
            return spell.words
        second = scene.moment - 1 if spell.ended is None else spell.ended
        state: AlertState = "firing" if spell.ended is None else "ok"
        most, worst = self._peaks.of(spell, scene.moment)
        far = None if math.isinf(most) else most
        change = AlertChange(second, rule.name, state, spell.value, spell.began, far, worst=worst)
        at, before = stretches(change, rule)
        now, calm = windows(scene, at), windows(scene, before)
        length = at.end - max(at.begin, scene.view.first or 0)
        if not now or length < 1 or spell.fired is None:
            lasted = units.duration(spell.seconds(scene.moment) * SECOND)
            told = "not long enough yet to fire" if scene.going else f"only for the last {lasted}"
            return spell.words or [f"{describe(rule)}: {told}."]
        start, earlier = scene.view.start, merge(calm) if calm else None
        device, ours = (start.device, start.ours) if start else ("", True)
        done = changed(
            change, rule, scene.view.changes, earlier.rate if earlier else None,
            lambda part: windows(scene, part),
        )  # fmt: skip
        known = views.pieces(scene.view, *ever(change), fine=True)
        away = outages([second_of(one.window) for one in known if one.seconds == 1], *ever(change))
        found = Situation(merge(now), length, rule.quantity, device, earlier, ours, done, away)
        return explain(found, rule, change).lines

    def _calm(self, scene: Scene, rule: Rule) -> list[str]:
        change = scene.view.alerts.get(rule.name)
        if change is not None and change.state == "no data":
            return [f"{QUANTITIES[rule.quantity].title}: not known here, so it cannot fire."]
        if change is not None and change.state == "few data":
            if rule.quantity in _LACKS:
                return [f"Too early to say: it {_LACKS[rule.quantity]}."]
            return [f"Too few requests to say: a percentile needs {ENOUGH} in {SPAN_S} s."]
        return [f"{QUANTITIES[rule.quantity].title} has not been {condition(rule)}."]

    def _told(self, text: str, width: int) -> list[Cells]:
        guess = text.startswith((LIKELY, TRY))
        style = ink(self.ink.p95 if guess else self.ink.text)
        return [[Segment(line, style)] for line in textwrap.wrap(text, max(8, width))]

    def _doubt(self, note: Note, width: int) -> list[Cells]:
        text = f"{note.text}: {note.hint}" if note.hint else note.text
        first, *rest = textwrap.wrap(text, max(8, width - 2))
        head = [Segment("▲ ", ink(self.ink.p99)), Segment(first, ink(self.ink.text))]
        return [head, *([Segment(f"  {line}", ink(self.ink.text))] for line in rest)]


def _whole(sentences: Sequence[list[Cells]], height: int) -> list[Cells]:
    """The first, and as many of the others as fit: none is cut."""
    lines: list[Cells] = []
    for sentence in sentences:
        if lines and len(lines) + len(sentence) > height:
            break
        lines += sentence
    return lines
