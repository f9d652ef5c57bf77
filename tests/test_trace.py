"""Traces: what is read from a file, and that it is replayed exactly."""

from pathlib import Path

import numpy as np
import pytest

from loadbench import spec, trace
from loadbench.errors import SpecError
from loadbench.load.schedule import NEVER, Schedule
from loadbench.plan import planned
from loadbench.units import MS, SECOND
from tests.lanes import endpoint

ORIGIN = 1_000 * SECOND


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "times.csv"
    path.write_text(text)
    return str(path)


def taken(scenario: spec.Scenario) -> list[int]:
    """Due times, as the load generator has them from the plan."""
    load = scenario.spec.load
    schedule = Schedule(planned(scenario.spec, endpoint(1), load.resolve(), None), ORIGIN)
    found = []
    while schedule.next != NEVER:
        found.append(schedule.next - ORIGIN)
        schedule.advance()
    return found


def scenario(tmp_path: Path, times: str, more: str = "") -> spec.Scenario:
    path = tmp_path / "own.toml"
    file = written(tmp_path, times)
    path.write_text(f'[load]\narrivals = "trace"\nwarmup = "0s"\ntrace = "{file}"\n{more}')
    return spec.load(str(path))


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("0\n0.5\n0.5\n2\n", [0, 500 * MS, 500 * MS, 2 * SECOND]),
        ("7.000000001\n7.000000003\n", [0, 2]),
        ("1700000000.123456789,a\n1700000000.123456790,b\n", [0, 1]),  # a float would lose it
        ("id, Timestamp \n3,1e1\n4,1.1e1\n\n5,12\n", [0, SECOND, 2 * SECOND]),
        ("\ufeffwhen,what\n-1,x\n1,y\n", [0, 2 * SECOND]),
        ("TIMESTAMP,n\n2023-11-16 18:15:46.6805900,3\n2023-11-16 18:15:47,4\n", [0, 319_410_000]),
        ("2026-01-31T23:59:59Z\n2026-02-01T01:00:00+01:00\n", [0, SECOND]),
    ],
)
def test_times_are_read_exactly(tmp_path: Path, text: str, times: list[int]) -> None:
    assert trace.read(written(tmp_path, text)).times.tolist() == times


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\nsoon\n", "line 2: 'soon' is not a time"),
        ("t,time\n1,0\n2\n", "line 3: '' is not a time"),
        ("0\nnan\n", "line 2: 'nan' is not a time"),
        ("0\n1e40\n", "line 2: '1e40' is not a time"),
        ("0\n2\n1\n", "line 3: '1' is before the line above"),
        ("time\n", "needs two different times"),
        ("3\n3\n", "needs two different times"),
        ("", "needs two different times"),
    ],
)
def test_faults_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        trace.read(written(tmp_path, text))
    assert "times.csv" in caught.value.message
    assert message in caught.value.message


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x00")
    for name, message in ((".", "directory"), ("nothing.csv", "No such"), ("binary", "decode")):
        with pytest.raises(SpecError, match=message):
            trace.read(str(tmp_path / name))
    with pytest.raises(SpecError, match="7 is not the name"):
        trace.read(7)


def test_a_trace_is_replayed_as_it_is(tmp_path: Path) -> None:
    found = scenario(tmp_path, "10\n10.25\n10.25\n13\n")
    assert taken(found) == [0, 250 * MS, 250 * MS, 3 * SECOND]
    (phase,) = found.spec.load.resolve()
    assert phase.length_ns == 4 * SECOND  # until the next one would be due on average
    assert phase.start == phase.end == 1.0


def test_scale_is_of_the_rate(tmp_path: Path) -> None:
    found = scenario(tmp_path, "0\n1\n3\n", "scale = 2.0\n")
    assert taken(found) == [0, 500 * MS, 1500 * MS]
    assert found.spec.load.resolve()[0].start == pytest.approx(3 / 2.25)


def test_a_loop_goes_on_to_the_end_of_the_phases(tmp_path: Path) -> None:
    more = 'loop = true\nphases = [{ for = "4s" }, { for = "3500 ms" }]\n'
    lap = [0, 500 * MS, 2 * SECOND]  # and again after 3 s
    expected = [begin + at for begin in (0, 3 * SECOND, 6 * SECOND) for at in lap]
    found = scenario(tmp_path, "5\n5.5\n7\n", more)
    assert taken(found) == expected[:-1]
    assert [phase.length_ns for phase in found.spec.load.resolve()] == [4 * SECOND, 3500 * MS]


def test_a_long_trace_goes_through_the_plan_whole(tmp_path: Path) -> None:
    times = np.cumsum(np.random.default_rng(1).integers(0, 5_000_000, 10_000))
    found = scenario(tmp_path, "\n".join(f"{at // SECOND}.{at % SECOND:09}" for at in times))
    assert taken(found) == (times - times[0]).tolist()


def test_a_shorter_phase_ends_it(tmp_path: Path) -> None:
    found = scenario(tmp_path, "0\n1\n2\n3\n", 'phases = [{ for = "2s" }]\n')
    assert taken(found) == [0, SECOND]


def test_warm_up_is_poisson_at_the_mean_rate(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    times = written(tmp_path, "\n".join(str(k / 100) for k in range(200)))
    path.write_text(f'[load]\narrivals = "trace"\nwarmup = "20s"\ntrace = "{times}"\n')
    found = np.array(taken(spec.load(str(path))))
    warm = found[found < 0]
    assert len(warm) == pytest.approx(2000, abs=5 * 2000**0.5)
    assert (np.diff(warm) / SECOND).std() == pytest.approx(0.01, rel=0.15)
    assert found[found >= 0].tolist() == [k * 10 * MS for k in range(200)]
