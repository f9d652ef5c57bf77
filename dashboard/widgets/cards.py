"""All cards of the machine, and who else is on them: another process is the usual culprit."""

from collections.abc import Sequence

from rich.segment import Segment

from dashboard.scene import Scene
from dashboard.theme import Palette, ink
from dashboard.widgets.board import Cells
from dashboard.widgets.table import Column, table
from loadbench import units
from loadbench.model import Gpu

_COLUMNS = (
    Column("card", left=True),
    Column("busy %"),
    Column("memory GB"),
    Column("W", 3),
    Column("°C", 4),
    Column("MHz", 2),
    Column("held down by", 1, left=True),
)


def cards(scene: Scene, serving: Sequence[Gpu], width: int, colours: Palette) -> list[Cells]:
    """A row a card, ● those that serve; below each the processes that are not ours. Empty
    where no card is known."""
    window = scene.recent or scene.view.latest
    found = window.machine.gpus if window and window.machine else ()
    if not found:
        return []
    plain, quiet = ink(colours.text), ink(colours.quiet)
    rows = [_row(gpu, gpu in serving) for gpu in found]
    head, *lines = table(_COLUMNS, rows, width, (quiet, plain, plain))
    shown = [head]
    for gpu, line in zip(found, lines, strict=True):
        shown.append(line)
        for pid, memory in gpu.processes:
            held = f", {units.gigabytes(memory)} GB of its memory" if memory is not None else ""
            shown.append(
                [
                    Segment("     ▲", ink(colours.p99)),
                    Segment(f" pid {pid} is on it too{held}", plain),
                ]
            )
    if not any(gpu.processes for gpu in found):
        shown.append([Segment("   no process of others is seen on any of them", quiet)])
    return shown


def _row(gpu: Gpu, serves: bool) -> list[str]:
    used = "n/a"
    if gpu.memory_used is not None:
        total = f" of {units.gigabytes(gpu.memory_total)}" if gpu.memory_total else ""
        used = f"{units.gigabytes(gpu.memory_used)}{total}"
    others = (gpu.power_w, gpu.temperature_c, gpu.sm_clock_mhz)
    return [
        f"{'●' if serves else '○'} {gpu.title} {gpu.name}",
        units.percent(gpu.utilization),
        used,
        *("n/a" if value is None else f"{value:.0f}" for value in others),
        ", ".join(gpu.throttle),
    ]
