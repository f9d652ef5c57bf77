"""What answers over plain HTTP are expected to say: values in their JSON, a body, or a match."""

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadbench.errors import SpecError
from loadbench.plan import Expected
from loadbench.targets import template
from loadbench.targets.wire import BadAnswer, Check, Form, Headers, WrongOutput

_TOLERANCE = 1e-3  # of a number that is no integer: of its size, at least of 1
_SHOWN = 60


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
    near = _TOLERANCE if tolerance is None else tolerance

    def check(_headers: Headers, answer: bytes) -> Form | None:
        if body is not None and answer != body:
            raise WrongOutput(f"the body is {_show(answer)} instead of {_show(body)}")
        if regex is not None and not regex.search(answer):
            raise WrongOutput(f"the body is {_show(answer)}, where {wanted.regex} finds nothing")
        if json:
            found = _decoded(answer)
            for path, steps, value in json:
                got = _at(found, steps, path)
                if not _same(got, value, near):
                    raise WrongOutput(f"{path} is {_show(got)} instead of {_show(value)}")
        return None

    return check


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
    if isinstance(want, str) and isinstance(got, int | float):  # the cells of a table are texts
        with contextlib.suppress(ValueError):
            want = float(want)
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


def _show(value: Any) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
