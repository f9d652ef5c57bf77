"""The target's headers on what the users of people's own Locust files send."""

from pathlib import Path

import pytest

from loadbench.model import encode
from loadbench.plan import Broken
from tests.answering import Answering, Handler, serve
from tests.lanes import process, run_process
from tests.people import journey, nothing
from tests.running import loadbench

SECRET = "tell-nobody-2718"
HEADERS = {"Authorization": "Bearer $MODEL_TOKEN", "X-Key": "$MODEL_TOKEN", "User-Agent": "us"}
CODE = """
class Visitor({kind}):
    fixed_count = 1
    wait_time = constant(0.05)
    @task
    def look(self):
        self.client.get("/look")
        self.client.get("/own", headers={{"x-key": "own"}})
        self.client.get("/away")
        self.client.get("http://127.0.0.1:{other}/other")
"""


class Hearing(Answering):
    """Keeps the headers of each path; `/away` leads to the server at `other`."""

    other = 0

    def __init__(self) -> None:
        super().__init__(Ear)
        self.heard: dict[str, list[dict[str, str]]] = {}


class Ear(Handler):
    server: Hearing

    def do_GET(self) -> None:
        told = {name.lower(): value for name, value in self.headers.items()}
        self.server.heard.setdefault(self.path, []).append(told)
        there = {"Location": f"http://127.0.0.1:{self.server.other}/landed"}
        self.say(302 if self.path == "/away" else 200, "", there)


@pytest.mark.parametrize("kind", ["HttpUser", "FastHttpUser"])
def test_they_go_to_the_target_and_to_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", SECRET)
    with serve(Hearing()) as target, serve(Hearing()) as stranger:
        target.other = stranger.server_port
        code = CODE.format(kind=kind, other=stranger.server_port)
        found = run_process(journey(tmp_path, target.server_port, code, headers=HEADERS), nothing)
    found.check()
    assert found.failed == {}
    sent = {"authorization": f"Bearer {SECRET}", "x-key": SECRET, "user-agent": "us"}
    assert set(target.heard) == {"/look", "/own", "/away"}
    for path, all_told in target.heard.items():
        for told in all_told:
            wanted = {**sent, "x-key": "own"} if path == "/own" else sent
            assert {name: told.get(name) for name in sent} == wanted
    assert set(stranger.heard) == {"/landed", "/other"}
    assert SECRET not in str(stranger.heard)


ALONE = """
class Dialler(User):
    host = "http://127.0.0.1:1"
    @task
    def dial(self):
        pass
"""
NOWHERE = """
class Visitor(HttpUser):
    def __init__(self, environment):
        self.host = "http://127.0.0.1:1"
        super().__init__(environment)
    @task
    def look(self):
        pass
"""


@pytest.mark.parametrize(
    ("code", "token", "words"),
    [
        (ALONE, SECRET, "Dialler sends by a client of its own"),
        (NOWHERE, SECRET, "Visitor does not say beforehand to which host"),
        (CODE.format(kind="HttpUser", other=1), "", "MODEL_TOKEN is not set"),
    ],
)
def test_what_cannot_carry_them_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, token: str, words: str
) -> None:
    monkeypatch.setenv("MODEL_TOKEN", token)
    host = "" if token else "http://127.0.0.1:1"
    with process(encode(journey(tmp_path, 1, code, host=host, headers=HEADERS))) as load:
        (message,) = load.rest()
    assert isinstance(message, Broken)
    assert (message.exit_code, words in message.message) == (2, True), message.message


def test_a_run_keeps_their_names_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_TOKEN", SECRET)
    with serve(Hearing()) as target:
        where = f"http://127.0.0.1:{target.server_port}"
        code = CODE.format(kind="FastHttpUser", other=target.server_port)
        (tmp_path / "people.py").write_text(f"from locust import *\n{code}    host = '{where}'\n")
        target.other = target.server_port
        own = ("--set", "target.headers.Authorization=Bearer $MODEL_TOKEN")
        brief = ("--duration", "1s", "--on-no-verdict", "warn")
        told = loadbench("run", "people.py", *own, *brief, cwd=tmp_path)
    assert all(heard["authorization"] == f"Bearer {SECRET}" for heard in target.heard["/look"])
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("Bearer $MODEL_TOKEN" in path.read_text("latin-1") for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in told.stdout + told.stderr
