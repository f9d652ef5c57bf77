"""Values of the environment that a scenario names: `$NAME` or `${NAME}`. So neither the scenario
nor a snapshot of it holds what has to stay secret; it is filled in where it is used. What is
written there all the same is left out of all that is passed on."""

import os
import re
from collections.abc import Mapping
from typing import AnyStr

from loadbench.errors import SpecError

NAME = re.compile(r"\$(\w+)|\$\{(\w+)\}")
LEFT_OUT = "(left out)"
_LEAST = 4  # characters of a value that is looked for: shorter ones stand in any text
_SECRET = re.compile(  # inputs of models are called token_type_ids, settings max_tokens
    r"authorization|cookie|token(?!_?types?|_?ids?|iz|s\b)|secret|password|passwd|api[-_]?key"
    r"|credential",
    re.IGNORECASE,
)


def names(text: str) -> bool:
    """Whether the text names anything."""
    return NAME.search(text) is not None


def filled(text: str, where: str) -> str:
    """With the values in place of the names. SpecError, which begins with `where`, if one is not
    set."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if not os.environ.get(name):
            raise SpecError(f"{where}: {name} is not set in the environment", f"export {name}=…")
        return os.environ[name]

    return NAME.sub(value, text)


def hidden(said: AnyStr, headers: Mapping[str, str]) -> AnyStr:
    """What somebody said who was sent these headers: where it repeats a value of the environment,
    the name stands again; so it does where only the beginning of one came, at the end."""
    found = {
        match[0]: os.environ.get(match[1] or match[2], "")
        for text in headers.values()
        for match in NAME.finditer(text)
    }
    for name, value in sorted(found.items(), key=lambda one: -len(one[1])):  # one may hold another
        if len(value) < _LEAST:
            continue
        if isinstance(said, bytes):
            said = _without(said, value.encode("latin-1", "replace"), name.encode())
        else:
            said = _without(said, value, name)
    return said


def _without(said: AnyStr, value: AnyStr, name: AnyStr) -> AnyStr:
    said = said.replace(value, name)
    sizes = range(len(value) - 1, _LEAST - 1, -1)
    cut = next((size for size in sizes if said.endswith(value[:size])), 0)
    return said[:-cut] + name if cut else said


def secret(name: str) -> bool:
    """Whether what is called so looks like a secret."""
    return _SECRET.search(name) is not None


def shown(name: str, value: object) -> object:
    """A setting as others may see it: a text that looks like a secret by its name is left out, one
    that is only named (`$NAME`) is not."""
    hidden = isinstance(value, str) and value and secret(name) and not value.startswith("$")
    return LEFT_OUT if hidden else value
