"""What a scenario is told that does not say what to ask for: by services of others, whose own
descriptions were recorded, and by such as describe themselves badly."""

import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from loadbench.targets.ask import Asker
from loadbench.targets.lacking import Operation, operations
from loadbench.targets.openapi import base
from tests.running import loadbench, summary
from tests.test_targets import replaying

TOLD = Path(__file__).parent / "data" / "openapi"
PAGES = {
    "fastapi": "/openapi.json",
    "litserve": "/openapi.json",
    "bentoml": "/docs.json",
    "mosec": "/openapi/metadata.json",
}
NONE = {"/v2": (404, "")}
Answers = dict[str, tuple[int, str]]


def described(name: str) -> Answers:
    page = json.loads((TOLD / f"{name}.json").read_text())
    return NONE | {PAGES[name]: (200, json.dumps(page))}


def told(answers: Answers) -> list[Operation]:
    with replaying(NONE | answers) as url, Asker(url) as asker:
        return list(operations(asker))


def taking(schema: object, components: object = None) -> str:
    """The body of a service that takes this in JSON."""
    content = {"application/json": {"schema": schema}}
    found = asking({"requestBody": {"content": content}}, components=components)
    assert found.pop("path") == "/go"
    return str(found.get("body", ""))


def asking(
    post: dict[str, Any], path: str = "/go", method: str = "post", components: object = None
) -> Any:
    """What a scenario has to say to ask this operation."""
    page = json.dumps({"paths": {path: {method: post}}, "components": components})
    [found] = told({"/openapi.json": (200, page)})
    return tomllib.loads("\n".join(found.settings))


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("fastapi", "/predict", '{"x":[1.0]}'),
        ("litserve", "/predict", ""),
        ("bentoml", "/predict", '{"x":[1.0]}'),
        ("mosec", "/inference", ""),
    ],
)
def test_services_of_others_tell_what_they_take(name: str, path: str, body: str) -> None:
    [found] = told(described(name))
    assert f'path = "{path}"' in found.words
    assert (f"body = '{body}'" if body else "the body that it takes") in found.words


@pytest.mark.parametrize(
    ("name", "place", "words"),
    [
        ("version", "query", {"path": "/go?version=VERSION"}),
        ("x-tenant", "header", {"path": "/go", "headers": {"x-tenant": "X_TENANT"}}),
        ("session", "cookie", {"path": "/go", "headers": {"Cookie": "session=SESSION"}}),
    ],
)
def test_what_has_to_be_said_beside_the_body_is_told(
    name: str, place: str, words: dict[str, Any]
) -> None:
    one = {"name": name, "in": place, "required": True, "schema": {"type": "string"}}
    idle = one | {"name": "idle", "required": False}
    at = {"$ref": "#/components/parameters/one"}
    assert asking({"parameters": [at, idle]}, components={"parameters": {"one": one}}) == {
        "name": "go", "method": "POST", **words,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "query"),
    [
        ({"type": "integer"}, "1"),
        ({"type": "integer", "minimum": 10, "maximum": 20}, "10"),
        ({"type": "integer", "exclusiveMaximum": 0}, "-1"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "0.5"),
        ({"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": "x"}, "1.0"),
        ({"type": "boolean"}, "true"),
        ({"enum": ["a b", "c"]}, "a%20b"),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "string", "default": "$HOME"}, "ONE"),
        ({"type": "array", "items": {"type": "integer"}}, "1"),
        ({"type": "array", "items": {"type": "string"}}, "ONE"),
        ({"type": "object", "default": None}, "ONE"),
        (7, "ONE"),
    ],
)
def test_a_value_is_of_the_kind_that_is_asked_for(schema: object, query: str) -> None:
    one = {"name": "one", "in": "query", "required": True, "schema": schema}
    assert asking({"parameters": [one]})["path"] == f"/go?one={query}"


def locked(schemes: object, usual: object, **own: object) -> str:
    """What is to be said beside a request that has a body, by a description with these keys."""
    body = {"content": {"application/json": {"schema": {"type": "object"}}}}
    page = {
        "paths": {"/go": {"post": {"requestBody": body, **own}}},
        "components": {"securitySchemes": schemes}, "security": usual,
    }  # fmt: skip
    with replaying(NONE | {"/openapi.json": (200, json.dumps(page))}) as url, Asker(url) as asker:
        [found] = operations(asker)
    assert ('path = "/go"' in found.words) is ("--target" not in found.words)
    return found.words.replace(url, "URL").partition(", with ")[2]


HEADER = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
QUERY = {"type": "apiKey", "in": "query", "name": "api_key"}
BEARER = {"type": "http", "scheme": "Bearer"}
UNKNOWN = 'a key by its scheme "a"'


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        (HEADER, '[target] headers = { X-API-Key = "$X_API_KEY" }'),
        (QUERY, '--target "URL/go?api_key=$API_KEY"'),
        (QUERY | {"in": "cookie"}, '[target] headers = { Cookie = "api_key=$API_KEY" }'),
        (BEARER, '[target] headers = { Authorization = "Bearer $API_TOKEN" }'),
        ({"type": "http", "scheme": "basic"},
         '[target] headers = { Authorization = "Basic $BASIC_AUTH" }'),
        ({"type": "oauth2"}, '[target] headers = { Authorization = "Bearer $API_TOKEN" }'),
        ({"type": "mutualTLS"}, "[target] cert and key"),
        ({"type": "http", "scheme": "digest"}, UNKNOWN),
        ({"type": "http", "scheme": "ApiKey"}, UNKNOWN),
        (QUERY | {"name": "api.key"}, UNKNOWN),
        (HEADER | {"name": "no name"}, UNKNOWN),
        (HEADER | {"in": ["header"]}, UNKNOWN),
        ({"type": ["apiKey"]}, UNKNOWN),
        (7, UNKNOWN),
    ],
)  # fmt: skip
def test_a_key_that_an_operation_wants_is_told(scheme: object, said: str) -> None:
    assert locked({"a": scheme}, [{"a": []}]) == said
    assert locked({"a": scheme}, None, security=[{"a": []}]) == said


def test_of_several_keys_those_are_told_that_are_wanted() -> None:
    schemes = {"a": HEADER, "b": QUERY, "no": {"type": "http", "scheme": "digest"}}
    both = '[target] headers = { X-API-Key = "$X_API_KEY" } and --target "URL/go?api_key=$API_KEY"'
    assert locked(schemes, [{"a": [], "b": []}]) == both
    assert locked(schemes, [{"no": []}, {"b": []}, {"a": []}]).startswith("--target")
    nothing: list[object] = [[{"a": []}, {}], [], 3, [7]]
    for none in nothing:
        assert locked(schemes, none) == ""
    assert locked(schemes, [{"a": []}], security=[]) == ""  # this one lets all in
    parameter = {"name": "api_key", "in": "query", "required": True}
    told_once = locked(schemes, [{"b": []}], parameters=[parameter])
    assert told_once == '--target "URL/go?api_key=$API_KEY"'


def test_two_keys_are_not_put_into_one_header() -> None:
    basic = {"type": "http", "scheme": "basic"}
    schemes = {"a": basic, "b": BEARER, "c": {"type": "oauth2"}, "d": QUERY}
    token = '[target] headers = { Authorization = "Bearer $API_TOKEN" }'
    one = '[target] headers = { Authorization = "Basic $BASIC_AUTH" }'
    assert locked(schemes, [{"a": [], "b": []}]) == f'{one} and a key by its scheme "b"'
    assert locked(schemes, [{"b": [], "c": []}]) == token
    assert locked(schemes, [{"a": [], "b": []}, {"d": []}]).startswith("--target")
    named = "\u001b[2J"
    assert locked({named: 7}, [{named: []}]) == "a key by a scheme of its own"
    cookies = {name: QUERY | {"in": "cookie", "name": name} for name in "ab"}
    assert 'Cookie = "a=$A; b=$B"' in locked(cookies, [{"a": [], "b": []}])


@pytest.mark.parametrize(
    ("servers", "path"),
    [
        ([{"url": "/api/v1"}], "/api/v1/go"),
        ([{"url": "/api/v1/"}], "/api/v1/go"),
        ([{"url": "api"}], "/api/go"),
        ([{"url": "http://here:8000/v2"}], "/v2/go"),
        ([{"url": "https://example.com/v3"}], "/go"),
        ([{"url": "https://example.com/v3"}, {"url": "/v4"}], "/v4/go"),
        ([{"url": "/{stage}"}], "/go"),
        ([{"url": "http://[/v5"}, {"url": 7}, 7], "/go"),
        ([{"url": "."}], "/go"),
        ([], "/go"),
        (7, "/go"),
    ],
)
def test_a_path_begins_where_the_server_does(servers: object, path: str) -> None:
    assert base("http://here:8000", "/openapi.json", {}, {"servers": servers}) + "/go" == path
    page = {"paths": {"/go": {"post": {"servers": [{"url": "/own"}]}, "put": {}}}}
    found = told({"/openapi.json": (200, json.dumps(page | {"servers": [{"url": "/all"}]}))})
    assert [one.settings[1] for one in found] == ['path = "/own/go"', 'path = "/all/go"']
    assert base("http://here", "/docs.json", {}, {"basePath": "/old"}) == "/old"
    usual = {"servers": [{"url": "https://here/v6"}]}
    assert base("https://here:443", "/openapi.json", {}, usual) == "/v6"


def test_what_is_got_by_a_query_is_offered_where_nothing_is_posted() -> None:
    asked = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("q", "top")]
    needed = {"name": "page", "in": "query", "required": True, "schema": {"type": "integer"}}
    paths: dict[str, Any] = {
        "/health": {"get": {}},
        "/search": {"get": {"parameters": asked}},
        "/more": {"get": {"parameters": [*asked, needed]}},
    }
    found = told({"/openapi.json": (200, json.dumps({"paths": paths}))})
    assert [one.settings for one in found] == [
        ('name = "search"', 'path = "/search?q=Q"', 'method = "GET"'),
        ('name = "more"', 'path = "/more?page=1"', 'method = "GET"'),
    ]
    paths["/go"] = {"post": {}}
    [only] = told({"/openapi.json": (200, json.dumps({"paths": paths}))})
    assert only.settings[0] == 'name = "go"'


def test_a_key_is_told_with_where_its_value_is_from_unless_it_is_sent(tmp_path: Path) -> None:
    answers = described("fastapi")
    page = json.loads(answers["/openapi.json"][1])
    page["components"]["securitySchemes"] = {"a": HEADER}
    page["security"] = [{"a": []}]
    answers["/openapi.json"] = (200, json.dumps(page))
    own = ("--set", "target.headers.x-api-key=abcdefgh")
    with replaying(answers) as url:
        told_all = loadbench("run", "steady", "--target", url, *BRIEF, cwd=tmp_path, code=2).stderr
        sent = loadbench("run", "steady", "--target", url, *own, *BRIEF, cwd=tmp_path, code=2)
    assert '[target] headers = { X-API-Key = "$X_API_KEY" }' in told_all
    assert "($X_API_KEY: taken from the environment)" in told_all
    assert "X-API-Key" not in sent.stderr


def test_a_path_with_places_is_filled() -> None:
    places = [{"name": name, "in": "path", "schema": {"type": kind}} for name, kind in
              (("model", "string"), ("number", "integer"))]  # fmt: skip
    found = asking({"parameters": places}, "/v1/{model}/go/{number}", "put")
    assert found == {"name": "go", "path": "/v1/MODEL/go/1", "method": "PUT"}


def test_forms_and_files_are_told_as_a_scenario_has_them() -> None:
    parts = {"label": {"type": "string"}, "n": {"type": "integer"}}
    file = {"photo": {"type": "string", "format": "binary"}}

    def taken(kind: str, properties: dict[str, Any]) -> Any:
        schema = {"type": "object", "properties": properties} if properties else {}
        found = asking({"requestBody": {"content": {kind: {"schema": schema}}}})
        assert (found.pop("name"), found.pop("path")) == ("go", "/go")
        return found

    form = {"label": "LABEL", "n": "1"}
    kind = "application/x-www-form-urlencoded"
    assert taken(kind, parts) == {"form": form, "headers": {"Content-Type": kind}}
    assert taken("multipart/form-data", parts) == {"form": form}
    json_kind = {"type": "string", "contentMediaType": "application/json", "contentSchema": {}}
    assert taken("multipart/form-data", {"y": json_kind}) == {"form": {"y": "Y"}}
    named = {"label": {"type": "string", "minLength": 10}}
    assert taken("multipart/form-data", named) == {"form": {"label": "LABEL"}}
    assert taken("multipart/form-data", parts | file) == {
        "form": form | {"photo": "${name|file}"}, "data": "FILES/",
    }  # fmt: skip
    assert taken("image/png", {}) == {"data": "FILES/", "headers": {"Content-Type": "image/png"}}
    assert taken("text/plain", {}) == {"body": "TEXT", "headers": {"Content-Type": "text/plain"}}
    assert taken("*/*", {}) == {}
    assert taken("multipart/form-data", {}) == {}


@pytest.mark.parametrize(
    "page",
    [
        "no", "[]", '{"paths": 3}', '{"paths": {"/a": 3, "/b": {"post": []}, "/c": {"get": {}}}}',
        '{"paths": {"/{id}": {"post": {}}, "/\\u001b[2J": {"post": {}}, "gone": {"post": {}}}}',
    ],
)  # fmt: skip
def test_a_bad_description_is_none(page: str) -> None:
    assert told({"/openapi.json": (200, page)}) == []


def test_what_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    """What is said is what a scenario needs."""
    answers = described("fastapi") | {"/predict": (405, "")}
    with replaying(answers) as url:
        for target, words in (
            (url, "there is no / (HTTP 404)"),
            (f"{url}/predict", "there is no GET /predict (HTTP 405)"),
        ):
            load = ("--target", target, "--rate", "20", "--duration", "1s")
            done = loadbench("run", "steady", *load, cwd=tmp_path, code=2)
            assert words in done.stderr
            said = re.search(r"\[\[request\]\] with (.*)", done.stderr)
            assert said is not None
            text = said[1].replace(", path", "\npath").replace(" and body", "\nbody")
            assert tomllib.loads(text) == {
                "name": "predict", "path": "/predict", "body": '{"x":[1.0]}',
            }  # fmt: skip
            looked = loadbench("doctor", "steady", "--target", target, cwd=tmp_path, code=1)
            assert words in looked.stdout
    assert not list(tmp_path.glob("results/*-*"))


@pytest.mark.long
def test_a_welcome_page_is_not_measured_in_silence(tmp_path: Path) -> None:
    load = ("--rate", "20", "--duration", "1s", "--on-no-verdict", "warn")
    with replaying(described("mosec") | {"/": (200, "MOSEC service")}) as url:
        done = loadbench("run", "steady", "--target", url, *load, cwd=tmp_path)
        meant = loadbench(
            "run", "steady", "--target", url, *load, "--set", "target.path=/", cwd=tmp_path
        )
        looked = loadbench("doctor", "steady", "--target", url, cwd=tmp_path)
        tried = loadbench("run", "steady", "--target", url, "--dry-run", cwd=tmp_path)
    words = "nothing says what to ask for, so GET / is measured"
    for said in (done.stdout, done.stderr, looked.stdout, tried.stderr):
        assert words in said
        assert 'path = "/inference"' in said
    assert words not in meant.stdout + meant.stderr


# ---- nothing is asked that the log lacks


@contextmanager
def counting(options: tuple[int, str], *methods: str) -> Iterator[tuple[str, Counter[str]]]:
    """A service at /predict; what it answers to OPTIONS there, and what it was asked there."""
    asked = Counter[str]()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            here = self.path.partition("?")[0] == "/predict"
            asked[self.command] += here
            status, allow = 404, ""
            if here:
                status = 200 if self.command in methods else 405
                status, allow = options if self.command == "OPTIONS" else (status, "")
            self.send_response(status)
            if allow:
                self.send_header("Allow", allow)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_OPTIONS = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()


BRIEF = ("--rate", "20", "--duration", "1s", "--set", "load.warmup=0s")
PATH = ("--set", "target.path=/predict")
HTTP = ("--set", "target.protocol=http")


@pytest.mark.parametrize(
    ("own", "looks"), [(PATH, 1), ((*PATH, *HTTP), 0), ((*PATH, "--set", "target.method=POST"), 0)]
)
def test_a_service_is_not_asked_for_what_the_load_asks_it_for(
    tmp_path: Path, own: tuple[str, ...], looks: int
) -> None:
    """Nor are its replicas. Where it is recognised, a look may be had whether the path is there."""
    kinds = ("GET", "POST")
    told = 200, "GET, POST"
    with counting(told, *kinds) as (url, asked), counting(told, *kinds) as (other, more):
        two = ("--set", f'target.replicas=["{other}"]')
        found = summary("steady", "--target", url, *own, *two, *BRIEF, cwd=tmp_path)
    assert found["failed"] == {}
    assert (asked.pop("OPTIONS", 0), more.pop("OPTIONS", 0)) == (looks, 0)
    assert sum(asked.values()) + sum(more.values()) == found["sent"] == found["done"] > 10


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ((405, "GET, HEAD"), 0),
        ((200, "GET"), 0),
        ((500, ""), 0),
        ((404, ""), 1),
        ((200, ""), 1),
        ((204, ""), 1),
        ((405, "POST"), 1),
        ((200, "POST"), 1),
    ],
)
def test_whether_a_path_of_an_address_is_there_is_asked_without_a_request(
    tmp_path: Path, options: tuple[int, str], more: int
) -> None:
    """Where that cannot be, it is told: FastAPI's `Allow` has the methods of one of its routes."""
    with counting(options, "GET") as (url, asked):
        found = summary("steady", "--target", f"{url}/predict", *BRIEF, cwd=tmp_path)
    assert found["failed"] == {}
    assert asked["GET"] == found["sent"] + more > 10
    assert ("asked-before" in {note["code"] for note in found["notes"]}) is bool(more)


@pytest.mark.parametrize("options", [(405, "POST"), (200, "OPTIONS, POST"), (405, ""), (204, "")])
def test_a_path_that_is_not_to_be_got_is_known_by_one_request(
    tmp_path: Path, options: tuple[int, str]
) -> None:
    with counting(options, "POST") as (url, asked):
        done = loadbench("run", "steady", "--target", f"{url}/predict", cwd=tmp_path, code=2)
    assert "there is no GET /predict (HTTP 405)" in done.stderr
    assert asked["GET"] == 1
    posted = '→ it is there for POST: [[request]] with name, method = "POST" and body'
    assert (posted in done.stderr) is ("POST" in options[1])
    assert ("[target] path" in done.stderr) is ("POST" not in options[1])


def test_what_is_allowed_where_nothing_is_to_be_got_is_all_it_takes(tmp_path: Path) -> None:
    with counting((405, "POST"), "POST") as (url, _):
        own = tmp_path / "own.toml"
        own.write_text(
            f'[target]\nurl = "{url}/predict"\n'
            '[load]\narrivals = "constant"\nphases = [{ rate = 5, for = "1s" }]\n'
            '[[request]]\nname = "infer"\nmethod = "POST"\nbody = \'{"x": 1}\'\n'
        )
        done = loadbench("run", own, "--dry-run", cwd=tmp_path)
    assert "POST /predict" in done.stdout


def test_a_service_that_is_down_is_told_by_what_to_do(tmp_path: Path) -> None:
    own = ("--target", "http://127.0.0.1:1", *HTTP, *PATH)
    done = loadbench("run", "steady", *own, cwd=tmp_path, code=3)
    assert "GET http://127.0.0.1:1/predict" in done.stderr
    assert "is the server up, and the address right?" in done.stderr
