"""A target that freezes must not make the generator look guilty: stopped for two seconds, it is
told as what it is, and the trust in the run stays what it was."""

import os
import signal
import time
from typing import Any

import pytest

from loadbench.model import End
from loadbench.plan import Started
from loadbench.summary import Summary, summarise
from loadbench.units import SECOND
from tests.lanes import Done, Known, Process, known_server, plan, run_process
from tests.records import start

LIMIT_NS = 2 * SECOND  # a busy machine's own standstills do not matter to it; two seconds would


def freeze(server: Known, told: Started) -> None:
    time.sleep(max(0.0, (told.origin - time.monotonic_ns()) / SECOND + 0.3))
    os.kill(server.process.pid, signal.SIGSTOP)
    time.sleep(2)
    os.kill(server.process.pid, signal.SIGCONT)


def frozen(**changed: Any) -> tuple[Done, Summary]:
    """Three seconds of 200/s at a server that stands still for two of them."""
    with known_server(service_ms=1) as server:

        def during(_: Process, told: Started) -> None:
            freeze(server, told)

        wanted = plan(server.port, 200, 3, limit_ns=LIMIT_NS, **changed)
        done = run_process(wanted, during)
    done.check()
    assert done.failed == {}
    first = start(limit_ns=LIMIT_NS, planned_ns=3 * SECOND)
    found = summarise([first, *done.windows, End(3, "done")])
    assert found is not None
    return done, found


@pytest.mark.parametrize(
    "changed", [{"connections": 4}, {}, {"arrivals": "closed", "concurrency": 500}]
)
def test_a_frozen_target_is_no_fault_of_the_generator(changed: dict[str, Any]) -> None:
    done, found = frozen(**changed)
    latest = done.latency.maximum
    assert latest is not None
    assert latest > 1.9 * SECOND  # it did freeze, and what was due meanwhile has waited
    assert found.trust == "trusted", found.notes
    assert not [note for note in found.notes if note.code.startswith("generator")]
    assert found.generator["stall_ms"] < 1000
    late = found.lateness_ms["max"]
    assert late is None or late < 1000
    held = [note for note in found.notes if note.code == "held"]
    if "connections" in changed:
        assert found.generator["held"] > 350
        assert "one of 4 connections, all of them busy with the target" in held[0].text
    else:
        assert not held
