"""Model files that come with a load call (`file:1/model.onnx`), kept in a folder of our own.

Only an engine that was started with --trust takes any. How large they are together is bounded by
what a request may be.
"""

import base64
import binascii
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadbench.engine.store import FILES, NAME, Source
from loadbench.engine.tensors import Refused

_FILE = re.compile(r"file:([1-9][0-9]{0,17})/([a-z.0-9]+)")
MODELS = 64


class Uploads:
    """The files of the last load call for each model; they are gone with the process."""

    def __init__(self) -> None:
        self._folders: dict[str, tempfile.TemporaryDirectory[str]] = {}

    def take(self, name: str, files: Mapping[str, Any]) -> Source:
        """Writes the files; they replace those of an earlier call. Raises Refused."""
        if not NAME.fullmatch(name):
            raise Refused(400, f"{name!r} is no name for a model")
        if len(self._folders) >= MODELS and name not in self._folders:
            raise Refused(400, f"{MODELS} models have come with load calls, which is the most")
        decoded = {_place(key): _bytes(key, text) for key, text in files.items()}
        folder = tempfile.TemporaryDirectory(prefix="loadbench-model-")
        root = Path(folder.name).resolve()
        for (version, file), data in decoded.items():
            (root / version).mkdir(exist_ok=True)
            (root / version / file).write_bytes(data)
        self._folders[name] = folder  # the folder it replaces goes with its last reference
        return Source(name, str(root), root, root, folder)


def _place(key: str) -> tuple[str, str]:
    found = _FILE.fullmatch(key)
    if found is None or found[2] not in FILES:
        raise Refused(400, f"{key!r} is no place for a model: file:1/{FILES[0]}")
    return found[1], found[2]


def _bytes(key: str, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise Refused(400, f"{key!r} is not in base64: {error}") from error
