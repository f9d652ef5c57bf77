"""What is left for CI: JUnit, Markdown, JSON, annotations; also of hostile names."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest
from click.testing import CliRunner
from markdown_it import MarkdownIt
from msgspec.structs import replace

from loadbench.cli import cli
from loadbench.cli.outputs import Outputs
from loadbench.cli.outputs import replace as write
from loadbench.errors import RunError, SpecError
from loadbench.judge.checks import CHECK_FAILED, NO_VERDICT, NOT_MADE, PASSED, verdict
from loadbench.model import Check, End, Note, plain
from loadbench.report.annotations import annotations
from loadbench.report.conclusion import Conclusion, concluded, not_made
from loadbench.report.junit import junit_xml
from loadbench.report.markdown import LARGEST, code, markdown, prose
from loadbench.report.schema import KINDS, schema
from loadbench.summary import Summary, summarise
from loadbench.units import MS
from tests.ended import finished
from tests.records import start, window
from tests.running import loadbench, scenario

CHECKS = (Check("p99", False, 100 * MS, "< 100 ms"), Check("errors", False, 0.01, "< 1 %"))
HOSTILE = (
    "a|b`c``d <img src=x onerror=alert(1)> @everyone #12 [x](http://evil.example) "
    "www.evil.example \x1b[31mred\x1b[0m \u202eback\n::error::injected\r\n### head %0A"
)


def summary(slow: float = 20.0, **changes: Any) -> Summary:
    windows = [window(second, [slow] * 50, rate=50.0) for second in range(3)]
    found = summarise([start(checks=CHECKS), *windows, End(3, "done")])
    assert found is not None
    return replace(found, **{"trust": "trusted", **changes})


def conclusion(*summaries: Summary, warn: bool = False, certain: bool = False) -> Conclusion:
    return concluded(summaries, verdict(summaries, certain), warn, certain)


def cases(found: Conclusion) -> dict[str, str]:
    """Test case → what became of it."""
    root = ElementTree.fromstring(junit_xml(found))
    return {
        case.get("name", ""): next((c.tag for c in case), "passed")
        for case in root.iter("testcase")
    }


def test_a_test_case_for_each_check() -> None:
    assert conclusion(summary()).exit_code == PASSED
    assert cases(conclusion(summary())) == {"p99 < 100 ms": "passed", "errors < 1 %": "passed"}
    bad = conclusion(summary(slow=150.0))
    assert bad.exit_code == CHECK_FAILED
    assert cases(bad) == {"p99 < 100 ms": "failure", "errors < 1 %": "passed"}
    root = ElementTree.fromstring(junit_xml(bad))
    assert {name: root.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "2", "failures": "1", "errors": "0", "skipped": "0",
    }  # fmt: skip
    failure = next(root.iter("failure"))
    assert "p99 150 ms, not < 100 ms" in str(failure.get("message"))


def test_all_repeats_have_to_pass() -> None:
    found = conclusion(summary(), summary(slow=150.0))
    assert cases(found)["p99 < 100 ms"] == "failure"
    assert "p99 150 ms, not < 100 ms" in found.findings[0].text
    assert "1 of 2 repeats, this the worst" in found.findings[0].text
    good = conclusion(summary(), summary(slow=30.0)).findings[0].text
    assert good.startswith("p99 30.0 ms < 100 ms")


def test_no_verdict_is_skipped_with_its_reason_and_is_no_failure() -> None:
    late = (Note("generator-late", "the load generator was late by 80 ms (p99)"),)
    found = conclusion(summary(slow=150.0, trust="invalid", notes=late))
    assert (found.state, found.exit_code) == ("no verdict", NO_VERDICT)
    assert set(cases(found).values()) == {"skipped"}
    assert "late by 80 ms" in junit_xml(found)
    assert [line.partition(" ")[0] for line in annotations(found)] == ["::warning"]
    warned = conclusion(summary(slow=150.0, trust="invalid", notes=late), warn=True)
    assert (warned.state, warned.exit_code) == ("no verdict", 0)
    assert markdown(warned).startswith("### ▲ loadbench `steady`: no verdict: ")


@pytest.mark.parametrize("reason", ["stopped", "killed", "running"])
def test_a_run_that_was_not_finished_neither_passes_nor_fails(reason: str) -> None:
    for slow in (20.0, 150.0):
        found = conclusion(summary(slow, reason=reason, text="it broke off"))
        assert (found.state, found.exit_code) == ("no verdict", NO_VERDICT)
        why = "the run goes on" if reason == "running" else "not finished: it broke off"
        assert why in found.sentence
        assert set(cases(found).values()) == {"skipped"}
    asked_nothing = conclusion(summary(reason=reason, checks=()))
    assert asked_nothing.exit_code == (PASSED if reason == "stopped" else NO_VERDICT)


def test_what_is_not_shown_is_skipped_where_certainty_is_asked_for() -> None:
    assert set(cases(conclusion(summary(), certain=True)).values()) == {"skipped"}
    text = conclusion(summary(), certain=True).sentence
    assert "p99 20.0 ms < 100 ms, but not shown" in text


def test_a_run_that_was_not_made_is_an_error() -> None:
    found = not_made("steady", "no model `x`\nhere", "loadbench doctor", 2)
    assert cases(found) == {"run": "error"}
    assert annotations(found) == [
        "::error title=loadbench steady%3A the run could not be made"
        "::no model `x`%0Ahere%0Aloadbench doctor"
    ]
    died = conclusion(summary(reason="failed", text="the engine was killed"))
    assert died.exit_code == NOT_MADE
    assert cases(died) == {
        "p99 < 100 ms": "skipped", "errors < 1 %": "skipped", "run": "error",
    }  # fmt: skip


def test_percentiles_have_their_interval_or_say_why_not() -> None:
    for text in (markdown(conclusion(summary())), junit_xml(conclusion(summary()))):
        assert "80 seconds at one rate are needed" in text
    some = {"latency_ms": {"p99_9": "too few requests for it"}}
    mixed = summary(bands_ms={"p99": (19.0, 21.5)}, no_bands=some)
    assert "No ± of some: too few requests for it." in markdown(conclusion(mixed))
    sure = summary(bands_ms={"p99": (19.0, 21.5)}, no_bands={})
    for text in (markdown(conclusion(sure)), junit_xml(conclusion(sure))):
        assert "±1.5" in text


def test_nothing_in_a_name_is_acted_upon() -> None:
    """What a browser would get of the comment has no markup but ours."""
    notes = (Note("x", HOSTILE, HOSTILE),)
    found = conclusion(summary(scenario=HOSTILE, target=HOSTILE, run=HOSTILE, notes=notes))
    text = markdown(found)
    assert "\x1b" not in text
    assert "\u202e" not in text
    html = MarkdownIt("commonmark", {"linkify": False}).enable("table").render(text)
    bare = html.replace("<details><summary>Latency</summary>", "").replace("</details>", "")
    assert set(re.findall(r"</?([a-z0-9]+)", bare)) <= {
        "h3", "p", "code", "ul", "li", "table", "thead", "tbody", "tr", "th", "td",
    }  # fmt: skip
    outside = re.sub(r"<code>.*?</code>", "", html, flags=re.DOTALL)
    assert not re.search(r"@\w|#\d|://|www\.", outside)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows[:4]} == {4}


def test_code_and_prose_keep_what_they_say() -> None:
    html = MarkdownIt("commonmark").render
    for name in ("plain", "`", "a``b`c", "<b>", "*x*"):
        assert (
            html(code(name))
            == f"<p><code>{name.replace('<', '&lt;').replace('>', '&gt;')}</code></p>\n"
        )
    assert html(prose("a < b & c_d *e* 1.5 ±2 %")) == "<p>a &lt; b &amp; c_d *e* 1.5 ±2 %</p>\n"


def test_an_annotation_is_one_line_whatever_it_says() -> None:
    found = conclusion(summary(slow=150.0, scenario=HOSTILE))
    lines = annotations(found)
    assert len(lines) == 1
    for line in lines:
        assert line.startswith("::error title=")
        assert not re.search(r"[\r\n\x1b]", line)
        assert "%250A" in line  # its own percent sign is data
        title = line.split("::")[1].partition("title=")[2]
        assert ":" not in title
        assert "," not in title


def test_hostile_text_is_still_xml() -> None:
    found = conclusion(summary(slow=150.0, scenario=HOSTILE + "\ud800\x00\ufffe"))
    root = ElementTree.fromstring(junit_xml(found).encode())
    assert "onerror" in str(root[0].get("name"))


def test_a_comment_is_no_longer_than_a_forge_takes() -> None:
    notes = tuple(Note(f"n{n}", f"{n} " + "word " * 50) for n in range(1000))
    text = markdown(conclusion(summary(notes=notes)))
    assert len(text) < LARGEST + 100
    assert text.endswith("… cut here: the whole of it is in the run's folder\n")


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.xml"
    path.write_text("before")
    with pytest.raises(RunError, match="cannot be written"):
        write(tmp_path / "gone" / "out.xml", "after")
    with pytest.raises(UnicodeEncodeError):
        write(path, "half \ud800")
    assert path.read_text() == "before"
    write(path, "after")
    assert path.read_text() == "after"
    assert [one.name for one in tmp_path.iterdir()] == ["out.xml"]


def test_github_gets_annotations_and_its_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "summary.md"
    page.write_text("# another step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    found = conclusion(summary(slow=150.0))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    Outputs().conclude(found)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert Outputs().conclude(found) == CHECK_FAILED
    assert capsys.readouterr().err.startswith("::error title=")
    assert page.read_text().startswith("# another step\n### ✗ loadbench `steady`: failed: p99")


def test_published_schemas_hold_for_what_is_written(tmp_path: Path) -> None:
    """Of a real run: its summary, verdict and run.json, by the command line alone."""
    own = scenario(tmp_path, tables='[checks]\np99 = "< 10s"', s=1)
    files = {name: tmp_path / f"out.{name}" for name in ("junit", "markdown", "json-file")}
    given = [part for name, path in files.items() for part in (f"--{name}", path)]
    done = loadbench("run", own, "--json", *given, cwd=tmp_path)
    folder = next((tmp_path / "results").iterdir())
    verdict_ = json.loads(files["json-file"].read_text())
    written = {
        "summary": json.loads(done.stdout),
        "verdict": verdict_,
        "run": json.loads((folder / "run.json").read_text()),
    }
    for kind, found in written.items():
        published = json.loads(CliRunner().invoke(cli, ["schema", kind]).output)
        jsonschema.Draft202012Validator(published).validate(found)
    assert verdict_["summaries"][0] == written["summary"]
    later = [part for name in files for part in (f"--{name}", tmp_path / f"later.{name}")]
    loadbench("show", "1", *later, cwd=tmp_path)
    for name, path in files.items():
        assert (tmp_path / f"later.{name}").read_text() == path.read_text()


def test_schemas_say_no_to_what_is_none() -> None:
    for kind in KINDS:
        jsonschema.Draft202012Validator.check_schema(schema(kind))
    wrong = {**plain(summary()), "asked": "many"}
    assert not jsonschema.Draft202012Validator(schema("summary")).is_valid(wrong)
    assert not jsonschema.Draft202012Validator(schema("scenario")).is_valid({"lod": {}})


def test_what_cannot_be_written_is_said_before_the_run(tmp_path: Path) -> None:
    done = loadbench("run", "steady", "--junit", "gone/out.xml", cwd=tmp_path, code=2)
    assert "gone/out.xml: cannot be written" in done.stderr
    assert not (tmp_path / "results").exists()


def test_bad_input_is_an_error_in_the_files(tmp_path: Path) -> None:
    loadbench("run", "nothing-such", "--junit", "out.xml", cwd=tmp_path, code=2)
    root = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert root.get("errors") == "1"
    assert "nothing-such" in str(next(root.iter("error")).get("message"))


def test_a_series_in_which_nothing_was_recorded_says_so(tmp_path: Path) -> None:
    """As it is left where its first repeat was ended at once."""
    finished(tmp_path, "one", 10.0)
    path = tmp_path / "0001-one" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "kind": "series", "repeats": []}))
    asked = ["show", "1", "--out", str(tmp_path), "--junit", str(tmp_path / "out.xml")]
    found = CliRunner().invoke(cli, asked)
    assert isinstance(found.exception, SpecError)
    assert "nothing was recorded" in found.exception.message
