"""The choice of a device, against stand-ins for the cards that this machine does not have."""

import os
from types import SimpleNamespace

import pytest

from loadbench.engine import device
from loadbench.errors import SpecError


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

    def get_device_name(self, index: int) -> str:
        return f"card {index}"


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


def test_names_and_free_memory_come_from_the_device() -> None:
    cards = Cards(7, 9)
    assert device.title("cuda:1", cards) == "card 1"
    assert device.free_memory("cuda:1", cards) == 9
    assert device.title("cpu", cards)
    assert device.free_memory("cpu", cards) > 10**6


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
