"""What answers over plain HTTP are expected to say: values in their JSON, a schema that it fits, a
body, or a match."""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from loadbench.errors import SpecError
from loadbench.plan import Expected
from loadbench.targets import template
from loadbench.targets.wire import BadAnswer, Check, Form, Headers, WrongOutput

_TOLERANCE = 1e-3  # of a number that is no integer: of its size, at least of 1
_SHOWN = 60


def says(wanted: Expected) -> bool:
    """Whether it is more than a status."""
    told = wanted.json or wanted.schema or wanted.regex is not None
    return bool(told) or wanted.body is not None


def checker(
    wanted: Expected, values: Mapping[str, Any], folder: Path, tolerance: float | None
) -> Check:
    """The check of answers to the request that was made of these values. Raises SpecError if a
    template of what is expected cannot be filled."""
    try:
        json = [
            (path, template.json_path(path), _filled(value, values, folder))
            for path, value in wanted.json.items()
        ]
        body = None
        if wanted.body is not None:
            body = template.fill(template.parse(wanted.body), values, "raw", folder)
    except SpecError as error:
        raise SpecError(f"expect: {error.message}", error.hint) from error
    regex = None if wanted.regex is None else re.compile(wanted.regex.encode(), re.DOTALL)
    fits = _schema(wanted.schema) if wanted.schema else None
    near = _TOLERANCE if tolerance is None else tolerance

    def check(_headers: Headers, answer: bytes) -> Form | None:
        if body is not None and answer != body:
            raise WrongOutput(f"the body is {_show(answer)} instead of {_show(body)}")
        if regex is not None and not regex.search(answer):
            raise WrongOutput(f"the body is {_show(answer)}, where {wanted.regex} finds nothing")
        if json or fits:
            found = _decoded(answer)
            if fits:
                fits(found)
            for path, steps, value in json:
                got = _at(found, steps, path)
                if not _same(got, value, near):
                    raise WrongOutput(f"{path} is {_show(got)} instead of {_show(value)}")
        return None

    return check


def _schema(file: str) -> Callable[[Any], None]:
    """What raises WrongOutput for JSON that does not fit. SpecError for a file that holds no
    schema. Nothing is fetched: what it refers to must stand in it."""
    try:
        return _read(file, Path(file).stat().st_mtime_ns)
    except OSError as error:
        raise SpecError(f"expect.schema: {file}: {error.strerror}") from error


@lru_cache(maxsize=16)  # it is asked for once for each row of the data
def _read(file: str, _changed_ns: int) -> Callable[[Any], None]:
    import jsonschema
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        schema = msgspec.json.decode(Path(file).read_bytes())
        kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
        kind.check_schema(schema)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(f"expect.schema: {file} is not JSON: {error}") from error
    except (jsonschema.SchemaError, TypeError) as error:
        text = getattr(error, "message", str(error))
        raise SpecError(f"expect.schema: {file} is no JSON schema: {text}") from error
    validator = kind(schema, registry=Registry())

    def fits(found: Any) -> None:
        try:
            fault = jsonschema.exceptions.best_match(validator.iter_errors(found))
        except (Unresolvable, RecursionError) as error:
            raise WrongOutput(f"{file} cannot be applied: {error}") from error
        if fault is not None:
            raise WrongOutput(f"{fault.json_path}: {_show(fault.message, str)}")

    return fits


def _filled(value: Any, values: Mapping[str, Any], folder: Path) -> Any:
    """Texts are templates; what is nothing but one place is the value itself."""
    if isinstance(value, str):
        return template.value(template.parse(value), values, folder)
    return value


def _decoded(answer: bytes) -> Any:
    try:
        return msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer(f"not JSON: {error}") from error


def _at(found: Any, steps: Sequence[str | int], path: str) -> Any:
    for step in steps:
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError) as error:
            raise WrongOutput(f"there is no {path} in the answer") from error
    return found


def _same(got: Any, want: Any, tolerance: float) -> bool:
    """Whether they are equal, and numbers as near as the tolerance says."""
    if isinstance(want, str) and isinstance(got, int | float):
        want = _cell(want)
    if isinstance(want, bool) or isinstance(got, bool):
        return got is want
    if isinstance(want, float) and isinstance(got, int | float):
        return abs(got - want) <= tolerance * max(1.0, abs(want))
    if isinstance(want, list):
        same = isinstance(got, list) and len(got) == len(want)
        return same and all(_same(*pair, tolerance) for pair in zip(got, want, strict=True))
    if isinstance(want, dict):
        same = isinstance(got, dict) and got.keys() == want.keys()
        return same and all(_same(got[key], value, tolerance) for key, value in want.items())
    return bool(got == want)


def _cell(text: str) -> Any:
    """What the text of a table's cell says, if it is no mere text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for number in (int, float):  # integers are to be equal
        with contextlib.suppress(ValueError):
            return number(text)
    return text


def _show(value: Any, written: Callable[[Any], str] = repr) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else written(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
