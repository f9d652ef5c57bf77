"""What a server is asked again and again, beside whoever wants to know: one that hangs holds up
nobody. An answer that is late is there for the next look."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

T = TypeVar("T")
SLOW_S = 0.2  # for an answer: what it tells is of any moment in that time
_AGAIN = 3  # slow ones in a row are none by chance


class Question(Generic[T]):
    """One at a time: who has not answered yet is not asked again. None is no answer."""

    def __init__(self, ask: Callable[[], T | None]) -> None:
        self._ask = ask
        self._asked: Future[T | None] | None = None  # nobody has looked at its answer yet
        self._late: list[T] = []
        self._missed = False  # somebody waited for the answer that is to come, in vain
        self.late = 0  # answers that were not there when they were wanted
        self._slow: list[float] = []  # s that the last ones took, as long as all took long

    @property
    def awaited(self) -> bool:
        """Whether an answer is still to be looked at."""
        return self._asked is not None

    @property
    def slow_s(self) -> float:
        """What its last answers took at least, if all of them took long; else 0."""
        return min(self._slow) if len(self._slow) == _AGAIN else 0.0

    def put(self, patient: bool = False) -> None:
        """Asks, unless an answer is still to come; whoever is patient waits for that one first."""
        if patient:
            self.end()
        if self._asked is not None:
            if not self._asked.done():
                return
            self._late += self._found()
        self._asked = Future()
        # not of a pool, which a few that hang would fill, and which the process would wait for
        threading.Thread(
            target=self._answer, args=[self._asked], name="question", daemon=True
        ).start()

    def _answer(self, asked: "Future[T | None]") -> None:
        begun = time.monotonic()
        try:
            found = self._ask()
            took_s = time.monotonic() - begun
            self._slow = [*self._slow[1 - _AGAIN :], took_s] if took_s > SLOW_S else []
            asked.set_result(found)
        except BaseException as error:  # noqa: BLE001  whoever wants the answer has it
            asked.set_exception(error)

    def answers(self, until: float | None = None) -> list[T]:
        """Those that came until that moment (of `time.monotonic`), the latest last; without one
        the answer is awaited. Asks first if nobody has."""
        if self._asked is None:
            self.put()
        assert self._asked is not None
        left_s = None if until is None else max(0.0, until - time.monotonic())
        there = wait([self._asked], left_s).done
        found = self._found() if there else []
        self._missed = not there
        found, self._late = [*self._late, *found], []
        return found

    def _found(self) -> list[T]:
        assert self._asked is not None
        asked, self._asked = self._asked, None
        self.late += self._missed
        self._missed = False
        answer = asked.result()
        return [] if answer is None else [answer]

    def end(self) -> None:
        """Waits until nothing is under way, as before what it is asked over is closed."""
        if self._asked is not None:
            wait([self._asked])
