"""Why the loop stood still: the cause of the longest standstill of each second, and the CPU used.

    gc      Python looked for garbage
    hub     other code of this process ran meanwhile: a greenlet, by its name, or another thread
    own     the loop itself was computing: a burst of answers, folding, a deal of the user's
    cpu     the kernel gave the core to others
    quota   the container's CPU quota was used up (a case of `cpu` with another remedy)
    steal   the hypervisor gave the core to other machines
    paused  the process did not want the core, or was not let: stopped, waiting for a disk

The loop reads the clocks of its thread every 10 ms (5 µs) and not per request; the rest is read
when it has stood still for 5 ms. Where the kernel does not tell, the cause stays "".
"""

import contextlib
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import greenlet  # type: ignore[import-untyped]
from gevent.hub import Hub
from msgspec.structs import replace

from loadbench.model import Window
from loadbench.units import MS, SECOND

LONG_NS = 5 * MS  # shorter standstills are not looked into
_EVERY_NS = 10 * MS
_TICK_NS = SECOND // os.sysconf("SC_CLK_TCK")  # of the steal time in /proc/stat


class _Clocks(NamedTuple):
    """What the thread has had until a moment; `delay` is its time on a run queue, None: untold."""

    at: int
    thread: int
    process: int
    delay: int | None


class Standstill:
    """Explains the standstills of the thread that makes it. Close it in the end."""

    def __init__(self, now: int) -> None:
        self._files: list[int] = []
        self._schedstat = self._open("/proc/thread-self/schedstat")
        self._stat = self._open("/proc/stat")
        self._quota = self._open(_cpu_stat())
        self._collections = _Collections()
        self._switches = _Switches()
        self._clocks = self._before = self._read(now)
        self._stolen = self._machine()
        self._cpu = time.process_time_ns()
        self._cause = ""
        self.next = now + _EVERY_NS  # when to look again

    def close(self) -> None:
        self._collections.close()
        self._switches.close()
        while self._files:
            os.close(self._files.pop())

    def look(self, now: int) -> None:
        """To be called at `next` or soon after."""
        self._before, self._clocks = self._clocks, self._read(now)
        self._collections.forget()
        self.next = now + _EVERY_NS

    def stood(self, now: int, length: int, turned: int) -> int:
        """The loop stood still for `length` until now: the longest time of this second; until
        `turned` it was in a turn of its own. Gives the length back."""
        if length > LONG_NS:
            self._cause = self._why(now, length, turned)
            self.look(now)
        return length

    def told(self, window: Window) -> Window:
        """The window with the cause of its standstill and the CPU used since the one before."""
        cpu = time.process_time_ns()
        found = replace(window, stall_cause=self._cause, cpu_ns=cpu - self._cpu)
        self._cause, self._cpu = "", cpu
        if self._stolen[0]:  # where the hypervisor takes time, the last second is to be known
            self._stolen = self._machine()
        return found

    def _why(self, now: int, length: int, turned: int) -> str:
        begin, clocks = now - length, self._read(now)
        stolen = self._stolen
        self._stolen = self._machine()
        steal, quota = (after - before for after, before in zip(self._stolen, stolen, strict=True))
        computed = max(0, min(length, clocks.thread - self._clocks.thread - self._usual(begin)))
        collected = min(computed, self._collections.since(begin))
        absent = length - computed
        if absent > length / 2:
            return self._absence(clocks, absent, quota, steal)
        if steal >= length / 2:  # some kernels count it as the process's own
            return "steal"
        if collected > computed / 2:
            return "gc"
        if turned >= begin + length // 2:
            return "own"
        name = self._switches.longest(begin, length // 2)
        return f"hub: {name}" if name else "hub"

    def _absence(self, clocks: _Clocks, absent: int, quota: int, steal: int) -> str:
        """Why the thread did not have the core."""
        if quota >= absent / 2:
            return "quota"
        if clocks.delay is None or self._clocks.delay is None:
            return ""
        if clocks.delay - self._clocks.delay >= absent / 2:
            return "cpu"
        if steal >= absent / 2:
            return "steal"
        others = clocks.process - clocks.thread - self._clocks.process + self._clocks.thread
        # it waited for a lock that another thread held, which may have had to wait for a core
        return "hub: another thread" if others >= absent / 4 else "paused"

    def _usual(self, begin: int) -> int:
        """What the thread is likely to have computed from the last look to the standstill's begin,
        by its share of the interval before."""
        before, last = self._before, self._clocks
        span = last.at - before.at
        share = min(1.0, (last.thread - before.thread) / span) if span > 0 else 0.0
        return round(share * max(0, begin - last.at))

    def _read(self, now: int) -> _Clocks:
        delay = None
        if self._schedstat is not None:
            words = os.pread(self._schedstat, 64, 0).split()
            delay = int(words[1]) if len(words) > 1 else None
        return _Clocks(now, time.thread_time_ns(), time.process_time_ns(), delay)

    def _machine(self) -> tuple[int, int]:
        """(stolen from the whole machine, quota used up), in ns since they are counted."""
        stolen = quota = 0
        if self._stat is not None:
            words = os.pread(self._stat, 512, 0).split(b"\n", 1)[0].split()
            stolen = int(words[8]) * _TICK_NS if len(words) > 8 else 0
        if self._quota is not None:
            for line in os.pread(self._quota, 1024, 0).splitlines():
                name, _, number = line.partition(b" ")
                if name in (
                    b"throttled_usec",
                    b"throttled_time",
                ):
                    quota = int(number) * (1000 if name == b"throttled_usec" else 1)
        return stolen, quota

    def _open(self, path: str | None) -> int | None:
        """A file of the kernel's to be read again and again; None where there is none."""
        if path is None:
            return None
        try:
            self._files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return None
        return self._files[-1]


def _cpu_stat() -> str | None:
    """The file in which this process's cgroup counts how often its quota was used up."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        root = "/sys/fs/cgroup" if number == "0" else f"/sys/fs/cgroup/{controllers}"
        for folder in (root + path, root):  # in a container its own is mounted as the root
            if Path(folder, "cpu.stat").exists():
                return f"{folder}/cpu.stat"
    return None


class _Collections:
    """The garbage collections since they were last forgotten."""

    def __init__(self) -> None:
        self._begun = 0
        self._found: list[tuple[int, int]] = []
        gc.callbacks.append(self._tell)

    def close(self) -> None:
        with contextlib.suppress(ValueError):
            gc.callbacks.remove(self._tell)

    def forget(self) -> None:
        if self._found:
            self._found = []

    def since(self, begin: int) -> int:
        """How long they took together from `begin` on."""
        return sum(max(0, end - max(start, begin)) for start, end in self._found)

    def _tell(self, phase: str, _: dict[str, int]) -> None:
        now = time.monotonic_ns()
        if phase == "start":
            self._begun = now
        elif now - self._begun > MS:
            self._found.append((self._begun, now))


class _Switches:
    """Watches which greenlet runs for long. Greenlets are switched some times a second: the loop
    is called by the hub, without a switch."""

    def __init__(self) -> None:
        self._since = time.monotonic_ns()
        self._run: Callable[..., Any] | None = None  # of the greenlet that has the thread
        self._found: tuple[int, int, str] = (0, 0, "")  # end, length, name
        self._former = greenlet.settrace(self._switched)

    def close(self) -> None:
        greenlet.settrace(self._former)

    def longest(self, begin: int, least: int) -> str:
        """The name of the last one that ran for `least` and ended after `begin`."""
        end, length, name = self._found
        return name if end > begin and length >= least else ""

    def _switched(self, event: str, switch: tuple[Any, Any]) -> None:
        origin, target = switch
        now = time.monotonic_ns()
        length = now - self._since
        if length > LONG_NS // 2 and not isinstance(origin, Hub):
            self._found = (now, length, _name(self._run, origin))
        self._since, self._run = now, getattr(target, "_run", None)
        if self._former is not None:
            self._former(event, switch)


def _name(run: Any, origin: Any) -> str:
    """What the greenlet ran, as its code names it."""
    run = getattr(run, "func", run)  # of functools.partial
    found = getattr(run, "__qualname__", "") or getattr(origin, "name", "")
    module = getattr(run, "__module__", "") or ""
    return f"{module}.{found}" if module and found else str(found or "the main greenlet")
