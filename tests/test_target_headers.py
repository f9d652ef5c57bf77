"""Headers that a target wants of everybody, secrets of the environment in them, and how far a
target may be loaded."""

import re
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest

from loadbench.bounds import require_bounded
from loadbench.environment import hidden, shown
from loadbench.errors import SpecError
from loadbench.judge.differences import work
from loadbench.report.export.mlflow import parameters
from loadbench.report.export.source import source
from loadbench.runner.helm import Situation, steer
from loadbench.shape import Steering
from loadbench.spec import Scenario, load
from loadbench.units import SECOND
from tests.answering import ANSWER, Answering, Handler, kserve, serve
from tests.running import loadbench, summary

SECRET = "tell-nobody-3141"


class Guarded(Answering):
    """Refuses whoever does not show the secret."""

    refused = 0
    repeats = False  # what it was sent, and fails


class Guard(Handler):
    server: Guarded

    def do_GET(self) -> None:
        pages = kserve()
        self._answer(200 if self.path in pages else 404, pages.get(self.path, {}))

    def do_POST(self) -> None:
        self.body()
        if self.server.repeats and self._knows():
            self.say(500, f"no: {self.headers}")
        else:
            self._answer(200 if self.path == "/v2/models/m/infer" else 404, ANSWER)

    def _answer(self, status: int, found: Any) -> None:
        if self._knows():
            self.tell(status, found)
        else:
            self.server.refused += 1
            self.tell(401, {"error": "who are you?"})

    def _knows(self) -> bool:
        return self.headers["Authorization"] == f"Bearer {SECRET}"


@contextmanager
def guarded() -> Iterator[tuple[Guarded, str]]:
    with serve(Guarded(Guard)) as server:
        yield server, server.url


SCENARIO = """
[target]
url = "{url}"
protocol = "kserve"
model = "m"
{headers}
[load]
arrivals = "constant"
phases = [{{ rate = 40, for = "2s" }}]
"""
HEADERS = 'headers = { Authorization = "Bearer $MODEL_TOKEN" }'


USERS = """
from locust import HttpUser, task

class Person(HttpUser):
    @task
    def ask(self):
        with self.client.post("/v2/models/m/infer", data="{}", catch_response=True) as answer:
            answer.failure(f"no good: {answer.text}")
"""


def written(folder: Path, url: str, headers: str = HEADERS) -> Path:
    path = folder / "own.toml"
    path.write_text(SCENARIO.format(url=url, headers=headers))
    return path


def test_a_secret_reaches_the_target_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", SECRET)
    with guarded() as (server, url):
        found = summary(written(tmp_path, url), "--trust", cwd=tmp_path)
        assert (server.refused, found["failed"], found["done"]) == (0, {}, 80)
        tried = loadbench("run", written(tmp_path, url), "--trust", "--dry-run", cwd=tmp_path)
        assert "as it should be" in tried.stdout
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "run.json" for path in files)
    holding = [path for path in files if SECRET.encode() in path.read_bytes()]
    assert holding == []
    assert SECRET not in tried.stdout + tried.stderr
    snapshot = next(path for path in files if path.name == "run.json").read_text()
    assert "Bearer $MODEL_TOKEN" in snapshot


def test_a_secret_that_the_server_repeats_is_not_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", SECRET)
    with guarded() as (server, url):
        server.repeats = True
        path = written(tmp_path, url)
        for more in ("--dry-run", "--json"):
            told = loadbench("run", path, "--trust", more, cwd=tmp_path, code=None)
            assert SECRET not in told.stdout + told.stderr
            assert "Bearer $MODEL_TOKEN" in told.stdout
        file = tmp_path / "people.py"
        file.write_text(USERS)
        own = ("--set", "target.headers.Authorization=Bearer $MODEL_TOKEN", "--duration", "1s")
        told = loadbench("run", file, "--target", url, *own, cwd=tmp_path, code=None)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


@contextmanager
def saying(answer: str) -> Iterator[tuple[list[bytes], str]]:
    """A server that gives all who ask the same bytes, their Authorization among them, and what it
    was asked."""
    asked: list[bytes] = []

    class Echo(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            head = b"".join(iter(self.rfile.readline, b"\r\n"))
            asked.append(head)
            [key] = re.findall(rb"(?i)^authorization: Bearer (.*)\r$", head, re.MULTILINE)
            self.wfile.write(answer.encode().replace(b"KEY", key))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield asked, f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    "token", [SECRET, pytest.param("t\u00f6k\u00e9n-1234", marks=pytest.mark.long)]
)
@pytest.mark.parametrize(
    ("answer", "protocol"),
    [
        ("HTTP/1.1 302 Found\r\nLocation: https://idp.example/login?t=KEY\r\n\r\n", "auto"),
        ("HTTP/9 denied Bearer KEY\r\n\r\n", "auto"),
        ("HTTP/9 denied Bearer KEY\r\n\r\n", "http"),
        ('HTTP/1.0 200 OK\r\n\r\n{"extensions": [], "inputs": "KEY"}', "auto"),
    ],
)
def test_a_secret_is_hidden_wherever_in_its_words_the_server_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, protocol: str, token: str
) -> None:
    """In the place that it leads to, in what is no answer, in what it tells of a model."""
    monkeypatch.setenv("MODEL_TOKEN", token)
    users = tmp_path / "people.py"
    users.write_text(USERS)
    own = ("--set", "target.headers.Authorization=Bearer $MODEL_TOKEN", "--duration", "1s")
    known = ("--set", f"target.protocol={protocol}", "--set", "target.model=m")
    with saying(answer) as (_, url):
        tried = loadbench(
            "run", "steady", "--dry-run", *own, *known, "--target", url, cwd=tmp_path, code=None
        )
        ran = loadbench("run", users, *own, *known, "--target", url, cwd=tmp_path, code=None)
    assert "$MODEL_TOKEN" in tried.stderr
    for done in (tried, ran):
        said = unquote(done.stdout + done.stderr, encoding="latin-1")
        assert token not in said
        assert repr(token.encode("latin-1"))[2:-1] not in said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if token.encode() in path.read_bytes()] == []


def test_a_dry_run_sends_what_the_load_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the byte, also where a token is beyond ASCII."""
    monkeypatch.setenv("MODEL_TOKEN", "t\u00f6k\u00e9n-1234")
    path = tmp_path / "own.toml"
    path.write_text(
        SCENARIO.format(url="URL", headers='path = "/a%2fb?q=|"').replace("kserve", "http")
        .replace('model = "m"', "") + '[[request]]\nname = "a"\nbody = \'{"x": 1}\'\n'
        '[[request]]\nname = "b"\nheaders = { x-own = "1" }\n'
    )  # fmt: skip
    own = ("--set", "target.headers.Authorization=Bearer $MODEL_TOKEN", "--duration", "1s")
    seen = []
    with saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") as (
        asked,
        url,
    ):
        for more in ("--dry-run", "--json"):
            loadbench("run", path, "--target", url, *own, more, cwd=tmp_path)
            seen.append({head for head in asked if b" /a%2fb?q=| " in head})
            asked.clear()
    assert len(seen[0]) == 2
    assert seen[0] == seen[1]
    assert all("t\u00f6k\u00e9n-1234".encode("latin-1") in head for head in seen[0])


def test_nothing_is_left_of_a_secret_that_is_cut_off_or_holds_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHORT", "abcd")
    monkeypatch.setenv("LONG", "abcdefgh")
    headers = {"A": "$SHORT", "B": "Bearer ${LONG}"}
    for said, told in (
        ("no abcdefgh, no abcd here", "no ${LONG}, no $SHORT here"),
        ("known: abcdefg", "known: ${LONG}"),
        ("known: abc", "known: abc"),  # that few stand in any text
    ):
        assert hidden(said, headers) == told
        assert hidden(said.encode(), headers) == told.encode()


def test_a_file_that_sends_a_secret_away_needs_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", SECRET)
    with guarded() as (server, url):
        told = loadbench("run", written(tmp_path, url), cwd=tmp_path, code=2)
        assert "sends a value of your environment in its header 'Authorization'" in told.stderr
        own = ("--set", "target.headers.Authorization=Bearer $MODEL_TOKEN")
        loadbench("run", written(tmp_path, url, ""), *own, "--duration", "1s", cwd=tmp_path)
        assert server.refused == 0


def test_what_the_environment_lacks_is_told_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODEL_TOKEN", raising=False)
    with guarded() as (server, url):
        told = loadbench("run", written(tmp_path, url), "--trust", cwd=tmp_path, code=2)
        assert "target.headers.Authorization: MODEL_TOKEN is not set" in told.stderr
        assert server.refused == 0


def test_a_refusal_is_told_as_the_server_says_it(tmp_path: Path) -> None:
    with guarded() as (_, url):
        told = loadbench("run", written(tmp_path, url, ""), cwd=tmp_path, code=3)
    assert "401" in told.stderr
    assert "who are you?" in told.stderr


def test_a_key_that_was_sent_and_is_refused_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", "tell-nobody-2718")
    with guarded() as (_, url):
        own = written(tmp_path, url)
        plain = own.read_text().replace('"kserve"\nmodel = "m"', '"http"')
        own.write_text(f'{plain}\n[[alert]]\nwhen = "errors > 1 %"\nfor = "1 s"\n')
        tried = loadbench("run", own, "--trust", "--dry-run", cwd=tmp_path, code=1).stdout
        done = loadbench("run", own, "--trust", "--duration", "6s", cwd=tmp_path, code=None).stdout
    words = "the target was sent Authorization, and refuses that"
    assert f"✗ HTTP 401: {words}; is it in the form" in tried
    assert f"Likely: {words}" in done
    assert "2718" not in tried + done


@pytest.mark.parametrize("name", ["Content-Length", "a b", "X-Ü"])
def test_headers_that_cannot_be_sent_are_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, "http://127.0.0.1:1", f'headers = {{ "{name}" = "1" }}')
    with pytest.raises(SpecError, match=r"target\.headers"):
        load(str(path))


# ---- how far a target may be loaded


def scenario(**changed: Any) -> Scenario:
    keys = {key.replace("__", "."): value for key, value in changed.items()}
    return load("steady", {"load.phases": [{"rate": 100, "for": "1s"}], **keys})


THEIRS = "http://models.example"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"target__url": THEIRS}, ""),
        ({"target__url": THEIRS, "load__phases": [{"rate": 1001, "for": "1s"}]}, "somebody else's"),
        ({"target__url": THEIRS, "load__phases": [{"from": 1, "to": 9000, "for": "1s"}],
          "target__owned": True}, ""),
        ({"target__url": "http://127.0.0.1", "load__phases": [{"rate": 9000, "for": "1s"}]}, ""),
        ({"target__url": "http://localhost", "load__phases": [{"rate": 9000, "for": "1s"}]}, ""),
        ({"target__url": "http://0.0.0.0", "load__phases": [{"rate": 9000, "for": "1s"}]}, ""),
        ({"target__url": "http://[::]", "load__phases": [{"rate": 9000, "for": "1s"}]}, ""),
        ({"load__phases": [{"rate": 9000, "for": "1s"}]}, ""),
        ({"target__max_rate": "50/s"}, "target.max_rate is 50"),
        ({"target__max_rate": 5000, "target__url": THEIRS,
          "load__phases": [{"rate": 4000, "for": "1s"}]}, "somebody else's"),
        ({"target__url": THEIRS, "load__calibrate": "1s"}, "calibration"),
        ({"target__url": THEIRS, "load__arrivals": "closed", "load__concurrency": 11},
         "10 connections at most"),
        ({"target__url": THEIRS, "load__arrivals": "closed", "load__concurrency": 1001,
          "target__owned": True}, ""),
        ({"target__url": "http://127.0.0.1", "load__arrivals": "closed",
          "load__concurrency": 1001}, ""),
        ({"target__url": THEIRS, "load__arrivals": "closed", "load__concurrency": 10}, ""),
        ({"target__max_rate": 50, "load__arrivals": "closed"}, "closed loop"),
        ({"target__max_rate": 5000, "target__owned": True, "load__arrivals": "closed"}, "max_rate"),
        ({"target__max_rate": 5000, "load__arrivals": "once"}, "at the same moment"),
        ({"target__url": THEIRS, "load__arrivals": "once"}, "10 requests at once at most, not 100"),
        ({"target__url": THEIRS, "load__arrivals": "once", "target__owned": True}, ""),
        ({"target__url": THEIRS, "load__arrivals": "once",
          "load__phases": [{"rate": 5, "for": "2s"}]}, ""),
        ({"load__arrivals": "once"}, ""),
    ],
)  # fmt: skip
def test_a_target_is_loaded_no_more_than_it_may_be(changed: dict[str, Any], words: str) -> None:
    found = scenario(**changed).spec
    if not words:
        require_bounded(found)
        return
    with pytest.raises(SpecError, match=words):
        require_bounded(found)


@pytest.mark.parametrize(
    "asked",
    [
        {"load__phases": [{"rate": 5000, "for": "1s"}]},
        {"load__calibrate": "1s"},
        {"load__arrivals": "closed", "load__concurrency": 11},
    ],
)
def test_of_several_hosts_the_one_that_may_be_somebody_elses_is_named(
    asked: dict[str, Any],
) -> None:
    replicas = ["http://localhost:17000", "http://192.0.2.1:17200", "http://192.0.2.2:17200"]
    found = scenario(target__url="http://127.0.0.1:17000", target__replicas=replicas, **asked)
    with pytest.raises(SpecError, match=r"and http://192\.0\.2\.1:17200 may be somebody else's"):
        require_bounded(found.spec)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"load.users": 10, "target.url": THEIRS}, ""),
        ({"load.users": 11, "target.url": THEIRS}, "10 users at most, not 11"),
        ({"load.users": 11, "target.url": THEIRS, "target.owned": True}, ""),
        ({"load.users": 11, "target.url": "http://127.0.0.1"}, ""),
        ({"load.users": 1, "target.max_rate": 5000}, "users of a Locust file"),
    ],
)
def test_users_of_a_locust_file_are_bounded_too(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    file = tmp_path / "people.py"
    file.write_text("")
    found = load(str(file), changed).spec
    if not words:
        require_bounded(found)
        return
    with pytest.raises(SpecError, match=words):
        require_bounded(found)


def test_a_trace_is_bounded_by_its_busiest_second(tmp_path: Path) -> None:
    """On average it is 11/s."""
    file = tmp_path / "times.csv"
    file.write_text("".join(f"{at}\n" for at in (0, *(5 + n / 100 for n in range(100)), 9)))
    own = {"load.arrivals": "trace", "load.trace": str(file), "load.phases": []}
    require_bounded(load("steady", {**own, "target.max_rate": 100}).spec)
    with pytest.raises(SpecError, match="the load is 100/s at its highest"):
        require_bounded(load("steady", {**own, "target.max_rate": 99}).spec)


def test_a_closed_loop_is_refused_by_the_command(tmp_path: Path) -> None:
    closed = ("--set", "load.arrivals=closed", "--set", "load.concurrency=500")
    told = loadbench("run", "steady", "--target", THEIRS, *closed, cwd=tmp_path, code=2)
    assert "target.owned=true" in told.stderr
    bound = ("--set", "target.max_rate=50/s")
    told = loadbench("run", "steady", *closed, *bound, cwd=tmp_path, code=2)
    assert "leave target.max_rate out" in told.stderr
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--target", THEIRS, "--max", "5000"), "--max asks for 5000/s, and http"),
        (("--target", THEIRS, "--start", "2000"), "--start asks for 2000/s, and http"),
        (("--set", "target.max_rate=150/s", "--start", "500"), "and target.max_rate is 150/s"),
        (("--over", "target.max_rate=600,150", "--max", "500"), "and target.max_rate is 150/s"),
    ],
)
def test_a_rate_to_search_from_or_to_is_refused_where_the_target_is_to_get_less(
    tmp_path: Path, given: tuple[str, ...], words: str
) -> None:
    told = loadbench("find", "steady", *given, cwd=tmp_path, code=2)
    assert words in told.stderr
    assert ("target.owned=true" in told.stderr) == (THEIRS in given)
    assert not (tmp_path / "results").exists()


def test_a_heavy_load_on_a_host_of_others_is_refused_by_the_command(tmp_path: Path) -> None:
    told = loadbench(
        "run", "steady", "--target", THEIRS, "--rate", "5000", cwd=tmp_path, code=2
    )  # fmt: skip
    assert "target.owned=true" in told.stderr
    assert not (tmp_path / "results").exists()


def test_steering_holds_to_the_same_bounds() -> None:
    run = Situation("poisson", Steering(), 0, 60 * SECOND, None, peak=40.0, cap=100.0)
    assert steer({"command": "rate", "rate": 100}, run)[0].rate == 100
    assert steer({"command": "scale", "factor": 2}, run)[0].scale == 2
    for command in (
        {"command": "rate", "rate": 101},
        {"command": "scale", "factor": 3},
        {"command": "spike", "rate": 500, "for": "1s"},
    ):
        with pytest.raises(ValueError, match="more than the target is to get"):
            steer(command, run)


def test_a_closed_loop_is_not_steered_beyond_them() -> None:
    run = Situation("closed", Steering(), 0, 60 * SECOND, None, peak=4.0, cap=10.0)
    assert steer({"command": "scale", "factor": 2.5}, run)[0].scale == 2.5
    with pytest.raises(ValueError, match="at once is more than the target is to get"):
        steer({"command": "scale", "factor": 3}, run)


def test_a_secret_that_is_written_in_a_scenario_is_not_passed_on() -> None:
    """It stands in run.json, and in nothing that is made of it for others."""
    headers = {"Authorization": "Bearer 1", "X-Api-Key": "$KEY", "X-Tenant": "a"}
    spec = {"target": {"headers": headers}, "request": [{"headers": headers}]}
    run = max((Path(__file__).parent / "data" / "snapshots").glob("*/*"))
    made = parameters(source(run)._replace(snapshot={"spec": spec}))
    assert made == {
        "target.headers.Authorization": "(left out)",
        "target.headers.X-Api-Key": "$KEY",
        "target.headers.X-Tenant": "a",
    }
    other = [{"headers": {**headers, "Authorization": "Bearer 2"}}]
    (found,) = work({"spec": spec}, {"spec": {**spec, "request": other}})
    assert (found.key, found.a, found.b) == (
        "request[0].headers.Authorization",
        "(left out)",
        "(left out)",
    )


@pytest.mark.parametrize("name", ["Authorization", "x-auth-token", "API_KEY", "Cookie", "Token"])
def test_what_looks_like_a_secret(name: str) -> None:
    assert shown(name, "v") == "(left out)"
    assert shown(name, "$NAMED") == "$NAMED"


@pytest.mark.parametrize("name", ["token_type_ids", "max_tokens", "tokenizer", "X-Request"])
def test_what_only_sounds_like_one(name: str) -> None:
    assert shown(name, "v") == "v"
