"""Exports, each read back by what it is for: the libraries' own readers, and real sockets."""

import csv
import io
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest
from google.protobuf import json_format  # type: ignore[import-untyped]
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
from msgspec.structs import replace
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from prometheus_client.parser import text_string_to_metric_families

from loadbench import runlog
from loadbench.cli.export import FORMATS
from loadbench.histogram import DIGITS, HIGHEST_NS, LOWEST_NS
from loadbench.model import End, Window
from loadbench.report.export import mlflow
from loadbench.report.export.hdr import hgrm_bytes
from loadbench.report.export.perf_analyzer import perf_analyzer_bytes
from loadbench.report.export.prometheus import prometheus_bytes
from loadbench.report.export.source import Source, source
from loadbench.report.export.table import columns, names
from tests.ended import finished
from tests.foreign import RECORDED, said
from tests.records import start, window

RUN = max(RECORDED.glob("*/*"))


@pytest.fixture
def failing(tmp_path: Path) -> Path:
    """3 × 500 answered in 10 ms, 3 × 50 failed: p99 lies among those."""
    return finished(tmp_path, "failing", 10.0, failed={'http "503"\n': 50}, scenario="a/b")


def exported(run: Path, form: str, capsysbinary: pytest.CaptureFixture[bytes], *more: str) -> bytes:
    from loadbench.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["export", str(run), "--as", form, *more])
    found = capsysbinary.readouterr()
    assert (ended.value.code, found.err) == (0, b"")
    return found.out


def windows(run: Path) -> list[Window]:
    found = [record for record in runlog.read(run) if isinstance(record, Window)]
    return [window for window in found if window.stage != "warmup"]


def test_csv_has_a_row_a_second(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    rows = list(csv.DictReader(io.StringIO(exported(RUN, "csv", capsysbinary).decode())))
    known = windows(RUN)
    assert tuple(rows[0]) == names(source(RUN))
    assert [int(row["done"]) for row in rows] == [window.done for window in known]
    assert sum(int(row["asked"]) for row in rows) == source(RUN).summary.asked
    p99 = known[1].latency.quantile(0.99)
    assert p99 is not None
    assert float(rows[1]["latency_p99_ms"]) == pytest.approx(p99 / 1e6)
    assert rows[0]["gpu_power_w"] == ""  # not measured is not 0
    assert datetime.fromisoformat(rows[0]["time"]).timestamp() == source(RUN).began_s
    assert rows[2]["time"] > rows[1]["time"] > rows[0]["time"]


def test_parquet_has_the_same_with_types(
    capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    from pyarrow import parquet

    file = tmp_path / "run.parquet"
    assert exported(RUN, "parquet", capsysbinary, "-o", str(file)) == b""
    table = parquet.read_table(file)
    assert tuple(table.column_names) == names(source(RUN))
    kinds = {int: "int64", float: "double", str: "string"}
    assert [str(field.type) for field in table.schema][1:] == [
        kinds[c.kind] for c in columns(source(RUN))
    ]
    rows = list(csv.reader(io.StringIO(exported(RUN, "csv", capsysbinary).decode())))[1:]
    for row, theirs in zip(rows, table.to_pylist(), strict=True):
        assert ["" if value is None else str(value) for value in theirs.values()] == row
    summary = json.loads(table.schema.metadata[b"loadbench"])
    assert summary["done"] == source(RUN).summary.done


def test_parquet_without_pyarrow_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, out, err = said(["export", str(RUN), "--as", "parquet"], capsys)
    assert (code, out) == (2, "")
    assert "pip install 'loadbench[parquet]'" in err


def test_hlog_is_read_by_hdrhistograms_own_reader(
    capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    file = tmp_path / "run.hlog"
    exported(RUN, "hlog", capsysbinary, "-o", str(file))
    whole = HdrHistogram(LOWEST_NS, HIGHEST_NS, DIGITS)
    reader = HistogramLogReader(str(file), whole)
    known = windows(RUN)
    for second, mine in enumerate(known):
        theirs = reader.get_next_interval_histogram()
        assert theirs.get_total_count() == mine.done
        assert theirs.get_value_at_percentile(99) == mine.latency.quantile(0.99)
        begun = source(RUN).began_s + second
        assert theirs.get_start_time_stamp() == pytest.approx(begun * 1000, abs=1)
        assert theirs.get_end_time_stamp() - theirs.get_start_time_stamp() == 1000
    assert reader.get_next_interval_histogram() is None
    reader.close()
    assert "all requests were answered well" in file.read_text().splitlines()[0]


def test_hgrm_is_what_hdrhistogram_prints(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    dense = HdrHistogram.decode(source(RUN).latency().encode())
    theirs = io.BytesIO()
    dense.output_percentile_distribution(theirs, 1e6)
    mine = exported(RUN, "hgrm", capsysbinary).decode().splitlines()
    lines = theirs.getvalue().decode().splitlines()
    mean = next(at for at, line in enumerate(lines) if line.startswith("#[Mean"))
    assert mine[:mean] == lines[:mean]
    until = len(lines)
    assert mine[mean + 1 : until] == lines[mean + 1 :]
    assert len(mine[until:]) == 1 + 5  # what is missing, then how sure each percentile is
    # theirs is in ns beside a mean in ms; Java's prints both in the same unit
    deviation = float(mine[mean].rpartition("= ")[2].rstrip("]"))
    assert deviation == pytest.approx(dense.get_stddev() / 1e6, abs=1e-3)
    assert mine[mean].partition(",")[0] == lines[mean].partition(",")[0]


def test_what_failed_is_told_where_a_format_has_no_place_for_it(
    failing: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    for form in ("hlog", "hgrm"):
        text = exported(failing, form, capsysbinary).decode()
        assert "150 of 1,650 requests not answered well are not in it" in text


def test_perf_analyzers_line(
    failing: Path, capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    text = exported(RUN, "perf-analyzer-csv", capsysbinary).decode()
    assert text.splitlines()[0] == (  # as perf_analyzer -f --request-rate-range writes it
        "Request Rate,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,"
        "Server Compute Input,Server Compute Infer,Server Compute Output,Client Recv,"
        "p50 latency,p90 latency,p95 latency,p99 latency,"
        "p50 low,p50 high,p90 low,p90 high,p95 low,p95 high,p99 low,p99 high,No band"  # ours
    )
    (row,) = csv.DictReader(io.StringIO(text))
    summary = source(RUN).summary
    mean, p99 = summary.service_ms["mean"], summary.service_ms["p99"]
    assert mean is not None
    assert p99 is not None
    parts = [int(row[name]) for name in row if name.startswith(("Client", "Network", "Server"))]
    assert sum(parts) == pytest.approx(mean * 1000, abs=5)
    assert int(row["p99 latency"]) == int(p99 * 1000)
    assert float(row["Inferences/Second"]) == pytest.approx(summary.rate["done"], rel=1e-5)
    told = summary.server or {}
    told["compute_parts_ms"] = {"input": 0.5, "infer": 2.0, "output": 1.5}
    told["cached"] = told["requests"] // 2  # half of them took none of the model's time
    written = perf_analyzer_bytes(source(RUN)._replace(summary=summary)).decode()
    (row,) = csv.DictReader(io.StringIO(written))
    inner = [int(row[f"Server Compute {name}"]) for name in ("Input", "Infer", "Output")]
    assert inner == pytest.approx([250, 1000, 750], abs=1)
    told["compute_parts_ms"] = {"prepare": 0.5, "model": 2.0}  # by the server's own names
    written = perf_analyzer_bytes(source(RUN)._replace(summary=summary)).decode()
    (row,) = csv.DictReader(io.StringIO(written))
    infer_us = told["compute_ms"]["mean"] * 1000 / 2
    assert int(row["Server Compute Infer"]) == pytest.approx(infer_us, abs=1)
    bare = exported(failing, "perf-analyzer-csv", capsysbinary).decode().splitlines()[0]
    assert "Server Queue" not in bare  # that server told nothing
    snapshot = runlog.read_snapshot(RUN)
    snapshot["spec"]["load"] |= {"arrivals": "closed", "concurrency": 4}
    runlog.write_snapshot(failing, snapshot)
    closed = exported(failing, "perf-analyzer-csv", capsysbinary).decode()
    assert next(csv.DictReader(io.StringIO(closed)))["Concurrency"] == "4"


def banded(run: Path) -> Source:
    """A run whose P50 has a band, and whose P99 has none that bounds it above."""
    found = source(run)
    answered = {"p50": (9.4, 10.4), "p99": (8.0, None)}
    summary = replace(
        found.summary,
        bands_ms={"p50": (9.5, 10.5), "p99": (9.0, None)},
        more_bands_ms={"answered_ms": answered, "service_ms": answered},
        no_bands={"latency_ms": {"p95": "run longer"}, "service_ms": {"p95": "too short"}},
    )
    return found._replace(summary=summary)


def test_each_percentile_has_its_band_or_the_reason_why_not(tmp_path: Path) -> None:
    run = banded(finished(tmp_path, "banded", 10.0))
    lines = hgrm_bytes(run).decode().splitlines()
    assert "#[p50 at 95 %: 9.400 … 10.400]" in lines
    assert "#[p99 at 95 %: 8.000 …]" in lines
    assert any(line.startswith("#[p95 has no band: ") for line in lines)
    (row,) = csv.DictReader(io.StringIO(perf_analyzer_bytes(run).decode()))
    assert (row["p50 low"], row["p50 high"]) == ("9400", "10400")
    assert (row["p99 low"], row["p99 high"], row["p95 low"]) == ("8000", "", "")
    assert "p95: too short" in row["No band"]
    families = text_string_to_metric_families(prometheus_bytes(run).decode())
    found = {family.name: family for family in families}
    bounds = {
        (sample.labels["quantile"], sample.labels["side"]): sample.value
        for sample in found["loadbench_run_latency_band_seconds"].samples
    }
    assert bounds == {
        ("0.5", "low"): 0.0095, ("0.5", "high"): 0.0105,
        ("0.99", "low"): 0.009, ("0.99", "high"): math.inf,
    }  # fmt: skip
    whys = {
        sample.labels["quantile"]: sample.labels["why"]
        for sample in found["loadbench_run_latency_no_band"].samples
    }
    assert whys.keys() == {"0.9", "0.95", "0.999"}
    assert whys["0.95"] == "run longer"
    figures = mlflow.figures(run)
    assert (figures["latency_p50_low_ms"], figures["latency_p50_high_ms"]) == (9.5, 10.5)
    assert figures["latency_p99_low_ms"] == 9.0
    assert "latency_p99_high_ms" not in figures
    assert "latency p95: run longer" in mlflow.tags(run)["loadbench.no_bands"]


def test_prometheus_reads_its_text(
    failing: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = exported(failing, "prometheus", capsysbinary).decode()
    found = {family.name: family for family in text_string_to_metric_families(text)}
    for family in found.values():
        assert family.documentation
        assert all(sample.labels["scenario"] == "steady" for sample in family.samples)
    requests = found["loadbench_run_requests"].samples
    assert {sample.labels["outcome"]: sample.value for sample in requests} == {
        "done": 1500, "failed": 150, "unsent": 0, "unfinished": 0, "lost": 0,
    }  # fmt: skip
    (failure,) = found["loadbench_run_failures"].samples
    assert failure.labels["failure"] == 'http "503"\n'
    quantiles = found["loadbench_run_latency_quantile_seconds"].samples
    values = {sample.labels["quantile"]: sample.value for sample in quantiles}
    assert values["0.5"] == pytest.approx(0.01, rel=1e-3)
    assert values["0.99"] == math.inf  # among the failed
    histogram = found["loadbench_run_answered_seconds"]
    assert histogram.type == "histogram"
    counts = [sample.value for sample in histogram.samples if sample.name.endswith("_bucket")]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 1500)
    total = next(sample.value for sample in histogram.samples if sample.name.endswith("_sum"))
    assert total == pytest.approx(15.0, rel=1e-3)


def test_a_textfile_is_put_in_place_whole(
    capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    file = tmp_path / "loadbench.prom"
    file.write_text("old")
    before = file.stat().st_ino
    exported(RUN, "prometheus", capsysbinary, "-o", str(file))
    assert file.stat().st_ino != before  # another file under the name
    assert [path.name for path in tmp_path.iterdir()] == ["loadbench.prom"]


class Came(NamedTuple):
    method: str
    path: str
    kind: str
    token: str | None
    body: bytes


@contextmanager
def server(
    status: int = 200, answers: dict[str, str] | None = None
) -> Iterator[tuple[str, list[Came]]]:
    """Takes whatever comes; answers by the end of the path, with 404 for an empty text."""
    came: list[Came] = []

    class Handler(BaseHTTPRequestHandler):
        def take(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            kind, token = self.headers["Content-Type"], self.headers["Authorization"]
            came.append(Came(self.command, self.path, kind, token, body))
            known = answers or {}
            path = self.path.partition("?")[0]
            text = next((known[end] for end in known if path.endswith(end)), "{}")
            self.send_response(status if text else 404)
            if status == 302:
                self.send_header("Location", f"http://127.0.0.1:{web.server_port}/elsewhere")
            data = (text or '{"error_code": "RESOURCE_DOES_NOT_EXIST"}').encode()
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = take

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

    with HTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = Thread(target=web.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{web.server_port}", came
        finally:
            web.shutdown()
            thread.join()


def test_a_pushgateway_gets_it_by_put(capsys: pytest.CaptureFixture[str]) -> None:
    with server() as (url, came):
        where = url.replace("://", "://me:a%20word@") + "/"
        code, out, _ = said(["export", str(RUN), "--as", "prometheus", "-o", where], capsys)
    assert (code, f"pushed to {url}/metrics" in out) == (0, True)  # and no password
    (one,) = came
    assert (one.method, one.path) == ("PUT", "/metrics/job/loadbench/scenario/fake")
    assert one.token == "Basic bWU6YSB3b3Jk"  # me:a word
    assert one.kind.startswith("text/plain; version=0.0.4")
    assert list(text_string_to_metric_families(one.body.decode()))


@pytest.mark.parametrize("status", [302, 403, 500])
def test_a_server_that_does_not_take_it(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with server(status, {"": "no\x1b[2J"}) as (url, came):
        code, _, err = said(["export", str(RUN), "--as", "otlp", "-o", url], capsys)
    assert code == 3
    assert f"{url} answered {status}: no\\x1b[2J" in err
    assert len(came) == 1  # a redirection is not followed


def test_a_server_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    with server() as (url, _):
        pass
    for form in ("prometheus", "otlp", "mlflow"):
        code, _, err = said(["export", str(RUN), "--as", form, "-o", url], capsys)
        assert code == 3
        assert "cannot be reached" in err


def test_opentelemetry_takes_it(
    failing: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with server() as (url, came):
        assert said(["export", str(failing), "--as", "otlp", "-o", url], capsys)[0] == 0
    (one,) = came
    assert (one.method, one.path, one.kind) == ("POST", "/v1/metrics", "application/json")
    file = tmp_path / "run.jsonl"
    assert said(["export", str(failing), "--as", "otlp", "-o", str(file)], capsys)[0] == 0
    assert file.read_bytes() == one.body + b"\n"
    request = json_format.Parse(one.body, ExportMetricsServiceRequest())
    (resource,) = request.resource_metrics
    told = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert (told["service.name"], told["loadbench.run"]) == ("loadbench", failing.name)
    metrics = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    done = [
        point.as_int
        for point in metrics["loadbench.requests"].sum.data_points
        if point.attributes[0].value.string_value == "done"
    ]
    assert done == [500, 500, 500]
    points = metrics["loadbench.latency"].histogram.data_points
    for second, point in enumerate(points):
        assert point.count == sum(point.bucket_counts) == 500
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
        at = list(point.explicit_bounds).index(0.01)  # 10 ms: in (5 ms, 10 ms], or just above
        assert point.bucket_counts[at] + point.bucket_counts[at + 1] == 500
        assert point.time_unix_nano - point.start_time_unix_nano == 1_000_000_000
        assert point.time_unix_nano == points[0].time_unix_nano + second * 1_000_000_000


def test_a_long_run_is_sent_in_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = runlog.create(tmp_path, "long")
    writer = runlog.Writer(folder)
    writer.write(start(run=folder.name, planned_ns=None))
    for second in range(1300):
        writer.write(window(second, [5.0]))
    writer.close(End(1299, "done"))
    with server() as (url, came):
        assert said(["export", str(folder), "--as", "otlp", "-o", url], capsys)[0] == 0
    parsed = [json_format.Parse(one.body, ExportMetricsServiceRequest()) for one in came]
    sizes = [
        len(metric.histogram.data_points)
        for one in parsed
        for metric in one.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == "loadbench.latency"
    ]
    assert sizes == [600, 600, 100]
    assert all(len(batch.get("metrics", ())) <= 1000 for batch in mlflow.batches(source(folder), 0))
    assert sum(len(b.get("metrics", ())) for b in mlflow.batches(source(folder), 0)) > 4 * 1300


def test_mlflow_gets_a_run(
    failing: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {
        "get-by-name": "",
        "experiments/create": '{"experiment_id": "7"}',
        "runs/create": '{"run": {"info": {"run_id": "abc"}}}',
    }
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    with server(answers=answers) as (url, came):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        code, out, _ = said(["export", str(failing), "--as", "mlflow"], capsys)
    assert (code, out) == (0, "logged as run abc\n")
    paths = [one.path.partition("?")[0].removeprefix("/api/2.0/mlflow") for one in came]
    assert paths == [
        "/experiments/get-by-name", "/experiments/create", "/runs/create", "/runs/log-batch",
        "/runs/log-batch", "/runs/update",
    ]  # fmt: skip
    assert {one.token for one in came} == {"Bearer secret"}
    bodies = [json.loads(one.body) for one in came[1:]]
    assert bodies[0] == {"name": "loadbench/steady"}
    assert (bodies[1]["experiment_id"], bodies[1]["run_name"]) == ("7", failing.name)
    assert {"key": "engine.max_batch", "value": "32"} in bodies[2]["params"]
    figures = {one["key"]: one["value"] for one in bodies[3]["metrics"]}
    assert (figures["done"], figures["missed"]) == (1500, 150)
    assert "latency_p99_ms" not in figures  # among the failed: it has no number
    assert figures["latency_p50_ms"] == pytest.approx(10, rel=1e-3)
    assert {one["step"] for one in bodies[3]["metrics"]} == {0, 1, 2}
    assert (bodies[4]["run_id"], bodies[4]["status"]) == ("abc", "FINISHED")


@pytest.mark.parametrize(
    ("deleted", "words"),
    [("{}", "nothing of the run is kept there"), ("<html>", "the run abc there is incomplete")],
)
def test_half_a_run_is_taken_away_from_mlflow_again(
    failing: Path, capsys: pytest.CaptureFixture[str], deleted: str, words: str
) -> None:
    answers = {
        "experiments/get-by-name": '{"experiment": {"experiment_id": "7"}}',
        "runs/create": '{"run": {"info": {"run_id": "abc"}}}',
        "runs/log-batch": "<html>",
        "runs/delete": deleted,
    }
    with server(answers=answers) as (url, came):
        code, _, err = said(["export", str(failing), "--as", "mlflow", "-o", url], capsys)
    assert code == 3
    assert words in err
    assert json.loads(came[-1].body) == {"run_id": "abc"}


@pytest.mark.parametrize("text", ["<html>", "[]", '{"run": 7}', "{}"])
def test_what_is_no_mlflow(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with server(answers={"": text}) as (url, _):
        code, _, err = said(["export", str(RUN), "--as", "mlflow", "-o", url], capsys)
    assert (code, "MLflow" in err) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--as", "csv", "-o", "http://127.0.0.1:1"], "no server takes it"),
        (["--as", "mlflow"], "MLFLOW_TRACKING_URI"),
        (["--as", "csv", "-o", "/nowhere/at/all.csv"], "cannot be written"),
        (["--as", "prometheus", "-o", "http://"], "is no address"),
        (["--as", "prometheus", "-o", "http://a:b@h:99999"], "'h:99999' is no address"),
    ],
)
def test_what_cannot_be_is_said(
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code, out, err = said(["export", str(RUN), *arguments], capsys)
    assert code in (2, 3)
    assert out == ""
    assert words in err


def test_every_format_is_told_by_help(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(["export", "--help"], capsys)[1]
    assert all(f"{name} " in text for name in FORMATS)
