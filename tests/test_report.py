"""The end text: what people read first, in terminals and in CI logs."""

from msgspec.structs import replace

from loadbench.histogram import Histogram
from loadbench.judge.checks import verdict
from loadbench.merge import servers
from loadbench.model import (
    AlertChange,
    BatchSize,
    Check,
    End,
    Machine,
    Note,
    Part,
    Process,
    Record,
    Server,
)
from loadbench.report.batches import groups, reasons
from loadbench.report.conclusion import concluded
from loadbench.report.markdown import markdown, prose
from loadbench.report.text import summary_text
from loadbench.summary import summarise
from loadbench.units import MS
from tests.records import start, window

CHECKS = (Check("p99", False, 100 * MS, "< 100 ms"), Check("errors", False, 0.01, "< 1 %"))


def text(records: list[Record], **fields: object) -> str:
    first = start(checks=CHECKS, **fields)
    summary = summarise([first, *records])
    assert summary is not None
    return summary_text(summary, first.rules, "results/0001")


def test_hits_of_a_cache_without_its_requests_leave_no_time_below_zero() -> None:
    server = Server("metrics", queue=Part(500, 500 * 2 * MS), requests=None, cached=500)
    found = text([window(0, [10.0] * 500, server=server), End(0, "done")])
    assert "TIME      queue 0 ms 0 %   untold 10.0 ms 100 %" in found


def test_a_run_that_went_well() -> None:
    server = Server(
        "loadbench",
        queue=Part(500, 500 * 2 * MS, Histogram.of([2 * MS] * 500)),
        batch_wait=Part(500, 0),
        compute=Part(500, 500 * 6 * MS),
        rows=500,
        batches=100,
        closed={"full": {8: 75}, "idle": {1: 25}},
        max_batch=8,
        requests=1000,
        cached=500,
        parts={"preprocess a:b": Part(100, 100 * MS), "model": Part(100, 300 * MS)},
    )
    machine = Machine(cpu=0.61, processes={"load": Process(0.43, 10**8)})
    late = Histogram.of([300_000] * 500)
    found = text(
        [
            *(
                window(s, [10.0] * 500, server=server, machine=machine, lateness=late)
                for s in range(3)
            ),
            End(2, "done"),
        ]
    )
    assert found.splitlines()[0] == "loadbench 0001-steady-mlp   local:mlp   3 s   ■ done"
    short = "not shown (≥ 39,000 more)"
    assert f"CHECKS    ✓ p99 10.0 ms < 100 ms · {short}    ✓ errors 0 % < 1 % · {short}" in found
    assert "CERTAIN   no bands: 80 seconds at one rate are needed" in found
    assert "LOAD      asked 500/s   done 500/s (100 %)   1,500 requests   none failed" in found
    assert "on time 100 % (within 100 ms)" in found
    # half of the requests were answered from the cache, without queue and compute
    assert "TIME      queue 1.00 ms 10 %   batch wait 0 ms 0 %   compute 3.00 ms 30 %" in found
    assert "network 6.00 ms 60 %" in found
    parts = "50 % from the cache · preprocess a:b 1.00 ms, model 3.00 ms a batch"
    assert f"PARTS     {parts}" in found
    assert "ENGINE    5.00 per batch, 62 % full   300 batches   closed: full 75 %" in found
    assert "MACHINE   CPU 61 %   load 43 % of a core" in found
    assert "LATE      the generator sent p50 0.300" in found
    assert found.endswith("results/0001")
    assert "ANSWERED" not in found


def test_a_percentile_among_the_failed_is_no_number() -> None:
    refused = [window(s, [10.0] * 400, {"http_503": 100}) for s in range(3)]
    found = text([*refused, End(2, "done")])
    assert "✗ p99 > 100 ms (20 % not answered well)" in found
    assert "✗ errors 20 % < 1 %" in found
    assert "failed 300" in found
    assert "FAILED    300 http_503" in found
    assert "p99 > 100   p99.9 > 100" in found
    assert "ANSWERED  p50 10.0" in found


def test_a_percentile_among_the_failed_is_not_below_those_that_were_answered() -> None:
    slow = [window(s, [250.0] * 400, {"http_503": 100}) for s in range(3)]
    found = text([*slow, End(2, "done")])
    assert "p50 250   p90 > 250   p95 > 250" in found


def test_a_run_that_was_killed() -> None:
    found = text([window(0, [10.0] * 500)])
    assert "✗ killed" in found
    assert "the log breaks off here" in found


def test_verdicts_stand_below_the_alerts_of_most_weight() -> None:
    """What the target does, then the longest; the others are counted."""
    episodes = [("lateness", 1, 40), ("lateness", 50, 90), *(("p99", at, at + 9) for at in
                (100, 120, 140)), ("errors", 160, 163), ("cpu", 170, 175)]  # fmt: skip
    records: list[Record] = [window(0, [10.0] * 50)]
    for name, began, end in episodes:
        words = (
            f"{name}; what follows is of 0{began}.",
            f"It was {name} at {began}.",
            f"Likely: {began}.",
        )
        records.append(AlertChange(began, name, "firing", 1.0, began, limit=1.0, words=words))
        records.append(AlertChange(end, name, "ok", 1.0, began, limit=1.0, words=words))
    found = text([*records, End(200, "done")])
    told = [began for _, began, _ in episodes if f"Likely: {began}." in found]
    assert told == [50, 100, 120, 140, 160]
    assert "    Of 050: It was lateness at 50.\n    Likely: 50." in found
    assert "· why 2 more of them fired stands in run.json" in found


def test_alerts_and_doubts_stand_below() -> None:
    alert = AlertChange(7, "p99", "firing", 184.0, since=3, peak=184.0, context="100/s asked")
    ended = AlertChange(20, "p99", "ok", 50.0, since=3, peak=220.0)
    found = text([window(0, [10.0] * 50), alert, ended, End(0, "done")])
    assert "▲ alert p99 latency > 100 ms: 00:03 to 00:20, peak 220 ms (100/s asked)" in found
    assert "▲ doubtful" in found.splitlines()[0]
    assert "· only 50 requests: a p99 needs 459" in found
    assert found.count("percentiles of alerts are of 10 s each: too short for ±") == 1
    assert "of alerts" not in text([window(0, [10.0] * 50), End(0, "done")])


def test_a_percentile_in_a_note_has_its_band_or_why_it_has_none() -> None:
    late = Note("generator-late", "the load generator was late by 6.91 ms (p99)", "")
    found = summarise(
        [start(), window(0, [10.0] * 50, lateness=Histogram.of([MS] * 50)), End(0, "done")]
    )
    assert found is not None
    found = replace(found, notes=(late,), lateness_ms={**found.lateness_ms, "p99": 6.91})
    assert "· no ± of the p99 by which requests were late: 80 seconds at one rate" in summary_text(
        found
    )
    banded = replace(found, more_bands_ms={"lateness_ms": {"p99": (6.5, 7.5)}})
    told = "the p99 by which requests were late: 6.91 ±0.59 ms"
    assert f"· {told}" in summary_text(banded)
    comment = markdown(concluded([banded], verdict([banded], False), False, False))
    assert f"- {prose(told)}" in comment


def test_a_run_without_any_request() -> None:
    assert "no requests were recorded" in text([End(0, "stopped")])


def test_batches_are_as_full_as_the_limit_of_their_own_time_let_them() -> None:
    """max_batch goes from 32 to 4 in the middle of the run."""

    def served(limit: int, rows: int, batches: int) -> Server:
        return Server(
            "loadbench", sizes={rows: BatchSize(batches)}, rows=rows * batches, batches=batches,
            max_batch=limit, closed={"full" if rows == limit else "idle": {rows: batches}},
        )  # fmt: skip

    seconds = [served(32, 4, 20), served(32, 4, 20), served(4, 2, 20)]
    both = servers(seconds)
    assert both is not None
    assert both.rooms == {32: 40, 4: 20}
    assert both.fill == (80 + 80 + 40) / (40 * 32 + 20 * 4)
    minutes = [servers(seconds[:2]), servers(seconds[2:])]
    again = servers([found for found in minutes if found])
    assert again == both
    assert [group.name for group in groups(both)] == ["2", "3", "4"]  # four are not full in 32
    larger = servers([served(4, 4, 20), served(32, 32, 5)])
    assert larger is not None
    assert [group.name for group in groups(larger) if group.sizes.batches] == ["3-4", "32 full"]
    assert reasons(larger)[0][1] == "full (4-32)"
    same = servers([served(32, 4, 20), served(32, 8, 20)])
    assert same is not None
    assert (same.rooms, same.fill) == ({}, 6 / 32)
    found = text([window(s, [10.0] * 500, server=server) for s, server in enumerate(seconds)])
    assert "ENGINE    3.33 per batch, 15 % full" in found


def test_of_a_run_without_any_length_no_rate_is_told() -> None:
    server = Server("loadbench", sizes={1: BatchSize(1)}, rows=1, batches=1, max_batch=8)
    first = start(planned_ns=1)
    summary = summarise([first, window(0, [10.0], server=server, stage="drain"), End(0, "done")])
    assert summary is not None
    found = summary_text(replace(summary, seconds=1e-9), first.rules, "results/0001")
    assert "per batch" in found
    assert "batches/s" not in found
