"""What the files that a scenario names hold, as short digests: work is the same only where they
are. A name says too little, since a trace or a table may be another one under the same name."""

import hashlib
import os
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from loadbench.distribution import file_of
from loadbench.errors import SpecError
from loadbench.requestspec import RequestSpec
from loadbench.spec import Spec
from loadbench.targets import template
from loadbench.targets.dataset import rows
from loadbench.targets.template import Place

_DIGITS = 16  # of a digest: two that differ are alike by chance once in 10^19
_MOST = 256 << 20  # bytes read of a file, and of a folder in all: of the rest its size counts
_FILES = 65_536  # looked at in a folder; no scenario takes more rows
_LEAP = 1 << 20


def digests(spec: Spec) -> dict[str, str]:
    """Name as it is written → digest, of each file or folder that decides what is sent or expected.
    The Locust file is not among them: its digest stands by itself. What cannot be read is left out:
    who makes requests of it says why."""
    found = {name: _digest(name) for name in dict.fromkeys(_named(spec))}
    for request in spec.request:
        if digest := _of_rows(request):
            found[f"files of {request.data}"] = digest
    return {name: digest for name, digest in found.items() if digest}


def of_model(url: str) -> dict[str, str]:
    """`{"file": digest}` of the model file or folder that a target `local:PATH` names; nothing of
    others. It is a setting and no part of the work: another model there may be what is compared."""
    name = url.removeprefix("local:")
    path = Path(name).expanduser()
    named = name != url and (os.sep in name or path.is_file())  # no folder called as one of the zoo
    files = (path, *_data_of(path)) if named else ()
    found = [digest for file in files if (digest := _digest(str(file)))]
    return {"file": " ".join(found)} if found else {}


def _data_of(model: Path) -> list[Path]:
    """Where exporters put the weights of a large ONNX model: `model.onnx.data`,
    `model.onnx_data`, `model.onnx_data_1` … beside it. One trained anew differs in them alone."""
    if model.suffix != ".onnx" or not model.is_file():
        return []
    known = re.compile(re.escape(model.name) + r"[._]data(_\d+)?")
    try:
        return sorted(path for path in model.parent.iterdir() if known.fullmatch(path.name))
    except OSError:  # files may be read in a folder that may not be listed
        return []


def whole_file(name: str) -> str:
    """The SHA-256 of all of a file. SpecError if it cannot be read."""
    try:
        with open(name, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        hint = "the path counts from where loadbench is started"
        raise SpecError(f"{name}: cannot be read: {error.strerror}", hint) from error


def _named(spec: Spec) -> Iterable[str]:
    if spec.load.trace:
        yield spec.load.trace.path
    for request in spec.request:
        expect = request.expect
        yield from filter(
            None, (request.data, *((expect.file, expect.schema_file) if expect else ()))
        )
        dims = (dim for shape in request.shapes.values() for dim in shape)
        drawn = (*request.dims.values(), *request.values.values(), *dims)
        for text in (*drawn, request.sequence, request.words, request.max_tokens):
            if file := file_of(str(text)):
                yield file


def _of_rows(request: RequestSpec) -> str:
    """Of the files that the rows of a table name, if the request takes those: `${image|file}`."""
    columns = {
        part.name
        for text in _templates(request)
        for part in template.parse(text)
        if isinstance(part, Place) and "file" in part.filters
    }
    table = Path(request.data)
    if not columns or not request.data or table.is_dir():
        return ""  # those of a folder are in its own digest
    found, left = hashlib.sha256(), _MOST
    try:
        for row in islice(rows(request.data), _FILES):
            for column in sorted(columns & row.fields.keys()):
                left -= _add_file(found, table.parent / str(row.fields[column]), left)
    except (OSError, ValueError, SpecError):
        return ""
    return found.hexdigest()[:_DIGITS]


def _templates(request: RequestSpec) -> Iterable[str]:
    yield from (request.body, *request.form.values())
    if request.expect:
        yield request.expect.body or ""
        yield from (text for text in request.expect.values.values() if isinstance(text, str))


def _digest(name: str) -> str:
    """Empty of what cannot be read, or is no file: a pipe can be read only once."""
    found = hashlib.sha256()
    try:
        path = Path(name)
        if path.is_dir():
            _add_folder(found, path)
        else:
            _add_file(found, path, _MOST)
    except OSError:
        return ""
    return found.hexdigest()[:_DIGITS]


def _add_folder(found: Any, folder: Path) -> None:
    """The names, sizes and contents of the files that lie directly in it, as data are taken from
    it; hidden ones are left out there too."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")
    left = _MOST
    found.update(f"{len(files)} files\n".encode())
    for path in files[:_FILES]:
        found.update(os.fsencode(path.name) + b"\0")
        left -= _add_file(found, path, left)


def _add_file(found: Any, path: Path, most: int) -> int:
    """Its size and so much of its beginning; how many bytes that were."""
    if not path.is_file():
        raise FileNotFoundError(2, "no such file or folder", str(path))
    found.update(f"{path.stat().st_size}\n".encode())
    left = most
    with path.open("rb") as file:
        while left > 0 and (part := file.read(min(left, _LEAP))):
            found.update(part)
            left -= len(part)
    return most - left
