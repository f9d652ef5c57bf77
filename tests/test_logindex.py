"""The index of a log: the same whether written by the runner or found by going through the lines;
never believed where it is not of this log."""

import json
from pathlib import Path

import pytest

from loadbench import logindex, runlog
from loadbench.errors import SpecError
from loadbench.logindex import Contents
from loadbench.model import End, Mark, Minute, Start, Window
from tests.records import start, window

END = 200


def written(folder: Path) -> Path:
    writer = runlog.Writer(folder)
    writer.write(start())
    for second in range(-5, END):
        stage = "warmup" if second < 0 else "load"
        writer.write(window(second, [5.0], stage=stage))
        if second == 70:
            writer.write(Mark(second, "a mark"))
    writer.close(End(END, "done"))
    return folder / runlog.LOG


def scanned(log: Path) -> Contents:
    *_, found = logindex.scan(log)
    return found


def test_what_the_runner_wrote_is_what_the_lines_say(tmp_path: Path) -> None:
    log = written(tmp_path)
    found = logindex.read(log)
    assert found == scanned(log)
    assert found is not None
    assert [block.second for block in found.blocks] == [-5, 0, 60, 120, 180]
    kinds = [type(logindex.decode(line)) for line in logindex.lines_at(log, found.others)]
    assert kinds == [Start, Mark, End]
    minutes = logindex.lines_at(log, [block.end for block in found.blocks])
    assert all(isinstance(logindex.decode(line), Minute) for line in minutes)


def test_a_block_holds_its_seconds_and_no_others(tmp_path: Path) -> None:
    log = written(tmp_path)
    for block in scanned(log).blocks:
        windows = [logindex.decode(line) for line in logindex.seconds_of(log, block)]
        assert all(isinstance(found, Window) for found in windows)
        seconds = [found.second for found in windows if isinstance(found, Window)]
        length = 5 if block.second < 0 else min(60, END - block.second)
        assert seconds == list(range(block.second, block.second + length))


def test_a_half_written_line_is_not_indexed(tmp_path: Path) -> None:
    log = written(tmp_path)
    whole = scanned(log)
    with open(log, "ab") as file:
        file.write(b'{"kind":"window","second":')
    assert scanned(log) == whole


@pytest.mark.parametrize(
    "harm",
    [
        lambda found: found.update(size=found["size"] + 1),
        lambda found: found.pop("others"),
        lambda found: found["others"].append(10**12),
        lambda found: found["others"].append("7"),
        lambda found: found["minutes"].reverse(),
        lambda found: found["minutes"].append([240, 10**12]),
        lambda found: found["minutes"].append([240]),
        lambda found: found.update(minutes=7),
    ],
)
def test_an_index_of_another_log_or_a_damaged_one_is_left_aside(tmp_path: Path, harm) -> None:  # type: ignore[no-untyped-def]
    log = written(tmp_path)
    found = json.loads((tmp_path / logindex.INDEX).read_text())
    harm(found)
    (tmp_path / logindex.INDEX).write_text(json.dumps(found))
    assert logindex.read(log) is None


def test_no_index_and_no_json(tmp_path: Path) -> None:
    log = written(tmp_path)
    (tmp_path / logindex.INDEX).write_text("{")
    assert logindex.read(log) is None
    (tmp_path / logindex.INDEX).unlink()
    assert logindex.read(log) is None


def test_a_place_beyond_the_log_is_said(tmp_path: Path) -> None:
    log = written(tmp_path)
    with pytest.raises(SpecError, match="was it cut"):
        list(logindex.lines_at(log, [log.stat().st_size]))


def test_what_is_no_log_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.ndjson"
    path.write_bytes(b"x" * 5_000)
    monkeypatch.setattr(logindex, "LONGEST", 1_000)
    with pytest.raises(SpecError, match="is no log"):
        list(logindex.scan(path))
