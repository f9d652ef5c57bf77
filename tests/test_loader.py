"""Loads beside serving: one after the other, at a low priority, whatever they raise."""

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from loadbench import priority
from loadbench.engine.loader import MOST, Full, Loader
from loadbench.errors import LoadbenchError, RunError


class Loop:
    """Calls what threads want called on the thread that takes it."""

    def __init__(self) -> None:
        self._asked: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        self._some = threading.Condition()

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> object:
        with self._some:
            self._asked.append((callback, args))
            self._some.notify()
        return None

    def call_soon(self, callback: Callable[..., object], *args: object) -> object:
        return self.call_soon_threadsafe(callback, *args)

    def call_later(self, delay: float, callback: Callable[..., object]) -> object:
        return None

    def take(self) -> None:
        with self._some:
            assert self._some.wait_for(lambda: bool(self._asked), 20)
            callback, args = self._asked.pop(0)
        callback(*args)


def nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_load_has_a_low_priority_and_the_next_one_its_own() -> None:
    loop = Loop()
    found: list[Any] = []
    loader = Loader(loop)
    before = nice()
    loader.ask(nice, found.append, low=True)
    loader.ask(nice, found.append, low=False)
    loop.take()
    loop.take()
    assert found == [priority.LOW, before]
    assert nice() == before
    assert not loader.busy


def test_whatever_a_load_raises_the_next_one_runs() -> None:
    def fails() -> None:
        raise ValueError("no such layer")

    def refuses() -> None:
        raise RunError("no room")

    def exits() -> None:
        raise SystemExit(2)  # argparse, in a module that is imported

    loop = Loop()
    found: list[Any] = []
    loader = Loader(loop)
    for work in (fails, refuses, exits, lambda: None):
        loader.ask(work, found.append, low=False)
    for _ in range(4):
        loop.take()
    assert [type(result) for result in found] == [RunError, RunError, RunError, type(None)]
    assert found[2].message == "SystemExit: 2"
    assert isinstance(found[0], LoadbenchError)
    assert "no such layer" in found[0].message
    assert found[1].message == "no room"


def test_only_so_many_loads_wait() -> None:
    loop, gate = Loop(), threading.Event()
    loader = Loader(loop)
    for _ in range(1 + MOST):
        loader.ask(gate.wait, lambda _: None, low=False)
    assert loader.busy
    with pytest.raises(Full):
        loader.ask(gate.wait, lambda _: None, low=False)
    gate.set()
    for _ in range(1 + MOST):
        loop.take()


@pytest.mark.skipif(not priority.may_raise(), reason="needs CAP_SYS_NICE")
def test_threads_that_will_serve_do_not_keep_the_loaders_priority() -> None:
    told: list[int] = []
    ready, look = threading.Event(), threading.Event()

    def serve() -> None:
        told.append(nice())
        ready.set()
        look.wait(20)
        told.append(nice())

    def load() -> None:
        priority.lower()
        with priority.raising_newborn():
            thread = threading.Thread(target=serve)
            thread.start()
            ready.wait(20)
        told.append(nice())
        look.set()
        thread.join()

    loader = threading.Thread(target=load)
    loader.start()
    loader.join()
    assert told == [priority.LOW, priority.LOW, 0]
