"""Devices: which one is chosen, and what cards tell, against stand-ins for NVML and torch.cuda at
the libraries' edge: this machine has no card. And the one that is simulated."""

import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
import torch

from loadbench.engine import device
from loadbench.engine.device.cards import Nvml
from loadbench.engine.device.cuda import Card, open_card
from loadbench.engine.device.lock import claim, runtime_folder
from loadbench.engine.device.seam import Cpu, Memory, State
from loadbench.engine.device.simulated import OTHER, Gpu
from loadbench.engine.device.simulated import choose as choose_simulated
from loadbench.engine.models import open_model
from loadbench.errors import SpecError
from loadbench.simspec import SimSpec
from loadbench.spec import EngineSpec
from loadbench.units import SECOND

GB = 10**9


class Cards:
    """torch.cuda's edge: so many bytes free on each card."""

    def __init__(self, *free: int) -> None:
        self.free = free

    def is_available(self) -> bool:
        return bool(self.free)

    def device_count(self) -> int:
        return len(self.free)

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return self.free[index], 80 * 10**9


class Library:
    """NVML's edge: three cards, each of them its own UUID and name."""

    cards = ("GPU-aa", "GPU-ab", "GPU-cc")

    @staticmethod
    def nvmlInit() -> None:
        pass

    @classmethod
    def nvmlDeviceGetCount(cls) -> int:
        return len(cls.cards)

    @classmethod
    def nvmlDeviceGetHandleByIndex(cls, index: int) -> str:
        return cls.cards[index]

    @staticmethod
    def nvmlDeviceGetUUID(card: str) -> str:
        return card

    nvmlDeviceGetName = nvmlDeviceGetUUID

    @staticmethod
    def nvmlDeviceGetHandleByUUID(uuid: str) -> str:
        if uuid != "MIG-cd":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    @staticmethod
    def nvmlDeviceGetMemoryInfo(card: str) -> SimpleNamespace:
        return SimpleNamespace(free=len(card), total=99)


@pytest.mark.parametrize(
    ("asked", "free", "found"),
    [
        ("auto", (), "cpu"),
        ("cpu", (5,), "cpu"),
        ("auto", (3, 9, 4), "cuda:1"),
        ("cuda", (3, 9, 4), "cuda:1"),
        ("cuda:2", (3, 9, 4), "cuda:2"),
        ("cuda:02", (3, 9, 4), "cuda:2"),  # torch bears no other spelling
    ],
)
def test_auto_takes_the_card_with_the_most_free_memory(
    asked: str, free: tuple[int, ...], found: str
) -> None:
    assert device.choose(asked, Cards(*free)) == found


@pytest.mark.parametrize(
    ("asked", "free", "word"),
    [
        ("cuda", (), "no CUDA device"),
        ("cuda:0", (), "no CUDA device"),
        ("cuda:3", (1, 1), "cuda:1"),
    ],
)
def test_a_card_that_is_missing_is_an_error(asked: str, free: tuple[int, ...], word: str) -> None:
    with pytest.raises(SpecError) as caught:
        device.choose(asked, Cards(*free))
    assert word in caught.value.message + caught.value.hint
    assert asked in caught.value.message


def test_the_driver_is_asked_about_the_cards_that_torch_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = device.Nvml(Library, {"CUDA_VISIBLE_DEVICES": "0,2"})
    monkeypatch.setattr(device, "Nvml", lambda: driver)
    hidden, none = Cards(1, 2, 3), Cards()
    assert device.cards_of(Cards(1, 2)) is driver
    assert device.cards_of(hidden) is hidden
    assert device.cards_of(none) is none


@pytest.mark.parametrize(("before", "after"), [(None, "PCI_BUS_ID"), ("x", "x")])
def test_cuda_counts_the_cards_as_the_driver_unless_told_otherwise(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", before)
    open_model("fake", EngineSpec())
    assert os.environ["CUDA_DEVICE_ORDER"] == after


def test_the_host_has_a_name_and_free_memory_and_no_more() -> None:
    host = device.open_device("cpu", SimSpec())
    assert isinstance(host, Cpu)
    assert host.title()
    assert 10**6 < host.memory().free < host.memory().total
    assert (host.state(), host.peak()) == (State(), None)


@pytest.mark.parametrize(
    ("asked", "first", "number", "found"),
    [
        ("auto", "cpu", 3, "cpu cpu cpu"),
        ("cpu", "cpu", 2, "cpu cpu"),
        ("cuda:1", "cuda:1", 2, "cuda:1 cuda:1"),
        ("cuda:2,cuda:0", "cuda:2", 3, "cuda:2 cuda:0 cuda:2"),
        ("cuda", "cuda:1", 1, "cuda:1"),
        ("cuda", "cuda:1", 4, "cuda:1 cuda:2 cuda:0 cuda:1"),  # the emptier one first
        ("auto", "cuda:1", 2, "cuda:1 cuda:2"),
        ("sim", "sim:0", 3, "sim:0 sim:1 sim:2"),
    ],
)
def test_instances_are_spread_over_the_cards(
    asked: str, first: str, number: int, found: str
) -> None:
    free = [5, 5, 5] if asked == "sim" else [3, 9, 7]
    assert device.spread(asked, first, number, free) == tuple(found.split())


def test_one_core_is_left_to_the_load() -> None:
    cores = len(os.sched_getaffinity(0))
    assert device.threads(None, 1) == max(1, cores - 1)
    assert device.threads(None, 2 * cores) == 1
    assert device.threads(7, 3) == 7


def test_a_file_larger_than_the_memory_is_refused() -> None:
    device.require_room(1000, "it")
    with pytest.raises(SpecError, match="it needs 1000000 GB"):
        device.require_room(10**15, "it")


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, ["GPU-aa", "GPU-ab", "GPU-cc"]),
        ("2,0", ["GPU-cc", "GPU-aa"]),
        ("GPU-cc", ["GPU-cc"]),
        ("1,9,0", ["GPU-ab"]),  # CUDA stops at the first that it does not know
        ("", []),
        ("-1", []),
        ("1,MIG-cd,0", ["GPU-ab", "MIG-cd", "GPU-aa"]),  # a slice of a card
        ("0,MIG-none", ["GPU-aa"]),
    ],
)
def test_visible_devices_are_counted_as_cuda_counts_them(
    visible: str | None, found: list[str]
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    edge = device.Nvml(Library, environment)
    assert [edge.get_device_name(i) for i in range(edge.device_count())] == found
    assert edge.is_available() == bool(found)
    if found:
        assert edge.mem_get_info(0) == (6, 99)


class Driver:
    """NVML's edge: two cards, the readings of both settable."""

    NVMLError = pynvml.NVMLError

    def __init__(self) -> None:
        self.reasons: int | None = 0
        self.pids: list[int] = []
        self.hidden: set[str] = set()

    def __getattribute__(self, name: str) -> object:
        if name.startswith("nvml") and name in object.__getattribute__(self, "hidden"):
            raise AttributeError(name)
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, card: int) -> str:
        return f"GPU-{card}{card}-aa"

    def nvmlDeviceGetName(self, card: int) -> str:
        return f"driver's card {card}"

    def nvmlDeviceGetMemoryInfo(self, card: int) -> SimpleNamespace:
        return SimpleNamespace(free=10 + card, total=100)

    def nvmlDeviceGetCurrentClocksEventReasons(self, card: int) -> int:
        if self.reasons is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return self.reasons

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, card: int) -> int:
        return 0x20

    def nvmlDeviceGetClockInfo(self, card: int, kind: int) -> int:
        assert kind == pynvml.NVML_CLOCK_SM
        return 1500 + card

    def nvmlDeviceGetComputeRunningProcesses(self, card: int) -> list[SimpleNamespace]:
        return [SimpleNamespace(pid=pid) for pid in self.pids]


class Torch:
    """torch.cuda's edge: CUDA counts the two cards the other way round than the driver."""

    def __init__(self) -> None:
        self.allocated = self.most = 400
        self.share = 1.0
        self.resets: list[int] = []

    def get_device_properties(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(uuid=f"{1 - index}{1 - index}-aa")

    def get_device_name(self, index: int) -> str:
        return f"torch's card {index}"

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return 1000 + index, 8000

    def get_per_process_memory_fraction(self, index: int) -> float:
        return self.share

    def memory_reserved(self, index: int) -> int:
        return 700

    def memory_allocated(self, index: int) -> int:
        return self.allocated

    def max_memory_allocated(self, index: int) -> int:
        return self.most

    def reset_peak_memory_stats(self, index: int) -> None:
        self.resets.append(index)
        self.most = self.allocated


def test_a_card_tells_what_torch_and_the_driver_know_of_it() -> None:
    driver, torch = Driver(), Torch()
    card = Card(0, torch, Nvml(driver, {}))
    assert (card.name, card.uuid, card.title()) == ("cuda:0", "GPU-11-aa", "torch's card 0")
    assert card.memory() == Memory(free=1000, total=8000, held=700, used=400)
    card.begin_peak()
    torch.most, torch.allocated = 950, 410
    assert card.peak() == 550
    assert torch.resets == [0]
    assert card.state() == State((), 1501, ())


def test_what_this_process_may_take_of_a_card_counts_not_what_is_free() -> None:
    torch = Torch()
    card = Card(0, torch, Nvml(Driver(), {}))
    for share, free in ((1.0, 1000), (0.15, 500), (0.05, 0)):  # of 8000, where it has 700
        torch.share = share
        assert card.memory() == Memory(free, 8000, 700, 400)


def test_throttling_and_others_on_a_card_are_seen() -> None:
    driver = Driver()
    card = Card(0, Torch(), Nvml(driver, {}))
    driver.reasons = 0x04 | 0x40 | 0x01 | 0x02  # the latter two are no throttling
    driver.pids = [os.getpid(), 9, 7]
    assert card.state() == State(("power cap", "thermal (hardware)"), 1501, (7, 9))
    driver.pids = [9, 7]  # a container: which of them is our own cannot be told
    assert card.state().others == ()


def test_what_a_driver_does_not_give_is_missing() -> None:
    driver = Driver()
    driver.reasons = None  # an old driver has the former name only
    assert Nvml(driver, {}).state(0, 1).throttle == ("thermal (software)",)
    driver.hidden = {
        "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetUUID",
    }  # fmt: skip
    cards = Nvml(driver, {})
    assert cards.state(0, 1) == State()
    assert (cards.uuid(0), cards.uuid(5), cards.state(5, 1)) == ("", "", State())


def test_a_torch_that_was_built_for_cpus_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there beside ONNX Runtime with CUDA."""

    def refuses(*_: object) -> None:
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_properties", refuses)
    monkeypatch.setattr("loadbench.engine.device.cuda.Nvml", lambda: Nvml(Driver(), {}))
    card = open_card(1)
    card.begin_peak()
    assert (card.title(), card.peak()) == ("driver's card 1", None)
    assert card.memory() == Memory(11, 100)


def test_without_torch_the_driver_alone_is_asked() -> None:
    card = Card(1, None, Nvml(Driver(), {}))
    card.begin_peak()
    assert (card.title(), card.uuid, card.peak()) == ("driver's card 1", "GPU-11-aa", None)
    assert card.memory() == Memory(11, 100)


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_GPU_IS_LOST])
def test_a_card_without_memory_of_its_own_has_the_host_s(code: int) -> None:
    class Shared(Driver):
        def nvmlDeviceGetMemoryInfo(self, card: int) -> SimpleNamespace:
            raise pynvml.NVMLError(code)

    cards = Nvml(Shared(), {})
    if code == pynvml.NVML_ERROR_NOT_SUPPORTED:
        free, total = cards.mem_get_info(0)
        assert total == Cpu().memory().total
        assert 0 < free < total
    else:
        with pytest.raises(pynvml.NVMLError):
            cards.mem_get_info(0)


class Clock:
    def __init__(self) -> None:
        self.now = 5

    def __call__(self) -> int:
        return self.now


def sim(**given: object) -> tuple[Gpu, Clock]:
    clock = Clock()
    return Gpu(0, SimSpec.model_validate(given), clock), clock


def test_a_simulated_card_runs_out_of_memory() -> None:
    card, _ = sim(memory="1 GB", weights="300 MB", batch="100 MB", row="50 MB")
    card.load()
    card.begin_peak()
    with card.batch(5), pytest.raises(MemoryError), card.batch(6):
        pass
    with card.batch(5), card.batch(3):
        assert card.memory() == Memory(100_000_000, GB, 900_000_000, 900_000_000)
    assert card.peak() == 600_000_000
    assert card.memory() == Memory(700_000_000, GB, 300_000_000, 300_000_000)
    card.load()
    card.load()
    with pytest.raises(MemoryError):
        card.load()
    card.unload()
    assert card.memory().used == 600_000_000


def test_another_process_and_a_throttle_come_and_go() -> None:
    card, clock = sim(other="3 GB for 2 s every 10 s", throttle="1.5 for 5 s every 20 s")
    seen = []
    for second in (0, 9, 10, 11, 12, 20, 22, 24, 25):
        clock.now = 5 + second * SECOND
        seen.append((second, card.memory().free // GB, card.state().others, card.slowdown()))
    other = (OTHER,)
    assert seen == [
        (0, 8, (), 1), (9, 8, (), 1), (10, 5, other, 1), (11, 5, other, 1), (12, 8, (), 1),
        (20, 5, other, 1.5), (22, 8, (), 1.5), (24, 8, (), 1.5), (25, 8, (), 1),
    ]  # fmt: skip
    clock.now = 5 + 20 * SECOND
    assert card.state().throttle == ("thermal (simulated)",)
    assert card.state().clock_mhz == 1320


@pytest.mark.parametrize(
    "wrong",
    [
        {"other": "3 GB"},
        {"other": "3 for 2 s every 4 s"},
        {"other": "3 GB for 4 s every 4 s"},
        {"throttle": "0.5 for 1 s every 2 s"},
        {"throttle": "2/s for 1 s every 2 s"},
        {"throttle": "2 for 1 every 2 s"},
        {"memory": 5},
    ],
)
def test_settings_that_make_no_sense_are_one_error(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"write it like|would be faster|is not a duration"):
        SimSpec.model_validate(wrong)


def test_a_simulated_card_is_chosen_by_its_number_or_its_free_memory() -> None:
    settings = SimSpec(cards=3, seed=77)
    first = device.open_device("sim:0", settings)
    assert device.open_device("sim:0", settings) is first
    assert isinstance(first, Gpu)
    first.load()
    assert choose_simulated("sim", settings) == "sim:1"
    assert choose_simulated("sim:2", settings) == "sim:2"
    with pytest.raises(SpecError, match="no sim:3"):
        choose_simulated("sim:3", settings)


def hold(folder: Path, pipe: "multiprocessing.connection.Connection") -> None:
    pipe.send(claim("GPU-1", folder))
    pipe.recv()


def test_a_card_is_claimed_by_one_process_until_that_ends(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    other = spawn.Process(target=hold, args=(tmp_path, theirs))
    other.start()
    assert ours.recv() == ""
    assert claim("GPU-1", tmp_path) == f"process {other.pid}"
    assert claim("GPU-2", tmp_path) == claim("", tmp_path) == claim("GPU-1", None) == ""
    ours.send(None)
    other.join(10)
    assert claim("GPU-1", tmp_path) == ""
    assert claim("GPU-1", tmp_path) == ""  # a second model of the same process


def test_locks_lie_where_nobody_else_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "own"))
    found = runtime_folder()
    assert found is not None
    assert found.stat().st_mode & 0o777 == 0o700
    found.chmod(0o777)
    assert runtime_folder() is None
    (tmp_path / "loadbench-GPU-3.lock").symlink_to(tmp_path / "elsewhere")
    assert claim("GPU-3", tmp_path) == ""
    assert not (tmp_path / "elsewhere").exists()
