"""The memory that a load shares with its server: registered before the run, again when the server
was restarted and has forgotten it, and given back after the run.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import gevent
from gevent.event import AsyncResult, Event
from gevent.monkey import get_original

from loadbench.errors import LoadbenchError, TargetError
from loadbench.model import Note
from loadbench.plan import Endpoint
from loadbench.targets.region import Region
from loadbench.units import hostport

if TYPE_CHECKING:
    from loadbench.targets.ask import Asker

_PAUSE_S, _LONGEST_S = 1.0, 30.0  # between two registrations; twice as long after each refusal
_END_S = 1.0  # a registration under way as the run ends is given so long
_DROP_S = 1.0  # where the whole process waits for its memory to be given back
_STEP_S = 0.01

_sleep = get_original("time", "sleep")  # without the hub
log = logging.getLogger(__name__)


class Memory:
    """A region, and the server that is to open it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.region = Region()
        self._endpoint = endpoint
        self._lost = Event()
        self._tried = 0  # when the last attempt to register it again ended
        self._again = 0  # how often it was registered again
        self._refused = ""  # why the last attempt to do so was in vain
        self._under_way: AsyncResult[None] | None = None
        self._given = False

    def register(self) -> None:
        """Has the server open it. Raises SpecError and TargetError."""
        try:
            with self._asker() as asker:
                self.region.show()
                asker.register(self.region)
        finally:
            self.region.hide()

    def forgotten(self, begun: int) -> None:
        """A request that began then was refused for the memory. One from before the end of the last
        attempt says nothing of that: also an attempt that failed here may have reached the server.
        """
        if begun > self._tried:
            self._lost.set()

    def keep(self) -> None:
        """For a greenlet of its own: registers it again whenever it is lost. What takes time is for
        a thread, so that the load goes on meanwhile."""
        pause = _PAUSE_S
        while True:
            self._lost.wait()
            self._under_way = gevent.get_hub().threadpool.spawn(self._renew)
            self._under_way.get()
            self._tried = time.monotonic_ns()
            self._lost.clear()
            pause = pause if self._refused else _PAUSE_S
            gevent.sleep(pause)
            pause = min(2 * pause, _LONGEST_S)

    def _renew(self) -> None:
        try:
            self.register()
        except LoadbenchError as error:
            self._refused = " → ".join(filter(None, (error.message, error.hint)))
            log.warning("the shared memory is not registered again: %s", self._refused)
        except Exception as error:  # else nobody would try again
            self._refused = str(error) or type(error).__name__
            log.exception("the shared memory is not registered again")
        else:
            self._again += 1
            self._refused = ""
            log.info("the shared memory is registered again")

    def notes(self) -> Iterator[Note]:
        """What is to be said of it after a run."""
        hint = "what the server answered until it had it again failed as no_region"
        if self._again:
            text = (
                "the server forgot the shared memory (a restart does that): it was registered again"
            )
            text += f", {self._again:,} times" if self._again > 1 else ""
            yield Note("memory-again", text, hint)
        if self._lost.is_set():
            text = "the server forgot the shared memory, and did not have it again at the end"
            text += f": {self._refused}" if self._refused else ""
            yield Note("memory-lost", text, "what it answered from then on failed as no_region")

    def close(self) -> None:
        """The run is over. The server is asked by a thread: what is still to be told of the run
        does not wait for it."""
        self.region.end()  # first: this process may be ended while it waits
        try:
            if self._under_way is not None:
                self._under_way.wait(_END_S)
            gevent.get_hub().threadpool.spawn(self._give_back).get()
        finally:
            self.region.forget()

    def drop(self) -> None:
        """As `close`, with all else standing still: the load must not go on meanwhile, and the hub
        itself may call this. Returns soon, whatever the server does."""
        self.region.end()
        gevent.get_hub().threadpool.spawn(self._give_back)
        until = time.monotonic() + _DROP_S
        while not self._given and time.monotonic() < until:
            _sleep(_STEP_S)

    def _give_back(self) -> None:
        """A server that is gone needs no farewell."""
        try:
            with suppress(TargetError), self._asker() as asker:
                asker.unregister(self.region)
        except Exception:  # nothing of the run depends on it
            log.exception("the shared memory is not given back")
        self._given = True

    def _asker(self) -> "Asker":
        from loadbench.targets.ask import Asker  # it brings an HTTP client

        found = self._endpoint
        scheme = ("grpc" if found.rpc else "http") + ("s" if found.tls else "")
        url = f"{scheme}://{hostport(found.host, found.port)}"
        return Asker(url, "kserve", found.tls, found.headers, at=found.at)
