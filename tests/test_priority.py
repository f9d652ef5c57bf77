"""Turns that a thread gets from the kernel, as the kernel tells of them."""

import ctypes
import os
import platform
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from loadbench import priority
from tests.served import serving

T = TypeVar("T")

GETATTR = {"x86_64": 315, "aarch64": 275}
FORM = struct.Struct("=IIQiIQQQ")
RELEASE = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.uname().machine not in GETATTR or RELEASE < (6, 12),
    reason="slices are of Linux 6.12 and later",
)


def turn_ns(thread: int = 0) -> int:
    """Of a thread; 0: of the calling one."""
    found = ctypes.create_string_buffer(FORM.size)
    number = GETATTR[os.uname().machine]
    assert ctypes.CDLL(None).syscall(number, thread, found, FORM.size, 0) == 0
    return int(FORM.unpack(found.raw)[5])


def in_a_thread(ask: Callable[[], T]) -> T:
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()
    thread.join()
    return found[0]


def test_a_prompt_thread_has_short_turns_and_those_it_starts_have_usual_ones() -> None:
    usual = turn_ns()

    def both() -> tuple[int, int]:
        priority.prompt()
        return turn_ns(), in_a_thread(turn_ns)

    own, newborn = in_a_thread(both)
    assert own == priority.TURN_NS < usual
    assert newborn == usual == turn_ns()


def test_a_low_thread_stays_low_when_it_becomes_prompt() -> None:
    def both() -> int:
        priority.lower()
        priority.prompt()
        return os.getpriority(os.PRIO_PROCESS, 0)

    assert in_a_thread(both) == priority.LOW


def test_of_an_engine_only_the_thread_that_answers_is_prompt() -> None:
    usual = turn_ns()
    with serving() as engine:
        own = engine.process.pid
        turns = {int(name): turn_ns(int(name)) for name in os.listdir(f"/proc/{own}/task")}
    assert turns.pop(own) == priority.TURN_NS
    assert set(turns.values()) == {usual}


def test_a_load_is_prompt() -> None:
    command = [sys.executable, "-m", "loadbench.load"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        until = time.monotonic() + 20
        while (found := turn_ns(process.pid)) != priority.TURN_NS and time.monotonic() < until:
            time.sleep(0.02)
        process.communicate()
    assert found == priority.TURN_NS
