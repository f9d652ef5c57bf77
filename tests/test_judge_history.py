"""Change points: the statistic against its definition, known answers, chance, and the command."""

import itertools
import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.judge.history import LEVEL, changes, energy, level
from loadbench.report.history import history
from loadbench.report.historypage import history_text
from loadbench.units import significant
from tests.ended import finished
from tests.foreign import said
from tests.published import holds
from tests.test_repeats import series


def _energy_by_definition(left: list[float], right: list[float]) -> float:
    """Matteson and James, equations 4 to 6, with alpha = 1."""
    n, m = len(left), len(right)
    across = sum(abs(x - y) for x in left for y in right) * 2 / (n * m)
    inside = [
        sum(abs(x - y) for x, y in itertools.combinations(part, 2)) / math.comb(len(part), 2)
        for part in (left, right)
    ]
    return n * m / (n + m) * (across - sum(inside))


def test_the_energy_is_that_of_its_definition() -> None:
    values = np.random.default_rng(3).normal(size=11).tolist()
    found = energy(np.abs(np.subtract.outer(values, values)))
    assert found.shape == (12, 12)
    for cut, end in itertools.product(range(12), repeat=2):
        if cut >= 2 and end - cut >= 2:
            wanted = _energy_by_definition(values[:cut], values[cut:end])
            assert found[cut, end] == pytest.approx(wanted)
        else:
            assert found[cut, end] == -math.inf


def noisy(*levels: tuple[float, int], seed: int = 5, cv: float = 0.03) -> list[float]:
    """Runs at levels one after the other, with the scatter of real repeats."""
    chance = np.random.default_rng(seed)
    means = [mean for mean, count in levels for _ in range(count)]
    found: list[float] = (np.array(means) * np.exp(chance.normal(0, cv, len(means)))).tolist()
    return found


def test_steps_are_found_where_they_are() -> None:
    more = 0
    for seed in range(6):
        found = changes(noisy((50, 15), (60, 12), (48, 15), seed=seed))
        assert {15, 27} <= {change.at for change in found}
        assert all(change.p <= LEVEL for change in found)
        more += len(found) - 2
    assert more <= 1  # by chance: 18 segments without a change


def test_what_was_bad_for_a_while_is_seen() -> None:
    found = changes(noisy((50, 8), (57, 9), (49, 6)))
    assert [change.at for change in found] == [8, 17]


def test_percentiles_among_the_failed_are_larger_than_any() -> None:
    (change,) = changes([*noisy((50, 8)), *[math.inf] * 8])
    assert change.at == 8
    assert changes([math.inf] * 9) == []


def test_the_last_ones_of_a_long_history_are_looked_at() -> None:
    values = [*noisy((10, 100)), *noisy((50, 190)), *noisy((70, 10))]
    assert [change.at for change in changes(values)] == [290]


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 9.0, 9.0], [4.0] * 50, [1.0, 1.0, 9.0, 9.0]])
def test_what_cannot_show_a_change(values: list[float]) -> None:
    assert changes(values) == []


def test_without_a_change_there_is_seldom_one() -> None:
    found = [bool(changes(noisy((50, 24), seed=seed, cv=0.1))) for seed in range(150)]
    assert sum(found) <= 9  # of 3 expected; more than 9 has a chance of 1 in 1,000


def test_level() -> None:
    assert level([3.0, 1.0, math.inf]) == 3.0
    assert level([1.0, 2.0]) == 1.5
    assert level([1.0, math.inf]) == math.inf


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Twelve runs; from the seventh on, commit c6, they are a fifth slower."""
    for number, latency in enumerate(noisy((50, 6), (60, 6), cv=0.01)):
        folder = finished(tmp_path, "steady", latency)
        snapshot = runlog.read_snapshot(folder)
        runlog.write_snapshot(folder, {**snapshot, "commit": f"c{number}"})
    finished(tmp_path, "other", 500.0, scenario="other")
    return tmp_path


def changed(results: Path, run: str, **parts: Any) -> None:
    """Writes other values into a run's snapshot; of tables only those that are given."""
    folder = runlog.find(run, results)
    runlog.write_snapshot(folder, merged(runlog.read_snapshot(folder), parts))


def merged(table: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: merged(table[key], value)
        for key, value in parts.items()
        if isinstance(value, dict) and isinstance(table.get(key), dict)
    }
    return {**table, **parts, **both}


def test_the_first_bad_commit_is_named(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(results)]
    code, text, err = said(["history", "steady", *out], capsys)
    assert (code, err) == (0, "")
    lines = text.splitlines()
    assert lines[0] == "steady   p99 ms   12 runs"
    (told,) = [line for line in lines if "✗ worse" in line]
    assert "worse from c6 (0007-steady) on: 50." in told
    assert "last before: c5 (0006-steady)" in told
    (begins,) = [line for line in lines if line.endswith("▲ worse")]
    assert begins.split()[0] == "0007-steady"
    facts = json.loads(said(["history", "steady", "--json", *out], capsys)[1])
    (change,) = facts["changes"]
    assert (change["run"], change["commit"], change["worse"]) == ("0007-steady", "c6", True)
    assert change["after"] / change["before"] == pytest.approx(1.2, rel=0.03)
    assert len(facts["runs"]) == 12
    figures = [run["figure"] for run in facts["runs"]]
    assert change["before_in"] == [min(figures[:6]), max(figures[:6])]
    assert change["after_in"] == [min(figures[6:]), max(figures[6:])]
    low, high = (significant(end) for end in change["after_in"])
    assert f"→ {significant(change['after'])} ({low} to {high})" in told
    assert "medians of the runs before and after have no ±" in text
    holds("history", facts)


def test_a_faster_one_is_better_and_throughput_is_the_other_way(results: Path) -> None:
    for _ in range(8):
        finished(results, "steady", 20.0)
    last = history(results, "steady", "p50").steps[-1]
    assert (last.at, last.worse) == (12, False)
    assert history(results, "steady", "throughput").steps == ()


def test_the_chart_fits_and_shows_the_change(results: Path) -> None:
    text = history_text(history(results, "steady", "p99"), 40)
    chart = text.splitlines()[2:12]
    assert max(map(len, chart)) <= 40
    bars = [line[11:] for line in chart]
    assert bars[0].strip()  # the slow ones reach to the top
    assert bars[0].startswith(" " * 6)  # the fast ones do not
    assert bars[7] == "█" * 12
    assert bars[9] == " " * 6 + "✗"


def test_percentiles_of_single_runs_stand_with_their_bands(results: Path) -> None:
    folder = runlog.find("12", results)
    snapshot = runlog.read_snapshot(folder)
    snapshot["summary"]["bands_ms"] = {"p99": [50.0, 70.0]}
    runlog.write_snapshot(folder, snapshot)
    found = history(results, "steady", "p99")
    rows = {line.split()[0]: line for line in history_text(found, 80).splitlines() if line.strip()}
    assert "±" in rows["0012-steady"]
    assert "±" not in rows["0011-steady"]
    assert "where there is none" in rows["±"]
    assert "±" not in history_text(history(results, "steady", "throughput"), 80)
    assert [point.no_band[:10] for point in found.points[:2]] == ["80 seconds"] * 2
    snapshot["summary"]["more_bands_ms"] = {"lateness_ms": {"p99": [0.0, 1.0]}}
    snapshot["summary"]["lateness_ms"]["p99"] = 0.5
    runlog.write_snapshot(folder, snapshot)
    late = history(results, "steady", "lateness p99")
    assert [point.band for point in late.points if point.run == "0012-steady"] == [(0.0, 1.0)]
    assert "where there is none" in history_text(late, 80)


def test_a_figure_that_no_run_has_is_said(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = said(["history", "--out", str(tmp_path / "none")], capsys)
    assert (code, err.splitlines()[0]) == (2, f"loadbench: no finished runs in {tmp_path / 'none'}")
    out = ["--out", str(results)]
    for as_json in ((), ("--json",)):
        command = ["history", "steady", "--metric", "energy", *as_json, *out]
        code, text, err = said(command, capsys)
        assert (code, text) == (2, "")
        assert "none of the finished runs of 'steady' has energy" in err
    for number in range(1, 13):
        changed(results, str(number), summary={"trust": "invalid"})
    code, _, err = said(["history", "steady", *out], capsys)
    assert (code, "can be trusted" in err) == (2, True)


@pytest.mark.parametrize(
    "broken",
    [
        {"latency_ms": "x"},
        {"latency_ms": {"p99": "x"}},
        {"latency_ms": {"p99": 1e308}},
        {"bands_ms": {"p99": ["50", {}]}},
        {"bands_ms": 3},
        {"asked": "x"},
    ],
)
def test_one_damaged_run_is_left_out_and_named(
    results: Path, capsys: pytest.CaptureFixture[str], broken: dict[str, Any]
) -> None:
    changed(results, "12", summary=broken)
    (results / "0001-steady" / runlog.SNAPSHOT).write_text("{")
    metric = "failed" if "asked" in broken else "p99"
    out = ["--out", str(results)]
    code, text, err = said(["history", "steady", "--metric", metric, *out], capsys)
    assert (code, err) == (0, "")
    assert "▲ left out, damaged: 0001-steady, 0012-steady; loadbench list tells more" in text
    assert "10 runs" in text.splitlines()[0]
    facts = json.loads(said(["history", "steady", "--metric", metric, "--json", *out], capsys)[1])
    assert facts["damaged"] == ["0001-steady", "0012-steady"]


def test_runs_of_other_work_are_another_history(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1, 7):
        changed(results, str(number), spec={"load": {"seed": 8}})
    out = ["--out", str(results)]
    text = said(["history", "steady", *out], capsys)[1]
    assert text.startswith("steady   p99 ms   6 runs\n")
    assert "no change" in text
    assert "▲ left out, of other work than 0012-steady: 6 runs (load.seed 8 → 7)" in text
    assert "loadbench history --like 0006" in text
    older = said(["history", "--like", "6", *out], capsys)[1]
    assert older.startswith("steady   p99 ms   6 runs\n")
    assert "of other work than 0006-steady: 6 runs (load.seed 7 → 8)" in older
    facts = json.loads(said(["history", "steady", "--json", *out], capsys)[1])
    assert facts["other_work"] == [f"000{number}-steady" for number in range(1, 7)]
    assert said(["history", "steady", "--like", "13", *out], capsys)[0] == 2


def test_settings_that_changed_with_the_figures_are_said(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(7, 13):
        changed(results, str(number), spec={"engine": {"max_batch": 1}})
    out = ["--out", str(results)]
    text = said(["history", "steady", *out], capsys)[1]
    assert "    settings changed too: engine.max_batch 32 → 1\n" in text
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert rows["0007-steady"].endswith("▲ worse   other settings")
    assert "other settings" not in rows["0008-steady"]
    facts = json.loads(said(["history", "steady", "--json", *out], capsys)[1])
    assert facts["changes"][0]["settings_changed"] == ["engine.max_batch 32 → 1"]


@pytest.mark.parametrize(("commit", "why"), [("c5", "not the code"), ("c5-dirty", "is not known")])
def test_a_commit_is_not_the_first_bad_one_where_it_is_the_last_good_one(
    results: Path, commit: str, why: str
) -> None:
    before = history_text(history(results, "steady", "p99"), 80)
    assert "the same commit" not in before
    for number in (6, 7):
        changed(results, str(number), commit=commit)
    text = history_text(history(results, "steady", "p99"), 80)
    (line,) = [line for line in text.splitlines() if "the same commit on both sides" in line]
    assert f"{commit}: " in line
    assert line.endswith(why)


class Repository:
    """One of git, with commits one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self._git("init", "-q")
        for key, text in (("email", "a@b.c"), ("name", "A")):
            self._git("config", f"user.{key}", text)

    def commit(self, text: str) -> str:
        self._git("commit", "-q", "--allow-empty", "-m", text)
        return self._git("rev-parse", "--short", "HEAD")

    def _git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=self._folder, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()


def test_after_a_bisect_the_runs_stand_in_the_order_of_their_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    repository = Repository(tmp_path / "repository")
    made = [repository.commit(f"c{number}") for number in range(12)]
    measured = [0, 11, 5, 8, 6, 7, 1, 2, 3, 4, 9, 10]  # as a bisect goes, and the rest after it
    for number, latency in zip(measured, noisy((50, 12), cv=0.01), strict=True):
        finished(results, "steady", latency * (1.3 if number >= 7 else 1))
        changed(results, str(measured.index(number) + 1), commit=made[number])
    outside = history(results, "steady", "p99")
    assert [point.commit for point in outside.points] == [made[number] for number in measured]
    assert "▲ git does not know all of their commits here" in history_text(outside, 80)
    monkeypatch.chdir(tmp_path / "repository")
    found = history(results, "steady", "p99")
    assert [point.commit for point in found.points] == made
    assert [found.points[step.at].commit for step in found.steps] == [made[7]]
    assert "git does not know" not in history_text(found, 80)
    for run, commit in (("2", f"{made[0]}-dirty"), ("3", made[0])):
        changed(results, run, commit=commit)
    runs = [point.run[:4] for point in history(results, "steady", "p99").points]
    assert runs[:3] == ["0001", "0003", "0002"]


@pytest.mark.parametrize("commit", ["--output=x", "HEAD", "", None, "0123456789"])
def test_a_commit_that_git_does_not_know_leaves_the_order_as_it_was(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit: str | None
) -> None:
    repository = Repository(tmp_path / "repository")
    made = [repository.commit(f"c{number}") for number in range(12)]
    for number, name in enumerate(reversed(made), 1):
        changed(results, str(number), commit=name)
    changed(results, "3", commit=commit)
    monkeypatch.chdir(tmp_path / "repository")
    found = history(results, "steady", "p99")
    assert [point.run for point in found.points] == [f"{n:04d}-steady" for n in range(1, 13)]
    assert len(found.notes) == 1
    changed(results, "3", commit=made[9])
    found = history(results, "steady", "p99")
    assert [point.commit for point in found.points] == made
    assert found.notes == ()


def test_rates_that_are_shares_of_a_capacity_are_one_kind_of_work(results: Path) -> None:
    for number in range(1, 13):
        load = {"calibrate": "3 s", "phases": [{"rate": "70 %"}]}
        changed(results, str(number), spec={"load": load}, phases=[{"start": 100.0 + number}])
    found = history(results, "steady", "p99")
    assert len(found.points) == 12
    assert "no two loads are alike" in history_text(found, 80)
    changed(results, "3", spec={"load": {"phases": [{"rate": "90 %"}]}})
    assert history(results, "steady", "p99").other == ("0003-steady",)


def test_the_last_scenario_few_runs_and_what_is_not_there(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(results)]
    text = said(["history", *out], capsys)[1]
    assert text.startswith("other   p99 ms   1 run\n")
    assert "no change that is more than chance (fewer than ten" in text
    for command, words in (
        (["history", "none"], "there are: other, steady"),
        (["history", "steady", "--metric", "speed"], "one of: throughput, p50"),
    ):
        code, _, err = said([*command, *out], capsys)
        assert code == 2
        assert words in err


def test_runs_that_nobody_may_believe_are_left_out(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished(results, "steady", 5000.0)
    snapshot = runlog.read_snapshot(folder)
    summary = {**snapshot["summary"], "trust": "invalid"}
    runlog.write_snapshot(folder, {**snapshot, "summary": summary})
    (results / "0001-steady" / runlog.SNAPSHOT).write_text("{")
    found = history(results, "steady", "p99")
    assert found.left_out == (folder.name,)
    assert len(found.points) == 11


def test_what_the_medians_of_a_series_do_not_hold_is_in_its_repeats(tmp_path: Path) -> None:
    folder = series(tmp_path, [10.0] * 3)
    for path, memory in zip(runlog.repeats(folder), (300, 100, 200), strict=True):
        found = runlog.read_snapshot(path)
        found["summary"]["machine"] = {"processes": {"engine": {"memory": memory * 2**20}}}
        runlog.write_snapshot(path, found)
    (point,) = history(tmp_path, "steady", "memory").points
    assert point.figure == 200.0
    with pytest.raises(SpecError, match="has energy"):
        history(tmp_path, "steady", "energy")
