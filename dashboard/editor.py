"""A file in the user's editor, the dashboard set aside for as long."""

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from textual.app import App, SuspendNotSupported

_USUAL = ("editor", "nano", "vi")
_AT_ONCE_S = 1.0  # nobody reads a file and leaves the editor within that


def command() -> list[str]:
    """$VISUAL or $EDITOR, else what is usually there; empty if nothing is."""
    given = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if given:
        return shlex.split(given)
    return next(([name] for name in _USUAL if shutil.which(name)), [])


def edit(app: App[Any], path: Path) -> tuple[str, Path | None]:
    """(what to tell, the file that was edited). What lies outside of the present folder ships with
    loadbench: a copy of it is edited, which never replaces a file that is there, and is taken away
    again where nothing was written to it."""
    try:
        editor = command()
    except ValueError as error:
        return f"$EDITOR cannot be read: {error}", None
    if not editor:
        return "no editor found: set $EDITOR", None
    own, made = path, False
    try:
        with app.suspend():  # first: where that cannot be, nothing is copied either
            own = path if path.resolve().is_relative_to(Path.cwd()) else Path(path.name)
            if made := not own.exists():
                shutil.copyfile(path, own)
            before, begun = own.read_bytes(), time.monotonic()
            code = subprocess.run([*editor, str(own)], check=False).returncode
            same = own.exists() and own.read_bytes() == before
    except SuspendNotSupported:
        return f"there is no terminal for an editor here: edit {path}", None
    except (OSError, ValueError) as error:
        if made:
            own.unlink(missing_ok=True)
        return f"{shlex.join(editor)}: {error}", None
    app.refresh(layout=True)
    at_once = time.monotonic() - begun < _AT_ONCE_S and not code  # it goes on in its own window
    if same and not at_once:
        if made:
            own.unlink()
        said = f"{path.name} was not changed"
        return said + (f": {shlex.join(editor)} ended with exit code {code}" if code else ""), None
    if code:
        return f"{shlex.join(editor)} ended with exit code {code}", own
    return (f"edited {own}" if own == path else f"edited {own}, a copy of {path.name}"), own
