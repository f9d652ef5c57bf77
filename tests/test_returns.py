"""Holding a batch for clients who come back: what is expected, what it is weighed by, and what
becomes of closed, open and mixed loads on a virtual clock."""

import socket
import threading
from typing import NamedTuple

import pytest

from loadbench.engine.job import Job
from loadbench.engine.policy import NEVER, Rule, State, decide
from loadbench.engine.returns import (
    MEMORY,
    Client,
    Due,
    Hold,
    Prospect,
    Returns,
    horizon,
    weighed,
)
from loadbench.engine.scheduler import Scheduler, Terms
from loadbench.engine.service import ServiceTimes
from loadbench.units import MS
from tests.loops import MODELS, Machine, Think, World, both, exponential, steady, uniform
from tests.served import read_answer, request_binary, rows, serving, settings, whole

TABLE = tuple(2 * MS + rows * MS // 4 for rows in range(33))
SHAPES = ((1,),)


class Asked(NamedTuple):
    arrived: int
    rows: int
    deadline: int
    level: int = 1


class Asking(Job):
    """A row of a client's."""

    def __init__(self, client: Client) -> None:
        super().__init__({}, 1, SHAPES, lambda _: True)
        self._client = client

    @property
    def client(self) -> Client:
        return self._client


def prospect(per_ms: float = 1.0, share: float = 1.0) -> Prospect:
    return Prospect(TABLE, 32, per_ms / MS, share)


def test_a_hold_lasts_for_as_long_as_those_who_come_are_worth_it() -> None:
    soon = [Due(MS // 10 * number, 1.0) for number in range(1, 8)]
    hold = weighed(1, soon, prospect(), now=0)
    assert hold == Hold(soon[1].at, 8)  # for all seven, and a second look when a quarter are due
    late = Due(3 * MS, 1.0)
    assert weighed(1, [*soon, late], prospect(), now=0) == hold


def test_nobody_is_waited_for_longer_than_a_batch_saves() -> None:
    assert horizon(TABLE) == 2 * MS
    assert weighed(1, [Due(19 * MS // 10, 1.0)], prospect(0.1), now=0)
    assert weighed(1, [Due(21 * MS // 10, 1.0)], prospect(0.1), now=0) is None


def test_who_comes_no_denser_than_requests_do_anyway_is_not_waited_for() -> None:
    anyone = [Due(MS // 2 * number, 1.0) for number in range(1, 5)]
    assert weighed(1, anyone, prospect(2.0), now=0) is None
    assert weighed(1, anyone, prospect(0.5), now=0) is not None


def test_a_hold_must_not_cost_the_others_more_than_it_brings() -> None:
    burst = [Due(MS, 16.0)]
    assert weighed(16, burst, prospect(2.0), now=0) is not None
    assert weighed(16, burst, prospect(2.0, share=0.5), now=0) is None


def come_back(returns: Returns, clients: list[Client], after: int, times: int = 12) -> int:
    """So many rounds of answers to all and a request of each at once; the last moment."""
    now = 0
    for _ in range(times):
        returns.answered(clients, now, TABLE)
        now += after
        for client in clients:
            returns.arrived(client, 1, SHAPES, now)
        returns.started(now)
        now += TABLE[len(clients)]
    return now


def test_who_was_back_soon_is_expected_and_a_lone_client_waits_for_nobody() -> None:
    returns, clients = Returns(), [Client() for _ in range(4)]
    now = come_back(returns, clients, MS // 5)
    returns.answered(clients, now, TABLE)
    came = now + MS // 5
    returns.arrived(clients[0], 1, SHAPES, came)
    hold = returns.hold(1, SHAPES, 32, came)
    assert hold is not None
    assert hold.rows == 3  # each of the others comes in time by 0.75
    assert hold.until <= now + MS // 5 + MS // 10
    assert returns.hold(1, ((2,),), 32, came) is None  # others' shapes
    assert returns.hold(40, SHAPES, 32, came) is None  # requests of several rows fill a batch
    for client in clients[1:]:
        returns.arrived(client, 1, SHAPES, came)
    assert returns.hold(4, SHAPES, 32, came) is None  # all are here
    lone = Returns()
    assert lone.hold(1, SHAPES, 32, come_back(lone, [Client()], MS // 5)) is None


def test_the_more_do_not_come_the_less_the_others_are_expected() -> None:
    returns, clients = Returns(), [Client() for _ in range(16)]
    now = 0
    for _ in range(12):
        returns.answered(clients, now, TABLE)
        for number, client in enumerate(clients):
            returns.arrived(client, 1, SHAPES, now + (number + 1) * MS // 10)
        now += 10 * MS
    returns.answered(clients, now, TABLE)
    at = now + 12 * MS // 10
    silent = sum(due.rows for due in returns.expected(SHAPES, at))
    for client in clients[:11]:
        returns.arrived(client, 1, SHAPES, at)
    assert silent < 0.4 * sum(due.rows for due in returns.expected(SHAPES, at))


def test_who_has_become_slow_is_not_expected_any_more() -> None:
    returns, clients = Returns(), [Client(), Client()]
    come_back(returns, clients, MS // 5)
    now = come_back(returns, clients, 30 * MS)
    returns.answered(clients, now, TABLE)
    assert not returns.expected(SHAPES, now)


def test_a_batch_that_is_told_after_a_later_one_takes_back_no_time() -> None:
    returns, clients = Returns(), [Client(), Client()]
    told = [(9 * MS, 0), (5 * MS, 0), (11 * MS, 1)]
    found = []
    for ended, number in told:
        returns.answered([clients[number]], ended, TABLE)
        found.append(returns._ns)
    assert found[:2] == [0, 0]
    assert found[2] == pytest.approx(2 * MS * MEMORY)  # since the later one
    service = ServiceTimes(32)
    scheduler = Scheduler(Terms(Rule("deadline", 32), 100, 1 << 20, None), service)
    for ended, _ in told[:2]:
        scheduler.answered([], ended, service)
    assert scheduler.last_batch == 9 * MS


def test_while_a_full_batch_waits_nobody_is_awaited_and_what_is_known_is_kept() -> None:
    service = ServiceTimes(4)
    service.observe(4, 10 * MS)
    scheduler = Scheduler(Terms(Rule("deadline", 4, hold=True), 100, 1 << 20, None), service)
    clients = [Client() for _ in range(4)]
    now = 0

    def come(at: int) -> list[Job]:
        jobs: list[Job] = [Asking(client) for client in clients]
        for job in jobs:
            job.arrived = at
            assert scheduler.admit(job, None, lambda: at) is None
        return jobs

    jobs = come(now)
    for _ in range(40):  # they are back 0.2 ms after each answer, and nobody else waits
        assert scheduler.take(now, now, 4).take == jobs
        now += 10 * MS
        scheduler.answered(jobs, now, service)
        now += MS // 5
        jobs = come(now)
    known = [client.usual for client in clients]
    assert all(0 < usual < MS for usual in known)
    come(now)  # more of theirs
    assert scheduler.take(now, now, 4).take == jobs
    now += 10 * MS
    scheduler.answered(jobs, now, service)  # a full batch waits
    assert scheduler._returns is not None
    assert not scheduler._returns.expected(SHAPES, now)
    assert not any(client.away for client in clients)
    assert scheduler.take(now, now, 4).reason == "full"
    now += 10 * MS
    scheduler.answered(jobs, now, service)  # none does
    assert [client.usual for client in clients] == known
    assert sum(due.rows for due in scheduler._returns.expected(SHAPES, now)) > 2


def test_many_who_wait_in_parts_that_cannot_share_a_batch_are_no_full_batch() -> None:
    service = ServiceTimes(4)
    service.observe(4, 10 * MS)
    scheduler = Scheduler(Terms(Rule("deadline", 4, hold=True), 100, 1 << 20, None), service)
    for shapes in (SHAPES, ((2,),)):
        for _ in range(3):
            job = Asking(Client())
            job.shapes = shapes
            assert scheduler.admit(job, None, lambda: 0) is None
    ran = Asking(Client())
    scheduler.answered([ran], 10 * MS, service)  # six rows wait, but no four together
    assert ran.client.away == 1


def test_the_rule_holds_only_until_a_head_would_be_late_and_never_while_draining() -> None:
    rule = Rule("deadline", 32)
    hold = Hold(9 * MS, 8)

    def asked(deadline: int, draining: bool = False) -> tuple[int, int | None, str]:
        state = State(0, TABLE, draining, returning=hold)
        decision = decide(rule, [Asked(0, 1, deadline)], state, now=MS)
        return len(decision.take), decision.until, decision.reason

    assert asked(NEVER) == (0, 9 * MS, "hold")
    assert asked(10 * MS) == (0, 6 * MS, "hold")  # a batch of 8 takes 4 ms
    assert asked(5 * MS)[0] == 1
    assert asked(NEVER, draining=True) == (1, None, "drain")


@pytest.mark.parametrize(("number", "least"), [(2, 1.4), (8, 1.25), (16, 1.1), (32, 1.01)])
def test_closed_loops_get_faster_and_stay_in_whole_batches(number: int, least: float) -> None:
    machine = Machine(MODELS["mlp"], shared=number == 8)
    off, on = both(machine, lambda w: w.closed(number, steady(0.1)), ["closed"], 0.8)["closed"]
    assert on.rate > least * off.rate
    assert on.size > 0.7 * number  # half batches that take turns are 0.5
    assert on.held > 0.5


@pytest.mark.parametrize("number", [1, 64])
def test_a_lone_client_and_full_batches_are_left_alone(number: int) -> None:
    machine = Machine(MODELS["mlp"])
    off, on = both(machine, lambda w: w.closed(number, steady(0.1)), ["closed"], 0.6)["closed"]
    assert on.mean_ms == pytest.approx(off.mean_ms, rel=0.01)
    assert on.held < 0.02


@pytest.mark.parametrize("model", ["mlp", "gpu"])
def test_open_arrivals_lose_nothing(model: str) -> None:
    per_s = 0.3 * 32_000 / MODELS[model](32)
    off, on = both(Machine(MODELS[model]), lambda w: w.opened(per_s), ["open"], 2.0)["open"]
    assert on.mean_ms < 1.02 * off.mean_ms


def test_in_a_mix_the_open_arrivals_do_not_pay_for_the_others() -> None:
    def clients(world: World) -> None:
        world.closed(16, steady(0.2))
        world.opened(900)

    found = both(Machine(MODELS["mlp"]), clients, ["closed", "open"], 1.5)
    means = [
        sum(found[kind][which].rate * found[kind][which].mean_ms for kind in found)
        / sum(found[kind][which].rate for kind in found)
        for which in (0, 1)
    ]
    assert means[1] < 1.03 * means[0]


@pytest.mark.parametrize("think", [uniform(0.1, 1), exponential(5)])
def test_irregular_clients_lose_nothing_to_speak_of(think: Think) -> None:
    machine = Machine(MODELS["quick mlp"])
    off, on = both(machine, lambda w: w.closed(8, think), ["closed"], 1.0)["closed"]
    assert on.rate > 0.97 * off.rate


@pytest.mark.parametrize("hold", [True, False])
def test_the_engine_holds_for_connections_that_come_back(hold: bool) -> None:
    """Four connections, 50 ms a batch: held together, or else in turns."""
    body, header = request_binary(rows(1))
    request = whole(body, int(header["Inference_Header_Content_Length"]))

    def client(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            for _ in range(30):
                connection.sendall(request)
                assert read_answer(stream).status == 200

    setting = f"hold={'true' if hold else 'false'}"
    with serving("fake", *settings('fake.a="50 ms"', setting)) as engine:
        threads = [threading.Thread(target=client, args=(engine.connect(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        closed = engine.stats()["loadbench"]["closed"]
    batches = sum(sum(sizes.values()) for sizes in closed.values())
    assert ("hold" in closed) == hold
    if hold:
        assert batches < 45  # 30 of four each would be the least; in turns there are 60
