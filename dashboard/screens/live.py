"""Screen 1, Live: does it keep up, what do users feel, where does the time go, what happened."""

from functools import cache, partial

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from dashboard import measures
from dashboard.measures import ms_text, number, quantile_ms
from dashboard.scene import Scene
from dashboard.screens.run import RunScreen
from dashboard.sureness import InView
from dashboard.theme import legend
from dashboard.widgets.board import Cells
from dashboard.widgets.cards import cards
from dashboard.widgets.chart import Chart, Plot
from dashboard.widgets.panels import Events, RequestTable, Split, Ticker
from dashboard.widgets.tile import Reading, Tile
from loadbench import units
from loadbench.model import Gpu, Machine
from loadbench.view import bins


def _limit_ms(scene: Scene) -> float | None:
    return scene.limit_ns / units.MS if scene.limit_ns else None


LATENCY = Plot(
    measures.latency, lambda ink: (ink.p50, ink.p95, ink.p99), "ms", limit=_limit_ms, log=True
)
THROUGHPUT = Plot(measures.throughput, lambda ink: (ink.area,), "/s")
QUEUE = Plot(measures.queue, lambda ink: (ink.p99,), "", empty="not told by this target")
IN_FLIGHT = Plot(measures.in_flight, lambda ink: (ink.p99,), "")
CPU = Plot(measures.cpu_busy, lambda ink: (ink.area,), "%", top=100.0)


@cache
def gpu_plot(*titles: str) -> Plot:
    return Plot(measures.gpu_busy(*titles), lambda ink: (ink.area,), "%", top=100.0)


def firing(scene: Scene, *quantities: str) -> bool:
    return scene.going and any(rule.quantity in quantities for rule in scene.view.firing)


def done(scene: Scene) -> Reading:
    """Both of the same seconds: the rate of the schedule may have changed within them."""
    window, over = scene.paced, max(1, scene.paced_s)
    rate = window.done / over if window else None
    note = f"asked {asked(scene)}"
    if window and window.users is not None:  # what they ask is what they get
        note = f"{number(window.users)} user{'s' * (window.users != 1)}"
    stream = window.stream if window else None
    if stream:
        note = f"{number(measures.tokens(stream, scene) / over)} tokens/s"
    return Reading("Throughput", "req/s", number(rate), note, "done", "/s", brief=note)


def asked(scene: Scene) -> str:
    window, over = scene.paced, max(1, scene.paced_s)
    return number(window.asked / over if window else None)


def tail(scene: Scene) -> Reading:
    window = scene.recent
    value = quantile_ms(window, 0.99, scene.overdue) if window else None
    text = ms_text(value, scene.limit_ns)
    note = f"limit {units.ms(scene.limit_ns)}" if scene.limit_ns else ""
    alert = firing(scene, "p50", "p95", "p99")
    return Reading("Latency p99", "ms", text.replace("> ", ">"), note, "p99", "ms", alert)


def errors(scene: Scene) -> Reading:
    window, totals = scene.recent, scene.view.totals
    share = measures.error_share(window) if window else None
    failed = totals.failed + totals.unsent + totals.lost + scene.unfinished
    whole = totals.done + failed
    of = f"{whole / 1000:.0f}k" if whole >= 10_000 else units.count(whole)
    note = f"{units.count(failed)} of {of}"
    alert = firing(scene, "errors")
    return Reading("Errors", "%", units.percent(share), note, "errors", "%", alert)


def queue(scene: Scene) -> Reading:
    """What waits in the server; for one that does not tell, what is in flight."""
    window = scene.recent
    visible = bins(scene.view, scene.begin, scene.end)
    alert = firing(scene, "queue_growth", "in_flight")
    if window is not None and (window.server is None or window.server.waiting is None):
        most = max((bin.fullest for bin in visible), default=0)
        value = number(window.in_flight + window.waiting)
        return Reading("In flight", "open", value, f"max {number(most)}", "open", "", alert)
    depths = [bin.deepest for bin in visible if bin.deepest is not None]
    value = number(window.server.waiting if window and window.server else None)
    note = f"max {number(max(depths, default=None))}"
    return Reading("Queue", "waiting", value, note, "queue", "", alert)


def _cards(scene: Scene) -> tuple[Gpu, ...]:
    """The GPU that serves, by the last ten seconds: the newest alone may lack its reading."""
    return measures.cards(scene, scene.recent or scene.view.latest)


def machine(scene: Scene) -> Reading:
    """The GPU that serves, or the CPU where there is none. Of several that may serve it is how busy
    the busiest is, and how full the fullest."""
    gpus, window = _cards(scene), scene.recent or scene.view.latest
    found = window.machine if window else None
    gpu = measures.most(gpus, lambda card: card.utilization)
    if gpu is not None:
        full = measures.most(gpus, lambda card: card.filled) or gpu
        alert = firing(scene, "gpu_utilization", "gpu_memory", "gpu_temperature", "gpu_power")
        value = units.percent(gpu.utilization)
        note = (f"GPU {full.title} " if len(gpus) > 1 else "") + _gpu_note(full)
        brief = note.partition(" GB")[0]
        return Reading("GPU", "%", value, note, "GPU", "%", alert, f"{brief} GB" if brief else "")
    value = units.percent(found.cpu if found else None)
    note, alert = _memory(found), firing(scene, "cpu", "memory")
    return Reading("CPU", "%", value, note, "CPU", "%", alert, note.removeprefix("memory "))


def _gpu_note(gpu: Gpu) -> str:
    parts = []
    if gpu.memory_used is not None:
        total = f"/{units.gigabytes(gpu.memory_total)}" if gpu.memory_total else ""
        parts.append(f"{units.gigabytes(gpu.memory_used)}{total} GB")
    if gpu.power_w is not None:
        parts.append(f"{gpu.power_w:.0f} W")
    return " ".join(parts)


def _memory(found: Machine | None) -> str:
    if found is None or found.memory_used is None:
        return ""
    used, total = units.gigabytes(found.memory_used), units.gigabytes(found.memory_total)
    return f"memory {used}/{total} GB"


def _queued(scene: Scene) -> bool:
    """Whether the server tells how many wait."""
    return any(bin.deepest is not None for bin in scene.view.rings[0][-3:])


class LatencyChart(Chart):
    """Bands with their values, the limit, how wide a column is, and how sure the p99 of all that
    is in view is."""

    def __init__(self, plot: Plot, sure: InView, id: str | None = None) -> None:
        super().__init__(plot, id=id)
        self._sure = sure

    def titles(self, scene: Scene) -> None:
        ink, window = self.ink, scene.recent
        names = zip(
            ("p50", "p95", "p99"), (0.5, 0.95, 0.99), (ink.p50, ink.p95, ink.p99), strict=True
        )
        text = partial(ms_text, limit_ns=scene.limit_ns)
        values = "  ".join(
            legend("■", colour, name, text(quantile_ms(window, share, scene.overdue)))
            if window
            else legend("■", colour, name)
            for name, share, colour in names
        )
        limit = legend("┄", ink.limit, f"limit {units.ms(scene.limit_ns)} ms")
        parts = [self._resolution(scene), "log scale" if scene.sight.log else ""]
        parts += [self._tail(scene), limit if scene.limit_ns else ""]
        below = [part for part in parts if part]
        fewer = ["  ".join(below[at:]) for at in range(len(below) + 1)]
        self.head(f"Latency  {values} ms", f"Latency {values.replace('  ', ' ')}", below=fewer)

    def _tail(self, scene: Scene) -> str:
        """`p99 in view 46.2 ±1.1`, or why it has no band."""
        value = quantile_ms(scene.visible, 0.99, scene.visible_overdue) if scene.visible else None
        found = self._sure.band(scene, 0.99)
        around = found.around(value * units.MS) if found and value is not None else None
        if around is None:
            why = self._sure.why_none(scene, 0.99) if value is not None else ""
            return f"no ±: {why}" if why else ""
        return f"p99 in view {units.significant(value)} ±{units.significant(around / units.MS, 2)}"

    def _resolution(self, scene: Scene) -> str:
        step = scene.span / max(1, self.size.width - 6)
        return f"1 column = {units.significant(step, 2)} s" if round(step, 1) > 1 else ""


class ThroughputChart(Chart):
    """Done as an area, asked as the line over it."""

    def titles(self, scene: Scene) -> None:
        reading = done(scene)
        area = legend("■", self.ink.area, "", reading.value)
        line = legend("─", self.ink.asked, "asked", asked(scene))
        self.head(f"Throughput {area} {line}", f"Done {area} {line}", f"{area} {line}")


class QueueChart(Chart):
    """Waiting in the server, or in flight."""

    def titles(self, scene: Scene) -> None:
        self.plot_now(QUEUE if _queued(scene) else IN_FLIGHT)
        reading = queue(scene)
        self.head(
            f"{reading.title} [b]{reading.value}[/b] [dim]{reading.unit}[/]",
            below=(reading.note, ""),
        )


class MachineChart(Chart):
    """The GPU that serves, or the CPU where there is none; large, with all cards below it."""

    def titles(self, scene: Scene) -> None:
        titles = [gpu.title for gpu in _cards(scene)]
        self.plot_now(gpu_plot(*titles) if titles else CPU)
        reading = machine(scene)
        self.head(f"{reading.title} busy [b]{reading.value}[/b] %", below=(reading.note, ""))

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        below: list[Cells] = []
        if self.has_class("-maximized"):
            below = cards(scene, _cards(scene), width, self.ink)[: height // 2]
        above = height - len(below) - bool(below)
        rows = super().draw(scene, width, above)
        return [*rows, *([[]] * (height - len(below) - len(rows))), *below]


def _queue_course(scene: Scene) -> measures.Reader:
    return measures.queue if _queued(scene) else measures.in_flight


def _machine_course(scene: Scene) -> measures.Reader:
    titles = [gpu.title for gpu in _cards(scene)]
    return measures.gpu_busy(*titles) if titles else measures.cpu_busy


def tiles() -> ComposeResult:
    yield Tile(done, lambda scene: measures.throughput, id="tile-done")
    yield Tile(tail, lambda scene: measures.tail, id="tile-tail")
    yield Tile(errors, lambda scene: measures.errors, id="tile-errors")
    yield Tile(queue, _queue_course, id="tile-queue")
    yield Tile(machine, _machine_course, id="tile-machine", large="machine")


class Live(RunScreen):
    """Tiles, charts, the time split, requests and events."""

    def body(self) -> ComposeResult:
        sure = InView()
        with Horizontal(id="tiles"):
            yield from tiles()
        with Horizontal(id="charts"):
            yield LatencyChart(LATENCY, sure, id="latency")
            yield ThroughputChart(THROUGHPUT, id="throughput")
            with Vertical(id="third"):
                yield MachineChart(CPU, id="machine")
                yield QueueChart(QUEUE, id="queue")
        yield Split(id="split")
        with Horizontal(id="bottom"):
            yield RequestTable(sure, id="requests")
            yield Events(id="events")
        yield Ticker(id="ticker")
