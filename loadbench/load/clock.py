"""How far the clock of another process is ahead of ours, from messages that go there and back.

Each exchange of four stamps bounds the difference by half of what the messages took on their way
(NTP's estimate, RFC 5905): the quickest exchange tells most.
"""

import os

from loadbench.units import SECOND

_RECENT_NS = 30 * SECOND


def identity() -> str:
    """The same text for processes whose monotonic clocks are one: the same boot, the same time
    namespace. Empty where the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/time')}"
    except OSError:
        return ""


class Clock:
    """A worker's clock, seen from here. `offset` is what it is ahead, at most `bound` from the
    truth; both stay as they are once they are `fixed`."""

    def __init__(self, same: bool) -> None:
        self.same = same
        self.offset = 0
        self.bound = 0 if same else 1 << 62
        self._fixed = False
        self._since = 0
        self._recent = (1 << 62, 0)  # bound and offset of the best exchange lately

    def fix(self) -> None:
        """From now on moments must mean the same for all workers: what the clocks drift is told,
        not followed."""
        self._fixed = True

    def take(self, sent: int, there: int, back: int, now: int) -> None:
        """An exchange: sent here, received there, sent back there, received here."""
        if self.same:
            return
        bound = max(0, (now - sent) - (back - there)) // 2 + 1
        offset = ((there - sent) + (back - now)) // 2
        if not self._fixed:
            if bound < self.bound:
                self.offset, self.bound = offset, bound
            return
        if now - self._since > _RECENT_NS:
            self._since, self._recent = now, (1 << 62, 0)
        self._recent = min(self._recent, (bound, offset))

    @property
    def error(self) -> int:
        """How far moments of there may be off here (ns): what was not known, and the drift."""
        bound, offset = self._recent
        drift = abs(offset - self.offset) - bound - self.bound if bound < 1 << 62 else 0
        return self.bound + max(0, drift)

    def there(self, moment: int) -> int:
        return moment + self.offset

    def here(self, moment: int) -> int:
        return moment - self.offset
