"""The HTML report as text: which parts it has for which run, what it says, what it escapes."""

import html
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadbench import baseline, runlog
from loadbench.cli import main
from loadbench.errors import SpecError
from loadbench.histogram import Histogram
from loadbench.model import (
    AlertChange,
    Check,
    End,
    Example,
    Mark,
    Minute,
    Note,
    Record,
    Remark,
    Sample,
    encode,
)
from loadbench.report.html import report
from loadbench.report.page.again import command_text, scenario_text
from loadbench.report.page.engine import knee
from loadbench.report.page.figures import Point
from loadbench.report.page.material import read
from loadbench.report.page.sections import csv
from loadbench.report.text import run_text
from loadbench.units import MS, SECOND
from tests.ended import finished, killed
from tests.records import start, window
from tests.storyline import Story, records
from tests.test_durable import searched
from tests.test_repeats import series

_TITLES = re.compile(r"<h2>([^<]*)</h2>")


def told(folder: Path, given: list[Record], **snapshot: Any) -> Path:
    """A run folder with these records."""
    found = runlog.create(folder, "told")
    writer = runlog.Writer(found)
    for record in given:
        if isinstance(record, End):
            writer.close(record)
        else:
            writer.write(record)
    runlog.write_snapshot(found, {"schema": 1, "run": found.name, "state": "done", **snapshot})
    return found


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything: a server that tells all, a spike, an alert, a mark."""
    given = list(records(Story(seconds=60, spike=(30, 40))))
    return told(tmp_path_factory.mktemp("story"), given, scenario="ramp-1200", title="A story")


def test_a_page_has_its_parts_in_order(story: Path) -> None:
    page = report([story])
    assert _TITLES.findall(page) == [
        "Verdict", "Numbers", "Notes", "Over time", "Machine", "Latency", "Where the time goes",
        "Engine", "Throughput and latency", "Requests", "Alerts", "To repeat it",
    ]  # fmt: skip
    assert "<h1>A story</h1>" in page
    for words in ("GPU busy", "GPU power", "Batch size, rows", "contention started", "184 ms"):
        assert words in page
    assert page.count('class="tile"') == 8
    assert page.count("Percentiles of alerts are of 10 s each: too short for ±.") == 1


def test_a_page_fetches_and_runs_nothing(story: Path) -> None:
    page = report([story])
    policy = page.partition('http-equiv="Content-Security-Policy" content="')[2].partition('"')[0]
    assert policy.startswith("default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;;")
    assert not re.search(r"<script|<link|<img|<iframe|@import|url\((?!#)|\son\w+=|src=|href=", page)


def test_a_percentile_in_a_note_has_its_interval_or_why_it_has_none(tmp_path: Path) -> None:
    late = Histogram.of([90 * MS] * 200)
    page = report(
        [told(tmp_path, [start(), window(1, [5.0] * 200, lateness=late), End(1, "done")])]
    )
    assert "late by 90.0 ms (p99)" in page
    assert "no ± of the p99 by which requests were late: 80 seconds at one rate" in page


def test_every_chart_says_in_words_what_it_shows(story: Path) -> None:
    page = report([story])
    charts = re.findall(r"<svg[^>]*>", page)
    spoken = [chart for chart in charts if 'role="img"' in chart]
    assert len(spoken) >= 8
    assert all(re.search(r'aria-label="[^"]{20,}"', chart) for chart in spoken)
    assert "Latency over time: p50 " in page
    assert re.search(r"<title>00:35: p50 [\d.]+ ms, p95 [\d.]+ ms, p99 [\d.]+ ms</title>", page)


def test_what_others_wrote_stays_text(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    shown = "&lt;script&gt;alert(1)&lt;/script&gt;"
    example = Example(1, bad, bad, MS, bad, bad)
    sample = Sample(bad, 0, 1, 2, 90 * MS)
    told_window = window(1, [5.0] * 200, {bad: 3}, examples={bad: example}, slowest=(sample,))
    told_window = type(told_window)(
        **{
            **{name: getattr(told_window, name) for name in told_window.__struct_fields__},
            "requests": {bad: told_window.requests["infer"]},
        }
    )
    given: list[Record] = [
        start(target=bad, scenario=bad, device=bad, notes=(Note("x", bad, bad),), origin_ns=0),
        told_window,
        Mark(1, bad),
        AlertChange(1, "p99", "firing", None, 1, None, bad, words=(bad, f"Likely: {bad}")),
        Remark(1, Note("y", bad, bad)),
        End(1, "failed", bad),
    ]
    folder = told(
        tmp_path, given, title=bad, scenario=bad, command=[bad], commit=bad,
        spec={bad: {bad: bad}}, target={"version": bad}, machine={"host": bad, "gpus": [bad]},
    )  # fmt: skip
    page = report([folder])
    assert page.count(shown) > 20
    assert "<script" not in page
    assert "<img" not in page
    attributes = re.findall(r'="([^"]*)"', page)
    assert not any("<" in found for found in attributes)


def test_a_killed_run_and_one_that_goes_on(tmp_path: Path) -> None:
    page = report([killed(tmp_path, "dead")])
    assert "✗ killed" in page
    assert "the log breaks off here" in page
    page = report([killed(tmp_path, "alive", os.getpid())])
    assert "● running" in page
    assert "until now" in page


def test_a_target_that_tells_nothing_of_its_inside(tmp_path: Path) -> None:
    given = list(records(Story(seconds=20, gpu=False, server="none", spike=(50, 51))))
    page = report([told(tmp_path, given)])
    assert "This target does not report queue and batch times" in page
    assert "Batch size, rows" not in page
    assert "In flight" in page


def test_a_percentile_among_the_failed_has_no_number(tmp_path: Path) -> None:
    folder = finished(tmp_path, "half", 10.0, failed={"http_503": 400})
    page = report([folder])
    tile = page.partition('<div class="name">p99</div>')[2].partition('<div class="tile"')[0]
    assert "&gt; 100" in tile
    assert "among the failed; of the answered 10.0 ms" in tile
    assert "44 % were not answered well" in page
    assert 'class="beyond"' in page
    assert 'class="lost"' in page


def test_percentiles_carry_intervals_where_there_are_some(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    given: list[Record] = [start(planned_ns=240 * SECOND, limit_ns=40 * MS)]
    given += [window(at, list(random.exponential(10, 200)), rate=200.0) for at in range(240)]
    page = report([told(tmp_path, [*given, End(239, "done")])])
    tile = page.partition('<div class="name">p99</div>')[2].partition("</div></div>")[0]
    found = re.search(r"<b>([\d.]+) to ([\d.]+) ms</b>", tile)
    assert found is not None
    low, high = map(float, found.groups())
    assert 35 < low < 46.05 < high < 60  # ln(100) × 10 ms
    assert 'class="whisker"' in page
    on_time = page.partition('<div class="name">On time</div>')[2].partition("</div></div>")[0]
    bounds = re.search(r"<b>([\d.]+) to ([\d.]+) %</b>", on_time)
    assert bounds is not None
    assert float(bounds[1]) <= 98.17 <= float(bounds[2])  # 1 − exp(−4)
    kinds = page.partition('id="requests"')[2].partition("</section>")[0]
    assert f"{found[1]} to {found[2]}</div>" in kinds
    assert "No interval" not in kinds


def test_percentiles_without_intervals_say_why(tmp_path: Path) -> None:
    why = "80 seconds at one rate are needed"
    page = report([told(tmp_path, list(records(Story(seconds=60, spike=(30, 40)))))])
    for name in ("numbers", "steps", "requests"):
        part = page.partition(f'id="{name}"')[2].partition("</section>")[0]
        assert re.search("no intervals?[ :]|the rate changed", part, re.IGNORECASE), name
    folders = [finished(tmp_path, name, 10.0) for name in ("one", "two")]
    figures = report(folders).partition('id="figures"')[2].partition("</section>")[0]
    assert f"No interval of some: {why}." in figures


def hours(folder: Path, number: int, damaged: bool = True) -> Path:
    """So many hours, killed; of a damaged one a second in the middle is no record."""
    found = runlog.create(folder, "long")
    second = encode(window(0, [5.0, 8.0, 9.0] * 3, rate=9.0))
    whole = encode(Minute(window(0, [5.0, 8.0, 9.0] * 180, rate=9.0), 60))
    lines = [encode(start(planned_ns=None))]
    for minute in range(number * 60):
        at = minute * 60
        for one in range(at, at + 60):
            line = second.replace(b'"second":0', b'"second":%d' % one)
            lines.append(line[:-3] if damaged and one == 7000 else line)
        lines.append(whole.replace(b'"second":0', b'"second":%d' % at))
    (found / runlog.LOG).write_bytes(b"\n".join(lines) + b"\n")
    return found


def test_a_run_of_hours_is_read_from_its_minutes(tmp_path: Path) -> None:
    folder = hours(tmp_path, 8)
    with pytest.raises(SpecError):
        list(runlog.read(folder))
    material = read(folder)
    assert material.coarse
    assert material.summary.asked == 8 * 3600 * 9
    assert material.summary.seconds == 8 * 3600
    assert material.summary.rate["done"] == pytest.approx(9)
    page = report([folder])
    assert "8h" in page
    assert len(page) < 400_000


def test_the_knee_is_where_the_curve_bends() -> None:
    flat = [Point(x, 10.0, "") for x in (100, 200, 300, 400)]
    assert knee(flat) is None
    bent = [Point(x, y, "") for x, y in ((100, 10), (200, 11), (300, 12), (400, 14), (430, 60))]
    assert knee(bent) == bent[3]
    assert knee([*bent[:4], Point(430, float("inf"), "")]) == bent[3]


def test_steps_have_a_curve(tmp_path: Path) -> None:
    given: list[Record] = [start(planned_ns=40 * SECOND)]
    for at in range(40):
        step = at // 10
        ms = (5.0, 6.0, 7.0, 60.0)[step]
        given.append(window(at, [ms] * (100 + 100 * step), rate=100.0 + 100 * step))
    page = report([told(tmp_path, [*given, End(39, "done")])])
    assert "Latency over throughput at 4 rates up to 400/s: the knee is at 300/s." in page
    assert "asked 400/s, done 400/s for 10 s: p99 60" in page


def test_a_baseline_stands_beside(tmp_path: Path) -> None:
    before = finished(tmp_path, "one", 10.0)
    after = finished(tmp_path, "two", 12.0)
    assert "Against the baseline" not in report([after])
    baseline.put(tmp_path, "steady", before)
    page = report([after])
    assert "Against the baseline" in page
    assert before.name in page
    assert "+20.0 %" in page
    assert "This run is the baseline of steady." in report([before])


def test_runs_of_different_work_are_in_no_table_that_names_a_best(tmp_path: Path) -> None:
    same = [finished(tmp_path, name, ms) for name, ms in (("a", 5.0), ("b", 9.0), ("c", 7.0))]
    assert report(same).count("★") == 2  # of the best, and what it means
    snapshot = runlog.read_snapshot(same[1])
    spec = {**snapshot["spec"], "load": {"seed": 8}}
    runlog.write_snapshot(same[1], {**snapshot, "spec": spec})
    for chosen in (same, same[:2]):
        page = report(chosen)
        assert "★" not in page
        assert "the two sides did different work (load)" in page
        assert "<h2>Figures</h2>" in page  # each stands there by itself


def test_several_runs_stand_beside_each_other(tmp_path: Path) -> None:
    folders = [finished(tmp_path, name, ms) for name, ms in (("a", 10.0), ("b", 12.0), ("c", 9.0))]
    page = report(folders)
    assert "3 runs beside each other" in page
    for number in ("0001", "0002", "0003"):
        assert f">{number}</th>" in page
    assert page.count('class="line run') >= 3
    assert "★" in page
    assert "inconclusive (1 run each)" in report(folders[:2])
    with pytest.raises(SpecError, match="too many"):
        report(folders * 5)


def test_a_run_stands_beside_others_once(tmp_path: Path) -> None:
    folder = series(tmp_path, [10.0] * 2)
    for twice in ([folder, folder], [folder, folder / "2"]):
        with pytest.raises(SpecError, match="named twice"):
            report(twice)


def test_a_series_from_elsewhere_says_what_is_known(tmp_path: Path) -> None:
    folder = series(tmp_path, [10.0] * 2)
    snapshot = runlog.read_snapshot(folder)
    for name in ("run", "wanted", "engine"):
        snapshot.pop(name, None)
    runlog.write_snapshot(folder, snapshot)
    assert run_text(folder).startswith("loadbench 0001-series   2 repeats   ■ done")
    for text in (run_text(folder), report([folder])):
        assert not re.search(r"None(?! fired)", text)
        assert "engine: not told" in text


def test_a_run_that_a_search_led_has_no_verdict_of_its_own(tmp_path: Path) -> None:
    folder = searched(tmp_path)
    windows = [window(at, [200.0] * 50, rate=100.0 * at) for at in range(4)]
    check = Check("p99", False, 100e6, "< 100 ms")
    told(tmp_path / "made", [start(checks=(check,)), *windows, End(3, "done")]).rename(folder / "1")
    for page in (report([folder]), report([folder / "1"])):
        assert "check failed" not in page
        assert "did not keep up" not in page.lower()
        assert "kept up" not in page.lower()
        assert "A search led it, 100 to 300/s" in page
    assert "✓ 990/s, confirmed" in report([folder])
    assert "CHECKS" not in run_text(folder / "1")
    call = ["show", str(folder / "1"), "--json-file", str(tmp_path / "verdict.json")]
    with pytest.raises(SystemExit) as ended:
        main(call)
    assert (ended.value.code, (tmp_path / "verdict.json").exists()) == (2, False)
    snapshot = runlog.read_snapshot(folder)
    runlog.write_snapshot(folder, {**snapshot, "repeats": ["1", "2"]})
    shutil.copytree(folder / "1", folder / "2")
    both = report([folder])
    assert "Figures" in both
    assert ">checks<" not in both


def test_a_series_shows_each_repeat(tmp_path: Path) -> None:
    results = tmp_path / "results"
    series = runlog.create(results, "many")
    for number, ms in enumerate((10.0, 30.0, 20.0), 1):
        made = finished(tmp_path / str(number), "one", ms)
        made.rename(series / str(number))
    first = runlog.read_snapshot(series / "1")
    runlog.write_snapshot(
        series,
        {**first, "kind": "series", "repeats": ["1", "2", "3"], "summary": None, "wanted": 3,
         "run": series.name, "engine": "fresh for each repeat"},
    )  # fmt: skip
    page = report([series])
    for number in (1, 2, 3):
        assert f">repeat {number}</th>" in page
    assert "Repeat 3, whose p99 is the middle one" in page
    assert "Median p99 20.0 ms" in page
    assert "The median has no interval" in page
    assert "<h1>" in report([series / "2"])


def test_secrets_are_left_out() -> None:
    text = scenario_text(
        {"request": [{"headers": {"Authorization": "Bearer abc", "Accept": "x", "X-Token": "$T"}}]}
    )
    assert "abc" not in text
    assert "Accept" in text
    assert "$T" in text
    words = ["loadbench", "run", "x", "--set", "alerts.token=abc"]
    assert command_text(words) == "loadbench run x --set 'alerts.token=(left out)'"


def test_a_table_to_take_away_holds_no_formula() -> None:
    found = csv("x", ("a", "b"), [("=1+1", 'say "hi", you'), (-1.5, None), ("-2+3", 1e-7)])
    text = html.unescape(found)
    for line in ('\'=1+1,"say ""hi"", you"\n', "\n-1.5,\n", "\n'-2+3,1e-07"):
        assert line in text


def test_nothing_recorded_is_an_error(tmp_path: Path) -> None:
    empty = runlog.create(tmp_path, "empty")
    with pytest.raises(SpecError, match="cannot be read"):
        report([empty])
    (empty / runlog.LOG).write_bytes(b"")
    with pytest.raises(SpecError, match="no beginning"):
        report([empty])


def test_a_run_that_was_altered_says_so(tmp_path: Path) -> None:
    folder = finished(tmp_path, "one", 10.0)
    runlog.seal(folder)
    assert "altered after" not in report([folder])
    with open(folder / runlog.LOG, "ab") as log:
        log.write(encode(Mark(1, "not me")) + b"\n")
    page = report([folder])
    assert "log.ndjson was altered after the run" in page
    assert "Doubtful: read the numbers" in page


def test_figures_that_cannot_be_are_one_error_or_a_page(tmp_path: Path) -> None:
    far = told(tmp_path, [start(), window(0, [5.0]), window(10**14, [5.0]), End(10**14, "done")])
    assert len(report([far])) < 100_000
    many = window(0, [5.0], asked=10**400, sent=10**400)
    with pytest.raises(SpecError):
        report([told(tmp_path, [start(), many, End(0, "done")])])


def test_the_command_writes_where_it_is_told(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    results = tmp_path / "results"
    one, two = finished(results, "one", 10.0), finished(results, "two", 12.0)

    def call(*arguments: str) -> tuple[int, bytes, bytes]:
        with pytest.raises(SystemExit) as ended:
            main(["report", *arguments, "--out", str(results)])
        told = capsysbinary.readouterr()
        return int(str(ended.value.code)), told.out, told.err

    assert call("1") == (0, f"{one / 'report.html'}\n".encode(), b"")
    assert (one / "report.html").read_text() == report([one])
    assert call()[1] == f"{two / 'report.html'}\n".encode()
    assert call("1", "2")[1] == f"{two / 'report-0001-0002.html'}\n".encode()
    code, out, _ = call("1", "-o", "-")
    assert (code, out) == (0, report([one]).encode())
    chosen = tmp_path / "chosen.html"
    chosen.write_text("before")
    assert call("1", "-o", str(chosen))[0] == 0
    assert chosen.read_text().startswith("<!doctype html>")
    code, _, err = call("1", "-o", str(tmp_path / "none" / "x.html"))
    assert code == 3
    assert b"cannot be written" in err
    assert call("9")[0] == 2
    assert not list(tmp_path.rglob(".*.new"))


@pytest.mark.parametrize(
    ("reason", "said"),
    [("done", "✓ 1 check passed<"), ("stopped", "○ No verdict: the run was not finished: so<")],
)
def test_what_was_stopped_has_passed_nothing(tmp_path: Path, reason: Any, said: str) -> None:
    check = Check("p99", False, 100e6, "< 100 ms")
    given: list[Record] = [start(checks=(check,)), window(0, [5.0] * 500), End(0, reason, "so")]
    assert said in report([told(tmp_path, given)])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rate": 10.0}, "Kept up with 10.0/s for 3 s"),
        ({"rate": None}, "Did 10.0/s for 3 s, each request waiting for an answer before it"),
        ({"rate": None, "lateness": Histogram.of([MS])}, "Kept up with 10.0/s on average for 3 s"),
        ({"rate": 10.0, "failed": {"http_503": 1}}, "Did not keep up with 10.0/s over 3 s: 9.1 %"),
    ],
)
def test_the_verdict_says_whether_it_kept_up(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    given: list[Record] = [
        start(),
        *(window(at, [5.0] * 10, **fields) for at in range(3)),
        End(2, "done"),
    ]
    assert f'<p class="verdict">{said}' in report([told(tmp_path, given)])


def test_two_targets_in_turns_are_told_as_ab_tells_them(tmp_path: Path) -> None:
    folder = runlog.create(tmp_path, "ab")
    runlog.write_snapshot(folder, {"schema": 1, "run": folder.name, "kind": "ab", "state": "done"})
    for side in ("a", "b"):
        finished(tmp_path / side, "one", 10.0).rename(folder / side)
    with pytest.raises(SpecError, match="is no A/B session"):
        report([folder])
    with pytest.raises(SpecError, match="has two sides"):
        report([folder, folder / "a"])
