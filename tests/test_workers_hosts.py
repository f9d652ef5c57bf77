"""Workers on other hosts: network namespaces with a cable between them, and a clock of their own
for the other side. What users would type is typed here."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from loadbench import runlog
from loadbench.model import Remark, Window
from tests.running import LOADBENCH, adds_up

pytestmark = pytest.mark.long

HERE, THERE = "10.77.83.1", "10.77.83.2"
AHEAD_S = 5000  # the clock of the other host


class Hosts(NamedTuple):
    """Prefixes of commands that are to run on one of them, and the end of the cable there."""

    here: list[str]
    there: list[str]
    cable: list[str]

    def cut(self) -> None:
        subprocess.run([*self.cable, "down"], check=True)

    def choke(self) -> None:
        """A few hundred bytes a second get through."""
        slow = ["tbf", "rate", "4kbit", "burst", "1600", "latency", "10s"]
        enter = self.there[:4]  # in its network, with our clock
        subprocess.run([*enter, "tc", "qdisc", "add", "dev", "v0", "root", *slow], check=True)

    def mend(self) -> None:
        subprocess.run([*self.cable, "up"], check=True)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("needs ip and unshare (iproute2, util-linux)")
    number = os.getpid()
    first, second = f"lb{number}a", f"lb{number}b"
    with ExitStack() as stack:
        try:
            for name in (first, second):
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
            ip("-n", first, "link", "add", "v0", "type", "veth", "peer", "v0", "netns", second)
            for name, address in ((first, HERE), (second, THERE)):
                ip("-n", name, "addr", "add", f"{address}/24", "dev", "v0")
                for device in ("lo", "v0"):
                    ip("-n", name, "link", "set", device, "up")
            clock = ["unshare", "--time", "--monotonic", str(AHEAD_S)]
            subprocess.run([*clock, "true"], check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network or time namespaces are not allowed here: {error.stderr!r}")
        enter = ["ip", "netns", "exec"]
        cable = ["ip", "-n", second, "link", "set", "v0"]
        yield Hosts([*enter, first], [*enter, second, *clock], cable)


@contextmanager
def served(hosts: Hosts) -> Iterator[str]:
    """The known-answer engine on this side; its address."""
    command = [*LOADBENCH, "serve", "fake", "--host", HERE, "--port", "0", "--follow-stdin"]
    with subprocess.Popen(
        [*hosts.here, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[1]
        finally:
            process.kill()


def scenario(folder: Path, url: str, seconds: int) -> Path:
    path = folder / "own.toml"
    path.write_text(
        f'[target]\nurl = "{url}"\n[load]\narrivals = "poisson"\nwarmup = "0s"\n'
        f'phases = [{{ rate = 300, for = "{seconds}s" }}]\n'
    )
    return path


@contextmanager
def running(hosts: Hosts, cwd: Path, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    command = [*LOADBENCH, "run", *map(str, arguments), "--json", "--print-folder"]
    command += ["--on-no-verdict", "warn"]  # this machine is not what is tested
    with subprocess.Popen(
        [*hosts.here, *command], cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def folder_of(process: "subprocess.Popen[str]", cwd: Path) -> Path:
    assert process.stdout is not None
    folder = cwd / process.stdout.readline().split()[1]
    wait_for(lambda: len(windows(folder)) >= 2)
    return folder


def wait_for(true: Any, limit_s: float = 40.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def stopped_when_whole(run: "subprocess.Popen[str]", folder: Path) -> str:
    """Stops a run as soon as a whole second of its load is sent again; its summary."""
    first = windows(folder)[-1].second + 1
    wait_for(lambda: any(w.second >= first and not w.unsent for w in windows(folder)))
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    return out


def windows(folder: Path) -> list[Window]:
    if not (folder / runlog.LOG).exists():
        return []
    return [record for record in runlog.read(folder) if isinstance(record, Window)]


def remarks(folder: Path) -> list[str]:
    found = [record.note for record in runlog.read(folder) if isinstance(record, Remark)]
    return [f"{note.code}: {note.text}" for note in found]


def join(hosts: Hosts) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "loadbench", "worker", "--master", HERE, "--wait", "30s"]
    return subprocess.Popen([*hosts.there, *command], stderr=subprocess.PIPE, text=True)


def test_two_hosts_with_clocks_of_their_own(hosts: Hosts, tmp_path: Path) -> None:
    """One load in one time: neither counts nor stamps tell that it had two clocks."""
    with served(hosts) as url, join(hosts) as worker:
        bind = ("--workers", "1", "--master-bind", HERE, "--expect-workers", "1")
        with running(hosts, tmp_path, scenario(tmp_path, url, 3), *bind) as run:
            folder = folder_of(run, tmp_path)
            out, err = run.communicate(timeout=60)
            assert run.returncode == 0, err
        assert worker.wait(10) == 0
    found = json.loads(out)
    assert adds_up(found)
    assert found["done"] == found["asked"] > 700
    assert found["lost"] == found["unsent"] == 0
    assert "open-link" in [note["code"] for note in found["notes"]]
    assert "waiting for workers" in err
    assert runlog.read_snapshot(folder)["workers"]["elsewhere"] == 1
    due = [sample.due for window in windows(folder) for sample in window.slowest]
    assert max(due) - min(due) < 5e9, "stamps of the other clock"
    assert sum(w.server.requests or 0 for w in windows(folder) if w.server) == found["sent"]


def test_a_cable_that_is_cut_and_mended(hosts: Hosts, tmp_path: Path) -> None:
    """Whoever is cut off stops by itself, the other takes over; mended, it joins again."""
    with served(hosts) as url, join(hosts) as worker:
        bind = ("--workers", "1", "--master-bind", HERE, "--expect-workers", "1")
        with running(hosts, tmp_path, scenario(tmp_path, url, 60), *bind) as run:
            folder = folder_of(run, tmp_path)
            hosts.cut()
            wait_for(lambda: any("lost: worker" in text for text in remarks(folder)))
            hosts.mend()
            wait_for(lambda: any("worker-joined" in text for text in remarks(folder)))
            out = stopped_when_whole(run, folder)
        assert worker.wait(10) == 0
    found = json.loads(out)
    assert adds_up(found)
    assert found["lost"] + found["unsent"] > 100
    assert found["trust"] != "trusted"
    assert f"{found['lost']} requests in flight are lost" in str(found["notes"])
    # what was sent into the cut cable came through when it was mended, or never
    counted = sum(w.server.requests or 0 for w in windows(folder) if w.server)
    assert found["done"] <= counted <= found["sent"] + found["unsent"]


def test_a_cable_that_becomes_slow(hosts: Hosts, tmp_path: Path) -> None:
    """Whoever cannot tell its windows in time is lost, though it lives and is heard now and
    then."""
    if not shutil.which("tc"):
        pytest.skip("needs tc (iproute2)")
    with served(hosts) as url, join(hosts) as worker:
        bind = ("--workers", "1", "--master-bind", HERE, "--expect-workers", "1")
        with running(hosts, tmp_path, scenario(tmp_path, url, 60), *bind) as run:
            folder = folder_of(run, tmp_path)
            hosts.choke()
            wait_for(lambda: any("lost: worker" in text for text in remarks(folder)))
            out = stopped_when_whole(run, folder)
        worker.kill()
    found = json.loads(out)
    assert adds_up(found)
    assert found["lost"] + found["unsent"] > 50
    free = [window.second for window in windows(folder) if window.unsent]
    assert len(free) <= 5
    assert found["trust"] != "trusted"
