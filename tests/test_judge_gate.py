"""What verdicts are worth to a script: exit codes of compare, and of runs with a baseline."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from loadbench import baseline, runlog, spec
from loadbench.cli.gate import Gate
from loadbench.errors import SpecError
from loadbench.judge.comparison import Terms
from loadbench.report.against import against
from loadbench.report.conclusion import concluded
from loadbench.report.sides import side
from loadbench.summary import Summary, summarise
from tests.running import loadbench, scenario
from tests.test_repeats import series

pytestmark = pytest.mark.long

NEAR = [20.0, 20.2, 20.1, 19.9, 20.3, 20.0]


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Series 1 and 2 alike, 3 slower by half; 4 has three repeats."""
    for p99s in (NEAR, NEAR, [ms * 1.5 for ms in NEAR], NEAR[:3]):
        series(tmp_path / "results", p99s)
    return tmp_path


def test_compare_exits_by_its_verdict_only_when_asked_to(three: Path) -> None:
    text = loadbench("compare", "1", "3", cwd=three).stdout
    assert "+50.0 %" in text
    assert "▲ worse" in text
    assert "6+6" in text
    told = loadbench("compare", "1", "3", "--gate", "p99=10%", cwd=three, code=1).stderr
    assert "worse than 0001-series: p99 +50.0 %" in told
    loadbench("compare", "1", "3", "--gate", "p99=60%", cwd=three)
    fine = loadbench("compare", "1", "2", "--gate", "p99", "--gate", "p50=3%", cwd=three).stderr
    assert "no regression shown" in fine
    assert "can have been missed: p50" in fine
    few = loadbench("compare", "1", "4", "--gate", "p99", cwd=three, code=4).stderr
    assert "6 + 3 repeats" in few
    assert "of any size can have been missed" in few
    loadbench("compare", "1", "2", "--gate", "p98=1%", cwd=three, code=2)
    loadbench("compare", "1", "2", "--gate", "p99=", cwd=three, code=2)


def test_several_runs_make_a_side(three: Path) -> None:
    arguments = ("--a", "1/1,1/2,1/3", "--b", "2/1,2/2,2/3", "--json")
    found = json.loads(loadbench("compare", *arguments, cwd=three).stdout)
    assert (found["a"], found["b"]) == ("A", "B")
    (row,) = (row for row in found["rows"] if row["metric"] == "p99")
    assert (row["n"], row["word"], row["more"]) == ([3, 3], "inconclusive", 2)
    assert row["a_values"] == pytest.approx(NEAR[:3], rel=1e-3)
    loadbench("compare", "1", "--a", "2", "--b", "3", cwd=three, code=2)
    loadbench("compare", "--a", "2", cwd=three, code=2)
    loadbench("compare", cwd=three, code=2)


def test_a_run_counts_once_and_says_nothing_against_itself(three: Path) -> None:
    same = ",".join(["1/1"] * 6)
    wrong = [("--a", same, "--b", "3"), ("--a", "1,1/2", "--b", "3"), ("--a", "1", "--b", "1/6")]
    for arguments in [*wrong, ("1", "1"), ("1", "2", "1"), ("4",)]:
        done = loadbench("compare", *arguments, "--gate", "p99", cwd=three, code=2)
        assert "is named twice" in done.stderr
        assert not done.stdout


def test_more_than_two_are_a_table(three: Path) -> None:
    text = loadbench("compare", "1", "2", "3", "--gate", "p99", cwd=three, code=1).stdout
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "★" in rows["0001-series"]
    assert "p99 same" in rows["0002-series"]
    assert rows["0003-series"].endswith("p99 worse")
    assert "★" not in rows["0003-series"]
    found = json.loads(loadbench("compare", "1", "2", "3", "--json", cwd=three).stdout)
    assert [entry["front"] for entry in found["entries"]] == [True, True, False]


def test_different_work_is_refused_unless_asked_for(three: Path) -> None:
    for path in runlog.repeats(runlog.find("3", three / "results")):
        snapshot = runlog.read_snapshot(path)
        snapshot["spec"]["load"]["seed"] = 8
        runlog.write_snapshot(path, snapshot)
    told = loadbench("compare", "1", "3", cwd=three, code=2).stderr
    assert "did different work (load.seed" in told
    loadbench("compare", "1", "3", "--anyway", "--gate", "p99", cwd=three, code=1)


def test_a_run_is_held_against_its_baseline(three: Path) -> None:
    results = three / "results"
    first, same, slower, few = runlog.runs(results)
    terms = Gate("first", Terms(), strict=False)
    baseline.put(results, "first", first)
    base = side([first])
    assert terms.held(base, same).decision.code == 0
    assert terms.held(base, slower).decision.code == 1
    assert terms.held(base, few).decision.code == 4


def test_what_cannot_be_a_baseline_is_known_before_the_run(three: Path) -> None:
    results = three / "results"
    chosen = spec.load("steady")
    with pytest.raises(SpecError, match="there is no baseline 'steady'"):
        Gate("baseline", Terms(), False).opened(chosen, results)
    baseline.put(results, "steady", runlog.find("1", results))
    with pytest.raises(SpecError, match="0001-series did different work"):
        Gate("baseline", Terms(), False).opened(chosen, results)
    with pytest.raises(SpecError, match="no run 'nix'"):
        Gate("nix", Terms(), False).opened(chosen, results)
    loadbench("run", "steady", "--strict", cwd=three, code=2)


def test_one_run_a_side_is_no_verdict_and_says_what_can_be_missed(tmp_path: Path) -> None:
    path = scenario(tmp_path, s=1)
    loadbench("run", path, cwd=tmp_path)
    loadbench("baseline", "set", cwd=tmp_path)
    arguments = ("run", path, "--baseline", "own", "--repeats", "1")
    done = loadbench(*arguments, "--json", cwd=tmp_path, code=4)
    assert "0001-own-fake has 1 of the 5 repeats that a verdict takes" in done.stderr
    assert "no verdict against 0001-own-fake" in done.stderr
    assert "of any size can have been missed" in done.stderr
    assert json.loads(done.stdout)["comparison"]["a"] == "0001-own-fake"
    other = loadbench(*arguments, "--rate", "100", cwd=tmp_path, code=2)
    assert "did different work: phases" in other.stderr


def test_checks_and_comparison_are_one_conclusion(three: Path) -> None:
    """What fails in either fails; without a verdict in one the other still can."""
    results = three / "results"
    first, same, slower, few = runlog.runs(results)
    gate = Gate("first", Terms(), strict=False)
    run = concluded([summary_of(first)], 0, False, False)
    cases = ((same, "passed", 0), (slower, "failed", 1), (few, "no verdict", 4))
    for folder, state, code in cases:
        found = against(run, *gate.held(side([first]), folder), False)
        assert (found.state, found.exit_code) == (state, code)
        assert [one.state for one in found.findings if one.about == "comparison"] == [state]
    warned = against(run, *gate.held(side([first]), few), True)
    assert (warned.state, warned.exit_code) == ("no verdict", 0)
    assert "of any size" in warned.missed
    broken = replace(run, state="failed", exit_code=1, sentence="p99 153 ms, not < 100 ms")
    both = against(broken, *gate.held(side([first]), slower), False)
    assert both.exit_code == 1
    assert "153 ms" in both.sentence
    assert "worse than 0001-series" in both.sentence
    assert against(broken, *gate.held(side([first]), few), True).exit_code == 1
    gone = replace(run, state="error", exit_code=3, sentence="the engine died")
    assert against(gone, *gate.held(side([first]), slower), False).exit_code == 3


def summary_of(folder: Path) -> Summary:
    found = summarise(runlog.read(runlog.repeats(folder)[0]))
    assert found is not None
    return found
