"""When a run that goes on until its checks are decided may end: each shown to pass, or to fail.

The bound behind it (`loadbench.certainty`) holds at all looks together, so that it is no matter how
often one looks, nor that one stops when one has seen enough. It says nothing of loads whose rate
changes, nor of checks that are no shares of requests: whoever asks for that is told before anything
is run.
"""

from msgspec.structs import replace

from loadbench.assurance import Blocks, decided, missing, share_of
from loadbench.certainty import LEAST
from loadbench.errors import SpecError
from loadbench.judge.bands import about
from loadbench.model import Mark, Start, Window
from loadbench.report.certain import check_name
from loadbench.spec import Scenario
from loadbench.units import SECOND, duration

_FIRST = 2 * LEAST  # seconds before anything can be shown
_STEP = 1.02  # how much longer the run is at the next look: each costs more than the one before
_PACED = ("constant", "poisson", "gamma")


class Decision:
    """Takes the windows of a run and says which of its checks they show."""

    def __init__(self, start: Start) -> None:
        self._limit_ns = start.limit_ns
        self._planned_ns = start.planned_ns or 0
        self._open = [check for check in start.checks if share_of(check, start.limit_ns)]
        self._windows: list[Window] = []
        self._next = _FIRST

    def see(self, window: Window) -> list[Mark]:
        """Takes a window; what has come to be shown with it."""
        if window.stage != "load":
            return []
        bare = replace(window, server=None, machine=None, slowest=(), examples={})
        self._windows.append(bare)  # of what takes room in a long run only the latencies are kept
        count = len(self._windows)
        if count < self._next or not self._open:
            return []
        self._next = max(count + 1, round(count * _STEP))
        missed = sum(map(missing, self._windows)) + window.overdue
        blocks = Blocks(self._windows, missed=missed)
        found = [
            decided(check, about(check, self._windows, (), blocks), self._limit_ns)
            for check in self._open
        ]
        shown = [one for one in found if one is not None]
        self._open = [check for check, one in zip(self._open, found, strict=True) if one is None]
        return [
            Mark(window.second, f"{check_name(one.check)} is shown: it {one.state}", shown=one)
            for one in shown
        ]

    @property
    def made(self) -> bool:
        """Whether nothing is left to be decided."""
        return not self._open

    @property
    def words(self) -> str:
        """Why the run ends now."""
        if self.made:
            return f"decided after {duration(len(self._windows) * SECOND)}: every check is shown"
        names = ", ".join(check_name(check.name) for check in self._open)
        return f"not decided within {duration(self._planned_ns)}: {names} not shown"


def decidable(scenario: Scenario) -> None:
    """SpecError if a run of it could never be decided."""
    load = scenario.spec.load
    if load.arrivals not in (*_PACED, "closed"):
        text = f"{load.arrivals} arrivals have no constant rate: nothing can be shown of them"
        raise SpecError(text, "run with --duration, or give a --rate to constant arrivals")
    rates = {(phase.rate, phase.start, phase.end) for phase in load.phases}
    if load.arrivals in _PACED and (len(rates) > 1 or load.phases[0].rate is None):
        raise SpecError(
            "the rate of the load changes: only of one rate can anything be shown",
            "give one with --rate",
        )
    if not any(share_of(check, 0) for check in scenario.spec.checks):
        raise SpecError(
            "no check of this scenario can be decided: only percentiles and shares can",
            "--set 'checks.p99=\"< 100 ms\"'",
        )
