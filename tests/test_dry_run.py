"""`loadbench run --dry-run`: one request of each kind, its answer shown, nothing kept."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.answering import Answering, Handler, kserve, serve
from tests.running import loadbench, scenario


def test_the_answer_and_the_servers_own_times_are_shown(tmp_path: Path) -> None:
    own = scenario(tmp_path, 'a = "20 ms"')
    done = loadbench("run", own, "--dry-run", cwd=tmp_path)
    assert "dry run against local:fake · cpu" in done.stdout
    assert "POST /v2/models/fake/infer" in done.stdout
    assert "y FP32 [1, 16]: " in done.stdout
    assert "✓ as it should be" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"own.toml"}  # no run, no results
    [tried] = json.loads(loadbench("run", own, "--dry-run", "--json", cwd=tmp_path).stdout)
    assert tried["status"] == 200
    assert tried["fault"] == ""
    assert tried["took_ms"] >= tried["parts"]["compute"] >= 20


def test_each_kind_of_request_is_sent_once(tmp_path: Path) -> None:
    kinds = '[[request]]\nname = "one"\n[[request]]\nname = "four"\nrows = 4\n'
    own = scenario(tmp_path, tables=kinds)
    found = json.loads(loadbench("run", own, "--dry-run", "--json", cwd=tmp_path).stdout)
    assert [(tried["request"], tried["shown"][0][:16]) for tried in found] == [
        ("one", "y FP32 [1, 16]: "),
        ("four", "y FP32 [4, 16]: "),
    ]


def test_a_wrong_answer_is_named_and_ends_with_1(tmp_path: Path) -> None:
    own = scenario(tmp_path, 'a = "2 ms", wrong = "100 %"')
    done = loadbench("run", own, "--dry-run", cwd=tmp_path, code=1)
    assert "✗ bad_answer: y says 64 bytes, 60 are there" in done.stdout


def test_what_cannot_be_tried_says_why(tmp_path: Path) -> None:
    own = scenario(tmp_path)
    down = loadbench(
        "run", own, "--dry-run", "--target", "http://127.0.0.1:9", cwd=tmp_path, code=3
    )
    assert "is the server up" in down.stderr
    users = tmp_path / "users.py"
    users.write_text("raise SystemExit('this must not be run')\n")
    journey = loadbench("run", users, "--dry-run", cwd=tmp_path, code=2)
    assert "users.py is a Locust file" in journey.stderr or "users is a Locust" in journey.stderr
    own.write_text(own.read_text().replace("[engine]", '[engine]\npreprocess = "own:code"'))
    code = loadbench("run", own, "--dry-run", cwd=tmp_path, code=2)
    assert "read it, then allow that with --trust" in code.stderr


class Repeating(Handler):
    """A model that repeats the key it is shown wherever it can."""

    def do_GET(self) -> None:
        pages, key = kserve(), self.headers["Authorization"].rpartition(" ")[2]
        model = pages["/v2/models/m"]
        model["outputs"] = [{"name": f"y{key}", "datatype": "BYTES", "shape": [1]}]
        self.tell(200 if self.path in pages else 404, pages.get(self.path, {}))

    def do_POST(self) -> None:
        self.body()
        key = self.headers["Authorization"].rpartition(" ")[2]
        texts = [f"{'a long text before the very key '}{key}"]
        output = {"name": f"y{key}", "datatype": "BYTES", "shape": [1], "data": texts}
        found = json.dumps({"outputs": [output]})
        told = {"Content-Type": "application/json", "Server-Timing": f"in-{key};dur=1"}
        self.say(200, found, told)


def test_no_tensor_and_no_part_tells_the_key_that_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its name, nor its values, nor what is left of one that is cut."""
    monkeypatch.setenv("MODEL_KEY", "tell-nobody-3141")
    own = ("--set", "target.headers.Authorization=Bearer $MODEL_KEY", "--set", "target.model=m")
    with serve(Answering(Repeating)) as server:
        done = loadbench("run", "steady", "--dry-run", "--target", server.url, *own, cwd=tmp_path)
    assert "y$MODEL_KEY BYTES [1]: " in done.stdout
    assert "in-$MODEL_KEY 1.00" in done.stdout
    assert "tell-no" not in done.stdout + done.stderr


@pytest.mark.parametrize("config", [None, {"max_batch_size": 8}])
def test_a_model_that_tells_no_inputs_is_sent_whole_requests(
    tmp_path: Path, config: dict[str, int] | None
) -> None:
    """The shapes of its outputs are whole, too, whether or not it says how it batches."""

    class Untold(Handler):
        def do_GET(self) -> None:
            output = {"name": "y", "datatype": "FP32", "shape": [-1, 1]}
            pages = kserve() | {"/v2/models/m": {"name": "m", "inputs": [], "outputs": [output]}}
            pages |= {"/v2/models/m/config": config} if config else {}
            self.tell(200 if self.path in pages else 404, pages.get(self.path, {}))

        def do_POST(self) -> None:
            self.body()
            output = {"name": "y", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}
            self.tell(200, {"outputs": [output]})

    sent = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    (tmp_path / "request.json").write_text(json.dumps({"inputs": [sent]}))
    own = tmp_path / "own.toml"
    with serve(Answering(Untold)) as server:
        own.write_text(
            f'[target]\nurl = "{server.url}"\nmodel = "m"\n'
            '[load]\narrivals = "constant"\nphases = [{ rate = 5, for = "1s" }]\n'
        )
        told = loadbench("run", own, "--dry-run", cwd=tmp_path, code=2).stderr
        assert "give request 'infer' a KServe request as data: request.json" in told
        with own.open("a") as file:
            file.write('[[request]]\nname = "infer"\ndata = "request.json"\n')
        done = loadbench("run", own, "--dry-run", cwd=tmp_path)
    assert "y FP32 [1, 1]: 1" in done.stdout


REMEDY = "Use 'max_completion_tokens' instead."


class Refusing(Handler):
    """Refuses what is sent, tells how it is taken, and then repeats the key that it was shown."""

    def do_GET(self) -> None:
        known = self.path == "/v1/models"
        self.tell(200 if known else 404, {"data": [{"id": "m"}]} if known else {})

    def do_POST(self) -> None:
        self.body()
        key = self.headers["Authorization"].rpartition(" ")[2]
        text = f"Unsupported parameter: 'max_tokens' is not supported with this model. {REMEDY}"
        text = f"{text} {'This is the default model of a long list. ' * 4}"[:262]
        self.tell(400, {"error": {"message": f"{text} {key}"}})


def test_a_refusal_is_told_with_its_remedy_and_without_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key begins before the place where answers are cut, and ends after it."""
    monkeypatch.setenv("MODEL_KEY", "tell-nobody-" + "3141" * 12)
    own = ("--set", "target.headers.Authorization=Bearer $MODEL_KEY")
    with serve(Answering(Refusing)) as server:
        args = ("run", "steady", "--target", server.url, *own)
        tried = loadbench(*args, "--dry-run", cwd=tmp_path, code=1)
        ran = loadbench(*args, "--rate", "5", "--duration", "1s", cwd=tmp_path, code=None)
    for said in (tried.stdout, ran.stdout):
        assert REMEDY in said
        assert "$MODEL_KEY" in said
        assert "tell-no" not in said


@pytest.mark.parametrize("data", ["", "x.npy"])
def test_an_input_of_a_type_that_is_not_known_can_be_written_by_hand(
    tmp_path: Path, data: str
) -> None:
    class Eight(Handler):
        def do_GET(self) -> None:
            pages = kserve()
            pages["/v2/models/m"]["inputs"] = [{"name": "x", "datatype": "FP8", "shape": [2]}]
            self.tell(200 if self.path in pages else 404, pages.get(self.path, {}))

        def do_POST(self) -> None:
            self.tell(200 if b"FP8" in self.body() else 404, {})

    own, load = tmp_path / "own.toml", '[load]\nphases = [{ rate = 5, for = "1s" }]\n'
    np.save(tmp_path / "x.npy", np.ones((3, 2)))
    with serve(Answering(Eight)) as server:
        target = f'[target]\nurl = "{server.url}"\n'
        kind = f'[[request]]\nname = "infer"\ndata = "{data}"\n' if data else ""
        own.write_text(f'{target}model = "m"\n{load}{kind}')
        told = loadbench("run", own, "--dry-run", cwd=tmp_path, code=2).stderr
        assert "input 'x' has the unknown type 'FP8'" in told
        path = '[[request]] with name, path = "/v2/models/m/infer" and body'
        assert f'[target] protocol = "http", {path}' in told
        kind = '[[request]]\nname = "infer"\npath = "/v2/models/m/infer"\n'
        body = 'body = \'{"inputs": [{"name": "x", "datatype": "FP8", "data": [1, 2]}]}\'\n'
        own.write_text(f'{target}protocol = "http"\n{load}{kind}{body}')
        loadbench("run", own, "--dry-run", cwd=tmp_path)


class Leading(Handler):
    """Sends all who ask to another place."""

    def do_POST(self) -> None:
        self.body()
        self.say(308, "", {"Location": f"https://models.example{self.path}?api_key=abc"})

    do_GET = do_OPTIONS = do_POST


def test_where_an_answer_leads_is_told(tmp_path: Path) -> None:
    plain = ("--set", "target.protocol=http")
    with serve(Answering(Leading)) as server:
        args = ("run", "steady", "--dry-run", "--target", server.url)
        done = loadbench(*args, *plain, cwd=tmp_path, code=1)
        known = ("--set", "target.protocol=kserve")
        kserve_said = loadbench(*args, *known, cwd=tmp_path, code=3).stderr
    assert "✗ HTTP 308: it leads to https://models.example/?api_key=(left out)" in done.stdout
    assert "/v2: HTTP 308: it leads to https://models.example/v2?api_key=(left" in kserve_said
    assert "if the server is there: --target https://models.example; for a login" in kserve_said
