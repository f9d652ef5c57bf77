"""The panels of the Engine screen that are text: batch sizes, why batches closed, cost by size."""

import textwrap

from rich.segment import Segment
from textual.geometry import Size

from dashboard.measures import brief, part_of
from dashboard.scene import Scene
from dashboard.theme import ink
from dashboard.widgets.board import Board, Cells
from dashboard.widgets.table import Column, table
from loadbench import units
from loadbench.model import Server
from loadbench.report.batches import (
    groups,
    hint,
    median_size,
    reasons,
    rows_of,
)
from loadbench.report.optimum import of_the_best
from loadbench.report.parts import made_of
from loadbench.summary import best_possible

_LEFT = "▏▎▍▌▋▊▉█"
_BY_SIZE = (
    Column("size"),
    Column("batches"),
    Column("share", 1),
    Column("queue ms", 3),
    Column("batch wait ms", 4),
    Column("compute ms"),
    Column("ms per row"),
    Column("of compute", 2),
)
NOTHING = "This target does not report queue and batch times."
_BRIEF = "not told by this target"


def bar(share: float, width: int) -> str:
    """A bar in eighths of a cell; what is above zero is at least a sliver."""
    eighths = round(share * width * 8)
    if share > 0:
        eighths = max(1, eighths)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_LEFT[rest - 1] if rest else "")


class EngineBoard(Board, can_focus=True):
    """Draws `rows(server, width, height)` if the target tells of its inside."""

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        server = scene.visible.server if scene.visible else None
        if server is None or not server.batches:
            quiet = ink(self.ink.quiet)
            told = scene.visible is None or server is not None
            lines = textwrap.wrap("no batches in view" if told else NOTHING, width - 2)
            lines = lines if len(lines) <= height else [_BRIEF]
            return [[Segment(f" {line}", quiet)] for line in lines]
        return self.rows(server, width, height)

    def rows(self, server: Server, width: int, height: int) -> list[Cells]:
        raise NotImplementedError


class Best(Board):
    """One line once the run is over: what its batcher reached of the best possible."""

    def show(self, scene: Scene) -> None:
        super().show(scene)
        end = scene.view.end
        self.display = end is not None and end.optimum is not None

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        found = best_possible(scene.view.end.optimum) if scene.view.end else None
        if found is None:
            return []
        text = of_the_best(found, width - 3)
        return [[Segment(" ■", ink(self.ink.p95)), Segment(f" {text}", ink(self.ink.text))]]


class Parts(Board):
    """One line if the model has plugins, stages or a cache: what a batch is made of."""

    def show(self, scene: Scene) -> None:
        super().show(scene)
        self.display = bool(self._text(scene))

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        text = self._text(scene)
        shown = text if len(text) < width else f"{text[: max(0, width - 2)]}…"
        return [[Segment(f" {shown}", ink(self.ink.text))]]

    def _text(self, scene: Scene) -> str:
        server = scene.visible.server if scene.visible else None
        if server is None:
            return ""
        return made_of(server.parts_ms, server.cached, server.requests, server.cache_misses)


class Sizes(EngineBoard):
    """Share of batches by size, the full one named, and how full they are on average."""

    reading = (
        "Batch size: how many of the batches in view had how many rows; sizes that lie beside each "
        "other share a row where there are too many. fill: rows of the room that the batches had; "
        "where it was changed in view, each batch counts by the limit of its own time.",
    )

    def titles(self, scene: Scene) -> None:
        server = scene.visible.server if scene.visible else None
        changed = f"limit {server.room_text}" if server and server.rooms else ""
        long = ", ".join(filter(None, ["rows", scene.stretch, changed]))
        short = changed or "rows"
        self.head(f"Batch size [dim]({long})[/]", f"Batch size [dim]({short})[/]")

    def rows(self, server: Server, width: int, height: int) -> list[Cells]:
        text, quiet = ink(self.ink.text), ink(self.ink.quiet)
        room = max(4, width - 18)
        found = groups(server, height)
        total = sum(group.sizes.batches for group in found) or 1
        most = max(group.sizes.batches for group in found) / total or 1.0
        lines: list[Cells] = []
        for group in found:
            share = group.sizes.batches / total
            blocks = bar(share / most, room)
            lines.append(
                [
                    Segment(f"{group.name:>9} ", text),
                    Segment(blocks, ink(self.ink.p95)),
                    Segment("·" * (room - len(blocks)), quiet),
                    Segment(f" {part_of(share):>5}", text),
                ]
            )
        below = self._below(server, room)
        left = height - len(lines)
        if left > len(below):
            lines.append([])
        return [*lines, *below[-left:]] if left > 0 else lines

    def _below(self, server: Server, room: int) -> list[Cells]:
        text, quiet = ink(self.ink.text), ink(self.ink.quiet)
        words = (
            f"   median {median_size(server)}   mean {units.significant(server.mean_batch)}"
            f"   max {max(server.sizes)}"
        )
        share = server.fill
        lines: list[Cells] = [[Segment(words, quiet)]]
        if share is not None:
            blocks = bar(min(1.0, share), room)
            lines.append(
                [
                    Segment("     fill ", quiet),
                    Segment(blocks, ink(self.ink.p95)),
                    Segment("░" * (room - len(blocks)), quiet),
                    Segment(f" {part_of(share):>5}", text),
                ]
            )
        return lines


class Reasons(EngineBoard):
    """Why batches closed, and a hint where the numbers support one."""

    reading = (
        "Why batches closed: full, the longest wait was over, the oldest request could wait no "
        "longer for its limit, or the model stood idle. Where the numbers support it a line says "
        "what to try.",
    )

    _known = 0

    def titles(self, scene: Scene) -> None:
        self.head("Why batches closed")

    def show(self, scene: Scene) -> None:
        before = self._known
        super().show(scene)
        server = scene.visible.server if scene.visible else None
        self._known = len(reasons(server)) if server else 0
        if self._known != before:
            self.refresh(layout=True)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return max(1, self._known)

    def rows(self, server: Server, width: int, height: int) -> list[Cells]:
        found = reasons(server)
        quiet = ink(self.ink.quiet)
        if not found:
            return [[Segment(f" {_BRIEF}", quiet)]]
        total = sum(number for _, _, number in found)
        room = max(2, width - 28)
        lines: list[Cells] = []
        most = height if len(found) <= height else max(1, height - 1)
        for reason, name, number in found[:most]:
            share = number / total
            colour = {"full": self.ink.p95, "hold": self.ink.limit}.get(reason, self.ink.p50)
            lines.append(
                [
                    Segment(f" {name:<19.19}", ink(self.ink.text)),
                    Segment(f"{part_of(share):>5} ", ink(self.ink.text, bold=True)),
                    Segment(bar(share, room), ink(colour)),
                ]
            )
        if most < len(found) and most < height:
            lines.append([Segment(f" +{len(found) - most} more", quiet)])
        told = [[Segment(f" {line}", quiet)] for line in textwrap.wrap(hint(server), width - 2)]
        if told and len(lines) + len(told) + 1 <= height:
            lines += [[], *told]
        return lines


class BySize(EngineBoard):
    """What a batch of each size costs: the reason to batch, in one column."""

    reading = (
        "By batch size: means of the batches in view. Where ms per row falls with the size, "
        "batching pays; where it does not fall any more, larger batches only cost latency.",
    )

    def titles(self, scene: Scene) -> None:
        self.head(f"By batch size [dim]({scene.stretch})[/]", "By batch size")

    def rows(self, server: Server, width: int, height: int) -> list[Cells]:
        found = [group for group in groups(server, height - 1) if group.sizes.batches]
        batches = sum(group.sizes.batches for group in found)
        compute = sum(group.sizes.compute_ns for group in found) or 1
        lines = []
        for group in found:
            size = group.sizes
            rows = rows_of(server, group.low, group.high)
            lines.append(
                [
                    group.name,
                    units.count(size.batches),
                    part_of(size.batches / batches),
                    _mean(size.queue_ns, size.requests),
                    _mean(size.batch_wait_ns, size.requests),
                    _mean(size.compute_ns, size.batches),
                    _mean(size.compute_ns, rows),
                    part_of(size.compute_ns / compute),
                ]
            )
        plain = ink(self.ink.text)
        return table(_BY_SIZE, lines, width, (ink(self.ink.quiet), plain, plain))


def _mean(total_ns: int | None, number: int) -> str:
    """In ms; `n/a` where the target does not tell."""
    return brief(total_ns / number / units.MS if total_ns is not None and number else None)
