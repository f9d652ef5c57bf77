"""JSON schemas of what loadbench writes for other programs, made from the types themselves.

summary      `run --json`, `show --json`        comparison   `compare --json` of two
series       the same of repeats                matrix       the same of more
ab           `ab --json`, the same of an A/B    history      `history --json`
find         `find --json`, of a search         verdict      `--json-file`
run          run.json, of each of these kinds   scenario     the TOML of a scenario, for editors
"""

from typing import Any, Literal

import msgspec

from loadbench.judge.blocks import Layout
from loadbench.judge.comparison import Comparison
from loadbench.judge.matrix import Matrix
from loadbench.judge.search import Found
from loadbench.judge.search import Terms as FindTerms
from loadbench.judge.searches import Hunt
from loadbench.judge.session import Answers, Session
from loadbench.judge.session import Terms as AbTerms
from loadbench.judge.stage import Seen
from loadbench.report.conclusion import Conclusion
from loadbench.summary import Summary

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


class _File(msgspec.Struct, kw_only=True):
    """What every run.json says: what was run, by which version, and how it ended."""

    schema: int
    loadbench: str
    run: str
    state: str
    began: str
    scenario: str
    target: dict[str, Any]
    title: str = ""
    text: str = ""
    ended: str | None = None
    pid: int | None = None
    host: str = ""
    commit: str | None = None
    command: list[str] = []


class _OfOneScenario(_File, kw_only=True):
    """`capacity` is what rates in % are of, in requests per second."""

    spec: dict[str, Any]
    scenario_file: str | None = None
    phases: list[dict[str, Any]] = []
    capacity: float | None = None
    locustfile: str | None = None
    files: dict[str, Any] = {}
    workers: dict[str, Any] | None = None
    machine: dict[str, Any] | None = None


class RunFile(_OfOneScenario, kw_only=True):
    """run.json of one run; `summary` at its end. Of early releases it has no `kind`."""

    kind: Literal["run"] = "run"
    control: str | None = None
    summary: Summary | None = None


class SeriesFile(_OfOneScenario, kw_only=True):
    """That of repeats: the names of their folders, and what they come to together."""

    kind: Literal["series"]
    repeats: list[str]
    wanted: int
    engine: str
    cool_down_s: float
    overall: dict[str, Any] | None
    summary: None = None


class AbFile(_File, kw_only=True):
    """That of two sides in turns, whose runs are in `a/` and `b/`."""

    kind: Literal["ab"]
    layout: Layout
    terms: AbTerms
    sides: dict[str, dict[str, Any]]
    differs: list[tuple[str, Any, Any]]
    answers: Answers | None
    summary: None = None


class FindFile(_OfOneScenario, kw_only=True):
    """That of a search, whose runs are in the folders of `repeats`."""

    kind: Literal["find"]
    repeats: list[str]
    find: Hunt
    summary: None = None


class SeriesFacts(msgspec.Struct):
    """`overall` has medians, and the worst of checks and grades; null until there is a repeat."""

    run: str
    kind: Literal["series"]
    scenario: str
    wanted: int
    engine: str
    cool_down_s: float
    repeats: list[str]
    text: str | None
    state: str
    overall: dict[str, Any] | None
    summaries: list[Summary]


class AbFacts(Session, frozen=True, kw_only=True, omit_defaults=False):
    """`differs` has the settings that are not the same: key, A's, B's."""

    kind: Literal["ab"]
    differs: list[tuple[str, Any, Any]] | None


class Stage(Seen, frozen=True, kw_only=True, omit_defaults=False):
    """A stage; `share` of its requests was over the limit."""

    share: float


class FindSetting(Found, frozen=True, kw_only=True, omit_defaults=False):
    """A setting and what was found of it; `ended`: the search of it is over. `verdict`: it says
    something of the target; `unbounded`: why the interval is open, or there is none."""

    setting: dict[str, Any]
    runs: list[str]
    ended: bool
    verdict: bool
    unbounded: str
    stages: list[Stage]


class FindFacts(msgspec.Struct):
    """`front` names the settings that no other beats."""

    run: str
    kind: Literal["find"]
    scenario: str
    repeats: list[str]
    text: str
    state: str
    slo: str
    terms: FindTerms
    settings: list[FindSetting]
    front: list[str]
    altered: str


class HistoryRun(msgspec.Struct):
    """`figure` is null among the requests not answered well; `band` where it lies at 95 %,
    `no_band` why a percentile has none. `changed`: settings that the run before did not have."""

    run: str
    when: str
    commit: str
    figure: float | None
    trust: str
    place: str
    band: tuple[float, float | None] | None
    no_band: str
    changed: list[str]


class HistoryChange(msgspec.Struct):
    """From `run` on. `before` and `after` are medians of runs, which lie within `before_in` and
    `after_in`; `p` is the share of chance."""

    run: str
    commit: str
    last_before: str
    before: float | None
    after: float | None
    before_in: tuple[float | None, float | None]
    after_in: tuple[float | None, float | None]
    worse: bool
    p: float
    settings_changed: list[str]


class HistoryFacts(msgspec.Struct):
    """`left_out`, `damaged` and `other_work` name runs that are not in it."""

    scenario: str
    metric: str
    unit: str
    runs: list[HistoryRun]
    changes: list[HistoryChange]
    left_out: list[str]
    damaged: list[str]
    other_work: list[str]
    notes: list[str]


_TYPES: dict[str, tuple[Any, ...]] = {
    "summary": (Summary,),
    "series": (SeriesFacts,),
    "comparison": (Comparison,),
    "matrix": (Matrix,),
    "ab": (AbFacts,),
    "find": (FindFacts,),
    "history": (HistoryFacts,),
    "verdict": (Conclusion,),
    "run": (RunFile, SeriesFile, AbFile, FindFile),
}
KINDS = (*_TYPES, "scenario")


def schema(kind: str) -> dict[str, Any]:
    """The schema of one of KINDS, by its name."""
    if kind == "scenario":
        from loadbench.spec import Spec  # it brings pydantic, which nothing else here needs

        found = Spec.model_json_schema(by_alias=True)
    else:
        several, parts = msgspec.json.schema_components(_TYPES[kind], ref_template="#/$defs/{name}")
        found = {**(several[0] if len(several) == 1 else {"anyOf": [*several]}), "$defs": parts}
    return {"$schema": _DRAFT, "title": f"loadbench {kind}", **found}
