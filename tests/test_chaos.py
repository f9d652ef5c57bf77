"""Everything at once: bad rows, clients that leave, a card that runs out of memory now and then.

Ten thousand requests of one to four rows, each row with numbers of its own, over forty
connections. One in a hundred holds a row that is no number, one in twenty is left by its client,
and batches find less memory than they were planned with whenever another process takes some. Every
good request must get its own rows back, every bad one a refusal, and the engine's books must hold
each exactly once.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.served import Engine, request_binary, serving, settings, whole

REQUESTS = 10_000
CONNECTIONS = 40
WIDTH = 16
OPTIONS = settings(
    "device=sim", "sim.memory=1 GB", "sim.weights=100 MB", "sim.batch=0 B", "sim.row=20 MB",
    "sim.other=600 MB for 60 ms every 150 ms", "fake.a=1 ms", "fake.c=50 us", "max_batch=32",
    "watch.finite=true", "queue=100000",
)  # fmt: skip

Rows = NDArray[np.float32]


def test_every_request_is_accounted_for_and_no_good_one_fails() -> None:
    found: Counter[str] = Counter()
    with serving("fake", *OPTIONS) as engine:
        asyncio.run(everyone(engine.port, found))
        counted = settled(engine)
        ours = counted["loadbench"]
        assert engine.stop() == 0
    assert found["good"] + found["poison"] + found["left"] == REQUESTS, found
    assert found["poison"] > 50
    assert found["left"] > 300
    assert ours["lacks"] >= 2, "memory ran out"
    cancelled = ours["shed"].pop("cancelled", 0)
    assert ours["shed"] == {}
    success, failed = counted["inference_stats"]["success"]["count"], ours["failed"]
    assert success + failed + cancelled == REQUESTS
    assert found["good"] <= success <= found["good"] + found["left"]
    assert found["poison"] <= failed <= found["poison"] + found["left"]
    assert cancelled <= found["left"]


async def everyone(port: int, found: Counter[str]) -> None:
    numbers = iter(range(REQUESTS))
    await asyncio.gather(*(client(port, numbers, found, seed) for seed in range(CONNECTIONS)))


async def client(port: int, numbers: Iterator[int], found: Counter[str], seed: int) -> None:
    """One request after the other, over as few connections as its leaving allows."""
    draw = random.Random(seed)
    streams = await asyncio.open_connection("127.0.0.1", port)
    for number in numbers:
        x = rows_of(number, draw.randint(1, 4))
        if bad := draw.random() < 0.01:
            x[draw.randrange(len(x)), draw.randrange(WIDTH)] = np.nan
        body, headers = request_binary(x)
        streams[1].write(whole(body, int(headers["Inference_Header_Content_Length"])))
        if draw.random() < 0.05:
            await streams[1].drain()
            await asyncio.sleep(draw.choice((0, 0.001, 0.004)))
            streams[1].close()
            await streams[1].wait_closed()
            streams = await asyncio.open_connection("127.0.0.1", port)
            found["left"] += 1
            continue
        found[await answered(streams[0], x, bad)] += 1
    streams[1].close()


def rows_of(number: int, rows: int) -> Rows:
    """No two requests share a row; small whole numbers are exact in FP32."""
    first = number * 4 % (1 << 20)
    return np.arange(first, first + rows)[:, None].astype(np.float32) + np.zeros(WIDTH, np.float32)


async def answered(reader: asyncio.StreamReader, x: Rows, bad: bool) -> str:
    """Reads the answer; what it is worth."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
    body = await reader.readexactly(int(fields["content-length"]))
    status = int(head.split()[1])
    if bad:
        refused = status == 400 and "NaN" in json.loads(body)["error"]
        return "poison" if refused else f"poison got {status}"
    if status != 200:
        return f"good got {status}: {body[:100]!r}"
    tail = body[int(fields["inference-header-content-length"]) :]
    return "good" if tail == x.tobytes() else "good got another's rows"


def settled(engine: Engine) -> Any:
    """The statistics when everything has ended."""
    until = time.monotonic() + 20
    while engine.call("/health").json["open"]:
        assert time.monotonic() < until, "something never ended"
        time.sleep(0.05)
    return engine.stats()
