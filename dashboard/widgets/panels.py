"""The panels of the Live screen that are text: where the time goes, requests, events."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from rich.segment import Segment
from textual.events import Click
from textual.geometry import Size
from textual.markup import escape

from dashboard.measures import (
    SHARES,
    brief,
    computed,
    error_share,
    inner_parts,
    ms_text,
    number,
    part_ms,
    part_of,
    parts_ms,
    quantile_ms,
    tokens,
    written_ms,
)
from dashboard.scene import Scene
from dashboard.sureness import InView
from dashboard.theme import Palette, ink, markup
from dashboard.widgets.board import NEVER, Board, Cells, Inspect
from dashboard.widgets.outcome import without_folder
from dashboard.widgets.table import Column, table
from loadbench import units
from loadbench.bin import failures
from loadbench.merge import merge
from loadbench.model import Requests, Stream, Window
from loadbench.streams import NETWORK, RESTS, STREAMED
from loadbench.view import Event

_REQUESTS = (
    Column("request", left=True),
    Column("done"),
    Column("/s"),
    Column("p50", 2),
    Column("p95", 3),
    Column("p99"),
    Column("±", 7),
    Column("p99.9", 6),
    Column("max", 4),
    Column("fail", 1),
    Column("fail %", 5),
)
_STREAMED = (
    *_REQUESTS[:4],
    Column("p99"),
    Column("±", 7),
    Column("first p50", 3),
    Column("first p99"),
    Column("gap p50", 5),
    Column("gap p99", 2),
    Column("tok/s"),
    Column("fail", 1),
    Column("fail %", 6),
)
_SIGNS = {
    "alert": "▲", "ended": "✓", "unknown": "○", "mark": "◆", "note": "▲", "stage": "·", "load": "·",
    "hour": "·", "failure": "✗", "done": "■", "failed": "✗",
}  # fmt: skip

_NEXT = 2  # events after the one where one is
_SHORT = {"batch wait": "wait", NETWORK: "net", STREAMED: "net+stream"}


class _Legend(NamedTuple):
    unit: str
    shares: bool
    gap: str
    inner: bool = False  # what compute is made of


_LEGENDS = (
    _Legend(" ms", True, "   ", True),
    _Legend(" ms", True, "   "),
    _Legend("", True, "  "),
    _Legend("", True, " "),
    _Legend("", False, " "),
)


def split(scene: Scene) -> dict[str, float]:
    """Where the mean request's time goes, in ms."""
    if scene.visible is None:
        return {}
    return parts_ms(scene.visible, scene.service_ns) or written_ms(scene.visible)


_PARTS = (
    Column("part", left=True),
    Column("mean ms"),
    Column("share", 1),
    Column("p50 ms", 3),
    Column("p95 ms", 4),
    Column("p99 ms", 2),
)


class Split(Board, can_focus=True):
    """Where the time goes: one bar of four parts; large, a row for each as well."""

    reading = (
        "Where the time goes: the mean request's way from when it was begun to its answer. Means, "
        "because they add up. queue: until its batch began to form. batch wait: until the batch "
        "was closed. compute: in the model. network: all the rest, the client's and the server's "
        "own work included; and stream: the time between an answer's pieces, too. untold: the same "
        "of a server that tells no queue, which it may be for the most part. Large, with the "
        "percentiles of each part that the target tells, and with what compute is made of: input, "
        "infer, output.",
    )

    def titles(self, scene: Scene) -> None:
        where = "Where the time goes"
        self.head(f"{where} [dim](mean request, {scene.stretch})[/]", where)

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        quiet = ink(self.ink.quiet)
        if scene.visible is None:
            return [[Segment("no requests in view", quiet)]]
        parts = split(scene)
        if not parts:
            mean = scene.service_ns / scene.visible.done / units.MS if scene.visible.done else None
            text = "This target does not report queue and batch times. Shown: client side only."
            short = "No queue or batch times told: client side only."
            return [
                [Segment(text if len(text) <= width else short[:width], quiet)],
                [Segment(f"a request takes {units.significant(mean)} ms on average", quiet)],
            ]
        inner = computed(scene.visible)
        rows = [self._bar(parts, width), self._legend(parts, inner, width)]
        room = height - len(rows) - 1 - len(parts) - 1
        if room > 0:
            shown = inner if room > len(inner) else {}
            rows += [[], *self._rows(scene.visible, parts, shown, width)]
        return rows

    def _rows(
        self, window: Window, parts: dict[str, float], inner: dict[str, float], width: int
    ) -> list[Cells]:
        """`inner`: what compute is made of."""
        total = sum(parts.values()) or 1.0
        told = inner_parts(window.server) if window.server else {}  # never of the network
        rows = []
        for name, mean in parts.items():
            times = [brief(part_ms(told.get(name), share)) for share in SHARES]
            glyph = _part(name, self.ink)[0]
            rows.append([f"{glyph} {name}", brief(mean), part_of(mean / total), *times])
            if name == "compute":
                rows += [
                    [f"  {part}", brief(value), part_of(value / total), *([""] * len(SHARES))]
                    for part, value in inner.items()
                ]
        plain = ink(self.ink.text)
        return table(_PARTS, rows, width, (ink(self.ink.quiet), plain, plain))

    def _bar(self, parts: dict[str, float], width: int) -> Cells:
        total = sum(parts.values()) or 1.0
        cells, at, before = [], 0.0, 0
        for name, value in parts.items():
            at += value
            until = round(at / total * width)
            glyph, colour = _part(name, self.ink)
            cells.append(Segment(glyph * (until - before), ink(colour)))
            before = until
        return cells

    def _legend(self, parts: dict[str, float], inner: dict[str, float], width: int) -> Cells:
        """As much as fits: with what compute is made of, with units and shares, with shares, with
        short names alone."""
        total = sum(parts.values()) or 1.0
        made = ", ".join(f"{name} {brief(value)}" for name, value in inner.items())
        for style in _LEGENDS:
            cells: Cells = []
            for name, value in parts.items():
                glyph, colour = _part(name, self.ink)
                share = f" {part_of(value / total)}" if style.shares else ""
                if made and style.inner and name == "compute":
                    share += f" ({made})"
                shown = name if style.shares else _SHORT.get(name, name)
                cells += [
                    Segment(glyph, ink(colour)),
                    Segment(f" {shown} ", ink(self.ink.text)),
                    Segment(brief(value), ink(self.ink.text, bold=True)),
                    Segment(f"{style.unit}{share}{style.gap}", ink(self.ink.quiet)),
                ]
            if sum(segment.cell_length for segment in cells) - len(style.gap) <= width:
                break
        return cells


def _part(name: str, colours: Palette) -> tuple[str, str]:
    return {
        "queue": ("▓", colours.p99),
        "batch wait": ("▒", colours.limit),
        "compute": ("█", colours.p95),
        **dict.fromkeys(RESTS, ("░", colours.quiet)),
        "first token": ("▓", colours.p99),
        "the others": ("█", colours.p95),
    }[name]


class RequestTable(Board, can_focus=True):
    """One row for each kind of request, and all of them; with how sure the p99 of all is."""

    reading = (
        "Requests: a row for each kind, or each server, of what is in view, and one for all. ±: "
        "half as wide as the 95 % band of the p99 is. fail: what was not sent, not answered, or "
        "answered with an error, which kinds stands in the border.",
    )

    def __init__(self, sure: InView, id: str | None = None) -> None:
        super().__init__(id=id)
        self._sure = sure

    def titles(self, scene: Scene) -> None:
        kinds = [escape(kind) for kind in _kinds(scene.visible)] if scene.visible else []
        shown = [" · ".join(kinds)]
        for most in range(min(3, len(kinds) - 1), 0, -1):
            shown.append(" · ".join([*kinds[:most], f"{len(kinds) - most} more"]))
        below = [f"[{markup(self.ink.error)}]✗ {text}[/]" for text in shown] if kinds else []
        self.head(f"Requests [dim]({scene.stretch}, ms)[/]", "Requests", below=[*below, ""])

    def show(self, scene: Scene) -> None:
        before = self._names(self.scene)
        super().show(scene)
        if len(self._names(scene)) != len(before):
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        names = len(self._names(self.scene))
        return 1 + names + (1 if names > 1 else 0)

    def _names(self, scene: Scene | None) -> list[str]:
        return list(scene.visible.requests) if scene is not None and scene.visible else []

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        window = scene.visible
        colours = self.ink
        if window is None:
            return [[Segment(" no requests in view", ink(colours.quiet))]]
        columns = _REQUESTS if window.stream is None else _STREAMED
        found = sorted(window.requests.items(), key=lambda item: -item[1].done)
        rows = [self._row(name, part, scene, len(found) == 1) for name, part in found]
        if len(rows) > 1:
            room = max(1, height - 2)
            if len(rows) > room:
                rest = merge(
                    [Window(0, "load", requests={"": part}) for _, part in found[room - 1 :]]
                )
                name = f"{len(rows) - room + 1} more"
                rows = [*rows[: room - 1], self._row(name, rest.requests[""], scene)]
            everything = Requests(window.done, window.failed, window.latency, stream=window.stream)
            rows.append(self._row("all", everything, scene, whole=True))
        last = ink(colours.text, bold=len(rows) > 1)
        return table(columns, rows, width, (ink(colours.quiet), ink(colours.text), last))

    def _row(self, name: str, part: Requests, scene: Scene, whole: bool = False) -> list[str]:
        """`whole`: these are all, so what is unsent, lost or overdue of any kind is theirs."""
        window = scene.visible if whole else None
        unsent = window.unsent + window.lost if window else 0
        alone = Window(0, "load", requests={name: part}, unsent=unsent)
        overdue = scene.visible_overdue if whole else 0
        times = [quantile_ms(alone, share, overdue) for share in (0.5, 0.95, 0.99, 0.999)]
        shown = [ms_text(value, scene.limit_ns) for value in times]
        seconds = max(1, scene.visible_s)
        begin = [name, units.count(part.done), number(part.done / seconds)]
        band = self._band(scene, times[2]) if whole else ""
        end = [units.count(failures(alone)), units.percent(error_share(alone))]
        if scene.visible is not None and scene.visible.stream is not None:
            told = part.stream or Stream()
            first, gaps = (
                [units.ms(found.quantile(share)) for share in (0.5, 0.99)]
                for found in (told.first, told.gaps)
            )
            rate = number(tokens(told, scene) / seconds)
            return [*begin, shown[0], shown[2], band, *first, *gaps, rate, *end]
        return [*begin, *shown[:3], band, shown[3], units.ms(part.latency.maximum), *end]

    def _band(self, scene: Scene, tail: float | None) -> str:
        """Half as wide as the p99's band is, in ms."""
        found = self._sure.band(scene, 0.99)
        around = found.around(tail * units.MS) if found and tail is not None else None
        return "" if around is None else units.significant(around / units.MS, 2)


def _kinds(window: Window) -> list[str]:
    """How requests failed, the most frequent first."""
    known = {**window.failed, "not sent": window.unsent, "not answered": window.lost}
    kinds = sorted(known.items(), key=lambda item: -item[1])
    return [f"{name} {units.count(number)}" for name, number in kinds if number]


def moment(event: Event, colours: Palette) -> tuple[str, str, str]:
    """(clock, sign, colour) of an event."""
    colour = {
        "alert": colours.p99, "note": colours.p99, "ended": colours.ok, "mark": colours.limit,
        "failed": colours.error, "failure": colours.error, "done": colours.ok,
    }.get(event.kind, colours.quiet)  # fmt: skip
    return units.clock(event.second * units.SECOND), _SIGNS[event.kind], colour


def near(events: Sequence[Event], scene: Scene) -> list[Event]:
    """Newest first; in the past the two that came next, then what had happened."""
    newest_first = sorted(events, key=lambda event: -event.second)
    if not scene.past:
        return newest_first
    later = [event for event in newest_first if event.second >= scene.moment]
    shown = [] if scene.sight.speed else later[-_NEXT:]
    return [*shown, *newest_first[len(later) :]]


class Events(Board, can_focus=True):
    """What happened, newest first, wrapped under itself; in the past from the place where one is,
    with what came next above it. A click goes there."""

    reading = (
        "Events: ▲ an alert fires, ✓ it is over, ◆ a mark (yours, or of a change to load or "
        "engine), ✗ failures begin, · a stage of the load. A click goes there; [ and ] go from one "
        "alert or mark to the next.",
    )

    _rows: Sequence[Event] = ()  # of which event each row is

    def titles(self, scene: Scene) -> None:
        self.head("Events")

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        rows: list[Cells] = []
        drawn: list[Event] = []
        for event in near(self.found(scene), scene):
            if len(rows) >= height:
                break
            lines = self._lines(event, width, height - len(rows))
            rows += lines
            drawn += [event] * len(lines)
        self._rows = drawn
        return rows or [[Segment(NEVER if scene.over else "nothing yet", ink(self.ink.quiet))]]

    def found(self, scene: Scene) -> Sequence[Event]:
        return scene.view.events

    def on_click(self, event: Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and 0 <= offset.y < len(self._rows):
            self.post_message(Inspect(self._rows[offset.y].second))

    def _lines(self, event: Event, width: int, most: int) -> list[Cells]:
        """Where there is room for only the `most` of them, the last says that it goes on."""
        clock, sign, colour = moment(event, self.ink)
        indent = len(clock) + 3
        room = max(8, width - indent)
        found = textwrap.wrap(without_folder(event.text), room) or [""]
        if len(found) > most:
            found = [*found[: most - 1], f"{found[most - 1][: room - 2]} …"]
        first, *rest = found
        head = [
            Segment(f"{clock} ", ink(self.ink.quiet)),
            Segment(sign, ink(colour)),
            Segment(f" {first}", ink(self.ink.text)),
        ]
        return [head, *([Segment(" " * indent + line, ink(self.ink.text))] for line in rest)]


class Ticker(Board):
    """The newest events in one line, for short terminals."""

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        cells: Cells = [Segment(" ")]
        room = width - 1
        self._ends: list[tuple[int, Event]] = []
        events = near(scene.view.events, scene)
        for event in (e for e in events if not scene.past or e.second < scene.moment):
            clock, sign, colour = moment(event, self.ink)
            text = f" {without_folder(event.text)}   "
            needed = len(clock) + 2 + len(text)
            if needed > room and len(cells) > 1:
                break
            cells += [
                Segment(f"{clock} ", ink(self.ink.quiet)),
                Segment(sign, ink(colour)),
                Segment(_cut(text, room - len(clock) - 2), ink(self.ink.text)),
            ]
            room -= needed
            self._ends.append((width - room, event))
        return [cells]

    def on_click(self, event: Click) -> None:
        hit = next((found for end, found in self._ends if event.x < end), None)
        if hit is not None:
            self.post_message(Inspect(hit.second))


def _cut(text: str, room: int) -> str:
    return text if len(text.rstrip()) <= room else f"{text[: max(0, room - 1)]}…"
