"""What of the policies is seen from outside: priorities, refusals at once, bodies on their way."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from loadbench.engine.crowd import Crowd
from loadbench.engine.http import Connection, Limits
from tests.served import request_json, rows, serving, settings
from tests.test_serve import INFER, busy, wait_for
from tests.test_serve_http import Nobody, Wire


class Told(Nobody):
    """Keeps what is announced."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def endpoint(self, path: bytes) -> "Told":
        return self

    def announce(self, number: int) -> None:
        self.told.append(number)


def told() -> tuple[Connection, Told]:
    handler, wire = Told(), Wire()
    found = Connection(handler, Limits(), Crowd())
    found.connection_made(wire)  # type: ignore[arg-type]
    return found, handler


HEAD = b"POST /v2/models/fake/infer HTTP/1.1\r\nContent-Length: 8\r\n\r\n"


def test_a_body_on_its_way_is_announced_once_until_it_is_here_or_will_not_come() -> None:
    found, handler = told()
    found.data_received(HEAD + b"12345678")
    assert handler.told == []
    found.data_received(HEAD[:20])
    assert handler.told == []
    found.data_received(HEAD[20:] + b"1")
    found.data_received(b"23")
    assert handler.told == [1]
    found.data_received(b"45678" + HEAD)
    assert handler.told == [1, -1, 1]
    found.connection_lost(None)
    assert handler.told == [1, -1, 1, -1]


def test_a_request_that_is_refused_half_way_is_not_awaited_any_more() -> None:
    found, handler = told()
    chunked = HEAD.replace(b"Content-Length: 8", b"Transfer-Encoding: chunked")
    found.data_received(chunked + b"5\r\n12345\r\n")
    assert handler.told == [1]
    found.data_received(b"nonsense\r\n")
    assert handler.told == [1, -1]
    found.data_received(HEAD)
    assert handler.told == [1, -1]


def test_what_is_read_without_a_model_is_not_announced() -> None:
    found, handler = told()
    found.data_received(HEAD.replace(b"POST", b"GET"))
    assert handler.told == []


def test_the_more_urgent_goes_first_and_a_level_may_be_full() -> None:
    options = settings(
        "fake.a=500 ms", "max_batch=1", "policy=fixed", "priorities=2", "default_priority=2",
        "level.2.requests=1",
    )  # fmt: skip
    with serving("fake", *options) as engine, ThreadPoolExecutor(8) as pool:
        done: list[str] = []

        def ask(name: str, **parameters: int) -> Any:
            answer = engine.call(INFER, request_json(rows(1), parameters=parameters))
            done.append(name)
            return answer

        first = pool.submit(ask, "first")
        wait_for(lambda: engine.stats()["loadbench"].get("waiting", 0) == 0 and busy(engine))
        usual = pool.submit(ask, "usual")
        wait_for(lambda: engine.stats()["loadbench"].get("waiting", 0) == 1)
        refused = engine.call(INFER, request_json(rows(1)))
        urgent = pool.submit(ask, "urgent", priority=1)
        assert [found.result().status for found in (first, usual, urgent)] == [200] * 3
        assert done == ["first", "urgent", "usual"]
        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json["error"] == (
            "queue full: 1 requests of priority 2 wait, as many as may"
        )
        wrong = engine.call(INFER, request_json(rows(1), parameters={"priority": -1}))
        assert (wrong.status, wrong.json["error"][:14]) == (400, "priority is -1")
        config = engine.call("/v2/models/fake/config").json["dynamic_batching"]
    assert config["priority_levels"] == config["default_priority_level"] == 2
    assert config["priority_queue_policy"]["2"]["max_queue_size"] == 1


def test_failfast_refuses_at_once_and_says_by_how_much_it_would_be_late() -> None:
    options = settings("fake.a=800 ms", "max_batch=1", "policy=failfast", "slo=1 s")
    with serving("fake", *options) as engine, ThreadPoolExecutor(2) as pool:
        first = pool.submit(engine.call, INFER, request_json(rows(1)))
        wait_for(lambda: busy(engine))
        refused = engine.call(INFER, request_json(rows(1)))
        assert not first.done()
        assert refused.status == 503
        assert "refused at once: it could only be answered" in refused.json["error"]
        assert int(refused.headers["retry-after"]) >= 1
        assert first.result().status == 200
        assert engine.stats()["loadbench"]["shed"] == {"infeasible": 1}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("policy=efficient", "set slo"),
        ("slo=0 ms", "slo = 0 leaves no time"),
        ("policy=adaptive", ""),
        ("preferred=[64]", "preferred has 64"),
        ("level.2.timeout=5 ms", "raise priorities"),
        ("default_priority=3", "default_priority is 3"),
        ("queue_policy.action=drop", "engine.queue_policy.action"),
    ],
)
def test_settings_that_do_not_agree_name_their_key(setting: str, message: str) -> None:
    from loadbench.cli.serve import engine_settings
    from loadbench.errors import SpecError

    if not message:
        assert engine_settings((f"engine.{setting}",), {}).policy == "adaptive"
        return
    with pytest.raises(SpecError, match=message):
        engine_settings((f"engine.{setting}",), {})
