"""What requests over plain HTTP are made of: the rows of a file, or the files of a folder.

`.csv` and `.tsv` (with a heading), `.jsonl` or `.ndjson` (an object a line), `.json` (a list of
objects), `.txt` (a line each, as `${line}`), a folder (`${name}`, `${content}`); any other file is
one body as it is. Read row by row, so that what is not needed is not read.
"""

import csv
import mimetypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from loadbench.errors import SpecError
from loadbench.targets.template import MOST

_LINES = (".jsonl", ".ndjson", ".txt")
_JSON = "application/json"


class Row(NamedTuple):
    """One row. `content` is the row as a body, where it makes one."""

    where: str  # `prompts.jsonl line 3`
    fields: dict[str, Any]
    content: bytes | None = None
    kind: str = ""  # the content's type


def rows(name: str) -> Iterator[Row]:
    """The rows of a file or folder; at least one. Raises SpecError naming file and line."""
    path = Path(name)
    empty = True
    try:
        for row in _rows(path):
            empty = False
            yield row
    except OSError as error:
        hint = "the path counts from where loadbench is started"
        raise SpecError(f"{name}: {error.strerror}", hint) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{name}: not readable as text: {error}") from error
    if empty:
        raise SpecError(f"{name}: no data in it")


def _rows(path: Path) -> Iterator[Row]:
    if path.is_dir():
        files = sorted(path.iterdir())
        return (_file(file) for file in files if file.is_file() and file.name[0] != ".")
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _table(path, "\t" if suffix == ".tsv" else ",")
    if suffix in _LINES:
        return _lines(path, suffix == ".txt")
    return _list(path) if suffix == ".json" else iter([_file(path)])


def _file(path: Path) -> Row:
    if path.stat().st_size > MOST:
        raise SpecError(f"{path}: more than {MOST >> 20} MiB")
    content = path.read_bytes()
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return Row(str(path), {"name": path.name, "content": content}, content, kind)


def _table(path: Path, delimiter: str) -> Iterator[Row]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        heads = [head.strip() for head in next(reader, [])]
        if len(set(heads)) < len(heads) or not all(heads):
            text = f"{path} line 1: columns need names, each its own: {', '.join(heads)}"
            raise SpecError(text, "the first line is the heading")
        for cells in reader:
            where = f"{path} line {reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(heads):
                raise SpecError(f"{where}: {len(cells)} cells, the heading has {len(heads)}")
            yield Row(where, dict(zip(heads, cells, strict=True)))


def _lines(path: Path, text: bool) -> Iterator[Row]:
    with open(path, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip("\r\n")
            where = f"{path} line {number}"
            if not line.strip():
                continue
            if text:
                yield Row(where, {"line": line}, line.encode(), "text/plain; charset=utf-8")
                continue
            found = _decoded(line.encode(), where)
            yield Row(where, found if isinstance(found, dict) else {}, line.encode(), _JSON)


def _list(path: Path) -> Iterator[Row]:
    row = _file(path)
    assert row.content is not None
    found = _decoded(row.content, str(path))
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        yield row
        return
    for number, item in enumerate(found):
        yield Row(f"{path} item {number}", item, msgspec.json.encode(item), _JSON)


def _decoded(text: bytes, where: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(f"{where}: not JSON: {error}") from error
