"""Runs with several cards: which of them a comparison speaks of, and what exports tell of each."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.judge.comparison import compare
from loadbench.judge.metrics import BY_NAME, value
from loadbench.judge.side import Side
from loadbench.machine import Gpu, Machine, Process
from loadbench.model import End, Record, plain
from loadbench.report.export.csv_rows import csv_bytes
from loadbench.report.export.parquet import parquet_bytes
from loadbench.report.export.source import source
from loadbench.snapshots import figures
from loadbench.summary import summarise
from tests.records import start, window

MIB = 2**20
FULL = Gpu(0, "A", utilization=0.25, memory_used=100 * MIB, memory_total=120 * MIB, power_w=30.0)
LARGE = Gpu(1, "B", utilization=0.75, memory_used=150 * MIB, memory_total=900 * MIB, power_w=70.0)
PART = Gpu(1, "B", memory_used=10 * MIB, power_w=20.0, part="7")
ENGINE = {"engine": Process(0.5, 40 * MIB)}


def records(device: str, *cards: Gpu, told: bool = False) -> list[Record]:
    machine = Machine(gpus=cards, processes=ENGINE, told=told)
    seconds = (window(second, [10.0] * 100, machine=machine) for second in range(3))
    return [start(device=device), *seconds, End(2, "done")]


def snapshot(*given: Any, **more: Any) -> dict[str, Any]:
    return {
        "run": "0001-steady",
        "spec": {"load": {"seed": 7, "phases": []}, "engine": {}, "request": []},
        "phases": [],
        "target": {"model": "mlp"},
        "machine": {"cores": 2, "packages": {}},
        "summary": plain(summarise(records(*given, **more))),
    }


def figure(name: str, *given: Any, **more: Any) -> float | None:
    return value(BY_NAME[name], snapshot(*given, **more)["summary"])


@pytest.mark.parametrize(
    ("device", "cards", "told", "memory", "energy"),
    [
        ("cuda:0", [FULL], False, 100, 0.3),
        ("cuda:1", [FULL, LARGE], False, 150, 0.7),  # the other one serves others
        ("cuda", [LARGE, FULL], True, 100, 1.0),  # any may serve: the fullest by its own size
        ("cuda", [LARGE, PART], True, 150, 0.9),
        ("cuda:5", [FULL, LARGE], False, 100, 0.3),
        ("cpu", [FULL, LARGE], False, 40, None),  # of the engine: no card is at work
    ],
)
def test_figures_are_of_the_cards_that_serve(
    device: str, cards: list[Gpu], told: bool, memory: float, energy: float | None
) -> None:
    assert figure("memory", device, *cards, told=told) == memory
    assert figure("energy", device, *cards, told=told) == pytest.approx(energy)


def test_energy_that_a_card_does_not_tell_is_no_energy_of_all() -> None:
    assert figure("energy", "cuda", FULL, Gpu(1, "B"), told=True) is None


def test_a_comparison_says_which_of_several_cards_it_speaks_of() -> None:
    one, two = (
        Side(name, (snapshot("cuda", *cards, told=True),))
        for name, cards in (("a", [FULL]), ("b", [FULL, LARGE]))
    )
    said = [note.text for note in compare(one, two).notes if note.code == "several-cards"]
    assert said == [
        "several cards may serve b: its memory is of the fullest: GPU 0; its energy is of all of"
        " them"
    ]


def test_a_snapshot_with_damaged_cards_is_told_of() -> None:
    found = snapshot("cuda:0", FULL)
    found["summary"]["machine"]["gpus"] = "none"
    with pytest.raises(SpecError, match=r"run\.json is damaged"):
        figures.check(found, "0001-steady")


def written(folder: Path, found: list[Record]) -> Path:
    folder = runlog.create(folder, "steady")
    writer = runlog.Writer(folder)
    for record in found[:-1]:
        writer.write(record)
    writer.close(End(2, "done"))
    return folder


def row(folder: Path) -> dict[str, str]:
    first = next(csv.DictReader(io.StringIO(csv_bytes(source(folder)).decode())))
    return {name: cell for name, cell in first.items() if name.startswith("gpu")}


def test_one_card_has_the_columns_of_its_readings(tmp_path: Path) -> None:
    """Also where it is not known to serve: it is of the machine."""
    for device in ("cuda:0", "cpu"):
        assert row(written(tmp_path, records(device, FULL))) == {
            "gpu_utilization": "0.25",
            "gpu_memory_bytes": str(100 * MIB),
            "gpu_power_w": "30.0",
        }


def test_several_cards_have_columns_each_beside_the_highest_that_may_serve(tmp_path: Path) -> None:
    found = row(written(tmp_path, records("cuda", FULL, LARGE, PART, told=True)))
    assert list(found.values())[:3] == ["0.75", str(100 * MIB), "70.0"]
    assert found["gpu_0_utilization"] == "0.25"
    assert found["gpu_0_memory_bytes"] == str(100 * MIB)
    assert found["gpu_1_memory_bytes"] == str(150 * MIB)
    assert found["gpu_1_mig_7_power_w"] == "20.0"
    assert found["gpu_1_mig_7_utilization"] == ""
    found = row(written(tmp_path, records("cuda:1", FULL, LARGE)))
    assert list(found.values())[:3] == ["0.75", str(150 * MIB), "70.0"]
    assert found["gpu_0_power_w"] == "30.0"


def test_parquet_says_which_card_a_column_is_of(tmp_path: Path) -> None:
    folder = written(tmp_path, records("cuda", FULL, LARGE, told=True))
    table = parquet.read_table(io.BytesIO(parquet_bytes(source(folder))))
    assert table.column("gpu_1_power_w").to_pylist() == [70.0] * 3
    said = {field.name: field.metadata[b"meaning"].decode() for field in table.schema}
    assert said["gpu_memory_bytes"] == "used, of several the fullest"
    assert said["gpu_1_memory_bytes"] == "used, GPU 1"
