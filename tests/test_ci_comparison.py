"""What is left for CI of a run that is held against a baseline."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from loadbench import baseline, runlog, spec
from loadbench.cli import cli
from loadbench.cli.gate import Gate
from loadbench.errors import SpecError
from loadbench.judge import gate
from loadbench.judge.checks import CHECK_FAILED, NO_VERDICT, PASSED
from loadbench.judge.comparison import Comparison, Terms, compare
from loadbench.judge.gate import decision
from loadbench.model import encode, plain
from loadbench.report.against import against
from loadbench.report.annotations import annotations
from loadbench.report.comparison import comparison_text
from loadbench.report.conclusion import Conclusion, concluded
from loadbench.report.junit import junit_xml
from loadbench.report.markdown import markdown
from loadbench.report.schema import schema
from loadbench.summary import Summary
from tests.ended import finished
from tests.test_ci_outputs import HOSTILE, summary
from tests.test_judge_comparison import NEAR, one, side
from tests.test_repeats import series

DOCS = Path(__file__).parent.parent / "docs" / "ci"
WIDE = [40.0, 60.0, 45.0, 55.0, 48.0, 57.0]


def held(
    b: Sequence[float | None], a: Sequence[float | None] = NEAR, name: str = "base", **asked: bool
) -> Conclusion:
    """Six repeats against six, all trusted and with good checks."""
    trusted = {"trust": "trusted"}
    found = compare(side(name, a, **trusted), side("0007-steady", b, **trusted), Terms())
    return both(found, [summary()] * 6, PASSED, **asked)


def both(
    found: Comparison, runs: list[Summary], code: int, warn: bool = False, strict: bool = False
) -> Conclusion:
    """Runs with what a gate makes of their comparison."""
    return against(concluded(runs, code, warn, False), found, decision(found, strict), warn)


def outcome(found: Conclusion) -> str:
    """What became of the test case of the gated metric."""
    root = ElementTree.fromstring(junit_xml(found))
    case = next(c for c in root.iter("testcase") if "against" in str(c.get("name")))
    return next((child.tag for child in case), "passed")


def test_a_regression_fails_and_says_by_how_much() -> None:
    found = held([value * 1.2 for value in NEAR])
    assert (found.state, found.exit_code, outcome(found)) == ("failed", CHECK_FAILED, "failure")
    assert "p99 50.2 → 60.3 ms, +20.0 % (" in found.sentence
    assert found.sentence.startswith("worse than base: p99 ")
    assert found.sentence.endswith("margin 5.0 %")
    text = markdown(found)
    assert text.startswith("### ✗ loadbench `steady`: failed: worse than base: p99 ")
    row = next(line for line in text.splitlines() if "▲ worse" in line)
    assert row.startswith("| `p99 ms` | 50.2 | 60.3 | +20.0 % (")
    assert "medians of repeats have no ±" in text
    assert [line[:8] for line in annotations(found)] == ["::error "]


def test_nothing_worse_passes_and_says_what_could_have_been_missed() -> None:
    found = held(NEAR)
    assert (found.state, found.exit_code, outcome(found)) == ("passed", PASSED, "passed")
    assert re.fullmatch(
        r"smaller regressions than these can have been missed: p99 \d[\d.]* %", found.missed
    )
    assert found.missed in markdown(found).replace("\u2060", "")
    assert annotations(found) == []


def test_what_is_inconclusive_is_skipped_and_strictness_makes_it_no_verdict() -> None:
    lax = held(WIDE, WIDE[::-1])
    assert (lax.state, lax.exit_code, outcome(lax)) == ("passed", PASSED, "skipped")
    assert [line[:9] for line in annotations(lax)] == ["::notice "]
    strict = held(WIDE, WIDE[::-1], strict=True)
    assert (strict.state, strict.exit_code) == ("no verdict", NO_VERDICT)
    warned = held(WIDE, WIDE[::-1], strict=True, warn=True)
    assert (warned.state, warned.exit_code) == ("no verdict", 0)


def test_no_verdict_is_warned_of_with_the_smallest_regression_that_could_have_been_missed() -> None:
    trusted = side("base", WIDE, trust="trusted")
    found = compare(trusted, side("0007", [v * 3 for v in WIDE], trust="invalid"), Terms())
    bad = summary(trust="invalid")
    told = both(found, [bad] * 6, NO_VERDICT, warn=True)
    assert (told.state, told.exit_code, outcome(told)) == ("no verdict", 0, "skipped")
    (line,) = annotations(told)
    assert line.startswith("::warning title=loadbench steady%3A no verdict::")
    assert re.search(r"smaller regressions than these can have been missed: p99 [\d.]+ %25$", line)
    single = compare(one("base", 50.0), one("0007", 90.0))
    told = both(single, [summary()], PASSED, warn=True)
    assert (told.state, told.exit_code) == ("no verdict", 0)
    assert "any size can have been missed" in annotations(told)[0]
    assert told.title.startswith("no verdict against base: 1 run each")
    assert markdown(told).startswith("### ▲ loadbench `steady`: no verdict against base: ")


def test_a_check_that_failed_stands_though_the_comparison_has_no_verdict() -> None:
    single = compare(one("base", 50.0), one("0007", 50.0))
    found = both(single, [summary(slow=150.0)], CHECK_FAILED, warn=True)
    assert (found.state, found.exit_code) == ("failed", CHECK_FAILED)


def test_a_regression_is_found_though_a_check_is_not_shown() -> None:
    trusted = {"trust": "trusted"}
    worse = side("0007", [value * 1.2 for value in NEAR], **trusted)
    compared = compare(side("base", NEAR, **trusted), worse)
    unsure = concluded([summary()] * 6, NO_VERDICT, False, True)
    found = against(unsure, compared, decision(compared), False)
    assert (found.state, found.exit_code) == ("failed", CHECK_FAILED)


def test_differences_and_hostile_baselines_do_no_harm() -> None:
    found = held(NEAR, name=HOSTILE)
    assert found.comparison is not None
    different = compare(one("a", 50.0, loadbench="0.1"), one("b", 50.0, loadbench=HOSTILE))
    text = markdown(replace(found, comparison=replace(different, a=HOSTILE)))
    assert "<summary>Differs from the baseline (1)</summary>" in text
    assert "<img" not in re.sub(r"(`+).*?\1", "", text)
    assert ElementTree.fromstring(junit_xml(found)) is not None
    assert all("\n" not in line for line in annotations(found))


def test_single_runs_carry_their_bands_or_say_why_not() -> None:
    sure, unsure = one("a", 50.0), one("b", 50.0)
    sure.snapshots[0]["summary"] |= {"bands_ms": {"p99": [48.0, 53.0]}, "no_bands": {}}
    text = comparison_text(compare(sure, unsure))
    assert re.search(r"p99 ms +50\.\d ±\d\.\d", text)
    assert "± of a single run holds at 95 %" in text
    assert "no ± of b: 80 seconds at one rate are needed" in text


def test_the_comparison_keeps_its_schema() -> None:
    found = held([value * 1.2 for value in NEAR])
    validator = jsonschema.Draft202012Validator
    written = json.loads(encode(found))
    validator(schema("comparison")).validate(written["comparison"])
    validator(schema("verdict")).validate(written)
    assert not validator(schema("comparison")).is_valid({**written["comparison"], "rows": 3})


@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml", "README.md"])
def test_the_workflows_call_what_there_is(name: str) -> None:
    """Every option of each call of loadbench in them."""
    text = (DOCS / name).read_text().replace("\\\n", " ").replace('"${against[@]}"', "--baseline")
    calls = re.findall(r"loadbench (run|list|show|schema|ab|baseline set)\b([^\n`]*)", text)
    assert calls
    for command, rest in calls:
        helped = CliRunner().invoke(cli, [*command.split(), "--help"]).output
        for option in re.findall(r"(?<!\S)--[a-z-]+", rest):
            assert option in helped, f"loadbench {command} {option}"


def test_a_finished_run_is_held_against_a_baseline_later(tmp_path: Path) -> None:
    for name, latency in (("one", 10.0), ("two", 12.0)):
        finished(tmp_path, name, latency)
    shown = ["show", "2", "--out", str(tmp_path), "--baseline", "1"]
    page = tmp_path / "page.md"
    assert CliRunner().invoke(cli, [*shown, "--markdown", str(page)]).exit_code == 0
    text = page.read_text()
    assert "no verdict against 0001-one: 1 run each" in text
    assert "Against `0001-one` (A):" in text
    refused = CliRunner().invoke(cli, shown)
    assert isinstance(refused.exception, SpecError)


def script(name: str) -> str:
    """The step of a workflow that makes a run the baseline."""
    blocks = re.findall(r"^( +)(?:- |run: )\|\n((?:\1 .*\n|\n)+)", (DOCS / name).read_text(), re.M)
    return next(textwrap.dedent(text) for _, text in blocks if "baseline set" in text)


@pytest.mark.parametrize(
    ("name", "state", "kept"),
    [
        ("github.yml", "passed", "0020-last"),
        ("github.yml", "no verdict", "0001-run"),
        ("gitlab.yml", "passed", "0020-last"),  # it gets no further where there is no verdict
    ],
)
def test_the_workflows_make_the_last_run_the_baseline(
    name: str, state: str, kept: str, tmp_path: Path
) -> None:
    if name == "github.yml" and not shutil.which("jq"):
        pytest.skip("jq is not here; runners of GitHub have it")
    results = tmp_path / "results"
    for run in [*["run"] * 19, "last"]:
        finished(results, run, 10.0)
    baseline.put(results, "steady", results / "0001-run")
    (tmp_path / "loadbench.json").write_text(json.dumps({"state": state}))
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CI_COMMIT_BRANCH": "main",
        "CI_DEFAULT_BRANCH": "main",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }
    command = ["bash", "-eo", "pipefail", "-c", script(name)]
    for _ in range(2):  # also where it is made anew
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)
    assert baseline.read(results) == {"steady": kept}
    assert len([*results.glob("0*")]) == (1 if state == "passed" else 20)
    if name == "github.yml":
        assert (tmp_path / "output").exists() == (state == "passed")


@pytest.mark.parametrize("warn", [False, True])
def test_other_work_is_no_missing_verdict_that_could_be_let_pass(warn: bool) -> None:
    other = side("0007-steady", NEAR, trust="trusted")
    for one_ in other.snapshots:
        one_["target"] = {"model": "another"}
    found = compare(side("base", NEAR, trust="trusted"), other)
    made = gate.held(found)
    assert made.code == 2
    told = against(concluded([summary()] * 6, PASSED, warn, False), found, made, warn)
    assert (told.state, told.exit_code) == ("error", 2)
    assert "nothing is held against base: the two sides did different work" in told.sentence
    assert "there is no baseline for it" in annotations(told)[0]
    assert 'type="different work"' in junit_xml(told)
    bad = concluded([summary(slow=150.0)] * 6, CHECK_FAILED, warn, False)
    failed = against(bad, found, made, warn)
    assert (failed.state, failed.exit_code) == ("failed", CHECK_FAILED)


def test_junit_names_the_smallest_regression_that_could_have_been_missed() -> None:
    assert "can have been missed" in junit_xml(held(WIDE, WIDE[::-1]))


def test_a_baseline_of_another_model_is_told_before_the_run(tmp_path: Path) -> None:
    folder = series(tmp_path, NEAR)
    first = runlog.read_snapshot(folder / "1")
    assert first["target"]["model"] == "mlp"
    load = spec.load("steady")
    for path in runlog.repeats(folder):
        found = runlog.read_snapshot(path)
        found["spec"] = load.spec.model_dump(mode="json")
        found["spec"]["target"]["url"] = "local:mlp"
        found["phases"] = [plain(phase) for phase in load.spec.load.resolve(100.0)]
        found["capacity"] = 100.0
        runlog.write_snapshot(path, found)
    asked = Gate(str(folder), Terms(), strict=False)
    for url, told in (
        ("local:mlp", ""),
        ("local:fake", "target.model was 'mlp', here it is 'fake'"),
    ):
        other = spec.load("steady", {"target.url": url})
        try:
            asked.opened(other, tmp_path)
            said = ""
        except SpecError as error:
            said = error.message
        assert (told in said) if told else "target" not in said
