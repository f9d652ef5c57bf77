"""Values of the environment that a scenario names: `$NAME` or `${NAME}`. So neither the scenario
nor a snapshot of it holds what has to stay secret; it is filled in where it is used."""

import os
import re

from loadbench.errors import SpecError

NAME = re.compile(r"\$(\w+)|\$\{(\w+)\}")


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
