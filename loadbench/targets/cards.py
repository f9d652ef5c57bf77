"""The cards of a server's machine, on the page of metrics that tells of them."""

from collections.abc import Callable, Iterator, Mapping

from loadbench.machine import Gpu
from loadbench.targets.exposition import Labels, Page

_HOST = ("Hostname", "hostname", "instance")
_PART = "GPU_I_ID"  # of a card that is shared out (MIG); its UUID is the whole card's
_MIB = 1 << 20
_MOST = 1 << 63  # bytes: no card has more, nor less than none


def cards(found: Page) -> tuple[Gpu, ...]:
    """The server's cards, as Triton, NVIDIA's DCGM exporter or TorchServe tell of them."""
    return next(
        (seen for look in (_triton, _dcgm, _torchserve) if (seen := tuple(look(found)))), ()
    )


Look = Callable[[str], float | None]


def _each(
    found: Page, label: str, *names: str
) -> Iterator[tuple[int, str, Mapping[str, str], Look]]:
    """(number, the index that the label says, all labels, its value of another name) of each card
    that one of the names tells of, and of each part of one (MIG). Those of several hosts are told
    apart, and have no index: each host counts its own from 0."""

    def card_of(labels: Labels) -> tuple[str, ...]:
        told = dict(labels)
        return tuple(told.get(one, "") for one in (*_HOST, label, "UUID", _PART))

    series = {card_of(labels): dict(labels) for name in names for labels in found.get(name, {})}
    several = len({card[: len(_HOST)] for card in series}) > 1
    for number, (card, labels) in enumerate(sorted(series.items())):

        def look(other: str, card: tuple[str, ...] = card) -> float | None:
            values = found.get(other, {})
            return next((value for key, value in values.items() if card_of(key) == card), None)

        yield number, "" if several else labels.get(label, ""), labels, look


def _triton(found: Page) -> Iterator[Gpu]:
    for number, _, labels, look in _each(found, "gpu_uuid", "nv_gpu_utilization"):
        yield Gpu(
            number, "the server's", labels.get("gpu_uuid", ""),
            utilization=look("nv_gpu_utilization"),
            memory_used=_bytes(look("nv_gpu_memory_used_bytes")),
            memory_total=_bytes(look("nv_gpu_memory_total_bytes")),
            power_w=look("nv_gpu_power_usage"),
        )  # fmt: skip


def _dcgm(found: Page) -> Iterator[Gpu]:
    # parts of a card have no GPU_UTIL, but the share of time that their engine was active
    names = ("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_GR_ENGINE_ACTIVE", "DCGM_FI_DEV_FB_USED")
    for number, index, labels, look in _each(found, "gpu", *names):
        busy = _share(look("DCGM_FI_DEV_GPU_UTIL"))
        part, name = labels.get(_PART, ""), labels.get("modelName", "the server's")
        used, free = look("DCGM_FI_DEV_FB_USED"), look("DCGM_FI_DEV_FB_FREE")
        reserved = look("DCGM_FI_DEV_FB_RESERVED") or 0.0
        clock = look("DCGM_FI_DEV_SM_CLOCK")
        yield Gpu(
            int(index) if index.isdigit() else number,
            f"{name} MIG {labels.get('GPU_I_PROFILE', '')}".rstrip() if part else name,
            labels.get("UUID", ""),
            utilization=look("DCGM_FI_PROF_GR_ENGINE_ACTIVE") if busy is None else busy,
            memory_used=_bytes(used, _MIB),
            memory_total=None if used is None or free is None
            else _bytes(used + free + reserved, _MIB),
            power_w=look("DCGM_FI_DEV_POWER_USAGE"),
            temperature_c=look("DCGM_FI_DEV_GPU_TEMP"),
            sm_clock_mhz=None if clock is None else round(clock),
            part=part,
        )  # fmt: skip


def _torchserve(found: Page) -> Iterator[Gpu]:
    for number, index, _, look in _each(found, "DeviceId", "GPUUtilization"):
        used, share = look("GPUMemoryUsed"), look("GPUMemoryUtilization")
        yield Gpu(
            int(index) if index.isdigit() else number, "the server's",
            utilization=_share(look("GPUUtilization")),
            memory_used=_bytes(used, _MIB),
            memory_total=_bytes(used / share * 100, _MIB) if used and share else None,
        )  # fmt: skip


def _bytes(value: float | None, unit: int = 1) -> int | None:
    return round(value * unit) if value is not None and 0 <= value * unit <= _MOST else None


def _share(percent: float | None) -> float | None:
    return None if percent is None else percent / 100
