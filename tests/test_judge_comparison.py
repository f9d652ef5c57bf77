"""Sides of one or many repeats: what differs, which figures are judged, and when nothing is."""

import copy
import json
import re
from collections.abc import Sequence
from typing import Any

import jsonschema
import pytest
from msgspec.structs import replace

from loadbench.errors import SpecError
from loadbench.judge import metrics
from loadbench.judge.comparison import Row, Terms, compare, terms_of
from loadbench.judge.gate import decision
from loadbench.judge.matrix import front, matrix
from loadbench.judge.side import Side
from loadbench.model import End, Record, plain
from loadbench.report.comparison import comparison_text
from loadbench.report.matrix import matrix_text
from loadbench.report.schema import schema
from loadbench.summary import summarise
from tests.records import start, window


def snapshot(run: str, latency_ms: float, failed: dict[str, int] | None = None) -> dict[str, Any]:
    records: list[Record] = [
        start(run=run),
        *(window(s, [latency_ms] * 500, failed) for s in range(3)),
        End(2, "done"),
    ]
    return {
        "run": run,
        "spec": {"load": {"seed": 7, "phases": []}, "engine": {"max_batch": 32}, "request": []},
        "phases": [],
        "target": {"model": "mlp", "device": "cpu"},
        "machine": {"cores": 2, "packages": {"torch": "2.13.0"}},
        "summary": plain(summarise(records)),
    }


def one(name: str, latency_ms: float, **changes: Any) -> Side:
    return Side(name, (snapshot(name, latency_ms) | changes,))


MADE = snapshot("made", 50.0)


def side(name: str, p99s: Sequence[float | None], **summary: Any) -> Side:
    """Repeats with these P99s; None: among the failed."""
    found = []
    for number, p99 in enumerate(p99s, 1):
        made = copy.deepcopy(MADE)
        made["run"] = f"{name}/{number}"
        made["summary"]["latency_ms"]["p99"] = p99
        made["summary"] |= summary
        found.append(made)
    return Side(name, tuple(found))


def p99(a: Side, b: Side, terms: Terms | None = None) -> Row:
    return next(row for row in compare(a, b, terms).rows if row.metric == "p99")


NEAR = [50.0, 50.4, 50.8, 49.9, 50.1, 50.6]


def test_figures_and_no_verdict_from_single_runs() -> None:
    found = compare(one("0001-a", 50.0), one("0002-b", 40.0))
    assert found.comparable
    assert found.differences == ()
    rows = {row.metric: row for row in found.rows}
    assert rows["p99"].shift == pytest.approx(-0.2, abs=2e-3)
    assert (rows["p99"].word, rows["p99"].why) == ("inconclusive", "1 run each")
    assert {row.word for row in found.rows if row.metric != "p99"} == {""}
    assert rows["p99"].n == (1, 1)
    assert "batch wait" not in rows  # neither side has it
    assert [note.code for note in found.notes] == ["single-runs", "no-bands", "no-bands"]
    assert decision(found).code == 4


def test_what_differs_comes_first_by_its_deepest_key() -> None:
    a, b = snapshot("0001-a", 50.0), snapshot("0002-b", 40.0)
    b["spec"]["engine"]["max_batch"] = 8
    b["machine"]["packages"]["torch"] = "2.12.0"
    b["target"]["device"] = "cuda:0"
    found = compare(Side("a", (a,)), Side("b", (b,)))
    assert {(d.key, d.a, d.b) for d in found.differences} == {
        ("engine.max_batch", 32, 8),
        ("machine.packages.torch", "2.13.0", "2.12.0"),
        ("target.device", "cpu", "cuda:0"),
    }
    assert found.comparable


def test_a_load_of_another_length_is_told_as_scenarios_write_it() -> None:
    a, b = snapshot("0001-a", 50.0), snapshot("0002-b", 40.0)
    for made, minutes in ((a, 3), (b, 5)):
        made["phases"] = [{"begin": 100.0, "length_ns": minutes * 60 * 10**9}]
    text = comparison_text(compare(Side("a", (a,)), Side("b", (b,))))
    assert "phases[0].length: 3 m → 5 m" in text


@pytest.mark.parametrize(
    ("part", "key", "value", "other"),
    [
        (("spec", "target"), "url", "http://a:8000", "http://b:8000"),
        (("spec", "load"), "warmup", "1 s", "0 s"),
        (("target",), "version", "1", "2"),
        (("target",), "protocol", "kserve", "http"),
        (("machine",), "host", "here", "there"),
        (("summary",), "limit_ms", 100.0, 50.0),
        (("spec", "target"), "path", "/light", "/heavy"),
        (("spec", "target"), "method", "GET", "POST"),
        (("spec", "target", "headers"), "X-Variant", "a", "$VARIANT"),
        (("spec", "target", "headers"), "X-Variant", "a", None),
        (("spec", "target"), "shared_memory", False, True),
        (("spec", "target"), "stream", False, True),
        (("spec", "target"), "layout", "rows", "columns"),
        (("spec", "target"), "signature", "serving_default", "other"),
        (("spec", "target"), "resolve", "10 s", "0 ns"),
        (("spec", "target"), "max_rate", None, 50.0),
        (("spec", "load"), "drain", "10 s", "1 s"),
        (("spec", "load"), "calibrate", "3 s", "9 s"),
        (("spec", "engine", "sim"), "memory", "8 B", "9 B"),
        (("spec", "target"), "of_a_later_version", 1, 2),
        (("spec", "table_of_a_later_version"), "key", 1, 2),
    ],
)
def test_same_is_said_only_where_nothing_differs_that_a_figure_may_come_from(
    part: tuple[str, ...], key: str, value: object, other: object
) -> None:
    sides = []
    for name, here in (("a", value), ("b", other)):
        made = snapshot(name, 50.0)
        at = made
        for each in part:
            at = at.setdefault(each, {})
        at[key] = here
        sides.append(Side(name, (made,)))
    found = compare(sides[0], sides[1])
    assert [(d.key, d.a, d.b) for d in found.differences] == [
        (".".join((*part, key)).removeprefix("spec."), value, other)
    ]
    assert "Same scenario" not in comparison_text(found)
    assert found.comparable == (key not in ("path", "method"))


@pytest.mark.parametrize(
    ("part", "key"),
    [
        (("spec",), "title"),
        (("spec", "checks"), "p99"),
        (("spec", "alerts"), "token"),
        (("spec", "target"), "owned"),
        (("spec", "load"), "locustfile"),
    ],
)
def test_what_no_figure_comes_from_is_no_difference(part: tuple[str, ...], key: str) -> None:
    sides = []
    for name in "ab":
        made = snapshot(name, 50.0)
        at = made
        for each in part:
            at = at.setdefault(each, {})
        at[key] = name
        sides.append(Side(name, (made,)))
    assert compare(sides[0], sides[1]).differences == ()


def test_settings_come_in_the_order_of_their_weight_and_without_secrets() -> None:
    a, b = snapshot("a", 50.0), snapshot("b", 50.0)
    for made, text in ((a, "Bearer one"), (b, "Bearer two")):
        made["machine"]["cores"] = len(text) + ord(text[-1])
        made["spec"]["engine"]["max_batch"] = text
        made["spec"]["target"] = {"headers": {"Authorization": text}, "url": text}
        made["target"]["protocol"] = text
    found = compare(Side("a", (a,)), Side("b", (b,))).differences
    assert [one.key for one in found] == [
        "target.headers.Authorization", "target.url", "target.protocol", "engine.max_batch",
        "machine.cores",
    ]  # fmt: skip
    assert (found[0].a, found[0].b) == ("(left out)", "(left out)")


def test_a_setting_that_an_older_version_did_not_know_differs_only_where_it_is_used() -> None:
    a, b = snapshot("a", 50.0), snapshot("b", 50.0)
    b["spec"]["target"] = {"headers": {}, "stream": False, "max_rate": None, "replicas": []}
    assert compare(Side("a", (a,)), Side("b", (b,))).differences == ()
    b["spec"]["target"]["stream"] = True
    (found,) = compare(Side("a", (a,)), Side("b", (b,))).differences
    assert (found.key, found.a, found.b) == ("target.stream", None, True)


def test_different_work_has_no_verdict_unless_asked_for() -> None:
    a, b = side("a", NEAR), side("b", [ms * 1.2 for ms in NEAR])
    for made in b.snapshots:
        made["spec"]["load"]["seed"] = 8
        made["target"]["model"] = "encoder"
    found = compare(a, b)
    assert not found.comparable
    assert found.notes[0].code == "different-work"
    assert "load, target" in found.notes[0].text
    assert (found.gated[0].word, found.gated[0].why) == ("inconclusive", "different work")
    assert p99(a, b, Terms(anyway=True)).word == "worse"
    b.snapshots[3]["spec"]["load"]["seed"] = 7
    with pytest.raises(SpecError, match=r"repeats of b did different work: load\.seed"):
        compare(a, b)


def test_a_side_that_is_weak_or_unfinished() -> None:
    a = snapshot("0001-a", 50.0)
    b = copy.deepcopy(a)
    b["summary"]["trust"], b["summary"]["reason"] = "doubtful", "stopped"
    codes = [note.code for note in compare(Side("a", (a,)), Side("b", (b,))).notes]
    assert codes == ["single-runs", "trust", "incomplete", "no-bands", "no-bands"]
    del b["summary"]
    with pytest.raises(SpecError, match="has no summary"):
        compare(Side("a", (a,)), Side("b", (b,)))


def test_each_verdict_at_six_repeats() -> None:
    a = side("a", NEAR)
    words = {
        by: p99(a, side("b", [ms * by for ms in NEAR])).word for by in (0.5, 0.9, 1.0, 1.1, 1.5)
    }
    assert words == {0.5: "better", 0.9: "better", 1.0: "same", 1.1: "worse", 1.5: "worse"}
    assert p99(a, side("b", [ms * 1.03 for ms in NEAR])).word == "same"
    unsteady = [50.0, 70.0, 40.0, 60.0, 45.0, 50.0]
    open_ = p99(a, side("b", unsteady))
    assert (open_.word, open_.why) == ("inconclusive", "")
    assert open_.more is not None
    assert open_.mde is not None
    assert open_.mde > 0.2
    lower = p99(side("a", [80, 60, 70, 75, 65, 68]), side("b", [50, 60, 55, 58, 70, 45]))
    assert lower.word == "ruled out"  # perhaps better; certainly not worse by 5 %


def test_the_bounds_are_those_differences_that_the_rank_sum_test_names() -> None:
    row = p99(side("a", NEAR), side("b", [ms * 1.1 for ms in NEAR]))
    ratios = sorted(1.1 * y / x - 1 for x in NEAR for y in NEAR)
    assert row.low == pytest.approx(ratios[3])  # 4th of 36: P(U ≤ 3) = 7/924 < 1 % < 12/924
    assert row.high == pytest.approx(ratios[-4])
    assert row.inside_high == pytest.approx(ratios[-8])
    assert row.shift == pytest.approx(0.1, abs=0.005)
    assert row.a == pytest.approx(50.25)


def test_fewer_than_five_repeats_never_give_a_verdict() -> None:
    row = p99(side("a", NEAR[:4]), side("b", [ms * 3 for ms in NEAR[:4]]))
    assert (row.word, row.mde) == ("inconclusive", None)
    assert "5 + 5 are the fewest" in row.why
    assert p99(side("a", NEAR[:5]), side("b", [ms * 3 for ms in NEAR[:5]])).word == "worse"


def test_a_value_among_the_failed_is_larger_than_any_number() -> None:
    a, half = side("a", NEAR), side("b", [*NEAR[:3], None, None, None])
    every = p99(a, side("b", [None] * 6))
    assert (every.word, every.shift, every.b, every.beyond) == ("worse", None, None, (None, 100.0))
    assert p99(side("b", [None] * 6), a).word == "better"
    assert p99(a, half).word == "inconclusive"
    both = p99(side("a", [None] * 6), side("b", [None] * 6))
    assert (both.word, both.shift) == ("inconclusive", None)  # which would be larger?
    assert both.why == "p99 is among the requests not answered well on both sides"
    assert decision(compare(side("a", [None] * 6), side("b", [None] * 6))).code == 4
    text = comparison_text(compare(a, side("b", [None] * 6)))
    assert "> 100" in text
    assert "medians of repeats have no ±" in text
    assert "not that of the two medians" in text  # which stand beside it
    assert "medians" not in comparison_text(compare(one("a", 50.0), one("b", 50.0)))
    json.loads(json.dumps(plain(compare(a, half)), allow_nan=False))


def test_gated_metrics_share_the_error() -> None:
    """With nine of them 6 + 6 repeats that do not even overlap are just enough (1/924 < 1 %/9)."""
    a, b = side("a", NEAR), side("b", [ms * 1.3 for ms in NEAR])
    names = ("p50", "p90", "p95", "p99", "p99.9")
    assert p99(a, b, Terms(metrics=names)).word == "worse"
    five = Side("a", a.snapshots[:5]), Side("b", b.snapshots[:5])
    assert p99(*five).word == "worse"
    assert p99(*five, Terms(metrics=names)).word == "inconclusive"  # 1/252 > 1 %/5
    with pytest.raises(SpecError, match="no margin for 'on time'"):
        compare(a, b, Terms(metrics=("on time",)))


def throughput(a: Side, b: Side) -> Row:
    found = compare(a, b, Terms(metrics=("throughput",)))
    return next(row for row in found.rows if row.metric == "throughput")


def test_throughput_is_judged_only_where_it_is_no_answer_to_what_was_asked() -> None:
    a = side("a", NEAR)
    b = copy.deepcopy(a)
    for made in b.snapshots:
        for name in ("asked", "done"):
            made["summary"]["rate"][name] *= 0.9
    found = compare(a, b, Terms(metrics=("throughput",)))
    assert found.kept_up == (True, True)
    assert throughput(a, b).word == ""
    assert "kept-up" in {note.code for note in found.notes}
    assert decision(found).code == 0
    for made in b.snapshots:  # it does not keep up
        made["summary"]["done"] = round(made["summary"]["asked"] * 0.9)
    assert compare(a, b).kept_up == (True, False)
    assert throughput(a, b).word == "worse"  # less is worse
    assert throughput(b, a).word == "better"
    late = copy.deepcopy(a)  # all is done in the end, but not while it was asked
    for made in late.snapshots:
        made["summary"]["rate"]["done"] *= 0.4
    assert compare(a, late).kept_up == (True, False)
    assert decision(compare(a, late, Terms(metrics=("throughput",)))).code == 1
    for made in late.snapshots:  # but for what took that long, and was under way as the load ended
        made["summary"] |= {"seconds": 3.0, "answered_ms": {"mean": 3000.0}}
    assert compare(a, late).kept_up == (True, True)
    closed = copy.deepcopy(a)
    for made in closed.snapshots:
        made["spec"]["load"]["arrivals"] = "closed"
    assert compare(closed, closed).kept_up is None
    assert throughput(closed, closed).word == "same"


@pytest.mark.parametrize("metric", ["first_token_p99", "tokens", "energy"])
def test_what_is_gated_and_not_there_has_no_verdict(metric: str) -> None:
    a = side("a", NEAR)
    found = compare(a, a, Terms(metrics=(metric, "p50")))
    row = next(one for one in found.gated if one.metric == metric)
    assert (row.word, row.why, row.n) == ("inconclusive", f"the runs have no {metric}", (0, 0))
    assert decision(found).code == 4
    assert f"the runs have no {metric}" in decision(compare(a, a, Terms(metrics=(metric,)))).text


def test_an_invalid_repeat_leaves_no_verdict_and_one_broken_off_does_not_count() -> None:
    a, b = side("a", NEAR), side("b", [ms * 2 for ms in NEAR])
    b.snapshots[2]["summary"]["trust"] = "invalid"
    found = compare(a, b)
    assert found.gated[0].why == "the figures of B cannot be trusted"
    assert decision(found).code == 4
    a, b = side("a", NEAR), side("b", [ms / 2 for ms in NEAR])
    altered = {"code": "altered", "text": "run.json was altered after the run", "hint": ""}
    b.snapshots[3]["summary"]["notes"] = [altered]
    assert "run.json was altered" in decision(compare(a, b)).text
    assert decision(compare(a, b)).code == 4
    invalid = side("b", NEAR, trust="invalid")  # nor is that it kept up
    found = compare(a, invalid, Terms(metrics=("throughput",)))
    assert (found.kept_up, decision(found).code) == ((True, True), 4)
    stopped = side("a", [*NEAR, 500.0])
    stopped.snapshots[-1]["summary"]["reason"] = "stopped"
    assert p99(stopped, b).n == (6, 6)
    (note,) = (note for note in compare(stopped, b).notes if note.code == "incomplete")
    assert note.text == "1 of 7 repeats of a stopped"


def test_a_repeat_that_failed_leaves_no_verdict_on_the_others() -> None:
    a, b = side("a", NEAR), side("b", [ms / 2 for ms in [*NEAR, 50.0]])
    b.snapshots[-1]["summary"]["reason"] = "failed"  # the engine died, say
    found = compare(a, b)
    assert (found.gated[0].word, found.gated[0].n) == ("inconclusive", (6, 6))
    assert found.gated[0].why == "1 of 7 repeats of b failed"
    assert "1 of 7 repeats of b failed" in comparison_text(found)
    assert decision(found).code == 4


def _on(cpu: float, waited: float | None, own: float = 0.3) -> dict[str, Any]:
    """A machine of two cores: how much of it was used, and how long what was measured waited."""
    processes = {
        "engine": {"cpu": own, "memory": 1, "waited": waited},
        "load": {"cpu": 0.1, "memory": 1, "waited": 0.01},
    }
    return {"machine": {"cpu": cpu, "processes": processes}}


def test_a_side_that_others_disturbed_has_no_verdict() -> None:
    """Two thirds slower, and others had a core of the machine, for which it had to wait."""
    slow = [one * 1.7 for one in NEAR]
    quiet, starved = side("A", NEAR, **_on(0.22, 0.002)), side("B", slow, **_on(0.7, 0.4))
    row = p99(quiet, starved)
    assert row.word == "inconclusive"
    assert row.why == "other programs had the machine during B (1.0 cores, 0.040 during A)"
    assert row.mde is not None
    assert row.more is None  # more of the same would not help
    found = decision(compare(quiet, starved))
    assert found.code == 4
    assert "smaller regressions than these can have been missed: p99" in found.missed
    assert p99(starved, quiet).why.startswith("other programs had the machine during A")


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (_on(0.22, 0.002), _on(0.7, 0.4, own=1.3)),  # it is its own work that it waits for
        (_on(0.7, 0.4), _on(0.7, 0.45)),  # both had the same company
        (_on(0.22, 0.002), _on(0.7, 0.01)),  # there were cores enough
        (_on(0.22, None), _on(0.7, None)),  # the kernel does not tell
        ({}, _on(0.7, 0.4)),  # nor did an earlier loadbench
    ],
)
def test_company_that_explains_nothing_leaves_the_verdict(
    a: dict[str, Any], b: dict[str, Any]
) -> None:
    slow = [one * 1.7 for one in NEAR]
    assert p99(side("A", NEAR, **a), side("B", slow, **b)).word == "worse"


def test_the_order_and_the_drift_are_told() -> None:
    a, b = side("a", NEAR), side("b", NEAR)
    for hour, made in enumerate([*a.snapshots, *b.snapshots]):
        made["began"] = f"2026-01-05T{hour:02}:00:00+00:00"
    found = compare(a, b)
    assert found.order == "AAAAAABBBBBB"
    assert "one-after-the-other" in {note.code for note in found.notes}
    for hour, pair in enumerate(zip(a.snapshots, b.snapshots, strict=True)):
        for minute, made in enumerate(pair):
            made["began"] = f"2026-01-05T{hour:02}:{minute:02}:00+00:00"
            made["summary"]["latency_ms"]["p50"] = 40.0 + hour
    found = compare(a, b)
    assert found.order == "AB" * 6
    codes = [note.code for note in found.notes]
    assert codes == ["drift", "drift"]
    assert "from 40.0 to 45.0 ms" in found.notes[0].text


def test_the_order_of_many_repeats_fits_on_a_line() -> None:
    found = compare(side("a", NEAR), side("b", NEAR))
    for letters, told in (
        ("ABBA", "ABBA"),
        ("A" * 500 + "B" * 500, "500 A, 500 B"),
        ("ABBA" * 250, f"{'ABBA' * 12} … (1,000 in all)"),
    ):
        text = comparison_text(replace(found, order=letters))
        assert f"made in this order: {told}" in text.splitlines()[-1].strip(), text


def test_the_gate_by_words() -> None:
    a = side("a", NEAR)
    worse = decision(compare(a, side("b", [ms * 1.1 for ms in NEAR])))
    assert worse.code == 1
    assert "p99 +10.0 %" in worse.text
    fine = decision(compare(a, side("b", NEAR)), strict=True)
    assert fine.code == 0
    assert "can have been missed: p99" in fine.missed
    unclear = compare(a, side("b", [50.0, 70.0, 40.0, 60.0, 45.0, 50.0]))
    assert decision(unclear).code == 0
    assert decision(unclear, strict=True).code == 4


def test_terms_as_they_are_written() -> None:
    terms = terms_of(["p99=7%", "throughput = 0.03", "p50"])
    assert terms.metrics == ("p99", "throughput", "p50")
    assert [terms.margin_of(name) for name in terms.metrics] == [0.07, 0.03, 0.05]
    assert terms_of([]).metrics == ("p99",)
    assert terms_of(["p99.9=2%", "first_token_p99"]).metrics == ("p99.9", "first_token_p99")
    assert terms_of(["p99_9=2%"]) == terms_of(["p99.9=2%"])  # as checks have it
    for wrong in ("p98", "p99=x", "p99=0%", "p99=100%", "p99=nan", "failed=1%"):
        with pytest.raises(SpecError, match="--gate"):
            terms_of([wrong])


def test_the_pause_between_repeats_is_a_setting_of_theirs() -> None:
    a, b = side("a", NEAR), side("b", NEAR)
    for one_of, pause in ((a, 0.0), (b, 60.0)):
        for made in one_of.snapshots:
            made["cool_down_s"] = pause
    assert [(d.key, d.a, d.b) for d in compare(a, b).differences] == [("cool_down_s", 0.0, 60.0)]
    assert compare(a, side("c", NEAR)).differences == ()  # single runs have none


def test_the_front_of_several() -> None:
    assert front([(1, 5), (2, 2), (2, 3), (5, 1), (5, 1)]) == [True, True, False, True, True]
    sides = [side("a", NEAR), side("b", [ms / 2 for ms in NEAR]), side("c", [None] * 6)]
    found = matrix(sides, [compare(sides[0], other) for other in sides[1:]])
    assert found.measures[:2] == ("p99", "throughput")
    assert [entry.front for entry in found.entries] == [False, True, False]
    assert [entry.words.get("p99") for entry in found.entries] == [None, "better", "worse"]
    written = json.loads(json.dumps(plain(found)))
    jsonschema.Draft202012Validator(schema("matrix")).validate(written)
    text = matrix_text(found)
    assert "> 100" in text
    assert text.count("★") == 2  # a row, and what it means
    assert "Same scenario" in text


def test_of_several_what_differs_comes_first_and_each_verdict_with_what_it_rests_on() -> None:
    sides = [side("a", NEAR), side("b", NEAR), side("c", [ms * 1.5 for ms in NEAR])]
    for made in sides[2].snapshots:
        made["spec"]["engine"]["max_batch"] = 8
    found = matrix(sides, [compare(sides[0], other) for other in sides[1:]])
    lines = [line.strip() for line in matrix_text(found).splitlines()]
    assert lines[:3] == ["Differs from a:", "c: engine.max_batch: 32 → 8", ""]
    told = [line for line in lines if "would be found in 95 % of cases" in line]
    assert [line.split(":")[0] for line in told] == ["b", "c"]
    assert told[1].startswith("c: p99 +50.0 % (+")
    assert all("margin 5.0 %" in line for line in told)
    assert any(line.startswith("medians of repeats have no ±") for line in lines)


def test_the_percentiles_of_single_runs_stand_with_their_bands_in_a_table_too() -> None:
    sides = [one(name, 50.0) for name in "abc"]
    sides[1].snapshots[0]["summary"]["bands_ms"] = {"p99": [48.0, 53.0]}
    text = matrix_text(matrix(sides, [compare(sides[0], other) for other in sides[1:]]))
    rows = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "±3.0" in rows["b"]
    assert "±" not in rows["c"] + rows["a"]
    assert "medians" not in text


def test_every_percentile_has_its_band_or_why_it_has_none() -> None:
    single, banded, old = (one(name, 50.0) for name in ("single", "banded", "old"))
    banded.snapshots[0]["summary"]["bands_ms"] = {"p99": [48.0, 53.0]}
    old.snapshots[0]["summary"]["no_bands"] = {}
    sides = [single, banded, old, side("several", NEAR)]
    found = matrix(sides, [compare(single, other) for other in sides[1:]])
    for whole in found.comparisons:
        for row in whole.rows:
            percentile = metrics.BY_NAME[row.metric].of_order
            for value, band, why in zip((row.a, row.b), row.bands, row.no_bands, strict=True):
                assert (band is None and bool(why)) == (percentile and band is None), row
                assert value is not None
    p99s = [(each.bands[0], each.no_bands[0]) for each in found.entries]
    assert p99s[1] == ((48.0, 53.0), "")
    short, _, untold, median = (why for band, why in p99s)
    assert short.endswith("seconds at one rate are needed")
    assert "does not tell" in untold
    assert median == "it is a median of repeats, which tell how much it moves"
    assert found.measures[1] == "throughput"  # no percentile
    assert {each.no_bands[1] for each in found.entries} == {""}
    for kind, told in (("matrix", found), ("comparison", found.comparisons[2])):
        written = json.loads(json.dumps(plain(told)))
        jsonschema.Draft202012Validator(schema(kind)).validate(written)
        assert '"no_bands": [' in json.dumps(written)


def test_a_damaged_summary_is_one_error() -> None:
    for broken in ({"latency_ms": 3}, {"notes": None}, {"trust": "trusted"}):
        a = one("a", 50.0, summary=broken)
        with pytest.raises(SpecError, match="is damaged") as told:
            compare(a, a)
        assert not re.search(r"Error|NoneType|object", told.value.message)
    nothing: tuple[Any, ...] = (None, [], {}, {"load": None})
    for spec in nothing:
        with pytest.raises(SpecError, match=r"a: run\.json is damaged: .*spec\.load"):
            compare(one("a", 50.0, spec=spec), one("b", 50.0))


def test_what_can_be_gated_is_a_figure_with_a_direction() -> None:
    assert set(metrics.GATED) >= {"p50", "p95", "p99", "throughput", "memory"}
    assert not set(metrics.GATED) & {"failed", "on time", "per batch", "queue"}
