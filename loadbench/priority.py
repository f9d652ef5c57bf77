"""The priorities of threads: a low one for those that work beside others that serve, and prompt
turns for the one that answers.

Threads that a thread starts inherit its priority, and only a privileged process can raise it again.
So what must not inherit it is looked after here: the pools that a model's runtime makes when it is
loaded, which will serve.

Not the lowest priority there is: a thread that holds the interpreter while the kernel runs somebody
else holds up those that serve. On a core shared with a busy process, 19 made single loads take ten
seconds and P99 up to nine times as long; at 10 it was three times, and no worse on a quiet core.
"""

import ctypes
import os
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOW = 10
TURN_NS = 100_000  # the shortest that Linux gives
_SETATTR = {"x86_64": 314, "aarch64": 274}  # sched_setattr(2), which C libraries do not have
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, runtime…
_RESET_ON_FORK = 1
_CAP_SYS_NICE = 23


def lower() -> None:
    """The calling thread gets a tenth of what another one gets that wants the same processor."""
    if sys.platform == "linux":  # elsewhere a niceness is the whole process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW)


def prompt() -> None:
    """Has the calling thread (none that it starts) run as soon as it wakes up, in short turns,
    where others keep its processor busy: without it, it may have to wait for the end of their
    turns, of several ms. It gets no more of the processor by that. Linux before 6.12 takes no
    notice."""
    number = _SETATTR.get(os.uname().machine)
    if sys.platform != "linux" or number is None:
        return
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = (_ATTRIBUTES.size, os.SCHED_OTHER, _RESET_ON_FORK, niceness, 0, TURN_NS, 0, 0)
    ctypes.CDLL(None).syscall(number, 0, _ATTRIBUTES.pack(*wanted), 0)


def may_raise() -> bool:
    """Whether a lowered thread can be raised again."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return False
    found = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")]
    return bool(found) and bool(int(found[0], 16) >> _CAP_SYS_NICE & 1)


@contextmanager
def raising_newborn() -> Iterator[None]:
    """Threads of this process that begin inside of the block are of normal priority after it,
    where that may be done."""
    before = _threads()
    yield
    if may_raise():
        for thread in _threads() - before:
            try:
                os.setpriority(os.PRIO_PROCESS, thread, 0)
            except ProcessLookupError:
                continue  # it has ended


def _threads() -> set[int]:
    try:
        return {int(name) for name in os.listdir("/proc/self/task")}
    except OSError:
        return set()
