"""When the screen in front is drawn anew: not for every record, not all of it while somebody is on
the way through a run, and not while the terminal is behind."""

import gc
import time
from collections.abc import Callable
from typing import Any

from textual.app import App

from dashboard.terminal import LastingDriver

_BETWEEN_S = 0.45  # at least, between two redraws for new data
_BREATHS = 30
_MOST = 300  # also while a key is held down
_A_KEY = 2  # breaths, by what it leaves behind
_ALL = 10  # collections, of which one is of all objects
_CALM_S, _CALM_ALL_S = 0.3, 5.0  # since the last key, for some objects, and for all
_FRAME_S = 0.1  # and the picture is out
_REST_S = 0.3  # between two keys, from which on all of a picture is worked out


class Pacing:
    """Of one screen. `draw` makes the picture and returns whether there was one to be made."""

    def __init__(self, app: App[Any], draw: Callable[[], bool]) -> None:
        self._app, self._draw = app, draw
        self._drawn = 0.0
        self._scheduled = False
        self.hasty = False  # what takes long is left out
        self.late = False  # there is something newer than what was drawn last
        self._hurried = 0.0  # when the last key came
        self._breaths = self._collections = 0

    def begin(self) -> None:
        """Once the app has timers."""
        self._rest = self._app.set_interval(_REST_S, self._rested, pause=True)

    def soon(self) -> None:
        """There is more to see."""
        wait = self._drawn + _BETWEEN_S - time.monotonic()
        if wait <= 0:
            self.now()
        elif not self._scheduled:
            self._scheduled = True
            self._app.set_timer(wait, self.now)

    def hurry(self) -> None:
        """A key: what is quick at once, a moment after it the whole."""
        self.hasty, self._hurried = True, time.monotonic()
        self._breaths += _A_KEY
        self._rest.reset()
        self._rest.resume()
        self.now()

    def now(self) -> None:
        """As soon as the terminal keeps up."""
        self._drawn, self._scheduled = time.monotonic(), False
        driver = self._app._driver
        known = driver if isinstance(driver, LastingDriver) else None
        self.late = known is not None and known.frames.behind
        if not self.late and self._draw() and known is not None:
            self._app.call_after_refresh(known.frames.sent, known)

    def answered(self) -> None:
        """The terminal has drawn what was sent before it was asked."""
        if self.late:
            self.now()

    def breathe(self) -> None:
        """Once a second, and when somebody rests: while nobody presses keys looks for cycles of
        objects that nobody uses; only among the newest, and now and then among more. It takes as
        long as some pictures, and by itself Python would do it in the middle of one."""
        self._breaths += 1
        calm = time.monotonic() - self._hurried
        if self._breaths >= _BREATHS and (calm > _CALM_S or self._breaths >= _MOST):
            self._breaths, self._collections = 0, self._collections + 1
            everything = self._collections >= _ALL and calm > _CALM_ALL_S
            if everything:
                self._collections = 0
            gc.collect(2 if everything else 1)
        elif calm > _CALM_S:
            gc.collect(0)

    def _rested(self) -> None:
        self.hasty = False
        self._rest.pause()
        self.now()
        self._app.set_timer(_FRAME_S, self.breathe)
