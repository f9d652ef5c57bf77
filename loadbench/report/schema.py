"""JSON schemas of what loadbench writes for other programs, made from the types themselves.

summary      `run --json`, `show --json`        comparison   `compare --json` of two
verdict      `--json-file`                      matrix       the same of more
run          run.json
scenario     the TOML of a scenario, for editors
"""

from typing import Any

import msgspec

from loadbench.judge.comparison import Comparison
from loadbench.judge.matrix import Matrix
from loadbench.report.conclusion import Conclusion
from loadbench.summary import Summary

KINDS = ("summary", "comparison", "matrix", "verdict", "scenario", "run")
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


class RunFile(msgspec.Struct):
    """run.json of one run: what was run, on what, by which versions; `summary` at its end.
    `capacity` is what rates in % are of, in requests per second. One of a series of repeats has
    `kind` "series", the names of its `repeats`, and no summary."""

    schema: int
    loadbench: str
    run: str
    state: str
    began: str
    scenario: str
    spec: dict[str, Any]
    target: dict[str, Any]
    kind: str = "run"
    ended: str | None = None
    pid: int | None = None
    host: str = ""
    scenario_file: str | None = None
    title: str = ""
    phases: list[dict[str, Any]] = []
    capacity: float | None = None
    locustfile: str | None = None
    workers: dict[str, Any] | None = None
    machine: dict[str, Any] | None = None
    commit: str | None = None
    control: str | None = None
    command: list[str] = []
    repeats: list[str] = []
    summary: Summary | None = None


def schema(kind: str) -> dict[str, Any]:
    """The schema of one of KINDS, by its name."""
    if kind == "scenario":
        from loadbench.spec import Spec  # it brings pydantic, which nothing else here needs

        found = Spec.model_json_schema(by_alias=True)
    else:
        types = {
            "summary": Summary,
            "comparison": Comparison,
            "matrix": Matrix,
            "verdict": Conclusion,
            "run": RunFile,
        }
        found = msgspec.json.schema(types[kind])
    return {"$schema": _DRAFT, "title": f"loadbench {kind}", **found}
