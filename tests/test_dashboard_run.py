"""`loadbench tui` as people start it: real runners, a real terminal (a pty), real signals."""

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from textual.drivers._writer_thread import WriterThread

from dashboard.app import Dashboard
from dashboard.follow import Follow
from dashboard.terminal import Lasting
from loadbench import runlog
from loadbench.model import End

TUI = [sys.executable, "-m", "loadbench", "tui"]
FAKE = ["steady", "--target", "local:fake", "--rate", "50"]
PATIENCE_S = 40.0


class Terminal:
    """A program on a terminal of 100×30, and what it has written there."""

    def __init__(self, arguments: list[str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self.process = subprocess.Popen(
            [*TUI, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.written = ""

    def read(self) -> None:
        """Takes what is there; waits a little if there is nothing."""
        ready, _, _ = select.select([self._ours], [], [], 0.05)
        if not ready:
            return
        try:
            self.written += os.read(self._ours, 65_536).decode("utf-8", "replace")
        except OSError:  # Linux: the other side is closed
            time.sleep(0.05)

    def until(self, words: str) -> None:
        """Waits for words on the screen, whatever colours lie between them."""
        end = time.monotonic() + PATIENCE_S
        while words not in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.written):
            assert time.monotonic() < end, f"{words!r} never came: {self.written[-2000:]}"
            assert self.process.poll() is None, f"it ended before {words!r}: {self.written[-2000:]}"
            self.read()

    def press(self, keys: str) -> None:
        self.written = ""
        os.write(self._ours, keys.encode())

    def vanish(self) -> None:
        """The window is closed."""
        os.close(self._ours)
        self._ours = -1

    def end(self) -> int:
        """The exit code, with all that was still written."""
        end = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end: {self.written[-2000:]}"
            self.read()
        self.read()
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self._ours >= 0:
            os.close(self._ours)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    opened = Terminal(list(arguments))
    try:
        yield opened
    finally:
        opened.close()


def only_run(results: Path) -> Path:
    [folder] = runlog.runs(results)
    return folder


def wait_for_end(folder: Path) -> End:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        last = list(runlog.read(folder))[-1]
        if isinstance(last, End):
            return last
        time.sleep(0.2)
    raise AssertionError("the run does not end")


def test_a_run_is_watched_to_its_end_and_told_in_the_terminal(tmp_path: Path) -> None:
    with terminal(*FAKE, "--duration", "3s", "--out", str(tmp_path)) as screen:
        screen.until("● RUNNING")
        screen.until("■ DONE")
        screen.press("q")
        code = screen.end()
        assert code == 0
        assert "CHECKS" in screen.written.replace("\r", "")
        assert "?1049l" in screen.written  # the terminal is as it was
    assert isinstance(wait_for_end(only_run(tmp_path)), End)


def test_a_killed_dashboard_leaves_the_run_alive(tmp_path: Path) -> None:
    with terminal(*FAKE, "--duration", "4s", "--out", str(tmp_path)) as screen:
        screen.until("● RUNNING")
        screen.process.send_signal(signal.SIGKILL)
        screen.process.wait()
    end = wait_for_end(only_run(tmp_path))
    assert end.reason == "done"
    assert end.second >= 3  # the whole of it


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back_and_leaves_the_run_alive(
    tmp_path: Path, number: signal.Signals
) -> None:
    with terminal(*FAKE, "--duration", "4s", "--out", str(tmp_path)) as screen:
        screen.until("● RUNNING")
        screen.process.send_signal(number)
        assert screen.end() == 128 + number
        assert "?1049l" in screen.written
        assert "the run goes on: loadbench tui --attach" in screen.written
    assert wait_for_end(only_run(tmp_path)).reason == "done"


def test_a_terminal_that_vanishes_ends_the_dashboard_and_not_the_run(tmp_path: Path) -> None:
    """Also where it sends no signal, as one that does not control the session."""
    with terminal(*FAKE, "--duration", "4s", "--out", str(tmp_path)) as screen:
        screen.until("● RUNNING")
        screen.vanish()
        assert screen.process.wait(PATIENCE_S) != 0
    assert wait_for_end(only_run(tmp_path)).reason == "done"


def test_a_target_that_is_down_is_named(tmp_path: Path) -> None:
    with terminal("steady", "--target", "http://127.0.0.1:9", "--out", str(tmp_path)) as screen:
        screen.until("FAILED  00:00 GET http://127.0.0.1:9/v2: ")
        screen.press("q")
        assert screen.end() == 3
        assert "is the server up" in screen.written


def test_quitting_can_leave_it_running_and_attaching_finds_it_again(tmp_path: Path) -> None:
    with terminal(*FAKE, "--duration", "30s", "--out", str(tmp_path)) as screen:
        screen.until("● RUNNING")
        screen.press("q")
        screen.until("Leave it running")
        screen.press("\x1b[D\r")  # one to the left of Stay
        assert screen.end() == 0
        assert "the run goes on: loadbench tui --attach" in screen.written
    with terminal("--attach", "last", "--out", str(tmp_path)) as screen:
        screen.until("● RUNNING")
        screen.press("s")
        screen.until("Stop the run?")
        screen.press("\x1b[D\r")
        screen.until("■ STOPPED")
        screen.press("q")
        assert screen.end() == 0
        assert "stopped at" in screen.written
    assert wait_for_end(only_run(tmp_path)).reason == "stopped"


def test_a_finished_run_is_replayed(tmp_path: Path) -> None:
    done = subprocess.run(
        [*TUI, *FAKE, "--duration", "3s", "--out", str(tmp_path)],
        capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode in (0, 4), done.stderr  # 4: the machine was too busy for a verdict
    assert "CHECKS" in done.stdout  # without a terminal: headless, the same end text
    assert "\x1b" not in done.stdout
    with terminal("--replay", "1", "--speed", "60", "--out", str(tmp_path)) as screen:
        screen.until("REPLAY")
        screen.until("■ DONE")
        screen.press("q")
        assert screen.end() == 0
        assert "CHECKS" in screen.written


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [(["no-such-scenario"], 2, "there is no scenario 'no-such-scenario'"),
     (["steady", "--set", "engine.max_batsh=8"], 2, "did you mean 'max_batch'?"),
     (["--attach", "99"], 2, "there is no run '99'"),
     (["steady", "--attach", "1"], 2, "one run at a time")],
)  # fmt: skip
def test_bad_input_is_told_plainly(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    with terminal(*arguments, "--out", str(tmp_path)) as screen:
        assert screen.end() == code
        assert words in screen.written
        assert "Traceback" not in screen.written
        assert "?1049h" not in screen.written  # the screen was never taken


def test_without_a_terminal_there_is_nothing_to_attach(tmp_path: Path) -> None:
    folder = runlog.create(tmp_path, "x")
    folder.joinpath(runlog.SNAPSHOT).write_text("{}")
    folder.joinpath(runlog.LOG).touch()
    for run in (("--attach", "1", "--out", str(tmp_path)), (str(folder),)):
        done = subprocess.run(
            [*TUI, *run], capture_output=True, text=True, timeout=PATIENCE_S
        )  # fmt: skip
        assert done.returncode == 2
        assert "needs a terminal" in done.stderr
        assert "loadbench show" in done.stderr


def test_what_is_drawn_for_a_terminal_that_is_gone_holds_nobody_up() -> None:
    """The thread that writes would end at the first error, and who draws wait for it for ever."""
    ours, theirs = pty.openpty()
    os.close(ours)

    async def file() -> object:
        app = Dashboard(Path("nowhere"), Follow(Path("nowhere")))
        return app.driver_class(app)._file  # type: ignore[attr-defined]

    assert isinstance(asyncio.run(file()), Lasting)
    with pytest.raises(OSError, match="Input/output error"):
        os.write(theirs, b"x")
    screen = open(theirs, "w", closefd=False)  # noqa: SIM115  # cannot be closed: nothing is written
    writer = WriterThread(Lasting(screen))  # type: ignore[arg-type]

    def draw() -> None:
        for _ in range(100):
            writer.write("x" * 9000)
        writer.stop()

    writer.start()
    drawing = threading.Thread(target=draw, daemon=True)
    drawing.start()
    drawing.join(20)
    assert not drawing.is_alive()
    with suppress(OSError):
        screen.close()
    os.close(theirs)
