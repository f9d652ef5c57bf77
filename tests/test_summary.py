"""The end of a run from its log: the account, the checks, the episodes, the trust grade."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from dashboard.measures import parts_ms
from loadbench.account import account
from loadbench.diagnoses import diagnoses
from loadbench.histogram import Histogram
from loadbench.merge import merge
from loadbench.model import (
    AlertChange,
    BatchSize,
    Check,
    End,
    Gpu,
    Ground,
    Machine,
    Minute,
    Note,
    Part,
    Process,
    Record,
    Remark,
    Server,
)
from loadbench.report.parts import mean_split
from loadbench.report.text import summary_text
from loadbench.situation import Situation
from loadbench.streams import Stream
from loadbench.summary import Summary, summarise
from loadbench.units import MS, SECOND
from tests.records import start, window


def whole(records: Sequence[Record], **fields: Any) -> Summary:
    found = summarise([start(**fields), *records])
    assert found is not None
    return found


def test_the_account_of_a_whole_run() -> None:
    found = whole(
        [
            window(-1, [900.0] * 50, stage="warmup"),
            window(0, [10.0] * 100),
            window(1, [20.0] * 99, {"http_503": 1}),
            window(2, [30.0] * 90, asked=100, sent=100, in_flight=10),
            window(3, [40.0] * 10, stage="drain", asked=0, sent=0),
            Minute(window(0, [10.0] * 1000), 3),  # repeats the seconds: must not count again
            End(3, "done"),
        ]
    )
    assert (found.asked, found.sent, found.done, found.failed) == (300, 300, 299, {"http_503": 1})
    assert (found.unsent, found.unfinished, found.lost) == (0, 0, 0)
    assert found.seconds == 3.0
    assert found.rate["asked"] == pytest.approx(100)
    assert found.rate["done"] == pytest.approx(289 / 3)  # within the load, not in the drain
    assert found.latency_ms["p50"] == pytest.approx(20, rel=1e-3)
    assert found.on_time == pytest.approx(299 / 300)


def test_a_killed_run_is_summed_up_to_its_last_second() -> None:
    found = whole(
        [
            window(0, [10.0] * 90, asked=100, sent=95, in_flight=5, waiting=5),
            window(1, [10.0] * 100, asked=105, sent=103, in_flight=8, waiting=7),
        ]
    )
    assert found.reason == "killed"
    assert (found.unfinished, found.unsent) == (8, 7)
    assert found.asked == found.sent + found.unsent
    assert found.sent == found.done + sum(found.failed.values()) + found.unfinished + found.lost


def test_a_log_without_a_window_or_a_start() -> None:
    found = whole([])
    assert (found.asked, found.latency_ms["p99"], found.trust) == (0, None, "doubtful")
    assert summarise([]) is None
    assert account([window(0, [1.0])]) is None


def test_a_load_that_was_done_before_its_time_has_the_rate_of_the_time_it_took() -> None:
    found = whole(
        [*(window(s, [5.0] * 50) for s in range(3)), End(2, "done")], planned_ns=600 * SECOND
    )
    assert found.seconds == 3
    assert found.rate["done"] == 50


def test_checks_judge_what_was_asked_not_what_was_answered() -> None:
    checks = (
        Check("p99", False, 100 * MS, "< 100 ms"),
        Check("p50", False, 100 * MS, "< 100 ms"),
        Check("errors", False, 0.01, "< 1 %"),
        Check("on_time", True, 0.9, "> 90 %"),
        Check("throughput", True, 30.0, "> 30/s"),
        Check("max", False, 100 * MS, "< 100 ms"),
        Check("done", True, 149.0, "> 149"),
    )
    refused = [window(s, [5.0] * 50, {"http_503": 50}) for s in range(3)]
    found = whole([*refused, End(2, "done")], checks=checks)
    states: dict[str, Any] = {check.name: (check.state, check.value) for check in found.checks}
    assert states["p99"] == ("failed", None)  # among the failed: no number
    assert states["p50"][0] == "passed"
    assert states["errors"] == ("failed", pytest.approx(0.5))
    assert states["on_time"] == ("failed", pytest.approx(0.5))
    assert states["throughput"] == ("passed", pytest.approx(50))
    assert states["max"] == ("failed", None)
    assert states["done"] == ("passed", 150)
    assert found.answered_ms["p99"] == pytest.approx(5, rel=1e-3)
    assert found.latency_ms["p99"] is None
    assert found.latency_ms["mean"] is None
    assert found.answered_ms["mean"] == pytest.approx(5, rel=1e-3)
    assert any(note.code == "not-answered" for note in found.notes)


def test_checks_without_data_say_so() -> None:
    found = whole([End(0, "done")], checks=(Check("p99", False, 1.0, "< 1 ns"),))
    assert found.checks[0].state == "no data"


def test_episodes_of_alerts() -> None:
    found = whole(
        [
            window(0, [5.0]),
            AlertChange(3, "p99", "pending", 120.0, since=3),
            AlertChange(7, "p99", "firing", 184.0, since=3, peak=184.0, context="100/s asked"),
            AlertChange(20, "p99", "ok", 50.0, since=3, peak=220.0),
            AlertChange(30, "errors", "firing", 0.2, since=25, peak=0.2),
        ]
    )
    first, second = found.alerts
    assert (first.rule, first.began, first.ended, first.peak) == ("p99", 3, 20, 220.0)
    assert first.context == "100/s asked"
    assert (second.rule, second.ended) == ("errors", None)
    assert (first.no_band, second.no_band) == ("of 10 s: too short for a band", "")


def test_an_alert_that_fires_to_the_end_has_its_last_peak() -> None:
    begun = AlertChange(4, "p99", "firing", 184.0, since=0, peak=184.0, context="100/s asked")
    told = AlertChange(90, "p99", "firing", None, since=0, peak=950.0)
    (found,) = whole([window(0, [5.0]), begun, told, End(90, "done")]).alerts
    assert (found.began, found.ended, found.peak) == (0, None, 950.0)
    assert found.context == "100/s asked"
    (cut,) = whole([window(0, [5.0]), begun]).alerts
    assert cut.peak is None  # killed: how far it went is not known


def test_a_peak_among_the_failed_is_no_number() -> None:
    begun = AlertChange(4, "p99", "firing", 184.0, since=0, peak=184.0)
    ended = AlertChange(20, "p99", "ok", 5.0, since=0, peak=None)
    (found,) = whole([window(0, [5.0]), begun, ended, End(20, "done")]).alerts
    assert found.peak is None


def test_rates_of_a_stopped_run_leave_its_broken_second_out() -> None:
    windows = [window(0, [5.0] * 100), window(1, [5.0] * 100), window(2, [5.0] * 40)]
    found = whole([*windows, End(2, "stopped")])
    assert (found.asked, found.seconds) == (240, 2.0)
    assert found.rate["asked"] == pytest.approx(100)
    assert whole(windows).rate["asked"] == pytest.approx(80)  # killed: every second is whole


def test_a_mean_is_over_its_limit_when_requests_failed() -> None:
    checks = (Check("mean", False, 100 * MS, "< 100 ms"),)
    refused = [window(s, [5.0], {"http_503": 99}) for s in range(3)]
    (found,) = whole([*refused, End(2, "done")], checks=checks).checks
    assert (found.state, found.value) == ("failed", None)


def enough(**fields: Any) -> Summary:
    return whole([window(s, [5.0] * 500, **fields) for s in range(3)] + [End(2, "done")])


def late(ms: float) -> Histogram:
    return Histogram.of([round(ms * MS)] * 500)


def test_trust() -> None:
    assert enough(lateness=late(0.1)).trust == "trusted"
    assert enough(lateness=late(20)).trust == "doubtful"
    assert enough(lateness=late(80)).trust == "invalid"
    assert enough(stall_ns=20 * MS).trust == "doubtful"
    assert enough(asked=510).trust == "trusted"
    assert enough(unsent=3).trust == "doubtful"
    busy = Machine(processes={"load": Process(0.97, 1)})
    assert enough(machine=busy).trust == "doubtful"
    few = whole([window(0, [5.0] * 50), End(0, "done")])
    assert few.trust == "doubtful"
    assert [note.code for note in few.notes] == ["few-samples"]


def test_doubts_about_the_card_that_served() -> None:
    def run(index: int) -> Summary:
        card = Gpu(0, "H", throttle=("power cap",), processes=((4121, None),))
        windows = [window(s, [5.0] * 500, machine=Machine(gpus=(card,))) for s in range(2)]
        return whole([*windows, End(1, "done")], device=f"cuda:{index}")

    assert {note.code for note in run(0).notes} == {"throttled", "other-gpu-process"}
    assert run(0).trust == "doubtful"
    assert run(1).trust == "trusted"


def test_doubts_about_a_device_as_our_engine_saw_it() -> None:
    ground = Ground("sim:0", 8, "memory", ("thermal (simulated)",), 2.0, (77,))
    calm = Ground("sim:0", 32, "max_batch")
    servers = [Server("loadbench", grounds=(found,)) for found in (calm, ground, calm)]
    windows = [window(s, [5.0] * 500, server=server) for s, server in enumerate(servers)]
    found = whole([*windows, End(2, "done")], device="sim:0")
    assert {note.code for note in found.notes} == {"throttled", "other-gpu-process"}
    assert "sim:0 was throttled: thermal (simulated)" in found.notes[0].text
    assert found.trust == "doubtful"
    (last,) = merge(windows).server.grounds  # type: ignore[union-attr]
    assert last == Ground("sim:0", 32, "max_batch", ("thermal (simulated)",), 1.0, (77,))


def test_another_engine_on_the_card_is_a_doubt() -> None:
    windows = [window(s, [5.0] * 500) for s in range(2)]
    assert whole([*windows, End(1, "done")]).trust == "trusted"
    note = Note("other-engine", "another engine serves on cuda:0 too: process 7")
    assert whole([*windows, Remark(1, note), End(1, "done")]).trust == "doubtful"


def test_a_process_that_left_the_card_again_is_told() -> None:
    cards = [Gpu(0, "H", processes=((4121, None),)), Gpu(0, "H")]
    windows = [window(s, [5.0] * 500, machine=Machine(gpus=(c,))) for s, c in enumerate(cards)]
    found = whole([*windows, End(1, "done")], device="cuda:0")
    assert [note.text for note in found.notes] == ["other processes used GPU 0: pid 4121"]


def test_notes_of_the_run_weaken_it_too() -> None:
    other = Note("other-run", "another run was going on")
    found = whole([window(0, [5.0] * 500), Remark(0, other), End(0, "done")])
    assert found.trust == "doubtful"
    assert other in found.notes


def test_the_server_side() -> None:
    waits = Histogram.of([2 * MS] * 10)
    server = Server(
        "loadbench",
        queue=Part(10, 20 * MS, waits),
        compute=Part(10, 60 * MS),
        rows=30,
        batches=10,
        closed={"full": {4: 6}, "idle": {1: 4}},
        max_batch=4,
    )
    found = whole([window(0, [9.0] * 10, server=server), End(0, "done")]).server
    assert found is not None
    assert found["queue_ms"]["p50"] == pytest.approx(2, rel=1e-3)
    assert found["compute_ms"] == {"mean": 6.0}
    assert found["batch_wait_ms"] is None
    assert found["batch"]["mean"] == 3
    assert found["batch"]["closed"] == {"full": 6, "idle": 4}


def test_of_answers_that_come_in_pieces_the_rest_is_not_the_network_alone() -> None:
    """The model sends one at 10, 20 and 30 ms, of which its server counts half a millisecond."""
    server = Server("kserve statistics", Part(10, 0), compute=Part(10, 5 * MS), requests=10)
    plain = window(0, [30.0] * 10, server=server)
    (name,) = plain.requests
    stream = Stream(first=Histogram.of([10 * MS] * 10), pieces=30)
    pieces = replace(plain, requests={name: replace(plain.requests[name], stream=stream)})
    for one, called in ((plain, "network"), (pieces, "network and stream")):
        found = whole([one, End(0, "done")])
        assert list(mean_split(found)) == ["queue", "compute", called]
        assert f"   {called} 29" in summary_text(found)
        assert list(parts_ms(one, 300 * MS)) == ["queue", "compute", called]
        (outside,) = [why for why in diagnoses(Situation(one, 1)) if why.code == "outside"]
        assert ("pieces" in outside.guess) is (one is pieces)
        assert ("does not tell where" in outside.text) is (one is pieces)


def test_what_is_left_of_a_server_without_a_queue_is_untold() -> None:
    """It may well wait there, and nobody is to look for it on the network."""
    server = Server("metrics of MLServer", compute=Part(10, 208 * MS), requests=10)
    one = window(0, [77.2] * 10, server=server)
    found = whole([one, End(0, "done")])
    assert "compute 20.8 ms 27 %   untold 56.4 ms 73 %" in summary_text(found)
    assert list(mean_split(found)) == list(parts_ms(one, 772 * MS)) == ["compute", "untold"]
    server = Server("its own", queue=Part(10, 208 * MS), requests=10)  # the model's time as little
    one = window(0, [77.2] * 10, server=server)
    assert list(mean_split(whole([one, End(0, "done")]))) == ["queue", "untold"]


@pytest.mark.parametrize(
    ("server", "fields", "said"),
    [
        ({"compute": Part(10, 290 * MS)}, {}, False),
        ({"queue": Part(10, 200 * MS), "compute": Part(10, 200 * MS)}, {}, True),
        ({"compute": Part(10, 340 * MS)}, {}, False),  # a second of the ten beside the client's
        ({"compute": Part(10, 290 * SECOND)}, {}, True),
        ({"compute": Part(2, 60 * SECOND)}, {}, True),  # of batches of five
        # another client's or a try before the last: it may have taken all of the run
        ({"compute": Part(11, 10 * SECOND)}, {}, False),
        ({"compute": Part(11, 290 * SECOND)}, {}, True),
        ({"compute": Part(10, 10 * SECOND), "failed": 1}, {}, False),
        ({"compute": Part(10, 10 * SECOND)}, {"failed": {"timeout": 1}}, False),
        ({"compute": Part(10, 10 * SECOND)}, {"tail_failed": 1}, False),
    ],
)
def test_a_server_that_tells_of_more_time_than_the_answers_took_is_doubted(
    server: dict[str, Any], fields: dict[str, Any], said: bool
) -> None:
    """Ten requests a second of 30 ms each."""
    inside = Server("metrics", requests=server.get("compute", Part(0, 0)).count, **server)
    windows = [window(second, [30.0] * 10, server=inside, **fields) for second in range(10)]
    found = whole([*windows, End(10, "done")], planned_ns=10 * SECOND)
    assert ("inside-longer" in [note.code for note in found.notes]) is said


def test_whole_milliseconds_are_no_longer_time_than_the_answers_took() -> None:
    inside = Server("metrics", Part(10, 10 * MS), compute=Part(10, 10 * MS), requests=10)
    windows = [window(second, [0.4] * 10, server=inside) for second in range(10)]
    found = whole([*windows, End(10, "done")], planned_ns=10 * SECOND)
    assert "inside-longer" not in [note.code for note in found.notes]


def test_the_split_is_of_warm_ups_last_requests_too() -> None:
    """The server answers 5 of them within the first second, after 4 ms each."""
    server = Server("x", Part(15, 110 * MS), compute=Part(15, 0), requests=15)
    one = window(0, [9.0] * 10, server=server)
    tail = {"tail_done": 5, "tail_service_ns": 20 * MS, "tail_latency_ns": 25 * MS}
    one = replace(one, **tail)
    found = whole([one, End(0, "done")])
    assert sum(mean_split(found).values()) == pytest.approx(110 / 15, rel=1e-3)
    assert mean_split(found)["network"] == pytest.approx(0, abs=0.01)
    assert sum(parts_ms(one, 90 * MS).values()) == pytest.approx(110 / 15)
    assert Situation(one, 1).mean_ms == pytest.approx(115 / 15, rel=1e-3)
    assert found.service_ms["mean"] == pytest.approx(9, rel=1e-3)


def test_what_compute_is_made_of_stands_beside_it() -> None:
    server = Server(
        "kserve statistics",
        compute=Part(10, 60 * MS),
        requests=10,
        compute_input=Part(10, 5 * MS),
        compute_output=Part(10, 15 * MS),
    )
    found = whole([window(0, [9.0] * 10, server=server), End(0, "done")])
    assert found.server is not None
    assert found.server["compute_parts_ms"] == {"input": 0.5, "infer": 4, "output": 1.5}
    shown = "(input 0.500, infer 4.00, output 1.50)"
    assert shown in summary_text(found)
    del found.server["compute_parts_ms"]  # as a log of old has it
    assert shown not in summary_text(found)


def test_a_batch_is_as_large_as_it_ran_though_its_requests_failed() -> None:
    sizes = {1: BatchSize(6), 4: BatchSize(4)}
    server = Server("loadbench", sizes=sizes, rows=0, batches=10, failed=10)
    found = whole([window(0, [], {"http_500": 10}, server=server), End(0, "done")]).server
    assert found is not None
    assert found["batch"]["mean"] == pytest.approx(2.2)


def test_what_is_open_while_a_run_goes_on_has_not_failed() -> None:
    checks = (Check("errors", False, 0.01, "< 1 %"), Check("p99", False, 1e8, "< 100 ms"))
    first = start(checks=checks, limit_ns=100 * MS)

    def at(overdue: int, running: bool = True) -> Summary:
        open_now = window(0, [10.0] * 60, asked=100, sent=95, in_flight=35, waiting=5)
        found = summarise([first, replace(open_now, overdue=overdue)], running)
        assert found is not None
        return found

    fine = at(0)
    assert [check.state for check in fine.checks] == ["passed", "passed"]
    assert (fine.missed, fine.unfinished, fine.unsent) == (0, 35, 5)
    assert fine.latency_ms["max"] == pytest.approx(10, rel=1e-2)
    assert "in flight 35" in summary_text(fine)
    frozen = at(30)  # older than the limit: whatever comes of them, they are over it
    assert frozen.missed == 30
    assert [check.state for check in frozen.checks] == ["failed", "failed"]
    over = at(0, running=False)
    assert over.missed == 40
    assert "unfinished 35" in summary_text(over)


def codes(found: Summary) -> dict[str, str]:
    return {note.code: note.text for note in found.notes}


def served(second: int, **fields: Any) -> Any:
    """A second of 50 answers, as a page of metrics has it."""
    told = {"requests": 50, "queue": Part(50, 50), "compute": Part(50, 50), **fields}
    return window(second, [10.0] * 50, server=Server("metrics", **told))


def test_an_inside_view_that_stops_for_good_is_told() -> None:
    none = [window(second, [10.0] * 50) for second in range(5, 8)]
    found = whole([*map(served, range(5)), *none, End(7, "done")], planned_ns=8 * SECOND)
    told = codes(found)["inside-partly"]
    assert "figures (requests, queue, compute) are missing for 3 of 8 seconds" in told
    rest = Server("metrics", requests=150, queue=Part(150, 150), compute=Part(150, 150))
    late = window(8, stage="drain", asked=0, sent=0, server=rest)
    made_up = [*map(served, range(5)), *none, late, End(8, "done")]
    assert "inside-partly" not in codes(whole(made_up))
    back = [*map(served, range(2)), *none, served(8, requests=200), End(8, "done")]
    assert "inside-partly" not in codes(whole(back))
    goes_on = summarise([start(), *map(served, range(5)), *none], running=True)
    assert goes_on is not None
    assert "inside-partly" not in codes(goes_on)


def test_a_mean_of_which_a_part_was_gone_is_told_to_be_missing() -> None:
    gap = served(3, queue=None)
    found = whole([*map(served, range(3)), gap, served(4), End(4, "done")])
    assert "figures (queue) are missing for 1 of 5 seconds" in codes(found)["inside-partly"]


def test_more_requests_than_were_sent_are_told() -> None:
    records = [served(at, requests=90) for at in range(3)]
    told = codes(whole([*records, End(2, "done")]))["counted-more"]
    assert "counted 270 requests, and 150 were sent" in told
    fewer = [served(at, requests=60) for at in range(3)]
    assert "counted-more" not in codes(whole([*fewer, End(2, "done")]))
