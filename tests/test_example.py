"""Bodies that are told by what a service says of itself: each is one that it takes."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from loadbench.targets.template import fill, parse
from tests.running import loadbench
from tests.test_lacking import BRIEF, NONE, taking, told
from tests.test_targets import replaying


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
        {"type": "string", "default": "long" * 1100},
        {"type": "file"},
        {"type": "object", "required": 3, "properties": 4, "default": None},
        [],
        7,
    ],
)
def test_what_cannot_be_written_down_is_left_to_the_reader(schema: object) -> None:
    assert taking(schema) == ""


@pytest.mark.parametrize(
    "example",
    [
        "What's the capital of France?",
        "$100 is a lot",
        "costs ${x} now, or $${y}",
        'two\nlines, \\ and "quotes"',
        "an apostrophe\u2019s, a space\u00a0that is none, \U0001f469\u200d\U0001f680 \x7f",
        "long" * 1000,
    ],
)
def test_an_example_is_sent_as_the_service_wrote_it(example: str) -> None:
    body = taking({"properties": {"q": {"examples": [example]}}, "type": "object"})
    assert json.loads(fill(parse(body), {}, "json", Path())) == {"q": example}


def test_long_bodies_are_told_on_lines_of_their_own(tmp_path: Path) -> None:
    """As they are copied; no more of them than are read."""
    parts = {f"a_rather_long_name_{n}": {"type": "number"} for n in range(40)}
    content = {"application/json": {"schema": {"type": "object", "properties": parts}}}
    post = {"post": {"requestBody": {"content": content}}}
    paths = {f"/p{n}": post for n in range(9)} | {"/last": {"post": {}}}
    page = json.dumps({"paths": paths})
    with replaying(NONE | {"/openapi.json": (200, page)}) as url:
        done = loadbench("run", "steady", "--target", url, *BRIEF, cwd=tmp_path, code=2)
    *most, last = re.split(r"\nor\s", done.stderr.partition("[[request]] with\n")[2])
    assert [tomllib.loads(one)["path"] for one in most] == ["/p0", "/p1", "/p2"]
    assert json.loads(tomllib.loads(most[0])["body"]) == dict.fromkeys(parts, 1.0)
    assert last == "7 more\n"


def test_a_bad_schema_is_read_as_far_as_it_goes() -> None:
    odd = {"type": "object", "required": 3, "properties": {"a": 7, "b": {"type": ["x"]}}}
    assert taking(odd) == '{"a":null,"b":null}'
    assert taking({"type": "object", "properties": 3}) == "{}"
    assert taking({"type": "array", "items": {"type": "integer"}, "minItems": 3}) == "[1,1,1]"
    assert taking({"type": "array", "items": {"type": "integer"}, "minItems": 10**9}) == ""


def test_a_schema_that_holds_itself_ends() -> None:
    own = {"$ref": "#/components/schemas/Own"}
    components: Any = {"schemas": {"Own": {"type": "object", "properties": {"own": own}}}}
    assert taking(own, components=components) == "{}"
    kids: dict[str, Any] = {"type": "array", "items": own}
    maybe = {"anyOf": [own, {"type": "null"}]}
    parts = {"kids": kids, "mate": maybe}
    components = {"schemas": {"Own": {"type": "object", "properties": parts, "required": [*parts]}}}
    assert taking(own, components=components) == '{"kids":[],"mate":null}'
    kids["minItems"] = 1
    assert taking(own, components=components) == ""
    deep: dict[str, Any] = {"type": "number"}
    for _ in range(20):
        deep = {"type": "object", "properties": {"a": deep}}
    assert taking(deep).endswith('{"a":1.0' + "}" * 20)
    wide = {f"s{n}": {"type": "object", "properties": {
        f"{k}": {"$ref": f"#/components/schemas/s{n + 1}"} for k in range(50)
    }} for n in range(20)}  # fmt: skip
    assert taking(wide["s0"], components={"schemas": wide}) == ""


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "minLength": 10}, "texttextte"),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "string", "format": "ipv4"}, "127.0.0.1"),
        ({"type": "string", "contentMediaType": "application/json", "contentSchema": {
            "type": "array", "items": {"type": "integer"}}}, "[1]"),
        ({"type": "integer", "multipleOf": 7, "minimum": 1}, 7),
        ({"type": "integer", "multipleOf": 5, "minimum": 21, "maximum": 29}, 25),
        ({"type": "integer", "multipleOf": 5, "exclusiveMaximum": 0}, -5),
        ({"type": "number", "multipleOf": 0.25, "exclusiveMaximum": 1}, 0.25),
        ({"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}]}, [1.0, "text"]),
        ({"type": "array", "items": [{"type": "boolean"}, {"type": "number"}]}, [True, 1.0]),
        ({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}, "minItems": 2},
         [[1], [1]]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, []),
    ],
)  # fmt: skip
def test_a_body_keeps_within_its_bounds(schema: object, value: object) -> None:
    body = taking({"type": "object", "properties": {"one": schema}})
    assert json.loads(body) == {"one": value}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^[A-Z]{3}$"},
        {"type": "string", "format": "of-our-own"},
        {"type": "string", "format": ["odd"]},
        {"type": "string", "minLength": 10, "maxLength": 5},
        {"type": "string", "minLength": 10**9},
        {"type": "string", "contentMediaType": "application/json"},
        {"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 6},
        {"type": "integer", "multipleOf": 1e-320, "minimum": 1},
        {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
        {"type": "array", "items": {"type": "integer"}, "minItems": 2, "uniqueItems": True},
    ],
)
def test_of_a_body_too_what_only_users_know_is_in_capitals(schema: object) -> None:
    body = {"type": "object", "properties": {"a-code": schema}}
    post = {"requestBody": {"content": {"application/json": {"schema": body}}}}
    page = json.dumps({"paths": {"/go": {"post": post}}})
    [found] = told({"/openapi.json": (200, page)})
    assert found.settings[-1] == """body = '{"a-code":"A_CODE"}'"""
    assert found.unknown == ("A_CODE",)
