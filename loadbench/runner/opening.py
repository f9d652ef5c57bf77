"""What is opened at another place amid a run, beside whoever waits for it: a place that hangs holds
up nobody."""

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Generic, TypeVar

from loadbench.errors import LoadbenchError
from loadbench.targets.question import Question

T = TypeVar("T")


class Opening(Generic[T]):
    """One at a time. What nobody wants any more is ended by `closing`, once it is there."""

    def __init__(self, end: Callable[[T], object], closing: Executor) -> None:
        self._end, self._closing = end, closing
        self._at = ""
        self._question: Question[T] | None = None

    def begin(self, at: str, opened: Callable[[], T]) -> None:
        """Opens what is there, unless that is under way; at other places it is not wanted then. Who
        could not be opened is tried again."""
        if self._question is None or self._at != at:
            self.give_up()
            self._at, self._question = at, Question(partial(_tried, opened))
        if not self._question.awaited:
            self._question.put()

    def found(self, until: float | None) -> T | None:
        """What was begun, if it is there until that moment (of `time.monotonic`); without one it is
        awaited. It is given once."""
        if self._question is None or not self._question.awaited:
            return None
        found = self._question.answers(until)
        if not found:
            return None
        self._question = None
        return found[0]

    def give_up(self) -> None:
        """Nobody wants it any more."""
        given_up, self._question = self._question, None
        if given_up and given_up.awaited:
            self._closing.submit(self._ended, given_up)

    def _ended(self, given_up: Question[T]) -> None:
        for one in given_up.answers():
            self._end(one)


def _tried(opened: Callable[[], T]) -> T | None:
    try:
        return opened()
    except LoadbenchError:  # it is not up yet
        return None
