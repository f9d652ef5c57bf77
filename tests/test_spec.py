"""Scenarios: what is accepted, and that every fault names its file, line and key."""

from pathlib import Path

import pytest

from loadbench import spec
from loadbench.errors import SpecError
from loadbench.overrides import parse_settings
from loadbench.shape import Phase
from loadbench.units import MS, SECOND

LOAD = '[load]\nphases = [{ rate = 100, for = "30s" }]\n'


def load(tmp_path: Path, text: str, **options: object) -> spec.Spec:
    path = tmp_path / "own.toml"
    path.write_text(text)
    return spec.load(str(path), **options).spec  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(spec.shipped()))
def test_the_shipped_scenarios_are_sound(name: str) -> None:
    found = spec.load(name)
    assert found.name == name
    assert found.spec.title
    assert found.spec.load.resolve(1000.0)


def test_a_whole_scenario(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """
title = "all of it"
[target]
url = "local:fake"
timeout = "2 s"
[engine]
policy = "fixed"
max_batch = 8
slo = "50 ms"
[engine.fake]
a = "5 ms"
stall = "500 ms every 5 s"
errors = "1 %"
[load]
arrivals = "constant"
phases = [{ rate = 300, for = "20s" }, { from = 300, to = 1200, for = "1m" }]
[checks]
p99 = "< 100 ms"
errors = "< 1 %"
throughput = "> 250/s"
[[alert]]
when = "gpu_memory > 80 %"
for = "5s"
[[request]]
name = "small"
weight = 3
""",
    )
    assert found.target.timeout == 2 * SECOND
    assert found.engine.slo == 50 * MS
    assert found.engine.fake.stall_ns() == (500 * MS, 5 * SECOND)
    assert found.load.resolve() == (Phase(300, 300, 20 * SECOND), Phase(300, 1200, 60 * SECOND))
    assert [(c.name, c.above, c.limit) for c in found.checks] == [
        ("p99", False, 100 * MS),
        ("errors", False, 0.01),
        ("throughput", True, 250),
    ]
    assert found.request[0].weight == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LOAD + "rampp = 1\n", "own.toml line 3: unknown key 'load.rampp'"),
        (LOAD + "[engine]\npolcy = 'fixed'\n", "line 4: unknown key 'engine.polcy', did you"),
        ('[load]\nphases = [{ rate = 100, for = "30" }]\n', "line 2: load.phases.0.for: '30' is"),
        ('[load]\nphases = [{ for = "30s" }]\n', "give either rate, or both from and to"),
        ('[load]\nphases = [{ rate = 3, from = 3, to = 4, for = "30s" }]\n', "give either rate"),
        ('[load]\nphases = []\n', "load.phases"),
        ("title = 'x'\n", "'load' is missing"),
        (LOAD + "[engine]\nwatch = 3\n", "line 4: engine.watch: 3 cannot be taken"),
        (LOAD + "[checks]\np98 = '< 1 ms'\n", "unknown check 'p98': did you mean"),
        (LOAD + "[checks]\np99 = '100 ms'\n", "'100 ms' is not a condition"),
        (LOAD + "[checks]\np99 = '< 100'\n", "'100' is not a duration"),
        (LOAD + "[engine]\nmax_batch = 0\n", "line 4: engine.max_batch"),
        (LOAD + "[target]\nurl = 'http://me:word@h:80'\n", "line 4: target.url: an address holds"),
        (LOAD + "[engine]\npolicy = 'magic'\n", "line 4: engine.policy"),
        (LOAD + "[engine]\ndevice = 'gpu0'\n",
         "line 4: engine.device: 'gpu0' cannot be read: auto, cpu, cuda or cards like"),
        (LOAD + "[engine.fake]\nservice = 'x'\n",
         "line 4: engine.fake.service: 'x' cannot be read: constant, exponential or"),
        (LOAD + "[engine]\nbuckets = [64]\n", "buckets are all above max_batch (32)"),
        (LOAD + "[engine]\ngpu_memory = '0 %'\n", "gpu_memory = 0 leaves no room"),
        (LOAD + "[engine.fake]\nstall = '5 s every 1 s'\n", "shorter than its period"),
        ('[load]\nphases = [{ rate = "40 %", for = "5s" }]\n', "rates in % need a calibration"),
        ('[load]\narrivals = "constant"\ncv = 2.0\n', 'line 3: load.cv: only arrivals = "gamma"'),
        (LOAD + 'loop = true\n', 'line 3: load.loop: only arrivals = "trace" take it'),
        (LOAD + 'arrivals = "gamma"\n', "load: gamma arrivals need cv"),
        (LOAD + 'arrivals = "gamma"\ncv = 0\n', "load.cv: 0 cannot be taken: write a number above"),
        ('[load]\narrivals = "trace"\n', "load: trace arrivals need a file"),
        ('[load]\narrivals = "trace"\ntrace = "no.csv"\n', "line 3: load.trace: no.csv: No such"),
        (LOAD + 'arrivals = "trace"\n', "line 2: load.phases: a trace brings its own rate"),
        ('[load]\nseed = 3\n', "load.phases: give at least one"),
        ('[load]\nphases = [{ rate = 3, sine = "1s", for = "2s" }]\n', "goes between from and to"),
        ('[load]\nphases = [{ from = 3, to = 4, sine = "3s", for = "2s" }]\n',
         "line 2: load.phases.0: the period"),
        ('[load]\nphases = [{ from = 3, to = 4, sine = "1s", sawtooth = "1s", for = "2s" }]\n',
         "either a sine or a sawtooth"),
        ("[load\n", "own.toml: Expected"),
    ],
)  # fmt: skip
def test_faults_name_their_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, text)
    assert message in caught.value.message


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        load(
            tmp_path,
            '[load]\nphases = [{ rate = 1, for = "1" }]\nseeed = 3\n[engine]\nmaxbatch = 4\n',
        )
    assert len(caught.value.message.splitlines()) == 3


def test_a_fault_of_what_was_given_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[target]\nurl = "http://h"\n[load]\nphases = [{ rate = 1, for = "1s" }]\n')
    with pytest.raises(SpecError, match=r"^target\.url: an address holds no name"):
        spec.load(str(path), {"target.url": "http://me:secret@h"})
    path.write_text(path.read_text().replace("rate = 1", 'rate = "x"'))
    with pytest.raises(SpecError, match=r"own\.toml line 4: load\.phases"):
        spec.load(str(path), {"target.url": "http://h"})
    path.write_text(path.read_text().replace('rate = "x"', "rate = 1"))
    with pytest.raises(SpecError, match=r"^unknown key 'targget'"):
        spec.load(str(path), {"targget.url": "http://h"})
    with pytest.raises(SpecError, match=r"^load\.phases\.0\.rate: 'x' is not a rate"):
        spec.load(str(path), rate="x")


def test_a_folder_is_no_scenario_and_those_that_there_are_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpecError, match="is a folder, no scenario file") as caught:
        spec.load(str(tmp_path))
    assert "steady" in caught.value.hint
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steady").mkdir()
    assert spec.find("steady") == spec.shipped()["steady"]


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    settings = parse_settings(("engine.max_batch=4", "engine.policy=none", "load.seed=3"))
    found = load(tmp_path, LOAD, overrides=settings)
    assert (found.engine.max_batch, found.engine.policy, found.load.seed) == (4, "none", 3)
    with pytest.raises(SpecError, match="unknown key"):
        load(tmp_path, LOAD, overrides={"engine.max_bach": 4})
    with pytest.raises(SpecError, match="is not key=value"):
        parse_settings(("engine.max_batch",))
    with pytest.raises(SpecError, match="is not a table"):
        load(tmp_path, LOAD, overrides={"load.seed": 1, "load.seed.x": 4})


@pytest.mark.parametrize(
    ("rate", "duration", "said"),
    [(None, "0s", "duration of '0s'"), ("5/s", "0 ms", "duration"), ("0", None, "rate of '0'")],
)
def test_a_run_that_asks_for_nothing_is_refused(
    tmp_path: Path, rate: str | None, duration: str | None, said: str
) -> None:
    text = '[load]\nphases = [{rate = 3, for = "3s"}]\n'
    with pytest.raises(SpecError, match=said):
        load(tmp_path, text, rate=rate, duration=duration)


def test_rate_and_duration_reshape(tmp_path: Path) -> None:
    two = '[load]\nphases = [{ rate = 10, for = "30s" }, { from = 10, to = 20, for = "10s" }]\n'
    assert load(tmp_path, two, rate="50").load.resolve() == (Phase(50, 50, 40 * SECOND),)
    assert load(tmp_path, two, duration="4s").load.resolve() == (
        Phase(10, 10, 3 * SECOND),
        Phase(10, 20, 1 * SECOND),
    )
    assert load(tmp_path, two, rate="5/s", duration="2s").load.resolve() == (
        Phase(5, 5, 2 * SECOND),
    )


def test_waves_have_a_period_that_stretches_with_them(tmp_path: Path) -> None:
    text = (
        '[load]\nphases = [{ from = 10, to = 50, sine = "10s", for = "30s" },'
        ' { from = 0, to = 90, sawtooth = "5s", for = "10s" }]\n'
    )
    assert load(tmp_path, text).load.resolve() == (
        Phase(10, 50, 30 * SECOND, 10 * SECOND, sine=True),
        Phase(0, 90, 10 * SECOND, 5 * SECOND),
    )
    assert load(tmp_path, text, duration="4s").load.resolve() == (
        Phase(10, 50, 3 * SECOND, SECOND, sine=True),
        Phase(0, 90, SECOND, SECOND // 2),
    )


def test_a_trace_takes_a_length_and_no_rate(tmp_path: Path) -> None:
    times = tmp_path / "times.csv"
    times.write_text("0\n1\n2\n")
    text = f'[load]\narrivals = "trace"\ntrace = "{times}"\n'
    assert load(tmp_path, text).load.resolve() == (Phase(1, 1, 3 * SECOND),)
    assert load(tmp_path, text, duration="2s").load.resolve() == (Phase(1, 1, 2 * SECOND),)
    with pytest.raises(SpecError, match="load: the trace ends after 3 s: set loop"):
        load(tmp_path, text, duration="9s")
    assert load(tmp_path, text + "loop = true\n", duration="9s").load.resolve()
    with pytest.raises(SpecError, match="brings its own rate"):
        load(tmp_path, text, rate="5")
    assert load(tmp_path, text).model_dump(mode="json")["load"]["trace"] == str(times)


def test_a_dump_is_a_scenario_again(tmp_path: Path) -> None:
    for text in (
        LOAD,
        LOAD + 'arrivals = "gamma"\ncv = 2.5\n',
        '[load]\nphases = [{ from = 10, to = 50, sine = "10s", for = "30s" }]\n',
    ):
        found = load(tmp_path, text)
        dump = found.model_dump(mode="json", by_alias=True)
        assert spec.check(dump, "dump").load == found.load


def test_gamma_has_its_variation(tmp_path: Path) -> None:
    assert load(tmp_path, LOAD + 'arrivals = "gamma"\ncv = 2.5\n').load.cv == 2.5


def test_relative_rates_take_the_capacity(tmp_path: Path) -> None:
    found = load(tmp_path, '[load]\ncalibrate = "3s"\nphases = [{ rate = "40 %", for = "5s" }]\n')
    assert found.load.resolve(500.0)[0].start == pytest.approx(200)
    with pytest.raises(SpecError, match="needs a calibration"):
        found.load.resolve()


def test_a_closed_loop_needs_only_a_length(tmp_path: Path) -> None:
    found = load(
        tmp_path, '[load]\narrivals = "closed"\nconcurrency = 8\nphases = [{ for = "5s" }]\n'
    )
    assert found.load.resolve() == (Phase(0, 0, 5 * SECOND),)


def test_unknown_scenarios_and_files() -> None:
    with pytest.raises(SpecError, match="no scenario 'stedy'") as caught:
        spec.load("stedy")
    assert "did you mean 'steady'" in caught.value.hint
    with pytest.raises(SpecError, match="no such scenario file"):
        spec.load("nowhere/own.toml")


@pytest.mark.parametrize("text", ["x", "x:FP32", ":FP32:1", "x:FP33:1", "x:FP32:a", "x:FP32:0"])
def test_tensors_are_checked(text: str) -> None:
    with pytest.raises(SpecError):
        spec.parse_tensor(text)


def test_a_tensor() -> None:
    found = spec.parse_tensor("x:fp32:-1,256")
    assert (found.name, found.datatype, found.shape) == ("x", "FP32", (-1, 256))
    assert spec.parse_tensor("s:INT64:").shape == ()


def test_specs_are_frozen(tmp_path: Path) -> None:
    found = load(tmp_path, LOAD)
    with pytest.raises(ValueError, match="frozen"):
        found.title = "other"  # type: ignore[misc]


def test_the_dump_reads_like_the_scenario(tmp_path: Path) -> None:
    found = load(tmp_path, LOAD + '[checks]\np99 = "< 100 ms"\n[engine]\nslo = "50 ms"\n')
    dump = found.model_dump(mode="json")
    assert dump["engine"]["slo"] == "50 ms"
    assert dump["engine"]["fake"]["errors"] == "0 %"
    assert dump["load"]["phases"][0]["rate"] == 100.0
    assert found.model_dump(mode="json")["checks"] == {"p99": "< 100 ms"}
    assert spec.Spec.model_json_schema()["properties"]["load"]
