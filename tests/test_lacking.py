"""What a scenario is told that does not say what to ask for: by services of others, whose own
descriptions were recorded, and by such as describe themselves badly."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from loadbench.targets.ask import Asker
from loadbench.targets.lacking import Operation, operations
from tests.running import loadbench
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


def taking(schema: object, **more: object) -> str:
    """The body of a service that takes this in JSON."""
    content = {"application/json": {"schema": schema}}
    paths = {"/go": {"post": {"requestBody": {"content": content}}}}
    page = json.dumps({"paths": paths, **more})
    [found] = told({"/openapi.json": (200, page)})
    assert found.path == "/go"
    return found.body


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
    assert told(described(name)) == [Operation(path, body)]


def test_an_example_has_what_the_schema_asks_for() -> None:
    parts = {
        "a": {"type": "integer"},
        "b": {"enum": ["x", "y"]},
        "c": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "d": {"type": "boolean", "default": False},
        "e": {"$ref": "#/components/schemas/E"},
        "f": {"type": "string"},
    }
    schema = {"type": "object", "properties": parts, "required": list("abcde")}
    components = {"schemas": {"E": {"type": "array", "items": {"type": "number"}}}}
    found = json.loads(taking(schema, components=components))
    assert found == {"a": 1, "b": "x", "c": "text", "d": False, "e": [1.0]}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/components/schemas/None"},
        {"type": "string", "default": "it's"},  # no text of TOML as it stands
        {"type": "string", "default": "${column}"},
        {"type": "string", "default": "long" * 100},
        {"type": "file"},
        {"type": "object", "required": 3, "properties": 4, "default": None},
        [],
        7,
    ],
)
def test_what_cannot_be_written_down_is_left_to_the_reader(schema: object) -> None:
    assert taking(schema) == ""


def test_a_bad_schema_is_read_as_far_as_it_goes() -> None:
    odd = {"type": "object", "required": 3, "properties": {"a": 7, "b": {"type": ["x"]}}}
    assert taking(odd) == '{"a":null,"b":null}'
    assert taking({"type": "object", "properties": 3}) == "{}"


def test_a_schema_that_holds_itself_ends() -> None:
    own = {"$ref": "#/components/schemas/Own"}
    components = {"schemas": {"Own": {"type": "object", "properties": {"own": own}}}}
    assert taking(own, components=components).startswith('{"own":{"own":')


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
