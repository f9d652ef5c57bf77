"""Line 1 of the list of runs: which folder, how many, the filter, and how the open run stands."""

from rich.segment import Segment

from dashboard.scene import Scene
from dashboard.theme import ink
from dashboard.widgets.board import Board, Cells
from dashboard.widgets.header import alerts, state, trust


class RunsLine(Board):
    """`told` is what the screen says of its list: folder, number, filter; the last goes last."""

    told: tuple[str, ...] = ()

    def tell(self, *told: str) -> None:
        if told != self.told:
            self.told = told
            self._strips = None
            self.refresh()

    def draw(self, scene: Scene, width: int, height: int) -> list[Cells]:
        colours = self.ink
        right: Cells = []
        if scene.view.start is not None and scene.going:
            now = state(scene, colours)
            right = [Segment(now.sign, ink(now.colour)),
                     Segment(f" {now.word} ", ink(colours.text, bold=True))]  # fmt: skip
            for part in (alerts(scene, colours), trust(scene, colours)):
                right += [*part, Segment(" ")] if part else []
        room = width - sum(part.cell_length for part in right)
        parts = ["loadbench", "runs", *self.told]
        while len(parts) > 1 and len(_joined(parts)) > room:
            del parts[0]
        left = _joined(parts)[: max(0, room)]
        brand = len(" loadbench") if parts[0] == "loadbench" else 0
        return [[
            Segment(left[:brand], ink(colours.text, bold=True)),
            Segment(left[brand:].ljust(room - brand), ink(colours.text)),
            *right,
        ]]  # fmt: skip


def _joined(parts: list[str]) -> str:
    """`loadbench  runs  results/  ·  27 runs`: what comes after the folder is set apart."""
    apart = max(0, parts.index("runs") + 2) if "runs" in parts else 1
    return " " + "  ".join(parts[:apart]) + "".join(f"  ·  {part}" for part in parts[apart:])
