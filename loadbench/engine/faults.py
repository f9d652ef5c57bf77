"""What the fake engine does wrong on demand: errors, wrong answers, hang-ups, slow bodies, stalls.

Everything is drawn from the seed, one draw a request in the order of the answers.
"""

import ctypes
import os
import random
import sys
import threading
import time
from typing import Literal

from loadbench.engine.tensors import Array
from loadbench.spec import FakeSpec
from loadbench.units import MS, SECOND

Fault = Literal["", "error", "shape", "short", "value", "hangup"]


class Faults:
    """Decides for each answer whether it is spoiled, and how."""

    def __init__(self, settings: FakeSpec) -> None:
        self._settings = settings
        self._random = random.Random(settings.seed)
        self.slow_body_s = settings.slow_body / 1e9

    @classmethod
    def of(cls, settings: FakeSpec) -> "Faults | None":
        """None if every answer is to be good."""
        wishes = settings.errors, settings.wrong, settings.mistakes, settings.hangups
        return cls(settings) if any(wishes) or settings.slow_body else None

    def draw(self) -> Fault:
        """The fault of the next answer; mostly none."""
        settings = self._settings
        at = self._random.random()
        if at < settings.errors:
            return "error"
        at -= settings.errors
        if at < settings.wrong:
            return "shape" if at < settings.wrong / 2 else "short"
        at -= settings.wrong
        if at < settings.mistakes:
            return "value"
        at -= settings.mistakes
        return "hangup" if at < settings.hangups else ""


def misshapen(outputs: dict[str, Array]) -> dict[str, Array]:
    """The outputs, each with its last column missing."""
    return {name: array[..., :-1] for name, array in outputs.items()}


def falsified(outputs: dict[str, Array]) -> dict[str, Array]:
    """The outputs, each with 1 added to the last value of its rows."""
    found = {name: array.copy() for name, array in outputs.items()}
    for array in found.values():
        array[..., -1] += 1
    return found


class _Pollfd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def stall_forever(length_ns: int, period_ns: int, start_ns: int, watched: int) -> None:
    """Every period, counted from `start_ns`, the whole process stands still for `length_ns`.

    It waits in C while holding the interpreter's lock, so that no other thread runs, the event
    loop's included. Each stall is told on stderr as `stall FROM UNTIL` (monotonic ns). The wait
    ends early only when the file descriptor `watched` hangs up (−1: nothing is watched): then the
    process exits, as it must when its parent is gone.
    """
    libc = ctypes.PyDLL(None)  # PyDLL keeps the lock during a call, unlike CDLL
    pipe = _Pollfd(watched, 0, 0)  # no events: only a hang-up ends the wait
    while True:
        number = (time.monotonic_ns() - start_ns) // period_ns + 1
        begin = start_ns + number * period_ns
        time.sleep(max(0, begin - time.monotonic_ns()) / SECOND)
        began = time.monotonic_ns()
        ended = begin + length_ns  # the clock read afterwards would be late: others run first
        if _stand_still(libc, pipe, ended - began):
            os._exit(0)
        print(f"stall {began} {ended}", file=sys.stderr, flush=True)


def _stand_still(libc: ctypes.PyDLL, pipe: _Pollfd, ns: int) -> bool:
    """Waits in one call, since between two Python would let another thread run. True: `pipe` has
    hung up."""
    if sys.platform == "linux":
        timeout = _Timespec(max(ns, 0) // SECOND, max(ns, 0) % SECOND)
        return bool(libc.ppoll(ctypes.byref(pipe), 1, ctypes.byref(timeout), None) > 0)
    return bool(libc.poll(ctypes.byref(pipe), 1, max(ns, 0) // MS) > 0)


def start_stalls(settings: FakeSpec, start_ns: int, watched: int) -> None:
    """Begins the stalls that the settings ask for, if any."""
    stall = settings.stall_ns()
    if stall is not None:
        arguments = (*stall, start_ns, watched)
        threading.Thread(target=stall_forever, args=arguments, daemon=True).start()
