"""A timer that wakes an epoll: Linux's timerfd, set to moments of the monotonic clock.

It is good to some tens of microseconds where gevent's and asyncio's timers are good to about a
millisecond, and it costs no CPU while it waits. Python has it from 3.13 on; before, libc is asked.
"""

import ctypes
import os
import time

from loadbench.errors import RunError
from loadbench.units import SECOND

_ABSOLUTE = 1  # TFD_TIMER_ABSTIME


class _Spec(ctypes.Structure):
    """struct itimerspec: the interval (none here), then the moment."""

    _fields_ = [
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("s", ctypes.c_long),
        ("ns", ctypes.c_long),
    ]


class Timer:
    """One timerfd. Register `fileno()` edge-triggered: setting it again makes it unready, so that
    nobody needs to read it."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            create, self._settime = libc.timerfd_create, libc.timerfd_settime
        except AttributeError as error:
            raise RunError("this system has no timerfd", "run the load on Linux") from error
        self._fd = create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise RunError(f"no timer: {os.strerror(ctypes.get_errno())}", "raise ulimit -n")
        self._spec = _Spec()
        self._argument = ctypes.byref(self._spec)

    def fileno(self) -> int:
        return int(self._fd)

    def set(self, moment_ns: int) -> None:
        """Fires at a moment of the monotonic clock; at once if it is past."""
        self._spec.s, self._spec.ns = divmod(max(moment_ns, 1), SECOND)
        self._settime(self._fd, _ABSOLUTE, self._argument, None)

    def close(self) -> None:
        os.close(self._fd)
