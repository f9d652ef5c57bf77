"""The processes a run starts: the engine and the load. Each in its own session, each with a pipe as
stdin whose closing tells it to exit, so that none outlives a runner that is killed.

stdout is the protocol, one line at a time; stderr goes to a file of the run folder.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from loadbench.errors import LoadbenchError, RunError, SpecError
from loadbench.model import Note, decode

_GRACE_S = 5.0
_LAST_S = 10.0  # for an engine to end by itself: it finishes what is queued for up to five
_TAIL = 4000


class Child:
    """A running child. Its stdout lines arrive in `lines`; None marks their end."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path, python: str = "") -> None:
        self.name = name
        self.log = log
        self.lines: queue.Queue[bytes | None] = queue.Queue()
        with _appending(log) as stderr:
            self._process = subprocess.Popen(
                [*_interpreter(python), "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
                env={**environment(python), "PYTHONUNBUFFERED": "1"},
            )
        threading.Thread(target=self._read, name=f"{name} stdout", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.lines.put(line)
        self.lines.put(None)

    def ended(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._process.poll()

    def say(self, line: bytes) -> bool:
        """Writes a line to its stdin; False if it does not listen any more."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            return False
        return True

    def interrupt(self) -> None:
        """Asks it to finish what it does, and to end."""
        self._process.terminate()

    def stop(self, grace_s: float = _GRACE_S) -> None:
        """Closes its stdin, waits, then ends it the hard way."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        for end in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(grace_s)
                return
            except subprocess.TimeoutExpired:
                end()
        self._process.wait()

    def last_words(self) -> str:
        """The end of what it wrote to stderr."""
        with open(self.log, "rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL))
            return file.read().decode(errors="replace").strip()

    def error(self) -> LoadbenchError:
        """Why it ended before its time, in its own words where it had some."""
        code = self._process.wait()
        words = [line for line in self.last_words().splitlines() if line.strip()]
        message = [line.removeprefix("loadbench: ") for line in words if "loadbench: " in line]
        hints = [line.strip().removeprefix("→ ") for line in words if line.startswith("  → ")]
        kind = SpecError if code == 2 else RunError
        if message:
            return kind("\n".join(message), "\n".join(hints))
        text = f"the {self.name} stopped ({_ending(code)})"
        if -code not in (signal.SIGKILL, signal.SIGTERM):  # whoever sent those gave no reason
            text += f": {words[-1] if words else 'it said nothing'}"
        return kind(text, f"see {self.log}")


def _interpreter(python: str) -> list[str]:
    """Ours, or another build's, which is not to find our files in the folder that we are in."""
    return [python, "-P"] if python else [sys.executable]


def environment(python: str) -> dict[str, str]:
    """Ours; another build's without the variables by which it would find ours."""
    ours = ("PYTHONPATH", "PYTHONHOME") if python else ()
    return {key: value for key, value in os.environ.items() if key not in ours}


def _appending(log: Path) -> BinaryIO:
    try:
        return open(log, "ab")
    except OSError as error:
        raise RunError(
            f"{log}: cannot be written: {error.strerror}", "choose another folder with --out DIR"
        ) from error


def _ending(code: int) -> str:
    if code == -9:
        return "killed: out of memory?"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def start_engine(
    model: str, settings: Mapping[str, Any], extra: Sequence[str], folder: Path, python: str = ""
) -> Child:
    """`loadbench serve` on a free port with the scenario's engine settings; that of another build
    by the interpreter it is installed for."""
    arguments = ["loadbench", "serve", model, "--port", "0", "--follow-stdin", *extra]
    for key, value in settings.items():
        arguments += ["--set", f"engine.{key}={toml(value)}"]
    return Child("engine", arguments, folder / "engine.log", python)


def wait_ready(engine: Child, limit_s: float) -> str:
    """The URL from the engine's `ready` line. Raises its error if it ends instead."""
    end = time.monotonic() + limit_s
    while True:
        try:
            line = engine.lines.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            engine.stop(0.5)
            raise RunError(f"the engine was not ready within {limit_s:.0f} s") from None
        if line is None:
            raise engine.error()
        words = line.decode(errors="replace").split()
        if words[:1] == ["ready"] and len(words) >= 2:
            return words[1]


def last_notes(engine: Child) -> list[Note]:
    """Lets the engine end by itself, with what it does at its end, and gives what came up in it
    since it started."""
    engine.interrupt()
    end = time.monotonic() + _LAST_S
    found: list[Note] = []
    while True:
        try:
            line = engine.lines.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            return found
        if line is None:
            return found
        if line.startswith(b"note "):
            with contextlib.suppress(msgspec.MsgspecError):  # a model may print what it likes
                found.append(decode(Note, line[5:]))


def toml(value: Any) -> str:
    """A setting as TOML, the way --set reads it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case list() | tuple():
            return f"[{', '.join(toml(item) for item in value)}]"
        case dict():
            return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
        case _:
            text = str(value).replace("\\", "\\\\").replace('"', '\\"')
            return f'"{text}"'
