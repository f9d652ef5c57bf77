"""A server of pages that change as it runs: what others tell of themselves, second by second."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.answering import Answering, Handler, serve


class Telling(Answering):
    """Answers what stands in `pages`; a status other than 200 stands before the text. All answers
    have `headers` besides. `asked` is what was asked for, headers included."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(_Teller, host, port)
        self.pages: dict[str, bytes | str | tuple[int, str]] = {}
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.pause_s = 0.0  # before each answer
        self.hangs: dict[str, threading.Event] = {}  # paths that answer nothing until it is set


class _Teller(Handler):
    server: Telling

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        time.sleep(self.server.pause_s)
        if goes_on := self.server.hangs.get(self.path):
            goes_on.wait(30)
        found = self.server.pages.get(self.path, (404, "{}"))
        status, text = found if isinstance(found, tuple) else (200, found)
        with suppress(ConnectionError):  # who asked may have waited long enough
            self.say(status, text, self.server.headers)


@contextmanager
def telling(host: str = "127.0.0.1", port: int = 0) -> Iterator[Telling]:
    with serve(Telling(host, port)) as server:
        yield server
