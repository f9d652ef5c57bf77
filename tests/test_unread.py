"""Whoever started a run may stop reading: the run, its files and its exit code stand."""

import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.running import LOADBENCH, loadbench, scenario


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


def test_a_comparison_that_nobody_reads_is_no_worse_run(tmp_path: Path) -> None:
    for _ in range(2):
        loadbench("run", scenario(tmp_path), cwd=tmp_path)
    heard = loadbench("compare", "1", "2", cwd=tmp_path, code=None).returncode
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*LOADBENCH, "compare", "1", "2"],
        stdout=writer,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        timeout=100,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (heard, b"")
