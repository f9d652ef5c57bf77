"""Server-Timing: what others write there is read, and is the inside view of a server that tells of
itself in no other way."""

from pathlib import Path
from uuid import uuid4

import pytest

from loadbench import timing
from loadbench.causes import Around, explain
from loadbench.load.exemplar import MOST_PARTS, OTHER, Parts
from loadbench.merge import together
from loadbench.model import Part, Sample, Server, Window
from loadbench.serverside import with_timing
from loadbench.units import MS
from tests.answering import Answering, Handler, serve
from tests.running import loadbench, summary


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("queue;dur=0.4, batch;dur=1.2, compute;dur=8", {"queue": 0.4, "batch": 1.2, "compute": 8}),
        ("db;dur=53.2, app;dur=47", {"compute": 100.2, "db": 53.2, "app": 47}),
        ("db;dur=53, total;dur=60", {"compute": 53, "db": 53}),
        ("total;dur=60", {"compute": 60}),
        ("compute;dur=8, after;dur=3", {"compute": 8}),
        ('cdn;desc="a, b;dur=9";dur=2', {"compute": 2, "cdn": 2}),
        ('db;dur="4.5"', {"compute": 4.5, "db": 4.5}),
        ("db ; desc=x ; dur = 4", {"compute": 4, "db": 4}),
        ("db;dur=1, db;dur=2", {"compute": 3, "db": 3}),
        ("cache;desc=hit", {}),
        ("db;dur=-1, app;dur=soon, x;dur=1e3", {}),
        ("db;duration=4", {}),
        ("", {}),
        (", ".join(f"part{n};dur=1" for n in range(12)),
         {"compute": 12, **{f"part{n}": 1 for n in range(8)}}),
    ],
)  # fmt: skip
def test_what_is_read(text: str, told: dict[str, float]) -> None:
    found = timing.read(text.encode()).told
    assert found == {name: round(ms * MS) for name, ms in told.items()}


def test_the_header_may_come_in_several_lines_and_not_from_the_body() -> None:
    head = b"HTTP/1.1 200 OK\r\nServer-Timing: a;dur=1\r\nX: y\r\nserver-timing: b;dur=2\r\n\r\n"
    assert timing.read(timing.field(head + b"\r\nServer-Timing: c;dur=3\r\n")).parts == {
        "a": MS, "b": 2 * MS,
    }  # fmt: skip


def test_a_server_that_tells_of_its_times_itself_is_believed() -> None:
    told = {"compute": Part(3, 30 * MS), "model": Part(3, 24 * MS)}
    metrics = Server("metrics", compute=Part(100, 900 * MS), requests=100)
    assert with_timing(metrics, told) is metrics
    counting = with_timing(Server("metrics", requests=7), told)
    assert counting is not None
    assert (counting.requests, counting.compute_parts_ms) == (7, {"model": 8.0})
    assert with_timing(None, {}) is None


def test_processes_add_up() -> None:
    whole = together(
        [Window(0, "load", timing={"db": Part(1, 5)}), Window(0, "load", timing={"db": Part(2, 7)})]
    )
    assert whole.timing == {"db": Part(3, 12)}


def test_the_longest_part_of_a_slow_request_is_named() -> None:
    slow = Sample("a", 0, 0, 0, 50 * MS, compute_ns=45 * MS, parts={"db": 40 * MS, "app": 5 * MS})
    assert "most of it db, 40.0 ms" in explain(slow, Around()).text


class Service(Answering):
    """Answers at once, and says where its time went."""

    says = "queue;dur=2, db;dur=3.5, model;dur=6"


class Worker(Handler):
    server: Service

    def do_GET(self) -> None:
        known = self.path == "/work"
        told = {"Server-Timing": self.server.says} if known else None
        self.say(200 if known else 404, "ok", told)


def scenario(folder: Path, url: str) -> Path:
    path = folder / "service.toml"
    path.write_text(
        f'[target]\nurl = "{url}"\nprotocol = "http"\n'
        '[load]\nwarmup = "1s"\nphases = [{ rate = 300, for = "2s" }]\n'
        '[[request]]\nname = "work"\nmethod = "GET"\npath = "/work"\n'
    )
    return path


def test_a_service_that_tells_with_its_answers_has_an_inside_view(tmp_path: Path) -> None:
    with serve(Service(Worker)) as server:
        told = summary(scenario(tmp_path, server.url), cwd=tmp_path)["server"]
        text = loadbench("run", scenario(tmp_path, server.url), cwd=tmp_path)
    assert told["source"] == "Server-Timing"
    assert told["queue_ms"]["mean"] == pytest.approx(2)
    assert told["compute_ms"]["mean"] == pytest.approx(9.5)
    assert told["compute_parts_ms"] == pytest.approx({"db": 3.5, "model": 6})
    assert "of a sample of answers" in text.stdout
    assert "db 3.50, model 6.00" in text.stdout


LOCUSTFILE = """
from locust import FastHttpUser, HttpUser, constant, task

class One(HttpUser):
    wait_time = constant(0.05)

    @task
    def work(self):
        self.client.get("/work")

class Other(FastHttpUser):
    wait_time = constant(0.05)

    @task
    def work(self):
        self.client.get("/work")
"""


def test_users_of_a_locust_file_hear_it_too(tmp_path: Path) -> None:
    path = tmp_path / "users.py"
    path.write_text(LOCUSTFILE)
    options = ("--set", "load.users=4", "--duration", "3s")
    with serve(Service(Worker)) as server:
        found = summary(path, "--target", server.url, *options, cwd=tmp_path)
    assert found["server"]["compute_parts_ms"] == pytest.approx({"db": 3.5, "model": 6})


class Inventing(Service):
    """Has new names for its parts in each answer."""

    @property
    def says(self) -> str:  # type: ignore[override]
        return ", ".join(f"{uuid4().hex};dur=1" for _ in range(8))


def test_of_names_without_end_a_bounded_number_is_told() -> None:
    known = Parts({})
    for number in range(3 * MOST_PARTS):
        told = known.told({f"a{number}": 1, f"b{number}": 2})
        assert sum(told.values()) == 3  # no time is lost
    assert told == {OTHER: 3}
    assert known.told({"a0": 1, "b0": 2}) == {"a0": 1, "b0": 2}
    [note] = known.notes()
    assert note.code == "many-parts"
    few = Parts({})
    few.told({f"a{number}": 1 for number in range(MOST_PARTS)})
    assert list(few.notes()) == []


@pytest.mark.parametrize("journey", [False, True])
def test_a_run_tells_so_many_names_and_says_once_that_there_are_more(
    tmp_path: Path, journey: bool
) -> None:
    options: tuple[str, ...] = ()
    with serve(Inventing(Worker)) as server:
        path = scenario(tmp_path, server.url)
        if journey:
            path = tmp_path / "users.py"
            path.write_text(LOCUSTFILE)
            options = "--set", "load.users=4", "--duration", "3s", "--target", server.url
        found = summary(path, *options, cwd=tmp_path)
    parts = found["server"]["compute_parts_ms"]
    assert len(parts) <= MOST_PARTS + 1
    assert parts[OTHER] > 0
    assert [note["code"] for note in found["notes"]].count("many-parts") == 1


def test_one_that_tells_nothing_has_none(tmp_path: Path) -> None:
    with serve(Service(Worker)) as server:
        server.says = 'cdn;desc="hit"'
        found = summary(scenario(tmp_path, server.url), cwd=tmp_path)
    assert found["server"] is None
