"""The slowest requests in view, taken apart: each a bar on one time axis, and why it was slow.
Where there is no room for all of them one goes through them.
"""

import textwrap

from rich.segment import Segment
from textual.binding import Binding

from dashboard.scene import Scene
from dashboard.theme import Palette, ink
from dashboard.widgets.board import Board, Cells
from loadbench import units
from loadbench.causes import (
    ANSWER,
    COMPUTE,
    FIRST,
    HELD,
    LATE,
    OTHERS,
    QUEUE,
    SENDING,
    WAIT,
    Around,
    explain,
    latency,
    second,
    seconds,
    stretches,
    tells,
)
from loadbench.model import Sample, Window
from loadbench.report.slowest import machine_then, rode, took
from loadbench.report.ticks import label, ticks
from loadbench.streams import NETWORK, RESTS
from loadbench.view import bins

_LEAST = 4  # rows a request; a fifth keeps them apart where there is room


def look(name: str, colours: Palette) -> tuple[str, str]:
    """The sign and the colour of a stretch."""
    return {
        LATE: ("╌", colours.error),
        HELD: ("≈", colours.asked),
        SENDING: ("·", colours.text),
        QUEUE: ("▓", colours.p99),
        WAIT: ("▒", colours.limit),
        COMPUTE: ("█", colours.p95),
        **dict.fromkeys((*RESTS, ANSWER), ("░", colours.quiet)),
        FIRST: ("▒", colours.limit),
        OTHERS: ("█", colours.p95),
    }[name]


def around(scene: Scene, sample: Sample) -> Around:
    """What is known of its time, as finely as the view still has it."""
    found: list[Window] = []
    for at in seconds(sample, scene.view.start):
        found += [
            bin.window for bin in bins(scene.view, at, at + 1) if bin.window not in found[-1:]
        ]
    return Around(tuple(found), scene.visible, scene.view.start)


def _ways(scene: Scene) -> list[str]:
    """How those in view were answered, as far as their servers tell."""
    samples = scene.visible.slowest if scene.visible else ()
    untold = [sample for sample in samples if not tells(sample)]
    rests = {name for sample in samples if tells(sample) for name, _ in stretches(sample)}
    found = [QUEUE, WAIT, COMPUTE] if len(untold) < len(samples) or not samples else []
    found += [name for name in RESTS if name in rests or (not samples and name == NETWORK)]
    found += [ANSWER] if any(sample.first is None for sample in untold) else []
    return found + ([FIRST, OTHERS] if any(sample.first for sample in untold) else [])


class Xray(Board, can_focus=True):
    """Rows for each request: what it was, its bar, its cause, its figures."""

    BINDINGS = [
        Binding("up", "step(-1)", show=False),
        Binding("down", "step(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
    ]
    reading = (
        "The slowest requests: from the moment each was due to its answer, on one time axis. "
        "late: the generator sent it late. held: it waited for a free connection. sending, queue, "
        "batch wait, compute, network: its way; untold: what a server that tells no queue leaves "
        "open; answer: server and network, where it tells neither, or its first token and the "
        "others. → why it was slow, as far as the log shows it. ↑ and ↓ go through them where "
        "there is no room for all.",
    )

    _first = 0  # the uppermost that is drawn
    _laid: tuple[Scene, object, list[Cells], int] | None = None

    def action_step(self, steps: int) -> None:
        samples = self.scene.visible.slowest if self.scene and self.scene.visible else ()
        if self.scene is not None:
            self._first = max(0, min(len(samples) - 1, self._first + steps))
            self.show(self.scene)

    def action_page(self, pages: int) -> None:
        if self.scene is not None:
            self.action_step(pages * max(1, self._lay(self.scene, *self.size)[1]))

    def titles(self, scene: Scene) -> None:
        the = "" if scene.past else "the "
        ended = f"of those that ended in {the}{scene.stretch}"
        legend = [
            f"[{colour if colour.startswith('#') else f'ansi_{colour}'}]{sign}[/] {name}"
            for name in (LATE, HELD, SENDING, *_ways(scene))
            for sign, colour in [look(name, self.ink)]
        ]
        below = ["  ".join(legend), " ".join(legend[3:]), ""]
        place = self._place(scene)
        self.head(
            f"The slowest requests{place} [dim]({ended})[/]",
            f"The slowest requests{place}",
            below=below,
        )

    def _place(self, scene: Scene) -> str:
        """Which of them are in sight, where that is not all."""
        number = len(scene.visible.slowest) if scene.visible else 0
        shown = self._lay(scene, *self.size)[1] if self.size.height else number
        if shown >= number:
            return ""
        first = self._begin(number) + 1
        places = f"{first}-{first + shown - 1}" if shown > 1 else f"{first}"
        return f"  {places} of {number} [dim]↑ ↓[/]"

    def _begin(self, number: int) -> int:
        return max(0, min(self._first, number - 1))

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        return self._lay(scene, width, height)[0]

    def _lay(self, scene: Scene, width: int, height: int) -> tuple[list[Cells], int]:
        """The rows, and how many requests they show; made once for a scene."""
        key = (width, height, self._first, self.app.theme)
        if self._laid is None or self._laid[0] is not scene or self._laid[1] != key:
            self._laid = (scene, key, *self._made(scene, width, height))
        return self._laid[2], self._laid[3]

    def _made(self, scene: Scene, width: int, height: int) -> tuple[list[Cells], int]:
        samples = scene.visible.slowest if scene.visible else ()
        if not samples:
            text = "No request ended in view. Move or zoom, or wait for the first answers."
            if scene.visible and scene.visible.latency.count:
                text = "The log has no single requests of what is in view."
            lines = textwrap.wrap(text, max(1, width))
            return [[Segment(line, ink(self.ink.quiet))] for line in lines], 0
        longest = max(1, *map(latency, samples))
        rows: list[Cells] = []
        shown = 0
        gap = (_LEAST + 1) * len(samples) < height
        for sample in samples[self._begin(len(samples)) :]:
            found = self._request(scene, sample, longest, width)
            found = found if shown else found[: max(0, height - 2)]  # one is there in any case
            if len(rows) + len(found) > height - 2:
                break
            rows += [*([[]] if gap and shown else []), *found]
            shown += 1
        return [*rows, *self._axis(longest, scene, width)], shown

    def _request(self, scene: Scene, sample: Sample, longest: int, width: int) -> list[Cells]:
        """What its first line has no room for stands last."""
        context = around(scene, sample)
        cause = explain(sample, context)
        plain, quiet = ink(self.ink.text), ink(self.ink.quiet)
        why = textwrap.wrap(cause.text, max(20, width - 2)) or [""]
        times = [_time(name, length, sample) for name, length in stretches(sample)]
        times = [*times[:-1], *(f"{last} ms" for last in times[-1:])]
        head, left = self._head(scene, sample, machine_then(context.then, context.start), width)
        return [
            head,
            self._bar(sample, longest, width),
            *([Segment(("→ " if not at else "  ") + line, plain)] for at, line in enumerate(why)),
            *([Segment(f"  {line}", quiet)] for line in _packed([*times, *left], width - 2)),
        ]

    def _head(
        self, scene: Scene, sample: Sample, state: str, width: int
    ) -> tuple[Cells, list[str]]:
        """As much of it as fits, the machine's state first to go; and what does not."""
        at = second(sample, scene.view.start)
        when = "" if at is None else f"at {units.clock(at * units.SECOND)}"
        parts = [part for part in (when, sample.request, rode(sample), state) if part]
        text, left = took(sample), list[str]()
        while parts and len("   ".join([text, *parts])) > width:
            left.insert(0, parts.pop())
        rest = "   ".join(parts)
        return [
            Segment(text, ink(self.ink.p99, bold=True)),
            Segment(f"   {rest}" if rest else "", ink(self.ink.text)),
        ], left

    def _bar(self, sample: Sample, longest: int, width: int) -> Cells:
        cells: Cells = []
        at = before = 0
        for name, length in stretches(sample):
            at += length
            until = round(at / longest * width)
            sign, colour = look(name, self.ink)
            cells.append(Segment(sign * (until - before), ink(colour)))
            before = until
        return cells

    def _axis(self, longest: int, scene: Scene, width: int) -> list[Cells]:
        """Ms since each was due, and the limit of the run."""
        top = longest / units.MS
        line, below = ["─"] * width, [" "] * width
        marks = [(0.0, "due"), *((tick, f"{label(tick)}") for tick in ticks(top, width // 12))]
        limit = scene.limit_ns / units.MS if scene.limit_ns else None
        if limit is not None and limit <= top:
            marks = [(limit, f"limit {label(limit)}"), *marks]
        for value, text in marks:
            x = min(width - 1, round(value / top * width))
            left = max(0, min(width - len(text), x - len(text) // 2))
            if not "".join(below[max(0, left - 1) : left + len(text) + 1]).strip():
                line[x] = "┴"
                below[left : left + len(text)] = text
        unit = " ms"
        if "".join(below[-len(unit) - 1 :]).strip() == "":
            below[-len(unit) :] = unit
        quiet = ink(self.ink.quiet)
        return [[Segment("".join(line), quiet)], [Segment("".join(below), quiet)]]


def _time(name: str, length: int, sample: Sample) -> str:
    """A stretch of its way; of compute also what the server says that it is made of."""
    inner = sample.parts.items() if name == COMPUTE else ()
    made = ", ".join(f"{part} {units.ms(ns)}" for part, ns in inner)
    return f"{name} {units.ms(length)}" + (f" ({made})" if made else "")


def _packed(parts: list[str], width: int) -> list[str]:
    """As few lines as they fit on, none of them taken apart."""
    lines = parts[:1]
    for part in parts[1:]:
        if len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(part)
    return lines
