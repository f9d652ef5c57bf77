"""The engine's process: load the models, warm them up, listen, serve, and end without leftovers.

SIGTERM and SIGINT: readiness says no, what is queued is finished for up to `DRAIN_S`, exit 0. With
`follow_stdin` the process ends at once when stdin closes, whatever it is doing, because whoever
started it is gone.
"""

import asyncio
import gc
import ipaddress
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import uvloop

from loadbench import priority
from loadbench.engine.arrivals import ArrivalLog
from loadbench.engine.crowd import Crowd
from loadbench.engine.endpoint import Endpoint
from loadbench.engine.faults import start_stalls
from loadbench.engine.heap import keep_freed
from loadbench.engine.http import Connection, Limits
from loadbench.engine.orders import Offer
from loadbench.engine.repository import Repository
from loadbench.engine.serving import Service
from loadbench.engine.shared import Regions
from loadbench.errors import RunError, SpecError
from loadbench.model import encode
from loadbench.spec import EngineSpec
from loadbench.units import hostport

if TYPE_CHECKING:
    from loadbench.engine.rpc.server import Rpc

BACKLOG = 4096
DRAIN_S = 5.0
LAST_S = 0.05  # for the last answers to leave
SWITCH_S = 0.0005  # how long a thread may keep the interpreter while another one wants it


class Options(NamedTuple):
    """What `loadbench serve` was asked for."""

    models: tuple[str, ...]  # names of the zoo, files, folders; NAME=WHAT gives one a name
    host: str
    port: int
    settings: EngineSpec
    trust: bool = False
    follow_stdin: bool = False
    arrivals: Path | None = None
    shared_memory: str | None = None  # what the keys of regions begin with; None: off
    grpc_port: int | None = None  # None: off
    allow_loading: bool = False  # also where other machines reach the engine


def serve(options: Options) -> None:
    """Serves until a signal comes. Raises SpecError and RunError before it is ready."""
    listener = listen(options.host, options.port)
    if options.shared_memory is not None and not is_loopback(listener):
        raise SpecError(
            f"shared memory is for this machine's clients, and others reach {options.host} too",
            "listen on 127.0.0.1, or leave --shared-memory out",
        )
    if options.grpc_port:  # gRPC opens its own; whether it can is better known before models load
        listen(options.host, options.grpc_port, "--grpc-port").close()
    if options.follow_stdin:
        threading.Thread(target=_follow_stdin, daemon=True).start()
    sys.setswitchinterval(SWITCH_S)
    priority.prompt()
    keep_freed()
    _allow_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        running = _assemble(options, listener, runner.get_loop())
        clean = runner.run(_serve(options, running, listener))
    if options.follow_stdin:  # whoever started it can ask it no more
        for note in running.repository.remarks():
            print(f"note {encode(note).decode()}", flush=True)
    if not clean:  # a batch that never ends must not keep the process
        sys.stdout.flush()
        os._exit(0)


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """A listening socket. Raises RunError if the address is taken or not ours."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        raise RunError(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            f"choose another one with {option} (0: any that is free)",
        ) from error
    if not is_loopback(listener):
        print(
            f"warning: {host} can be reached from other machines, and anyone there may use it: "
            "there is no password and no encryption",
            file=sys.stderr,
        )
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


class _Running(NamedTuple):
    """What belongs together while the engine serves."""

    service: Service
    repository: Repository
    crowd: Crowd
    arrivals: ArrivalLog | None
    start_ns: int


async def _serve(options: Options, running: _Running, listener: socket.socket) -> bool:
    """Serves until a signal comes; True if every thread came to its end."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(running.service, Limits(), running.crowd),
        sock=listener,
        backlog=BACKLOG,
    )
    gc.collect()
    gc.freeze()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    repository = running.repository
    repository.start()
    if any(endpoint.model.platform == "fake" for endpoint in repository.endpoints()):
        start_stalls(options.settings.fake, running.start_ns, 0 if options.follow_stdin else -1)
    for note in dict.fromkeys(n for found in repository.endpoints() for n in found.model.notes):
        print(f"note: {note.text}", file=sys.stderr)
    rpc = await _start_rpc(options, running)
    where = hostport(options.host, listener.getsockname()[1])
    print(f"ready http://{where} {' '.join(repository.models)}", flush=True)
    surveying: asyncio.Future[None] | None = None
    while not stop.is_set():
        await _wait(stop, 1.0)
        _tidy(running)
        if not surveying or surveying.done():
            surveying = loop.run_in_executor(None, _survey, [*repository.endpoints()])
    return await _drain(running, server, rpc)


def _assemble(
    options: Options, listener: socket.socket, loop: asyncio.AbstractEventLoop
) -> _Running:
    """Opens and warms the models up and puts the engine's parts together."""
    arrivals = ArrivalLog(options.arrivals, time.monotonic_ns()) if options.arrivals else None
    regions = None if options.shared_memory is None else Regions(options.shared_memory)
    offer = Offer(options.models, options.settings, options.trust, arrivals, regions)
    repository = Repository(offer, loop)
    repository.open_all()
    may_load = options.allow_loading or is_loopback(listener)
    service = Service(repository, regions, may_load=may_load)
    return _Running(service, repository, Crowd(), arrivals, time.monotonic_ns())


def _survey(endpoints: Sequence[Endpoint]) -> None:
    """Reads the devices, which may take a while."""
    for endpoint in endpoints:
        endpoint.batcher.survey()


def _tidy(running: _Running) -> None:
    """What is to be done every second."""
    running.crowd.sweep(time.monotonic())
    running.repository.tick()
    if running.arrivals is not None:
        running.arrivals.flush()


async def _start_rpc(options: Options, running: _Running) -> "Rpc | None":
    """gRPC's front, if it was asked for."""
    if options.grpc_port is None:
        return None
    from loadbench.engine.rpc.server import start

    where = hostport(options.host, options.grpc_port)
    rpc = await start(where, running.service, Limits(), running.crowd.most)
    print(f"gRPC on {hostport(options.host, rpc.port)}", file=sys.stderr, flush=True)
    return rpc


async def _drain(running: _Running, server: asyncio.Server, rpc: "Rpc | None") -> bool:
    """Finishes what was taken in, refuses what is too late, and ends; True if all threads did."""
    repository = running.repository
    repository.drain()
    until = time.monotonic() + DRAIN_S
    while repository.open and time.monotonic() < until:
        await asyncio.sleep(0.01)
    repository.refuse_waiting()
    if rpc is not None:
        await rpc.stop(LAST_S)
    server.close()
    for connection in running.crowd:
        connection.close_idle()
    await asyncio.sleep(LAST_S)
    if running.arrivals is not None:
        running.arrivals.close()
    clean = repository.stop(timeout_s=0.5)
    await asyncio.sleep(0)  # what came up at the end is put into the books
    return clean


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Waits for the event, but not longer."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


def _allow_files() -> None:
    """As many connections as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _follow_stdin() -> None:
    """Ends the process when stdin does."""
    while os.read(0, 65_536):
        pass
    os._exit(0)
