"""Processes that end with whoever started them: by the end of their stdin, which everybody reads
for himself, and where one is stopped (SIGSTOP) and reads nothing, by the kernel."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(tidily: bool = False) -> None:
    """Has this process killed when the thread that started it is gone; `tidily`: only continued
    where it is stopped, as it has something to give back when its stdin ends. Elsewhere than on
    Linux one that is stopped stays until it is continued."""
    if sys.platform == "linux":
        number = signal.SIGCONT if tidily else signal.SIGKILL
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
