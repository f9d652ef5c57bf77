"""Is this machine fit to measure? What `loadbench doctor` says without a model.

Each finding has a sign: ✓ fine, ▲ measure with care, ✗ a run cannot be made.
"""

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from loadbench import runlog
from loadbench.errors import LoadbenchError
from loadbench.hiding import hiding
from loadbench.limits import doubts, ports, raise_files
from loadbench.model import Note, Value
from loadbench.plan import Endpoint, kinds
from loadbench.probe import Nvml, versions
from loadbench.spec import Scenario, shipped
from loadbench.units import MS, SECOND, gigabytes, leads_here, ms, percent, significant

_ROOM = 1_000_000_000  # bytes: a soak's log with room to spare
_LOOK_BACK = 20  # runs
# Requests/s that one load process with a core to itself sends on time: `doctor --load` finds
# 88,000/s at all on a slow machine, and up to 53,000/s punctually. What serves on the same machine
# wants cores too: its event loop one, its model at least one, and runner, dashboard and system one.
# Of fewer cores than that the load process has its share only.
_PUNCTUAL = 50_000.0
_APART = 4  # cores


class Finding(Value, frozen=True, omit_defaults=False):
    """One line of the list. `✗` means that a run cannot be made."""

    sign: Literal["✓", "▲", "✗"]
    subject: str
    text: str


def check(
    scenario: Scenario | None = None, results: Path | None = None, trust: bool = False
) -> list[Finding]:
    """Looks at the machine; with a scenario also whether it can be run here, its target asked."""
    nvml = Nvml.open()
    results = results or runlog.results_folder()
    return [
        *(map(hiding(scenario.spec), _scenario(scenario, trust)) if scenario else ()),
        *_gpus(nvml, scenario),
        *_cores(nvml, scenario),
        *_timer(),
        *_busy(),
        *_port(),
        *_results(results),
        *_others(results),
        *_files(scenario),
    ]


def _scenario(scenario: Scenario, trust: bool) -> Iterator[Finding]:
    """Code that nobody has allowed, a server that does not answer."""
    if scenario.foreign and not trust:
        yield Finding("✗", "trust", f"{scenario.foreign}: read it, then allow that with --trust")
    target = scenario.spec.target
    if not target.url or target.url.startswith("local:"):
        return
    from loadbench.targets.ask import Asker
    from loadbench.targets.inputs import prepare
    from loadbench.targets.lacking import lacking

    journey = scenario.spec.load.arrivals == "journey"
    first: Endpoint | None = None
    for url in (target.url, *target.replicas):
        remark: Note | None = None
        try:
            with Asker(url, target.protocol, target.tls, target.headers) as asker:
                found = asker.describe(target, first)
                if first is None:
                    prepare(found, kinds(scenario.spec), scenario.spec.load.seed, most=1)
                    if found.protocol == "http" and not journey:
                        remark = lacking(asker, found, scenario.spec)
        except LoadbenchError as error:
            yield Finding("✗", "target", f"{error.message}: {error.hint}".removesuffix(": "))
            return
        speaks = f"serves {found.model}" if found.model else "answers"
        yield Finding("✓", "target", f"{asker.url} {speaks}, {asker.known_by}")
        if remark:
            yield Finding("▲", "target", f"{remark.text}: {remark.hint}")
        first = first or found


def _gpus(nvml: Nvml, scenario: Scenario | None) -> Iterator[Finding]:
    cards = nvml.read()
    wanted = scenario.spec.engine.device if scenario else ""
    local = scenario is not None and scenario.spec.target.url.startswith("local:")
    asked = [int(number or 0) for number in re.findall(r"cuda(?::(\d+))?", wanted)]
    if local and max(asked, default=-1) >= len(cards):
        there = f"there are only {len(cards)} GPUs" if cards else "there is no GPU"
        yield Finding("✗", "gpu", f"engine.device is {wanted}, and {there} here")
    elif not cards:
        yield Finding("▲", "gpu", "no GPU (NVML library not found): models run on the CPU")
    for card in cards:
        busy = card.utilization or 0
        text = f"GPU {card.index} {card.name}, {gigabytes(card.memory_total)} GB"
        if card.processes:
            pids = ", ".join(str(pid) for pid, _ in card.processes)
            yield Finding("▲", "gpu", f"{text}, used by other processes: pid {pids}")
        elif busy > 0.1:
            yield Finding("▲", "gpu", f"{text}, {percent(busy)} % busy")
        else:
            yield Finding("✓", "gpu", f"{text}, {percent(busy)} % busy")
        if card.throttle:
            yield Finding("▲", "gpu", f"GPU {card.index} throttled: {', '.join(card.throttle)}")


def _cores(nvml: Nvml, scenario: Scenario | None) -> Iterator[Finding]:
    cores = int(versions(nvml)["usable_cores"])
    many = "1 CPU core" if cores == 1 else f"{cores} CPU cores"
    rates = [
        rate.value
        for phase in (scenario.spec.load.phases if scenario else ())
        for rate in (phase.rate, phase.start, phase.end)
        if rate is not None and not rate.relative
    ]
    served = _served_here(scenario)
    most = _PUNCTUAL * (min(1.0, cores / _APART) if served else 1.0)
    if rates and max(rates) > most:
        beside = f", shared with {served}" if served and cores < _APART else ""
        text = f"{many}{beside}: load generator may not reach {significant(max(rates))}/s"
        yield Finding("▲", "cores", text)
    elif cores < 2:
        yield Finding("▲", "cores", f"{many}: engine and load generator share it")
    else:
        yield Finding("✓", "cores", many)


def _served_here(scenario: Scenario | None) -> str:
    """What serves on this machine; "" if nothing does."""
    url = scenario.spec.target.url if scenario else ""
    if url.startswith("local:"):
        return "the engine"
    return "the target" if leads_here(urlsplit(url).hostname or "") else ""


def _timer() -> Iterator[Finding]:
    """How late a sleeping process is woken: the floor under every open loop's lateness."""
    late = []
    for _ in range(50):
        due = time.monotonic_ns() + MS
        time.sleep(max(0, due - time.monotonic_ns()) / SECOND)  # it may have stood still by now
        late.append(time.monotonic_ns() - due)
    worst = sorted(late)[-2]
    sign: Literal["✓", "▲"] = "✓" if worst < 2 * MS else "▲"
    yield Finding(sign, "timer", f"wakes up {ms(worst)} ms late at worst (48 of 50)")


def _busy() -> Iterator[Finding]:
    """The load average counts what runs or waits to: it may be more than there are cores."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    many = "1 core" if cores == 1 else f"{cores} cores"
    text = f"load average {significant(load)} on {many} in the last minute"
    if load > 0.3 * cores:
        yield Finding("▲", "load", f"the machine is busy: {text}")
    else:
        yield Finding("✓", "load", f"the machine is quiet: {text}")


def _port() -> Iterator[Finding]:
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
        yield Finding("✓", "port", "ports on loopback are free")
    except OSError as error:
        yield Finding("✗", "port", f"no port on loopback can be taken: {error.strerror}")


def _results(results: Path) -> Iterator[Finding]:
    folder = results
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        yield Finding("✗", "results", f"{results}: cannot be written: choose another with --out")
        return
    free = shutil.disk_usage(folder).free
    sign: Literal["✓", "▲"] = "✓" if free > _ROOM else "▲"
    yield Finding(sign, "results", f"{gigabytes(free)} GB disk free for {results}")


def _others(results: Path) -> Iterator[Finding]:
    for folder in runlog.runs(results)[-_LOOK_BACK:]:
        if runlog.goes_on(folder):
            text = f"{folder.name} is going on: two at once are a doubt on both"
            yield Finding("▲", "other-run", text)


def _files(scenario: Scenario | None) -> Iterator[Finding]:
    files = raise_files()  # as the load does
    sign: Literal["✓", "▲"] = "✓" if files >= 4096 else "▲"
    yield Finding(sign, "files", f"{files} open files: so many connections at most (ulimit -Hn)")
    if (found := ports()) is not None:
        sign = "✓" if found >= 10_000 else "▲"
        yield Finding(sign, "ports", f"{found} ports: so many connections to one address at most")
    if scenario is not None:
        load, target = scenario.spec.load, scenario.spec.target
        most = load.concurrency if load.arrivals == "closed" else target.connections
        for note in doubts(most, 0.0, files):
            yield Finding("▲", "files", f"{note.text}: {note.hint}")
    yield Finding("✓", "scenarios", f"scenarios that loadbench has: {', '.join(shipped())}")
