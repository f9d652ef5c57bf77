"""The drawn load shape: what stands where, for shapes that can be read off."""

from pathlib import Path
from typing import Any

import pytest

from loadbench import spec
from loadbench.errors import SpecError
from loadbench.loadspec import LoadSpec
from loadbench.report.shape import shape_text
from loadbench.shape import arrivals
from tests.running import loadbench


def load(phases: list[dict[str, Any]], **keys: Any) -> LoadSpec:
    return spec.check({"load": {"phases": phases, **keys}}, "own.toml").load


def drawn(found: LoadSpec, width: int = 53, height: int = 4, **keys: Any) -> list[str]:
    return shape_text(found, keys.get("capacity"), width, height).splitlines()


def test_steps_stand_at_their_height_and_time() -> None:
    steps = [{"rate": rate, "for": "10s"} for rate in (100, 200, 300, 400)]
    assert drawn(load(steps, arrivals="constant"), height=8) == [
        "400/s ┤                              ██████████",
        "      │                              ██████████",
        "      │                    ████████████████████",
        "      │                    ████████████████████",
        "200/s ┤          ██████████████████████████████",
        "      │          ██████████████████████████████",
        "      │████████████████████████████████████████",
        "      │████████████████████████████████████████",
        "  0/s └┬─────────┬─────────┬─────────┬─────────",
        "       00:00     00:10     00:20     00:30",
        "",
        "phase  begins  rate    for  requests",
        "    1   00:00  100/s  10 s     1,000",
        "    2   00:10  200/s  10 s     2,000",
        "    3   00:20  300/s  10 s     3,000",
        "    4   00:30  400/s  10 s     4,000",
        "",
        "constant arrivals: 10,000 requests in 40 s",
    ]


def test_a_ramp_rises_by_eighths() -> None:
    lines = drawn(load([{"from": 0, "to": 320, "for": "40s"}]), height=8)
    assert lines[0].startswith("400/s ┤")
    rows = [line.ljust(47)[7:] for line in lines[:8]]
    heights = [sum(" ▁▂▃▄▅▆▇█".index(row[column]) for row in rows) for column in range(40)]
    # the end of column k of 40 is at 8·(k + 1)/s; 400/s are 64 eighths
    assert heights == [max(1, round(8 * (k + 1) / 400 * 64 - 1e-6)) for k in range(40)]
    assert "0 → 320/s" in lines[-3]


def test_a_spike_much_narrower_than_a_column_is_seen() -> None:
    phases = [{"rate": 100, "for": "1h"}, {"rate": 900, "for": "1s"}, {"rate": 100, "for": "1h"}]
    lines = drawn(load(phases, arrivals="constant"), height=10)
    assert lines[0] == "1,000/s ┤"
    assert 1 <= lines[1].count("█") <= 2  # it may lie on an edge
    assert lines[1].strip(" │") in ("█", "██")
    assert "1:00:00" in lines[11]


def test_waves_are_named_and_drawn() -> None:
    phases = [
        {"from": 0, "to": 400, "sine": "20s", "for": "40s"},
        {"from": 0, "to": 400, "sawtooth": "1s", "for": "20s"},
    ]
    lines = drawn(load(phases), width=73, height=8)
    top = lines[0].removeprefix("400/s ┤").ljust(60)
    assert [column for column in (0, 20, 39) if top[column] != " "] == []
    assert top[10] == top[30] == "█"
    assert "█" * 20 in top[40:60]  # teeth finer than a column: their height
    assert "0 … 400/s, sine of 20 s" in lines[-4]
    assert "0 … 400/s, sawtooth of 1 s" in lines[-3]


def test_rates_in_percent_stay_so_until_there_is_a_capacity() -> None:
    found = load([{"rate": "50 %", "for": "5s"}, {"rate": "150 %", "for": "5s"}], calibrate="1s")
    lines = drawn(found, height=12)
    assert lines[0] == "150 % ┤" + " " * 20 + "█" * 20
    assert lines[8] == " 50 % ┤" + "█" * 40
    assert "150 %" in lines[-3]
    assert lines[-1].endswith("rates in % of what a calibration finds")
    at = drawn(found, capacity=200.0, height=6)
    assert at[0].startswith("400/s ┤")
    assert "1,500" in at[-3]


def test_percent_and_per_second_do_not_mix_without_a_capacity() -> None:
    found = load([{"rate": "50 %", "for": "5s"}, {"rate": 150, "for": "5s"}], calibrate="1s")
    with pytest.raises(SpecError, match="no common axis"):
        drawn(found)
    assert drawn(found, capacity=100.0)
    pause = load([{"rate": "50 %", "for": "5s"}, {"rate": 0, "for": "5s"}], calibrate="1s")
    assert drawn(pause)[0].startswith("50 % ┤")


def test_the_number_of_requests_is_the_generators() -> None:
    found = load([{"rate": 700, "for": "30s"}], arrivals="gamma", cv=3.0, seed=5)
    number = sum(map(len, arrivals(found.resolve(), "gamma", 5, 3.0)))
    assert number != 21_000
    assert drawn(found)[-1] == f"gamma arrivals, cv 3.0, seed 5: {number:,} requests in 30 s"
    assert drawn(load([{"rate": 1e6, "for": "1h"}]))[-1].endswith(
        "about 3,600,000,000 requests in 1h"
    )


def test_what_has_no_rate_is_listed() -> None:
    closed = drawn(load([{"for": "5s"}, {"for": "1m"}], arrivals="closed", concurrency=64))
    assert closed[0] == "phase  begins  for"
    assert closed[-1] == "closed loop: 64 requests in flight for 1m 05s"
    once = drawn(load([{"rate": 100, "for": "5s"}], arrivals="once"))
    assert once[-1] == "all at the beginning: 500 requests in 5 s"


def test_a_trace_is_drawn_from_its_times(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.2, 0.3, 7.5]
    (tmp_path / "times.csv").write_text("\n".join(map(str, times)))
    found = load([], arrivals="trace", trace=str(tmp_path / "times.csv"))
    lines = drawn(found, width=23, height=4)
    whole = 7.5 + 7.5 / 4
    columns = {int(at / whole * 10) for at in times}
    bottom = lines[3].partition("│")[2].ljust(10)
    assert {column for column in range(10) if bottom[column] != " "} == columns
    assert lines[-1].endswith("times.csv: 5 requests in 9.38 s")


def test_nothing_at_all_is_drawn_too() -> None:
    lines = drawn(load([{"rate": 0, "for": "5s"}]))
    assert not any("█" in line for line in lines)
    assert lines[-1].endswith("0 requests in 5 s")


def test_many_phases_are_cut_in_the_list() -> None:
    lines = drawn(load([{"rate": k, "for": "1s"} for k in range(1, 101)]))
    assert "… and 60 more" in lines


@pytest.mark.parametrize("name", sorted(spec.shipped()))
def test_every_shipped_scenario_fits_the_terminal(name: str) -> None:
    lines = shape_text(spec.load(name).spec.load, None, 80, 12).splitlines()
    assert max(map(len, lines)) <= 80


def test_the_command(tmp_path: Path) -> None:
    done = loadbench("shape", "steady", "--rate", "50", "--duration", "20s", "--width", "60",
                     "--height", "5", cwd=tmp_path)  # fmt: skip
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert lines[0].startswith("steady: ")
    assert lines[2].startswith("50/s ┤███")
    number = sum(
        map(len, arrivals(spec.load("steady", {}, "50", "20s").spec.load.resolve(), "poisson", 7))
    )
    assert lines[-1] == f"poisson arrivals, seed 7: {number:,} requests in 20 s"
    assert not list(tmp_path.iterdir())  # nothing was run
    bad = loadbench("shape", "stedy", cwd=tmp_path, code=2)
    assert "did you mean 'steady'" in bad.stderr
