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


@pytest.mark.long
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


LOOKS = [
    ("list",),
    ("list", "--json"),
    ("show", "1"),
    ("show", "1", "--json"),
    ("export", "1", "--as", "csv"),
    ("export", "1", "--as", "hgrm"),
    ("report", "1", "-o", "-"),
    ("shape", "steady"),
    ("schema", "summary"),
]


@pytest.mark.long
def test_a_look_that_nobody_reads_is_no_fault_and_one_that_is_lost_is(tmp_path: Path) -> None:
    """It is lost where a disk is full, say: its reader would take it for whole."""
    loadbench("run", scenario(tmp_path), cwd=tmp_path)
    told: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    for look in LOOKS:
        reader, writer = os.pipe()
        os.close(reader)
        for place in (writer, os.open("/dev/full", os.O_WRONLY)):
            done = subprocess.run(
                [*LOADBENCH, *look],
                stdout=place,
                stderr=subprocess.PIPE,
                cwd=tmp_path,
                timeout=100,
                check=False,
            )
            os.close(place)
            told.setdefault(look, []).append((done.returncode, done.stderr.decode()))
    lost = "loadbench: what was asked for cannot be written: No space left on device\n"
    lost += "  → is there room where it goes?\n"
    assert told == {look: [(0, ""), (3, lost)] for look in LOOKS}
