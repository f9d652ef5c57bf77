"""What this machine could serve: models of the zoo, model files nearby, backends, devices.

Nothing is loaded for that: files are told by their first bytes, libraries by being installed.
"""

import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from loadbench.engine import files
from loadbench.engine.device import Nvml
from loadbench.engine.models import ZOO
from loadbench.engine.pipeline import is_pipeline
from loadbench.errors import SpecError
from loadbench.model import Value

SUFFIXES = (".onnx", ".pt", ".pth", ".pt2", ".safetensors", ".toml")
_FOLDERS = (".", "models", "model", "weights")
_LOOKED_AT = 5000  # entries of a folder
_MOST = 50  # files
_KNOWN = {  # what each needs to be installed
    "torch": "torch", "torchscript": "torch", "torch-export": "torch", "torch-compile": "torch",
    "onnxruntime": "onnxruntime", "openvino": "openvino",
}  # fmt: skip


class Served(Value, frozen=True, omit_defaults=False):
    """A target that can be written into a scenario; `fault` says why it cannot be served."""

    url: str
    kind: Literal["zoo", "file"]
    text: str
    fault: str = ""


def models(folder: Path) -> list[Served]:
    """The zoo, the known-answer engine, and the files in a folder and in its `models`."""
    zoo = [Served(f"local:{name}", "zoo", "of the zoo") for name in ZOO]
    fake = Served("local:fake", "zoo", "answers that are known, in times that are set")
    return [*zoo, fake, *itertools.islice(_files(folder), _MOST)]


def _files(folder: Path) -> Iterator[Served]:
    for name in _FOLDERS:
        place = folder / name
        if not place.is_dir():
            continue
        entries = itertools.islice(place.iterdir(), _LOOKED_AT)
        for path in sorted(path for path in entries if path.suffix in SUFFIXES):
            if not path.is_file():
                continue
            url = f"local:{path.relative_to(folder)}"
            try:
                if path.suffix != ".toml":
                    yield Served(url, "file", files.TITLES[files.detect(path)])
                elif is_pipeline(path):  # scenarios are TOML too
                    yield Served(url, "file", "a pipeline of models")
            except (SpecError, OSError) as error:
                yield Served(url, "file", "no model", str(error))


def fault(name: str) -> str:
    """Why `local:NAME` cannot be served, as far as that is told without loading it; else empty."""
    path = Path(name).expanduser()
    if name in (*ZOO, "fake"):
        return ""
    if not path.exists():
        return f"there is no model {name!r}; known: {', '.join((*ZOO, 'fake'))}, or a path"
    try:
        if path.suffix != ".toml":
            files.detect(path)
    except SpecError as error:
        return error.message
    return ""


def backends() -> list[str]:
    """Those whose library is installed."""
    return [name for name, library in _KNOWN.items() if importlib.util.find_spec(library)]


def devices() -> list[str]:
    return ["cpu", *(f"cuda:{index}" for index in range(Nvml().device_count()))]
