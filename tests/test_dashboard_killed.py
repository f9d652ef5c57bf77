"""What takes part in a run is killed: the screen says what happened and what to press."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from loadbench import runlog
from tests.test_dashboard_run import FAKE, PATIENCE_S, Terminal, only_run, terminal


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
    ("who", "said"),
    [(runner, r"FAILED +\d\d:\d\d .*(killed|gone)"),
     (lambda results: part(results, "serve"), r"FAILED +\d\d:\d\d .*engine")],
    ids=["runner", "engine"],
)  # fmt: skip
def test_the_screen_says_who_is_gone(
    tmp_path: Path, who: Callable[[Path], psutil.Process], said: str
) -> None:
    with terminal(*FAKE, "--duration", "60s", "--out", str(tmp_path)) as screen:
        screen.until("● RUNNING")
        os.kill(who(tmp_path).pid, signal.SIGKILL)
        found = failed(screen)
        assert re.search(said, found), found
        assert "o = log" in found


def failed(screen: Terminal) -> str:
    """Line 1 once it says so."""
    screen.until("o = log")
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.written)
    return plain[plain.index("FAILED") :][:200]
