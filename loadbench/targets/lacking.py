"""What a scenario lacks to ask a service for something. Where it does not say what is asked for,
the service may: FastAPI, LitServe, BentoML and mosec describe themselves by OpenAPI.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from loadbench.environment import shown
from loadbench.errors import SpecError, TargetError
from loadbench.model import Note
from loadbench.plan import Endpoint, Expected, RequestPlan, kinds
from loadbench.targets.reply import json_of

if TYPE_CHECKING:  # they bring pydantic, which not all who ask need
    from loadbench.spec import Spec
    from loadbench.targets.ask import Asker

_PAGES = ("/openapi.json", "/docs.json", "/openapi/metadata.json")  # BentoML's, mosec's
_GONE = (404, 405)
_DEEP = 8  # that a schema may be in itself
_SHOWN = 6  # operations, in a sentence
_PLAIN = re.compile(r"/[\w./~:+-]{0,100}")  # a path that is no template
_LONG = 300  # bytes of an example
_ANY = "[[request]] with method, path and body"


class Operation(NamedTuple):
    """What can be posted; `body` is an example, empty if the service does not say what it takes."""

    path: str
    body: str

    @property
    def words(self) -> str:
        """What a scenario has to say."""
        name = self.path.rpartition("/")[2] or "infer"
        body = f"body = '{self.body}'" if self.body else "the body that it takes"
        return f'name = "{name}", path = "{self.path}" and {body}'


def lacking(asker: "Asker", endpoint: Endpoint, spec: "Spec") -> Note | None:
    """What is to be said where nobody said what to ask for. Raises SpecError where it is known that
    all of a kind of request would fail: nothing is sent to a model of TorchServe, or what is to be
    got is not there."""
    gets = [kind for kind in kinds(spec) if not (kind.body or kind.data or kind.form)]
    if gets and endpoint.model:
        raise SpecError(
            f"{asker.url} is TorchServe: its model takes what its handler takes, and"
            f" {gets[0].name!r} sends nothing",
            "[[request]] with body = '{\"x\": [1, 2]}', or data, or form",
        )
    usual = [kind for kind in gets if not kind.path and (kind.method or endpoint.method) == "GET"]
    if not usual or "protocol" in spec.target.model_fields_set:
        return None  # who says what it is has the load alone ask there
    status, asked = _found(asker, endpoint.path)
    if status in _GONE and not all(_awaits(kind, status) for kind in usual):
        raise SpecError(
            f"{asker.url} {asker.known_by}, and there is no {_what(endpoint, status)}",
            _hint(asker),
        )
    if endpoint.path == "/" and "path" not in spec.target.model_fields_set:
        text = "nothing says what to ask for, so GET / is measured"
        text += ", and was asked once before" * asked
        return Note("nothing-asked", text, _hint(asker))
    if asked:
        path = shown("path", endpoint.path)
        text = f"GET {path} was asked once before the load, to see whether it is there"
        hint = 'the server counts it, the log does not; protocol = "http" has it left out'
        return Note("asked-before", text, hint)
    return None


def _found(asker: "Asker", path: str) -> tuple[int, bool]:
    """How it answers who GETs this, and whether it was asked so. Most servers tell that they are to
    be asked so there without counting a request. Some name only the methods of the first of their
    routes that has the path, or have a layer in front that answers for all paths: that it is not
    there is known only from asking."""
    answer = asker.ask("OPTIONS", path)
    methods = answer.headers.get("allow", "").replace(" ", "").upper().split(",")
    if "GET" in methods:
        return 200, False
    if answer.status_code not in _GONE and not answer.is_success:
        return answer.status_code, False
    return asker.ask("GET", path).status_code, True


def _what(endpoint: Endpoint, status: int) -> str:
    method = "GET " if status == 405 else ""
    return f"{method}{shown('path', endpoint.path)} (HTTP {status})"


def _awaits(kind: RequestPlan, status: int) -> bool:
    return isinstance(kind.expect, Expected) and status in kind.expect.status


def _hint(asker: "Asker") -> str:
    known = list(operations(asker))
    if not known:
        return f"say what to ask for: [target] path, or {_ANY}"
    words = [one.words for one in known[:_SHOWN]]
    more = f", or {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"say what to ask for: [[request]] with {', or '.join(words)}{more}"


def operations(asker: "Asker") -> Iterator[Operation]:
    """What can be posted to a service, by its own word."""
    for page in _PAGES:
        try:
            told = json_of(asker.ask("GET", page))
        except TargetError:  # all this is only to help
            continue
        paths = told.get("paths") if isinstance(told, dict) else None
        if not isinstance(paths, dict):
            continue
        for path, methods in paths.items():
            post = methods.get("post") if isinstance(methods, dict) else None
            if isinstance(post, dict) and _PLAIN.fullmatch(path):
                yield Operation(path, _body(told, post))
        return


def _body(told: dict[str, Any], post: dict[str, Any]) -> str:
    """An example of what it takes in JSON; empty if it takes none, or does not say."""
    schema: Any = post
    for key in ("requestBody", "content", "application/json", "schema"):
        schema = schema.get(key) if isinstance(schema, dict) else None
    found = _example(told, schema, _DEEP) if schema else None
    body = "" if found is None else msgspec.json.encode(found).decode()
    return body if len(body) < _LONG and not {"'", "$"} & set(body) else ""  # as TOML has it


def _example(told: dict[str, Any], schema: Any, deep: int) -> Any:
    """A value as the schema has them, as far as that is easily said; None where it is not."""
    if not isinstance(schema, dict) or deep == 0:
        return None
    for key in ("example", "default", "const"):
        if key in schema:
            return schema[key]
    for key in ("examples", "enum"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            return _example(told, schema[key][0], deep - 1)
    if isinstance(schema.get("$ref"), str):
        return _example(told, _referred(told, schema["$ref"]), deep - 1)
    kind = schema.get("type")
    if kind == "array":
        return [_example(told, schema.get("items"), deep - 1)]
    if kind == "object":
        properties = schema.get("properties")
        parts = properties if isinstance(properties, dict) else {}
        required = schema.get("required")
        wanted = required if isinstance(required, list) and required else parts
        return {
            name: _example(told, part, deep - 1) for name, part in parts.items() if name in wanted
        }
    return {"number": 1.0, "integer": 1, "string": "text", "boolean": True}.get(str(kind))


def _referred(told: dict[str, Any], reference: str) -> Any:
    """What `#/components/schemas/Asked` stands for."""
    found: Any = told
    for name in reference.removeprefix("#/").split("/"):
        found = found.get(name) if isinstance(found, dict) else None
    return found
