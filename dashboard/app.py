"""The dashboard: follows one run, hands scenes to the screen in front, and does what keys ask.

It only reads the run's folder. What it changes about a run goes through the run's own control
socket, so a dashboard that dies takes nothing with it.
"""

import time
from pathlib import Path

from textual.app import App

from dashboard.follow import Follow, Replay, Unreadable, ViewChanged
from dashboard.scene import Scene, Sight, Source, scene
from dashboard.screens.live import Live
from dashboard.screens.run import RunScreen
from dashboard.theme import DARK_THEME, SIXTEEN, THEMES
from loadbench.view import View

_BETWEEN_S = 0.45  # at least, between two redraws for new data


class Dashboard(App[None]):
    """`reader` is where records come from."""

    CSS_PATH = "dashboard.tcss"
    TITLE = "loadbench"
    SCREENS = {"live": Live}
    ENABLE_COMMAND_PALETTE = True

    def __init__(self, folder: Path, reader: Follow | Replay, theme: str = "") -> None:
        super().__init__()
        self._first_theme = theme
        self.folder = folder
        self.reader = reader
        self.run_view = View()
        self.sight = Sight()
        self._came: float | None = None  # when the newest data came
        self._drawn = 0.0
        self._scheduled = False
        self._problem = ""

    def on_mount(self) -> None:
        for theme in THEMES:
            self.register_theme(theme)
        few = self.console.color_system in ("standard", "windows")
        self.theme = self._first_theme or (SIXTEEN if few else DARK_THEME.name)
        self.push_screen("live")
        self.run_worker(self.reader.run(self.post_message), name="reader")
        self.set_interval(1.0, self._tick)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return {"quiet": "ansi_bright_black", "frame": "ansi_bright_black"}

    def on_view_changed(self, message: ViewChanged) -> None:
        self.run_view, self._came = message.view, message.at
        wait = self._drawn + _BETWEEN_S - time.monotonic()
        if wait <= 0:
            self.redraw()
        elif not self._scheduled:
            self._scheduled = True
            self.set_timer(wait, self.redraw)

    def on_unreadable(self, message: Unreadable) -> None:
        self._problem = message.reason
        self.redraw()

    def redraw(self) -> None:
        """Hands the present scene to the screen in front."""
        self._drawn, self._scheduled = time.monotonic(), False
        screen = self.screen
        if isinstance(screen, RunScreen):
            screen.show(self.scene())

    def scene(self) -> Scene:
        age = None if self._came is None else time.monotonic() - self._came
        source = Source(self.reader.mode, self.reader.speed, age, self._problem)
        return scene(self.run_view, self.sight, source)

    def _tick(self) -> None:
        if self._came is not None and time.monotonic() - self._came > 2:
            self.redraw()
