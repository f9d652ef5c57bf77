"""The two load generators that are compared: perf_analyzer and `loadbench run`, as processes."""

import csv
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from servers import LOADBENCH, PEERS, Server

LIMIT_SECONDS = 60
ATTEMPTS = 2


class Measured(NamedTuple):
    """What came of a run of perf_analyzer: by its own word, and by the server's statistics.

    `seen` is what it found in those itself. It reads them when its first requests are under way
    already, with any server, so it can miss a few; `inferences` and `batches` miss none.
    """

    requests: int
    mean_ms: float
    rate: float
    seen: int
    succeeded: int
    inferences: int
    batches: int
    text: str


def perf_analyzer(
    server: Server, folder: Path, model: str, *arguments: str, requests: int, grpc: bool = False
) -> Measured:
    """One run, which must end without an error.

    Its time windows can wait forever on a trivial server, so it is given a number of requests; with
    that too it has been seen to stand still, with Triton as with others, so it may try twice.
    """
    table = folder / "perf_analyzer.csv"
    port = server.grpc_port if grpc else server.port
    command = [str(PEERS / "perf_analyzer"), "-m", model, "-u", f"127.0.0.1:{port}"]
    command += ["-i", "grpc"] if grpc else []
    command += ["--request-count", str(requests), "-f", str(table), "--verbose-csv", *arguments]
    for attempt in range(1, ATTEMPTS + 1):
        table.unlink(missing_ok=True)
        before = statistics(server, model)
        try:
            text = _perf_analyzer(command)
        except subprocess.TimeoutExpired:
            print(f"perf_analyzer stands still after {LIMIT_SECONDS} s: {arguments}")
            if attempt == ATTEMPTS:
                raise
            continue
        break
    after = statistics(server, model)
    success = [found["inference_stats"]["success"]["count"] for found in (before, after)]
    with table.open() as file:
        (row,) = csv.DictReader(file)
    return Measured(
        requests=_number(r"Request count: (\d+)", text),
        mean_ms=float(row["Avg latency"]) / 1000,
        rate=float(row["Inferences/Second"]),
        seen=_number(r"Successful request count: (\d+)", text),
        succeeded=success[1] - success[0],
        inferences=after["inference_count"] - before["inference_count"],
        batches=after["execution_count"] - before["execution_count"],
        text=text,
    )


def _perf_analyzer(command: list[str]) -> str:
    ended = subprocess.run(
        command,
        env={**os.environ, "LD_LIBRARY_PATH": str(PEERS / "lib")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


class Run(NamedTuple):
    """A run of loadbench: its summary, and the records of its log."""

    summary: dict[str, Any]
    records: list[dict[str, Any]]

    @property
    def windows(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record["kind"] == "window"]


def run(server: Server, folder: Path, scenario: str, grpc: bool = False) -> Run:
    """`loadbench run` of this TOML against the server; it must end with exit code 0.

    Whether this machine is fit to judge is not asked here: a doubtful run counts too.
    """
    file = folder / "scenario.toml"
    file.write_text(scenario)
    return run_copied(server, folder, file, grpc=grpc)


def run_copied(
    server: Server, folder: Path, file: str | Path, *options: str, grpc: bool = False
) -> Run:
    """The same of a scenario's file."""
    results = folder / "results"
    target = server.grpc_url if grpc else server.url
    ended = subprocess.run(
        [LOADBENCH, "run", file, "--target", target, "--out", results, "--json",
         "--on-no-verdict", "warn", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    newest = max(results.glob("*/log.ndjson"), key=lambda path: path.stat().st_mtime)
    return Run(
        json.loads(ended.stdout), [json.loads(line) for line in newest.read_bytes().splitlines()]
    )


def statistics(server: Server, model: str) -> dict[str, Any]:
    """The server's own account of the model."""
    answer = server.ask(f"/v2/models/{model}/stats")
    assert answer.status == 200, answer
    (found,) = json.loads(answer.body)["model_stats"]
    return dict(found)


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, f"no {pattern!r} in what perf_analyzer says:\n{text}"
    return int(found[1])
