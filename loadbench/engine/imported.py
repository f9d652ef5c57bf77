"""`package.module:function`, as people name code of theirs in settings, → the function.

Whether it may be run has been settled by whoever asks: given on the command line it is the user's
own word, in a file it needs their trust.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loadbench.errors import SpecError


def imported(what: str, path: str) -> Callable[..., Any]:
    """What `path` names; the current folder is importable. `what` is who asks, for the errors."""
    place, _, name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = importlib.import_module(place)
    except KeyboardInterrupt:  # of whoever starts the engine
        raise
    except BaseException as error:  # whatever a module does while it is imported, exit included
        raise SpecError(
            f"{what} {path}: importing {place} failed: {type(error).__name__}: {error}",
            "it is looked for from the current folder and in the installed packages",
        ) from error
    function = getattr(found, name, None)
    if not callable(function):
        raise SpecError(f"{what} {path}: {place} has no function {name!r}")
    made: Callable[..., Any] = function
    return made
