"""Where models come from: what the engine was started with, and the folders below which others lie.

A folder is a model repository in Triton's layout: NAME/VERSION/model.onnx (.pt, .pt2, .pth,
.safetensors), beside the versions at most a config.json. Names and versions come from requests, so
neither can lead out of its folder, nor can a link in it. Opening is the business of `models`.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loadbench.engine.files import name_of
from loadbench.engine.models import ZOO
from loadbench.errors import SpecError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
VERSION = re.compile(r"0|[1-9][0-9]{0,17}")
LARGEST_CONFIG = 1 << 20
FILES = ("model.onnx", "model.pt2", "model.pt", "model.pth", "model.safetensors")
LAYOUT = "a model repository has NAME/VERSION/model.onnx, VERSION a whole number"

Stamp = tuple[tuple[str, int, int], ...]  # path, time of change (ns), bytes


class Source(NamedTuple):
    """Where one model comes from: a folder with its versions, or a single name or file."""

    name: str
    what: str
    folder: Path | None = None
    root: Path | None = None  # nothing outside of it is opened
    held: object = None  # while this is kept, so is the folder

    def versions(self) -> dict[str, str]:
        """What to open for each version; empty where there is only one. Raises SpecError."""
        if self.folder is None or self.root is None:
            return {}
        found = {}
        for child in _children(self.folder):
            if VERSION.fullmatch(child.name) and _inside(child, self.root):
                found[child.name] = str(_file(child, self.root))
        if not found:
            raise SpecError(f"{self.folder} holds no version", LAYOUT)
        return found

    def config(self) -> dict[str, Any]:
        """What config.json beside the versions says; empty without one. Raises SpecError."""
        path = self.folder / "config.json" if self.folder else None
        if path is None or not path.exists():
            return {}
        if self.root is None or not _inside(path, self.root):
            raise SpecError(f"{path} leads out of the model repository")
        try:
            if path.stat().st_size > LARGEST_CONFIG:
                raise SpecError(f"{path} is larger than {LARGEST_CONFIG} bytes")
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise SpecError(f"{path}: {error}", "it is Triton's ModelConfig as JSON") from error
        if not isinstance(found, dict):
            raise SpecError(f"{path} holds no object", "it is Triton's ModelConfig as JSON")
        return found


class Store:
    """The models the engine may load."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Each argument is a name of the zoo, a file, or a folder; NAME=WHAT gives it a name.
        Raises SpecError."""
        self._single: dict[str, Source] = {}
        self._roots: list[Path] = []
        for argument in arguments:
            self._add(argument)

    def _add(self, argument: str) -> None:
        name, what = _split(argument)
        folder = Path(what).expanduser()
        if what not in (*ZOO, "fake") and folder.is_dir():
            if name or any(VERSION.fullmatch(child.name) for child in _children(folder)):
                whole = folder.resolve()
                source = Source(name or name_of(whole / "x") or "model", what, whole, whole)
                if not name:
                    source = source._replace(name=re.sub(r"[^A-Za-z0-9._-]+", "-", whole.name))
            else:
                self._roots.append(folder.resolve())
                return
        else:
            source = Source(name or (what if what in ZOO else name_of(Path(what))), what)
        if source.name in self._single:
            raise SpecError(f"two models are named {source.name!r}", "name them: NAME=PATH")
        self._single[source.name] = source

    def names(self) -> list[str]:
        """Every model there is now."""
        below = [
            child.name
            for root in self._roots
            for child in _children(root)
            if NAME.fullmatch(child.name) and child.is_dir() and _inside(child, root)
        ]
        return list(dict.fromkeys([*self._single, *sorted(below)]))

    def source(self, name: str) -> Source | None:
        """Where a model comes from; None: it is not below what the engine was started with."""
        if name in self._single:
            return self._single[name]
        if not NAME.fullmatch(name):
            return None
        for root in self._roots:
            folder = root / name
            if folder.is_dir() and _inside(folder, root):
                return Source(name, str(folder), folder, root)
        return None


def stamp(what: str) -> Stamp:
    """By what a change of the files is seen; empty for the zoo. A model's version folder counts as
    a whole, since weights may lie beside the file."""
    path = Path(what)
    if what in (*ZOO, "fake") or not path.is_file():
        return ()
    files = path.parent.iterdir() if path.name in FILES else [path]
    told = [(str(file), file.stat()) for file in files if file.is_file()]
    return tuple(sorted((name, found.st_mtime_ns, found.st_size) for name, found in told))


def _split(argument: str) -> tuple[str, str]:
    """NAME=WHAT; a file whose own name has a `=` is one all the same."""
    name, sign, what = argument.partition("=")
    if not sign or Path(argument).exists() or "/" in name:
        return "", argument
    if not NAME.fullmatch(name) or not what:
        raise SpecError(
            f"{argument!r} names no model", "NAME=PATH; names have letters, digits, dots and dashes"
        )
    return name, what


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise SpecError(f"{folder}: {error.strerror or error}", LAYOUT) from error


def _inside(path: Path, root: Path) -> bool:
    """Whether it is below the root when all links are followed."""
    return path.resolve().is_relative_to(root)


def _file(version: Path, root: Path) -> Path:
    """The model's file of a version. Raises SpecError."""
    found = [path for name in FILES if (path := version / name).is_file()]
    if len(found) != 1:
        has = f"{len(found)} model files" if found else "no model file"
        raise SpecError(f"{version} holds {has}", f"one of {', '.join(FILES)}")
    if not _inside(found[0], root):
        raise SpecError(f"{found[0]} leads out of the model repository")
    return found[0].resolve()
