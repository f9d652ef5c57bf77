"""What this machine lets one process have: open files, and ports to connect from."""

import math
from pathlib import Path

from loadbench.model import Note
from loadbench.units import count

_OWN_FILES = 64  # of a load process beside its connections: pipes, epolls, libraries
_CLOSED_S = 60  # how long the kernel keeps the port of a connection that was closed
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def raise_files() -> int:
    """Lets this process and those it starts open as many files as the machine allows; so many. The
    usual limit of 1024 is there for old programs."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft  # where even the hard limit is not granted (macOS) the usual one stays
    return hard


def ports() -> int | None:
    """How many connections to one address there can be; None where it is not told."""
    try:
        low, high = map(int, _RANGE.read_text().split())
    except (OSError, ValueError):
        return None
    return high - low + 1


def doubts(connections: int, closing_per_s: float, files: int) -> list[Note]:
    """What will run out: of so many connections, and so many a second that the target closes."""
    notes = []
    room = max(0, files - _OWN_FILES)
    if connections > room:
        text = f"{count(connections)} connections do not fit: {count(files)} files may be open"
        notes.append(Note("few-files", text, "raise the hard limit of ulimit -n"))
    found = ports()
    if found is None:
        return notes
    hint = "widen net.ipv4.ip_local_port_range"
    if connections > found:
        text = f"{count(connections)} connections do not fit: there are {count(found)} ports"
        notes.append(Note("few-ports", text, hint))
    elif closing_per_s * _CLOSED_S > found:
        text = (
            f"the target closes each connection: at {count(math.ceil(closing_per_s))}/s the"
            f" {count(found)} ports of this machine may run out in"
            f" {found / closing_per_s:.0f} s"
        )
        notes.append(Note("few-ports", text, f"let the target keep connections open, or {hint}"))
    return notes
