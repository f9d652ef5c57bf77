"""Whose fault it was. A target that freezes must not make the generator look guilty: stopped for
two seconds, it is told as what it is, and the trust in the run stays what it was. What this machine
runs out of is no failure of the target."""

import os
import resource
import signal
import time
from typing import Any

import pytest
from msgspec.structs import replace

from loadbench import limits
from loadbench.model import End
from loadbench.plan import Started
from loadbench.summary import Summary, summarise
from loadbench.targets.ask import Asker
from loadbench.targetspec import TargetSpec
from loadbench.units import SECOND
from tests.answering import Answering, Handler, serve
from tests.lanes import Done, Known, Process, known_server, plan, run_process
from tests.records import start

pytestmark = pytest.mark.alone

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


def test_files_that_run_out_are_this_machines_fault() -> None:
    def during(load: Process, _: Started) -> None:
        few = len(os.listdir(f"/proc/{load.popen.pid}/fd")) + 8
        resource.prlimit(load.popen.pid, resource.RLIMIT_NOFILE, (few, few))

    with known_server(misbehave="hang") as server:
        done = run_process(plan(server.port, 200, 1, drain_ns=SECOND // 10), during)
    done.check()
    assert set(done.failed) == {"no_files"}
    found = summarise([start(), *done.windows, End(1, "done")])
    assert found is not None
    assert found.trust == "invalid"
    (note,) = [note for note in found.notes if note.code == "own-failures"]
    assert f"{done.failed['no_files']} requests for want of file descriptors" in note.text


def test_what_will_not_fit_is_said_before_the_first_request() -> None:
    ports = limits.ports()
    assert ports is not None
    with known_server() as server:
        wanted = plan(server.port, ports / 30, 0.1, arrivals="poisson", drain_ns=SECOND // 10)
        closing = replace(wanted, endpoint=replace(wanted.endpoint, closes=True))
        codes = [
            [note.code for note in run_process(each, lambda *_: None).started.notes]
            for each in (wanted, closing, replace(wanted, connections=ports + 1))
        ]
    assert codes[:2] == [[], ["few-ports"]]
    assert "few-ports" in codes[2]


@pytest.mark.parametrize(("misbehave", "closes"), [("", False), ("last", True)])
def test_a_target_that_closes_each_connection_is_known_before(misbehave: str, closes: bool) -> None:
    with known_server(misbehave=misbehave) as server:
        url = f"http://127.0.0.1:{server.port}"
        with Asker(url, "http") as asker:
            assert asker.describe(TargetSpec(url=url)).closes is closes


@pytest.mark.parametrize(
    ("version", "status", "closes"),
    [("HTTP/1.1", 404, False), ("HTTP/1.1", 200, True), ("HTTP/1.0", 404, True)],
)
@pytest.mark.parametrize("reached", [True, False])
def test_who_hangs_up_after_what_it_does_not_know_is_not_known_to_close(
    version: str, status: int, closes: bool, reached: bool
) -> None:
    class Unknowing(Handler):
        protocol_version = version

        def do_GET(self) -> None:
            self.say(status, "", {"Connection": "close"})

        do_OPTIONS = do_GET

    with serve(Answering(Unknowing)) as server, Asker(server.url) as asker:
        if reached:
            asker.reach("/")
        else:
            asker.ask("GET", "/v2")
        assert asker.closes is closes
