"""`loadbench run` against services written with other people's frameworks: the scenario that a
user copies, and what the service itself counted."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from servers import HERE, LOADBENCH, PEERS, ROOT, Answer, Server, free_port, running, wait
from test_triton import sent_in_all
from tools import Run, run, run_copied

APPS = HERE / "apps"
RATE, SECONDS = 100, 4
SLOW = {"ray-serve": 20}  # of what two cores, the generator's too, make of it
BODY = b'{"x": [1, 2, 3]}'
REQUEST = b'{"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}]}'
_JSON = {"Content-Type": "application/json"}


class App(NamedTuple):
    """How it is started on a port; where it is asked, and what it says when it is up."""

    command: Callable[[str, int], list[str]]
    ask: Callable[[Server], Answer]


def _python(file: str) -> Callable[[str, int], list[str]]:
    return lambda python, port: [python, file, str(port)]


def _predict(path: str) -> Callable[[Server], Answer]:
    return lambda server: server.ask(path, BODY, _JSON)


def _mosec(python: str, port: int) -> list[str]:
    return [python, "mosec_app.py", "--address", "127.0.0.1", "--port", str(port)]


def _bentoml(python: str, port: int) -> list[str]:
    where = ["--host", "127.0.0.1", "--port", str(port)]
    return [python, "-m", "bentoml", "serve", "bentoml_app:Sum", *where]


def _mlserver(python: str, port: int) -> list[str]:
    return [str(Path(python).with_name("mlserver")), "start", "mlserver"]


def _listens(server: Server) -> Answer:
    """Of one that speaks gRPC alone."""
    socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
    return Answer(200, {}, b"")


ASKING = "fastapi-asking"  # in all ways that there are
KNOWN = {
    "fastapi": App(_python("fastapi_app.py"), _predict("/predict")),
    ASKING: App(_python("fastapi_asking_app.py"), lambda server: server.ask("/openapi.json")),
    "litserve": App(_python("litserve_app.py"), _predict("/predict")),
    "mosec": App(_mosec, _predict("/inference")),
    "bentoml": App(_bentoml, _predict("/predict")),
    "ray-serve": App(_python("ray_app.py"), _predict("/")),
    "torchserve": App(
        _python("torchserve_app.py"),
        lambda server: server.ask("/predictions/sum", BODY, _JSON),
    ),
    "torchserve-kserve": App(
        lambda python, port: [python, "torchserve_app.py", str(port), "kserve"],
        lambda server: server.ask("/v2/models/sum/infer", REQUEST, _JSON),
    ),
    "mlserver": App(_mlserver, lambda server: server.ask("/v2/models/sum/ready")),
    "llamacpp": App(_python("llamacpp_app.py"), lambda server: server.ask("/health")),
    "tensorflow": App(_python("tensorflow_app.py"), _listens),
}
OVER_HTTP = [name for name in KNOWN if name not in ("llamacpp", "tensorflow", ASKING)]


@contextmanager
def started(name: str, folder: Path) -> Iterator[tuple[Server, Path]]:
    """The service, up, and the file that counts what it is asked."""
    python = PEERS / f"{name.partition('-')[0]}-venv" / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{name} is not installed: make peers")
    count, log = folder / "count", folder / f"{name}.log"
    port, grpc_port, metrics_port = free_port(), free_port(), free_port()
    environment = {
        **{key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ},
        "HOME": str(folder), "COUNT": str(count), "PYTHONPATH": str(APPS),
        "MLSERVER_HTTP_PORT": str(port), "MLSERVER_GRPC_PORT": str(grpc_port),
        "MLSERVER_METRICS_PORT": str(metrics_port), "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_PARALLEL_WORKERS": "0", "BENTOML_DO_NOT_TRACK": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TORCHSERVE_PORTS": f"{free_port()},{metrics_port},{free_port()},{free_port()}",
    }  # fmt: skip
    app = KNOWN[name]
    with ExitStack() as stack:
        # Ray's sockets lie there, whose paths may have 107 bytes
        environment["RAY_TMPDIR"] = stack.enter_context(TemporaryDirectory(prefix="ray-"))
        process = stack.enter_context(
            running(app.command(str(python), port), log, environment, APPS)
        )
        server = Server(port, log, grpc_port, metrics_port)
        wait(process, log, lambda: _is_up(app, server))
        yield server, count


def _is_up(app: App, server: Server) -> bool:
    try:
        return app.ask(server).status == 200
    except (ConnectionError, TimeoutError):
        return False


@pytest.mark.parametrize("name", OVER_HTTP)
def test_the_scenario_that_is_copied_runs_and_counts_what_the_service_counts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where its data are
    for path in (ROOT / "scenarios" / "targets").glob(f"{name}.*"):
        shutil.copy(path, tmp_path)
    copied = tmp_path / f"{name}.toml"
    with started(name, tmp_path) as (server, count):
        before = count.stat().st_size if count.exists() else 0
        rate = SLOW.get(name, RATE)
        load = ("--rate", str(rate), "--duration", f"{SECONDS}s")
        at_leisure = ("--set", "checks.p99=< 5 s")  # what counts here is what is counted
        found = run_copied(server, tmp_path, copied, *load, *at_leisure)
        counted = count.stat().st_size - before
    assert found.summary["failed"] == {}, found.summary["examples"]
    assert counted == sent_in_all(found) > rate * SECONDS / 2
    _tells_of_itself(name, found)


def _tells_of_itself(name: str, found: Run) -> None:
    """Those that tell what they do are heard."""
    told: dict[str, Any] | None = found.summary["server"]
    if name in ("mosec", "bentoml"):
        assert told is not None
        assert told["requests"] == pytest.approx(found.summary["done"], rel=0.1)


@pytest.mark.parametrize(("name", "kinds"), [("fastapi", 1), ("bentoml", 1), (ASKING, 6)])
def test_what_a_scenario_is_told_to_add_is_what_the_service_takes(
    name: str, kinds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the service has, copied word by word; what is in capitals it takes, too."""
    monkeypatch.chdir(tmp_path)  # where its data are
    (tmp_path / "FILES").mkdir()
    (tmp_path / "FILES" / "a.txt").write_text("some text")
    with started(name, tmp_path) as (server, count):
        command = [LOADBENCH, "run", "steady", "--target", server.url, "--dry-run"]
        told = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
        said = re.search(r"\[\[request\]\] with (.*)", told.stderr)
        assert said is not None, told.stderr
        words = re.sub(r" \([\w/, ]+: put in your own\)$", "", said[1]).split(", or ")
        assert len(words) == kinds
        before = count.stat().st_size if count.exists() else 0
        load = f'arrivals = "constant"\nphases = [{{rate = {RATE}, for = "2s"}}]\n'
        setting = r"(?:, | and )(?=(?:path|method|headers|body|form|data) = )"
        requests = ("[[request]]\n" + re.sub(setting, "\n", one) for one in words)
        found = run(server, tmp_path, f"[load]\n{load}" + "\n".join(requests))
        counted = count.stat().st_size - before
    assert found.summary["failed"] == {}, found.summary["examples"]
    assert counted == sent_in_all(found) > RATE


@pytest.mark.parametrize("name", ["mlserver", "torchserve", "torchserve-kserve"])
def test_the_metrics_of_servers_that_have_a_port_for_them_are_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the copied scenario says where it is uncommented."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "scenarios" / "targets" / "torchserve-kserve.json", tmp_path)
    text = (ROOT / "scenarios" / "targets" / f"{name}.toml").read_text()
    text, lines = re.subn(r"^# (?=\[target.metrics\]|url = )", "", text, flags=re.MULTILINE)
    assert lines == 2
    copied = tmp_path / f"{name}.toml"
    with started(name, tmp_path) as (server, _):
        copied.write_text(text.replace("127.0.0.1:8082", f"127.0.0.1:{server.metrics_port}"))
        load = ("--rate", str(RATE), "--duration", f"{SECONDS}s")
        found = run_copied(server, tmp_path, copied, *load)
    assert found.summary["failed"] == {}, found.summary["examples"]
    told = found.summary["server"]
    codes = {note["code"] for note in found.summary["notes"]}
    assert ("compute-whole" in codes) is (name == "mlserver")
    assert ("queue-untold" in codes) is (name == "torchserve-kserve")
    if name == "torchserve-kserve":  # its metrics as they come count no answers
        assert told is None
        return
    assert told["requests"] == pytest.approx(found.summary["done"], rel=0.1)
    assert told["compute_ms"]["mean"] > 0
    assert bool(told["queue_ms"]) is (name == "torchserve")


def test_mlserver_over_grpc_counts_what_was_sent(tmp_path: Path) -> None:
    copied = shutil.copy(ROOT / "scenarios" / "targets" / "triton-grpc.toml", tmp_path)
    with started("mlserver", tmp_path) as (server, count):
        before = count.stat().st_size if count.exists() else 0
        load = ("--rate", str(RATE), "--duration", f"{SECONDS}s")
        found = run_copied(server, tmp_path, copied, *load, grpc=True)
        counted = count.stat().st_size - before
    assert found.summary["failed"] == {}, found.summary["examples"]
    assert counted == sent_in_all(found) > RATE * SECONDS / 2


def test_what_is_said_to_tensorflow_serving_over_grpc_is_its_own_language(tmp_path: Path) -> None:
    """Its messages as others have compiled them, at the other end."""
    copied = shutil.copy(ROOT / "scenarios" / "targets" / "tensorflow-serving.toml", tmp_path)
    with started("tensorflow", tmp_path) as (server, count):
        before = count.stat().st_size if count.exists() else 0
        load = ("--rate", str(RATE), "--duration", f"{SECONDS}s")
        speaking = server._replace(grpc_port=server.port)
        found = run_copied(speaking, tmp_path, copied, *load, grpc=True)
        counted = count.stat().st_size - before
    assert found.summary["failed"] == {}, found.summary["examples"]
    assert counted == sent_in_all(found) > RATE * SECONDS / 2
