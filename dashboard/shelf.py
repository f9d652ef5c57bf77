"""What can be run and against what: scenarios with their faults, targets that were used before.

Files are read, nothing in them is executed. Models of this machine are told by the doctor.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dashboard.draft import present, sentence
from loadbench import runlog, spec, units
from loadbench.errors import SpecError
from loadbench.printable import printable

_MOST = 200  # files of a folder that are looked at, and runs
_LARGEST = 1 << 20  # bytes of a scenario
_IS_SCENARIO = re.compile(r"^\s*\[*\s*load\b", re.MULTILINE)
_IS_LOCUST = re.compile(r"^\s*(from|import)\s+locust\b", re.MULTILINE)


class Shelved(NamedTuple):
    """A scenario as `loadbench run` takes it. `fault` says why it cannot be run as it is."""

    name: str
    path: Path
    text: str
    fault: str = ""


class Used(NamedTuple):
    """A target and the last run that had it."""

    url: str
    run: str


def scenarios(folder: Path) -> list[Shelved]:
    """Those that ship with loadbench, then the files of a folder and of its `scenarios`."""
    found = [_read(name, path) for name, path in spec.shipped().items()]
    seen = {path.resolve() for path in spec.shipped().values()}
    for path in itertools.chain(_toml(folder), _locust(folder)):
        if path.resolve() not in seen:
            seen.add(path.resolve())
            found.append(_read(str(path.relative_to(folder)), path))
    return found


def _toml(folder: Path) -> Iterator[Path]:
    """In the folder itself lie other TOML files too."""
    yield from _files(folder / "scenarios", ".toml")
    yield from (path for path in _files(folder, ".toml") if _IS_SCENARIO.search(_text(path)))


def _locust(folder: Path) -> Iterator[Path]:
    shipped = Path(spec.__file__).parent.parent / "scenarios"
    for place in (folder, folder / "scenarios"):
        if place.resolve() != shipped.resolve():  # those are there to be copied
            yield from (path for path in _files(place, ".py") if _IS_LOCUST.search(_text(path)))


def _files(folder: Path, suffix: str) -> list[Path]:
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.suffix == suffix and path.is_file())
    return sorted(itertools.islice(found, _MOST))


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(_LARGEST).decode("utf-8", "replace")
    except OSError:
        return ""


def _read(name: str, path: Path) -> Shelved:
    try:
        if path.stat().st_size > _LARGEST:
            return Shelved(name, path, "", f"is larger than {_LARGEST} bytes: no scenario")
        found = spec.load(str(path)).spec
    except SpecError as error:
        return Shelved(name, path, "", printable(sentence(error, str(path))))
    except OSError as error:
        return Shelved(name, path, "", f"cannot be read: {error.strerror}")
    return Shelved(name, path, printable(found.title) or _shape(found))


def _shape(found: spec.Spec) -> str:
    """`300/s for 20 s`, where a scenario has no title."""
    load, said = found.load, present(found)
    what = "closed loop" if load.arrivals == "closed" else said["rate"]
    if load.arrivals == "journey":
        what = "1 user" if load.users == 1 else f"{units.count(load.users)} users"
    long = said["duration"] if load.phases else "as long as its file says"
    return f"{what} for {long}"


def used(results: Path) -> list[Used]:
    """Servers and model files of former runs, the newest first, each once."""
    found: dict[str, Used] = {}
    for folder in reversed(runlog.runs(results)[-_MOST:]):
        try:
            snapshot = runlog.read_snapshot(folder)
        except SpecError:
            continue  # a run that cannot be read knows no target
        wanted = snapshot.get("spec")
        target = wanted.get("target") if isinstance(wanted, dict) else None
        url = target.get("url") if isinstance(target, dict) else None
        if isinstance(url, str) and url:
            found.setdefault(url, Used(url, folder.name))
    return list(found.values())
