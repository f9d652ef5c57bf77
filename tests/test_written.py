"""Files that are asked for: put in place as a whole, never through what lies in a folder from
elsewhere, and into pipes and devices without replacing them."""

import os
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from loadbench.snapshots import files
from tests.foreign import RECORDED, said
from tests.running import LOADBENCH

RUN = max(RECORDED.glob("*/*"))


def test_a_file_is_new_or_as_it_was(tmp_path: Path) -> None:
    path, other = tmp_path / "out.csv", tmp_path / "other"
    mask = os.umask(0o022)
    try:
        files.put(path, b"one")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # who collects such files may read it
    other.write_text("another's")
    path.unlink()
    path.symlink_to(other)
    files.put(path, b"two")
    assert (path.read_bytes(), path.is_symlink(), other.read_text()) == (b"two", False, "another's")
    (tmp_path / "folder").mkdir()
    for folder in (tmp_path / "folder", Path(), Path("/")):
        with pytest.raises(OSError, match="directory"):
            files.put(folder, b"three")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder", "other", "out.csv"]


def test_no_link_in_a_run_s_folder_leads_a_report_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "log.ndjson"):
        (folder / name).write_bytes((RUN / name).read_bytes())
    for name in (".report.html.new", "report.html"):
        (folder / name).symlink_to(theirs)
    assert said(["report", str(folder)], capsys)[0] == 0
    assert theirs.read_text() == "precious"
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("command", [["export", "--as", "csv"], ["report"]])
def test_a_pipe_is_written_to(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code, _, err = said([*command, str(RUN), "-o", str(pipe)], capsys)
    assert (code, "cannot be written" in err) == (3, True)  # nobody reads it: no waiting for ever
    got: list[bytes] = []
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(end, True)

    def read() -> None:
        with os.fdopen(end, "rb") as file:
            got.append(file.read())

    reader = threading.Thread(target=read)
    filled = os.open(pipe, os.O_WRONLY)  # so that the reader waits for whoever comes
    reader.start()
    assert said([*command, str(RUN), "-o", str(pipe)], capsys)[0] == 0
    os.close(filled)
    reader.join(20)
    whole = subprocess.run([*LOADBENCH, *command, str(RUN), "-o", "-"], capture_output=True)
    assert got == [whole.stdout]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_standard_output_that_is_a_file_gets_it(tmp_path: Path) -> None:
    """What is named there is a link to it, which nothing may be put in the place of."""
    path = tmp_path / "all"
    with path.open("wb") as out:
        out.write(b"before\n")
        out.flush()
        command = [*LOADBENCH, "export", str(RUN), "--as", "csv", "-o", "/proc/self/fd/1"]
        subprocess.run(command, stdout=out, check=True)
    assert path.read_bytes().startswith(b"before\ntime,")
