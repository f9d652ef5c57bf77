"""People's Locust files of many kinds as a load process runs them, against a server that counts."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from loadbench.model import Mark, Window, encode
from loadbench.plan import Command, Finished, Started
from loadbench.units import MS
from tests.lanes import Process, known_server, process, run_process
from tests.people import TAGGED, by_name, journey, notes, nothing

pytestmark = pytest.mark.long


@pytest.mark.parametrize("user", ["HttpUser", "FastHttpUser"])
def test_counts_are_the_servers_and_latencies_have_full_resolution(
    tmp_path: Path, user: str
) -> None:
    code = f"""
    class Visitor({user}):
        @task
        def look(self):
            self.client.get("/look")
    """
    with known_server(service_ms=5) as server:
        found = run_process(journey(tmp_path, server.port, code), nothing)
    found.check()
    assert found.finished.reason == "done"
    assert found.failed == {}
    assert found.sum("done") == server.counts["got"] > 20
    assert list(by_name(found)) == ["GET /look"]
    assert found.finished.unfinished == 0
    latency = found.latency
    assert (latency.quantile(0) or 0) >= 4 * MS  # a server's timer may be early by one
    values = latency.buckets()[0]
    assert len(values) > 3 * len({value // MS for value in values}), "no whole milliseconds"
    assert all(window.lateness.count == 0 and window.rate is None for window in found.windows)
    assert max(window.in_flight for window in found.recorded) <= 4
    assert found.recorded[0].users == 4
    assert "closed-loop" in notes(found)


def test_stop_lets_tasks_finish_and_kill_does_not(tmp_path: Path) -> None:
    code = """
    class Visitor(HttpUser):
        @task
        def look(self):
            self.client.get("/look")
        def on_stop(self):
            print("bye")
    """

    def stop(load: Process, started: Started) -> None:
        time.sleep(0.8)
        load.command(Command("stop"))

    def kill(load: Process, started: Started) -> None:
        time.sleep(0.8)
        load.popen.send_signal(signal.SIGTERM)
        load.popen.send_signal(signal.SIGINT)

    for during, unfinished in ((stop, 0), (kill, 4)):
        with known_server(service_ms=500) as server:
            found = run_process(journey(tmp_path, server.port, code, 60.0), during)
        found.check()
        assert found.finished.reason == "stopped"
        assert found.finished.unfinished == unfinished
        assert found.sum("sent") == found.sum("done") + unfinished == 8


def test_it_ends_with_its_stdin(tmp_path: Path) -> None:
    code = """
    class Visitor(HttpUser):
        @task
        def look(self):
            self.client.get("/look")
    """
    with (
        known_server() as server,
        process(encode(journey(tmp_path, server.port, code, 60.0))) as load,
    ):
        assert isinstance(load.next(), Started)
        assert load.popen.stdin is not None
        load.popen.stdin.close()
        load.rest()
        assert load.popen.wait(5) == 0


def test_several_users_by_weight_and_fixed_count_with_their_hosts(tmp_path: Path) -> None:
    with known_server() as server, known_server() as other:
        code = f"""
        class Fixed(HttpUser):
            host = "http://127.0.0.1:{other.port}"
            fixed_count = 1
            wait_time = constant(0.1)
            @task
            def one(self):
                self.client.get("/fixed")
        class Often(FastHttpUser):
            host = "http://127.0.0.1:{server.port}"
            weight = 3
            wait_time = constant(0.1)
            @task
            def two(self):
                self.client.post("/often", json={{"a": 1}}, name="often")
        class Never(HttpUser):
            weight = 0
            @task
            def three(self):
                self.client.get("/never")
        """
        wanted = journey(tmp_path, server.port, code, host="")
        found = run_process(wanted, nothing)
    found.check()
    counts = by_name(found)
    assert counts["GET /fixed"] == (other.counts["got"], {})
    assert counts["POST often"] == (server.counts["got"], {})
    assert server.counts["got"] > 2 * other.counts["got"] > 4
    assert len(counts) == 2
    assert found.started.target == f"http://127.0.0.1:{other.port}, http://127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"tags": ("a", "b"), "user_classes": ("Visitor",)}, {"GET /one", "GET /two"}),
        ({"exclude_tags": ("c",), "user_classes": ("Visitor",)}, {"GET /one", "GET /three"}),
        ({"user_classes": ("Other",)}, {"GET /four"}),
    ],
)
def test_tags_and_classes_choose(tmp_path: Path, choice: dict[str, Any], names: set[str]) -> None:
    with known_server() as server:
        found = run_process(journey(tmp_path, server.port, TAGGED, 0.6, **choice), nothing)
    found.check()
    assert set(by_name(found)) == names
    assert found.sum("done") == server.counts["got"]


def test_names_are_grouped_as_the_file_says_and_bounded(tmp_path: Path) -> None:
    code = """
    class Visitor(HttpUser):
        fixed_count = 1
        number = 0
        @task
        def look(self):
            with self.client.rename_request("grouped"):
                self.client.get("/a")
            self.client.get("/item/1", name="/item/[id]")
            for _ in range(30):
                Visitor.number += 1
                self.client.get(f"/new/{self.number}")
            if self.number > 300:
                self.environment.runner.quit()
    """
    with known_server() as server:
        found = run_process(journey(tmp_path, server.port, code, 30.0, users=1), nothing)
    found.check()
    counts = by_name(found)
    assert counts["GET grouped"][0] == counts["GET /item/[id]"][0] > 5
    assert len(counts) == 201
    assert counts["other"][0] > 50
    assert found.sum("done") == server.counts["got"]
    assert found.finished.reason == "done"
    assert {"many-names", "own-end"} <= set(notes(found))


def test_a_shape_drives_the_users_and_ends_the_load(tmp_path: Path) -> None:
    code = """
    class Visitor(FastHttpUser):
        @task
        def look(self):
            self.client.get("/look")
    class Steps(LoadTestShape):
        def tick(self):
            passed = self.get_run_time()
            return (5, 100) if passed < 1.5 else (2, 100) if passed < 3.5 else None
    """
    with known_server(service_ms=100) as server:
        found = run_process(journey(tmp_path, server.port, code, 0), nothing)
    found.check()
    users = [window.users for window in found.recorded]
    assert users[0] == 5
    assert 2 in users
    assert 3 <= len([w for w in found.recorded if w.stage == "load"]) <= 6
    assert found.failed == {}, "users that go finish what they are at"
    assert found.sum("done") == server.counts["got"] > 60
    assert found.started.length_ns is None
    assert "shape" in notes(found)
    assert found.finished.reason == "done"


def test_events_and_arguments_of_the_file_work(tmp_path: Path) -> None:
    code = """
    import os
    heard = []
    @events.init_command_line_parser.add_listener
    def arguments(parser):
        parser.add_argument("--path", default="/default")
        parser.add_argument("--twice", action="store_true")
    @events.init.add_listener
    def init(environment, **_):
        heard.append("init")
    @events.test_start.add_listener
    def start(environment, **_):
        time.sleep(0.3)
        heard.append("test_start")
    @events.request.add_listener
    def request(request_type, name, response_time, response_length, response, context, exception,
                start_time, url, **_):
        heard.append("request")
    @events.test_stop.add_listener
    def stop(environment, **_):
        time.sleep(0.2)
        heard.append("test_stop")
    @events.quitting.add_listener
    def quitting(environment, **_):
        total = environment.stats.total.num_requests
        assert total == heard.count("request")
        environment.process_exit_code = 7
        print("not in the protocol", flush=True)
        order = list(dict.fromkeys(heard))
        with open(os.path.join(os.path.dirname(__file__), "heard"), "w") as file:
            print(*order, total, file=file)
    class Visitor(HttpUser):
        wait_time = constant_throughput(20)
        @task
        def look(self):
            self.client.get(self.environment.parsed_options.path)
            if self.environment.parsed_options.twice:
                self.client.get("/twice")
    """
    with known_server() as server:
        wanted = journey(tmp_path, server.port, code, arguments=("--path", "/own", "--twice"))
        found = run_process(wanted, nothing)
    found.check()
    got = server.counts["got"]
    assert set(by_name(found)) == {"GET /own", "GET /twice"}
    assert found.sum("done") == got
    heard = (tmp_path / "heard").read_text().split()
    assert heard == ["init", "test_start", "request", "test_stop", str(got)]
    assert "7" in notes(found)["exit-code"]
    assert 1 <= len(found.windows) <= 2, "second 0 begins when test_start is through"


def test_clients_of_other_kinds_count_when_they_end(tmp_path: Path) -> None:
    code = """
    class Machine(User):
        wait_time = constant(0.2)
        @task
        def turn(self):
            gevent.sleep(0.3)
            events.request.fire(request_type="tcp", name="turn", response_time=123.4567,
                                response_length=0, exception=None, context={})
            with events.request.measure("tcp", "measured"):
                gevent.sleep(0.1)
            with events.request.measure("tcp", "broken"):
                raise KeyError("x")
            events.request.fire(request_type="", name="untimed", response_time=None,
                                response_length=0, exception="a text")
    """
    with known_server() as server:
        found = run_process(journey(tmp_path, server.port, code, 2.0, host=""), nothing)
    found.check()
    counts = by_name(found)
    assert counts["tcp turn"][0] == counts["tcp measured"][0] > 4
    assert set(counts["tcp broken"][1]) == {"KeyError"}
    assert set(counts["untimed"][1]) == {"failure"}
    turn = [part.latency for w in found.recorded for n, part in w.requests.items() if "turn" in n]
    assert all(abs((one.quantile(0.5) or 0) - 123.4567 * MS) < 2 * MS for one in turn)
    assert "untimed" in notes(found)


def test_users_still_being_started_are_told(tmp_path: Path) -> None:
    code = """
    class Visitor(FastHttpUser):
        wait_time = constant(0.1)
        @task
        def look(self):
            self.client.get("/look")
    """
    with known_server() as server:
        slow = journey(tmp_path, server.port, code, 2.4, users=6, spawn_rate=2)
        with process(encode(slow)) as load:
            *told, finished = load.rest()
    assert [message for message in told if isinstance(message, Mark)] == [
        Mark(2, "6 users running")
    ]
    assert isinstance(finished, Finished)
    assert [note.code for note in finished.notes] == ["spawning"]
    users = [message.users for message in told if isinstance(message, Window)]
    assert users[:2] == [2, 4]


def test_warm_up_is_left_out(tmp_path: Path) -> None:
    code = """
    class Visitor(FastHttpUser):
        wait_time = constant(0.1)
        @task
        def look(self):
            self.client.get("/look")
    """
    with known_server(service_ms=20) as server:
        found = run_process(journey(tmp_path, server.port, code, 1.0, warmup_ns=1500 * MS), nothing)
    found.check()
    warm = sum(window.done for window in found.windows if window.stage == "warmup")
    tail = found.sum("tail_done")
    assert warm > 2 * found.sum("done") / 2 > 0
    assert warm + tail + found.sum("done") == server.counts["got"]


def test_functions_named_test_are_users_as_under_locust(tmp_path: Path) -> None:
    code = """
    def test_look(fastsession):
        fastsession.get("/look")
        time.sleep(0.02)
    """
    with known_server() as server:
        found = run_process(journey(tmp_path, server.port, code, drain_ns=0), nothing)
    found.check()
    (name,) = by_name(found)
    assert name == "GET /look"
    assert server.counts["got"] - 4 <= found.sum("done") <= server.counts["got"]
    assert found.sum("done") > 20
