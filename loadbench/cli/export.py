"""`loadbench export RUN --as FORMAT`: a run for other tools, into a file or to a server."""

import os
import sys
from importlib import import_module
from pathlib import Path

import click

from loadbench import runlog
from loadbench.cli.say import give
from loadbench.errors import SpecError
from loadbench.report.export import deliver
from loadbench.report.export.source import Source, source

FORMATS = {
    "csv": "a row a second: too short for bands of its percentiles",
    "parquet": "the same columns, typed (needs pyarrow)",
    "hlog": "HdrHistogram log, a histogram a second",
    "hgrm": "HdrHistogram percentiles of the whole run",
    "perf-analyzer-csv": "the line that perf_analyzer -f writes",
    "prometheus": "text format; a URL is a Pushgateway",
    "otlp": "OpenTelemetry metrics, OTLP/JSON; a URL is a collector",
    "mlflow": "a run in the MLflow tracking server at URL",
}
# format → the module that is imported when it is asked for, and what makes the bytes there
_MAKERS = {
    "csv": ("csv_rows", "csv_bytes"),
    "parquet": ("parquet", "parquet_bytes"),
    "hlog": ("hdr", "hlog_bytes"),
    "hgrm": ("hdr", "hgrm_bytes"),
    "perf-analyzer-csv": ("perf_analyzer", "perf_analyzer_bytes"),
    "prometheus": ("prometheus", "prometheus_bytes"),
    "otlp": ("otlp", "otlp_bytes"),
}
_SERVERS = ("prometheus", "otlp", "mlflow")


@click.command(
    epilog="\b\n" + "\n".join(f"{name:<18} {meaning}" for name, meaning in FORMATS.items())
)
@click.argument("run", default="last")
@click.option("--as", "form", type=click.Choice(list(FORMATS)), required=True, help="The format.")
@click.option(
    "-o", "--output", "where", metavar="FILE|URL", default="-",
    help="Where to; default: standard output. Of mlflow a URL; default: $MLFLOW_TRACKING_URI.",
)  # fmt: skip
@click.option("--out", metavar="DIR", help="The results folder; default: results.")
def command(run: str, form: str, where: str, out: str | None) -> None:
    """RUN (a number, a folder, or `last`) in a form that other tools take."""
    found = source(runlog.find(run, runlog.results_folder(out)))
    if form == "mlflow" and where == "-":
        where = os.environ.get("MLFLOW_TRACKING_URI", "-")
    if deliver.is_url(where):
        if form not in _SERVERS:
            raise SpecError(f"{form} is a file: no server takes it", "-o FILE")
        give(_sent(found, form, where))
        return
    if form == "mlflow":
        raise SpecError("MLflow is a server", "-o http://host:5000, or set MLFLOW_TRACKING_URI")
    data = _made(found, form)
    if where != "-":
        deliver.store(Path(where), data)
        return
    if form == "parquet" and sys.stdout.isatty():
        raise SpecError("Parquet is no text for a terminal", "-o FILE")
    give(data)


def _made(found: Source, form: str) -> bytes:
    module, name = _MAKERS[form]
    made: bytes = getattr(import_module(f"loadbench.report.export.{module}"), name)(found)
    return made


def _sent(found: Source, form: str, url: str) -> str:
    """Sends it; what to say of that."""
    base = url.rstrip("/")
    shown = deliver.parted(base)[0]
    if form == "mlflow":
        from loadbench.report.export.mlflow import Server, log_run

        number = log_run(found, Server(base, os.environ.get("MLFLOW_TRACKING_TOKEN", "")))
        return f"logged as run {number}"
    if form == "prometheus":
        from loadbench.report.export.prometheus import prometheus_bytes, push_path

        deliver.send(
            "PUT", base + push_path(found), prometheus_bytes(found), "text/plain; version=0.0.4"
        )
        return f"pushed to {shown}{push_path(found)}"
    from loadbench.report.export.otlp import PATH, otlp_messages

    path = "" if base.endswith(PATH) else PATH
    for message in otlp_messages(found):
        deliver.send("POST", base + path, message, "application/json")
    return f"sent to {shown}{path}"
