"""Names of servers: which of their addresses is asked and loaded, and what is seen of the inside
when the name means another server in the midst of a run."""

import json
import shutil
import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from loadbench import runlog
from loadbench.errors import TargetError
from loadbench.load.names import follow
from loadbench.load.ready import make_ready
from loadbench.metricspec import MetricsSpec
from loadbench.model import Note, Server, Window
from loadbench.plan import Tls
from loadbench.runner.inside import Inside, Reader, Told
from loadbench.runner.target import open_target
from loadbench.spec import load
from loadbench.targets.ask import Asker
from loadbench.targets.places import LOOK_S, Lookups, Pin, listening, may_change, moved
from loadbench.targets.scrape import Scraper
from loadbench.targets.statistics import Reading
from loadbench.targetspec import TargetSpec
from loadbench.units import SECOND
from tests.answering import ANSWER, Answering, Handler, kserve, serve
from tests.lanes import endpoint, plan
from tests.rpc_client import serving_rpc
from tests.running import LOADBENCH
from tests.secure import make_papers, terminated
from tests.served import serving
from tests.telling import telling
from tests.test_replicas import Moving

NAME = "models.test"


# ---- which address is asked


def test_which_names_may_change() -> None:
    assert may_change("models.example")
    assert not any(map(may_change, ("localhost", "10.0.0.7", "::1")))


def means(monkeypatch: pytest.MonkeyPatch, *answers: list[str] | OSError) -> None:
    """Has names mean these addresses, one list after the other."""
    left, real = list(answers), socket.getaddrinfo

    def looked_up(host: str, port: int, *other: Any, **more: Any) -> list[Any]:
        if host != NAME:
            return real(host, port, *other, **more)
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, OSError):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (at, port)) for at in found]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)


def test_a_name_of_several_servers_is_held_to_one_that_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.3", 0)) as server:
        port = server.getsockname()[1]
        means(monkeypatch, ["127.0.0.2", "127.0.0.3"], ["127.0.0.3", "127.0.0.2"])
        pin = Pin(NAME, port)
        assert pin.at == pin.at == "127.0.0.3"
    means(monkeypatch, ["127.0.0.2", "127.0.0.3"])
    assert listening(NAME, port) == "127.0.0.2"  # nobody does now
    means(monkeypatch, OSError("silent"))
    assert listening(NAME, port) == ""
    assert listening("localhost", port) == ""


def test_whoever_looks_up_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def silent(*_: Any, **__: Any) -> list[Any]:
        answered.wait(10)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.2", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    names = Lookups(NAME, 80)

    def latest() -> list[str]:
        names.look()
        return names.latest(time.monotonic() + LOOK_S)

    begun = time.monotonic()
    assert latest() == latest() == []
    assert time.monotonic() - begun < 5
    answered.set()
    while not (found := latest()):
        assert time.monotonic() - begun < 10
    assert found == ["10.0.0.2"]


def test_the_load_goes_where_its_server_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name servers that give several addresses give them in another order each time."""
    means(monkeypatch, ["127.0.0.2", "127.0.0.3"])
    wanted = plan(8000)
    for at in ("127.0.0.3", "127.0.0.2"):
        where = replace(wanted.endpoint, host=NAME, at=at)
        (replica,) = make_ready(replace(wanted, endpoint=where)).replicas
        assert str(replica.address) == f"{at}:8000"


def test_the_load_goes_there_also_when_its_name_tells_of_others_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As name servers do that give some of many addresses each time."""
    with socket.create_server(("127.0.0.4", 0)) as server:
        port = server.getsockname()[1]
        means(monkeypatch, ["127.0.0.2", "127.0.0.3"])
        where = replace(plan(port).endpoint, host=NAME, at="127.0.0.4")
        (replica,) = make_ready(replace(plan(port), endpoint=where)).replicas
        assert str(replica.address) == f"127.0.0.4:{port}"
    (replica,) = make_ready(replace(plan(port), endpoint=where)).replicas
    assert str(replica.address) == f"127.0.0.2:{port}"  # it is gone


def test_a_server_is_called_by_its_name() -> None:
    """At the address that is given: nobody else knows the name."""
    with serving() as engine, Asker(f"http://{NAME}:{engine.port}", at="127.0.0.1") as asker:
        found = asker.describe(TargetSpec())
        assert (found.host, found.at, found.model) == (NAME, "127.0.0.1", "fake")
        assert asker.statistics(found) is not None
    with (
        serving_rpc() as (_, client),
        Asker(f"grpc://{NAME}:{client.port}", at="127.0.0.1") as asker,
    ):
        assert asker.describe(TargetSpec()).model == "fake"


def test_its_certificate_is_that_of_the_name(tmp_path: Path) -> None:
    papers = make_papers(tmp_path)
    with serving() as engine, terminated(papers.elsewhere, engine.port) as port:
        url = f"https://elsewhere.example:{port}"
        with Asker(url, tls=Tls(papers.ca), at="127.0.0.1") as asker:
            assert asker.ask("GET", "/v2").status_code == 200
        with (
            Asker(f"https://{NAME}:{port}", tls=Tls(papers.ca), at="127.0.0.1") as asker,
            pytest.raises(TargetError, match="cannot be verified"),
        ):
            asker.ask("GET", "/v2")


# ---- the inside of one that moves


class _Counting:
    """Counts a request each time that it is asked, from so many on; `down`: it does not answer."""

    url = "http://models.test:80"

    def __init__(self, already: int) -> None:
        self.counted = already
        self.down = self.empty = False

    def statistics(self, _: object) -> Reading | None:
        if self.down:
            raise TargetError("no answer", "")
        if self.empty:
            return None
        self.counted += 1
        return Reading(success=self.counted)


def test_who_has_moved_is_asked_on_and_the_new_one_from_where_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = _Counting(0), _Counting(5000)
    new.down = True
    where = replace(endpoint(80), host=NAME, at="10.0.0.1")
    asked: list[str] = []

    def reopen(told: Told, at: str) -> Reader:
        asked.append(at)
        return Reader(Told(new, replace(told.endpoint, at=at), None))  # type: ignore[arg-type]

    means(monkeypatch, ["10.0.0.1"])
    inside = Inside([Told(old, where, None)], None, reopen, linger_s=60)  # type: ignore[arg-type]

    def requests() -> int:
        found = inside.read()
        assert isinstance(found, Server)
        return found.requests or 0

    assert (requests(), asked) == (1, [])
    means(monkeypatch, OSError("silent"))
    assert (requests(), asked) == (1, [])
    means(monkeypatch, ["10.0.0.2"])
    while not asked:
        assert requests() == 1  # the new one is not up
    new.down = False
    assert requests() == 2  # of both
    old.down = True
    assert [requests(), requests()] == [1, 1]
    assert set(asked) == {"10.0.0.2"}


def test_a_name_that_leads_back_counts_nothing_twice_and_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where each answer of a name server has only some of the addresses."""
    servers = {f"10.0.0.{n}": _Counting(n * 1000) for n in (1, 2)}
    where = replace(endpoint(80), host=NAME, at="10.0.0.1")
    opened, closed = list[str](), list[str]()

    def reopen(told: Told, at: str) -> Reader:
        opened.append(at)
        there = Told(servers[at], replace(told.endpoint, at=at), None)  # type: ignore[arg-type]
        reader = Reader(there)
        reader.close = lambda: closed.append(at)
        return reader

    first = Told(servers["10.0.0.1"], where, None)  # type: ignore[arg-type]
    inside = Inside([first], None, reopen, linger_s=60)
    for turn in range(20):
        means(monkeypatch, [f"10.0.0.{2 - turn % 2}"])
        time.sleep(0.02)  # until the look before is over
        inside.read()
    found = inside.read()
    assert found is not None
    assert found.requests == 2  # one of each
    assert (opened, closed) == (["10.0.0.2"], [])
    servers["10.0.0.1"].down = servers["10.0.0.2"].down = True
    inside.read()
    inside.close()
    assert set(closed) == {"10.0.0.2"}


def test_a_server_that_has_no_statistics_yet_is_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one that is up before its model is loaded."""
    old, new = _Counting(0), _Counting(5000)
    new.empty = True
    where = replace(endpoint(80), host=NAME, at="10.0.0.1")
    opened, closed = list[str](), list[str]()

    def reopen(told: Told, at: str) -> Reader:
        reader = Reader(Told(new, replace(told.endpoint, at=at), None))  # type: ignore[arg-type]
        reader.close = lambda: closed.append(at)
        opened.append(at)
        return reader

    means(monkeypatch, ["10.0.0.2"])
    inside = Inside([Told(old, where, None)], None, reopen, linger_s=60)  # type: ignore[arg-type]
    while not opened:
        inside.read()
    inside.read()
    assert len(opened) == len(closed)
    new.empty = False
    inside.read()
    assert len(opened) == len(closed) + 1
    old.down = True
    found = inside.read()
    assert found is not None
    assert found.requests == 1


def test_who_has_moved_is_looked_for_as_the_load_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """At an address of the same family, if there is one."""
    where = replace(endpoint(80), host=NAME, at="10.0.0.1")
    reader = Reader(Told(_Counting(0), where, None))  # type: ignore[arg-type]
    means(monkeypatch, ["fd00::2", "10.0.0.2"])
    assert reader.names is not None
    reader.names.look()
    assert reader.elsewhere(time.monotonic() + 60) == "10.0.0.2"


def test_of_several_addresses_load_and_inside_view_choose_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each looks the name up by itself, and is told them in another order."""
    assert moved("10.0.0.1", ["10.0.0.3", "10.0.0.2", "10.0.0.1"]) == ""
    assert moved("10.0.0.1", []) == ""
    turns = [["10.0.0.3", "10.0.0.2"], ["10.0.0.2", "10.0.0.3"]]
    where = replace(endpoint(80), host=NAME, at="10.0.0.1")
    for turn in turns:
        means(monkeypatch, ["10.0.0.1"])
        reader = Reader(Told(_Counting(0), where, None))  # type: ignore[arg-type]
        ready = make_ready(replace(plan(80, resolve_ns=SECOND // 1000), endpoint=where))
        means(monkeypatch, turn)
        assert reader.names is not None
        reader.names.look()
        lane = Moving(looks=1)
        follow(ready, lane)  # type: ignore[arg-type]
        assert lane.moves == [(0, "10.0.0.2:80")]
        assert reader.elsewhere(time.monotonic() + 60) == "10.0.0.2"


def silent(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Has the name server not answer until this is set."""
    answered, real = threading.Event(), socket.getaddrinfo

    def looked_up(host: str, *other: Any, **more: Any) -> list[Any]:
        if not str(host).endswith(NAME):
            return real(host, *other, **more)
        answered.wait(60)
        raise OSError("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    return answered


def test_a_silent_name_server_is_awaited_once_for_all_replicas(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """64 are the most that a scenario can have."""
    answered = silent(monkeypatch)
    with serving() as engine, ExitStack() as opened:
        first = opened.enter_context(Asker(f"http://{NAME}:{engine.port}", at="127.0.0.1"))
        where = first.describe(TargetSpec())
        told = []
        for number in range(64):
            url = f"http://r{number}.{NAME}:{engine.port}"
            asker = opened.enter_context(Asker(url, at="127.0.0.1"))
            told.append(Told(asker, replace(where, host=f"r{number}.{NAME}"), None))
        inside = Inside(told, None, lambda *_: pytest.fail("it has not moved"), linger_s=60)
        begun = time.monotonic()
        found = inside.read()
        took_s = time.monotonic() - begun
    answered.set()
    assert found is not None
    assert found.instances == 64
    assert took_s < 3.2  # half of what one after the other would be


def test_servers_that_move_together_do_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is announced for a while, so that the inside view is there before the load."""
    every_s, number = 0.4, 12
    means(monkeypatch, ["10.0.0.1"])
    where = replace(endpoint(80), host=NAME, at="10.0.0.1")
    others = tuple(replace(where, port=81 + at) for at in range(number - 1))
    wanted = replace(plan(80), endpoint=where, replicas=others, resolve_ns=round(every_s * SECOND))
    ready = make_ready(wanted)
    means(monkeypatch, ["10.0.0.2"])
    lane = Moving(looks=number)
    begun = time.monotonic()
    follow(ready, lane)  # type: ignore[arg-type]
    took_s = time.monotonic() - begun
    assert sorted(lane.moves) == [(at, f"10.0.0.2:{80 + at}") for at in range(number)]
    assert took_s < every_s * number / 2


def test_where_the_inside_is_seen_is_told_and_a_page_beside_it_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is not at the target's name: it stays where it is, and tells the same to all."""
    with (
        telling("127.0.0.2") as old,
        telling("127.0.0.3", old.server_port) as new,
        telling() as page,
    ):
        old.pages = new.pages = {"/": "hello"}
        page.pages["/metrics"] = "asks_total 1000\n"
        means(monkeypatch, ["127.0.0.2"])
        path = tmp_path / "own.toml"
        path.write_text(
            f'[target]\nurl = "http://{NAME}:{old.server_port}"\nprotocol = "http"\n'
            f'[target.metrics]\nurl = "{page.url}/metrics"\nrequests = "asks"\n'
            '[load]\nphases = [{ rate = 10, for = "1s" }]\n'
        )
        with open_target(load(str(path), {}), tmp_path, False, lambda _: None) as target:
            target.statistics()
            means(monkeypatch, ["127.0.0.3"])
            remarks: list[Note] = []
            after = 0
            for at in range(1, 200):
                page.pages["/metrics"] = f"asks_total {1000 + at}\n"
                told = target.statistics()
                assert told is not None
                assert told.requests == 1
                remarks += told.remarks
                after += bool(remarks)
                if after == 4:
                    break
            assert after == 4
    (note,) = remarks
    assert (note.code, note.text.endswith("seen at 127.0.0.3")) == ("inside-moved", True)


def test_who_has_moved_is_asked_where_it_was_until_its_page_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with telling("127.0.0.2") as old, telling("127.0.0.3", old.server_port) as new:
        page = "mosec_service_remaining_task {}\n"
        old.pages = {"/": "hello", "/metrics": page.format(3)}
        new.pages = {"/": "hello"}
        means(monkeypatch, ["127.0.0.2"])
        path = tmp_path / "own.toml"
        path.write_text(
            f'[target]\nurl = "http://{NAME}:{old.server_port}"\nprotocol = "http"\n'
            '[load]\nphases = [{ rate = 10, for = "1s" }]\n'
        )
        with open_target(load(str(path), {}), tmp_path, False, lambda _: None) as target:

            def waiting() -> int | None:
                told = target.statistics()
                return told.waiting if told else None

            assert waiting() == 3
            means(monkeypatch, ["127.0.0.3"])
            while not new.asked:
                assert waiting() == 3
            new.pages["/metrics"] = page.format(4)
            assert [waiting() for _ in range(3)][-1] == 7  # of both


def test_a_page_of_all_replicas_is_read_where_its_name_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        telling("127.0.0.2") as old,
        telling("127.0.0.3", old.server_port) as new,
        telling() as replica,
    ):
        page = "mosec_service_remaining_task {}\n"
        old.pages = {"/": "hello", "/metrics": page.format(3)}
        new.pages, replica.pages = {"/": "hello"}, {"/": "hello"}
        means(monkeypatch, ["127.0.0.2"])
        path = tmp_path / "own.toml"
        where = f"http://{NAME}:{old.server_port}"
        path.write_text(
            f'[target]\nurl = "{where}"\nreplicas = ["{replica.url}"]\nprotocol = "http"\n'
            f'[target.metrics]\nurl = "{where}/metrics"\n'
            '[load]\nphases = [{ rate = 10, for = "1s" }]\n'
        )
        with open_target(load(str(path), {}), tmp_path, False, lambda _: None) as target:

            def waiting() -> int | None:
                told = target.statistics()
                return told.waiting if told else None

            assert waiting() == 3
            means(monkeypatch, ["127.0.0.3"])
            while not any(path == "/metrics" for path, _ in new.asked):
                assert waiting() == 3  # it is not there yet
            new.pages["/metrics"] = page.format(4)
            assert [waiting() for _ in range(3)][-1] == 4


def test_a_page_that_was_turned_from_is_closed_amid_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, closed = Scraper.close, list[Scraper]()

    def closing(scraper: Scraper) -> None:
        close(scraper)
        if scraper.urls and scraper not in closed:
            closed.append(scraper)

    monkeypatch.setattr(Scraper, "close", closing)
    with (
        telling("127.0.0.2") as old,
        telling("127.0.0.3", old.server_port) as new,
        telling() as replica,
    ):
        replica.pages = {"/": "hello"}
        old.pages = new.pages = {"/": "hello", "/metrics": "mosec_service_remaining_task 3\n"}
        means(monkeypatch, ["127.0.0.2"])
        path = tmp_path / "own.toml"
        where = f"http://{NAME}:{old.server_port}"
        path.write_text(
            f'[target]\nurl = "{where}"\nreplicas = ["{replica.url}"]\nprotocol = "http"\n'
            f'[target.metrics]\nurl = "{where}/metrics"\n'
            '[load]\nphases = [{ rate = 10, for = "1s" }]\n'
        )
        with open_target(load(str(path), {}), tmp_path, False, lambda _: None) as target:
            end = time.monotonic() + 30
            for turn in range(1, 4):
                means(monkeypatch, [f"127.0.0.{2 + turn % 2}"])
                while len(closed) < turn:
                    assert target.statistics() is not None
                    assert time.monotonic() < end
            assert len(closed) == 3  # the one that is read now is open
        assert len(closed) == 4


# ---- one that moves to a place that hangs

SOON_S = 1.0  # for who does not hang, on a machine that is busy


def statistics(count: int) -> str:
    told = {"success": {"count": count, "ns": 0}}
    return json.dumps({"model_stats": [{"version": "1", "inference_stats": told}]})


@pytest.mark.parametrize("hung", ["statistics", "page"])
def test_a_place_that_hangs_holds_up_nobody_else(
    hung: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It accepts, and answers nothing until it goes on."""
    monkeypatch.setattr("loadbench.targets.scrape._TIMEOUT", 20.0)
    monkeypatch.setattr("loadbench.targets.ask._TIMEOUT", 20.0)
    with (
        telling("127.0.0.2") as old,
        telling("127.0.0.3", old.server_port) as new,
        telling() as healthy,
        ExitStack() as stack,
    ):
        counted = hung == "statistics"
        path = "/v2/models/m/stats" if counted else "/metrics"
        page = statistics if counted else "asks_total {}\n".format
        means(monkeypatch, ["127.0.0.2"])
        wanted = [f"http://{NAME}:{old.server_port}", healthy.url]
        metrics = MetricsSpec(url="off") if counted else MetricsSpec(requests="asks")

        def opened(url: str, at: str = "") -> Told:
            asker = stack.enter_context(Asker(url, at=at))
            where = replace(endpoint(asker.port), host=asker.host, at=asker.at, model="m")
            if counted:
                return Told(asker, where, None)
            scraper = stack.enter_context(Scraper(replace(where, protocol="http"), metrics))
            assert scraper.find()
            return Told(asker, replace(where, protocol="http"), scraper)

        def reopen(told: Told, at: str) -> Reader:
            return Reader(opened(told.asker.url, at))

        old.pages[path] = healthy.pages[path] = page(0)
        new.pages[path] = page(5000)
        inside = Inside([opened(url) for url in wanted], None, reopen, linger_s=60)
        stack.callback(inside.close)
        means(monkeypatch, ["127.0.0.3"])
        goes_on = new.hangs[path] = threading.Event()
        for second in range(1, 5):
            old.pages[path], healthy.pages[path] = page(second), page(100 * second)
            begun = time.monotonic()
            found = inside.read(SOON_S)
            assert time.monotonic() - begun < 2 * SOON_S
            assert found is not None
            assert found.requests == 101  # at the old place there still is somebody
        assert len(new.asked) == 1
        goes_on.set()
        while len(new.asked) < 2:
            inside.read(SOON_S)
        new.pages[path] = page(5030)
        found = inside.read()
        assert found is not None
        assert found.requests == 30


def test_a_page_of_all_that_moves_to_a_place_that_hangs_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where = replace(endpoint(80), host=NAME, at="10.0.0.1")
    goes_on = threading.Event()

    def reopen(told: Told, at: str) -> Reader:
        return Reader(Told(_Counting(0), replace(told.endpoint, at=at), None))  # type: ignore[arg-type]

    def turn(_: str) -> Scraper:
        goes_on.wait(20)
        raise TargetError("no answer")

    means(monkeypatch, ["10.0.0.2"])
    told = Told(_Counting(0), where, None)  # type: ignore[arg-type]
    inside = Inside([told], None, reopen, linger_s=60, turn=turn)
    for expected in (2, 2):  # of both places
        begun = time.monotonic()
        while (found := inside.read(SOON_S)) and found.requests != expected:
            assert time.monotonic() - begun < 10
        assert time.monotonic() - begun < 10
    goes_on.set()
    inside.close()


def test_what_was_opened_where_nobody_is_any_more_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where = replace(endpoint(80), host=NAME, at="10.0.0.1")
    goes_on, opened, closed = threading.Event(), list[str](), list[str]()

    def reopen(told: Told, at: str) -> Reader:
        opened.append(at)
        goes_on.wait(20)
        reader = Reader(Told(_Counting(0), replace(told.endpoint, at=at), None))  # type: ignore[arg-type]
        reader.close = lambda: closed.append(at)
        return reader

    means(monkeypatch, ["10.0.0.2"])
    told = Told(_Counting(0), where, None)  # type: ignore[arg-type]
    inside = Inside([told], None, reopen, linger_s=60)
    for at in ("10.0.0.2", "10.0.0.3"):
        means(monkeypatch, [at])
        while at not in opened:
            inside.read(SOON_S)
    means(monkeypatch, ["10.0.0.1"])
    for _ in range(3):
        found = inside.read(SOON_S)
        assert found is not None
        assert found.requests == 1
    goes_on.set()
    inside.close()
    assert sorted(opened) == sorted(closed) == ["10.0.0.2", "10.0.0.3"]


# ---- a whole run


class Site(Answering):
    """A KServe server that counts, from so many on."""

    def __init__(self, host: str, port: int, already: int) -> None:
        super().__init__(Counted, host, port)
        self.count = already
        self.lock = threading.Lock()


class Counted(Handler):
    server: Site

    def do_GET(self) -> None:
        stats = {"success": {"count": self.server.count, "ns": 0}}
        own = {"model_stats": [{"name": "m", "version": "1", "inference_stats": stats}]}
        pages = kserve("statistics") | {"/v2/models/m/stats": own}
        self.tell(200 if self.path in pages else 404, pages.get(self.path, {"error": "no"}))

    def do_POST(self) -> None:
        self.body()
        if self.path != "/v2/models/m/infer":
            self.tell(404, {"error": "no"})
            return
        with self.server.lock:
            self.server.count += 1
        self.tell(200, ANSWER)


def meaning(at: str) -> str:
    """A file of names; all of the same length, so that one write puts another in its place."""
    return f"{at} {NAME}\n127.0.0.1 localhost\n"


@pytest.mark.long
def test_a_run_whose_server_moves_is_counted_on_both_sides(tmp_path: Path) -> None:
    """With a file of names of its own, which changes while it runs."""
    hosts = tmp_path / "hosts"
    hosts.write_text(meaning("127.0.0.2"))
    enter = ["unshare", "--mount", "sh", "-c",
             'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]  # fmt: skip
    if not shutil.which("unshare") or subprocess.run([*enter, "true"], check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    with (
        serve(Site("127.0.0.2", 0, already=0)) as old,
        serve(Site("127.0.0.3", old.server_port, already=100_000)) as new,
    ):
        path = tmp_path / "own.toml"
        path.write_text(
            f'[target]\nurl = "http://{NAME}:{old.server_port}"\nmodel = "m"\nresolve = "2s"\n'
            '[load]\narrivals = "constant"\nwarmup = "1s"\n'
            'phases = [{ rate = 60, for = "8s" }]\n'
        )
        command = [*enter, *LOADBENCH, "run", str(path), "--json", "--on-no-verdict", "warn"]
        with subprocess.Popen(
            command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as run:
            while old.count < 120:
                assert run.poll() is None
                time.sleep(0.05)
            with hosts.open("r+") as file:
                file.write(meaning("127.0.0.3"))
            out, said = run.communicate(timeout=60)
        assert run.returncode == 0, said
        counted = (old.count, new.count - 100_000)
    summary = json.loads(out)
    assert summary["failed"] == {}
    assert [note["code"] for note in summary["notes"] if note["code"] == "moved"] == ["moved"]
    assert min(counted) > 100
    records = runlog.read(runlog.find("last", tmp_path / "results"))
    windows = [record for record in records if isinstance(record, Window)]
    sent = sum(window.sent + window.tail_sent for window in windows)
    assert sent == sum(counted)
    assert sum(window.server.requests or 0 for window in windows if window.server) == sent
