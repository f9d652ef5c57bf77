"""A batcher's settings changed while it serves: every request is answered once, whatever is asked
for when; what cannot be had is refused, and nothing has changed then."""

import asyncio
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from loadbench.engine.batcher import Terms
from loadbench.engine.job import Served
from loadbench.engine.rule import Rule
from loadbench.engine.statistics import Account
from loadbench.engine.tensors import Refused
from loadbench.units import MS, SECOND
from tests.batching import Asked, Gate, run, started
from tests.served import Engine, request_json, rows, serving, settings
from tests.test_serve import INFER

BATCHING = "/v2/repository/models/fake/batching"
CONFIG = "/v2/models/fake/config"
REQUESTS, CHANGES = 5000, 50


def terms(rule: Rule, slo: int | None = None, waiting: int = 100_000) -> Terms:
    return Terms(rule, waiting, 1 << 40, slo)


def some_terms(random: random.Random) -> Terms:
    """Any of the policies, with what belongs to it."""
    policy: Any = random.choice(("deadline", "efficient", "failfast", "fixed", "adaptive", "none"))
    most = random.choice((1, 2, 5, 16))
    wait = random.choice((0, 2 * MS)) if policy == "fixed" else 0
    hold = policy in ("deadline", "failfast") and random.random() < 0.5
    slo = random.choice((None, 20 * MS, SECOND))
    return terms(
        Rule(policy, most, wait, hold=hold), slo or (SECOND if policy == "efficient" else None)
    )


@pytest.mark.parametrize("instances", [1, 2])
def test_every_request_is_answered_once_however_often_the_settings_change(instances: int) -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        chance = random.Random(5)
        batcher, given, refused = asked.batcher, 0, 0
        cancelled = []
        for turn in range(CHANGES):
            for value in range(given, given + REQUESTS // CHANGES):
                many = chance.choice((1, 1, 1, 3, 16))
                timeout = chance.choice((None, None, 5 * MS, SECOND))
                try:
                    job = asked.ask(value + 1.0, many, chance.choice((2, 3)), timeout)
                except Refused:  # `failfast` says so at once
                    refused += 1
                    continue
                if chance.random() < 0.02:
                    batcher.cancel(job)
                    if job.cancelled:
                        cancelled.append(value + 1.0)
                if value % 10 == turn % 10:
                    await asyncio.sleep(0)
            given += REQUESTS // CHANGES
            batcher.change(some_terms(chance), turn)
            assert batcher.settings.since_ns == turn
            await asyncio.sleep(0.002)
        batcher.change(terms(Rule("deadline", 16)), CHANGES)
        await asked.until(REQUESTS - refused - len(cancelled))
        await asyncio.sleep(0)
        assert not set(cancelled) & asked.answers.keys()
        assert (batcher.open, batcher.waiting) == (0, 0)
        served = [found for found in asked.answers.values() if isinstance(found, Served)]
        assert len(served) > REQUESTS // 10
        for own, found in asked.answers.items():
            if isinstance(found, Served):
                assert (found.outputs["y"] == 2 * own).all()
        assert account.success == len(served)
        assert account.success + sum(account.shed.values()) == REQUESTS
        assert account.shed["cancelled"] == len(cancelled)

    run(test, Rule("deadline", 16), Gate(), waiting=100_000, instances=instances)


def test_no_batch_is_larger_than_asked_for_once_it_is_asked_for() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        for value in range(30):
            asked.ask(value + 1.0)
        await started(gate, 1)
        asked.batcher.change(terms(Rule("deadline", 4)), 1)
        gate.open.set()
        await asked.until(30)
        assert max(shape[0] for shape in gate.ran[1:]) == 4
        asked.batcher.change(terms(Rule("deadline", 8)), 2)
        gate.open.clear()
        for value in range(30, 60):
            asked.ask(value + 1.0)
        gate.open.set()
        await asked.until(60)
        assert max(shape[0] for shape in gate.ran) == 8

    run(test, Rule("deadline", 8), Gate())


def test_who_waits_is_served_by_the_new_settings() -> None:
    """Held back by `fixed` for a minute; under `deadline` at once, an idle instance is there."""

    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        asked.ask(1.0)
        await asyncio.sleep(0.05)
        assert not asked.answers
        asked.batcher.change(terms(Rule("deadline", 8)), 1)
        await asked.until(1)
        asked.check(1.0)

    run(test, Rule("fixed", 8, 60 * SECOND), Gate())


def test_a_shorter_slo_gives_up_who_can_no_longer_be_in_time() -> None:
    async def test(asked: Asked, gate: Gate, account: Account) -> None:
        gate.open.clear()
        asked.ask(1.0)
        await started(gate, 1)
        asked.ask(2.0)
        asked.ask(3.0, timeout=60 * SECOND)  # its own limit wins
        asked.batcher.change(terms(Rule("deadline", 8), MS), 1)
        await asyncio.sleep(0.02)
        gate.open.set()
        await asked.until(3)
        assert isinstance(asked.answers[2.0], Refused)
        asked.check(3.0)

    run(test, Rule("deadline", 8), Gate(), slo=60 * SECOND)


# ---- over the wire


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    options = settings("max_batch=16", 'slo="200 ms"', 'fake={ a = "2 ms" }')
    with serving("fake", *options) as found:
        yield found


def asked_for(engine: Engine, **wanted: Any) -> dict[str, Any]:
    answer = engine.call(BATCHING, wanted)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


def test_a_change_shows_wherever_the_settings_do(engine: Engine) -> None:
    found = asked_for(engine, max_batch="8", policy="fixed", slo="50ms", max_wait="1ms")
    assert found["before"]["max_batch"] == 16
    after = {"max_batch": 8, "policy": "fixed", "slo_ns": 50 * MS, "max_wait_ns": MS}
    assert after.items() <= found["after"].items()
    assert engine.call(BATCHING).json["settings"] == found["after"]
    ours = engine.stats()["loadbench"]
    assert (ours["max_batch"], ours["policy"], ours["settings"]) == (8, "fixed", found["after"])
    config = engine.call(CONFIG).json
    assert config["max_batch_size"] == 8
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 1000
    assert config["parameters"]["slo"] == {"string_value": "50 ms"}
    large = engine.call(INFER, request_json(rows(16)))  # now in two batches
    assert large.json["outputs"][0]["shape"][0] == 16
    assert max(map(int, engine.stats()["loadbench"]["sizes"])) == 8
    back = asked_for(engine, max_batch=16, policy="deadline", slo="none", hold=False)
    assert back["after"].get("slo_ns") is None
    assert asked_for(engine, hold="true", slo="200 ms")["after"]["hold"] is True


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "nothing is asked for"),
        ({"max_batch": 17}, "up to 16 were warmed up; start the engine with engine.max_batch = 17"),
        ({"max_batch": 0}, "max_batch"),
        ({"max_batch": True}, "number of rows"),
        ({"max_batch": [3]}, "no number and no text"),
        ({"max_batch": "many"}, "max_batch"),
        ({"policy": "fastest"}, "policy"),
        ({"policy": "efficient", "slo": "none"}, "set slo"),
        ({"slo": "0 ms"}, "no time for anything"),
        ({"slo": "soon"}, "soon"),
        ({"max_wait": "1 ms"}, 'only under "fixed"'),
        ({"policy": "none", "hold": True}, 'only under "deadline" and "failfast"'),
        ({"instances": 2}, "'instances' cannot be changed while the engine serves"),
        ({"max_batch": 16}, "nothing would change: max_batch is 16"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_and_changes_nothing(
    engine: Engine, wanted: dict[str, Any], message: str
) -> None:
    before = engine.call(BATCHING).json
    answer = engine.call(BATCHING, wanted)
    assert answer.status == 400
    assert message in answer.json["error"]
    assert engine.call(BATCHING).json == before


def test_only_this_machine_and_no_web_page_changes_settings(engine: Engine) -> None:
    page = engine.call(BATCHING, {"max_batch": 2}, Origin="http://example.org")
    assert page.status == 403
    assert engine.call("/v2/repository/models/none/batching", {"max_batch": 2}).status == 404
    assert engine.call(BATCHING, {"version": "9", "max_batch": 2}).status == 404


def test_what_was_warmed_up_for_single_rows_runs_no_larger_batches() -> None:
    with serving("fake", *settings("max_batch=1")) as engine:
        answer = engine.call(BATCHING, {"max_batch": 2})
        assert answer.status == 400
        assert "up to 1 were warmed up" in answer.json["error"]


def test_settings_change_under_load_over_the_wire(engine: Engine) -> None:
    """What clients see: an answer to each request, its own."""
    stop = threading.Event()
    wrong: list[str] = []
    done = [0] * 6

    def client(number: int) -> None:
        value = 0
        while not stop.is_set():
            value += 1
            x = rows(2, number * 1000 + value)
            answer = engine.call(INFER, request_json(x))
            if answer.status != 200 or answer.json["outputs"][0]["shape"][0] != 2:
                wrong.append(answer.body.decode())
            done[number] += 1

    asked_for(engine, slo="none")
    clients = [threading.Thread(target=client, args=(number,)) for number in range(6)]
    for each in clients:
        each.start()
    chance = random.Random(3)
    for turn in range(50):
        wanted = {
            "max_batch": 1 + turn % 16,
            "policy": chance.choice(("deadline", "fixed", "none")),
        }
        asked_for(engine, **wanted)
    stop.set()
    for each in clients:
        each.join()
    assert not wrong
    assert min(done) > 0
    asked_for(engine, max_batch=16, policy="deadline", slo="200 ms")
