"""Going through a run in time: pausing, moving, looking at one second, from alert to alert, playing
from where one is, and two moments to be compared.

Works on any run, finished or going on, for it only changes where one looks (`Sight`); what is in
view is read by others. The verbs are what keys, palette and mouse call.
"""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from dashboard.moments import SPAN_S, Moment, read
from dashboard.past import Past
from dashboard.scene import Sight
from loadbench.view import View

if TYPE_CHECKING:
    from dashboard.app import Dashboard

PACES = (1, 10, 60)
EVERY_S = 0.5  # between two pictures while it plays
_AHEAD_S = 2  # of playing, for which the log is read ahead
SIGNS = ("alert", "mark")  # events that show in the charts


class Travel:
    """Of one run. `sight` is where one looks; `app` draws it."""

    def __init__(self, app: "Dashboard", play: int = 0) -> None:
        self._app = app
        self._pace = play or PACES[0]
        self._clock = 0.0  # second of the run, while it plays
        self._at = 0.0  # when that was so
        self._begin = bool(play)  # from the first second, once there is one

    # ── verbs ────────────────────────────────────────────────────────────────

    def pause(self) -> None:
        """Stand still and go on: with what was going on, the run or its being played."""
        sight = self._app.sight
        if sight.at is None:
            self._look(sight.paused(self._newest, self._newest))
        elif sight.speed:
            self._look(replace(sight, speed=0, played=True))
        elif sight.played:
            self.play()
        else:
            self.now()

    def zoom(self, steps: int, around: int | None = None) -> None:
        """Closer (negative) or wider; in a paused view `around` (else the cursor) stays there."""
        before = self._app.sight
        around = before.cursor if around is None else around
        after = before.zoomed(steps, self._newest)
        if before.at is not None and around is not None and not before.speed:
            wide, wider = before.span(self._newest), after.span(self._newest)
            right = round((before.at - around) * wider / wide)
            after = replace(after, at=max(1, min(self._newest, around + right)))
        self._look(after)

    def span(self, seconds: int) -> None:
        self._look(replace(self._app.sight, zoom=seconds, everything=False, held=None))

    def move(self, steps: int) -> None:
        sight = self._app.sight
        if sight.cursor is not None:
            step = max(1, sight.span(self._newest) // 100)
            self.inspect(sight.cursor + steps * step)
        else:
            self._stand(sight.moved(steps, self._newest))

    def drag(self, at: int) -> None:
        """The right edge of the picture to a second."""
        sight = self._app.sight.paused(max(1, min(self._newest, at)), self._newest)
        self._stand(sight)

    def bring(self, begin: int, end: int) -> None:
        """Paused, with these seconds in view."""
        self._look(replace(self._app.sight.running(), at=end, held=end - begin))

    def now(self) -> None:
        self._look(self._app.sight.running())

    def everything(self) -> None:
        self._look(replace(self._app.sight.running(), zoom=None, everything=True))

    def log(self) -> None:
        self._look(replace(self._app.sight, log=not self._app.sight.log))

    def inspect(self, second: int | None = None) -> None:
        """That second's figures; without one the last in view, or no longer any."""
        sight, newest = self._app.sight, self._newest
        if not newest:
            self._app.say("Nothing has been recorded yet.")
        elif second is None and sight.cursor is not None:
            self._look(replace(sight, cursor=None))
        else:
            here = newest if sight.at is None else sight.at
            self._stand(inspected(sight, here - 1 if second is None else second, newest))

    def share(self, part: float) -> None:
        """To this part of the whole run."""
        self.inspect(int(part * self._newest))

    def jump(self, steps: int) -> None:
        """To the next or the previous alert or mark."""
        sight = self._app.sight
        here = self._newest if sight.at is None else sight.at
        place = here if sight.cursor is None else sight.cursor
        found = target(self._app.run_view, place, steps)
        if found is None:
            word = "later" if steps > 0 else "earlier"
            self._app.say(f"There is no {word} alert or mark.")
        else:
            self.inspect(found)

    def play(self) -> None:
        """From where one is; at the end of a finished run from its beginning."""
        sight, first = self._app.sight, self._app.run_view.first
        if first is None or (sight.at is None and self._live):
            self._app.say("This is now. Go back with ← or [ first.")
        elif sight.speed:
            self.pause()
        else:
            at = sight.at if sight.at is not None else first + 1
            self._go(at if sight.cursor is None else sight.cursor + 1)

    def pace(self) -> None:
        """×1, ×10, ×60, and again."""
        at = PACES.index(self._pace) if self._pace in PACES else -1
        self._pace = PACES[(at + 1) % len(PACES)]
        if self._app.sight.speed:
            self._look(replace(self._app.sight, speed=self._pace))
        else:
            self._app.say(f"p plays at ×{self._pace} from where you are.")

    def bookmark(self) -> None:
        """The first press keeps this moment as A, the second as B and shows what changed."""
        sight = self._app.sight
        here = self._newest if sight.at is None else sight.at
        if not here:
            self._app.say("Nothing has been recorded yet.")
            return
        second, until = (here, here) if sight.cursor is None else (sight.cursor, sight.cursor + 1)
        before = sight.moments if len(sight.moments) < 2 else ()
        self._look(replace(sight, moments=(*before, Moment(second, until))))
        if before:
            self._app.action_go("difference")
        else:
            self._app.say("A is kept. Go to another moment and press , for B.")

    # ── as time goes by ──────────────────────────────────────────────────────

    def tick(self) -> None:
        """Called often: plays on, if it plays."""
        if self._begin and self._app.run_view.first is not None:
            self._begin = False
            self._go(self._app.run_view.first + 1)
        sight = self._app.sight
        if not sight.speed:
            return
        now = time.monotonic()
        self._clock += (now - self._at) * sight.speed
        self._at = now
        if self._clock >= self._newest and not (sight.speed == 1 and self._live):
            self._look(sight.running())
        elif int(self._clock) != sight.at:
            self._look(replace(sight, at=min(int(self._clock), self._newest)))

    def seen(self, past: Past) -> View:
        """The run with what is known of the time that is looked at; asks for what is not yet."""
        view, sight, newest = self._app.run_view, self._app.sight, self._newest
        end = newest if sight.at is None else min(sight.at, newest)
        begin = end - sight.span(newest)
        open_yet = [moment for moment in sight.moments if moment.window is None]
        singly = [moment.until - 1 for moment in open_yet]
        if sight.cursor is not None:
            singly.append(sight.cursor)
        elif sight.at is not None:  # tiles show the ten seconds to it, and to what is played next
            singly += range(end - 1, end + sight.speed * _AHEAD_S, 10)
        past.look(view, begin, end, singly)
        if open_yet:
            found = tuple(
                read(moment, past.filled(view, moment.until - SPAN_S, moment.until))
                for moment in sight.moments
            )
            self._app.sight = replace(sight, moments=found)
        return past.filled(view, begin, end)

    def _go(self, at: int) -> None:
        self._clock, self._at = float(at), time.monotonic()
        sight = self._app.sight
        held = sight.held if sight.at is not None and not sight.played else None
        self._look(replace(sight, at=at, held=held, cursor=None, speed=self._pace, played=True))

    def _stand(self, sight: Sight) -> None:
        self._look(replace(sight, speed=0))

    def _look(self, sight: Sight) -> None:
        self._app.sight = sight
        self._app.hurry()

    @property
    def _newest(self) -> int:
        return self._app.run_view.newest or 0

    @property
    def _live(self) -> bool:
        """Whether more may come: it has not ended, and its runner is there."""
        return self._app.run_view.end is None and not self._app.problem


def inspected(sight: Sight, second: int, newest: int) -> Sight:
    """That second in view, paused, with something before and behind it if it was not."""
    second = max(0, min(newest - 1, second))
    span = sight.span(newest)
    at = newest if sight.at is None else sight.at
    if not at - span <= second < at:
        at = max(1, min(newest, second + 1 + span // 3))
    return replace(sight.paused(at, newest), cursor=second)


def target(view: View, place: int, steps: int) -> int | None:
    """The second of the next alert or mark after a place, or of the one before it."""
    seconds = sorted({event.second for event in view.events if event.kind in SIGNS})
    found = [at for at in seconds if (at > place if steps > 0 else at < place)]
    if not found:
        return None
    return found[0] if steps > 0 else found[-1]
