"""The figures that the dashboard's screens show, read from their text: what each is and of which
seconds. Left to others: whether they are right.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rich.style import Style

from dashboard.widgets.tile import digits

_CLOCK = r"(?:(\d+):)?(\d\d):(\d\d)"
_VALUE = r"n/a|> ?[\d.,]+|[\d.,]+k?"
_LARGE = "0123456789.,>"
_LIVE = {"Throughput": "done/s", "Latency": "p99", "Errors": "errors", "Queue": "queue"}
_TENS = 10  # seconds that tiles cover


class Figure(NamedTuple):
    """As it stands there, of the seconds [begin, end) of the run."""

    name: str
    text: str
    begin: int
    end: int


def clock(line: str, before: str) -> int | None:
    """The seconds of the clock that stands behind these words."""
    found = re.search(rf"{before}\s+{_CLOCK}", line)
    if found is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def span(words: str) -> int:
    """`4m`, `91s`, `1h30` as seconds."""
    if found := re.fullmatch(r"(\d+)m(\d\d)", words):
        return int(found[1]) * 60 + int(found[2])
    if found := re.fullmatch(r"(\d+)h(\d\d)", words):
        return int(found[1]) * 3600 + int(found[2]) * 60
    return int(words[:-1]) * {"s": 1, "m": 60, "h": 3600}[words[-1]]


def live(text: str) -> list[Figure]:
    """Of the Live screen while the run goes on."""
    lines = text.split("\n")
    now = clock(lines[0], "RUNNING")
    if now is None:
        return []
    tiles = _large(lines, _LIVE) if "╭" in lines[1] else _small(lines[1])
    near = [(name, value) for name, value in [*tiles, *_titles(text)] if value]
    recent = [Figure(name, value, max(0, now - _TENS), now) for name, value in near]
    return recent + [Figure(name, value, begin, now) for name, value, begin in _table(lines, now)]


def engine(text: str) -> list[Figure]:
    """Of the Engine screen: batches a second, how full they are, their mean size; now, in view."""
    lines = text.split("\n")
    now = clock(lines[0], "RUNNING")
    if now is None:
        return []
    found = []
    tiles: Iterable[tuple[str, str]] = ()
    if "╭" in lines[1]:
        tiles = _large(lines, {"Batches": "batches", "Batch fill": "fill"})
        tiles = [*tiles, *(("batch", mean) for mean in re.findall(r"─ ([\d.,]+) rows each", text))]
    else:
        tiles = re.findall(r"(batch|fill) +([\d.,]+)(?:/s|%)", lines[1])
        tiles = [("batches" if name == "batch" else name, value) for name, value in tiles]
    for name, value in tiles:
        found.append(Figure(name, value, max(0, now - _TENS), now))
    mean, wide = re.search(r" mean ([\d.,]+) ", text), re.search(r"rows, last (\w+)\)", text)
    if mean and wide:
        found.append(Figure("batch", mean[1], max(0, now - span(wide[1])), now))
    return found


def second(text: str) -> list[Figure]:
    """Of the line that tells of one second."""
    line = next((line for line in text.split("\n") if line.startswith(" ▽")), "")
    at = clock(line, "▽")
    if at is None:
        return []
    names = {
        "done": "done/s", "of": "asked/s", "p99": "p99", "failed": "errors",
        "waiting": "queue", "batch": "batch", "p50": "p50",
    }  # fmt: skip
    found = re.findall(rf" (done|of|p99|failed|waiting|batch|p50) ({_VALUE})(?=[ %/]|$)", line)
    return [Figure(names[name], value, at, at + 1) for name, value in found]


def gpu(text: str) -> list[str]:
    """How the rule on GPU use stands, on the Alerts screen."""
    return re.findall(r"(FIRING|pending|ok|no data|few data) +GPU utili", text)


def _titles(text: str) -> Iterator[tuple[str, str]]:
    """Percentiles and asked rate in the titles of the charts."""
    for name, value in re.findall(rf"■ (p50|p95|p99) ({_VALUE})", text):
        yield name, value
    for value in re.findall(rf"─ asked ({_VALUE})", text):
        yield "asked/s", value


def _small(line: str) -> Iterator[tuple[str, str]]:
    """Tiles in one row: `done 435/s  p99 ▲>100ms`."""
    names = {"done": "done/s", "p99": "p99", "errors": "errors", "queue": "queue"}
    for name, value in re.findall(rf"(done|p99|errors|queue) +▲?({_VALUE})", line):
        yield names[name], value


def _large(lines: Sequence[str], names: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Tiles with large digits, by the words they begin with; and the rate asked for below them."""
    for found in re.finditer(r"╭[^╭╮]*╮", lines[1]):
        left, right = found.span()
        name = re.search("|".join(names), found[0])
        foot = lines[6 - (len(lines[5]) > left and lines[5][left] == "╰")][left:right]
        if name:
            yield names[name[0]], _spelt([line[left + 2 : right - 2] for line in lines[2:5]])
        if asked := re.search(rf"─ asked ({_VALUE}) ─", foot):
            yield "asked/s", asked[1]


def _spelt(rows: Sequence[str]) -> str:
    """Large digits as text; what is no number is written in plain letters."""
    shapes = {
        char: tuple("".join(part.text for part in line) for line in digits(char, Style()))
        for char in _LARGE
    }
    text, at = "", 0
    while any(row[at:].strip() for row in rows):
        for char, shape in shapes.items():
            width = len(shape[0])
            if tuple(row[at : at + width].ljust(width) for row in rows) == shape:
                text, at = text + char, at + width
                break
        else:
            return rows[1].strip()
    return text


def _table(lines: Sequence[str], now: int) -> Iterator[tuple[str, str, int]]:
    """The row of all requests: values end where the words above them end."""
    at = next((at for at, line in enumerate(lines) if re.search(r" request +done +/s", line)), None)
    wide = re.search(r"last (\w+)[,)]", "\n".join(lines))
    if at is None:
        return
    width = now if wide is None else span(wide[1])
    every = (line for line in lines[at + 2 :] if re.match(r"│? all ", line))
    row = next(every, lines[at + 1])  # of one kind there is no other row
    names = {"/s": "done/s", "p50": "p50", "p95": "p95", "p99": "p99", "fail %": "errors"}
    before = 0
    for head in re.finditer(r"fail %|[^\s│]+", lines[at]):
        value = row[before : head.end()].strip(" │")
        before = head.end()
        if head[0] in names and value:
            yield names[head[0]], value, max(0, now - width)
        if head[0] == "fail %":
            break
