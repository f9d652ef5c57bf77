"""Tensors in POSIX shared memory: over HTTP and gRPC, and what a client may not do with it."""

import mmap
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import numpy as np
import pytest

from loadbench.engine.rpc.messages import message
from loadbench.engine.shared import (
    MOST_BYTES,
    MOST_INPUT,
    Place,
    Regions,
    Shared,
    SharedInput,
    answer,
    inputs_of,
)
from loadbench.engine.tensors import Refused
from tests.rpc_client import WAIT_S, Client, serving_rpc
from tests.served import Answer, Engine, rows, serving, settings

OWN = f"loadbench-test-{os.getpid()}"
INFER = "/v2/models/fake/infer"
Served = tuple[Engine, Client]


def key(name: str) -> str:
    return f"/{OWN}-{name}"


def file_of(name: str) -> Path:
    """Where Linux keeps the region of that key."""
    return Path(f"/dev/shm{key(name)}")


@contextmanager
def memory(name: str, size: int) -> Iterator[mmap.mmap]:
    """A region of this process."""
    with file_of(name).open("xb+") as file:
        try:
            file.truncate(size)
            with mmap.mmap(file.fileno(), size) as found:
                yield found
        finally:
            file_of(name).unlink()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving_rpc("--shared-memory", *settings("fake.a=1 ms", "max_batch=8")) as found:
        yield found


@pytest.fixture(autouse=True)
def _nothing_registered(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "served" in request.fixturenames:
        request.getfixturevalue("served")[0].call("/v2/systemsharedmemory/unregister", {})


def register(engine: Engine, name: str, size: int, offset: int = 0, at: str = "") -> Answer:
    body = {"key": at or key(name), "offset": offset, "byte_size": size}
    return engine.call(f"/v2/systemsharedmemory/region/{name}/register", body)


def place(region: str, size: int, offset: int = 0) -> dict[str, Any]:
    found = {"shared_memory_region": region, "shared_memory_byte_size": size}
    return found | ({"shared_memory_offset": offset} if offset else {})


def asked(number: int, given: dict[str, Any], wanted: dict[str, Any] | None) -> dict[str, Any]:
    """An infer request of so many rows, all of it in shared memory."""
    x = {"name": "x", "shape": [number, 16], "datatype": "FP32", "parameters": given}
    outputs = [{"name": "y", "parameters": wanted}] if wanted else None
    return {"inputs": [x]} | ({"outputs": outputs} if outputs else {})


def test_inputs_and_outputs_over_http(served: Served) -> None:
    engine, _ = served
    with memory("in", 4096) as given, memory("out", 4096) as got:
        assert register(engine, "in", 2048, offset=1024).status == 200
        assert register(engine, "out", 4096).status == 200
        status = engine.call("/v2/systemsharedmemory/status").json
        assert {each["name"]: (each["key"], each["offset"], each["byte_size"]) for each in status} \
            == {"in": (key("in"), 1024, 2048), "out": (key("out"), 0, 4096)}  # fmt: skip
        for number in (1, 3, 3, 20):  # a kept header, and one that is run in parts
            x = rows(number, number)
            size = x.nbytes
            given[1024 + 64 : 1024 + 64 + size] = x.tobytes()
            body = asked(number, place("in", size, 64), place("out", size + 8, 128))
            found = engine.call(INFER, body)
            assert found.status == 200, found.body
            assert bytes(got[128 : 128 + size]) == x.tobytes()
            (output,) = found.json["outputs"]
            assert output["shape"] == [number, 16]
            assert output.keys() == {"name", "datatype", "shape"}  # as perf_analyzer needs it
        plain = engine.call(INFER, asked(20, place("in", 20 * 64, 64), None)).json
        assert plain["outputs"][0]["data"] == x.ravel().tolist()
        gone = engine.call("/v2/systemsharedmemory/region/in/unregister", {})
        assert gone.status == 200
        refused = engine.call(INFER, asked(1, place("in", 64), None))
        assert (refused.status, "no shared memory region 'in'" in refused.json["error"]) \
            == (400, True)  # fmt: skip


def test_inputs_and_outputs_over_grpc(served: Served) -> None:
    _, client = served
    with memory("in", 128) as given, memory("out", 128) as got:
        for name in ("in", "out"):
            client.ask("SystemSharedMemoryRegister", name=name, key=key(name), byte_size=128)
        status = client.ask("SystemSharedMemoryStatus").regions
        assert {name: each.key for name, each in status.items()} \
            == {"in": key("in"), "out": key("out")}  # fmt: skip
        x = rows(2, 5)
        given[:128] = x.tobytes()
        request = message("inference.ModelInferRequest")(model_name="fake")
        tensor = request.inputs.add(name="x", datatype="FP32", shape=[2, 16])
        output = request.outputs.add(name="y")
        for each, name in ((tensor, "in"), (output, "out")):
            each.parameters["shared_memory_region"].string_param = name
            each.parameters["shared_memory_byte_size"].int64_param = 128
        found = client.call("ModelInfer")(request, timeout=WAIT_S)
        assert bytes(got[:128]) == x.tobytes()
        assert list(found.raw_output_contents) == [b""]
        client.ask("SystemSharedMemoryUnregister", name="out")
        with pytest.raises(grpc.RpcError, match="no shared memory region 'out'"):
            client.call("ModelInfer")(request, timeout=WAIT_S)


def test_cuda_regions_are_none_and_cannot_be(served: Served) -> None:
    engine, client = served
    assert not client.ask("CudaSharedMemoryStatus").regions
    client.ask("CudaSharedMemoryUnregister")
    refused = client.refused("CudaSharedMemoryRegister", name="a", raw_handle=b"1", byte_size=1)
    assert refused.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "system shared memory" in refused.details()
    assert engine.call("/v2/cudasharedmemory/region/a/register", {}).status == 501
    assert engine.call("/v2/cudasharedmemory/status").json == []


def test_a_web_page_registers_nothing_and_takes_nothing_away(served: Served) -> None:
    engine, _ = served
    page = {"Origin": "http://evil.example"}
    body = {"key": key("in"), "offset": 0, "byte_size": 64}
    with memory("in", 64):
        refused = engine.call("/v2/systemsharedmemory/region/in/register", body, **page)
        assert (refused.status, "web pages" in refused.json["error"]) == (403, True)
        assert register(engine, "in", 64).status == 200
        for path in (
            "/v2/systemsharedmemory/unregister",
            "/v2/systemsharedmemory/region/in/unregister",
        ):
            assert engine.call(path, {}, **page).status == 403
            assert engine.call(path.replace("system", "s%79stem"), {}, **page).status == 403
        assert [one["name"] for one in engine.call("/v2/systemsharedmemory/status").json] == ["in"]
        assert engine.call("/v2/systemsharedmemory/status", {}).status == 405


def test_off_unless_asked_for() -> None:
    with serving_rpc(*settings("fake.a=0 ms")) as (engine, client), memory("in", 64):
        assert "system_shared_memory" not in engine.call("/v2").json["extensions"]
        refused = register(engine, "in", 64)
        assert (refused.status, "--shared-memory" in refused.json["error"]) == (400, True)
        client.ask("SystemSharedMemoryUnregister")  # as clients begin that will use none
        assert engine.call("/v2/systemsharedmemory/status").json == []
        assert (
            "--shared-memory" in engine.call(INFER, asked(1, place("in", 64), None)).json["error"]
        )


def test_a_region_that_shrinks_or_goes_hurts_only_its_own_request(served: Served) -> None:
    engine, _ = served
    with memory("in", 8192):
        assert register(engine, "in", 8192).status == 200
        os.truncate(file_of("in"), 4096)
        body = asked(1, place("in", 64, 5000), None)
        refused = engine.call(INFER, body)
        assert (refused.status, "smaller" in refused.json["error"]) == (400, True)
        assert engine.call(INFER, asked(1, place("in", 64), None)).status == 200
        refused = engine.call(INFER, asked(1, place("in", 64), place("in", 64, 5000)))
        assert (refused.status, "smaller" in refused.json["error"]) == (400, True)
        assert file_of("in").stat().st_size == 4096  # it was not made larger
    # unlinked, but the engine still has it open: its memory is there until it is unregistered
    assert engine.call(INFER, asked(1, place("in", 64), None)).status == 200


def test_an_output_that_does_not_fit_is_an_error_and_nothing_is_written(served: Served) -> None:
    engine, _ = served
    with memory("out", 64) as got, memory("in", 256):
        register(engine, "in", 256)
        register(engine, "out", 64)
        before = engine.stats()["loadbench"]["failed"]
        refused = engine.call(INFER, asked(2, place("in", 128), place("out", 64)))
        assert (refused.status, "does not fit" in refused.json["error"]) == (400, True)
        assert bytes(got) == bytes(64)
        assert engine.stats()["loadbench"]["failed"] == before + 1


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (place("in", 128), "128 bytes"),
        (place("in", 64, 40), "lie beyond"),
        (place("in", -64), "no place"),
        (place("in", 64, -64), "no place"),
        (place("no", 64), "no shared memory region 'no'"),
        ({"shared_memory_region": "in"}, "are numbers"),
        (place("in", 64) | {"binary_data_size": 64}, "and in the request"),
    ],
)
def test_places_that_are_none(served: Served, parameters: dict[str, Any], said: str) -> None:
    engine, _ = served
    with memory("in", 100):
        register(engine, "in", 100)
        refused = engine.call(INFER, asked(1, parameters, None))
        assert (refused.status, said in refused.json["error"]) == (400, True), refused.json


# ---- the regions themselves


@pytest.fixture
def regions() -> Iterator[Regions]:
    found = Regions(f"/{OWN}")
    yield found
    found.unregister("")


def test_only_keys_with_the_prefix_are_opened(regions: Regions, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(64))
    outside = os.path.relpath(tmp_path / "file", "/dev/shm")
    for wrong in ("/other", OWN, f"/{OWN}/../passwd", f"/{OWN}/{outside}", "", f"/{OWN}\0"):
        with pytest.raises(Refused) as caught:
            regions.register("a", wrong, 0, 8)
        assert caught.value.status == 400
    with memory("there", 64), pytest.raises(Refused, match="does not begin with"):
        Regions(key("other")).register("a", key("there"), 0, 8)
    with pytest.raises(Refused, match="No such file"):
        regions.register("a", key("missing"), 0, 8)
    everything = Regions("")
    for wrong in ("/..", "/.", "/"):
        with pytest.raises(Refused, match="no key"):
            everything.register("a", wrong, 0, 8)


def test_a_link_or_a_folder_is_no_region(regions: Regions, tmp_path: Path) -> None:
    target = tmp_path / "secret"
    target.write_bytes(bytes(64))
    link, folder, pipe = map(file_of, ("link", "folder", "pipe"))
    link.symlink_to(target)
    folder.mkdir()
    os.mkfifo(pipe)
    try:
        for name in ("link", "folder", "pipe"):
            with pytest.raises(Refused):
                regions.register("a", key(name), 0, 8)
    finally:
        link.unlink()
        folder.rmdir()
        pipe.unlink()


def test_what_is_registered_is_there_and_bounded(regions: Regions) -> None:
    with memory("a", 100):
        for offset, size in ((0, 101), (50, 51), (-1, 8), (0, 0)):
            with pytest.raises(Refused):
                regions.register("a", key("a"), offset, size)
        regions.register("a", key("a"), 50, 50)
        with pytest.raises(Refused, match="already"):
            regions.register("a", key("a"), 0, 100)
        regions.write(Place("a", 0, 8), b"12345678")
        assert regions.read(Place("a", 2, 4)) == b"3456"
        with pytest.raises(Refused, match="does not fit"):
            regions.write(Place("a", 0, 4), b"12345")


def test_memory_that_cannot_be_had_is_an_error(regions: Regions) -> None:
    """A hole takes memory when it is written to, and then there may be none: here, by a limit."""
    with memory("a", 8192):
        regions.register("a", key("a"), 0, 8192)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(Refused, match="cannot be written to"):
                regions.write(Place("a", 4096, 8), bytes(8))
            with pytest.raises(Refused, match="4 bytes only"):
                regions.write(Place("a", 4092, 8), bytes(8))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_more_is_read_than_the_tensor_has(regions: Regions) -> None:
    size = MOST_INPUT + 1
    with memory("big", size):  # a hole
        regions.register("big", key("big"), 0, size)
        texts = SharedInput("x", "BYTES", (1, 16), Place("big", 0, size))
        with pytest.raises(Refused, match="may have"):
            inputs_of(regions, Shared((texts,), {}))
    numbers = SharedInput("x", "FP32", (1, 16), Place("unknown", 0, 1 << 20))
    with pytest.raises(Refused, match="takes 64"):  # which is seen before the region is looked for
        inputs_of(regions, Shared((numbers,), {}))


def test_all_regions_together_are_bounded(regions: Regions) -> None:
    big = MOST_BYTES // 2 + 1
    with memory("big", big):  # a hole: it takes no memory
        regions.register("one", key("big"), 0, big)
        with pytest.raises(Refused, match="may be"):
            regions.register("two", key("big"), 0, big)
        regions.unregister("one")
        regions.register("two", key("big"), 0, big)


def test_unregistered_regions_are_closed(regions: Regions) -> None:
    with memory("a", 100):
        before = len(os.listdir("/proc/self/fd"))
        for name in ("a", "b", "c"):
            regions.register(name, key("a"), 0, 100)
        regions.unregister("a")
        regions.unregister("unknown")
        assert len(os.listdir("/proc/self/fd")) == before + 2
        regions.unregister("")
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("path", ["/v2/systemsharedmemory/no", "/v2/systemsharedmemory/a/b/status"])
def test_other_paths_are_unknown(path: str) -> None:
    with pytest.raises(Refused) as caught:
        answer(None, path, b"")
    assert caught.value.status == 404


def test_where_others_reach_the_engine_there_is_none() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadbench", "serve", "fake", "--port", "0", "--host", "0.0.0.0",
         "--shared-memory"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--shared-memory" in done.stderr


def test_values_are_as_they_were_when_the_request_came() -> None:
    """What a client writes while its request waits is of the next."""
    with serving("fake", "--shared-memory", *settings("fake.a=200 ms", "max_batch=1")) as engine:
        with memory("in", 64) as given:
            register(engine, "in", 64)
            given[:64] = rows(1, 3).tobytes()
            found: list[Answer] = []
            body = asked(1, place("in", 64), None)
            thread = Thread(target=lambda: found.append(engine.call(INFER, body)))
            thread.start()
            while not engine.call("/health").json["open"]:
                pass
            given[:64] = bytes(64)
            thread.join()
        data = found[0].json["outputs"][0]["data"]
        assert np.array(data, np.float32).tobytes() == rows(1, 3).tobytes()
