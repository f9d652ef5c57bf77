"""What takes part in a run is killed: the screen says what happened and what to press."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from loadbench import runlog
from loadbench.model import Window
from tests.test_dashboard_run import FAKE, PATIENCE_S, only_run, terminal, wait_for_end


def runner(results: Path) -> psutil.Process:
    return psutil.Process(runlog.read_snapshot(only_run(results))["pid"])


def part(results: Path, word: str) -> psutil.Process:
    """The child of the runner whose command line or name has the word."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        for child in runner(results).children(recursive=True):
            if word in " ".join(child.cmdline()):
                return child
        time.sleep(0.1)
    told = [child.cmdline() for child in runner(results).children(recursive=True)]
    raise AssertionError(f"no {word!r} among {told}")


@pytest.mark.parametrize(
    ("who", "more", "said"),
    [(runner, (), "The runner was killed. All until"),
     (lambda results: part(results, "serve"), (), "The engine stopped (killed: out of memory?)"),
     (lambda results: part(results, "loadbench.load"), (), "The load generator stopped (killed"),
     (lambda results: part(results, "load.worker"), ("--workers", "2"), "was killed (signal 9)")],
    ids=["runner", "engine", "load", "worker"],
)  # fmt: skip
def test_the_screen_says_who_is_gone_and_what_to_press(
    tmp_path: Path,
    who: Callable[[Path], psutil.Process],
    more: tuple[str, ...],
    said: str,
) -> None:
    with terminal(*FAKE, *more, "--duration", "60s", "--out", str(tmp_path)) as screen:
        screen.until("● RUNNING")
        run = runner(tmp_path)
        os.kill(who(tmp_path).pid, signal.SIGKILL)
        screen.until(said)
        if more:
            screen.until("The run goes on.")
            screen.until("s = stop")
            run.terminate()
            wait_for_end(only_run(tmp_path))
        else:
            screen.until("R = run again")
            screen.until("loadbench show")
            screen.press("q")
            screen.end()
            left = screen.written.replace("\r", "").partition("?1049l")[2]  # what stays there
            assert "✗ failed" in left or "the runner was killed\n  → what it recorded" in left
    assert any(isinstance(record, Window) for record in runlog.read(only_run(tmp_path)))


def test_a_dashboard_that_was_killed_finds_its_run_again(tmp_path: Path) -> None:
    with terminal(*FAKE, "--duration", "60s", "--out", str(tmp_path)) as screen:
        screen.until("● RUNNING")
        screen.process.kill()
        screen.process.wait()
    before = len(list(runlog.read(only_run(tmp_path))))
    with terminal("--attach", "last", "--out", str(tmp_path)) as screen:
        screen.until("● RUNNING")
        run = runner(tmp_path)
        run.kill()
        screen.until("The runner is gone: killed?")  # not our child: nobody told us
    assert len(list(runlog.read(only_run(tmp_path)))) >= before > 2
