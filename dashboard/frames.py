"""Frames on their way to the terminal: few at a time, so that a slow one is shown the present.

Textual writes through a thread with a bounded queue. A terminal that takes long over each frame
fills it: what is shown lies ever further back, and at last nothing works until there is room again.
So a frame that finds others waiting is left out, and the whole screen is drawn as it then is as
soon as they have been taken.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dashboard.app import Dashboard

_MOST = 6  # writes that may wait: a frame is three
_AGAIN_S = 0.03


class Frames:
    """Of one terminal."""

    def __init__(self, app: "Dashboard") -> None:
        self._app = app
        self._left_out = False

    def may_go(self) -> bool:
        """Whether a frame may be written now; if not the screen is drawn later."""
        if not self._waiting:
            return True
        if not self._left_out:
            self._left_out = True
            self._app.set_timer(_AGAIN_S, self._again)
        return False

    @property
    def _waiting(self) -> bool:
        writer = getattr(self._app._driver, "_writer_thread", None)  # none without a terminal
        return writer is not None and writer._queue.qsize() >= _MOST

    def _again(self) -> None:
        self._left_out = False
        if self.may_go() and self._app.is_running:
            screen = self._app.screen
            self._app._display(screen, screen._compositor.render_update(full=True))
