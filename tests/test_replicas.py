"""Several servers that share a load: whose turn it is, what is told of each, names that move."""

import json
import socket
from pathlib import Path
from typing import Any

import gevent
import pytest
from msgspec.structs import replace

from loadbench import runlog
from loadbench.errors import SpecError, TargetError
from loadbench.load import names
from loadbench.load.connection import Address
from loadbench.load.deck import turns
from loadbench.load.lane import Lane
from loadbench.load.ready import make_ready
from loadbench.machine import Gpu
from loadbench.merge import beside
from loadbench.model import Note, Server, Window
from loadbench.plan import RequestPlan
from loadbench.runner.inside import Inside, Told
from loadbench.shape import Phase
from loadbench.spec import load
from loadbench.targets.statistics import Reading
from loadbench.units import SECOND
from tests.lanes import Done, drive, endpoint, known_server, plan
from tests.running import loadbench, summary
from tests.served import serving, settings


def of_each(found: Done) -> dict[int, int]:
    """Requests answered well, by the port of who answered them."""
    done: dict[int, int] = {}
    for window in found.recorded:
        for name, part in window.requests.items():
            port = int(name.rpartition(":")[2])
            done[port] = done.get(port, 0) + part.done
    return done


# ---- whose turn it is


def test_alike_they_have_their_turns_one_after_the_other() -> None:
    assert turns((1.0, 1.0, 1.0)) == (0, 1, 2)
    assert turns((2.5,)) == (0,)


def test_turns_are_by_weight_and_evenly_spread() -> None:
    found = turns((5.0, 1.0, 1.0))
    assert found[:7] == (0, 0, 1, 0, 2, 0, 0)  # as nginx documents it
    found = turns((0.7, 0.3))
    assert found.count(1) / len(found) == pytest.approx(0.3, abs=0.001)
    assert max(len(run) for run in "".join(map(str, found)).split("1")) <= 3


def test_each_gets_its_share_of_an_open_loop() -> None:
    with known_server() as one, known_server() as two:
        found = drive(plan(one.port, replicas=(endpoint(two.port),), weights=(3.0, 1.0)))
    found.check()
    assert found.failed == {}
    assert of_each(found) == {one.port: 150, two.port: 50}
    assert (one.counts["good"], two.counts["good"]) == (150, 50)


def test_each_kind_is_told_of_each() -> None:
    kinds = (RequestPlan("small", weight=3.0), RequestPlan("large"))
    with known_server() as one, known_server() as two:
        found = drive(plan(one.port, replicas=(endpoint(two.port),), requests=kinds))
    told = {name: part.done for w in found.recorded[:1] for name, part in w.requests.items()}
    wanted = {f"{k} → 127.0.0.1:{s.port}" for k in ("small", "large") for s in (one, two)}
    assert set(told) == wanted
    small = told[f"small → 127.0.0.1:{one.port}"]
    assert small / (small + told[f"large → 127.0.0.1:{one.port}"]) == pytest.approx(0.75, abs=0.12)


def test_a_closed_loop_has_its_places_divided() -> None:
    """A slow one holds its places: it gets fewer requests, not fewer places."""
    with known_server(service_ms=2) as quick, known_server(service_ms=20) as slow:
        found = drive(plan(
            quick.port, replicas=(endpoint(slow.port),), arrivals="closed", concurrency=8,
        ))  # fmt: skip
    found.check()
    assert found.failed == {}
    assert (quick.counts["connections"], slow.counts["connections"]) == (4, 4)
    done = of_each(found)
    assert done[quick.port] > 4 * done[slow.port]


def test_one_that_is_down_fails_its_own_part_alone() -> None:
    with socket.socket() as nobody, known_server() as one:
        nobody.bind(("127.0.0.1", 0))  # and never listens
        port = nobody.getsockname()[1]
        found = drive(plan(one.port, replicas=(endpoint(port),)))
    found.check()
    assert found.failed == {"refused": 100}
    assert of_each(found)[one.port] == 100
    (example,) = found.examples.values()
    assert example.peer == f"127.0.0.1:{port}"


def test_few_connections_make_way_for_each_other() -> None:
    """Two at most: an idle one to the other server is closed for one that is due."""
    with known_server() as one, known_server() as two, known_server() as three:
        further = (endpoint(two.port), endpoint(three.port))
        found = drive(plan(one.port, replicas=further, connections=2, rate=60))
    found.check()
    assert found.failed == {}
    assert of_each(found) == {one.port: 20, two.port: 20, three.port: 20}


def test_each_server_is_asked_with_its_own_name() -> None:
    """The Host of a request is that of the server it goes to."""
    with known_server() as one, known_server() as two:
        ready = make_ready(plan(one.port, replicas=(endpoint(two.port),)))
        for replica in ready.replicas:
            data, _, kind = replica.deal()
            assert f"Host: 127.0.0.1:{replica.endpoint.port}\r\n".encode() in data
            assert kind.name.endswith(f":{replica.endpoint.port}")


# ---- names that move


def test_a_server_that_moves_takes_its_load_with_it() -> None:
    with known_server() as old, known_server() as new:

        def move(lane: Lane) -> None:
            lane.move(0, Address(socket.AF_INET, ("127.0.0.1", new.port)))

        found = drive(plan(old.port, rate=300, seconds=2), after=[(1.0, move)])
    found.check()
    assert found.failed == {}
    assert old.counts["good"] == pytest.approx(300, abs=5)
    assert old.counts["good"] + new.counts["good"] == 600
    (note,) = found.finished.notes
    assert note.code == "moved"
    assert f"from 127.0.0.1:{old.port} to 127.0.0.1:{new.port}" in note.text


def test_a_closed_loop_moves_with_its_answers() -> None:
    """No request is cut off: connections end with the answer that is under way."""
    with known_server(service_ms=5) as old, known_server(service_ms=5) as new:

        def move(lane: Lane) -> None:
            lane.move(0, Address(socket.AF_INET, ("127.0.0.1", new.port)))

        wanted = plan(old.port, seconds=2, arrivals="closed", concurrency=4)
        found = drive(wanted, after=[(1.0, move)])
    found.check()
    assert found.failed == {}
    assert min(old.counts["good"], new.counts["good"]) > 300
    assert new.counts["connections"] == 4


class Moving:
    """A lane that only hears where a server is now."""

    def __init__(self, looks: int) -> None:
        self.moves: list[tuple[int, str]] = []
        self._left = looks

    @property
    def over(self) -> bool:
        self._left -= 1
        return self._left < 0

    def move(self, replica: int, address: Address) -> None:
        self.moves.append((replica, str(address)))


def test_names_are_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through what is asked there was; a name server that is silent for once changes nothing."""
    answers: list[Any] = ["10.0.0.1", "10.0.0.1", OSError("silent"), "10.0.0.2", "10.0.0.2"]

    def told(host: str, port: int, **_: Any) -> list[Any]:
        assert host == "models.test"
        found = answers.pop(0)
        if isinstance(found, OSError):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port))]

    monkeypatch.setattr("loadbench.load.ready.socket.getaddrinfo", told)
    wanted = plan(8000, resolve_ns=SECOND // 1000)
    ready = make_ready(replace(wanted, endpoint=replace(wanted.endpoint, host="models.test")))
    lane = Moving(looks=4)
    names.follow(ready, lane)  # type: ignore[arg-type]
    assert lane.moves == [(0, "10.0.0.2:8000")]
    assert answers == []


def test_addresses_are_never_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = make_ready(plan(8000, resolve_ns=1))
    monkeypatch.setattr(gevent, "sleep", lambda _: pytest.fail("there is nothing to wait for"))
    names.follow(ready, Moving(looks=10))  # type: ignore[arg-type]


# ---- in a scenario


def _scenario(folder: Path, target: str) -> Path:
    path = folder / "several.toml"
    load = "arrivals = 'constant'\nphases = [{ rate = 50, for = '2s' }]\n"
    path.write_text(f"[target]\n{target}\n[load]\n{load}")
    return path


def test_a_run_against_two_engines(tmp_path: Path) -> None:
    known = settings("fake={ a = '1 ms' }")
    with serving("fake", *known) as one, serving("fake", *known) as two:
        urls = [f"http://127.0.0.1:{engine.port}" for engine in (one, two)]
        path = _scenario(tmp_path, f"url = '{urls[0]}'\nreplicas = ['{urls[1]}']\n")
        told = summary(path, cwd=tmp_path)
        counted = [engine.stats()["inference_count"] for engine in (one, two)]
    assert told["failed"] == {}
    assert told["done"] == 100
    windows = [one for one in runlog.read(runlog.find("last", tmp_path / "results"))
               if isinstance(one, Window)]  # fmt: skip
    sent = sum(window.sent for window in windows)  # warm-up included
    assert sum(counted) == sent > 100
    assert sum(window.server.requests or 0 for window in windows if window.server) == sent
    assert abs(counted[0] - counted[1]) <= 1
    names = {name.rpartition(" → ")[2] for name in told["requests"]}
    assert names == {url.removeprefix("http://") for url in urls}
    assert [part["done"] for part in told["requests"].values()] == [50, 50]
    snapshot = runlog.read_snapshot(runlog.find("last", tmp_path / "results"))
    assert snapshot["target"]["replicas"] == [urls[1].removeprefix("http://")]
    assert "KServe v2" in snapshot["target"]["known_by"]
    assert snapshot["target"]["name"] == f"{urls[0]} and 1 more"
    page = loadbench("show", "last", cwd=tmp_path).stdout
    assert "REQUESTS" in page
    assert all(f"infer → {url.removeprefix('http://')}" in page for url in urls)


def test_workers_share_them_too(tmp_path: Path) -> None:
    with serving() as one, serving() as two:
        urls = [f"http://127.0.0.1:{engine.port}" for engine in (one, two)]
        path = _scenario(tmp_path, f"url = '{urls[0]}'\nreplicas = ['{urls[1]}']\nweights=[3, 1]\n")
        told = summary(path, "--workers", "2", cwd=tmp_path)
    assert told["failed"] == {}
    assert sorted(part["done"] for part in told["requests"].values()) == [
        pytest.approx(25, abs=2), pytest.approx(75, abs=2),
    ]  # fmt: skip


def test_a_replica_of_something_else_is_refused(tmp_path: Path) -> None:
    with serving() as one, serving("mlp") as two:
        urls = [f"http://127.0.0.1:{engine.port}" for engine in (one, two)]
        path = _scenario(tmp_path, f"url = '{urls[0]}'\nreplicas = ['{urls[1]}']\n")
        found = loadbench("run", path, cwd=tmp_path, code=2)
    assert "does not serve what" in found.stderr
    assert "Traceback" not in found.stderr
    assert not list((tmp_path / "results").glob("*"))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("replicas = ['http://b:1']", "servers that run"),
        ("url = 'http://a:1'\nreplicas = ['grpc://b:1']", "servers that run"),
        ("url = 'http://a:1'\nreplicas = ['http://a:1/']", "named twice"),
        ("url = 'http://a:1'\nreplicas = ['http://u:p@b:1']", "no name and no password"),
        ("url = 'http://a:1'\nreplicas = ['http://u:p@[b:1']", "write it like http://host:8000"),
        ("url = 'http://a:1'\nreplicas = ['http://b:1']\nweights = [1]", "2 are needed"),
        ("url = 'http://a:1'\nweights = [1, 2]", "1 are needed"),
        ("url = 'http://a:1'\nreplicas = ['http://b:1']\nweights = [1, 0]", "a number above 0"),
        ("url = 'http://a:1'\nreplicas = ['http://b:1']\nshared_memory = true", "one server"),
    ],
)
def test_what_cannot_be_is_said(target: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=words):
        load(str(_scenario(tmp_path, target)))


def test_a_dry_run_and_the_doctor_ask_each_of_them(tmp_path: Path) -> None:
    with serving() as one, serving() as two:
        urls = [f"http://127.0.0.1:{server.port}" for server in (one, two)]
        own = _scenario(tmp_path, f"url = '{urls[0]}'\nreplicas = ['{urls[1]}']")
        dry = loadbench("run", own, "--dry-run", "--json", cwd=tmp_path)
        tried = json.loads(dry.stdout)
        ports = [one["request"].rpartition(":")[2] for one in tried]
        assert ports == [url.rpartition(":")[2] for url in urls]
        assert all(each["status"] == 200 and not each["fault"] for each in tried)
        told = json.loads(loadbench("doctor", own, "--json", cwd=tmp_path).stdout)
        found = [each["text"] for each in told["findings"] if each["subject"] == "target"]
        assert [text.partition(" ")[0] for text in found] == urls
    down = loadbench("doctor", own, "--json", cwd=tmp_path, code=1)
    assert "is the server up" in down.stdout


def test_a_host_of_others_among_them_is_guarded(tmp_path: Path) -> None:
    text = "url = 'http://127.0.0.1:1'\nreplicas = ['http://models.example:1']"
    assert load(str(_scenario(tmp_path, text))).spec.target.cap is not None


# ---- their inside


def test_states_of_several_servers_add_up() -> None:
    one = Server("kserve", requests=5, batches=2, waiting=3, instances=1, max_batch=8)
    two = Server("kserve", requests=7, batches=1, waiting=4, instances=2, max_batch=4)
    found = beside([one, replace(two, remarks=(Note("x", "y"),))])
    assert found is not None
    assert (found.requests, found.batches, found.waiting, found.instances) == (12, 3, 7, 3)
    assert (found.max_batch, found.remarks) == (8, (Note("x", "y"),))
    assert beside([one]) is one
    assert beside([]) is None


class _Cards:
    urls = ("its page",)

    def __init__(self, *names: str) -> None:
        self.cards = tuple(Gpu(0, name) for name in names)


class _Silent:
    def statistics(self, _: object) -> None:
        return None


def test_cards_of_several_servers_are_numbered_one_after_the_other() -> None:
    told: Any = [Told(_Silent(), endpoint(1), _Cards(name)) for name in ("A", "B")]  # type: ignore[arg-type]
    assert [(card.index, card.name) for card in Inside(told).cards() or ()] == [(0, "A"), (1, "B")]
    assert [card.index for card in Inside(told[:1]).cards() or ()] == [0]
    inside = Inside(told)
    inside.cards()
    told[0].scraper.cards = ()  # its page is late
    assert [(card.index, card.name) for card in inside.cards() or ()] == [(1, "B")]


def test_a_card_that_several_servers_tell_of_is_one() -> None:
    def telling(*uuids: str) -> Any:
        scraper = _Cards(*uuids)
        scraper.cards = tuple(replace(card, uuid=card.name) for card in scraper.cards)
        return Told(_Silent(), endpoint(1), scraper)  # type: ignore[arg-type]

    found = Inside([telling("A"), telling("A"), telling("B")]).cards()
    assert [(card.index, card.uuid) for card in found or ()] == [(0, "A"), (1, "B")]


def test_parts_of_a_card_keep_its_number() -> None:
    """Their UUID is the whole card's (MIG)."""
    scraper: Any = _Cards("A", "A")
    scraper.cards = tuple(
        replace(card, uuid="A", part=part) for card, part in zip(scraper.cards, "17", strict=True)
    )
    told: Any = [Told(_Silent(), endpoint(1), one) for one in (_Cards("B"), scraper)]  # type: ignore[arg-type]
    found = Inside(told).cards() or ()
    assert [card.title for card in found] == ["0", "1 MIG 1", "1 MIG 7"]


class _Faltering:
    """Has counted 10 requests more each time it is asked; does not answer the second time."""

    asked = 0

    def statistics(self, _: object) -> Reading:
        self.asked += 1
        if self.asked == 2:
            raise TargetError("no answer", "")
        return Reading(success=10 * self.asked)


class _Page:
    cards = ()

    def ask(self, patient: bool) -> None:
        pass

    def server(self, _: float | None) -> Server:
        return Server("metrics", requests=10)


def test_what_statistics_make_up_is_not_taken_from_the_page_too() -> None:
    told: Any = Told(_Faltering(), endpoint(1), _Page())  # type: ignore[arg-type]
    inside = Inside([told])
    assert inside.read() is None
    found = inside.read()
    assert found is not None
    assert found.requests == 20


def test_the_plan_goes_over_the_wire() -> None:
    from loadbench.model import decode, encode
    from loadbench.plan import Plan

    wanted = plan(1, replicas=(endpoint(2),), weights=(1.0, 2.0), phases=(Phase(1, 1, SECOND),))
    assert decode(Plan, encode(wanted)) == wanted
    assert json.loads(encode(wanted))["replicas"][0]["port"] == 2
