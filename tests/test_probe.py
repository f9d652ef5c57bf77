"""Machine readings. No machine here has a GPU: NVML is a stand-in at the library's edge, with
pynvml's own error types; the host's readings are real."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from loadbench.probe import Nvml, Probe, versions


class FakeNvml:
    """pynvml's functions over a dict of values; a value that is an NVML error is raised."""

    NVMLError = pynvml.NVMLError
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU
    NVML_CLOCK_SM = pynvml.NVML_CLOCK_SM

    def __init__(self, cards: int = 1, **values: Any) -> None:
        self.cards = cards
        self.values = {
            "Name": "NVIDIA H200",
            "UUID": b"GPU-1",
            "UtilizationRates": SimpleNamespace(gpu=88, memory=30),
            "MemoryInfo": SimpleNamespace(used=31_000, total=141_000),
            "PowerUsage": 412_000,
            "Temperature": 64,
            "ClockInfo": 1980,
            "CurrentClocksEventReasons": 0x01,
            "ComputeRunningProcesses": [],
            **values,
        }

    def nvmlDeviceGetCount(self) -> int:
        return self.cards

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def __getattr__(self, name: str) -> Any:
        key = name.removeprefix("nvmlDeviceGet")
        if key not in self.values:
            raise AttributeError(name)

        def read(*arguments: Any) -> Any:
            value = self.values[key]
            if isinstance(value, Exception):
                raise value
            return value

        return read


def hidden(code: int = pynvml.NVML_ERROR_NOT_SUPPORTED) -> Exception:
    error: Exception = pynvml.NVMLError(code)
    return error


def test_every_reading_of_a_card() -> None:
    (card,) = Nvml(FakeNvml()).read()
    assert (card.index, card.name, card.uuid) == (0, "NVIDIA H200", "GPU-1")
    assert (card.utilization, card.memory_used, card.memory_total) == (0.88, 31_000, 141_000)
    assert (card.power_w, card.temperature_c, card.sm_clock_mhz) == (412.0, 64, 1980)
    assert card.throttle == ()  # idle is no throttling


def test_what_is_hidden_is_absent_and_the_rest_stays() -> None:
    nvml = Nvml(FakeNvml(PowerUsage=hidden(), Temperature=hidden(pynvml.NVML_ERROR_NO_PERMISSION)))
    (card,) = nvml.read()
    assert card.power_w is None
    assert card.temperature_c is None
    assert card.utilization == 0.88


def test_throttling_and_older_drivers() -> None:
    (card,) = Nvml(FakeNvml(CurrentClocksEventReasons=0x04 | 0x40)).read()
    assert card.throttle == ("power cap", "thermal (hardware)")
    old = FakeNvml(CurrentClocksThrottleReasons=0x08)
    del old.values["CurrentClocksEventReasons"]
    assert Nvml(old).read()[0].throttle == ("hardware slowdown",)


def test_others_on_the_card_are_named_but_not_our_own() -> None:
    running = [
        SimpleNamespace(pid=10, usedGpuMemory=5),
        SimpleNamespace(pid=11, usedGpuMemory=None),
    ]
    (card,) = Nvml(FakeNvml(ComputeRunningProcesses=running)).read(frozenset({10}))
    assert card.processes == ((11, None),)


def test_a_card_has_the_driver_s_number_whatever_a_process_calls_it() -> None:
    class Two(FakeNvml):
        def nvmlDeviceGetUUID(self, card: int) -> bytes:
            return f"GPU-{card}".encode()

    nvml = Nvml(Two(cards=2))
    assert nvml.numbered("cuda:0", "GPU-1") == "cuda:1"  # CUDA_VISIBLE_DEVICES=1
    assert nvml.numbered("cuda:0", "GPU-5") == "cuda:0"
    assert nvml.numbered("cpu", "") == "cpu"
    assert Nvml(None).numbered("sim:0", "SIM-0") == "sim:0"


def test_several_cards() -> None:
    assert [card.index for card in Nvml(FakeNvml(cards=3)).read()] == [0, 1, 2]


def test_a_machine_without_a_driver_has_no_cards() -> None:
    assert Nvml(None).read() == ()
    assert Nvml(None).driver() is None
    assert versions(Nvml(None))["gpus"] == []


def test_the_host_and_our_processes() -> None:
    code = "import time\nend = time.time() + 30\nwhile time.time() < end: pass"
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        probe = Probe(Nvml(None), lambda: {"engine": child.pid, "runner": os.getpid()})
        probe.read()
        time.sleep(0.5)
        machine = probe.read()
    finally:
        child.kill()
        child.wait()
    engine = machine.processes["engine"]
    assert engine.cpu is not None
    assert engine.cpu > 0.2  # it spins, whatever else the machine does
    assert engine.memory is not None
    assert engine.memory > 1_000_000
    runner = machine.processes["runner"]
    assert runner.memory is not None
    assert runner.memory < psutil.Process().memory_info().rss + engine.memory  # not its child's
    assert machine.cpu is not None
    assert 0 <= machine.cpu <= 1
    assert machine.memory_total is not None
    assert machine.memory_used is not None
    assert 0 < machine.memory_used < machine.memory_total
    assert probe.read().processes["engine"].cpu is None  # gone: absent, not 0


def test_a_process_that_shares_its_core_waits_for_it() -> None:
    """Two that spin on one core: each has it half of the time, and could run all of the time."""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel keeps no account of it")
    core = min(os.sched_getaffinity(0))
    code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    try:
        pids = {"engine": children[0].pid, "load": children[1].pid, "runner": os.getpid()}
        probe = Probe(Nvml(None), lambda: pids)
        assert probe.read().processes["engine"].waited is None  # nothing to measure from
        time.sleep(1.0)
        found = probe.read().processes
    finally:
        for child in children:
            child.kill()
            child.wait()
    both = found["engine"].waited, found["load"].waited
    assert None not in both
    assert all(0.2 < waited < 1.1 for waited in both if waited is not None)


def test_what_makes_a_result_comparable() -> None:
    found = versions(Nvml(None))
    assert found["packages"]["loadbench"]
    assert found["processor"]
    assert found["usable_cores"] >= 1


def test_readings_pass_only_known_errors() -> None:
    with pytest.raises(ZeroDivisionError):
        Nvml(FakeNvml(PowerUsage=ZeroDivisionError())).read()
