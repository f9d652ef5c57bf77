"""What a scenario lacks to ask a service for something. Where it does not say what is asked for,
the service may: FastAPI, LitServe, BentoML and mosec describe themselves by OpenAPI.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import msgspec

from loadbench.environment import shown
from loadbench.errors import SpecError, TargetError
from loadbench.model import Note
from loadbench.plan import Endpoint, Expected, RequestPlan, kinds
from loadbench.targets import multipart
from loadbench.targets.example import LONG, Example, Untold, any_text, capitals, is_json, wanted
from loadbench.targets.openapi import Keys, base, keys, listed, whole
from loadbench.targets.reply import json_of

if TYPE_CHECKING:  # they bring pydantic, which not all who ask need
    from loadbench.spec import Spec
    from loadbench.targets.ask import Asker

_PAGES = ("/openapi.json", "/docs.json", "/openapi/metadata.json")  # BentoML's, mosec's
_OTHER = 405  # it is there, to be asked by another method
_GONE = (404, _OTHER)
_SHOWN = 6  # operations, in a sentence
_METHODS = ("post", "put", "patch")
_PLAIN = re.compile(r"/[\w./~:+%-]{0,200}", re.ASCII)  # a path that is no template
_NAME = re.compile(r"[\w.~\[\]-]{1,100}", re.ASCII)  # of a parameter that needs no quotes
_BARE = re.compile(r"[\w-]+", re.ASCII)  # a key of TOML that needs none
_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)  # of a body; `*/*` is none
_JSON = "application/json"
_NAMED = re.compile(r"\$\w+")  # a value of the environment
_KINDS = (_JSON, multipart.URLENCODED, multipart.TYPE)  # what is best known here comes first
_FOLDER, _FILE = "FILES/", "${name|file}"  # each file in it is sent once
_BODY = "the body that it takes"
_LINE = 300  # bytes of what can be read within a sentence
_ANY = "[[request]] with method, path and body"


class Operation(NamedTuple):
    """What can be sent to a service: the lines of a scenario's `[[request]]`; what else it needs,
    if the service does not say all; what in them stands for something that only users know; and
    what has to be said beside it of keys, whose values are the environment's."""

    settings: tuple[str, ...]
    rest: str = ""
    unknown: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What a scenario has to say; on lines of its own, to be copied, where it is long."""
        beside = f"with {' and '.join(self.keys)}" if self.keys else ""
        if any(len(one) > _LINE for one in self.settings):
            return "\n".join(("", *self.settings, *filter(None, (self.rest, beside)), ""))
        *most, last = (*self.settings, self.rest) if self.rest else self.settings
        return f"{', '.join(most)} and {last}{beside and f', {beside}'}"


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
    status, methods, asked = _found(asker, endpoint.path)
    if status in _GONE and not all(_awaits(kind, status) for kind in usual):
        raise SpecError(
            f"{asker.url} {asker.known_by}, and there is no {_what(endpoint, status)}",
            _hint(asker, methods if status == _OTHER else []),
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


def _found(asker: "Asker", path: str) -> tuple[int, list[str], bool]:
    """How it answers who GETs this, by what methods it says to be asked, and whether it was asked
    so. Most servers tell that they are to be asked so there without counting a request. Some name
    only the methods of the first of their routes that has the path, or have a layer in front that
    answers for all paths: that it is not there is known only from asking."""
    answer = asker.ask("OPTIONS", path)
    methods = _allowed(answer.headers)
    if "GET" in methods:
        return 200, methods, False
    if answer.status_code not in _GONE and not answer.is_success:
        return answer.status_code, methods, False
    answer = asker.ask("GET", path)
    return answer.status_code, _allowed(answer.headers) or methods, True


def _allowed(headers: Mapping[str, str]) -> list[str]:
    named = headers.get("allow", "").replace(" ", "").upper()
    return named.split(",") if named else []


def _what(endpoint: Endpoint, status: int) -> str:
    method = "GET " if status == _OTHER else ""
    return f"{method}{shown('path', endpoint.path)} (HTTP {status})"


def _awaits(kind: RequestPlan, status: int) -> bool:
    return isinstance(kind.expect, Expected) and status in kind.expect.status


def _hint(asker: "Asker", methods: Sequence[str] = ()) -> str:
    """`methods` are those by which the path can be asked."""
    known = list(operations(asker))
    method = next((one.upper() for one in _METHODS if one.upper() in methods), "")
    if not known and method:
        return f'it is there for {method}: [[request]] with name, method = "{method}" and body'
    if not known:
        return f"say what to ask for: [target] path, or {_ANY}"
    first = known[:_SHOWN]
    while len(first) > 1 and sum(len(one.words) for one in first) > LONG:
        first.pop()
    words = [one.words for one in first]
    words += [f"{len(known) - len(first)} more"] if len(known) > len(first) else []
    unknown = dict.fromkeys(name for one in first for name in one.unknown)
    yours = f" ({', '.join(unknown)}: put in your own)" if unknown else ""
    named = dict.fromkeys(name for one in first for key in one.keys for name in _NAMED.findall(key))
    theirs = f" ({', '.join(named)}: taken from the environment)" if named else ""
    said = f"say what to ask for: [[request]] with {', or '.join(words)}{yours}{theirs}"
    return re.sub(r" ?\n[ ,]*", "\n", said)  # lines of their own end the sentence


def operations(asker: "Asker") -> Iterator[Operation]:
    """What can be sent to a service, by its own word."""
    for page in _PAGES:
        try:
            told = json_of(asker.ask("GET", page))
        except TargetError:  # all this is only to help
            continue
        paths = told.get("paths") if isinstance(told, dict) else None
        if not isinstance(paths, dict):
            continue
        posted = list(_offered(asker, page, told, _METHODS))
        yield from posted or _offered(asker, page, told, ("get",))
        return


def _offered(
    asker: "Asker", page: str, told: dict[str, Any], named: tuple[str, ...]
) -> Iterator[Operation]:
    """Those of these methods; of GET where something can be asked by a query, which is no look at
    how the service is."""
    for path, methods in told["paths"].items():
        for method in named:
            asked = methods.get(method) if isinstance(methods, dict) else None
            if isinstance(asked, dict):
                begin = base(asker.url, page, asked, methods, told)
                shared = listed(methods.get("parameters"))
                found = _Described(told, asker.url, asker.headers)
                yield from found.operation(path, method, asked, shared, begin)


class _Described:
    """Reads one operation of an OpenAPI document. A text of which nothing is known but its name
    is the name in capitals, which users have to replace. `sent` are the headers that the service
    at `url` is sent anyhow."""

    def __init__(self, told: dict[str, Any], url: str, sent: Iterable[str]) -> None:
        self._told = told
        self._url = url
        self._sent = {name.lower() for name in sent}
        self._unknown: dict[str, None] = {}
        self._headers: dict[str, str] = {}

    def operation(
        self, path: str, method: str, asked: dict[str, Any], shared: list[Any], begin: str
    ) -> Iterator[Operation]:
        """Nothing for a path that cannot be written down, nor for a GET that has no query. `begin`
        comes before all paths."""
        steps = [step for step in path.split("/") if step and "{" not in step]
        known = [whole(self._told, one) for one in (*shared, *listed(asked.get("parameters")))]
        where = {(str(one.get("in")), str(one.get("name"))): one for one in known}
        wanted = keys(self._told, asked)
        own = wanted.headers.keys() | wanted.query.keys()  # said once, as keys
        queried = [key for key in where if key[0] == "query" and key[1] not in own]
        if method == "get" and not queried:
            return
        if method == "get" and not any(where[key].get("required") is True for key in queried):
            where[queried[0]] = where[queried[0]] | {"required": True}  # it is what is asked
        query, cookies = [], []
        for (place, name), one in where.items():
            if place == "path" and f"{{{name}}}" in path:
                path = path.replace(f"{{{name}}}", quote(self._value(name, one), safe=""))
            elif one.get("required") is not True or not _NAME.fullmatch(name) or name in own:
                continue
            elif place == "query":
                query.append(f"{name}={quote(self._value(name, one), safe='')}")
            elif place == "header":
                self._headers[name] = self._value(name, one)
            elif place == "cookie":
                cookies.append(f"{name}={self._value(name, one)}")
        path = begin + path
        if not _PLAIN.fullmatch(path):
            return
        if cookies:
            self._headers["Cookie"] = "; ".join(cookies)
        content = whole(self._told, asked.get("requestBody")).get("content")
        given, rest = self._given(content) if isinstance(content, dict) else ([], "")
        if not isinstance(content, dict) and not where:
            rest = "the body that it takes, if it takes one"
        path += f"?{'&'.join(query)}" if query else ""
        settings = [f'name = "{steps[-1] if steps else "infer"}"']
        if not wanted.query:  # else it is said with these: no path takes values of the environment
            settings.append(f'path = "{path}"')
        if method != "post" or not isinstance(content, dict):  # what has a body is posted
            settings.append(f'method = "{method.upper()}"')
        if self._headers:
            settings.append(f"headers = {_table(self._headers)}")
        beside = tuple(self._beside(wanted, path))
        yield Operation((*settings, *given), rest, tuple(self._unknown), beside)

    def _beside(self, wanted: Keys, path: str) -> Iterator[str]:
        """What a scenario, or for a query the command, has to say of keys."""
        headers = {n: text for n, text in wanted.headers.items() if n.lower() not in self._sent}
        if headers:
            yield f"[target] headers = {_table(headers)}"
        if wanted.query:
            query = "&".join(f"{name}={value}" for name, value in wanted.query.items())
            yield f'--target "{self._url}{path}{"&" if "?" in path else "?"}{query}"'
        yield from wanted.rest

    def _given(self, content: dict[str, Any]) -> tuple[list[str], str]:
        """The settings that are what is sent, or in words that this is for users to say."""
        kinds = {kind.partition(";")[0].strip().lower(): kind for kind in content}
        kind = next((kind for kind in _KINDS if kind in kinds), next(iter(kinds), ""))
        media = content[kinds[kind]] if kinds else None
        schema = media.get("schema") if isinstance(media, dict) else None
        if kind == _JSON:
            found, unknown = self._example(schema)
            body = "" if found is None else _body(found)
            if not body:
                return [], _BODY
            self._unknown |= unknown
            if body[0] not in "{[":  # else it goes without saying
                self._headers["Content-Type"] = kind
            return [f"body = '{body}'"], ""
        if kind in (multipart.URLENCODED, multipart.TYPE):
            form = self._form(schema)
            if not form:
                return [], "the form that it takes"
            if kind == multipart.URLENCODED:
                self._headers["Content-Type"] = kind
            files = [f'data = "{_FOLDER}"'] if _FILE in form.values() else []
            return [f"form = {_table(form)}", *files], ""
        if not _TYPE.fullmatch(kind):
            return [], _BODY
        self._headers["Content-Type"] = kind
        if kind.startswith("text/"):
            return [f'body = "{self._value("text", {"schema": schema})}"'], ""
        self._unknown[_FOLDER] = None
        return [f'data = "{_FOLDER}"'], ""

    def _form(self, schema: Any) -> dict[str, str]:
        """Its fields; empty if they are not told."""
        form = {}
        for name, part in wanted(whole(self._told, schema)).items():
            one = whole(self._told, part)
            one = whole(self._told, one.get("items")) if one.get("type") == "array" else one
            binary = "contentMediaType" in one and not is_json(one)
            if binary or one.get("format") == "binary":
                self._unknown[_FOLDER] = None
                form[name] = _FILE
            else:
                form[name] = self._value(name, {"schema": one})
        return form

    def _example(self, schema: Any, name: str = "") -> tuple[Any, dict[str, None]]:
        """With what users have to replace in it; None where there is none."""
        example = Example(self._told)
        try:
            return example.of(schema, name), example.unknown
        except Untold:
            return None, {}

    def _value(self, name: str, told: dict[str, Any]) -> str:
        """Of a parameter or a field, as a text."""
        schema = told.get("schema")
        schema = schema if isinstance(schema, dict) else {}
        found, unknown = self._example(told if "example" in told else schema, name)
        if isinstance(found, list) and found:
            found = found[0]
        text = found if isinstance(found, str) else msgspec.json.encode(found).decode()
        plain = _writable(text) and text.isascii() and not {'"', "\\"} & set(text)
        if found is None or unknown or any_text(text) or not plain:
            text = capitals(name)
            self._unknown[text] = None
        return text


def _table(found: dict[str, str]) -> str:
    """Texts by name, as TOML has them on one line."""
    return "{ " + ", ".join(f'{_key(name)} = "{text}"' for name, text in found.items()) + " }"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else msgspec.json.encode(name).decode()


def _body(found: Any) -> str:
    """JSON as it stands in a scenario between single quotes, where `${` begins a place that is
    filled; empty where it is too long."""
    text = msgspec.json.encode(found).decode()
    if not text.isprintable():
        text = json.dumps(found, separators=(",", ":"))  # it escapes what is beyond ASCII
    text = text.replace("'", r"\u0027").replace("${", "$${")  # an apostrophe is in texts only
    return text if len(text) <= LONG else ""


def _writable(text: str) -> bool:
    """Whether it can stand in a scenario between quotes, and be read again by people."""
    return 0 < len(text) < _LINE and text.isprintable() and not {"'", "$"} & set(text)
