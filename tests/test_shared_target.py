"""Tensors that go through shared memory, as the load sends them: against the engine, over HTTP and
over gRPC."""

import json
import os
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.load.failure import forgotten
from loadbench.model import Tensor, Window
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets import inputs, kserve
from loadbench.targets.region import Place, Region, sweep
from loadbench.targets.wire import BadAnswer
from tests.completions import completions
from tests.rpc_client import serving_rpc
from tests.running import loadbench, scenario, summary
from tests.served import settings

IMAGE = Endpoint(
    host="h", port=1, protocol="kserve", model="m", shared=True,
    inputs=(Tensor("x", "FP32", (3, 4)),),
    outputs=(Tensor("y", "FP32", (2,)), Tensor("open", "FP32", (-1,)), Tensor("s", "BYTES", ())),
)  # fmt: skip
FOLDER = Path("/dev/shm")


def left() -> set[str]:
    """Of processes that are no more, or of this one: others may be at it beside us."""
    found = {path.name: path.name.split("-")[1] for path in FOLDER.glob("loadbench-[0-9]*")}
    own = os.getpid()
    return {
        name for name, pid in found.items() if int(pid) == own or not psutil.pid_exists(int(pid))
    }


def test_a_region_holds_what_is_kept_in_it_and_leaves_nothing_behind() -> None:
    before = left()
    region = Region()
    one, two = region.keep(b"abc"), region.keep(b"d" * 100)
    three = region.output("y", 8)
    assert region.output("y", 8) == three
    assert region.output("y", 16) != three
    places = [one, two, three]
    assert all(a.offset + a.size <= b.offset for a, b in pairwise(places))
    assert left() == before  # it has no name yet
    region.show()
    path = FOLDER / region.name
    data = path.read_bytes()
    assert len(data) == region.size
    assert data[one.offset : one.offset + one.size] == b"abc"
    assert data[two.offset : two.offset + two.size] == b"d" * 100
    assert path.stat().st_mode & 0o777 == 0o600
    region.forget()
    assert left() == before


def test_requests_carry_the_places_of_their_tensors() -> None:
    region = Region()
    try:
        ((*pool,),), _ = inputs.prepare(IMAGE, [RequestPlan("a", rows=2, pool=3)], 1, region=region)
        region.show()
        data = (FOLDER / region.name).read_bytes()
    finally:
        region.forget()
    plain, _ = inputs.prepare(IMAGE, [RequestPlan("a", rows=2, pool=3)], 1)
    assert len(pool) == 3
    for shared, whole in zip(pool, plain[0], strict=True):
        asked = json.loads(shared.data.partition(b"\r\n\r\n")[2])
        found = asked["inputs"][0]["parameters"]
        assert found["shared_memory_byte_size"] == 96
        assert shared.kept >= 128  # to a cache line, the first with the place of its output
        start = found["shared_memory_offset"]
        assert whole.data.endswith(data[start : start + 96])
        by_name = {one["name"]: one["parameters"] for one in asked["outputs"]}
        assert by_name["y"]["shared_memory_byte_size"] == 2 * 2 * 4
        assert by_name["open"] == by_name["s"] == {"binary_data": True}


@pytest.mark.parametrize(
    ("shape", "shared", "good"),
    [([2, 2], True, True), ([2, 2], False, False), ([2, 3], True, False), ([-1, 2], True, False)],
)
def test_an_answer_does_not_hold_what_went_into_memory(
    shape: list[int], shared: bool, good: bool
) -> None:
    endpoint = Endpoint(
        host="h", port=1, protocol="kserve", outputs=IMAGE.outputs[:1], shared=shared
    )
    check = kserve.checker(endpoint, 2)
    output = {"name": "y", "datatype": "FP32", "shape": shape}
    body = json.dumps({"outputs": [output]}).encode()
    if good:
        assert check({}, body) is not None
        return
    with pytest.raises(BadAnswer, match=r"shape|values"):
        check({}, body)


def test_a_place_says_itself_as_the_protocol_has_it() -> None:
    found = Place("r", 64, 8).parameters
    assert found == {
        "shared_memory_region": "r", "shared_memory_offset": 64, "shared_memory_byte_size": 8,
    }  # fmt: skip


def test_a_run_goes_through_memory(tmp_path: Path) -> None:
    before = left()
    told = summary(scenario(tmp_path), "--set", "target.shared_memory=true", cwd=tmp_path)
    assert told["failed"] == {}
    assert told["done"] == told["asked"] == 400
    assert told["server"]["requests"] == pytest.approx(400, abs=20)  # by the second they ended in
    assert left() == before


@pytest.mark.long
def test_over_grpc_and_with_workers_too(tmp_path: Path) -> None:
    before = left()
    arguments = ("--shared-memory", *settings("fake.a=1 ms", "max_batch=8"))
    with serving_rpc(*arguments) as (engine, client):
        path = tmp_path / "s.toml"
        path.write_text(
            f'[target]\nurl = "grpc://127.0.0.1:{client.port}"\nshared_memory = true\n'
            '[load]\nwarmup = "1s"\nphases = [{ rate = 100, for = "2s" }]\n'
        )
        told = summary(path, "--workers", "2", cwd=tmp_path)
        assert told["failed"] == {}
        assert told["done"] == told["asked"] > 100
        assert engine.call("/v2/systemsharedmemory/status").json == []
    assert left() == before


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_has_forgotten_the_memory_is_told_of(scheme: str, tmp_path: Path) -> None:
    """As one that was restarted has: what it says names our region, and it gets it again."""
    before = left()
    arguments = ("--shared-memory", *settings("fake.a=1 ms", "max_batch=8"))
    with serving_rpc(*arguments) as (engine, client):
        port = client.port if scheme == "grpc" else engine.port
        path = tmp_path / "s.toml"
        path.write_text(
            f'[target]\nurl = "{scheme}://127.0.0.1:{port}"\nshared_memory = true\n'
            '[load]\nwarmup = "1s"\nphases = [{ rate = 50, for = "4s" }]\n'
        )

        def forget() -> None:
            while not engine.call("/v2/systemsharedmemory/status").json:
                time.sleep(0.05)
            time.sleep(2)
            engine.call("/v2/systemsharedmemory/unregister", {})

        forgetting = threading.Thread(target=forget)
        forgetting.start()
        told = summary(path, cwd=tmp_path, code=None)
        forgetting.join()
    assert list(told["failed"]) == ["no_region"]
    assert "loadbench-" in str(told["examples"]["no_region"])
    assert told["failed"]["no_region"] < 60  # of the 100 that were still to come
    assert again(told)
    assert left() == before


def again(told: dict[str, Any]) -> bool:
    """Whether the run says that the memory was registered again."""
    return any(note["code"] == "memory-again" for note in told["notes"])


@pytest.mark.parametrize(
    "how", ["http", *(pytest.param(how, marks=pytest.mark.long) for how in ("grpc", "stream"))]
)
def test_a_run_goes_on_when_its_server_is_restarted(how: str, tmp_path: Path) -> None:
    """Killed amid the run, and started again at the same ports."""
    scheme = "http" if how == "http" else "grpc"
    stream = "stream = true\n" if how == "stream" else ""
    before = left()
    arguments = ("--shared-memory", *settings("fake.a=1 ms", "max_batch=8"))
    path = tmp_path / "s.toml"
    ended: list[dict[str, Any]] = []
    with serving_rpc(*arguments) as (engine, client):
        ports = ("--port", str(engine.port), "--grpc-port", str(client.port))
        port = client.port if scheme == "grpc" else engine.port
        path.write_text(
            f'[target]\nurl = "{scheme}://127.0.0.1:{port}"\nshared_memory = true\n{stream}'
            '[load]\nwarmup = "1s"\nphases = [{ rate = 50, for = "12s" }]\n'
        )
        run = threading.Thread(target=lambda: ended.append(summary(path, cwd=tmp_path, code=None)))
        run.start()
        while run.is_alive() and engine.stats()["inference_count"] < 100:
            time.sleep(0.05)
        engine.process.kill()
        engine.process.wait()
    with serving_rpc(*arguments, *ports) as (second, _):
        run.join()
        served = second.stats()["inference_count"]
        assert second.call("/v2/systemsharedmemory/status").json == []
    (told,) = ended
    assert told["failed"]["no_region"] < 100  # of the 400 that were still to come, or more
    assert again(told)
    assert served > 200  # by the second one, out of memory that it was given anew
    found = [one for one in runlog.read(runlog.find("last", tmp_path / "results"))
             if isinstance(one, Window) and one.stage != "drain"]  # fmt: skip
    assert not any(window.failed for window in found[-2:])
    assert left() == before


@pytest.mark.parametrize("nameless", [True, False])
def test_a_region_that_is_shown_again_holds_what_it_held(
    nameless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the system knows no memory without a name."""
    if not nameless:
        monkeypatch.setattr(os, "O_TMPFILE", 0)
    before = left()
    region = Region()
    assert (left() == before) is nameless
    kept = [region.keep(bytes([number]) * 70_000) for number in range(9)]
    region.show()
    first = (FOLDER / region.name).read_bytes()
    assert first[kept[8].offset :][:70_000] == b"\x08" * 70_000
    for _ in range(2):
        region.hide()
        assert left() == before
        region.show()
        assert (FOLDER / region.name).read_bytes() == first
    region.forget()
    assert left() == before


def test_a_region_that_is_forgotten_gets_no_name_any_more() -> None:
    """A thread may be about to name it."""
    before = left()
    region = Region()
    region._over = True  # as of `forget`, amid which the other thread comes
    region.show()
    assert left() == before
    region.forget()


HOLDER = """
import os, sys, time
from loadbench.targets.region import Region

os.O_TMPFILE *= sys.argv[1] == "True"
region = Region()
region.keep(b"abc")
region.show()
print(region.name, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("nameless", [True, False])
def test_what_a_killed_process_left_is_swept_and_that_of_the_living_is_not(nameless: bool) -> None:
    """Whatever its number is: it may be counted by a container of its own."""
    command = [sys.executable, "-c", HOLDER, str(nameless)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            path = FOLDER / process.stdout.readline().strip()
            sweep()
            assert path.is_file()
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it keeps its number
            sweep()
            assert not path.exists()
        finally:
            process.kill()


def test_only_what_is_named_and_filled_as_ours_is_swept() -> None:
    """A user's own memory may be called alike, and what is empty is about to be locked."""
    name = f"loadbench-{os.getpid()}-0a1b2c3d"
    own, new = FOLDER / f"{name}-mine", FOLDER / name
    try:
        own.write_bytes(b"abc")
        new.touch()
        sweep()
        assert own.exists()
        assert new.exists()
        new.write_bytes(b"abc")
        sweep()
        assert not new.exists()
    finally:
        own.unlink(missing_ok=True)
        new.unlink(missing_ok=True)


def test_a_run_sweeps_what_one_that_was_killed_with_all_its_processes_left(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, "True"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        path = FOLDER / process.stdout.readline().strip()
        assert path.is_file()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        loadbench("run", scenario(tmp_path), cwd=tmp_path)
        assert not path.exists()


def test_memory_that_has_become_smaller_is_not_copied_for_ever() -> None:
    before = left()
    region = Region()
    region.keep(b"a" * 5000)
    region.show()
    os.truncate(FOLDER / region.name, 100)
    with pytest.raises(SpecError, match="somebody has made it smaller"):
        region.show()
    region.forget()
    assert left() == before


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("Unable to find shared memory region: 'loadbench-71-0a1b2c3d'", False),
        ("there is no shared memory region 'loadbench-71-0a1b2c3d'", False),
        ("Unable to find shared memory region: 'another'", True),
        ("shared memory region 'loadbench-71-0a1b2c3d' has become smaller", True),
    ],
)
def test_of_what_servers_say_of_memory_only_that_ours_is_unknown_counts(
    said: str, known: bool
) -> None:
    assert forgotten(said.encode()) is not known


def test_a_server_without_it_is_told_of(tmp_path: Path) -> None:
    with completions() as server:
        path = tmp_path / "s.toml"
        path.write_text(
            f'[target]\nurl = "{server.url}"\nshared_memory = true\n'
            '[load]\nphases = [{ rate = 5, for = "1s" }]\n'
        )
        found = loadbench("run", path, cwd=tmp_path, code=2)
    assert "shared memory is of KServe v2" in found.stderr


def test_expected_outputs_are_refused(tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "in.npz", x=np.zeros((2, 3, 4), np.float32), y=np.zeros((2, 2), np.float32))
    region = Region()
    try:
        with pytest.raises(SpecError, match="not compared with expect"):
            inputs.prepare(
                IMAGE, [RequestPlan("a", data=str(tmp_path / "in.npz"))], 1, region=region
            )
    finally:
        region.forget()
