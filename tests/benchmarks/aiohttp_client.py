"""A closed loop of aiohttp on uvloop: what a Python client reaches that is written with care.

    python aiohttp_client.py URL CONNECTIONS SECONDS BODY-FILE HEADERS-AS-JSON

It runs in an environment of its own, without loadbench. Each answer is read whole and its status
looked at; nothing else is asked of it. Prints how many failed.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import aiohttp
import uvloop


async def one(
    session: aiohttp.ClientSession, url: str, body: bytes, head: dict[str, str], end: float
) -> int:
    failed = 0
    while time.monotonic() < end:
        async with session.post(url, data=body, headers=head) as answer:
            await answer.read()
            failed += answer.status != 200
    return failed


async def main(url: str, connections: str, seconds: str, body: str, head: str) -> None:
    end = time.monotonic() + float(seconds)
    connector = aiohttp.TCPConnector(limit=int(connections))
    async with aiohttp.ClientSession(connector=connector) as session:
        fields = (session, url, Path(body).read_bytes(), json.loads(head), end)
        print(sum(await asyncio.gather(*(one(*fields) for _ in range(int(connections))))))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
