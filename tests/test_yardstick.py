"""From a run's folder to what its batcher reached of the best possible."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadbench import arrivals, runlog
from loadbench.errors import SpecError
from loadbench.model import BatchSize, End, Mark, Note, Remark, Server, Start, Window
from loadbench.standing import Settings, Standing
from loadbench.units import MS, SECOND
from loadbench.yardstick import at_end, costs, typical, yardstick
from tests.records import start, window
from tests.running import loadbench, scenario, summary
from tests.served import serving

ORIGIN = 500 * SECOND
READY = ORIGIN - 2 * SECOND  # of the engine
WARM = {1: 3 * MS, 2: 4 * MS, 4: 6 * MS, 8: 10 * MS}  # 2 + m


def size(batches: int, infer: float, host: float = 0.0, answer: float = 0.0) -> BatchSize:
    """Batches of one size that took so many ms each."""
    ns = [round(batches * part * MS) for part in (infer + host / 2, infer, host / 2, answer)]
    return BatchSize(batches, compute_ns=ns[0], infer_ns=ns[1], between_ns=ns[2], answer_ns=ns[3])


def second(number: int, sizes: dict[int, BatchSize]) -> Window:
    return window(number, [5.0], server=Server(source="loadbench", sizes=sizes))


def records(*found: tuple[float, float, str], rows: int = 1) -> Any:
    """(arrived ms after second 0, took ms, outcome) as the engine writes them."""
    batch = {"done": 4, "failed": 4}
    return np.array(
        [
            (
                round(ORIGIN - READY + arrived * MS),
                round(took * 1000),
                batch.get(outcome, 0),
                rows,
                arrivals.OUTCOMES.index(outcome),
            )
            for arrived, took, outcome in found
        ],
        arrivals.RECORD,
    )


class Folder:
    """A run's folder, made by hand."""

    def __init__(self, path: Path, **begun: Any) -> None:
        self.path = path / "0001-own"
        self.path.mkdir()
        settings = {"max_batch": 8, "instances": 1, **begun.pop("settings", {})}
        begun = {"origin_ns": ORIGIN, "warm_ns": WARM, "limit_ns": 100 * MS} | begun
        self.start: Start = start(settings=settings, **begun)
        self.log: list[Any] = [second(0, {1: size(50, 3.0)})]
        self.spec: dict[str, Any] = {"engine": {"slo": "9 ms"}, "load": {"arrivals": "poisson"}}
        self.state = "done"

    def write(self, found: Any, tail: bytes = b"") -> Path:
        head = arrivals.MAGIC + READY.to_bytes(8, "little")
        (self.path / arrivals.FILE).write_bytes(head + found.tobytes() + tail)
        return self.logged()

    def logged(self) -> Path:
        writer = runlog.Writer(self.path)
        for record in (self.start, *self.log):
            writer.write(record)
        writer.close(End(1, "done"))
        runlog.write_snapshot(self.path, {"state": self.state, "spec": self.spec})
        return self.path


def codes(path: Path) -> dict[str, Note]:
    return {note.code: note for note in yardstick(path).optimum.notes}


def test_a_run_that_can_be_counted_by_hand(tmp_path: Path) -> None:
    # 2 + m ms a batch, within 9: of four at once all can be served at 6; this run served two of
    # them, then two more too late, refused one, and had one before it was recorded
    found = records(
        (0, 4, "done"), (0, 4, "done"), (0, 9.5, "done"), (0, 9.5, "done"),
        (40, 0.1, "refused"), (-1500, 3, "done"),
    )  # fmt: skip
    optimum = yardstick(Folder(tmp_path).write(found, tail=b"half")).optimum
    assert (optimum.of, optimum.reached, optimum.best, optimum.exact) == (5, 2, 5, True)
    assert optimum.hosted == 5
    assert optimum.share == pytest.approx(0.4)
    assert optimum.notes == ()


def test_time_on_the_host_is_told_apart(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.log = [second(0, {1: size(50, 3.0, host=2.0, answer=2.0)})]
    # alone 3 ms, with the host 5 and 2 more to its answer: four at once take 6 + 2 + 2 > 9
    found = records((0, 8, "done"), (0, 8, "done"), (0, 20, "done"), (0, 20, "done"))
    optimum = yardstick(folder.write(found)).optimum
    assert (optimum.best, optimum.hosted, optimum.reached) == (4, 3, 2)
    assert (optimum.share, optimum.scheduling, optimum.host) == (0.5, 0.25, 0.25)


def test_what_failed_in_the_model_was_scheduled_well(tmp_path: Path) -> None:
    path = Folder(tmp_path).write(records((0, 4, "failed"), (0, 4, "done"), (1, 2, "cancelled")))
    assert yardstick(path).optimum.reached == 2
    assert "1 requests failed" in codes(path)["failed"].text


@pytest.mark.parametrize(
    ("change", "code", "words", "exact"),
    [
        ({"spec": {"engine": {}}}, "no-slo", "the run's latency limit", True),
        ({"spec": {"load": {"arrivals": "closed"}}}, "closed-loop", "closed loop", True),
        ({"state": "running"}, "cut-short", "was killed", True),
        ({"settings": {"instances": 2}}, "bound", "2 instances", False),
        ({"remark": "steered"}, "steered", "changed by hand", True),
        ({"remark": "arrivals-end"}, "cut-short", "took no more", True),
        (
            {"spec": {"request": [{"shapes": {"x": [8]}}, {"shapes": {"x": [9]}}]}},
            "bound", "differ in shape", False,
        ),
        ({"spec": {"request": [{"shapes": {"x": ["1..9"]}}]}}, "bound", "differ in shape", False),
    ],
)  # fmt: skip
def test_what_qualifies_the_figure_is_said(
    tmp_path: Path, change: dict[str, Any], code: str, words: str, exact: bool
) -> None:
    folder = Folder(tmp_path, settings=change.get("settings", {}))
    folder.spec |= change.get("spec", {})
    folder.state = change.get("state", "done")
    if code_of_remark := change.get("remark"):
        folder.log.append(Remark(0, Note(code_of_remark, "as it was told then")))
    path = folder.write(records((0, 4, "done"), (0, 4, "done")))
    assert words in codes(path)[code].text
    assert yardstick(path).optimum.exact == exact


def test_a_run_whose_settings_changed_is_judged_part_by_part(tmp_path: Path) -> None:
    """Four at once each time, 2 + m ms a batch: within 9 ms all four, in batches of two as well (4
    and 8 ms); within 5 ms only the first two of these."""

    def changed(after_ms: int, **settings: Any) -> Mark:
        since = ORIGIN + after_ms * MS
        return Mark(0, "by hand", Standing(engine=Settings(since_ns=since, **settings)))

    folder = Folder(tmp_path)
    folder.log += [
        changed(100, max_batch=2, policy="deadline", slo_ns=9 * MS),
        changed(150, max_batch=2, policy="fixed", slo_ns=9 * MS),
        changed(200, max_batch=2, policy="fixed", slo_ns=5 * MS),
        changed(900, max_batch=8, policy="fixed", slo_ns=5 * MS),  # nothing comes any more
    ]
    four = [(at, took, "done") for at in (0, 120, 300) for took in (4, 4, 8, 8)]
    path = folder.write(records(*four))
    optimum = yardstick(path).optimum
    assert (optimum.of, optimum.best, optimum.reached) == (12, 4 + 4 + 2, 10)
    assert not optimum.exact
    told = codes(path)["retuned"].text
    assert "by hand (4×): 3 parts, each judged by its own max_batch and SLO" in told
    asked = yardstick(path, 20 * MS).optimum  # who asks by another SLO asks so of all
    assert (asked.slo_ns, asked.best) == (20 * MS, 12)


def test_another_policy_alone_is_judged_in_one_piece(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    other = Settings(8, "fixed", 9 * MS, since_ns=ORIGIN + MS)
    folder.log.append(Mark(0, "by hand", Standing(engine=other)))
    path = folder.write(records((0, 4, "done"), (30, 4, "done")))
    assert yardstick(path).optimum.exact
    assert codes(path)["retuned"].text == "the engine's settings were changed by hand (1×)"


def test_a_machine_that_was_not_steady_is_told_apart_from_bad_scheduling(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.log = [second(s, {1: size(50, 3.0)}) for s in range(9)]
    path = folder.write(records((0, 4, "done")))
    assert "unsteady" not in codes(path)
    folder.log.append(second(9, {1: size(10, 60.0)}))
    (path / runlog.LOG).unlink()
    assert "41 % more on average" in codes(folder.logged())["unsteady"].text


def test_requests_of_several_rows(tmp_path: Path) -> None:
    # Four of 4 rows each: two fit into a batch, which takes 10 ms: none in time but alone, in 6
    folder = Folder(tmp_path)
    path = folder.write(records(*[(0.0, 6.0, "done")] * 1, *[(0.0, 12.0, "done")] * 3, rows=4))
    assert yardstick(path).optimum.best == 1
    assert yardstick(path, slo_ns=10 * MS).optimum.best == 2
    assert "9 ms" in {n.code: n.text for n in yardstick(path, 10 * MS).optimum.notes}["other-slo"]
    mixed = np.concatenate([records((0, 6, "done"), rows=4), records((0, 12, "done"))])
    (tmp_path / "mixed").mkdir()
    path = Folder(tmp_path / "mixed").write(mixed)
    assert "as if all had 1" in codes(path)["bound"].text
    assert not yardstick(path).optimum.exact


@pytest.mark.parametrize(
    ("begun", "spec", "found", "words"),
    [
        ({"origin_ns": None}, {}, [(0, 4, "done")], "earlier loadbench"),
        ({"limit_ns": None}, {"engine": {}}, [(0, 4, "done")], "neither an SLO nor"),
        ({}, {}, [(-100, 4, "done")], "no request reached the engine"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    tmp_path: Path, begun: dict[str, Any], spec: dict[str, Any], found: Any, words: str
) -> None:
    folder = Folder(tmp_path, **begun)
    folder.spec |= spec
    path = folder.write(records(*found))
    with pytest.raises(SpecError, match=words):
        yardstick(path)
    assert at_end(path) is None


def test_a_file_that_is_none_is_refused_and_a_full_one_known(tmp_path: Path) -> None:
    path = tmp_path / arrivals.FILE
    path.write_bytes(b"something else altogether")
    with pytest.raises(SpecError, match="does not begin with LBARRIV1"):
        arrivals.read(path)
    head = arrivals.MAGIC + bytes(8)
    path.write_bytes(head + bytes(arrivals.MOST * arrivals.RECORD.itemsize))
    assert arrivals.read(path).full
    path.write_bytes(head + records((3, 1, "done"), (1, 1, "shed")).tobytes() + b"123")
    found = arrivals.read(path)
    assert not found.full
    assert found.records["outcome"].tolist() == [2, 0]  # by arrival


def test_a_standstill_does_not_move_the_typical_time() -> None:
    quiet = [{4: size(10, 6.0)}] * 20
    assert typical([*quiet, {4: size(10, 60.0)}], lambda s: s.infer_ns) == {4: (6 * MS, 210)}
    assert typical([{4: BatchSize(3)}], lambda s: s.infer_ns) == {}


def test_sizes_that_never_ran_are_as_much_slower_than_at_warm_up_as_those_that_did() -> None:
    found = costs([second(0, {2: size(100, 6.0, host=0.5, answer=0.3)})], WARM, 8)
    assert found.model.tolist() == [0, *(round(1.5 * (2 + m) * MS) for m in range(1, 9))]
    assert found.host[1] == found.host[8] == MS // 2
    assert found.answer[0] == 0
    # a size that ran three times is not yet known
    hardly = costs([second(0, {2: size(3, 60.0)})], WARM, 8)
    assert hardly.model.tolist() == [0, *((2 + m) * MS for m in range(1, 9))]


def test_no_batch_is_quicker_than_a_smaller_one() -> None:
    found = costs([second(0, {2: size(90, 7.0), 4: size(10, 5.0)})], WARM, 8)
    assert list(found.model) == sorted(found.model)
    rising = costs([second(0, {1: size(9, 3.0, 0.2, 0.1), 4: size(9, 6.0, 0.5, 0.4)})], WARM, 8)
    assert rising.host[1] == pytest.approx(0.2 * MS, abs=2)
    assert rising.host[8] == pytest.approx(0.9 * MS, abs=2)
    assert rising.answer[8] == pytest.approx(0.8 * MS, abs=2)


# ---- whole runs

ANYHOW = ("--on-no-verdict", "warn")  # a busy machine makes the load late: that is not judged here


def test_all_at_once_is_as_many_batches_as_fit_into_the_slo(tmp_path: Path) -> None:
    """100 at once, 8 in 100 ms, within 550 ms: five batches, whatever anyone does."""
    own = scenario(tmp_path, fake='a = "100 ms"', rate="100", s=1)
    found = summary(
        own, "--set", "load.arrivals=once", "--set", "load.warmup=0s", "--set",
        "engine.slo=550 ms", "--set", "engine.queue=1000", *ANYHOW, cwd=tmp_path,
    )  # fmt: skip
    optimum = found["optimum"]
    assert (optimum["best"], optimum["of"], optimum["exact"]) == (40, 100, True)
    assert optimum["reached"] <= optimum["hosted"] <= 40
    told = loadbench("optimum", "last", "--json", cwd=tmp_path)
    again = json.loads(told.stdout)
    assert {key: again[key] for key in optimum} == optimum
    assert again["model_ms"]["8"] == pytest.approx(100, rel=0.05)
    text = loadbench("show", "last", cwd=tmp_path).stdout
    assert "OPTIMUM" in text
    assert "of the best possible on this very trace" in text


def test_a_batcher_that_makes_no_batches_is_told_so(tmp_path: Path) -> None:
    """One in 10 ms where eight could be: half of what comes is lost, and to scheduling."""
    own = scenario(tmp_path, fake='a = "10 ms"', rate="200")
    policy = ("--set", "engine.policy=none", "--set", "engine.slo=60 ms")
    optimum = summary(own, *policy, *ANYHOW, cwd=tmp_path)["optimum"]
    assert optimum["best"] > 0.95 * optimum["of"]
    assert optimum["scheduling"] > 0.4
    assert optimum["share"] + optimum["scheduling"] + optimum["host"] == pytest.approx(1)
    page = loadbench("optimum", cwd=tmp_path).stdout
    assert "lost to scheduling" in page
    assert "with host time" in page


def test_all_in_time_is_all_that_can_be_had(tmp_path: Path) -> None:
    check = ("--set", "checks.p99=< 2 s")
    optimum = summary(scenario(tmp_path), *check, *ANYHOW, cwd=tmp_path)["optimum"]
    assert optimum["share"] == 1
    assert optimum["slo_ms"] == 2000
    assert {note["code"] for note in optimum["notes"]} - {"unsteady"} == {"no-slo"}  # if busy
    [folder] = runlog.runs(tmp_path / "results")
    told = [record for record in runlog.read(folder) if isinstance(record, Window)]
    sizes = [s for w in told if w.server for s in w.server.sizes.values()]
    assert all(s.infer_ns and s.answer_ns and s.between_ns is not None for s in sizes)
    assert all((s.infer_ns or 0) < s.compute_ns for s in sizes)


def test_a_server_elsewhere_has_no_yardstick(tmp_path: Path) -> None:
    with serving() as engine:
        url = f"http://127.0.0.1:{engine.port}"
        found = summary(scenario(tmp_path), "--target", url, *ANYHOW, cwd=tmp_path)
    assert found["optimum"] is None
    refused = loadbench("optimum", cwd=tmp_path, code=2)
    assert "no engine of ours" in refused.stderr
