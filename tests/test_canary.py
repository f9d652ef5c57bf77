"""What a canary is given up for, and how a shadow's outputs are compared."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from loadbench.engine.canary import FAILED, LEAST, Canary, verdict
from loadbench.judge.answers import Difference, compared
from loadbench.model import Tensor
from loadbench.units import MS
from tests.served import request_json, rows, serving, settings
from tests.test_versions import counts, eventually, index


def drawn(seed: int, number: int, scale: float = 1.0, failed: float = 0.0) -> list[int]:
    """Latencies around 5 ms with a long tail, a share of them failed."""
    random = np.random.default_rng(seed)
    found = (random.lognormal(1.6, 0.5, number) * scale * MS).astype(np.int64)
    found[random.random(number) < failed] = FAILED
    return [int(ns) for ns in found]


def test_a_canary_like_the_old_version_is_kept() -> None:
    """Looked at every hundred requests, over many runs: chance alone rolls nothing back."""
    for seed in range(40):
        old, new = drawn(seed, 5000), drawn(1000 + seed, 1000)
        for seen in range(100, 1001, 100):
            assert verdict(old[: 5 * seen], new[:seen]) == ""


@pytest.mark.parametrize("failed", [0.0, 0.3])
def test_failures_that_both_versions_have_are_not_the_new_ones_fault(failed: float) -> None:
    assert verdict(drawn(1, 2000, failed=failed), drawn(2, 500, failed=failed)) == ""


def test_a_canary_that_fails_more_is_given_up() -> None:
    why = verdict(drawn(1, 2000, failed=0.01), drawn(2, 200, failed=0.15))
    assert "of 200 requests failed" in why
    assert "old version's 1" in why or "old version's 0." in why


def test_a_slow_canary_is_given_up_and_a_slower_one_within_reason_is_not() -> None:
    old = drawn(1, 2000)
    assert "P99" in verdict(old, drawn(2, 300, scale=5))
    assert verdict(old, drawn(2, 300, scale=1.2)) == ""


def test_nothing_is_said_of_a_few_requests() -> None:
    bad = [FAILED] * (LEAST - 1)
    assert verdict(drawn(1, 2000), bad) == ""
    assert verdict(drawn(1, LEAST - 1), [FAILED] * 500) == ""
    assert verdict(drawn(1, 2000), [FAILED] * LEAST) != ""


def test_a_canary_whose_clients_all_give_up_is_rolled_back() -> None:
    slow = json.dumps({"parameters": {"fake.a": {"string_value": "150 ms"}}})
    body = json.dumps(request_json(rows(1))).encode()
    head = f"POST /v2/models/fake/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving("fake", *settings("fake.a=0 ms", "max_batch=2")) as engine, ExitStack() as stack:
        asked = {"parameters": {"version": "2", "config": slow, "canary": 0.5}}
        assert engine.call("/v2/repository/models/fake/load", asked).status == 200
        clients = [stack.enter_context(engine.connect()) for _ in range(180)]
        for client in clients:
            client.sendall(head.encode() + body)
        eventually(lambda: counts(engine, "fake")["1"] >= LEAST)
        assert counts(engine, "fake")["2"] < LEAST
        stack.close()
        eventually(lambda: "requests failed" in index(engine, "fake")["2"][1])


class Version:
    """Answers at once, `took` later."""

    def infer(self, exchange: Any, data: bytes, start: int) -> None: ...
    def settle(self, exchange: Any, result: Any) -> bool:
        return True


def tried(share: float, requests: int, took: Callable[[int, bool], int]) -> str:
    """The verdict after so many requests, a millisecond apart; `took` says how long each lasts
    with the old version, or the new one."""
    now = [0]
    old, new = Version(), Version()
    canary = Canary(cast(Any, old), cast(Any, new), share, 1, lambda: now[0])
    for number in range(requests):
        exchange: Any = SimpleNamespace(endpoint=None, taken=True)
        now[0] = number * MS
        canary.infer(exchange, b"", 0)
        now[0] += took(number, exchange.endpoint is canary.new)
        exchange.endpoint.settle(exchange, None)
    return canary.verdict()


def test_a_spell_that_was_bad_for_both_versions_is_nobodys_fault() -> None:
    assert tried(0.1, 30_000, lambda number, _: 50 if number < 1000 else 5) == ""
    assert "P99" in tried(0.1, 30_000, lambda _, new: 50 if new else 5)


@pytest.mark.parametrize("share", [0.0, 0.002, 1.0])
def test_however_small_its_share_a_canary_is_judged(share: float) -> None:
    why = tried(share, 40_000, lambda _, new: 50 if new else 5)
    assert ("P99" in why) == (0 < share < 1)


OUTPUTS = (Tensor("y", "FP32", (3,)),)


def compare(a: list[list[float]], b: list[list[float]]) -> Difference:
    one, other = ({"y": np.array(rows, np.float32)} for rows in (a, b))
    return compared(one, other, OUTPUTS, batched=True)


def test_differences_are_the_largest_and_the_changed_rows_are_counted() -> None:
    found = compare([[1, 2, 4], [8, 1, 0]], [[1, 2, 3], [1, 8, 0]])
    assert found == Difference(rows=2, changed=1, absolute=7.0, relative=7.0 / 8)
    assert compare([[1, 2, 4]], [[1, 2, 4]]) == Difference(1, 0, 0.0, 0.0)
    assert compare([[0, 0, 0]], [[0, 0, 0]]) == Difference(1, 0, 0.0, 0.0)


def test_what_cannot_be_compared_is_infinitely_different() -> None:
    nan, inf = float("nan"), float("inf")
    assert compare([[1, nan, 4]], [[1, nan, 4]]).absolute == 0.0
    assert compare([[1, nan, 4]], [[1, 2, 4]]).absolute == inf
    assert compare([[1, inf, 4]], [[1, inf, 4]]).absolute == 0.0
    assert compare([[1, 2, 3]], [[1, 2]]) == Difference(1, 1, inf, inf)


def test_texts_and_models_without_a_batch_axis() -> None:
    texts = (Tensor("t", "BYTES", ()),)
    a, b = np.array([b"x", b"y"], object), np.array([b"x", b"z"], object)
    assert compared({"t": a}, {"t": b}, texts, batched=True).changed == 1
    whole = np.array([1.0, 5.0, 2.0], np.float32)
    other = np.array([6.0, 5.0, 2.0], np.float32)
    found = compared({"y": whole}, {"y": other}, OUTPUTS, batched=False)
    assert found == Difference(1, 1, 5.0, 1.0)
