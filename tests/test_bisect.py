"""The search for the first bad commit: what it refuses, and that the work tree is put back. That it
finds one is shown by tests/benchmarks/verdicts/bisect.py: each commit takes several runs."""

import subprocess
from pathlib import Path

import pytest

from loadbench import runlog
from loadbench.experiments.bisect import Measure, _candidates, halfway
from loadbench.judge.comparison import Terms, compare
from loadbench.judge.side import Side
from tests.ended import finished
from tests.running import loadbench
from tests.test_judge_comparison import side

SCENARIO = '[target]\nurl = "local:fake"\n[load]\nphases = [{{ rate = 50, for = "{seconds}s" }}]\n'


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three commits of one scenario, the second of which cannot be read."""
    git(tmp_path, "init", "--quiet", "--initial-branch", "trunk")
    (tmp_path / ".gitignore").write_text("results/\n")
    for number, text in enumerate(
        (SCENARIO.format(seconds=1), "[load", SCENARIO.format(seconds=2))
    ):
        (tmp_path / "own.toml").write_text(text)
        git(tmp_path, "add", "--all")
        git(tmp_path, "commit", "--quiet", "--message", f"commit {number}")
    return tmp_path


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (("HEAD", "HEAD~2"), "does not come before"),
        (("HEAD", "HEAD"), "does not come before"),
        (("nothing", "HEAD"), "'nothing' is no commit"),
        (("--all", "HEAD"), "no such option"),
        (("HEAD~1",), "needs two commits and a scenario"),
    ],
)
def test_ends_that_are_none_are_refused(
    repository: Path, ends: tuple[str, ...], words: str
) -> None:
    told = loadbench("bisect", *ends, "--", "own.toml", cwd=repository, code=2)
    assert words in told.stderr.lower().replace("’", "'") or words in told.stderr
    assert not (repository / "results").exists()


def test_a_work_tree_with_changes_is_left_alone(repository: Path) -> None:
    (repository / "own.toml").write_text("mine\n")
    told = loadbench("bisect", "HEAD~2", "HEAD", "--", "own.toml", cwd=repository, code=2)
    assert "the work tree has changes" in told.stderr
    assert (repository / "own.toml").read_text() == "mine\n"


def test_outside_of_a_repository_it_says_so(tmp_path: Path) -> None:
    told = loadbench("bisect", "a", "b", "--", "steady", cwd=tmp_path, code=2)
    assert "'a' is no commit" in told.stderr


def test_an_end_that_cannot_be_measured_is_named_and_the_tree_put_back(repository: Path) -> None:
    told = loadbench("bisect", "HEAD~1", "HEAD", "--", "own.toml", cwd=repository, code=3)
    assert "HEAD~1 could not be measured" in told.stderr
    assert git(repository, "rev-parse", "--abbrev-ref", "HEAD") == "trunk"
    assert git(repository, "status", "--porcelain") == ""


def test_a_commit_that_cannot_be_measured_is_skipped(repository: Path) -> None:
    loadbench("run", "own.toml", "--set", 'load.phases=[{rate=50,for="1s"}]', cwd=repository)
    git(repository, "checkout", "--quiet", "HEAD~1")
    told = loadbench("bisect", "--against", "last", "--", "own.toml", cwd=repository, code=125)
    assert "skipped: it could not be measured" in told.stderr


def test_what_it_was_told_wrong_makes_no_commit_bad(repository: Path) -> None:
    """git takes 1 to 127 for a bad commit, and our own codes for errors are among them."""
    for arguments in (("--against", "7", "--", "own.toml"), ("--against", "last"),
                      ("--against", "last", "--gate", "p98", "--", "own.toml")):  # fmt: skip
        told = loadbench("bisect", *arguments, cwd=repository, code=128)
        assert told.stderr.startswith("loadbench: ")


@pytest.mark.long
def test_a_series_that_cannot_be_judged_is_skipped(repository: Path) -> None:
    loadbench("run", "own.toml", cwd=repository)
    (good,) = runlog.runs(repository / "results")
    runlog.write_snapshot(good, {**runlog.read_snapshot(good), "spec": None})
    told = loadbench(
        "bisect", "--against", "1", "--repeats", "5", "--", "own.toml",
        "--set", 'load.phases=[{rate=50,for="1s"}]', cwd=repository, code=125,
    )  # fmt: skip
    assert "skipped: " in told.stderr
    assert "does not say what was asked" in told.stderr


def test_all_commits_are_measured_at_the_rates_of_the_good_one(tmp_path: Path) -> None:
    measure = Measure(("own.toml",), 6, tmp_path, Terms())
    good = finished(tmp_path, "good", 10.0)
    assert "--capacity" not in measure.command()
    assert "--capacity" not in measure.command(good)  # its rates were not in %
    runlog.write_snapshot(good, {**runlog.read_snapshot(good), "capacity": 123.25})
    told = measure.command(good)
    assert told[told.index("--capacity") + 1] == "123.25"
    assert told[-1] == "own.toml"


def test_the_margin_is_half_of_the_way_to_the_bad_end() -> None:
    def repeats(name: str, p99_ms: float) -> Side:
        return side(name, [p99_ms * (1 + 0.001 * number) for number in range(6)])

    slower = compare(repeats("good", 10.0), repeats("bad", 14.4), Terms())
    assert halfway(slower) == {"p99": pytest.approx(0.2, abs=0.005)}
    much = compare(repeats("good", 10.0), repeats("bad", 900.0), Terms())
    assert halfway(much) == {"p99": 0.9}
    assert halfway(compare(repeats("good", 10.0), repeats("same", 10.0), Terms())) == {}


def test_commits_that_git_leaves_open_are_told() -> None:
    one, two = "a" * 40, "b" * 40
    text = (
        "There are only 'skip'ped commits left to test.\n"
        f"The first bad commit could be any of:\n{one}\n{two}\nWe cannot bisect more!\n"
    )
    assert _candidates(text) == (one, two)
    assert _candidates("something else") == ()
