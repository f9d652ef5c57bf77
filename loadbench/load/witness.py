"""Sees what the users of people's own Locust files send, and tells the diary.

How a request ended is told by Locust's event, for every kind of client. That it has begun is seen
only of HttpUser, FastHttpUser and `events.request.measure`, whose calls are wrapped here: so a
server that hangs shows as requests in flight, and one that is cut off is not forgotten.
"""

import weakref
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, NamedTuple

import gevent
from locust.clients import HttpSession
from locust.contrib.fasthttp import FastHttpSession
from locust.event import EventHook

from loadbench import timing
from loadbench.load.diary import Begun, Diary, Failed
from loadbench.load.outcome import outcome
from loadbench.units import MS

# by a shape that went down, say
CUT_OFF = Failed("cut_off", "its user was stopped while it waited for the answer")
UNTOLD = Failed("untold", "answered, but the file never said whether that was good")


class _Unjudged(NamedTuple):
    """An answer of which the file has still to say how it was."""

    response: weakref.ref[Any]
    begun: Begun
    name: str
    took: int  # ns until it was there


class Witness:
    """Watches the request event of `hook`; nothing is counted before `diary` is there."""

    def __init__(self, hook: EventHook) -> None:
        self.diary: Diary | None = None
        self.ending = False  # what is cut off from now on stays unfinished
        self.steady: Callable[[], bool] = lambda: True  # no users are being stopped
        self.untold = 0
        self.untimed = 0
        self._under_way: dict[gevent.Greenlet, Begun] = {}
        self._unjudged: dict[int, _Unjudged] = {}
        self._dropped: list[_Unjudged] = []
        hook.add_listener(self._ended)  # before those of the file, which may raise
        hook.measure = self._measured(hook)
        for client in (HttpSession, FastHttpSession):
            client.request = self._seen(client.request)

    def _seen(self, request: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(request)
        def seen(client: Any, method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
            name = _name(method, kwargs.get("name") or client.request_name or url)
            with self._watched(name) as begun:
                answer = request(client, method, url, *args, **kwargs)
                if begun is not None and self._under_way.get(gevent.getcurrent()) is begun:
                    self._judge_later(answer, begun, name)
                return answer

        return seen

    def _measured(self, hook: EventHook) -> Callable[..., Any]:
        measure = hook.measure

        @contextmanager
        def measured(request_type: str, name: str, *args: Any, **kwargs: Any) -> Generator[Any]:
            with (
                self._watched(_name(request_type, name)),
                measure(request_type, name, *args, **kwargs) as meta,
            ):
                yield meta

        return measured

    @contextmanager
    def _watched(self, name: str) -> Generator[Begun | None]:
        """Of a request that this greenlet makes: until its event has come."""
        if self.diary is None:
            yield None
            return
        if not self.steady():
            gevent.sleep(0)  # Locust may have ended the user in its pause: then it sends no more
        current = gevent.getcurrent()
        outer = self._under_way.get(current)
        begun = self._under_way[current] = self.diary.begin()
        try:
            yield begun
        except BaseException as error:
            stopped = isinstance(error, gevent.GreenletExit)
            if not (stopped and self.ending):  # no event tells of it
                self.diary.end(begun, name, None, CUT_OFF if stopped else outcome(error, None))
            raise
        finally:
            if outer is None:
                self._under_way.pop(current, None)
            else:
                self._under_way[current] = outer

    def _judge_later(self, answer: Any, begun: Begun, name: str) -> None:
        """The file says in a with-block how it was. If it drops the answer instead, because
        something raised in the block, its word never comes."""
        response, took = answer.request_meta["response"], answer.request_meta["response_time"]
        key = id(response)
        dropped = self._dropped.append  # may be called by the garbage collector, anywhere
        reference = weakref.ref(response, lambda _: dropped(self._unjudged.pop(key)))
        self._unjudged[key] = _Unjudged(reference, begun, name, round(took * MS))

    def settle(self) -> None:
        """Counts the answers that were dropped without a word."""
        while self._dropped and self.diary is not None:
            _, begun, name, took = self._dropped.pop()
            self.untold += 1
            self.diary.end(begun, name, took, UNTOLD)

    def _ended(
        self,
        request_type: Any,
        name: Any,
        response_time: Any,
        response: Any = None,
        exception: Any = None,
        **_: Any,
    ) -> None:
        if self.diary is None:
            return
        unjudged = self._unjudged.pop(id(response), None)
        begun = unjudged.begun if unjudged else self._under_way.pop(gevent.getcurrent(), None)
        took = None
        if isinstance(response_time, int | float) and response_time >= 0:
            took = round(response_time * MS)
        else:
            self.untimed += 1
        found = outcome(exception, response) if exception else None
        says = partial(_timing, response)
        self.diary.end(begun, _name(request_type, name), took, found, says)


def _name(request_type: Any, name: Any) -> str:
    """`GET /health`: as Locust's tables show it, where both are of a request's identity."""
    return f"{_text(request_type)} {_text(name)}".strip()


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")


def _timing(response: Any) -> bytes:
    """What the answer says of where its time went; b"" of one that is not HTTP's."""
    headers = getattr(response, "headers", None)
    said = headers.get("Server-Timing") if isinstance(headers, Mapping) else None
    lines = [said] if isinstance(said, str) else said or ()
    return ",".join(map(str, lines)).encode("latin-1", "replace")[: timing.LONGEST]
