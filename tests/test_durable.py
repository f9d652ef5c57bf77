"""Snapshots that last: old ones are read, later ones refused, altered ones told, hostile ones
harmless to everything that reads runs."""

import base64
import json
import os
import re
import resource
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadbench import arrivals, baseline, logindex, runlog
from loadbench.catalogue import entries
from loadbench.errors import RunError, SpecError
from loadbench.histogram import Histogram
from loadbench.judge.search import Terms, ended
from loadbench.judge.searches import Hunt, Setting
from loadbench.judge.stage import Claim
from loadbench.model import End, plain
from loadbench.report.ab import read_session, session_text
from loadbench.report.find import find_facts, find_text
from loadbench.report.html import report
from loadbench.runner.snapshot import others
from loadbench.snapshots import files, schema, sums
from loadbench.summary import summarise
from tests.ended import finished
from tests.foreign import RECORDED, commands, digests, followed, listed, said
from tests.records import start, window
from tests.test_find_search import stage
from tests.test_repeats import series

SAMPLES = sorted(RECORDED.glob("*/*"))
FILES = ("run.json", "log.ndjson", "log.idx", "arrivals.bin")


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Two recorded runs side by side: 0001 stays whole."""
    results = tmp_path / "results"
    for number in ("0001-good", "0002-bad"):
        shutil.copytree(SAMPLES[-1], results / number)
    return results


# ---- versions


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: f"schema {path.parent.name}")
def test_every_schema_there_was_is_read_by_everything(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(sample, tmp_path / "copy")  # a run is not compared with itself
    written = json.loads((sample / runlog.SNAPSHOT).read_text())
    assert written["schema"] == int(sample.parent.name)
    snapshot = runlog.read_snapshot(sample)
    assert (snapshot["schema"], snapshot["kind"]) == (schema.SCHEMA, "run")
    assert {**written, "schema": schema.SCHEMA, "kind": "run"} == snapshot
    found = summarise(runlog.read(sample))
    assert found is not None
    assert (found.asked, found.done) == (snapshot["summary"]["asked"], snapshot["summary"]["done"])
    (entry,) = entries(sample.parent)
    assert (entry.state, entry.problem, entry.altered) == ("done", "", "")
    for command in (["show"], ["optimum"], ["compare", str(copy)]):
        code, out, err = said([*command, str(sample)], capsys)
        assert (code, err) == (0, "")
        assert sample.name in out
    assert followed(sample) == ""


def test_the_last_schema_has_a_recorded_run() -> None:
    assert {int(path.parent.name) for path in SAMPLES} == set(range(1, schema.SCHEMA + 1))


def test_a_later_schema_is_refused_with_what_to_do(
    shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shelf / "0002-bad" / runlog.SNAPSHOT
    snapshot = json.loads(path.read_text())
    later = {**snapshot, "schema": schema.SCHEMA + 1, "loadbench": "7.1\x1b[2J"}
    path.write_text(json.dumps(later))
    code, _, err = said(["compare", "1", "2", "--out", str(shelf)], capsys)
    assert code == 2
    assert f"was written by loadbench 7.1\\x1b[2J (schema {schema.SCHEMA + 1}" in err
    assert "update this one" in err
    assert "update this one" in listed(shelf)[0]


@pytest.mark.parametrize("number", [0, -1, True, "2", 1.5, None, [2]])
def test_a_schema_that_is_no_number_is_no_snapshot(tmp_path: Path, number: object) -> None:
    (tmp_path / runlog.SNAPSHOT).write_text(json.dumps({"schema": number}))
    with pytest.raises(SpecError, match="is no run snapshot"):
        runlog.read_snapshot(tmp_path)


@pytest.mark.parametrize("command", [["show"], ["report", "-o", "-"], ["export", "--as", "csv"]])
def test_a_later_schema_is_refused_though_its_log_could_be_read(
    shelf: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    path = shelf / "0002-bad" / runlog.SNAPSHOT
    assert said([*command, "2", "--out", str(shelf)], capsys)[0] == 0
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 999}))
    code, out, err = said([*command, "2", "--out", str(shelf)], capsys)
    assert (code, out) == (2, "")
    assert "schema 999" in err
    assert "update this one" in err


def test_a_log_of_a_later_schema_is_refused(
    shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = shelf / "0002-bad" / runlog.LOG
    first, rest = log.read_bytes().split(b"\n", 1)
    log.write_bytes(first[:-1].replace(b'"run"', b'"unknown":{},"run"') + b"}\n" + rest)
    sums_of(log.parent)
    assert said(["show", "2", "--out", str(shelf)], capsys)[0] == 0  # what is new is passed over
    log.write_bytes(first[:-1] + b',"schema":2}\n' + rest)
    code, _, err = said(["show", "2", "--out", str(shelf)], capsys)
    assert code == 2
    assert "it is of schema 2, and this loadbench reads up to 1" in err
    assert "schema 2" in followed(log.parent)


# ---- checksums


def searched(results: Path) -> Path:
    """A find that confirmed 990/s, as its runner leaves it."""
    terms = Terms(Claim("p99 < 50 ms", 0.01, 50_000_000))
    seen = (stage(990.0), stage(1192.0, holds=False), stage(990.0, kind="confirm"))
    setting = Setting(runs=("1",), seen=seen, found=ended(terms, seen, 30.0, "latency"))
    folder = runlog.create(results, "find")
    known = {"schema": runlog.SCHEMA, "kind": runlog.FIND, "run": folder.name, "state": "done"}
    hunt = plain(Hunt(terms, (setting,)))
    runlog.write_snapshot(folder, {**known, "repeats": ["1"], "find": hunt})
    return folder


def in_turns(results: Path) -> Path:
    """An A/B whose B takes twice the time."""
    folder = runlog.create(results, "ab")
    known = {
        "schema": runlog.SCHEMA, "kind": runlog.AB, "run": folder.name, "state": "done",
        "layout": {"rate": 50.0, "warm_s": 0, "block_s": 2, "pairs": 8},
        "terms": {"metrics": ["p50"], "margin": 0.02},
        "sides": {"a": {"name": "one"}, "b": {"name": "two"}}, "text": "p50 +100 % worse",
    }  # fmt: skip
    runlog.write_snapshot(folder, known)
    for side, ms in (("a", 10.0), ("b", 20.0)):
        (folder / side).mkdir()
        writer = runlog.Writer(folder / side)
        writer.write(start(run=f"{folder.name}/{side}"))
        for second in range(32):
            writer.write(window(second, [ms + second / 100] * 50, rate=50.0))
        writer.close(End(31, "done"))
        runlog.write_snapshot(folder / side, {**known, "kind": "run", "summary": None})
    return folder


def sums_of(folder: Path) -> None:
    runlog.seal(folder)


def test_sha256sum_reads_the_sums(shelf: Path) -> None:
    folder = shelf / "0002-bad"
    runlog.seal(folder)
    check = ["sha256sum", "--check", "--strict", sums.FILE]
    done = subprocess.run(check, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "run.json: OK\nlog.ndjson: OK\n"
    with open(folder / runlog.LOG, "ab") as file:
        file.write(b"\n")
    assert subprocess.run(check, cwd=folder, capture_output=True, check=False).returncode == 1


def test_what_was_altered_after_the_run_is_told_wherever_it_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path)]
    kept, edited = (finished(tmp_path, name, 10.0) for name in ("kept", "edited"))
    for folder in (kept, edited):
        runlog.seal(folder)
    for command in commands(tmp_path, "2", "1"):
        assert "altered after" not in "".join(map(str, said(command, capsys)))
    path = edited / runlog.SNAPSHOT
    path.write_text(path.read_text().replace('"state": "done"', '"state":  "done"'))
    text = "run.json was altered after the run"
    table = said(["list", *out], capsys)[1].splitlines()
    assert [text in line for line in table] == [False, True, False, False]
    assert json.loads(said(["list", "--json", *out], capsys)[1].splitlines()[0])["altered"] == text
    shown = said(["show", "2", *out], capsys)[1]
    assert text in shown
    assert "doubtful" in shown.splitlines()[0]
    assert "0002-edited is doubtful" in said(["compare", "1", "2", *out], capsys)[1]
    log = kept / runlog.LOG
    log.write_bytes(log.read_bytes().replace(b'"done":500', b'"done":499', 1))
    assert "log.ndjson was altered after the run" in said(["show", "1", *out], capsys)[1]


@pytest.mark.parametrize(
    ("part", "told"),
    [("", "run.json was altered"), ("2", "2/run.json was altered")],
    ids=["the series", "a repeat"],
)
def test_an_altered_series_is_told_wherever_it_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, told: str
) -> None:
    out = ["--out", str(tmp_path)]
    for p99s in ([10.0] * 6, [20.0] * 6):
        folder = series(tmp_path, p99s)
        for each in (folder, *runlog.repeats(folder)):
            runlog.seal(each)
    compare = ["compare", "1", "2", "--gate", "p99=5%", *out]
    for command in (["list", *out], ["show", "2", *out], ["history", *out], compare):
        assert "altered after" not in "".join(map(str, said(command, capsys)))
    assert said(compare, capsys)[0] == 1
    path = folder / part / runlog.SNAPSHOT
    path.write_text(path.read_text() + " ")
    assert told in said(["list", *out], capsys)[1].splitlines()[1]
    assert json.loads(said(["list", "--json", *out], capsys)[1].splitlines()[0])["altered"]
    shown = said(["show", "2", *out], capsys)[1]
    assert "run.json was altered after the run" in shown
    assert "▲ doubtful" in shown
    code, _, err = said(compare, capsys)
    assert (code, "run.json was altered after the run" in err) == (4, True)
    history = said(["history", *out], capsys)[1]
    assert ("doubtful" in history) == (not part)  # its figures are those of the series' own file


def test_a_damaged_series_is_told_as_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = series(tmp_path, [10.0] * 2)
    os.truncate(folder / runlog.SNAPSHOT, 500)
    code, _, err = said(["show", "1", "--out", str(tmp_path)], capsys)
    assert (code, "run.json: cannot be read, it is damaged" in err) == (2, True)


def test_a_find_that_goes_on_has_no_sums(tmp_path: Path) -> None:
    folder = finished(tmp_path, "one", 10.0)
    runlog.seal(folder)
    sums.reopened(folder)
    assert not (folder / sums.FILE).exists()
    (folder / sums.FILE).mkdir()
    sums.reopened(folder)  # from elsewhere, it may be anything


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "says nothing of run.json"),
        ("0" * 64 + "  run.json\n", "run.json was altered"),
        ("x" * 20_000, "cannot be read"),
        ("\x1b[2J" * 9, "says nothing of run.json"),
    ],
)
def test_sums_that_are_no_sums(tmp_path: Path, content: str, told: str) -> None:
    folder = finished(tmp_path, "one", 10.0)
    assert sums.altered(folder, runlog.SNAPSHOT) is None  # of an older loadbench
    (folder / sums.FILE).write_text(content)
    doubt = sums.altered(folder, runlog.SNAPSHOT)
    assert doubt is not None
    assert told in doubt.text
    assert "altered" in str(runlog.read_snapshot(folder)["summary"]["notes"][-1])


@pytest.mark.parametrize("latency_ms", [10.0, 200.0], ids=["passed", "failed"])
@pytest.mark.parametrize("name", [runlog.SNAPSHOT, runlog.LOG])
def test_a_run_that_was_altered_has_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, latency_ms: float
) -> None:
    folder = finished(tmp_path, "one", latency_ms)
    runlog.seal(folder)
    before = concluded(tmp_path, "1", capsys)
    state = "passed" if latency_ms < 100 else "failed"
    assert (before["state"], before["exit_code"]) == (state, int(latency_ms > 100))
    with open(folder / name, "ab") as file:
        file.write(b"\n" if name == runlog.SNAPSHOT else b'{"kind":"mark","second":1,"text":""}\n')
    found = concluded(tmp_path, "1", capsys)
    why = f"{name} was altered after the run"
    assert (found["state"], found["exit_code"], found["sentence"]) == ("no verdict", 4, why)
    assert {one["state"] for one in found["findings"]} == {"no verdict"}
    shown = said(["show", "1", "--out", str(tmp_path)], capsys)[1]
    assert f"▲ no verdict: {why}; measured: p99 {latency_ms:.0f}" in shown
    page = report([folder])
    assert f"No verdict: {why}" in page
    assert "1 check passed" not in page
    exported = said(
        ["export", "1", "--as", "prometheus", "-o", "-", "--out", str(tmp_path)], capsys
    )
    assert exported[0] == 0
    assert "loadbench_run_check_passed{" not in exported[1]
    if name == runlog.SNAPSHOT:
        (line,) = said(["list", "--out", str(tmp_path)], capsys)[1].splitlines()[1:2]
        assert "1/1" not in line
        assert "0/1" not in line


@pytest.mark.parametrize("how", ["link", "gone"])
def test_a_sealed_run_without_its_snapshot_is_told_as_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    folder = finished(tmp_path, "one", 10.0)
    runlog.seal(folder)
    path = folder / runlog.SNAPSHOT
    path.rename(tmp_path / "elsewhere.json")
    if how == "link":
        path.symlink_to(tmp_path / "elsewhere.json")
    shown = said(["show", "1", "--out", str(tmp_path)], capsys)[1]
    assert ("run.json is gone" in shown) == (how == "gone")
    assert "▲ doubtful" in shown
    assert "▲ no verdict: run.json is" in shown
    table = said(["list", "--out", str(tmp_path)], capsys)[1]
    assert ("run.json is gone, and was there" in table) == (how == "gone")
    assert "starting" not in table


def test_an_altered_log_of_a_repeat_is_told_of_the_series(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = series(tmp_path, [10.0] * 2)
    for each in (folder, *runlog.repeats(folder)):
        runlog.seal(each)
    with open(folder / "2" / runlog.LOG, "ab") as log:
        log.write(b'{"kind":"mark","second":1,"text":""}\n')
    shown = said(["show", "1", "--out", str(tmp_path)], capsys)[1]
    assert "log.ndjson was altered after the run (1 of 2 repeats)" in shown
    rows = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert ["no verdict" in rows[name] for name in ("1", "2", "median")] == [False, True, True]


def test_an_altered_series_has_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = series(tmp_path, [10.0] * 2)
    for each in (folder, *runlog.repeats(folder)):
        runlog.seal(each)
    assert concluded(tmp_path, "1", capsys)["exit_code"] == 0
    path = folder / runlog.SNAPSHOT
    path.write_text(path.read_text() + " ")  # it says which repeats there are
    assert concluded(tmp_path, "1", capsys)["exit_code"] == 4
    shown = said(["show", "1", "--out", str(tmp_path)], capsys)[1]
    assert "▲ no verdict" in shown
    assert "✓" not in shown
    page = report([folder])
    assert "no verdict: of the series run.json was altered" in page
    assert "checks passed in every repeat" not in page


def concluded(results: Path, run: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `show` leaves for CI."""
    file = results / "verdict.json"
    assert said(["show", run, "--json-file", str(file), "--out", str(results)], capsys)[0] == 0
    found: dict[str, Any] = json.loads(file.read_text())
    file.unlink()
    return found


def test_an_altered_find_has_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = searched(tmp_path)
    runlog.seal(folder)
    before = find_facts(folder)["settings"][0]
    assert (before["confirmed"], before["verdict"]) == (True, True)
    assert "✓ 990/s, confirmed" in find_text(folder)
    path = folder / runlog.SNAPSHOT
    path.write_text(path.read_text().replace("990.0", "1990.0"))
    found = find_facts(folder)
    assert (found["settings"][0]["confirmed"], found["settings"][0]["verdict"]) == (False, False)
    assert found["front"] == []
    text = find_text(folder)
    assert "▲ no verdict: run.json was altered after the run" in text
    assert "▲ 1,990/s, not confirmed" in text or "▲ 1990/s, not confirmed" in text
    assert "✓ 1990/s" not in text


def test_an_altered_session_of_two_has_no_verdict(tmp_path: Path) -> None:
    folder = in_turns(tmp_path)
    for each in (folder, folder / "a", folder / "b"):
        runlog.seal(each)
    found = read_session(folder)
    assert (found.verdict, found.gated[0].word) == (True, "worse")
    with open(folder / "b" / runlog.LOG, "ab") as log:
        log.write(b'{"kind":"mark","second":1,"text":""}\n')
    found = read_session(folder)
    why = "B: log.ndjson was altered after the run"
    assert (found.verdict, found.gated[0].word, found.text) == (
        False, "inconclusive", f"no verdict: {why}",
    )  # fmt: skip
    assert "worse" not in session_text(folder)


@pytest.mark.parametrize("name", [runlog.SNAPSHOT, runlog.LOG])
def test_of_a_file_without_end_no_more_is_read_than_one_of_ours_can_have(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = series(tmp_path, [10.0] * 2)
    for each in (folder, *runlog.repeats(folder)):
        runlog.seal(each)
    bad = folder / "1" / name
    os.truncate(bad, 2_000_000_000)  # all of it a hole
    before = _read_until_now()
    doubt = sums.altered(bad.parent, name)
    assert doubt is not None
    assert f"{name} was altered" in doubt.text
    table = said(["list", "--out", str(tmp_path)], capsys)[1]
    assert ("1/run.json was altered" in table) == (name == runlog.SNAPSHOT)  # a list reads no logs
    code, shown, _ = said(["show", "1/1", "--out", str(tmp_path)], capsys)
    if name == runlog.SNAPSHOT:
        assert "▲ doubtful" in shown
    else:
        assert code == 2  # no log at all
    assert _read_until_now() - before < 200_000_000


def _read_until_now() -> int:
    """Bytes that this process has read, holes too."""
    return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])


@pytest.mark.parametrize(
    ("ended", "told"),
    [
        (5, []), ("yesterday", []), ("2026-01-05T15:00:00", []),
        ("2026-01-05T15:00:00+01:00", []), ("2026-01-05T14:30:00+00:00", ["other-run"]),
        ("2026-01-05T15:30:00+01:00", ["other-run"]),
    ],
)  # fmt: skip
def test_another_run_is_one_that_ended_since_by_whatever_clock(
    tmp_path: Path, ended: object, told: list[str]
) -> None:
    other, own = (finished(tmp_path, name, 10.0) for name in ("other", "own"))
    runlog.write_snapshot(other, {**runlog.read_snapshot(other), "ended": ended})
    found = others(tmp_path, own, "2026-01-05T14:02:00+00:00")
    assert [note.code for note in found] == told


@pytest.mark.parametrize(
    "parts",
    [
        {"server": {"queue_ms": {"mean": 0.1}}, "latency_ms": {"p50": 1e-320}},
        {"server": {"queue_ms": {"mean": 1e308}}, "latency_ms": {"p50": 1e9}},
    ],
)
def test_figures_too_far_apart_to_be_compared_are_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], parts: dict[str, dict[str, Any]]
) -> None:
    both: list[dict[str, Any]] = [
        parts,
        {"server": {"queue_ms": {"mean": 1.0}}, "latency_ms": {"p50": 10.0}},
    ]
    for changes in both:
        folder = finished(tmp_path, "far", 10.0)
        found = runlog.read_snapshot(folder)
        latency = found["summary"]["latency_ms"] | changes["latency_ms"]
        found["summary"] |= {**changes, "latency_ms": latency}
        runlog.write_snapshot(folder, found)
    for order in (["1", "2"], ["2", "1"]):
        code, out, err = said(["compare", *order, "--out", str(tmp_path)], capsys)
        assert code in (0, 2)
        assert "Traceback" not in err
        assert out if code == 0 else "is damaged" in err


@pytest.mark.parametrize(
    "change",
    [
        lambda series, repeat: series.update(cool_down_s="x"),
        lambda series, repeat: repeat["summary"].pop("trust"),
        lambda series, repeat: repeat["summary"].pop("reason"),
        lambda series, repeat: repeat["summary"]["latency_ms"].pop("p50"),
    ],
    ids=["pause", "trust", "reason", "p50"],
)
def test_a_series_of_others_is_shown_or_told_as_damaged(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any], dict[str, Any]], None],
) -> None:
    folder = series(tmp_path, [10.0] * 2)
    found = [runlog.read_snapshot(path) for path in (folder, folder / "2")]
    change(*found)
    for path, one in zip((folder, folder / "2"), found, strict=True):
        runlog.write_snapshot(path, one)
    for command in (["show", "1"], ["show", "1", "--json"], ["list"]):
        code, _, err = said([*command, "--out", str(tmp_path)], capsys)
        assert (code, bool(err)) in ((0, False), (2, True))
        assert "Traceback" not in err


def test_a_folder_whose_name_steers_a_terminal_is_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("0001-\x1b]0;owned\x07", "0002-\x9b2J", "0003-\udcff"):
        shutil.copytree(SAMPLES[-1], tmp_path / name)
    finished(tmp_path, "good", 10.0)
    out = ["--out", str(tmp_path)]
    for command in (["list"], ["list", "--json"], ["history"], ["show", "1"], ["compare", "1"]):
        code, shown, err = said([*command, *out], capsys)
        assert code in (0, 2)
        for text in (shown, err):
            assert text.replace("\n", "").isprintable()
            assert "owned" not in text
    path = tmp_path / "0001-\x1b]0;owned\x07"
    assert "\x1b" not in said(["show", str(path), *out], capsys)[1]


def test_sums_are_written_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = finished(tmp_path, "one", 10.0)
    runlog.seal(folder)
    before = (folder / sums.FILE).read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))  # as on a full disk
    try:
        with pytest.raises(RunError, match="cannot be written"):
            sums.write(folder, (runlog.SNAPSHOT,))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (folder / sums.FILE).read_bytes() == before


# ---- hostile files

Harm = Callable[[Path], None]


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _sparse(path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(10_000_000_000)


def _emptied_sparse(path: Path) -> None:
    path.write_bytes(b"")
    _sparse(path)


def _deep(path: Path) -> None:
    first = path.read_bytes().split(b"\n", 1)[0][:-1] or b'{"a":1'
    path.write_bytes(first + b',"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n")


def _texts(text: str) -> Harm:
    """Every text of the file becomes this one."""

    def harm(path: Path) -> None:
        shown = json.dumps(text).encode()
        path.write_bytes(re.sub(rb'(?<=:)( ?)"[^"]*"', lambda _: shown, path.read_bytes()))

    return harm


def _content(data: bytes) -> Harm:
    def harm(path: Path) -> None:
        path.write_bytes(data)

    return harm


HARMS: dict[str, Harm] = {
    "gone": Path.unlink,
    "empty": _content(b""),
    "pipe": _pipe,
    "link": _link,
    "folder": _folder,
    "sparse": _sparse,
    "sparse from the start": _emptied_sparse,
    "deep": _deep,
    "terminal": _texts("\x1b]0;owned\x07\x1b[2J\u202e\r\x9b31m"),
    "foreign": _content(b"<!DOCTYPE html>\n<html>\n"),
    "list": _content(b"[1, 2]\n"),
    "nothing": _content(b"null\n"),
    "not a number": _content(b'{"schema": 1, "summary": {"asked": NaN, "done": Infinity}}\n'),
    "beyond": _content(b'{"schema": 1, "summary": {"asked": 1e999}}\n'),
    "not UTF-8": _content(b'{"scenario": "\xff\xfe"}\n'),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", HARMS)
def test_hostile_files_give_one_clear_error_and_harm_nothing(
    shelf: Path, name: str, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = shelf / "0002-bad"
    HARMS[harm](bad / name)
    before = digests(shelf)
    _all_readers_survive(shelf, capsys)
    assert digests(shelf) == before
    if name == "run.json" and harm not in ("sparse", "terminal"):
        problem = listed(shelf)[0]
        assert "run.json" in problem
        with pytest.raises(SpecError, match=r"run\.json: (cannot be read|is no run snapshot)"):
            runlog.read_snapshot(bad)


def _all_readers_survive(shelf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands(shelf, "2", "1"):
        code, out, err = said(command, capsys)
        assert code in (0, 2, 3)
        assert bool(err) == (code != 0)
        assert err.count("loadbench: ") <= 1
        assert err.count("\n") <= 2
        assert (out + err).replace("\r\n", "").replace("\n", "").isprintable()
        assert "root:" not in out + err  # of what a link leads to
    assert len(listed(shelf)) == 2
    assert listed(shelf)[1] == ""
    followed(shelf / "0002-bad", patience_s=0.1)


SWAPS = st.sampled_from(
    [b"-1", b"0", b"1e308", b"NaN", b"9" * 30, b"null", b"[]", b"{}", b"true", b'"\\u001b[2J"']
)
TOKEN = re.compile(rb'-?\d+(?:\.\d+)?|"[^"]*"|null|true|false')


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """A file and what it holds now: cut, with other bytes, or with other values."""
    name = draw(st.sampled_from(FILES))
    data = (SAMPLES[-1] / name).read_bytes()
    way = draw(st.sampled_from(("cut", "bytes", "values", "values")))
    if way == "cut":
        return name, data[: draw(st.integers(0, len(data) - 1))]
    if way == "bytes" or name == "arrivals.bin":
        changed = bytearray(data)
        for _ in range(draw(st.integers(1, 8))):
            changed[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        return name, bytes(changed)
    for _ in range(draw(st.integers(1, 3))):
        tokens = list(TOKEN.finditer(data))
        token = tokens[draw(st.integers(0, len(tokens) - 1))]
        data = data[: token.start()] + draw(SWAPS) + data[token.end() :]
    return name, data


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(change=damaged())
def test_damaged_files_are_read_or_refused_and_no_reader_falls_over(
    change: tuple[str, bytes], shelf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, data = change
    bad = shelf / "0002-bad"
    for whole in FILES:
        shutil.copyfile(SAMPLES[-1] / whole, bad / whole)
    (bad / name).write_bytes(data)
    _all_readers_survive(shelf, capsys)


def test_a_line_without_an_end_is_not_read_to_its_end(shelf: Path) -> None:
    log = shelf / "0002-bad" / runlog.LOG
    _emptied_sparse(log)
    with pytest.raises(SpecError, match="more than 64000000 bytes"):
        list(runlog.read(log.parent))
    with pytest.raises(SpecError, match="more than 64000000 bytes"):
        list(logindex.scan(log))
    _sparse(log.with_name(arrivals.FILE))
    assert len(arrivals.read(log.with_name(arrivals.FILE)).records) == arrivals.MOST


def test_a_histogram_that_unpacks_to_gigabytes_is_none() -> None:
    values = np.exp(np.random.default_rng(7).normal(17, 2, 100_000)).astype(np.int64)
    whole = Histogram.of(values)
    assert len(whole.encode()) > 4_000
    assert Histogram.decode(whole.encode()) == whole
    packed = zlib.compress(b"\0" * 50_000_000, 9)
    head = b"\x1c\x84\x93\x14" + len(packed).to_bytes(4, "big")
    with pytest.raises(ValueError, match="unpacks to more"):
        Histogram.decode(base64.b64encode(head + packed).decode())
    for wrong in (head[:4] + b"\0\0\0\0" + packed, head[1:] + packed, head + packed[:-8]):
        with pytest.raises(ValueError, match="not an HdrHistogram"):
            Histogram.decode(base64.b64encode(wrong).decode())
    assert Histogram.decode(whole.encode()) == whole  # what was wrong left nothing behind
    with pytest.raises(ValueError, match="too long"):
        Histogram.decode("A" * 1_000_000)


@pytest.mark.parametrize(
    "content",
    ['{"steady": 7}', "[" * 100_000, '{"a": NaN}', "\x1b[2J", '{"good": "../../elsewhere"}'],
)
def test_hostile_baselines(shelf: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (shelf / baseline.FILE).write_text(content)
    code, out, err = said(["compare", "good", "2", "--out", str(shelf)], capsys)
    assert code == 2
    assert baseline.FILE in err or "lies outside" in err
    assert (out + err).replace("\n", "").isprintable()


@pytest.mark.parametrize("harm", [_pipe, _folder, _link])
def test_baselines_that_are_no_file(
    shelf: Path, harm: Harm, capsys: pytest.CaptureFixture[str]
) -> None:
    (shelf / baseline.FILE).touch()
    harm(shelf / baseline.FILE)
    code, _, err = said(["baseline", "list", "--out", str(shelf)], capsys)
    assert code == 2
    assert "is no regular file" in err or "it is a link" in err


def test_json_as_files_take_it() -> None:
    assert files.value(b'{"a\x7f": ["\\u001b"]}') == {"a\\x7f": ["\\x1b"]}
    for data in (b"[" * 65 + b"]" * 65, b"[" * 100_000, b"[NaN]", b"[1e999]", b"\xff", b""):
        with pytest.raises(ValueError, match=r"."):
            files.value(data)
