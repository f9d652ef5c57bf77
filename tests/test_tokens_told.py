"""Times of tokens wherever figures of a run are told: comparisons, reports, exports, searches."""

import csv
import io
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hdrh.log import HistogramLogReader
from msgspec.structs import replace

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.histogram import Histogram
from loadbench.judge.bands import of_stream
from loadbench.judge.blocks import Block, called, fraction
from loadbench.judge.metrics import BY_NAME, GATED, band, value
from loadbench.judge.pilot import Pilot
from loadbench.judge.search import Terms
from loadbench.judge.stage import Claim, claim, judged
from loadbench.model import Check, Requests, Window
from loadbench.report.find import stage_line
from loadbench.streams import Stream
from loadbench.units import MS
from tests.completions import completions
from tests.running import loadbench, summary

SCENARIO = """
[target]
url = "{url}"
[load]
arrivals = "constant"
warmup = "1s"
phases = [{{ rate = 20, for = "3s" }}]
[[request]]
name = "chat"
words = "8"
max_tokens = "6"
options = {{ first_ms = {first_ms}, gap_ms = 5 }}
[checks]
first_token_p99 = "< 2 s"
"""


class Ran(NamedTuple):
    """Where two runs are, the second with a first token that comes later."""

    folder: Path
    quick: Path
    slow: Path


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("tokens")
    path = folder / "llm.toml"
    runs = []
    with completions() as server:
        for first_ms in (20, 60):
            path.write_text(SCENARIO.format(url=server.url, first_ms=first_ms))
            summary(path, "--markdown", "told.md", cwd=folder)
            runs.append(runlog.find("last", folder / "results"))
    return Ran(folder, *runs)


def test_answers_that_come_in_one_piece_are_no_matter_of_more_requests(tmp_path: Path) -> None:
    path = tmp_path / "llm.toml"
    with completions() as server:
        path.write_text(
            SCENARIO.format(url=server.url, first_ms=20).replace("{ f", "{ stream = false, f")
        )
        done = loadbench("run", path, cwd=tmp_path, code=None)
    assert "first token p99 < 2 s: no data" in done.stdout
    assert "not shown" not in done.stdout + done.stderr


def windows(run: Path) -> list[Window]:
    found = [one for one in runlog.read(run) if isinstance(one, Window)]
    return [window for window in found if window.stage != "warmup"]


@pytest.mark.long
def test_runs_are_compared_by_their_tokens(ran: Ran) -> None:
    found = json.loads(loadbench("compare", "1", "2", "--anyway", "--json", cwd=ran.folder).stdout)
    rows = {row["metric"]: row for row in found["rows"]}
    assert {"tokens", "first_token_p50", "token_gap_p99", "token_pace_p50"} <= set(rows)
    first = rows["first_token_p50"]
    assert first["b"] - first["a"] == pytest.approx(40, abs=15)
    assert rows["token_gap_p50"]["b"] == pytest.approx(rows["token_gap_p50"]["a"], rel=0.5)
    page = loadbench("compare", "1", "2", "--anyway", cwd=ran.folder).stdout
    assert "first_token_p99 ms" in page
    assert "tokens /s" in page


def test_the_times_of_tokens_can_be_gated(ran: Ran) -> None:
    gates = ("--gate", "first_token_p99=5%", "--gate", "tokens")
    found = loadbench("compare", "1", "2", "--anyway", *gates, cwd=ran.folder, code=4)
    assert "inconclusive" in found.stdout  # 1 run each
    assert {"first_token_p99", "token_gap_p50", "tokens"} <= set(GATED)


def test_a_percentile_of_answers_that_never_began_is_larger_than_any() -> None:
    tokens = {"first_token_ms": {"p99": None}, "token_gap_ms": {"p99": None}}
    told = {"asked": 3, "tokens": tokens, "more_bands_ms": {"first_token_ms": {"p50": [1, None]}}}
    assert value(BY_NAME["first_token_p99"], told) == float("inf")
    assert value(BY_NAME["token_gap_p99"], told) is None
    assert value(BY_NAME["first_token_p99"], {"asked": 3, "tokens": None}) is None
    assert band(BY_NAME["first_token_p50"], told) == (1, None)
    assert band(BY_NAME["first_token_p99"], told) is None


def test_history_knows_them(ran: Ran) -> None:
    page = loadbench("history", "llm", "--metric", "first_token_p50", cwd=ran.folder).stdout
    assert "first_token_p50" in page


def test_reports_have_a_part_of_them(ran: Ran) -> None:
    loadbench("report", "2", "-o", "one.html", cwd=ran.folder)
    page = (ran.folder / "one.html").read_text()
    for words in ('id="tokens"', "tokens/s", "from one token to the next", "as the server counts"):
        assert words in page
    assert "First token: distribution of 60 answers" in page
    loadbench("report", "1", "2", "-o", "two.html", cwd=ran.folder)
    assert "first token p99 ms" in (ran.folder / "two.html").read_text()


def test_the_comment_of_a_pull_request_has_them(ran: Ran) -> None:
    text = (ran.folder / "told.md").read_text()
    assert "| tokens/s | first p50 | first p99 | gap p50 |" in text
    assert "first token p99" in text  # the check


def test_csv_has_them_by_the_second(ran: Ran) -> None:
    text = loadbench("export", "2", "--as", "csv", "-o", "-", cwd=ran.folder).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    pieces = [int(row["pieces"] or 0) for row in rows]
    assert sum(pieces) == 60 * 6
    assert pieces == [w.stream.pieces if w.stream else 0 for w in windows(ran.slow)]
    assert 55 < float(rows[1]["first_token_p50_ms"]) < 120
    assert float(rows[1]["token_gap_p99_ms"]) > 4


def test_hlog_has_series_of_their_own(ran: Ran, tmp_path: Path) -> None:
    path = tmp_path / "run.hlog"
    loadbench("export", "2", "--as", "hlog", "-o", path, cwd=ran.folder)
    lines = [line for line in path.read_text().splitlines() if line.startswith("Tag=")]
    firsts = [line for line in lines if line.startswith("Tag=first_token,")]
    found = Histogram.merged(Histogram.decode(line.rpartition(",")[2]) for line in firsts)
    assert found.count == 60
    assert len(lines) == 2 * len(firsts)
    # and readers that know of no tags read the rest as before
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()
                            if not line.startswith("Tag=")))  # fmt: skip
    reader = HistogramLogReader(str(path), _largest())
    count = 0
    while histogram := reader.get_next_interval_histogram():
        count += histogram.get_total_count()
    reader.close()
    assert count == 60


def _largest() -> object:
    from hdrh.histogram import HdrHistogram

    return HdrHistogram(1, 3_600_000_000_000, 3)


def test_prometheus_has_them_with_their_bands(ran: Ran) -> None:
    text = loadbench("export", "2", "--as", "prometheus", "-o", "-", cwd=ran.folder).stdout
    told = [line for line in text.splitlines() if not line.startswith("#")]
    assert any("loadbench_run_first_token_quantile_seconds{" in line for line in told)
    assert any("loadbench_run_token_gap_no_band{" in line for line in told)
    (rate,) = [line for line in told if line.startswith("loadbench_run_tokens_per_second{")]
    assert float(rate.rpartition(" ")[2]) == pytest.approx(120, rel=0.2)


def test_opentelemetry_has_them(ran: Ran) -> None:
    text = loadbench("export", "2", "--as", "otlp", "-o", "-", cwd=ran.folder).stdout
    (scope,) = json.loads(text.splitlines()[0])["resourceMetrics"][0]["scopeMetrics"]
    metrics = {metric["name"]: metric for metric in scope["metrics"]}
    points = metrics["loadbench.first_token"]["histogram"]["dataPoints"]
    assert sum(int(point["count"]) for point in points) == 60
    pieces = metrics["loadbench.pieces"]["sum"]["dataPoints"]
    assert sum(int(point["asInt"]) for point in pieces) == 360


# ---- searches


def second(at: int, first_ms: float, **changes: object) -> Window:
    """40 answers of a second each that take 2 s; their first tokens come after `first_ms`."""
    long = Histogram.of([2_000 * MS] * 40)
    first = Histogram.of([round(first_ms * MS)] * 40)
    stream = Stream(first=first, gaps=long, pace=Histogram.of([20 * MS] * 40), pieces=400)
    window = Window(
        second=at, stage="load", phase=0, rate=40.0, asked=40, unsent=0, sent=40, lost=0,
        in_flight=80, waiting=0, requests={"chat": Requests(40, {}, long, long, stream)},
    )  # fmt: skip
    return replace(window, **changes)


FIRST = Claim("first_token_p99 < 100 ms", 0.01, 100 * MS, "first_token")


def test_a_stage_holds_by_its_first_tokens_however_long_answers_take() -> None:
    quick = judged("up", [second(at, 50) for at in range(20)], FIRST)
    assert quick.holds
    assert (quick.asked, quick.over) == (800, 0)
    assert quick.latency_ms["p99"] == pytest.approx(50, rel=0.01)
    slow = judged("up", [second(at, 150) for at in range(20)], FIRST)
    assert not slow.holds
    assert slow.over == 800
    assert "first token p99 150 ms" in stage_line(slow, FIRST)


def test_what_fails_is_over_the_limit_of_tokens_too() -> None:
    failed = second(0, 50)
    part = replace(failed.requests["chat"], failed={"http_503": 10})
    failing = [replace(failed, second=at, requests={"chat": part}) for at in range(20)]
    found = judged("up", failing, FIRST)
    assert (found.over, found.missed, found.holds) == (200, 200, False)


def test_answers_that_take_their_time_are_not_waited_for_between_stages() -> None:
    terms = Terms(FIRST, start=40.0, stage_s=12, settle_s=1, budget_s=600)
    seen = []
    pilot = Pilot(terms, lambda stage, _: seen.append(stage))
    at, order = 0, None
    while order is None:
        order = pilot.see(second(at, 50))
        at += 1
    assert seen[0].holds
    assert order.steering is not None
    assert not order.steering.paused  # 80 open is what 40/s of 2 s each have open


def test_what_can_be_searched_for() -> None:
    for name in ("first_token", "token_pace"):
        found = claim(Check(f"{name}_p95", False, 3e8, "< 300 ms"))
        assert (found.of, found.limit_ns) == (name, 300 * MS)
        assert found.share == pytest.approx(0.05)
    with pytest.raises(SpecError, match="cannot be searched"):  # of tokens, not of requests
        claim(Check("token_gap_p95", False, 3e8, "< 300 ms"))


def test_a_target_without_tokens_is_not_searched_for_them(tmp_path: Path) -> None:
    told = ("find", "steady", "--slo", "first_token_p99 < 300 ms", "--target", "local:fake")
    found = loadbench(*told, "--set", "engine.fake.a='1 ms'", cwd=tmp_path, code=2)
    assert "token by token" in found.stderr


def test_lost_ones_are_counted_once() -> None:
    window = second(0, 50, unsent=3)
    assert of_stream("first_token").lost(window) == 3


@pytest.mark.long
def test_an_ab_judges_times_of_tokens(tmp_path: Path) -> None:
    with completions() as a, completions(slower_ms=20) as b:
        sides = []
        for side, server in (("a", a), ("b", b)):
            path = tmp_path / f"{side}.toml"
            text = SCENARIO.format(url=server.url, first_ms=20)
            path.write_text(text.replace('warmup = "1s"', 'warmup = "0s"'))
            sides.append(str(path))
        options = ("--budget", "32s", "--block", "2s", "--metric", "first_token_p50", "--json")
        done = loadbench("ab", *sides, *options, cwd=tmp_path)
    found = json.loads(done.stdout)
    rows = {row["metric"]: row for row in found["rows"]}
    assert rows["first_token_p50"]["word"] == "worse"
    assert rows["first_token_p50"]["b"] - rows["first_token_p50"]["a"] == pytest.approx(20, abs=8)
    assert {"token_gap_p99", "token_pace_p50", "p50"} <= set(rows)
    page = loadbench("show", "last", cwd=tmp_path).stdout
    assert "first_token_p50 ms" in page
    assert "first_token_p50: up to 2" in page


def test_a_block_tells_its_tokens_and_what_never_had_one() -> None:
    stream = Stream(first=Histogram.of(np.full(10, 20 * MS)), gaps=Histogram.of([5 * MS]))
    block = Block(Histogram.of([100 * MS]), 0, False, stream, barren=0)
    assert block.value("first_token_p50") == pytest.approx(20, rel=0.01)
    assert block.value("token_gap_p99") == pytest.approx(5, rel=0.01)
    assert block.value("token_pace_p50") is None
    lost = block._replace(barren=10)
    assert lost.value("first_token_p99") == float("inf")
    assert lost.value("token_gap_p99") == pytest.approx(5, rel=0.01)
    assert block._replace(stream=None).value("first_token_p50") is None
    assert (fraction("first_token_p90"), fraction("p99_9"), fraction("mean")) == (0.9, 0.999, 0.5)
    assert (called("first_token_p90"), called("p99_9")) == ("first_token_p90", "p99.9")
