"""Charts cell by cell, and the arithmetic of their axes."""

import pytest

from dashboard.scene import Sight, columns, last_column, words
from dashboard.theme import ink
from dashboard.widgets.axis import Scale, Top, ago, time_axis
from dashboard.widgets.bands import (
    Cell,
    Grid,
    Point,
    Spark,
    draw_bands,
    draw_limit,
    draw_line,
    draw_moment,
    join,
)
from dashboard.widgets.table import Column, table
from loadbench.bin import Bin, bin_of
from loadbench.report.ticks import label, log_ticks, ticks
from tests.records import window

A, B, C = "#111111", "#222222", "#333333"


def chars(grid: Grid) -> list[str]:
    return ["".join(cell.char for cell in row) for row in grid]


def bin_at(second: int, length: int = 1) -> Bin:
    return bin_of(window(second, [1.0]))._replace(seconds=length)


def test_one_band_has_eight_heights_a_cell() -> None:
    points = {x: Point((float(x),)) for x in range(1, 17)}
    grid = draw_bands(points, [A], 17, Scale(16.0, 2))
    assert chars(grid) == ["         ▁▂▃▄▅▆▇█", " ▁▂▃▄▅▆▇█████████"]
    assert grid[1][0] == Cell(" ")  # no point: a gap, not a zero


def test_zero_is_nothing_and_a_little_is_a_sliver() -> None:
    grid = draw_bands({0: Point((0.0,)), 1: Point((0.001,))}, [A], 2, Scale(100.0, 2))
    assert chars(grid) == ["  ", " ▁"]


def test_two_edges_share_a_cell_as_ink_and_paper() -> None:
    grid = draw_bands({0: Point((4.0, 16.0))}, [A, B], 1, Scale(16.0, 2))
    assert grid[1][0] == Cell("▄", A, B)  # inner edge in front of the outer band
    assert grid[0][0] == Cell("█", B, None)


def test_where_edges_meet_in_a_cell_the_outer_one_wins() -> None:
    grid = draw_bands({0: Point((2.0, 4.0, 6.0))}, [A, B, C], 1, Scale(16.0, 2))
    assert grid[1][0] == Cell("▆", C, None)


def test_equal_bands_show_the_inner_one_where_it_fills_the_cell() -> None:
    grid = draw_bands({0: Point((12.0, 12.0))}, [A, B], 1, Scale(16.0, 2))
    assert grid[1][0].colour == A
    assert grid[0][0] == Cell("▄", B, None)


def test_a_percentile_among_the_failed_reaches_the_top() -> None:
    grid = draw_bands({0: Point((4.0, float("inf")))}, [A, B], 1, Scale(16.0, 3))
    assert chars(grid) == ["█", "█", "▆"]
    assert grid[2][0] == Cell("▆", A, B)


def test_missing_bands_are_left_out() -> None:
    grid = draw_bands({0: Point((None, 8.0))}, [A, B], 1, Scale(16.0, 2))
    assert grid[1][0] == Cell("█", B, None)


def test_the_line_lies_over_the_band_and_keeps_its_colour_as_paper() -> None:
    points = {0: Point((16.0,), 12.0), 1: Point((4.0,), 12.0), 2: Point((4.0,), 99.0)}
    grid = draw_bands(points, [A], 3, Scale(16.0, 4))
    draw_line(grid, points, C, Scale(16.0, 4))
    assert grid[1][0] == Cell("─", C, A)
    assert grid[1][1] == Cell("─", C, None)
    assert [row[2].char for row in grid] == [" ", " ", " ", "█"]  # above the top: not drawn


def test_the_limit_runs_behind_the_bands() -> None:
    grid = draw_bands({0: Point((16.0,)), 1: Point((2.0,))}, [A], 3, Scale(16.0, 4))
    draw_limit(grid, Scale(16.0, 4).row(12.0), C)
    assert chars(grid)[1] == "█┄┄"
    draw_limit(grid, Scale(16.0, 4).row(20.0), C)
    assert "┄" not in chars(grid)[0]


def test_moments_are_signs_on_top_and_a_thin_line_in_the_free_cells() -> None:
    grid = draw_bands({0: Point((8.0,))}, [A], 1, Scale(16.0, 4))
    draw_moment(grid, 0, "▲", C)
    assert chars(grid) == ["▲", "┊", "█", "█"]


def test_a_sign_is_seen_on_a_band_of_its_own_colour() -> None:
    """An alert stands on the p99 of failed requests, which fills its column to the top."""
    full = draw_bands({0: Point((4.0, float("inf")))}, [A, C], 1, Scale(16.0, 4))
    draw_moment(full, 0, "▲", C)
    assert full[0][0] == Cell("▲", C, None)
    other = draw_bands({0: Point((4.0, float("inf")))}, [A, B], 1, Scale(16.0, 4))
    draw_moment(other, 0, "▲", C)
    assert other[0][0] == Cell("▲", C, B)


def test_cells_of_one_look_are_one_segment() -> None:
    segments = join([Cell("a", A), Cell("b", A), Cell("c", B), Cell(" ")])
    assert [segment.text for segment in segments] == ["ab", "c", " "]


def test_sparks_start_from_zero_and_keep_gaps() -> None:
    assert Spark((99.0, 100.0, None, 0.0)).cells(ink(A)).text == "██ ▁"
    assert Spark((25.0, 50.0, 100.0)).cells(ink(A)).text == "▂▄█"
    assert Spark((50.0, float("inf"))).cells(ink(A)).text == "██"
    assert Spark((None, float("inf"))).cells(ink(A)).text == " █"
    assert Spark((None, None)).cells(ink(A)).text == "  "


@pytest.mark.parametrize(
    ("top", "most", "expected"),
    [(100, 4, [50, 100]), (184, 4, [50, 100, 150]), (1.2, 6, [0.2, 0.4, 0.6, 0.8, 1.0, 1.2]),
     (34_000, 4, [10_000, 20_000, 30_000]), (0.03, 3, [0.01, 0.02, 0.03])],
)  # fmt: skip
def test_ticks_are_one_two_five(top: float, most: int, expected: list[float]) -> None:
    assert ticks(top, most) == pytest.approx(expected)


def test_log_ticks_thin_out() -> None:
    assert log_ticks(1, 100, 9) == pytest.approx([2, 5, 10, 20, 50, 100])
    assert log_ticks(1, 100, 2) == pytest.approx([10, 100])
    assert len(log_ticks(0.001, 1e6, 4)) <= 4


def test_a_log_scale_spreads_ratios_evenly() -> None:
    scale = Scale(1000.0, 3, low=1.0)
    assert [scale.eighths(value) for value in (0.5, 1, 10, 100, 1000)] == [1, 1, 8, 16, 24]
    assert scale.row(50.0) == 1


def test_labels_are_short() -> None:
    assert [label(value) for value in (0.5, 150, 1200, 34_000, 2e6)] == [
        "0.5", "150", "1.2k", "34k", "2M",
    ]  # fmt: skip
    assert [ago(age) for age in (0, 45, 90, 120, 3600, 5400)] == [
        "now", "-45s", "-1m30", "-2m", "-1h", "-1h30",
    ]  # fmt: skip
    assert [words(span) for span in (60, 240, 3600, 75, 217, 5000)] == [
        "1m", "4m", "1h", "75s", "3m37", "1h23",
    ]  # fmt: skip


def test_the_time_axis_ends_now_or_at_a_moment() -> None:
    axis = time_axis(240, 60, None)
    assert axis.startswith("-4m")
    assert axis.endswith("now")
    assert len(axis) == 60
    past = time_axis(240, 60, 300)
    assert past.endswith("05:00")
    assert "03:00" in past
    early = time_axis(240, 60, 100)
    assert "-" not in early  # nothing is said of the time before the run


def test_the_top_rises_at_once_and_sinks_late() -> None:
    top = Top()
    assert top.update(100, 0, "x") == 125
    assert top.update(110, 1, "x") == 125
    assert top.update(200, 2, "x") == 250
    assert top.update(20, 3, "x") == 250
    assert top.update(20, 12, "x") == 250
    assert top.update(20, 13, "x") == 25
    top.update(400, 14, "x")
    assert top.update(20, 15, "zoomed") == 25  # another picture: no reason to wait


def test_columns_stand_still_while_time_goes_on() -> None:
    found = [bin_at(second) for second in range(240)]
    before = columns(found[:-1], 240, 239, 70)
    after = columns(found, 240, 240, 70)
    for at in sorted(before)[:-1]:
        assert [bin.second for bin in before[at]] == [bin.second for bin in after[at]]
    assert sum(len(group) for group in after.values()) == 240
    assert max(after) == last_column(240, 240, 70) == 69


def test_a_wide_bin_fills_all_the_columns_it_lasts() -> None:
    found = columns([bin_at(0, 10), bin_at(10, 10)], 20, 20, 40)
    assert sorted(found) == list(range(40))
    assert {bin.second for at in range(20) for bin in found[at]} == {0}
    one = columns([bin_at(second) for second in range(60)], 60, 60, 120)
    assert sorted(one) == list(range(120))


def test_zoom_steps_through_all_of_the_run() -> None:
    sight = Sight()
    assert sight.span(30) == 60
    assert sight.span(61) == 240
    wider = sight.zoomed(1, 30)
    assert wider.span(30) == 240
    for _ in range(9):
        wider = wider.zoomed(1, 5000)
    assert wider.everything
    assert wider.span(5000) == 5000
    assert wider.zoomed(-1, 5000).span(5000) == 3600
    assert sight.zoomed(-1, 30).span(30) == 60
    short = Sight(planned=90)
    assert [short.span(at) for at in (30, 70, 95)] == [60, 90, 95]  # no empty half of a chart
    assert short.zoomed(1, 70).span(70) == 240


def test_moving_stays_inside_the_run() -> None:
    sight = Sight(zoom=60)
    assert sight.moved(-1, 300).at == 288
    assert sight.moved(-1, 5).at == 1
    assert sight.moved(5, 300).at == 300


def test_tables_drop_columns_by_rank_and_cut_the_first() -> None:
    columns_ = (Column("name", left=True), Column("kept"), Column("last", 2), Column("soon", 1))
    rows = [["a very long name", "1", "22", "333"], ["b", "4", "5", "6"]]
    styles = (ink(), ink(), ink())

    def lines(width: int) -> list[str]:
        return ["".join(part.text for part in row) for row in table(columns_, rows, width, styles)]

    assert lines(60)[0] == " name              kept  last  soon"
    assert lines(60)[1] == " a very long name     1    22   333"
    assert "last" not in lines(32)[0]
    assert lines(20)[0].split() == ["name", "kept"]
    assert lines(20)[1] == " a very lon…     1"[:20] or len(lines(20)[1]) <= 20
    assert all(len(line) <= 20 for line in lines(20))
