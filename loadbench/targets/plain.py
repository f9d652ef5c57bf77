"""Plain HTTP: any method, path and body, made from templates over data; an answer is good if its
status is 2xx, or the one that is expected, and it came whole, or also if it says what is expected
of it."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from loadbench.errors import SpecError
from loadbench.model import Note
from loadbench.plan import Endpoint, Expected, RequestPlan
from loadbench.targets import contents, expected, multipart, template
from loadbench.targets.dataset import Row, rows
from loadbench.targets.pool import DRAWN, POOL, POOL_MOST, gather
from loadbench.targets.shapes import Lengths, draw_dims
from loadbench.targets.template import Parts
from loadbench.targets.wire import Check, Form, Headers, Prepared, header_fault, http_request

_TYPE = "content-type"
_JSON = "application/json"


class _Templates(NamedTuple):
    """The parts of a request that are filled in."""

    path: Parts
    headers: dict[str, Parts]
    body: Parts
    form: dict[str, Parts]

    @property
    def names(self) -> set[str]:
        all_parts = [self.path, self.body, *self.headers.values(), *self.form.values()]
        return {name for parts in all_parts for name in template.names(parts)}


class _Body(NamedTuple):
    content: bytes
    kind: str  # its type; "": not to be told


def check(_headers: Headers, _body: bytes) -> Form:
    """Nothing is known of the body."""
    return Form()


def prepare(
    endpoint: Endpoint, request: RequestPlan, seed: int, most: int
) -> tuple[list[Prepared], list[Note]]:
    """The pool of a kind: a request for each row of its data. Raises SpecError naming the key, and
    the file and line if a row is at fault."""
    only_http(request)
    templates = _Templates(
        template.parse(request.path),
        {name: template.parse(text) for name, text in request.headers.items()},
        template.parse(request.body),
        {name: template.parse(text) for name, text in request.form.items()},
    )
    used = templates.names
    usual = POOL_MOST if request.data else DRAWN if request.dims else POOL
    number = min((request.pool or usual) if used or request.data else 1, most)
    dims = draw_dims(request, seed, number + 1)
    made = _made(endpoint, request, templates, _numbered(request, dims, number))
    pool, notes = gather(request, made, number)
    if pool[0].strict is not None:
        notes.append(expected.note(request, "what is expected"))
    return pool, notes


def only_http(request: RequestPlan) -> None:
    """Raises SpecError for what only targets have that take tensors."""
    for key, idle in (("shapes", {}), ("values", {}), ("rows", 1), ("parameters", {})):
        if getattr(request, key) != idle:
            raise SpecError(
                f"request {request.name!r}: {key} is only of KServe, the target speaks plain HTTP",
                "give body, form or data",
            )
    if isinstance(request.expect, str) and request.expect:
        raise SpecError(
            f"request {request.name!r}: a file of expected outputs is only of KServe",
            'over plain HTTP say what: expect = { json = { label = "${label}" } }',
        )
    if request.check is not None and not request.expect:
        raise SpecError(f"request {request.name!r}: check compares with what expect says")


def _numbered(
    request: RequestPlan, dims: Mapping[str, Lengths], number: int
) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Each row of the data with all that its templates can name: its fields, its number from 0 on,
    and the drawn dimensions."""
    source = rows(request.data) if request.data else itertools.repeat(Row("", {}), number)
    for index, row in enumerate(source):
        if index > number:
            return
        drawn = {name: int(lengths[index]) for name, lengths in dims.items()}
        for name in drawn:
            if name in row.fields:
                raise SpecError(f"request {request.name!r}: {name!r} is in dims and in the data")
        yield row, {"row": index, **drawn, **row.fields}


def _made(
    endpoint: Endpoint,
    request: RequestPlan,
    templates: _Templates,
    numbered: Iterator[tuple[Row, dict[str, Any]]],
) -> Iterator[Prepared]:
    folder = Path(request.data) if Path(request.data).is_dir() else Path(request.data).parent
    for row, values in numbered:
        try:
            path, headers = _head(endpoint, request, templates, values)
            body = _body(request, templates, row, values, folder)
            strict = _strict(request, values, folder)
        except SpecError as error:
            if not row.where or row.where in error.message:
                raise
            raise SpecError(f"{row.where}: {error.message}", error.hint) from error
        if body.kind and not any(name.lower() == _TYPE for name in headers):
            headers["Content-Type"] = body.kind
        method = _method(endpoint, request, body)
        data = http_request(endpoint, method, path, headers, body.content)
        statuses = request.expect.status if isinstance(request.expect, Expected) else ()
        yield Prepared(request.name, data, check, strict, statuses=statuses)


def _head(
    endpoint: Endpoint, request: RequestPlan, templates: _Templates, values: Mapping[str, Any]
) -> tuple[str, dict[str, str]]:
    """The path and the headers of one request."""
    where = f"request {request.name!r}: "
    path = endpoint.path
    if templates.path:
        path = _text(f"{where}path", templates.path, values, "url")
        check_path(path, f"{where}path")
    headers = {
        name: _text(f"{where}headers.{name}", parts, values, "raw")
        for name, parts in templates.headers.items()
    }
    for name, value in headers.items():
        check_header(request.name, name, value)
    return path, headers


def _method(endpoint: Endpoint, request: RequestPlan, body: _Body) -> str:
    """The request's own, else the target's; what has a body is not to be got."""
    if request.method:
        return request.method
    return "POST" if endpoint.method == "GET" and body.content else endpoint.method


def _body(
    request: RequestPlan, templates: _Templates, row: Row, values: Mapping[str, Any], folder: Path
) -> _Body:
    """From the template; without one what the data hold, unless that is used elsewhere."""
    where = f"request {request.name!r}: "
    if templates.form:
        if _own_type(request).startswith(multipart.TYPE):
            raise SpecError(
                f"{where}headers: a form's Content-Type has to say what is between its fields",
                "leave Content-Type out: the form brings it",
            )
        if _own_type(request).startswith(multipart.URLENCODED):
            return _Body(multipart.urlencode(where, templates.form, values, folder), "")
        return _Body(*multipart.encode(where, templates.form, values, folder))
    if templates.body:
        try:
            content = template.fill(templates.body, values, "json", folder)
        except SpecError as error:
            raise SpecError(f"{where}body: {error.message}", error.hint) from error
        json = request.body.lstrip()[:1] in ("{", "[")
        if json and not _own_type(request):
            _must_be_json(where, content)
        return _Body(content, _JSON if json else "")
    if not request.data or templates.names:
        return _Body(b"", "")
    if row.content is None:
        raise SpecError(
            f"{where}nothing uses the columns of {request.data}",
            "body = '{\"text\": ${text}}', with the names of columns in ${…}",
        )
    return _Body(row.content, row.kind)


def _own_type(request: RequestPlan) -> str:
    """The type of the body that the request itself says; empty for none."""
    found = (text for name, text in request.headers.items() if name.lower() == _TYPE)
    return next(found, "").lower()


def _text(where: str, parts: Parts, values: Mapping[str, Any], default: str) -> str:
    try:
        return template.text(parts, values, default, Path())
    except SpecError as error:
        raise SpecError(f"{where}: {error.message}", error.hint) from error


def _must_be_json(where: str, content: bytes) -> None:
    try:
        msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        shown = content[:80].decode(errors="replace")
        raise SpecError(
            f"{where}body begins like JSON and is none once it is filled: {error}: {shown}",
            "a text brings its own quotes; headers = { Content-Type = … } if it is to be no JSON",
        ) from error


def _strict(request: RequestPlan, values: Mapping[str, Any], folder: Path) -> Check | None:
    if not isinstance(request.expect, Expected) or not contents.says(request.expect):
        return None
    return contents.checker(request.expect, values, folder, request.tolerance)


def check_path(path: str, where: str = "target.path") -> None:
    """Raises SpecError for a path that would break the first line of a request."""
    if not path.startswith("/") or any(not "!" <= char <= "~" for char in path):
        raise SpecError(
            f"{where} {path!r} is not one that HTTP can carry",
            "it begins with / and holds no spaces; other characters are written as %20 and so on",
        )


def check_header(request: str, name: str, value: str) -> None:
    """Raises SpecError for a header that would break the framing of the request."""
    if fault := header_fault(name, value):
        raise SpecError(f"request {request!r}: header {name!r} {fault}")
