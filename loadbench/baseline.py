"""Baselines: which run others are compared with, by name, in one small file beside the runs.

    results/baselines.json   {"ramp-1200": "0143-ramp-1200-resnet50"}

A baseline's usual name is that of the run's scenario. The file holds paths relative to its folder,
one line a baseline, so that it can live in git and its history tells when which run was set.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from loadbench import runlog
from loadbench.errors import RunError, SpecError
from loadbench.printable import harmless
from loadbench.snapshots import files

FILE = "baselines.json"
_LARGEST = 1_000_000
_NAME = re.compile(r"(?=.*\D)[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}")
_TAKEN = ("last", "baseline")  # these name other things where a run is asked for


def read(results: Path) -> dict[str, str]:
    """Name → run, as the file says. SpecError if it is damaged."""
    path = results / FILE
    try:
        data = files.content(path, _LARGEST)
        found = msgspec.json.decode(data, type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:  # DecodeErrors are ValueErrors
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise SpecError(
            f"{path}: cannot be read: {harmless(why or '')}",
            "correct or delete it; it maps the names of baselines to run folders",
        ) from error
    return {harmless(name): harmless(run) for name, run in found.items()}


def find(name: str, results: Path) -> Path | None:
    """The run folder of a baseline; None if there is no such baseline. SpecError if the run that
    it names is gone."""
    run = read(results).get(name)
    if run is None:
        return None
    if Path(run).is_absolute() or ".." in Path(run).parts:
        raise SpecError(
            f"baseline {name!r} is {run}, which lies outside of {results}",
            f"loadbench baseline set RUN --name {name!r}",
        )
    folder = results / run
    if not os.path.isfile(folder / runlog.SNAPSHOT):  # also of a name that can be none
        raise SpecError(
            f"baseline {name!r} is {run}, which is not in {results}",
            f"loadbench baseline set RUN --name {name!r}",
        )
    return folder


def usual_name(folder: Path) -> str:
    """The name of the run's scenario. Raises SpecError if its snapshot cannot be read."""
    return str(runlog.read_snapshot(folder).get("scenario") or "") or folder.name


def put(results: Path, name: str, folder: Path) -> None:
    """Makes a run the baseline of that name, in place of the one before."""
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise SpecError(
            f"{name!r} cannot name a baseline",
            "give another with --name: letters, digits, blanks and . _ -, and not only digits",
        )
    if runlog.is_find(folder):
        raise SpecError(
            f"{folder.name} is a search for a rate, with which nothing can be compared",
            "make a run or a series the baseline: loadbench list",
        )
    if runlog.is_ab(folder):
        runlog.single(folder)  # asks for one of its sides
    try:
        run = folder.resolve().relative_to(results.resolve()).as_posix()
    except ValueError as error:
        raise SpecError(
            f"{folder} is not in {results}", "a baseline lies in the folder of its runs"
        ) from error
    with _alone(results):
        _write(results, {**read(results), name: run})


def forget(results: Path, name: str) -> None:
    """Takes a name away; its run stays. SpecError if there is no such baseline."""
    with _alone(results):
        known = read(results)
        if name not in known:
            raise SpecError(f"there is no baseline {name!r}", "loadbench baseline list")
        _write(results, {key: run for key, run in known.items() if key != name})


@contextmanager
def _alone(results: Path) -> Iterator[None]:
    """As long as nobody else changes the file; where that cannot be had all the same."""
    try:
        number = os.open(results, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # there is none: nor is there a baseline
        yield
        return
    try:
        with suppress(OSError):  # some shared disks have no locks
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)


def _write(results: Path, known: dict[str, str]) -> None:
    path = results / FILE
    try:
        files.put(path, f"{json.dumps(known, indent=2, sort_keys=True)}\n".encode())
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from error
