"""Whoever started a run may stop reading: the run, its files and its exit code stand."""

import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.running import LOADBENCH, scenario


@pytest.mark.parametrize("make", [os.pipe, pty.openpty], ids=["pipe", "terminal"])
def test_a_run_that_nobody_listens_to_is_finished(
    tmp_path: Path, make: Callable[[], tuple[int, int]]
) -> None:
    reader, writer = make()
    os.close(reader)
    wanted = ("--on-no-verdict", "warn", "--junit", "found.xml")
    done = subprocess.run(
        [*LOADBENCH, "run", str(scenario(tmp_path)), *wanted],
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
        cwd=tmp_path,
        timeout=100,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 0
    assert "<testsuites" in (tmp_path / "found.xml").read_text()
