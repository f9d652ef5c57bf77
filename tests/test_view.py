"""The fold: what a view knows after each record, and that its rings lose nothing they promise."""

import itertools

import pytest

from loadbench.histogram import Histogram
from loadbench.merge import merge
from loadbench.model import (
    AlertChange,
    End,
    Mark,
    Minute,
    Note,
    Record,
    Remark,
    Requests,
    Window,
    decode_record,
    encode,
)
from loadbench.units import SECOND
from loadbench.view import View, as_of, bins, fold, merged, over_at, pieces, recent, seconds
from tests.records import start, window
from tests.storyline import MS, Story, records


def folded(*parts: Record) -> View:
    view = View()
    for part in parts:
        view = fold(view, part)
    return view


def steady(count: int, first: int = 0) -> list[Window]:
    """Seconds with a latency that names them: second n has one request of n ms and one of 1 ms."""
    return [window(at, [1.0, float(at)], in_flight=5000 - at) for at in range(first, first + count)]


def test_as_of_a_second_totals_are_of_what_was_before_it() -> None:
    view = folded(start(), *steady(2000), End(2000, "done"))
    then = as_of(view, 1930)
    assert (then.totals.done, then.totals.asked) == (2 * 1930, 2 * 1930)
    assert then.end is None
    assert view.totals.done == 2 * 2000
    assert as_of(view, 0).totals.done == 0


def test_warm_up_is_a_state_and_in_no_statistic() -> None:
    warm = [window(at, [500.0], stage="warmup") for at in (-2, -1)]
    view = folded(start(), *warm)
    assert view.latest is not None
    assert view.latest.stage == "warmup"
    assert view.warmed == 2
    assert view.newest is None
    assert view.totals.done == 0
    view = fold(view, window(0, [1.0]))
    assert view.totals.done == 1
    assert merged(bins(view, 0, 1)).latency.maximum == pytest.approx(MS, rel=0.01)  # type: ignore[union-attr]
    assert [event.text for event in view.events] == ["warm-up done (2 requests)"]


def test_when_the_load_is_over_it_is_said_what_is_open_and_not_what_was_sent() -> None:
    """It may have been killed: then no request was the last, and no answer is waited for."""
    ran = folded(start(), *steady(3))
    for left, words in ((0, "the load is over"), (12, "the load is over, with 12 requests open")):
        drains = Window(second=3, stage="drain", in_flight=left)
        assert fold(ran, drains).events[-1].text == words


def test_a_load_that_was_killed_is_not_over_but_cut_off() -> None:
    """Of the second after its last one only the server told."""
    told: list[Record] = [start(planned_ns=300 * SECOND), *steady(34), Window(34, "drain")]
    end = End(34, "failed", "the load generator stopped")
    view = folded(*told, end)
    assert [(event.second, event.kind) for event in view.events if event.second > 2] == [
        (34, "failed")
    ]
    assert over_at(view) == 34
    planned = folded(start(planned_ns=34 * SECOND), *told[1:], end)
    kinds = [(event.second, event.kind) for event in planned.events if event.second > 2]
    assert kinds == [(34, "stage"), (35, "failed")]
    assert over_at(folded(*told)) == 35


def test_a_view_is_never_changed() -> None:
    before = folded(start(), *steady(3))
    known = (before.rings, before.totals, before.events)
    fold(fold(before, window(3, [9.0])), Mark(3, "later"))
    assert (before.rings, before.totals, before.events) == known


def test_coarse_rings_hold_the_merged_histograms_of_their_seconds() -> None:
    windows = steady(200)
    view = folded(start(), *windows)
    ones, tens, minutes, _ = view.rings
    assert [len(ring) for ring in (ones, tens, minutes)] == [200, 19, 3]
    assert [bin.second for bin in minutes] == [0, 60, 120]
    expected = merge(windows[60:120])
    assert minutes[1].window.latency == expected.latency
    assert minutes[1].window.done == 120
    assert minutes[1].fullest == 4940  # the peak of a state outlives the merge
    assert tens[3].window.latency == merge(windows[30:40]).latency


def test_the_finest_ring_forgets_and_the_coarser_one_remembers() -> None:
    view = folded(start(), *steady(1000))
    assert len(view.rings[0]) == 900
    fine = bins(view, 400, 500)
    assert [bin.second for bin in fine] == list(range(400, 500))
    far = bins(view, 20, 60)
    assert [(bin.second, bin.seconds) for bin in far] == [(20, 10), (30, 10), (40, 10), (50, 10)]
    whole = bins(view, 0, 1000)
    assert seconds(whole) == 1000  # the unfinished 10 s are there, as seconds
    assert whole[-1].second == 999


@pytest.mark.parametrize(("begin", "end"), [(0, 200), (7, 61), (59, 181), (119, 120), (0, 800)])
def test_pieces_cover_each_second_once(begin: int, end: int) -> None:
    windows = steady(800)
    found = pieces(folded(start(), *windows), begin, end)
    assert found[0].second == begin
    assert [a.until == b.second for a, b in itertools.pairwise(found)].count(False) == 0
    assert found[-1].until == end
    whole = merged(found)
    assert whole is not None
    assert whole.done == 2 * (end - begin)
    assert whole.latency == merge(windows[begin:end]).latency
    assert len(found) <= 40


def test_an_edge_older_than_the_seconds_begins_with_the_next_whole_ten() -> None:
    found = pieces(folded(start(), *steady(1000)), 7, 61)
    assert [(bin.second, bin.seconds) for bin in found][:2] == [(10, 10), (20, 10)]
    assert found[-1].until == 60


def test_single_seconds_are_found_where_they_fill_a_coarser_bin() -> None:
    view = folded(start(), *steady(1000))
    assert [bin.seconds for bin in pieces(view, 320, 330)] == [10]
    found = pieces(view, 320, 330, fine=True)
    assert [(bin.second, bin.seconds) for bin in found] == [(at, 1) for at in range(320, 330)]
    older = pieces(view, 90, 102, fine=True)  # the seconds before 100 are forgotten
    assert [(bin.second, bin.seconds) for bin in older] == [(90, 10), (100, 1), (101, 1)]


def test_missing_seconds_are_missing() -> None:
    view = folded(start(), *steady(5), *steady(5, first=12))
    found = bins(view, 0, 17)
    assert [bin.second for bin in found] == [0, 1, 2, 3, 4, 12, 13, 14, 15, 16]
    assert seconds(pieces(view, 0, 17)) == 10


def test_tiles_see_ten_seconds() -> None:
    near = recent(folded(start(), *steady(60)), 60)
    assert near is not None
    assert near.done == 20
    assert near.latency.maximum == pytest.approx(59 * MS, rel=0.01)


def test_the_sum_of_service_times_survives() -> None:
    view = folded(start(), *steady(71))
    assert view.rings[2][0].service_ns == pytest.approx(sum(range(60)) * MS + 60 * MS, rel=0.01)
    assert not view.rings[0][0].window.requests["infer"].service.count


def test_alerts_fire_and_end_as_events() -> None:
    fire = AlertChange(9, "p99", "firing", 184.0, since=4, peak=184.0, context="busy")
    view = folded(start(), *steady(10), AlertChange(5, "p99", "pending", 120.0), fire)
    assert [rule.name for rule in view.firing] == ["p99"]
    assert view.events[-1].kind == "alert"
    assert "p99 latency > 100 ms for 5" in view.events[-1].text
    said = len(view.events)
    view = fold(view, AlertChange(19, "p99", "firing", None, since=4, peak=300.0))
    assert len(view.events) == said  # only its peak is new
    found = view.alerts["p99"]
    assert (found.peak, found.value, found.context) == (300.0, 184.0, "busy")
    view = fold(view, AlertChange(20, "p99", "ok", 40.0, since=4, peak=184.0))
    assert view.firing == ()
    assert view.events[-1].kind == "ended"
    assert len([event for event in view.events if event.kind in ("alert", "ended")]) == 2


def test_an_alert_of_no_known_rule_changes_nothing_else() -> None:
    view = folded(start(), AlertChange(1, "unheard-of", "firing", 1.0))
    assert view.firing == ()
    assert view.events == ()


def test_marks_notes_and_the_end() -> None:
    note = Note("few", "few samples")
    view = folded(start(), Mark(1, "deployed"), Remark(2, note), End(3, "stopped"))
    assert [(event.second, event.kind, event.text) for event in view.events] == [
        (1, "mark", "deployed"),
        (2, "note", "few samples"),
        (3, "done", "stopped early"),
    ]
    assert view.notes == (note,)
    assert folded(End(3, "failed", "engine died")).events[0].kind == "failed"
    over = folded(start(), *steady(4), End(3, "done"))  # 3 is the last second, over at 4
    assert (over.newest, over.events[-1].second) == (4, 4)


def test_load_reached_is_told_once_and_a_ramp_at_its_end() -> None:
    rates = [100.0, 100.0, 100.0, 150.0, 200.0, 250.0, 250.0, 250.0]
    view = folded(start(), *(window(at, [1.0], rate=rate) for at, rate in enumerate(rates)))
    told = [(event.second, event.text) for event in view.events if event.kind == "load"]
    assert told == [(0, "load reached 100/s"), (5, "load reached 250/s")]


def test_minutes_stand_in_for_seconds_that_were_not_read() -> None:
    windows = steady(180)
    early = [Minute(merge(windows[at : at + 60]), 60) for at in (0, 60)]
    view = folded(start(), *early, *windows[120:180], Minute(merge(windows[120:180]), 60))
    assert view.totals.done == 360
    assert view.newest == 180
    assert [(bin.second, bin.seconds) for bin in view.rings[2]] == [(0, 60), (60, 60)]
    assert seconds(pieces(view, 0, 180)) == 180


def test_a_second_told_twice_counts_once() -> None:
    windows = steady(3)
    assert folded(start(), *windows, windows[2]).totals.done == 6


def test_a_long_run_says_each_hour_how_it_drifts() -> None:
    slow = [window(at, [1.0], server=None) for at in range(3600)]
    later = [window(at, [3.0], server=None) for at in range(3600, 7200)]
    view = folded(start(), *slow, *later)
    told = [event.text for event in view.events if event.kind == "hour"]
    assert len(told) == 2
    assert told[0].startswith("h1: 1")
    assert "+2" in told[1]
    assert [len(ring) for ring in view.rings] == [900, 719, 119, 1]


def test_servers_that_tell_less_are_folded_too() -> None:
    for server in ("histograms", "means", "none"):
        view = folded(*records(Story(seconds=30, server=server, end=None)))
        whole = merged(pieces(view, 0, 30))
        assert whole is not None
        assert (whole.server is None) == (server == "none")
        if whole.server is not None and whole.server.queue is not None:
            assert (whole.server.queue.histogram is not None) == (server == "histograms")


def test_records_of_a_log_fold_to_the_same_view() -> None:
    told = list(records(Story(seconds=70, end="done")))
    read = [decode_record(encode(record)) for record in told]
    assert folded(*told) == folded(*read)


def test_failures_count_in_totals() -> None:
    lost = Window(0, "load", asked=5, sent=4, unsent=1, lost=1,
                  requests={"a": Requests(2, {"http 503": 1}, Histogram.of([MS, MS]))})  # fmt: skip
    totals = folded(start(), lost).totals
    assert (totals.asked, totals.done, totals.failed, totals.unsent, totals.lost) == (5, 2, 1, 1, 1)
