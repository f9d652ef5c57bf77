"""The page of an A/B, from the logs of its two sides: also of one that goes on or was killed."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.judge.blocks import called
from loadbench.judge.paired import Paired
from loadbench.judge.session import Answers, Seen, Session, session
from loadbench.model import Note, Window, plain
from loadbench.report.columns import aligned
from loadbench.report.comparison import SIGNS, signed
from loadbench.snapshots import sums
from loadbench.snapshots.foreign import believable
from loadbench.snapshots.reading import doubts
from loadbench.summary import summarise
from loadbench.units import count, percent, significant

_HEADS = ("metric", "A", "B", "B vs A", "surely within", "verdict", "pairs")
_STATES = {
    "done": "■ done", "failed": "✗ failed", "killed": "✗ killed", "running": "● running",
    "stopped": "■ stopped",
}  # fmt: skip
_LONGEST = 60


def read_session(folder: Path) -> Session:
    """What a session came to, or has come to until now. SpecError if it is damaged."""
    snapshot = runlog.read_snapshot(folder)
    state = runlog.state(snapshot)
    try:
        a, b = (_seen(folder / side, state == "running") for side in ("a", "b"))
        found = session({**snapshot, "state": state}, a, b)
        return _unsaid(found, tuple(_altered(folder)))
    except (KeyError, TypeError, AttributeError, ValueError, msgspec.MsgspecError) as error:
        raise SpecError(
            f"{folder / runlog.SNAPSHOT}: is no A/B session: {error!r}", "is it from elsewhere?"
        ) from error


def _unsaid(found: Session, altered: tuple[Note, ...]) -> Session:
    """Without its verdict, if anything of it was altered: its own text tells it, too."""
    if not altered:
        return found
    rows = (replace(row, word="inconclusive", more=None) if row.word else row for row in found.rows)
    return replace(
        found,
        rows=tuple(rows),
        verdict=False,
        text=f"no verdict: {altered[0].text}",
        notes=(*found.notes, *altered),
    )


def _altered(folder: Path) -> Iterable[Note]:
    """What was altered since: the session's snapshot, which has its terms, or what a side left."""
    if doubt := sums.altered(folder, runlog.SNAPSHOT):
        yield doubt
    for side in ("a", "b"):
        for doubt in doubts(folder / side):
            yield Note(doubt.code, f"{side.upper()}: {doubt.text}", doubt.hint)


def _seen(folder: Path, running: bool) -> Seen:
    if not (folder / runlog.LOG).exists():
        return Seen(())
    records = list(runlog.read(folder))
    summary = summarise(records, running)
    windows = [record for record in records if isinstance(record, Window)]
    told = runlog.read_snapshot(folder) if (folder / runlog.SNAPSHOT).exists() else {}
    inputs = told.get("target", {}).get("inputs")
    return Seen(windows, plain(summary) if summary else None, inputs)


def session_facts(folder: Path) -> dict[str, Any]:
    """The session as one object; its names are stable."""
    snapshot, found = runlog.read_snapshot(folder), read_session(folder)
    facts: dict[str, Any] = plain(found)
    return {"kind": runlog.AB, "differs": snapshot.get("differs"), **facts}


def session_text(folder: Path) -> str:
    """The page, without a newline at its end. SpecError if the session is damaged."""
    found = read_session(folder)
    with believable(str(folder / runlog.SNAPSHOT)):
        return _page(folder, found)


def _page(folder: Path, found: Session) -> str:
    plan = found.layout
    state = _STATES.get(found.state, found.state)
    text = f"   {found.text}" if found.text else ""
    lines = [f"loadbench {found.run}   A/B   {state}{text}", ""]
    lines += [f"  {side} {name}" for side, name in zip("AB", found.names, strict=True)]
    lines += [
        f"  {significant(plan.rate)}/s to one at a time, A B B A …, in blocks of {plan.block_s} s "
        f"(of each {plan.settle_s} s left out), {found.pairs} of {plan.pairs} pairs",
        "",
    ]
    lines += _differs(runlog.read_snapshot(folder).get("differs"))
    table = [_HEADS, *(_cells(row) for row in found.rows)]
    lines += [f"  {line}" for line in aligned(table, frozenset({0, 5}))]
    lines += ["", *(f"  {line}" for line in _said(found))]
    if found.answers:
        lines += ["", *(f"  {line}" for line in _answers(found.answers))]
    lines += [f"  ▲ {note.text}" + (f": {note.hint}" if note.hint else "") for note in found.notes]
    return "\n".join([*lines, "", f"  {folder}"])


def _differs(found: Any) -> list[str]:
    if not isinstance(found, list) or not found:
        return ["  Nothing differs: A and B are the same.", ""]
    told = [f"    {key}: {_value(a)} → {_value(b)}" for key, a, b in found]
    return ["  Differs:", *told, ""]


def _value(value: object) -> str:
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _cells(row: Paired) -> tuple[str, ...]:
    beyond = bool(row.values)
    a, b = (significant(v) if v is not None or not beyond else "failed" for v in (row.a, row.b))
    word = f"{SIGNS[row.word]} {row.word}" if row.word else ""
    known = row.low is not None or row.high is not None
    within = f"{signed(row.low) or '?'} … {signed(row.high) or '?'}" if known else ""
    name = f"{called(row.metric)} {row.unit}"
    return (name, a, b, signed(row.shift), within, word, str(row.n))


def _said(found: Session) -> list[str]:
    lines = ["A and B are medians of the blocks, without ±: the blocks tell how much they move"]
    for row in found.gated:
        name, margin = called(row.metric), percent(row.margin)
        line = f"{name}: up to {margin} % does not matter"
        if row.mde is not None:
            line += f"; {percent(row.mde)} % would be found in 95 % of {found.layout.pairs} pairs"
        if row.more:
            line += f"; ≈ {count(row.more)} more pairs would settle it"
        lines.append(line)
    failed = [share for share in found.failed.values() if share]
    if failed:
        parts = (f"{k.upper()} {percent(share)} %" for k, share in found.failed.items())
        lines.append(f"failed: {', '.join(parts)}; they lie above every latency")
    used = {k: share for k, share in found.idle_cpu.items() if share is not None}
    if used:
        told = ", ".join(f"{k.upper()} {percent(share)} %" for k, share in used.items())
        lines.append(f"the engine that waits uses of a core: {told}")
    return lines


def _answers(found: Answers) -> list[str]:
    """In the words of a version's shadow."""
    lines = [
        f"answers: {count(found.compared)} of {count(found.asked)} requests compared, "
        f"{count(found.changed)} of {count(found.rows)} rows whose largest output is another one"
    ]
    apart = (found.absolute, found.relative)
    told = "not to be told" if None in apart else (
        f"{significant(found.absolute)}, {percent(found.relative)} % of the largest value"
    )  # fmt: skip
    lines.append(f"  largest difference: {told}")
    if any(found.failed) or found.shapes or found.dropped:
        a, b = found.failed
        lines.append(
            f"  not answered well: A {count(a)}, B {count(b)}; another shape: "
            f"{count(found.shapes)}; left out: {count(found.dropped)}"
        )
    if found.first:
        lines.append(f"  first: {found.first}")
    return lines
