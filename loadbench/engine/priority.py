"""A low priority for threads that work beside those that serve.

Threads that a thread starts inherit its priority, and only a privileged process can raise it again.
So what must not inherit it is looked after here: the pools that a model's runtime makes when it is
loaded, which will serve.

Not the lowest priority there is: a thread that holds the interpreter while the kernel runs somebody
else holds up those that serve. On a core shared with a busy process, 19 made single loads take ten
seconds and P99 up to nine times as long; at 10 it was three times, and no worse on a quiet core.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOW = 10
_CAP_SYS_NICE = 23


def lower() -> None:
    """The calling thread gets a tenth of what another one gets that wants the same processor."""
    if sys.platform == "linux":  # elsewhere a niceness is the whole process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW)


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
