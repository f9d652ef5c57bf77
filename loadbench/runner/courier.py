"""Sends out what alerts do: to a webhook, to a command. Off the runner's own path: a receiver that
is slow, away or broken costs the run nothing but a note.

Messages wait in a short queue; what does not fit is dropped and told. Each is tried once, with a
time limit, because late news of an alert is no news. No note holds the address or a token.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from loadbench import alerts
from loadbench.alertspec import AlertsSpec
from loadbench.model import AlertChange, Note, Rule, Start
from loadbench.quantities import QUANTITIES
from loadbench.units import MS, SECOND, clock, duration

LOG = "alerts.log"  # what the command wrote
_WAITING = 64  # messages
_HUNG = 4  # deliveries that never come back, until no more are made
_END_S = 1.0

Message = dict[str, Any]


def message(start: Start, rule: Rule, change: AlertChange) -> Message:
    """What is sent of one change: `text` for people (chat systems show it), the rest for programs.
    `value` and `peak` are in the quantity's unit; null where a percentile falls among the failed.
    """
    firing = change.state == "firing"
    told = f"{alerts.sign(change)} {alerts.announce(rule, change)}"
    return {
        "text": "\n".join([f"loadbench {start.run}: {told}", *(change.words if firing else ())]),
        "run": start.run,
        "scenario": start.scenario,
        "target": start.target,
        "rule": rule.name,
        "state": "firing" if firing else "ended",
        "at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "clock": clock(change.second * SECOND),
        "value": change.value,
        "peak": change.peak,
        "limit": rule.limit,
        "unit": QUANTITIES[rule.quantity].unit,
        "verdict": list(change.words),
    }


class Courier:
    """`note` takes what went wrong, once for each kind; it is called from other threads. Raises
    SpecError if the environment lacks what `spec` names."""

    def __init__(self, spec: AlertsSpec, folder: Path, note: Callable[[Note], None]) -> None:
        self._ways: list[tuple[str, Callable[[bytes, Message], None]]] = []
        self._wait_s = spec.timeout / SECOND
        if spec.webhook:
            url, token = spec.address()
            host = urlsplit(url).hostname or "?"
            self._ways.append((f"the webhook at {host}", Webhook(url, token, self._wait_s)))
        if spec.command:
            program = Command(spec.command, folder / LOG, self._wait_s)
            self._ways.append((f"the command {Path(spec.command[0]).name!r}", program))
        self._note = note
        self._noted: set[str] = set()
        self._hung = 0
        self._queue: queue.Queue[Message | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        if self._ways:
            self._thread.start()

    def send(self, found: Message) -> None:
        """Never waits."""
        if not self._ways:
            return
        try:
            self._queue.put_nowait(found)
        except queue.Full:
            self._fail("its queue is full", "messages were dropped: it takes them too slowly")

    def close(self) -> None:
        """Waits for what is under way, as long as one message may take."""
        if not self._thread.is_alive():
            return
        with contextlib.suppress(queue.Full):  # it is told below
            self._queue.put_nowait(None)
        self._thread.join(len(self._ways) * self._wait_s + _END_S)
        left = self._queue.qsize()
        if self._thread.is_alive() and left:
            self._fail("the run is over", f"{left} messages were not sent")

    def _run(self) -> None:
        while (found := self._queue.get()) is not None:
            body = json.dumps(found, ensure_ascii=False).encode()
            for name, way in self._ways:
                self._deliver(name, way, body, found)

    def _deliver(
        self, name: str, way: Callable[[bytes, Message], None], body: bytes, found: Message
    ) -> None:
        """In a thread of its own: a limit on each read is none on a receiver that drips."""
        if self._hung >= _HUNG:
            return
        problems: list[str] = []

        def attempt() -> None:
            try:
                way(body, found)
            except (OSError, ValueError, HTTPException) as error:
                problems.append(_reason(error))

        thread = threading.Thread(target=attempt, name="alert", daemon=True)
        thread.start()
        thread.join(self._wait_s + _END_S)
        if thread.is_alive():
            self._hung += 1
            problems.append(f"no answer within {duration(round(self._wait_s * SECOND))}")
        for problem in problems:
            self._fail(name, problem)

    def _fail(self, name: str, problem: str) -> None:
        if name in self._noted:
            return  # once is enough: it would fill the log
        self._noted.add(name)
        text = f"an alert could not be sent: {name}: {problem}"
        self._note(Note("alert-not-sent", text, "look at [alerts] of the scenario"))


class Webhook:
    """Posts a message as JSON. OSError or ValueError if it is not taken."""

    def __init__(self, url: str, token: str, wait_s: float) -> None:
        self._url, self._wait_s = url, wait_s
        self._headers = {"Content-Type": "application/json", "User-Agent": "loadbench"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._opener = urllib.request.build_opener(_Here)

    def __call__(self, body: bytes, found: Message) -> None:
        if urlsplit(self._url).scheme not in ("http", "https"):
            raise ValueError("its address is not one of http or https")
        request = urllib.request.Request(self._url, body, self._headers, method="POST")
        try:
            self._opener.open(request, timeout=self._wait_s).close()
        except urllib.error.HTTPError as error:
            error.close()
            raise


class _Here(urllib.request.HTTPRedirectHandler):
    """Follows nothing: a token is for the host it was given for."""

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


class Command:
    """Runs a program for each message: JSON on its stdin, the main things in its environment."""

    def __init__(self, words: tuple[str, ...], log: Path, wait_s: float) -> None:
        self._words, self._log, self._wait_s = words, log, wait_s

    def __call__(self, body: bytes, found: Message) -> None:
        told = {f"LOADBENCH_{key.upper()}": str(found[key]) for key in ("run", "rule", "state")}
        environment = {**os.environ, **told, "LOADBENCH_TEXT": str(found["text"])}
        with open(self._log, "ab") as log:
            process = subprocess.Popen(
                self._words, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment,
                start_new_session=True,
            )  # fmt: skip
        try:
            process.communicate(body, self._wait_s)
        except subprocess.TimeoutExpired as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            within = duration(round(self._wait_s * 1000) * MS)
            raise TimeoutError(f"it did not end within {within}") from error
        if process.returncode:
            raise ChildProcessError(f"it ended with {process.returncode}: see {LOG}")


def _reason(error: OSError | ValueError | HTTPException) -> str:
    """Why, without the address: that may be the secret."""
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code}"
    if isinstance(error, urllib.error.URLError):
        error = error.reason if isinstance(error.reason, OSError) else OSError(str(error.reason))
    if isinstance(error, TimeoutError):
        return str(error) or "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) if isinstance(error, ChildProcessError) else type(error).__name__
