"""Screen 2, Engine: how batches form, why they close, what they cost, where time inside goes."""

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from dashboard import measures
from dashboard.measures import brief, number, part_ms
from dashboard.scene import Scene
from dashboard.screens.run import RunScreen
from dashboard.theme import legend
from dashboard.widgets.chart import Chart, Plot
from dashboard.widgets.engine import NOTHING, Best, BySize, Parts, Reasons, Sizes
from dashboard.widgets.panels import Ticker
from dashboard.widgets.tile import Reading, Tile
from loadbench import units
from loadbench.model import Part, Server

INSIDE = Plot(
    measures.inside, lambda ink: (ink.p95, ink.limit, ink.p99), "ms", log=True, empty=NOTHING
)


def _server(scene: Scene) -> Server | None:
    return scene.recent.server if scene.recent else None


def _paced(scene: Scene) -> Server | None:
    return scene.paced.server if scene.paced else None


def rate(scene: Scene) -> Reading:
    server = _paced(scene)
    batches = server.batches if server else None
    value = None if batches is None else batches / max(1, scene.paced_s)
    mean = server.mean_batch if server else None
    note = f"{units.significant(mean)} rows each" if mean else ""
    return Reading("Batches", "/s", number(value), note, "batch", "/s")


def filled(scene: Scene) -> Reading:
    server = _server(scene)
    share = server.fill if server else None
    mean = units.significant(server.mean_batch) if server else "n/a"
    note = f"{mean} of {server.room_text}" if server and server.room else ""
    if server and server.bound:
        note = f"of {server.room} ({server.bound})"  # rows each stand beside it
    return Reading("Batch fill", "%", units.percent(share), note, "fill", "%")


def _part(title: str, short: str, part: Part | None) -> Reading:
    """A median with its p99, or a mean where the target tells no more."""
    if part is not None and part.histogram is None:
        return Reading(title, "ms mean", brief(part_ms(part, 0.5)), "", short, "ms")
    note = f"p99 {brief(part_ms(part, 0.99))}" if part else ""
    return Reading(title, "ms p50", brief(part_ms(part, 0.5)), note, short, "ms")


def queue_wait(scene: Scene) -> Reading:
    server = _server(scene)
    return _part("Queue wait", "queue", server.queue if server else None)


def compute(scene: Scene) -> Reading:
    server = _server(scene)
    return _part("Compute", "comp", server.compute if server else None)


def instances(scene: Scene) -> Reading:
    server = _paced(scene)
    if server is None or server.busy_ns is None:
        return Reading("Instances", "busy", "n/a", "", "busy")
    busy = server.busy_ns / (max(1, scene.paced_s) * units.SECOND)
    note = f"of {server.instances}" if server.instances else ""
    return Reading("Instances", "busy", units.significant(busy, 2), note, "busy")


class InsideChart(Chart):
    """Stacked: compute at the bottom, the part that should be flat."""

    def titles(self, scene: Scene) -> None:
        ink, server = self.ink, scene.visible.server if scene.visible else None
        told = server is not None and server.compute is not None
        exact = told and server is not None and server.compute.histogram is not None  # type: ignore[union-attr]
        series = (
            ("compute", ink.p95, server.compute if server else None),
            ("batch wait", ink.limit, server.batch_wait if server else None),
            ("queue", ink.p99, server.queue if server else None),
        )
        names = "  ".join(
            legend("■", colour, name) for name, colour, part in series if part or not told
        )
        kind = "p95" if exact or not told else "mean"
        short = names.replace("batch wait", "wait").replace("  ", " ")
        self.head(
            f"Time inside the engine  {names}  [dim]({kind}, ms)[/]",
            f"Inside {short} [dim]{kind}[/]",
            short,
            "Time inside",
            below=("log scale" if scene.sight.log else "",),
        )


class Engine(RunScreen):
    """Tiles, batch sizes, close reasons, the time inside, cost by size."""

    def body(self) -> ComposeResult:
        with Horizontal(id="tiles"):
            yield Tile(rate, lambda scene: measures.batches_per_second, id="tile-batches")
            yield Tile(filled, lambda scene: measures.fill, id="tile-fill")
            yield Tile(queue_wait, lambda scene: measures.queue_wait, id="tile-queue-wait")
            yield Tile(compute, lambda scene: measures.compute, id="tile-compute")
            yield Tile(instances, lambda scene: measures.instances_busy, id="tile-instances")
        with Horizontal(id="charts"):
            with Vertical(id="forming"):
                yield Sizes(id="sizes", classes="panel")
                yield Reasons(id="reasons", classes="panel")
            yield InsideChart(INSIDE, id="inside")
        yield Best(id="best")
        yield Parts(id="parts")
        yield BySize(id="by-size", classes="panel")
        yield Ticker(id="ticker")
