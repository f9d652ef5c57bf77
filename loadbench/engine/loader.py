"""Opens and warms up models beside those that serve: one at a time, at a low priority.

What is opened, and what becomes of it, is the business of `repository`.
"""

import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from loadbench import priority
from loadbench.engine import device, log
from loadbench.engine.assembly import Wanted, assemble
from loadbench.engine.backends import Model
from loadbench.engine.batcher import Loop
from loadbench.engine.endpoint import Endpoint
from loadbench.engine.models import devices, like
from loadbench.engine.statistics import Account
from loadbench.engine.store import FILES
from loadbench.errors import LoadbenchError, RunError
from loadbench.simspec import SimSpec
from loadbench.spec import EngineSpec
from loadbench.units import gigabytes

MOST = 16  # loads that wait for their turn
ROOM = 1.5  # of a model's weights: what it takes to run beside them

T = TypeVar("T")
Free = Callable[[str], int]
Books = Callable[[str], Account]


class Full(RunError):
    """Too many loads wait already."""


class Loader:
    """Runs loads one after the other, each on a thread of its own: a priority once lowered stays
    so. To be used from the event loop's thread."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Callable[[], None], bool]] = deque()
        self._busy = False

    @property
    def busy(self) -> bool:
        """Whether a thread is at work, which nothing can end."""
        return self._busy

    def ask(
        self, work: Callable[[], T], done: Callable[[T | LoadbenchError], None], *, low: bool
    ) -> None:
        """Does the work, at a low priority or not, and then calls `done` on the event loop's
        thread. Raises Full."""
        if len(self._waiting) >= MOST:
            raise Full(f"{MOST} loads wait already", "ask again later")

        def run() -> None:
            result: T | LoadbenchError
            try:
                result = work()
            except LoadbenchError as error:
                result = error
            except BaseException as error:  # noqa: BLE001  whatever a model has run; it may exit
                log.write(traceback.format_exc().rstrip())
                result = RunError(f"{type(error).__name__}: {error}")
            self._loop.call_soon_threadsafe(self._finished, done, result)

        self._waiting.append((run, low))
        self._next()

    def _next(self) -> None:
        if self._waiting and not self._busy:
            self._busy = True
            run, low = self._waiting.popleft()

            def begin() -> None:
                if low:
                    priority.lower()
                run()

            threading.Thread(target=begin, name="loader", daemon=True).start()

    def _finished(self, done: Callable[[T], None], result: T) -> None:
        self._busy = False
        try:
            done(result)
        finally:
            self._next()


def load(
    wanted: Wanted, books: Books, loop: Loop, beside: Model | None, free: Free | None = None
) -> Endpoint:
    """A version beside one that is served. Raises SpecError and RunError, before anything is opened
    if there is no room for it."""
    require_room(wanted, beside, free or partial(_free, wanted.settings.sim))
    wanted = wanted._replace(settings=_as_chosen(wanted, beside))
    with priority.raising_newborn():
        return assemble(wanted, books, loop, disturbed=True)


def _as_chosen(wanted: Wanted, beside: Model | None) -> EngineSpec:
    """As the version that is served, where something is to be chosen by timing: times are not to be
    trusted beside other work."""
    if beside is None or wanted.what.endswith(".onnx"):
        return wanted.settings
    return like(beside, wanted.settings)


def may_be_low(wanted: Wanted) -> bool:
    """Whether the load may have a low priority: not where threads that are to serve would
    inherit it for good. ONNX Runtime makes its pool when it loads; each thread that calls torch has
    its own."""
    pools = wanted.what.endswith(".onnx") or wanted.settings.backend in ("onnxruntime", "openvino")
    settings = wanted.settings
    return (
        not pools or device.threads(settings.threads, settings.copies) == 1
        or priority.may_raise()
    )  # fmt: skip


def require_room(wanted: Wanted, beside: Model | None, free: Free) -> None:
    """RunError if another version will not fit beside what is served, on any device that it would
    be on. It is thought as large as its files, or as the version beside it if that is larger."""
    served = sum(beside.memory().values()) if beside is not None else 0
    size = max(_size(wanted.what), served)
    if not size:
        return
    there = devices(wanted.what, wanted.settings, beside.device if beside is not None else "cpu")
    for where, number in Counter(there).items():
        needed = round(size * ROOM * number)
        if needed > (left := free(where)):
            raise RunError(
                f"{wanted.name} needs about {gigabytes(needed)} GB, and {gigabytes(left)} GB are "
                f"free on {where}",
                "unload a version first",
            )


def _size(what: str) -> int:
    path = Path(what)
    if not path.is_file():
        return 0
    if path.name not in FILES:
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())


def _free(settings: SimSpec, where: str) -> int:
    return device.open_device(where, settings).memory().spare
