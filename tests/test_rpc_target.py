"""A scenario's grpc:// target: asked about itself as over HTTP, run whole, and told of plainly."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from loadbench.errors import SpecError, TargetError
from loadbench.plan import RequestPlan, Tls
from loadbench.targets.ask import Asker
from loadbench.targets.inputs import prepare
from loadbench.targets.messages import INFERENCE, message
from loadbench.targets.rpc import timeout
from loadbench.targetspec import TargetSpec
from loadbench.units import MS, SECOND
from tests.rpc_client import Client, serving_rpc
from tests.rpc_server import answer, endpoint, serving
from tests.running import adds_up, loadbench, summary
from tests.secure import make_papers, terminated
from tests.served import Engine, settings

ROOT = Path(__file__).parent.parent


class Served:
    def __init__(self, engine: Engine, client: Client) -> None:
        self.engine = engine
        self.port = int(client.channel._channel.target().decode().rpartition(":")[2])
        self.url = f"grpc://127.0.0.1:{self.port}"
        self.http = f"http://127.0.0.1:{engine.port}"

    @property
    def counted(self) -> int:
        """Requests that the engine has answered well."""
        found: int = self.engine.stats()["inference_stats"]["success"]["count"]
        return found


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving_rpc(*settings("fake.a=1 ms", "max_batch=8")) as found:
        yield Served(*found)


def own(folder: Path, served: Served, target: str = "", load: str = "") -> Path:
    path = folder / "own.toml"
    load = load or 'arrivals = "constant"\nphases = [{ rate = 150, for = "2s" }]'
    text = f'[target]\nurl = "{served.url}"\n{target}\n[load]\nwarmup = "500ms"\n{load}\n'
    path.write_text(text)
    return path


# ---- asked about itself


def test_who_takes_one_port_for_the_other_is_told(served: Served) -> None:
    for scheme, port, other in (
        ("http", served.port, "grpc://"),
        ("grpc", served.engine.port, "http://"),
    ):
        with (
            Asker(f"{scheme}://127.0.0.1:{port}") as asker,
            pytest.raises(TargetError) as caught,
        ):
            asker.describe(TargetSpec())
        assert other in caught.value.hint


@pytest.mark.parametrize(
    ("scheme", "secure", "hint"),
    [("grpcs", False, "is it a grpc:// address?"), ("grpc", True, "or a grpcs:// address?")],
)
def test_who_takes_tls_for_none_is_told(
    tmp_path: Path, scheme: str, secure: bool, hint: str
) -> None:
    papers = make_papers(tmp_path)
    pem = Path(papers.server).read_bytes()
    credentials = grpc.ssl_server_credentials([(pem, pem)]) if secure else None
    with (
        serving(lambda *_: answer(), credentials=credentials) as server,
        Asker(f"{scheme}://127.0.0.1:{server.port}", tls=papers.tls) as asker,
        pytest.raises(TargetError) as caught,
    ):
        asker.describe(TargetSpec())
    assert caught.value.hint.endswith(hint)


def test_who_takes_https_for_grpcs_is_told(tmp_path: Path, served: Served) -> None:
    papers = make_papers(tmp_path)
    with (
        terminated(papers.server, served.engine.port) as port,
        Asker(f"grpcs://127.0.0.1:{port}", tls=papers.tls) as asker,
        pytest.raises(TargetError) as caught,
    ):
        asker.describe(TargetSpec())
    assert caught.value.hint == "it does not speak gRPC: is it an http:// or an https:// address?"


def test_a_path_has_no_use_over_grpc(served: Served) -> None:
    with Asker(f"{served.url}/foo") as asker, pytest.raises(SpecError) as caught:
        asker.describe(TargetSpec())
    text = f"the path of the URL '/foo' has no use: {served.url} is asked over gRPC"
    assert caught.value.message.startswith(text)


def test_what_is_told_is_what_http_tells(served: Served) -> None:
    with Asker(served.url) as rpc, Asker(served.http) as http:
        found, other = (asker.describe(TargetSpec(url=served.url)) for asker in (rpc, http))
        assert (found.protocol, found.port, found.closes) == ("grpc", served.port, False)
        for field in ("model", "inputs", "outputs", "batched"):
            assert getattr(found, field) == getattr(other, field)
        pool = prepare(found, [RequestPlan("infer", rows=3)], 1)[0][0]
        for request in pool[:3]:
            tried = rpc.exchange(request)
            assert tried.status == 200
            request.check(tried.headers, tried.body)
        counted, same = rpc.statistics(found), http.statistics(other)
        assert counted == same
        assert counted is not None
        assert counted.success >= 3
        assert counted.engine is not None  # what only our own engine tells
        assert counted.engine.sizes


def test_hits_of_the_cache_are_told() -> None:
    with serving_rpc(*settings("fake.a=1 ms", 'cache="1 MB"')) as found:
        cached = Served(*found)
        with Asker(cached.url) as rpc:
            where = rpc.describe(TargetSpec(url=cached.url))
            request = prepare(where, [RequestPlan("infer")], 1)[0][0][0]
            for _ in range(3):
                rpc.exchange(request)
            told = rpc.statistics(where)
    assert told is not None
    assert (told.success, told.hits, told.misses) == (3, 2, 1)


class _Locked(grpc.ServerInterceptor):  # type: ignore[misc]
    """Wants to know first who asks."""

    def intercept_service(self, _: Any, __: Any) -> Any:
        def refuse(_: bytes, context: Any) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")

        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.mark.parametrize(
    ("guards", "said", "hint"),
    [
        (
            (),
            "tensorflow.serving.ModelService: UNIMPLEMENTED Method not found!",
            "--target http://",
        ),
        (
            (_Locked(),),
            "{target}: UNAUTHENTICATED no token: it asks for a key or a password",
            "Authorization",
        ),
    ],
)
def test_a_server_of_other_services_is_told(
    guards: tuple[grpc.ServerInterceptor, ...], said: str, hint: str, tmp_path: Path
) -> None:
    server = grpc.server(ThreadPoolExecutor(2), interceptors=guards)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        target = f"grpc://127.0.0.1:{port}"
        found = loadbench("run", "steady", "--target", target, cwd=tmp_path, code=2)
    finally:
        server.stop(None).wait()
    assert said.format(target=target) in found.stderr
    assert "GET" not in found.stderr
    assert hint in found.stderr
    assert "plain HTTP" not in found.stderr


def test_a_deadline_is_told_where_somebody_chose_one(served: Served) -> None:
    with Asker(served.url) as asker:
        usual = asker.describe(TargetSpec(url=served.url))
        chosen = asker.describe(TargetSpec(url=served.url, timeout="250 ms"))
    assert usual.deadline_ns is None
    assert chosen.deadline_ns == 250 * MS
    pools = (
        prepare(usual, [RequestPlan("infer")], 1)[0],
        prepare(chosen, [RequestPlan("infer")], 1)[0],
    )
    assert b"grpc-timeout" not in pools[0][0][0].data
    assert b"grpc-timeout\x07250000u" in pools[1][0][0].data


@pytest.mark.parametrize(
    ("limit_ns", "text"),
    [
        (1, "1u"),
        (99_999_999_000, "99999999u"),
        (100 * SECOND, "100000m"),
        (10**18, "99999999S"),
    ],
)
def test_deadlines_have_eight_digits_at_most(limit_ns: int, text: str) -> None:
    found = timeout(limit_ns)
    assert found.startswith(text)
    assert len(found) <= 9


def test_what_is_not_there_is_told(served: Served) -> None:
    with Asker(served.url) as asker, pytest.raises(SpecError) as missing:
        asker.describe(TargetSpec(url=served.url, model="nothing"))
    assert "has no model 'nothing'" in missing.value.message
    assert missing.value.hint == "fake"
    with Asker("grpc://127.0.0.1:1") as asker, pytest.raises(TargetError) as down:
        asker.describe(TargetSpec())
    assert down.value.message.startswith("grpc://127.0.0.1:1: UNAVAILABLE")  # no path, no method
    with Asker(f"grpc://127.0.0.1:{served.engine.port}") as asker, pytest.raises(TargetError):
        asker.describe(TargetSpec())  # it speaks HTTP/1


@pytest.mark.parametrize(
    ("url", "changed", "words"),
    [
        ("grpc://h", {}, "it names no port"),
        ("grpc://h:1", {"protocol": "http"}, "over gRPC there is no protocol = 'http'"),
        ("grpc://:1", {}, "is no target"),
        ("grpcs://h:1", {"tls": Tls(verify=False)}, "target.verify = false cannot be had"),
        ("grpcs://h:1", {"tls": Tls(ca="absent.pem")}, "target.ca 'absent.pem': No such file"),
    ],
)
def test_addresses_and_settings_that_make_no_sense(
    url: str, changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError) as found:
        Asker(url, **changed)
    assert words in found.value.message


def test_headers_that_are_not_for_users_are_refused() -> None:
    where = endpoint(1)
    for name in ("TE", "Content-Type"):
        with pytest.raises(SpecError) as found:
            prepare(where, [RequestPlan("infer", headers={name: "x"})], 1)
        assert "set by loadbench itself" in found.value.message
    with pytest.raises(SpecError) as found:
        prepare(where, [RequestPlan("infer", headers={"x": "y" * 20_000})], 1)
    assert "leave some out" in found.value.hint


class Plain(grpc.GenericRpcHandler):  # type: ignore[misc]
    """A server as the standard has it: no configuration, no statistics, no index of models; but for
    `more`."""

    def __init__(self, **more: dict[str, Any]) -> None:
        self._more = more

    def service(self, details: Any) -> Any:
        members: dict[str, dict[str, Any]] = {
            "ServerMetadata": {"name": "plain"},
            "ServerReady": {"ready": True},
            "ModelMetadata": {
                "name": "m",
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
                "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
            },
            **self._more,
        }
        name = details.method.removeprefix(f"/{INFERENCE}/")
        if name not in members:
            return None
        made = message(f"inference.{name}Response")(**members[name])
        return grpc.unary_unary_rpc_method_handler(lambda *_: made.SerializeToString())


@pytest.mark.parametrize("secure", [False, True])
def test_a_server_with_the_standard_calls_alone(tmp_path: Path, secure: bool) -> None:
    papers = make_papers(tmp_path)
    pem = Path(papers.server).read_bytes()
    credentials = grpc.ssl_server_credentials([(pem, pem)]) if secure else None
    with serving(lambda *_: answer(), credentials=credentials) as server:
        server.grpc.add_generic_rpc_handlers((Plain(),))
        url = f"grpc{'s' * secure}://127.0.0.1:{server.port}"
        with Asker(url, tls=Tls(papers.ca)) as asker:
            with pytest.raises(SpecError) as unnamed:
                asker.describe(TargetSpec(url=url))
            found = asker.describe(TargetSpec(url=url, model="m"))
            assert asker.statistics(found) is None
            assert bool(found.tls) == secure
            (tried,) = prepare(found, [RequestPlan("infer", headers={"X-One": "1"})], 1)[0][0][:1]
            assert asker.exchange(tried).body == answer()
            assert server.metadata["x-one"] == "1"
    assert "which model?" in unnamed.value.message
    assert found.batched
    assert found.inputs == endpoint(1).inputs


def test_what_a_server_does_not_tell_of_its_statistics_is_no_zero() -> None:
    told = {"success": {"count": 9, "ns": 9}, "queue": {"count": 9, "ns": 5}, "cache_hit": {}}
    model = {"name": "m", "version": "1", "inference_stats": told}
    more = [{"model_stats": [found]} for found in (model, {"name": "m", "version": "1"})]
    found = []
    for statistics in more:
        with serving(lambda *_: answer()) as server:
            server.grpc.add_generic_rpc_handlers((Plain(ModelStatistics=statistics),))
            with Asker(f"grpc://127.0.0.1:{server.port}") as asker:
                found.append(asker.statistics(asker.describe(TargetSpec(model="m"))))
    reading, gap = found
    assert reading is not None
    assert (reading.success, reading.queue_ns, reading.hits) == (9, 5, 0)
    assert (reading.fail, reading.compute_ns, reading.misses) == (None, None, None)
    assert gap is None  # the model is not loaded now


def test_a_model_with_a_state_is_known_by_its_configuration() -> None:
    config = {"config": {"name": "m", "max_batch_size": 8, "sequence_batching": {}}}
    with serving(lambda *_: answer()) as server:
        server.grpc.add_generic_rpc_handlers((Plain(ModelConfig=config),))
        with Asker(f"grpc://127.0.0.1:{server.port}") as asker:
            found = asker.describe(TargetSpec(model="m"))
    with pytest.raises(SpecError, match="'m' keeps a state"):
        prepare(found, [RequestPlan("infer")], 1)


def test_the_load_does_without_grpcio() -> None:
    code = (
        "import sys; from loadbench.load.ready import make_ready; from tests.lanes import plan; "
        "from tests.rpc_server import endpoint; del sys.modules['grpc']; "
        "make_ready(plan(1, endpoint=endpoint(1))); print('grpc' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "False\n", done.stderr


# ---- run whole


def test_the_scenario_that_is_copied_can_be_read(served: Served, tmp_path: Path) -> None:
    path = ROOT / "scenarios" / "targets" / "triton-grpc.toml"
    wanted = ["--target", served.url, "--rate", "50", "--duration", "1s", "--dry-run"]
    assert "as it should be" in loadbench("run", path, *wanted, cwd=tmp_path).stdout


def test_a_run_shows_both_sides(served: Served, tmp_path: Path) -> None:
    before = served.counted
    found = summary(own(tmp_path, served), cwd=tmp_path)
    assert adds_up(found)
    assert found["failed"] == {}
    assert found["done"] == 300
    assert found["server"]["source"] == "loadbench"
    assert found["server"]["batch"]["mean"] >= 1
    assert found["server"]["compute_ms"]["p50"] >= 1
    windows = (tmp_path / "results").rglob("log.ndjson")
    records = [json.loads(line) for path in windows for line in path.read_text().splitlines()]
    sent = sum(
        one.get("sent", 0) + one.get("tail_sent", 0)
        for one in records
        if one.get("kind") == "window"
    )
    assert served.counted - before == sent > 300  # warm-up included


def test_workers_share_it(served: Served, tmp_path: Path) -> None:
    load = 'arrivals = "closed"\nconcurrency = 4\nphases = [{ for = "1s" }]'
    before = served.counted
    found = summary(own(tmp_path, served, load=load), "--workers", "2", cwd=tmp_path)
    assert adds_up(found)
    assert found["failed"] == {}
    assert served.counted - before >= found["done"] > 20


def test_a_dry_run_shows_the_tensors(served: Served, tmp_path: Path) -> None:
    found = loadbench("run", own(tmp_path, served), "--dry-run", cwd=tmp_path).stdout
    assert "ModelInfer fake" in found
    assert "gRPC OK in" in found
    assert "y FP32 [1, 16]: " in found
