"""The whole load on the master's clock: when it begins and ends, what falls due when, what was done
to its shape. No worker's part of it; who has which is the business of `roll`.
"""

from bisect import bisect_right

from msgspec.structs import replace

from loadbench.load.schedule import NEVER, Schedule
from loadbench.model import Window
from loadbench.plan import Plan, Share
from loadbench.shape import Steering, length_ns, phase_at, rate_at, steered
from loadbench.units import SECOND


class Axis:
    """Second 0 begins at `origin`, the first window at `begin`; nothing falls due from `end` on."""

    def __init__(self, plan: Plan, origin: int) -> None:
        self._plan = plan
        self._schedule = Schedule(replace(plan, share=Share()), origin)
        self._paced = plan.arrivals in ("constant", "poisson", "gamma")
        self._phases = plan.phases
        self._stop = NEVER
        self._pauses: list[int] = []  # when one began, when it ended, when the next began …
        self.slowest = plan.slowest
        self.origin = origin
        self.begin = origin - plan.warmup_ns
        self.steering = Steering()
        self.history: list[tuple[int, Steering]] = []

    @property
    def end(self) -> int:
        return min(self.origin + length_ns(self._plan.phases), self._stop)

    def second(self, moment: int) -> int:
        """The second that a moment lies in."""
        return (moment - self.origin) // SECOND

    def at(self, second: int) -> int:
        """When a second begins."""
        return self.origin + second * SECOND

    def stop(self, moment: int) -> None:
        self._stop = min(self._stop, moment)

    def steer(self, steering: Steering, moment: int) -> None:
        if steering.paused != self.steering.paused:
            self._pauses.append(moment)
        self.steering = steering
        self.history.append((moment, steering))
        if self._paced:
            since = moment - self.origin
            self._phases = steered(self._plan.phases, self._phases, since, steering)
            self._schedule.steer(self._phases, moment)

    def held(self, share: Share, begin: int, end: int) -> int:
        """How many requests of a share fall due in [begin, end), whoever has it."""
        edges = [-NEVER, *self._pauses, self.end]
        spans = [
            (max(begin, since), min(end, until, self.end))
            for since, until in zip(edges[::2], edges[1::2], strict=False)
        ]
        return sum(self._schedule.held(share, *span) for span in spans if span[0] < span[1])

    def forget(self, second: int) -> None:
        """Nobody will ask for what is `held` before a second."""
        self._schedule.forget(self.at(second))

    def blank(self, second: int) -> Window:
        """A second in which nothing happened."""
        if second < 0:
            rate = None if self._plan.arrivals == "closed" else self._plan.phases[0].start
            return Window(second=second, stage="warmup", rate=rate)
        if self.at(second) >= self.end:
            return Window(second=second, stage="drain", rate=0.0 if self._paced else None)
        begin, middle = second * SECOND, second * SECOND + SECOND // 2
        rate = rate_at(self._phases, middle) if self._paced else None
        if self._paced and bisect_right(self._pauses, self.origin + middle) % 2:
            rate = 0.0
        phase = phase_at(self._plan.phases, begin)
        return Window(second=second, stage="load", phase=phase, rate=rate)
