"""Servers that repeat what they were sent where nobody thinks of it: in names, kinds, parts."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import pytest

from loadbench.experiments.shadowing import Comparer
from loadbench.hiding import Hiding
from loadbench.plan import Endpoint, RequestPlan, told_to
from loadbench.targets.ask import Exchange
from loadbench.targets.inputs import prepare
from loadbench.value import Value
from tests.answering import Answering, Handler, serve
from tests.running import loadbench

SECRET = "tell-nobody-31415926"


def _pages(token: str) -> dict[str, Any]:
    """A KServe server's, each with the token wherever it takes a text."""
    name = f"m-{token}"
    counts = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
    counted = {part: {"count": 0, "ns": 0} for part in counts}
    stats = {"name": name, "version": token, "inference_count": 0, "execution_count": 0}
    stats |= {"last_inference": 0, "inference_stats": counted, "batch_stats": []}
    return {
        "/v2": {"name": f"srv-{token}", "version": token, "extensions": ["statistics", token]},
        "/v2/health/ready": {},
        "/v2/models": {"models": [name]},
        f"/v2/models/{name}": {
            "name": name, "versions": [token], "platform": token,
            "inputs": [{"name": f"x-{token}", "datatype": "FP32", "shape": [2]}],
            "outputs": [{"name": f"y-{token}", "datatype": "FP32", "shape": [1]}],
        },
        f"/v2/models/{name}/stats": {"model_stats": [stats]},
        "/v1/models": {"data": [{"id": name}]},
        "/openapi.json": {
            "paths": {f"/do-{token}": {"post": {"requestBody": {"content": {"application/json": {
                "schema": {"type": "object", "properties": {f"f-{token}": {"example": token}}}
            }}}}}}
        },
    }  # fmt: skip


class Echo(Handler):
    server: "Echoing"

    def do_GET(self) -> None:
        found = _pages(self._token())
        path = unquote(urlsplit(self.path).path)
        known = self.server.knows in path or path == "/openapi.json"
        self._told(found[path] if known and path in found else None)

    def do_POST(self) -> None:
        self.body()
        token = self._token()
        self.server.asked.append(unquote(self.path))
        answer = {"name": f"y-{token}", "datatype": "FP32", "shape": [1], "data": [1.0]}
        self._told({"model_name": token, "outputs": [answer]} if "infer" in self.path else None)

    def do_OPTIONS(self) -> None:
        self._told({"info": {"title": self._token()}})

    def _told(self, found: Any) -> None:
        token = self._token()
        self.send_response(404 if found is None else 200, token)
        self.send_header("Server-Timing", f"queue;dur=0.1, part-{token};dur=0.2")
        self.send_header("Set-Cookie", token)
        self.send_header("Content-Type", "application/json")
        data = str({"error": f"no {token}"}) if found is None else json.dumps(found)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())

    def _token(self) -> str:
        return str(self.headers["Authorization"]).removeprefix("Bearer ")


class Echoing(Answering):
    def __init__(self, knows: str) -> None:
        super().__init__(Echo)
        self.knows = knows
        self.asked: list[str] = []


@contextmanager
def echoing(knows: str) -> Iterator[Echoing]:
    with serve(Echoing(knows)) as server:
        yield server


SCENARIO = """
[target]
url = "{url}"
[load]
arrivals = "constant"
phases = [{{ rate = 20, for = "1s" }}]
"""
_KEY = ("--set", "target.headers.Authorization=Bearer $MODEL_TOKEN")


@pytest.mark.parametrize(
    "knows", ["/v2", *(pytest.param(one, marks=pytest.mark.long) for one in ("/v1", "/do"))]
)
def test_what_a_server_repeats_in_names_is_nowhere(
    knows: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", SECRET)
    with echoing(knows) as server:
        own = tmp_path / "own.toml"
        own.write_text(SCENARIO.format(url=server.url))
        method = ("--set", 'target.method="POST"') if knows == "/do" else ()
        tried = loadbench("run", own, *_KEY, *method, "--dry-run", cwd=tmp_path, code=None)
        done = loadbench("run", own, *_KEY, *method, cwd=tmp_path, code=None)
        asked = loadbench("doctor", own, *_KEY, cwd=tmp_path, code=None)
    if knows == "/v2":  # the true name was asked for
        assert f"/v2/models/m-{SECRET}/infer" in server.asked
        assert '"model": "m-$MODEL_TOKEN"' in next(tmp_path.rglob("run.json")).read_text()
    told = [loadbench("show", "last", *more, cwd=tmp_path) for more in ((), ("--json",))]
    for form in ("csv", "prometheus", "otlp"):
        told.append(loadbench("export", "last", "--as", form, cwd=tmp_path))
    loadbench("report", "last", cwd=tmp_path)
    assert [one for one in (tried, done, asked, *told) if SECRET in one.stdout + one.stderr] == []
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"run.json", "log.ndjson", "report.html"} <= {path.name for path in files}
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_what_a_server_repeats_is_not_quoted_where_answers_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", SECRET)
    endpoint = Endpoint("h", 1, "http", headers={"Authorization": "Bearer $MODEL_TOKEN"})
    told = told_to([endpoint], [])
    comparer = Comparer((endpoint, endpoint), (told, told))
    ((request, *_),), _ = prepare(endpoint, [RequestPlan("a")], seed=1)
    bad = Exchange(500, {}, f"bad {SECRET} {'.' * 70} {SECRET}".encode(), 1)
    comparer.take((request, request), (bad, f"it was refused {SECRET}"))
    assert comparer.found.first.startswith("a: A: HTTP 500 bad $MODEL_TOKEN ...")
    assert comparer.found.first.endswith(". $MODEL_TOKEN, B: it was refused $MODEL_TOKEN")


class _Any(Value, frozen=True):
    rule: str
    text: str
    state: Literal["done", "failed"]
    parts: dict[str, tuple[str, ...]]


def test_only_what_may_be_any_text_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TOKEN", "done")
    hide = Hiding({"Authorization": "Bearer $MODEL_TOKEN"})
    found = hide(_Any("done", "all done", "done", {"done-1": ("x", "done")}))
    parts: dict[str, tuple[str, ...]] = {"$MODEL_TOKEN-1": ("x", "$MODEL_TOKEN")}
    assert found == _Any("done", "all $MODEL_TOKEN", "done", parts)
    assert hide("do") == "do"
