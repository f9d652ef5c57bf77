"""What a request counts for in the queue: what it takes in memory, which its bytes hardly tell."""

import asyncio
import json
from typing import Any

import numpy as np

from loadbench.engine.exchange import Exchange
from loadbench.engine.orders import Offer
from loadbench.engine.repository import Repository
from loadbench.engine.shared import Regions
from loadbench.spec import EngineSpec
from tests.served import request_binary, request_json
from tests.test_serve_http import Nobody
from tests.test_shared_memory import OWN, asked, key, memory, place


class Quiet(Nobody):
    """A connection that sends nothing."""

    client = None

    def flush(self) -> None: ...
    def send(self, exchange: Any, data: bytes) -> None: ...


WIDTH = 4096
ROW = WIDTH * 4


def counted(body: bytes, length: int | None = None) -> int:
    """The bytes that a request to the fake model counts for."""
    with memory("in", ROW), asyncio.Runner() as runner:
        regions = Regions(f"/{OWN}")
        regions.register("in", key("in"), 0, ROW)
        settings = EngineSpec.model_validate({"fake": {"width": WIDTH}})
        repository = Repository(Offer(("fake",), settings, False, None, regions), runner.get_loop())
        repository.open_all()
        (endpoint,) = repository.endpoints()
        exchange = Exchange(Quiet())
        exchange.header_length = length
        endpoint.infer(exchange, body, 0)
        regions.unregister("")
        return exchange.size_bytes


def test_a_request_counts_for_its_bytes_or_for_what_they_become() -> None:
    short = json.dumps(request_json(np.ones((2, WIDTH), int)), separators=(",", ":")).encode()
    assert len(short) < counted(short) == 2 * ROW
    long = json.dumps(request_json(np.full((1, WIDTH), 1e6 / 3, np.float32))).encode()
    assert counted(long) == len(long) > ROW
    binary, headers = request_binary(np.ones((2, WIDTH)))
    assert counted(binary, int(headers["Inference_Header_Content_Length"])) == len(binary)


def test_what_is_in_shared_memory_counts_too() -> None:
    body = asked(1, place("in", ROW), None)
    body["inputs"][0]["shape"] = [1, WIDTH]
    assert counted(json.dumps(body).encode()) == ROW
