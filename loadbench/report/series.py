"""A series of repeats: what each came to, a line each, and the middle of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadbench import runlog
from loadbench.errors import SpecError, reason
from loadbench.judge.checks import why_unjudged
from loadbench.judge.overall import overall
from loadbench.model import Note
from loadbench.printable import harmless
from loadbench.report.certain import within
from loadbench.report.columns import aligned
from loadbench.report.sides import snapshots
from loadbench.snapshots import sums
from loadbench.snapshots.foreign import believable
from loadbench.units import percent, significant

_HEADS = ("repeat", "done/s", "p50 ms", "p99 ms", "failed %", "checks", "trust", "")
_STATES = {
    "done": "■ done", "failed": "✗ failed", "killed": "✗ killed", "running": "● running",
    "stopped": "■ stopped",
}  # fmt: skip


def series_facts(folder: Path) -> dict[str, Any]:
    """The series as one object: its snapshot's own facts, `overall` (medians, and the worst of
    checks and grades) and the `summaries` of all repeats. SpecError if it is damaged."""
    snapshot = runlog.read_snapshot(folder)
    made = ((path, one["summary"]) for path, one in _made(folder) if one.get("summary"))
    summaries = [_with_its_log(path, summary) for path, summary in made]
    names = ("run", "kind", "scenario", "wanted", "engine", "cool_down_s", "repeats", "text")
    try:
        whole = overall(summaries)
    except (LookupError, TypeError, AttributeError, ValueError) as error:  # foreign file
        raise SpecError(
            f"a summary of {harmless(folder.name)} is damaged: {reason(error)}",
            "loadbench show RUN/1 reads a log",
        ) from error
    found = {name: snapshot.get(name) for name in names}
    found["run"] = found["run"] or harmless(folder.name)
    return {**found, "state": runlog.state(snapshot), "overall": whole, "summaries": summaries}


def _made(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    found = snapshots(folder)
    return [(folder / str(one["run"]).rpartition("/")[2], one) for one in found]


def _with_its_log(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """A repeat is shown by its snapshot: whether its log is still the same is to be known, too."""
    doubt = sums.altered(folder, runlog.LOG)
    found: dict[str, Any] = sums.doubted(summary, doubt) if doubt else summary
    return found


def series_text(folder: Path) -> str:
    """The page of a series, without a newline at its end. SpecError if it is damaged."""
    found = series_facts(folder)
    with believable(harmless(folder.name)):
        return _page(folder, found)


def _page(folder: Path, found: dict[str, Any]) -> str:
    state = _STATES.get(str(found["state"]), str(found["state"]))
    made, wanted = len(found["summaries"]), found["wanted"]
    many = f"{made} of {wanted}" if wanted is not None else made  # none: it is from elsewhere
    lines = [f"loadbench {found['run']}   {many} repeats   {state}"]
    lines += [f"  ✗ {found['text']}"] if found.get("text") else []
    whole = found["overall"]
    if whole is None:
        return "\n".join([*lines, "", "  nothing was recorded yet", "", f"  {folder}"])
    numbers = [str(one["run"]).rpartition("/")[2] for one in found["summaries"]]
    rows = [_row(n, one) for n, one in zip(numbers, found["summaries"], strict=True)]
    table = aligned([_HEADS, *rows, _row("median", whole)], frozenset({0, 5, 6, 7}))
    lines += ["", *(f"  {line}" for line in table), "", f"  {_how(found)}"]
    lines += [_note(note) for note in whole["notes"]]
    return "\n".join([*lines, "", f"  {folder}"])


def _row(name: str, summary: dict[str, Any]) -> tuple[str, ...]:
    asked, trust = summary["asked"], str(summary["trust"])
    return (
        name,
        significant(summary["rate"]["done"]),
        _latency(summary, "p50"),
        _latency(summary, "p99"),
        percent(1 - summary["done"] / asked) if asked else "n/a",
        _checks(summary),
        trust if trust == "trusted" else f"▲ {trust}",
        "" if summary["reason"] == "done" else str(summary["reason"]),
    )


def _checks(summary: dict[str, Any]) -> str:
    checks = summary["checks"]
    if not checks:
        return ""
    if unjudged_repeats(summary):
        return "▲ no verdict"
    passed = sum(check["state"] == "passed" for check in checks)
    return f"{'✓' if passed == len(checks) else '✗'} {passed}/{len(checks)}"


def unjudged_repeats(whole: Mapping[str, Any]) -> str:
    """Why there is no verdict about a repeat, or about all of them by their worst; "": there is."""
    notes = [Note(note["code"], str(note["text"])) for note in whole["notes"]]
    ended = str(whole["reason"])
    return why_unjudged(ended, whole["trust"], notes, f"not all of it was finished: {ended}")


def _latency(summary: dict[str, Any], name: str) -> str:
    value, limit = summary["latency_ms"][name], summary.get("limit_ms")
    if value is None and limit is not None and summary["asked"]:
        return f"> {significant(limit)}"
    return significant(value) + within(value, summary.get("bands_ms", {}).get(name))


def _how(found: dict[str, Any]) -> str:
    pause = found.get("cool_down_s")
    said = f"engine: {found.get('engine') or 'not told'}" + (
        f"; {pause:g} s between two" if pause else ""
    )
    bands = any(one.get("bands_ms") for one in found["summaries"])
    whys = {
        why
        for one in found["summaries"]
        for why in one.get("no_bands", {}).get("latency_ms", {}).values()
    }
    no = f"no ± of some: {'; '.join(sorted(whys))}" if whys else ""
    sure = "± of a repeat holds at 95 %" if bands else ""
    median = "the median has none: the repeats tell how much it moves"
    return "; ".join(filter(None, (said, sure, no, median)))


def _note(note: dict[str, Any]) -> str:
    sign = "·" if note["code"] == "no-gpu" else "▲"
    return f"  {sign} {note['text']}" + (f": {note['hint']}" if note.get("hint") else "")
