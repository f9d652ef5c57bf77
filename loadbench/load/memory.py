"""The memory that a load shares with its server: registered before the run, again when the server
was restarted and has forgotten it, and given back after the run.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import gevent
from gevent.event import AsyncResult, Event

from loadbench.errors import LoadbenchError, TargetError
from loadbench.model import Note
from loadbench.plan import Endpoint
from loadbench.targets.region import Region
from loadbench.units import hostport

if TYPE_CHECKING:
    from loadbench.targets.ask import Asker

_PAUSE_S = 1.0  # between two registrations: what was under way before the first one fails still

log = logging.getLogger(__name__)


class Memory:
    """A region, and the server that is to open it. `lost` is set by who is told that it is not
    known there."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.region = Region()
        self.lost = Event()
        self._endpoint = endpoint
        self._again = 0  # how often it was registered again
        self._refused = ""  # why the last attempt to do so was in vain
        self._under_way: AsyncResult[None] | None = None

    def register(self) -> None:
        """Has the server open it. Raises SpecError and TargetError."""
        try:
            with self._asker() as asker:
                asker.register(self.region)
        finally:
            self.region.hide()

    def keep(self) -> None:
        """For a greenlet of its own: registers it again whenever it is lost. What takes time is for
        a thread, so that the load goes on meanwhile."""
        while True:
            self.lost.wait()
            self._under_way = gevent.get_hub().threadpool.spawn(self._renew)
            self._under_way.get()
            gevent.sleep(_PAUSE_S)
            self.lost.clear()

    def _renew(self) -> None:
        try:
            self.region.show()
            self.register()
        except LoadbenchError as error:
            self._refused = error.message
            log.warning("the shared memory is not registered again: %s", error.message)
        else:
            self._again += 1
            self._refused = ""
            log.info("the shared memory is registered again")

    def notes(self) -> Iterator[Note]:
        """What is to be said of it after a run."""
        hint = "what was asked in the meantime failed as no_region"
        if self._again:
            text = (
                "the server forgot the shared memory (a restart does that): it was registered again"
            )
            text += f", {self._again:,} times" if self._again > 1 else ""
            yield Note("memory-again", text, hint)
        if self._refused:
            text = f"the server forgot the shared memory and did not take it again: {self._refused}"
            yield Note("memory-lost", text, hint)

    def close(self) -> None:
        """The run is over. A server that is gone needs no farewell."""
        if self._under_way is not None:
            self._under_way.wait()
        with suppress(TargetError), self._asker() as asker:
            asker.unregister(self.region)
        self.region.forget()

    def _asker(self) -> "Asker":
        from loadbench.targets.ask import Asker  # it brings an HTTP client

        found = self._endpoint
        scheme = ("grpc" if found.rpc else "http") + ("s" if found.tls else "")
        url = f"{scheme}://{hostport(found.host, found.port)}"
        return Asker(url, "kserve", found.tls, found.headers, at=found.at)
