"""What is asked of servers: a real engine, the recorded answers of a real Triton, and none."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import httpx
import msgspec
import pytest

from loadbench import merge
from loadbench.engine.statistics import Account
from loadbench.errors import SpecError, TargetError
from loadbench.histogram import Histogram
from loadbench.inside import Cache, EngineStatistics
from loadbench.model import BatchSize, Note, Part, Server, Tensor, decode, encode
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets import inputs
from loadbench.targets.ask import Asker
from loadbench.targets.between import difference
from loadbench.targets.messages import message
from loadbench.targets.rpc import PREFIX, head_length
from loadbench.targets.statistics import Reading, read
from loadbench.targets.unheeded import unheeded
from loadbench.targets.wire import Prepared
from loadbench.targetspec import TargetSpec
from loadbench.units import MS
from tests.answering import Answering, Handler, kserve, serve
from tests.running import loadbench, summary
from tests.served import Engine, serving

TRITON = Path(__file__).parent / "data" / "triton"


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((TRITON / f"{name}.json").read_text())
    return found


@contextmanager
def replaying(changed: dict[str, tuple[int, str]] | None = None) -> Iterator[str]:
    """A server that gives a real Triton's recorded answers; `changed` replaces some."""
    answers: dict[str, tuple[int, str]] = {}
    names = ("server", "ready", "repository_index", "model", "config", "statistics")
    for name in (*names, "model_unbatched", "config_unbatched"):
        exchange = recorded(name)
        answer = exchange["response"]
        answers[exchange["request"]["path"]] = (answer["status"], answer["body"])
    answers |= changed or {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answers.get(self.path, (404, '{"error":"Not Found"}'))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = do_OPTIONS = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def trickling() -> Iterator[str]:
    """A server whose every answer comes a byte at a time, for a minute."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                for _ in range(1200):
                    self.wfile.write(b" ")
                    time.sleep(0.05)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with serving("fake") as found:
        yield found


def test_our_own_engine_is_described_as_any_other(engine: Engine) -> None:
    url = f"http://127.0.0.1:{engine.port}"
    with Asker(url) as asker:
        found = asker.describe(TargetSpec(url=url))
        facts = asker.engine_facts(found)
    assert (found.host, found.port) == ("127.0.0.1", engine.port)
    assert (found.protocol, found.model, found.batched, found.binary) == (
        "kserve", "fake", True, True,
    )  # fmt: skip
    assert found.inputs[0].datatype == "FP32"
    assert facts["policy"] == "deadline"
    assert facts["max_batch"] >= 1
    assert facts["device"] == "cpu"
    assert all(Note(**note).text for note in facts["notes"])


def test_requests_of_both_encodings_are_accepted_and_their_answers_good(engine: Engine) -> None:
    url = f"http://127.0.0.1:{engine.port}"
    with Asker(url) as asker:
        found = asker.describe(TargetSpec(url=url))
    for binary in (False, True):
        where = msgspec.structs.replace(found, binary=binary)
        ((first, *_),), _ = inputs.prepare(where, [RequestPlan("a", rows=2)], seed=1)
        with socket.create_connection(("127.0.0.1", engine.port)) as connection:
            connection.sendall(first.data)
            raw = connection.recv(1 << 20)
        head, _, body = raw.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        assert raw.startswith(b"HTTP/1.1 200")
        form = first.check(fields, body)
        assert form is not None
        assert (form.length is not None) is binary


def test_statistics_of_our_engine_between_two_readings(engine: Engine) -> None:
    url = f"http://127.0.0.1:{engine.port}"
    with Asker(url) as asker:
        found = asker.describe(TargetSpec(url=url))
        shape = [3, *(16 if dim < 0 else dim for dim in found.inputs[0].shape)]
        before = asker.statistics(found)
        count = 1
        for dim in shape:
            count *= dim
        data = {"name": found.inputs[0].name, "datatype": "FP32", "shape": shape}
        for _ in range(4):
            answer = httpx.post(
                f"{url}/v2/models/fake/infer",
                json={"inputs": [data | {"data": [0.5] * count}]},
                trust_env=False,
            )
            assert answer.status_code == 200
        after = asker.statistics(found)
    assert before is not None
    assert after is not None
    server = difference(before, after)
    assert server.source == "loadbench"
    assert (server.requests, server.rows, server.batches) == (4, 12, 4)
    assert server.queue is not None
    assert server.compute is not None
    assert server.compute.histogram is not None
    assert server.queue.count == server.compute.count == server.compute.histogram.count == 4
    assert server.sizes[3].batches == 4
    assert sum(number for sizes in server.closed.values() for number in sizes.values()) == 4
    assert difference(after, after).requests == 0


def test_a_triton_is_described_from_its_metadata_and_configuration() -> None:
    with replaying() as url, Asker(url) as asker:
        batched = asker.describe(TargetSpec(url=url, model="matmul"))
        unbatched = asker.describe(TargetSpec(url=url, model="echo"))
        facts = asker.engine_facts(batched)
    assert batched.batched
    assert batched.binary
    assert batched.inputs == (Tensor("x", "FP32", (64,)),)
    assert batched.outputs == (Tensor("y", "FP32", (64,)), Tensor("total", "FP32", (1,)))
    assert not unbatched.batched
    assert unbatched.inputs[0] == Tensor("texts", "BYTES", (-1,))
    assert facts == {}


def test_tritons_statistics_give_means_and_batch_sizes() -> None:
    idle = read(recorded("statistics_idle")["response"]["body"].encode())
    busy = read(recorded("statistics")["response"]["body"].encode())
    server = difference(idle, busy)
    assert server.source == "kserve statistics"
    assert (server.requests, server.rows, server.batches, server.failed) == (70, 70, 14, 0)
    assert server.queue is not None
    assert server.compute is not None
    assert server.queue.mean_ns == pytest.approx(108950400 / 70)
    assert server.compute.total_ns == 3130856 + 174391675 + 11291829
    assert server.queue.histogram is None
    assert server.batch_wait is None
    assert {size: found.batches for size, found in server.sizes.items()} == {1: 6, 8: 8}
    assert server.sizes[8].compute_ns == 370164 + 18377627 + 1358991


def test_tritons_compute_is_told_in_its_parts() -> None:
    idle, busy = (
        read(recorded(name)["response"]["body"].encode())
        for name in ("statistics_idle", "statistics")
    )
    server = difference(idle, busy)
    assert server.compute_input == Part(70, 3130856)
    assert server.compute_output == Part(70, 11291829)
    assert server.compute_parts_ms == pytest.approx(
        {"input": 3130856 / 70e6, "infer": 174391675 / 70e6, "output": 11291829 / 70e6}
    )
    twice = merge.servers([server, server])
    assert twice is not None
    assert twice.compute_parts_ms == pytest.approx(server.compute_parts_ms)
    assert decode(Server, encode(server)) == server
    assert decode(Server, b'{"source":"kserve statistics"}').compute_parts_ms == {}


def test_answers_from_tritons_cache_take_none_of_the_models_time() -> None:
    body = json.loads(recorded("statistics")["response"]["body"])
    before = read(json.dumps(body).encode())
    counted = body["model_stats"][0]["inference_stats"]
    for key, count, ns in (
        ("success", 10, 9_000_000), ("queue", 10, 2_000_000), ("cache_hit", 6, 600_000),
        ("cache_miss", 4, 200_000),
        ("compute_input", 4, 400_000), ("compute_infer", 4, 8_000_000),
        ("compute_output", 4, 800_000),
    ):  # fmt: skip
        counted[key]["count"] += count
        counted[key]["ns"] += ns
    server = difference(before, read(json.dumps(body).encode()))
    assert (server.requests, server.cached, server.cache_misses) == (10, 6, 4)
    assert server.modelled == pytest.approx(0.4)
    assert server.compute == Part(4, 9_200_000)
    assert server.compute_parts_ms == pytest.approx({"input": 0.1, "infer": 2.0, "output": 0.2})


def test_a_server_that_restarted_between_two_readings_counts_from_zero() -> None:
    before = Reading(success=100, rows=200, batches=50, queue_ns=9, sizes={4: (50, 900)})
    after = Reading(success=10, rows=20, batches=5, queue_ns=3, sizes={4: (5, 90)})
    found = difference(before, after)
    assert (found.requests, found.rows, found.batches) == (10, 20, 5)
    assert found.queue is not None
    assert found.queue.total_ns == 3
    assert found.sizes[4] == BatchSize(5, compute_ns=90)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Reading(success=10, fail=100), Reading(success=10, fail=5)),
        (Reading(success=4, queue_ns=900), Reading(success=50, queue_ns=30)),
        (Reading(success=4, compute_ns=900), Reading(success=50, compute_ns=30)),
        (Reading(success=4, rows=90, batches=4), Reading(success=50, rows=50, batches=50)),
        (Reading(success=4, sizes={8: (4, 9)}), Reading(success=50, sizes={1: (50, 20)})),
        (Reading(success=4, sizes={8: (4, 9)}), Reading(success=50, sizes={8: (6, 5)})),
    ],
)
def test_whatever_became_less_tells_of_a_restart(before: Reading, after: Reading) -> None:
    """A server that was restarted may have counted more of something than before."""
    found = difference(before, after)
    assert (found.requests, found.failed) == (after.success, after.fail)
    assert (found.rows, found.batches) == (after.rows, after.batches)
    assert found.queue is not None
    assert found.compute is not None
    assert (found.queue.total_ns, found.compute.total_ns) == (after.queue_ns, after.compute_ns)
    sizes = {size: (part.batches, part.compute_ns) for size, part in found.sizes.items()}
    assert sizes == after.sizes


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (EngineStatistics(failed=9), EngineStatistics(failed=2)),
        (EngineStatistics(shed={"full": 9}), EngineStatistics(shed={"late": 3})),
        (EngineStatistics(busy_ns=9), EngineStatistics(busy_ns=2)),
        (
            EngineStatistics(sizes={2: BatchSize(3, 6, 1, 1, compute_ns=90)}),
            EngineStatistics(sizes={2: BatchSize(4, 8, 1, 1, compute_ns=20)}),
        ),
        (
            EngineStatistics(queue=Histogram.of([9 * MS] * 2)),
            EngineStatistics(queue=Histogram.of([2 * MS] * 4)),
        ),
    ],
)
def test_whatever_of_our_engine_became_less_tells_of_a_restart(
    before: EngineStatistics, after: EngineStatistics
) -> None:
    found = difference(Reading(success=4, engine=before), Reading(success=50, engine=after))
    assert (found.requests, found.failed, found.busy_ns) == (50, after.failed, after.busy_ns)
    assert found.shed == sum(after.shed.values())
    assert found.sizes == after.sizes
    assert found.queue is not None
    assert found.queue.histogram == after.queue


def test_a_version_that_is_loaded_anew_has_new_stages_and_a_new_cache() -> None:
    """Its books go on."""

    def engine_of(batches: int, hits: int) -> EngineStatistics:
        return EngineStatistics(parts={"prep": (batches, 5)}, cache=Cache(hits, 0, 0, 0, 1))

    before = Reading(success=100, engine=engine_of(80, 60))
    after = Reading(success=110, engine=engine_of(4, 3))
    found = difference(before, after)
    assert (found.requests, found.cached, found.parts["prep"]) == (10, 3, Part(4, 5))
    gone = Reading(success=110, engine=EngineStatistics())
    assert difference(before, gone).cached == 0


def test_what_our_engine_remarked_is_told_once() -> None:
    old, new = Note("a", "one card, two engines"), Note("b", "a buffer drifts")
    account = Account()
    for note in (old, new, old):
        account.remark(note)
    before = Reading(engine=EngineStatistics(remarks=(old,)))
    after = Reading(engine=account.engine())
    assert difference(before, after).remarks == (new,)
    assert difference(after, after).remarks == ()


def test_our_restarted_engine_counts_from_zero() -> None:
    def engine_of(times: list[int], busy: int) -> EngineStatistics:
        return EngineStatistics(
            compute=Histogram.of(times), sizes={1: BatchSize(len(times), len(times), 1, 1, 5)},
            shed={"full": len(times)}, closed={"idle": {1: len(times)}}, busy_ns=busy,
        )  # fmt: skip

    before = Reading(success=3, rows=3, batches=3, engine=engine_of([MS] * 3, 300))
    grown = Reading(success=5, rows=5, batches=5, engine=engine_of([MS] * 3 + [2 * MS] * 2, 500))
    fresh = Reading(success=2, rows=2, batches=2, engine=engine_of([3 * MS] * 2, 200))
    on = difference(before, grown)
    assert on.compute is not None
    assert on.compute.histogram == Histogram.of([2 * MS] * 2)
    assert (on.shed, on.closed, on.busy_ns) == (2, {"idle": {1: 2}}, 200)
    again = difference(grown, fresh)
    assert again.compute is not None
    assert again.compute.histogram == Histogram.of([3 * MS] * 2)
    assert (again.shed, again.requests, again.busy_ns) == (2, 2, 200)


def test_a_server_without_statistics_or_configuration() -> None:
    absent = (404, '{"detail":"Not Found"}')
    server = (200, '{"name":"mlserver","version":"1.7","extensions":[]}')
    paths = ("/v2/models/matmul/config", "/v2/models/matmul/stats")
    with replaying({"/v2": server, **dict.fromkeys(paths, absent)}) as url, Asker(url) as asker:
        found = asker.describe(TargetSpec(url=url, model="matmul"))
        assert asker.statistics(found) is None
    assert found.batched  # open everywhere
    assert not found.binary


def test_a_server_that_is_no_kserve_is_plain_http() -> None:
    with replaying({"/v2": (404, ""), "/score": (200, "ok")}) as url, Asker(url) as asker:
        found = asker.describe(TargetSpec(url=url, path="/score", method="POST"))
        assert asker.statistics(found) is None
        assert asker.known_by == "plain HTTP: neither /v2 nor /v1/models is known there"
    assert (found.protocol, found.path, found.method) == ("http", "/score", "POST")


def test_how_a_plain_service_refused_what_others_know_is_told() -> None:
    with replaying({"/v2": (403, "no"), "/": (200, "ok")}) as url, Asker(url) as asker:
        assert asker.describe(TargetSpec(url=url)).protocol == "http"
        assert "/v2 by HTTP 403 no and /v1/models by HTTP 404 Not Found" in asker.known_by
        assert "if it wants a key: target.headers" in asker.known_by


def test_a_server_of_https_that_takes_no_plain_http_is_told_by_what_it_says() -> None:
    said = "The plain HTTP request was sent to HTTPS port"
    with (
        replaying({"/v2": (400, said)}) as url,
        Asker(url) as asker,
        pytest.raises(SpecError, match="HTTP 400") as caught,
    ):
        asker.describe(TargetSpec(url=url))
    assert "is it an https:// address?" in caught.value.hint
    other = '{"error": "unknown operation", "documentation": "https://docs.example/errors"}'
    with replaying({"/v2": (400, other), "/": (200, "ok")}) as url, Asker(url) as asker:
        assert asker.describe(TargetSpec(url=url)).protocol == "http"


def test_headers_beyond_ascii_are_sent_as_latin_1(monkeypatch: pytest.MonkeyPatch) -> None:
    with replaying({"/v2": (404, ""), "/": (200, "ok")}) as url:
        with Asker(url, headers={"X-Api-Key": "schlüssel-1234"}) as asker:
            assert asker.describe(TargetSpec(url=url)).protocol == "http"
        monkeypatch.setenv("WIDE", "schlüssel-☃")
        with pytest.raises(SpecError, match="is not one that HTTP can carry"):
            Asker(url, headers={"X-Api-Key": "$WIDE"})
    with pytest.raises(SpecError, match="gRPC carries ASCII alone"):
        Asker("grpc://127.0.0.1:1", headers={"X-Api-Key": "schlüssel-1234"})


def test_a_list_of_models_that_names_none_may_be_of_a_service_of_plain_http() -> None:
    listed = {"/v2": (404, ""), "/v1/models": (200, '{"data": [{"name": "x"}]}'), "/": (200, "ok")}
    with replaying(listed) as url:
        with Asker(url) as asker, pytest.raises(SpecError, match="does not tell any") as caught:
            asker.describe(TargetSpec(url=url))
        assert '[target] protocol = "http"' in caught.value.hint
        with Asker(url, "openai") as asker, pytest.raises(SpecError) as caught:
            asker.describe(TargetSpec(url=url, protocol="openai"))
        assert "http" not in caught.value.hint
        with Asker(url, "http") as asker:
            assert asker.describe(TargetSpec(url=url, protocol="http")).protocol == "http"


TORCHSERVE = {
    "/v2": (404, ""),
    "/": (200, json.dumps({"openapi": "3.0.1", "info": {"title": "TorchServe APIs"}})),
}


def test_torchserve_says_what_it_is_and_not_which_models_it_has() -> None:
    with replaying(TORCHSERVE) as url:
        with Asker(url) as asker:
            found = asker.describe(TargetSpec(url=url, model="res net"))
            assert "TorchServe" in asker.known_by
            assert (found.protocol, found.path, found.method) == (
                "http", "/predictions/res%20net", "POST",
            )  # fmt: skip
            own = asker.describe(TargetSpec(url=url, path="/explanations/a"))
            assert own.path == "/explanations/a"
        with Asker(url) as asker, pytest.raises(SpecError, match="tells its models on another"):
            asker.describe(TargetSpec(url=url))


def test_torchserve_can_be_named_where_a_proxy_hides_it(tmp_path: Path) -> None:
    with replaying({"/v2": (404, ""), "/": (403, "")}) as url:
        wanted = TargetSpec(url=url, model="res net", protocol="torchserve")
        with Asker(url, wanted.protocol) as asker:
            found = asker.describe(wanted)
        assert (found.protocol, found.path, found.method) == (
            "http", "/predictions/res%20net", "POST",
        )  # fmt: skip
        own = ("--set", "target.protocol=torchserve", "--set", "target.model=a")
        done = loadbench("run", "steady", "--target", url, *own, cwd=tmp_path, code=2)
        assert "'infer' sends nothing" in done.stderr
    with Asker("http://127.0.0.1:1", "torchserve") as asker, pytest.raises(TargetError):
        asker.describe(TargetSpec(model="a"))


@pytest.mark.parametrize("told", ['{"info": 3}', "[]", '{"info": {"title": "mine"}}', "no"])
def test_others_that_answer_options_are_plain_http(told: str) -> None:
    with replaying({"/v2": (404, ""), "/": (200, told)}) as url, Asker(url) as asker:
        assert asker.describe(TargetSpec(url=url)).path == "/"


def test_torchserve_as_a_kserve_server_has_its_inputs_from_the_data(tmp_path: Path) -> None:
    answers = {"/v2": (200, '{"name":"Torchserve","extenstion":["kserve"]}')}
    path = tmp_path / "request.json"
    tensor = {"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}
    path.write_text(json.dumps({"inputs": [tensor]}))
    with replaying(answers) as url, Asker(url) as asker:
        found = asker.describe(TargetSpec(url=url, model="sum"))
        assert "KServe" in asker.known_by
    ((request, *_),), _ = inputs.prepare(found, [RequestPlan("a", data=str(path))], seed=1)
    assert b'"data":[1.0,2.0,3.0]' in request.data
    with pytest.raises(SpecError):
        inputs.prepare(found, [RequestPlan("a")], seed=1)


@pytest.mark.parametrize("path", ["/v2", "/v1/models"])
def test_a_server_that_asks_who_asks_is_not_taken_for_another(path: str) -> None:
    answers = {"/v2": (404, ""), path: (401, '{"detail":"no key"}')}
    with replaying(answers) as url, Asker(url) as asker, pytest.raises(SpecError) as caught:
        asker.describe(TargetSpec(url=url))
    assert f"{path}: HTTP 401 no key: it asks for a key" in caught.value.message
    assert "target.headers" in caught.value.hint


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("protocol", ["auto", "kserve", "tensorflow"])
def test_a_key_that_was_sent_and_is_refused_is_not_asked_for(
    protocol: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", "hunter22hunter22")
    refusals = dict.fromkeys(("/v2", "/v1/models", "/v1/models/m"), (status, "{}"))
    headers = {"Authorization": "Bearer $MODEL_TOKEN", "X-Tenant": "a"}

    def said(sent: dict[str, str]) -> str:
        with replaying(refusals) as url, Asker(url, protocol, headers=sent) as asker:
            if (protocol, status) == ("auto", 403):  # services say so of what they do not have
                asker.describe(TargetSpec(url=url, model="m"))
                return asker.known_by
            with pytest.raises((SpecError, TargetError)) as caught:
                asker.describe(TargetSpec(url=url, model="m"))
            return caught.value.said

    own = said(headers)
    assert "it was sent Authorization, and refuses that" in own
    assert "$MODEL_TOKEN" in own
    assert "target.headers" not in own
    assert "hunter22" not in own
    assert "target.headers" in said({"X-Tenant": "a"})


@pytest.mark.parametrize(
    ("said", "words"),
    [("it loads.", "it loads. try"), ("it loads...", "it loads. try"), ("what?", "what? try")],
)
def test_what_a_server_says_ends_in_one_mark(said: str, words: str) -> None:
    """Whoever asks it puts that into sentences."""
    answers = {"/v2": (503, json.dumps({"error": said}))}
    with replaying(answers) as url, Asker(url) as asker, pytest.raises(TargetError) as caught:
        asker.describe(TargetSpec(url=url))
    assert f"HTTP 503 {words} again" in caught.value.said
    assert TargetError("why?").said == "why?"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("path", ["/v2", "/v1/models", "/v1/models/m", "/"])
def test_a_server_that_cannot_tell_now_is_not_taken_for_another(path: str, status: int) -> None:
    answers = {"/v2": (404, ""), path: (status, '{"error":"it loads"}')}
    with replaying(answers) as url, Asker(url) as asker, pytest.raises(TargetError) as caught:
        asker.describe(TargetSpec(url=url, model="m"))
    method = "OPTIONS" if path == "/" else "GET"
    assert caught.value.message == f"{method} {url}{path}: HTTP {status} it loads"
    assert caught.value.hint.startswith("try again when it is ready")
    assert 'protocol = "http"' in caught.value.hint
    with replaying(answers) as url, Asker(url, "http") as asker:
        assert asker.describe(TargetSpec(url=url)).protocol == "http"


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 500, 501])
def test_services_say_in_many_ways_what_they_do_not_have(status: int) -> None:
    answers = {"/v2": (status, "no"), "/v1/models": (status, "no")}
    with replaying(answers) as url, Asker(url) as asker:
        assert asker.describe(TargetSpec(url=url)).protocol == "http"


def sending(to: str) -> Answering:
    """A server that sends all that it is asked for to another place."""

    class Sender(Handler):
        def do_GET(self) -> None:
            place = to.format(host=self.headers["Host"], path=self.path)
            self.say(307, "", {"Location": place})

        do_OPTIONS = do_GET

    return Answering(Sender)


@pytest.mark.parametrize("there", ["https://models.example/v2", "http://{host}/login"])
def test_a_server_that_sends_elsewhere_is_not_taken_for_another(there: str) -> None:
    with (
        serve(sending(f"{there}?api_key=abc")) as server,
        Asker(server.url) as asker,
        pytest.raises(SpecError) as caught,
    ):
        asker.describe(TargetSpec(url=server.url))
    place = f"{there.format(host=server.url.removeprefix('http://'))}?api_key=(left out)"
    assert caught.value.message == f"GET {server.url}/v2: HTTP 307: it leads to {place}"
    assert 'protocol = "http"' in caught.value.hint
    other = "--target https://models.example;" in caught.value.hint
    assert other == there.startswith("https://models.example")
    assert other != ("no redirection is followed" in caught.value.hint)
    assert "for a login target.headers" in caught.value.hint


@pytest.mark.parametrize("to", ["{path}/", "http://{host}{path}/"])
def test_a_path_that_wants_a_slash_more_is_none_of_a_protocol(
    monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    """A service may have an API of its own at /v2/."""
    monkeypatch.setattr("loadbench.targets.places.addresses", lambda *_: ["127.0.0.1"])
    with serve(sending(to)) as server:
        for url in (server.url, server.url.replace("127.0.0.1", "models.example")):
            with Asker(url) as asker:
                assert asker.describe(TargetSpec(url=url)).protocol == "http"


@pytest.mark.parametrize("path", ["", "/", "/v2", "/v2/"])
def test_an_address_may_name_the_root_of_its_protocol(path: str) -> None:
    with replaying() as url, Asker(f"{url}{path}") as asker:
        assert asker.describe(TargetSpec(url=f"{url}{path}", model="matmul")).model == "matmul"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v2/models/echo", "/v2/models/echo"),
        ("/serving/team-a", "/serving/team-a"),
        ("/?of=1&api_key=abc", "/?of=1&api_key=(left out)"),
    ],
)
@pytest.mark.parametrize("protocol", ["auto", "kserve"])
def test_a_path_at_which_nothing_would_be_asked_is_refused(
    path: str, told: str, protocol: str
) -> None:
    """Else a model of the root would be measured under its name."""
    with replaying() as url:
        wanted = TargetSpec(url=f"{url}{path}", model="matmul")
        with Asker(wanted.url, protocol) as asker, pytest.raises(SpecError) as caught:
            asker.describe(wanted)
        with Asker(url) as asker:
            first = asker.describe(wanted)
        with Asker(wanted.url) as replica, pytest.raises(SpecError, match="the path of the URL"):
            replica.describe(wanted, first)
    text = f"the path of the URL {told!r} has no use: {url} is asked at /v2"
    assert caught.value.message == text
    assert caught.value.hint.startswith(f"give {url}; ")


def test_the_only_model_of_mlserver_is_found_over_grpc_too() -> None:
    index = (200, '[{"name":"matmul","state":"State.READY"},{"name":"echo","state":"UNLOADING"}]')
    with replaying({"/v2/repository/index": index}) as url, Asker(url) as asker:
        assert asker.describe(TargetSpec(url=url)).model == "matmul"


class Idle(Handler):
    """A Triton, two of whose models were never loaded: its index has them without a state."""

    loaded: tuple[str, ...] = ()

    def do_GET(self) -> None:
        pages = kserve() if self.loaded else kserve() | {"/v2/models/m": None}
        found = pages.get(self.path)
        self.tell(404 if found is None else 200, found or {"error": "no"})

    def do_POST(self) -> None:
        asked = json.loads(self.body() or b"{}")
        index = [{"name": name, "version": "1", "state": "READY"} for name in self.loaded]
        if not asked.get("ready"):
            index += [{"name": name} for name in ("idle", "m") if name not in self.loaded]
        self.tell(200, index)


def test_a_model_that_was_never_loaded_is_none_that_can_be_asked() -> None:
    class Busy(Idle):
        loaded = ("m",)

    with serve(Answering(Busy)) as server, Asker(server.url) as asker:
        assert asker.describe(TargetSpec(url=server.url)).model == "m"
        with pytest.raises(SpecError, match="has no model 'x'") as caught:
            asker.describe(TargetSpec(url=server.url, model="x"))
        assert caught.value.hint == "m"
    with serve(Answering(Idle)) as server, Asker(server.url) as asker:
        with pytest.raises(SpecError, match="has idle, m, none of them loaded"):
            asker.describe(TargetSpec(url=server.url))
        with pytest.raises(SpecError, match="'m' is there, but not loaded: HTTP 404 no") as caught:
            asker.describe(TargetSpec(url=server.url, model="m"))
        assert "load" in caught.value.hint


def test_the_models_of_kserves_own_servers_are_listed() -> None:
    """They have no index of a repository."""
    listed = {"/v2/repository/index": (404, ""), "/v2/models": (200, '{"models":["matmul"]}')}
    with replaying(listed) as url, Asker(url) as asker:
        assert asker.describe(TargetSpec(url=url)).model == "matmul"
    listed["/v2/models"] = (200, '{"models":["matmul","echo"]}')
    with (
        replaying(listed) as url,
        Asker(url) as asker,
        pytest.raises(SpecError, match="echo, matmul"),
    ):
        asker.describe(TargetSpec(url=url))


def test_a_triton_is_asked_in_json_if_somebody_says_so() -> None:
    with replaying() as url, Asker(url) as asker:
        found = asker.describe(TargetSpec(url=url, model="matmul", binary=False))
        ((first, *_),), _ = inputs.prepare(found, [RequestPlan("a")], seed=1)
        asked = json.loads(first.data.partition(b"\r\n\r\n")[2])
        assert len(asked["inputs"][0]["data"]) == 64
        for other in ({"shared_memory": True}, {"protocol": "http"}):
            with (
                Asker(url, str(other.get("protocol", "auto"))) as asking,
                pytest.raises(SpecError, match="binary = false is of KServe"),
            ):
                asking.describe(TargetSpec(url=url, model="matmul", binary=False, **other))


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_what_has_no_json_form_is_not_sent_as_json(datatype: str, side: str) -> None:
    """Where a server takes binary tensors; one that takes none may know what to make of it."""
    model = json.loads(recorded("model")["response"]["body"])
    model[side][0]["datatype"] = datatype
    told = {"/v2/models/matmul": (200, json.dumps(model))}
    wanted = TargetSpec(model="matmul", binary=False)
    with (
        replaying(told) as url,
        Asker(url) as asker,
        pytest.raises(SpecError, match=rf"^target.binary = false: '.' of 'matmul' is {datatype}"),
    ):
        asker.describe(wanted)
    with replaying({**told, "/v2": (200, '{"extensions":[]}')}) as url, Asker(url) as asker:
        assert not asker.describe(wanted).binary


def test_a_run_names_the_file_that_wants_it_as_json(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(
        "def widen(arrays):\n    return {'x': arrays['h'].astype('float32')}\n"
        "widen.inputs = ('h:FP16:-1,16',)\n"
    )
    path = tmp_path / "half.toml"
    path.write_text(
        '[target]\nurl = "local:fake"\nbinary = false\n[engine]\npreprocess = "half:widen"\n'
        '[load]\nphases = [{ rate = 10, for = "1s" }]\n'
    )
    done = loadbench("run", path, "--trust", cwd=tmp_path, code=2)
    assert f"{path}: target.binary = false: 'h' of 'fake' is FP16" in done.stderr
    assert "leave target.binary out" in done.stderr
    told = summary(path, "--trust", "--set", "target.binary=true", cwd=tmp_path)
    assert told["failed"] == {}


def test_a_key_of_another_protocol_is_told_of_and_not_refused(tmp_path: Path) -> None:
    path = tmp_path / "turned.toml"
    path.write_text(
        '[target]\nurl = "local:fake"\npath = "/predict"\nmethod = "PUT"\nlayout = "columns"\n'
        'signature = "other"\n[load]\nphases = [{ rate = 10, for = "1s" }]\n'
    )
    notes = [note["text"] for note in summary(path, cwd=tmp_path)["notes"]]
    notes = [text for text in notes if " has no effect " in text]
    assert {text.partition(" has no effect ")[0] for text in notes} == {
        "target.path", "target.method", "target.layout", "target.signature"
    }  # fmt: skip
    assert "target.path has no effect on KServe v2: the model says where it is asked" in notes


@pytest.mark.parametrize(
    ("key", "options", "told"),
    [
        ("", ("--set", "target.path=/a b"), "loadbench: target.path '/a b' is not one"),
        ('path = "/a b"', (), "{path}: target.path '/a b' is not one"),
        ('path = "/c"', ("--set", "target.path=/a b"), "loadbench: target.path '/a b' is not one"),
        ("", ("--target", "{url}/a b"), "loadbench: the path of the URL '/a b' is not one"),
    ],
)
def test_a_path_at_fault_is_of_who_wrote_it(
    tmp_path: Path, key: str, options: tuple[str, ...], told: str
) -> None:
    path = tmp_path / "s.toml"
    with replaying({"/v2": (404, "")}) as url:
        path.write_text(
            f'[target]\nurl = "{url}"\n{key}\n[load]\nphases = [{{ rate = 10, for = "1s" }}]\n'
        )
        given = [option.format(url=url) for option in options]
        done = loadbench("run", path, *given, cwd=tmp_path, code=2)
    assert told.format(path=path) in done.stderr


@pytest.mark.parametrize(
    ("protocol", "told"),
    [
        ("http", ["layout", "signature", "model"]),
        ("openai", ["method", "layout", "signature"]),
        ("tensorflow", ["path", "method"]),
        ("predict", ["path", "method", "layout"]),
        ("kserve", ["path", "method", "layout", "signature"]),
    ],
)
def test_what_each_protocol_does_not_heed(protocol: Any, told: list[str]) -> None:
    wanted = TargetSpec(
        url="http://127.0.0.1:1",
        path="/p",
        method="PUT",
        layout="columns",
        signature="s",
        model="m",
    )
    named = "" if protocol == "http" else "m"
    method = "PUT" if protocol == "http" else "POST"
    endpoint = Endpoint(host="127.0.0.1", port=1, protocol=protocol, model=named, method=method)
    notes = unheeded(endpoint, wanted)
    assert [note.text.split()[0].removeprefix("target.") for note in notes] == told
    assert unheeded(endpoint, TargetSpec(url="http://127.0.0.1:1")) == ()


def test_an_answer_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadbench.targets.ask._WHOLE_S", 0.3)
    with trickling() as url, Asker(url) as asker:
        begun = time.monotonic()
        with pytest.raises(TargetError, match="did not end"):
            asker.ask("GET", "/v2/models/m/stats")
    assert time.monotonic() - begun < 4


def test_a_model_with_a_state_takes_parts_of_sequences_alone() -> None:
    config = (200, '{"max_batch_size":8,"sequence_batching":{}}')
    with replaying({"/v2/models/matmul/config": config}) as url, Asker(url) as asker:
        found = asker.describe(TargetSpec(url=url, model="matmul"))
    with pytest.raises(SpecError, match="'matmul' keeps a state") as caught:
        inputs.prepare(found, [RequestPlan("a")], seed=1)
    assert "sequence =" in caught.value.hint
    for request in (
        RequestPlan("a", sequence="3"),
        RequestPlan("a", parameters={"sequence_id": 7}),
    ):
        assert inputs.prepare(found, [request], seed=1)[0]


@pytest.mark.parametrize(
    ("answers", "options", "words"),
    [
        ({"/v2": (404, "")}, (), "there is no / (HTTP 404)"),
        ({"/v2": (404, "")}, ("--set", "target.path=/gone"), "there is no /gone (HTTP 404)"),
        (TORCHSERVE, ("--set", "target.model=a"), "'infer' sends nothing"),
    ],
)
def test_a_service_that_would_refuse_all_is_told_before_the_run(
    tmp_path: Path, answers: dict[str, tuple[int, str]], options: tuple[str, ...], words: str
) -> None:
    with replaying(answers) as url:
        load = ("--target", url, "--rate", "20", "--duration", "1s")
        done = loadbench("run", "steady", *load, *options, cwd=tmp_path, code=2)
    assert words in done.stderr
    assert "[[request]]" in done.stderr


def test_parameters_go_with_each_request() -> None:
    said: dict[str, bool | int | float | str] = {
        "priority": 2,
        "timeout": 500,
        "name": "a",
        "share": 0.5,
        "flag": True,
    }
    request = RequestPlan("a", parameters=said)
    protocols: tuple[Literal["kserve", "grpc"], ...] = ("kserve", "grpc")
    for protocol in protocols:
        for binary in (True, False):
            where = Endpoint(
                host="h", port=1, protocol=protocol, model="m", binary=binary,
                inputs=(Tensor("x", "FP32", (2,)),),
            )  # fmt: skip
            ((first, *_),), _ = inputs.prepare(where, [request], seed=1)
            if protocol == "kserve":
                body = first.data.partition(b"\r\n\r\n")[2]
                asked = json.JSONDecoder().raw_decode(body.decode("latin-1"))[0]
                found = asked["parameters"]
                found.pop("binary_data_output", None)
            else:
                start = head_length(first.data) + PREFIX.size
                asked = message("inference.ModelInferRequest").FromString(first.data[start:])
                found = {
                    name: getattr(one, one.WhichOneof("parameter_choice"))
                    for name, one in asked.parameters.items()
                }
            assert found == said
    for unable in ("tensorflow", "http"):
        other = msgspec.structs.replace(where, protocol=unable)
        with pytest.raises(SpecError, match="parameters"):
            inputs.prepare(other, [request], seed=1)
    large = RequestPlan("a", parameters={"priority": 1 << 70})
    with pytest.raises(SpecError, match="'priority'"):
        inputs.prepare(where, [large], seed=1)


def test_the_address_of_a_page_is_kept_whole() -> None:
    with replaying({"/v2": (404, ""), "/page?of=1&n=2": (200, "ok")}) as url:
        page = f"{url}/page?of=1&n=2"
        with Asker(page) as asker:
            assert asker.describe(TargetSpec(url=page)).path == "/page?of=1&n=2"


@pytest.mark.parametrize("path", ["/a b", "/ü", "/€", "/a\r\nX: y", "page"])
def test_paths_that_http_cannot_carry_are_refused(path: str) -> None:
    with (
        replaying({"/v2": (404, "")}) as url,
        Asker(url) as asker,
        pytest.raises(SpecError) as caught,
    ):
        asker.describe(TargetSpec(url=url, path=path))
    assert repr(path) in caught.value.message


BAD: dict[str, tuple[dict[str, tuple[int, str]], str, type[Exception], str]] = {
    "several models": ({}, "", SpecError, "echo, matmul"),
    "no such model": ({}, "mathmul", SpecError, "no model 'mathmul'"),
    "not ready": ({"/v2/health/ready": (503, "")}, "matmul", TargetError, "not ready"),
    "no JSON": ({"/v2/models/matmul": (200, "<html>")}, "matmul", TargetError, "not JSON"),
    "no object": ({"/v2": (200, "[]")}, "matmul", TargetError, "not a JSON object"),
    "odd models": ({"/v2/repository/index": (200, "[1, {}]")}, "", SpecError, "does not tell any"),
    "odd configuration": (
        {"/v2/models/matmul/config": (200, '{"max_batch_size":null}')},
        "matmul",
        TargetError,
        "max_batch_size is None",
    ),
    "no tensors": ({"/v2/models/matmul": (200, '{"inputs":[1]}')}, "matmul", TargetError, "inputs"),
    "an error": ({"/v2/models/matmul": (500, '{"error":"boom"}')}, "matmul", TargetError, "boom"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_described_is_said(name: str) -> None:
    changed, model, kind, words = BAD[name]
    with (
        replaying(changed) as url,
        Asker(url, "kserve") as asker,
        pytest.raises(kind) as caught,
    ):
        asker.describe(TargetSpec(url=url, model=model))
    error: Any = caught.value
    assert words in error.message


def test_who_asks_has_the_patience_of_the_load() -> None:
    """A request to a server that never answers; beyond it the usual patience is 5 s."""
    request = Prepared("infer", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", lambda headers, body: None)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        begun = time.monotonic()
        with Asker(url, patience_ns=(200 * MS, 200 * MS)) as asker, pytest.raises(TargetError):
            asker.exchange(request)
    assert time.monotonic() - begun < 4


def test_a_server_that_is_down_says_what_was_tried() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with Asker(url) as asker, pytest.raises(TargetError) as caught:
            asker.describe(TargetSpec(url=url))
    assert f"GET {url}/v2" in caught.value.message
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("url", ["", "host:80", "ftp://host", "http://", "http://host:99999"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SpecError):
        Asker(url)


def test_proxies_of_the_environment_are_passed_by(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    url = f"http://127.0.0.1:{engine.port}"
    with Asker(url) as asker:
        assert asker.describe(TargetSpec(url=url)).model == "fake"
