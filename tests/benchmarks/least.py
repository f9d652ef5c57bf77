"""The least that a server in Python can cost: what `engine.py` holds the engine's own cost against.

    python tests/benchmarks/least.py '["mlp", [], [], true]'    # as the bare model of engine.py

uvloop, one thread for the model, batches of up to 32 of what waits when the one before has ended;
no parser (the last bytes that come at once are the row), no deadlines, no books, the same header
for every answer. Whatever any server in Python does for a request comes on top.
"""

import asyncio
import json
import sys
import threading
from queue import SimpleQueue

import numpy as np
import uvloop

from loadbench.engine.heap import keep_freed
from loadbench.engine.models import open_model
from loadbench.engine.server import SWITCH_S
from loadbench.spec import EngineSpec

MOST = 32
Asked = tuple[asyncio.Transport, bytes]


class Least:
    def __init__(self, loop: asyncio.AbstractEventLoop, given: list[object]) -> None:
        name, inputs, outputs, packed = given
        settings = EngineSpec(
            threads=1, precision="fp32", packed=packed, inputs=tuple(inputs), outputs=tuple(outputs)
        )
        self.model = open_model(name, settings, trust=bool(inputs))
        self.shape = [-1, *(size if size > 0 else 64 for size in self.model.inputs[0].shape)]
        self.size = 4 * -int(np.prod(self.shape))
        self.loop, self.inbox = loop, SimpleQueue()
        self.waiting: list[Asked] = []
        self.busy = False
        for rows in (1, MOST):
            self.run([(None, bytes(self.size))] * rows)
        threading.Thread(target=self.work, daemon=True).start()

    def run(self, jobs: list[Asked]) -> np.ndarray:
        memory = bytearray().join([data[-self.size :] for _, data in jobs])
        rows = np.frombuffer(memory, np.float32).reshape(self.shape)
        return self.model.run({self.model.inputs[0].name: rows})[self.model.outputs[0].name]

    def work(self) -> None:
        while True:
            jobs = self.inbox.get()
            while jobs:
                found, following = self.run(jobs), self.taken()
                self.loop.call_soon_threadsafe(self.answer, jobs, found, bool(following))
                jobs = following

    def taken(self) -> list[Asked]:
        jobs = self.waiting[:MOST]
        del self.waiting[: len(jobs)]
        return jobs

    def answer(self, jobs: list[Asked], found: np.ndarray, busy: bool) -> None:
        raw, size = found.tobytes(), found[0].nbytes
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
        for at, (transport, _) in enumerate(jobs):
            if not transport.is_closing():
                transport.write(head + raw[at * size : (at + 1) * size])
        self.busy = busy
        self.look()

    def look(self) -> None:
        if self.waiting and not self.busy:
            self.busy = True
            self.inbox.put(self.taken())


class Client(asyncio.Protocol):
    def __init__(self, server: Least) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.server.waiting.append((self.transport, data))
        if not self.server.busy:
            self.server.loop.call_soon(self.server.look)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    least = Least(loop, json.loads(sys.argv[1]))
    server = await loop.create_server(lambda: Client(least), "127.0.0.1", 0)
    print(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    sys.setswitchinterval(SWITCH_S)
    keep_freed()
    uvloop.run(serve())
