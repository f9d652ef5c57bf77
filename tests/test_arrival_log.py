"""arrivals.bin while the engine serves: a disk that takes no more ends it, and nothing else."""

import resource
from pathlib import Path
from time import sleep

import pytest

from loadbench import arrivals
from loadbench.engine.arrivals import ArrivalLog
from loadbench.errors import RunError
from tests.served import request_json, rows, serving, settings

HEAD = 16
RECORD = arrivals.RECORD.itemsize


@pytest.mark.parametrize(
    ("room", "kept"), [(0, 0), (2 * RECORD + 7, 2)], ids=["nothing fits", "a part of a record"]
)
def test_a_full_disk_ends_the_log_and_not_the_engine(tmp_path: Path, room: int, kept: int) -> None:
    path = tmp_path / arrivals.FILE
    with serving("fake", *settings("fake.a=0 ms"), "--arrivals", str(path)) as engine:

        def ask() -> list[int]:
            body = request_json(rows(1))
            return [engine.call("/v2/models/fake/infer", body).status for _ in range(5)]

        # As far as a file may grow: what is beyond is refused as by a disk that is full
        size = HEAD + room
        resource.prlimit(engine.process.pid, resource.RLIMIT_FSIZE, (size, size))
        assert ask() == [200] * 5
        sleep(1.5)  # what is due every second is done
        assert ask() == [200] * 5
        for _ in range(2):
            remarks = engine.stats()["loadbench"]["remarks"]
            assert [note["code"] for note in remarks] == ["arrivals-end"]
            assert str(path) in remarks[0]["text"]
        assert engine.stop() == 0
        assert engine.process.stderr is not None
        told = engine.process.stderr.read()
    assert told.count("note: cannot write") == 1
    assert "Traceback" not in told
    assert len(arrivals.read(path).records) == kept


def test_a_disk_that_is_full_at_the_start_is_one_clear_error() -> None:
    with pytest.raises(RunError, match="cannot write /dev/full: No space left on device"):
        ArrivalLog(Path("/dev/full"), 0)
