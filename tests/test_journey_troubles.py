"""People's Locust files when something is wrong: with the server, their code, or the file."""

import re
from pathlib import Path
from typing import Any

import pytest

from loadbench.model import encode
from loadbench.plan import Broken
from loadbench.units import MS, SECOND
from tests.lanes import known_server, process, run_process
from tests.people import TAGGED, by_name, journey, notes, nothing

pytestmark = pytest.mark.long  # a minute and more


def test_a_server_that_hangs_shows_before_any_answer_comes(tmp_path: Path) -> None:
    code = """
    class Visitor(FastHttpUser):
        network_timeout = 1.5
        @task
        def look(self):
            self.client.get("/look")
    """
    with known_server(misbehave="hang") as server:
        found = run_process(journey(tmp_path, server.port, code, 2.0), nothing)
    found.check()
    first = found.recorded[0]
    assert (first.in_flight, first.sent, first.overdue) == (4, 4, 4)
    assert first.oldest_ns > 500 * MS
    assert found.failed == {"timeout": found.sum("sent")}


def test_what_is_under_way_when_the_drain_is_over_stays_unfinished(tmp_path: Path) -> None:
    code = """
    class Visitor(HttpUser):
        @task
        def look(self):
            self.client.get("/look")
    """
    with known_server(misbehave="hang") as server:
        wanted = journey(tmp_path, server.port, code, 0.5, drain_ns=300 * MS)
        found = run_process(wanted, nothing)
    found.check()
    assert found.finished.reason == "done"
    assert found.finished.unfinished == found.sum("sent") == server.counts["got"] == 4


@pytest.mark.parametrize("user", ["HttpUser", "FastHttpUser"])
def test_failures_have_the_names_of_the_lane(tmp_path: Path, user: str) -> None:
    with known_server() as good, known_server(misbehave="busy") as busy, known_server(
        misbehave="close"
    ) as closing:  # fmt: skip
        code = f"""
        class Visitor({user}):
            @task
            def look(self):
                self.client.get("http://127.0.0.1:{busy.port}/busy")
                self.client.get("http://127.0.0.1:{closing.port}/closed")
                self.client.get("http://127.0.0.1:9/refused")
                self.client.get("http://no.such.host.invalid/", name="unknown")
                with self.client.get("/fine", catch_response=True) as answer:
                    answer.failure("too good")
                with self.client.get("/bad", catch_response=True) as answer:
                    pass
                with self.client.get(
                    "http://127.0.0.1:{busy.port}/", name="expected", catch_response=True
                ) as answer:
                    answer.success()
                raise StopUser
        """
        wanted = journey(tmp_path, good.port, code, 20.0, users=3)
        found = run_process(wanted, nothing)
    found.check()
    failed = {name.split("/")[-1]: kinds for name, (_, kinds) in by_name(found).items()}
    assert failed["busy"] == {"http_503": 3}
    assert failed["closed"] == {"closed": 3}
    assert failed["refused"] == {"refused": 3}
    assert failed["GET unknown"] == {"dns": 3}
    assert failed["fine"] == {"failure": 3}
    assert failed["bad"] == failed["GET expected"] == {}
    first = {kind: found for window in found.recorded for kind, found in window.examples.items()}
    assert first["failure"].text == "too good · HTTP 200"
    assert first["failure"].request == "GET /fine"
    assert first["http_503"].answer == "HTTP 503"
    assert found.sum("asked") == 21
    assert "users-gone" in notes(found)


def test_exceptions_in_tasks_are_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    code = """
    class Visitor(FastHttpUser):
        wait_time = constant(0.1)
        @task
        def look(self):
            with self.client.get("/look", catch_response=True) as answer:
                answer.json()["absent"]
    @events.request.add_listener
    def listen(**_):
        raise RuntimeError("never comes")
    @events.test_stop.add_listener
    def stop(**_):
        1 / 0
    """
    with known_server() as server:
        found = run_process(journey(tmp_path, server.port, code), nothing)
    found.check()
    got = server.counts["got"]
    assert got > 20
    assert by_name(found) == {"GET /look": (0, {"untold": got})}
    assert f"{got} exceptions in tasks" in notes(found)["task-raised"]
    assert "people.py line 11: KeyError: 'absent'" in notes(found)["task-raised"]
    assert "ZeroDivisionError" in notes(found)["listener-raised"]


def test_an_answer_never_judged_took_as_long_as_it_took(tmp_path: Path) -> None:
    code = """
    class Visitor(FastHttpUser):
        @task
        def look(self):
            with self.client.get("/look", catch_response=True) as answer:
                time.sleep(0.5)
                raise KeyError("\\x1b[2J\\x07", "two\\nlines")
    """
    with known_server() as server:
        found = run_process(journey(tmp_path, server.port, code, users=1, seconds=1.2), nothing)
    found.check()
    assert set(found.failed) == {"untold"}
    slow = [sample for window in found.recorded for sample in window.slowest]
    assert 0 < max(sample.done - sample.due for sample in slow) < 400 * MS


def test_users_whose_task_never_ends_are_told(tmp_path: Path) -> None:
    code = """
    class Visitor(FastHttpUser):
        @task
        def look(self):
            while True:
                self.client.get("/look")
                time.sleep(0.02)
    """
    with known_server() as server:
        changed: dict[str, Any] = {"users": 1, "drain_ns": SECOND}
        found = run_process(journey(tmp_path, server.port, code, **changed), nothing)
    found.check()
    late = sum(window.asked for window in found.recorded if window.stage == "drain")
    begun = int(re.findall(r"of (\d+) requests were begun after", notes(found)["after-load"])[0])
    assert begun in (server.counts["got"], server.counts["got"] + 1), "one can end unheard"
    assert late > 10


def test_a_file_that_blocks_all_its_users_is_blamed(tmp_path: Path) -> None:
    code = """
    class Visitor(FastHttpUser):
        wait_time = constant(0.3)
        @task
        def look(self):
            self.client.get("/look")
            end = time.monotonic() + 0.15
            while time.monotonic() < end:
                pass
    """
    with known_server() as server:
        found = run_process(journey(tmp_path, server.port, code, users=1), nothing)
    found.check()
    assert max(window.stall_ns for window in found.windows) > 140 * MS


def test_users_that_cannot_be_started_end_the_load_with_a_reason(tmp_path: Path) -> None:
    cases = {
        "class V(User):\n  def __init__(self, e):\n    raise ValueError('no')": "ValueError: no",
        "class V(User): pass\nclass S(LoadTestShape):\n  def tick(self): return self.steps":
        "AttributeError: 'S' object has no attribute 'steps'",
    }  # fmt: skip
    for code, words in cases.items():
        with process(encode(journey(tmp_path, 1, "\n" + code, 20.0))) as load:
            *_, last = load.rest()
            assert load.popen.wait(5) == 2
        assert isinstance(last, Broken)
        assert words in last.message
        assert "people.py line" in last.message


def test_a_file_that_exits_ends_the_load_and_not_its_account(tmp_path: Path) -> None:
    code = """
    import sys
    class Visitor(HttpUser):
        @task
        def look(self):
            self.client.get("/look")
            if time.monotonic() > self.until:
                sys.exit(3)
        def on_start(self):
            self.until = time.monotonic() + 0.5
    """
    with known_server(service_ms=5) as server:
        found = run_process(journey(tmp_path, server.port, code, 20.0), nothing)
    found.check()
    assert found.sum("sent") == server.counts["got"] > 20
    assert "exit 3" in notes(found)["own-end"]


def test_a_shape_that_goes_down_cuts_off_those_that_do_not_finish(tmp_path: Path) -> None:
    code = """
    class Visitor(FastHttpUser):
        @task
        def look(self):
            self.client.get("/look")
    class Steps(LoadTestShape):
        def tick(self):
            return (5, 100) if self.get_run_time() < 0.9 else (1, 100)
    """
    with known_server(misbehave="hang") as server:
        wanted = journey(tmp_path, server.port, code, 2.0, drain_ns=200 * MS)
        found = run_process(wanted, nothing)
    found.check()
    assert found.failed == {"cut_off": 4}
    assert found.finished.unfinished == 1
    assert [window.users for window in found.recorded][-1] == 1


WRONG = {
    "syntax": ("def f(:\n", "people.py line 6: SyntaxError"),
    "import": ("import no_such_module_here\n", "people.py line 6: ModuleNotFoundError"),
    "raises": ("\n1 / 0\n", "people.py line 7: ZeroDivisionError"),
    "no users": ("x = 1\n", "it has no users"),
    "exits": ("import sys; sys.exit(3)\n", "exit 3"),
    "no host": ("class V(HttpUser):\n  @task\n  def t(self): pass\n", "V has no host"),
    "weightless": ("class V(HttpUser):\n  weight = 0\n", "no users with weight"),
    "init": (
        "class V(User): pass\n@events.init.add_listener\ndef f(**_):\n  raise KeyError('x')\n",
        "people.py line 9: KeyError: 'x'",
    ),
    "argument": (
        "class V(User): pass\n@events.init_command_line_parser.add_listener\n"
        "def f(parser):\n  parser.add_argument('--token', required=True)\n",
        "--token",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_file_is_said_in_one_message(tmp_path: Path, name: str) -> None:
    code, words = WRONG[name]
    with process(encode(journey(tmp_path, 1, "\n" + code, host=""))) as load:
        *_, message = load.rest()
        assert load.popen.wait(5) == 2
    assert isinstance(message, Broken)
    assert message.exit_code == 2
    assert words in message.message


THEIRS = """
class Visitor(HttpUser):
    host = "http://models.example"
    @task
    def look(self):
        self.client.get("/look")
"""
SHAPE = """
class Steps(LoadTestShape):
    def tick(self):
        return 1, 1
"""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (THEIRS, "models.example may be somebody else's: it gets 3 users at most, not 4"),
        (THEIRS + SHAPE, "Steps says how many users run, and http://models.example may be"),
    ],
)
def test_a_host_of_others_in_the_file_gets_few_users(tmp_path: Path, code: str, words: str) -> None:
    with process(encode(journey(tmp_path, 1, code, host="", most=3))) as load:
        (message,) = load.rest()
    assert isinstance(message, Broken)
    assert (message.exit_code, words in message.message) == (2, True), message.message
    assert "target.owned=true" in message.hint


OWN_HOST = """
class Visitor({kind}):
    def __init__(self, environment):
        self.host = "http://models.example"
        super().__init__(environment)
    @task
    def look(self):
        self.client.get("/look")
"""
IN_TASK = """
class Visitor({kind}):
    @task
    def look(self):
        self.client.get("http://models.example/look?token=abc")
"""
DIALLER = """
class Dialler({kind}):
    def __init__(self, environment):
        super().__init__(environment)
        self.host = "tcp://models.example"
    @task
    def dial(self):
        print("dialled")
"""


@pytest.mark.parametrize(
    ("code", "kind", "host"),
    [
        (OWN_HOST, "HttpUser", ""),
        (OWN_HOST, "FastHttpUser", ""),
        (IN_TASK, "HttpUser", "http://127.0.0.1:1"),
        (IN_TASK, "FastHttpUser", "http://127.0.0.1:1"),
        (DIALLER, "User", ""),
    ],
)
def test_a_host_of_others_that_is_known_late_gets_few_users_too(
    tmp_path: Path, code: str, kind: str, host: str
) -> None:
    """Only when a user is there, or its task is under way."""
    told = encode(journey(tmp_path, 1, code.format(kind=kind), host=host, most=3))
    with process(told) as load:
        *_, message = load.rest()
    assert isinstance(message, Broken)
    words = "://models.example may be somebody else's: it gets 3 users at most, not 4"
    assert (message.exit_code, words in message.message) == (2, True), message.message
    assert "target.owned=true" in message.hint


@pytest.mark.parametrize("kind", ["HttpUser", "FastHttpUser"])
def test_whoever_stays_on_this_machine_need_not_say_so(tmp_path: Path, kind: str) -> None:
    with known_server() as server:
        code = f"""
        class Visitor({kind}):
            host = ""
            def __init__(self, environment):
                self.host = "http://127.0.0.1:{server.port}"
                super().__init__(environment)
            @task
            def look(self):
                self.client.get("http://localhost:{server.port}/look")
        """
        found = run_process(journey(tmp_path, server.port, code, host="", most=3), nothing)
    found.check()
    assert found.failed == {}
    assert found.sum("done") > 10


def test_unknown_classes_are_told_with_those_there_are(tmp_path: Path) -> None:
    with process(encode(journey(tmp_path, 1, TAGGED, user_classes=("Vistor",)))) as load:
        (message,) = load.rest()
    assert isinstance(message, Broken)
    assert "Vistor" in message.message
    assert "Visitor" in message.hint


LISTENER = """
import requests
@events.{event}.add_listener
def look(**_):
    locust.clients.HttpSession("http://models.example", locust.events.request, None).get("/look")
class Visitor(HttpUser):
    @task
    def look(self):
        pass
"""


@pytest.mark.parametrize("event", ["init", "test_start"])
def test_a_host_of_others_that_a_listener_asks_is_told_of_too(tmp_path: Path, event: str) -> None:
    told = journey(tmp_path, 1, LISTENER.format(event=event), most=3)
    with process(encode(told)) as load:
        *_, message = load.rest()
    assert isinstance(message, Broken)
    words = "http://models.example may be somebody else's: it gets 3 users at most, not 4"
    assert (message.exit_code, words in message.message) == (2, True), message.message
    assert "target.owned=true" in message.hint


def test_a_password_in_the_host_of_a_file_is_not_told(tmp_path: Path) -> None:
    theirs = THEIRS.replace("//", "//me:hunter2@")
    with process(encode(journey(tmp_path, 1, theirs, host="", most=3))) as load:
        (message,) = load.rest()
    assert isinstance(message, Broken)
    assert "http://models.example may be" in message.message
    assert "hunter2" not in message.message
    with known_server() as server:
        code = TAGGED.replace(
            "FastHttpUser):",
            f"""FastHttpUser):
    host = "http://me:hunter2@127.0.0.1:{server.port}\"""",
        )
        code = code.partition("class Other")[0]
        found = run_process(journey(tmp_path, server.port, code, host=""), nothing)
    assert found.started.target == f"http://127.0.0.1:{server.port}"
