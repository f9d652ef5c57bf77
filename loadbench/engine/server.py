"""The engine's process: load the model, warm it up, listen, serve, and end without leftovers.

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
from pathlib import Path
from typing import NamedTuple

import uvloop

from loadbench.engine.arrivals import ArrivalLog
from loadbench.engine.backends import Model
from loadbench.engine.batcher import Batcher, Terms
from loadbench.engine.cache import ResponseCache
from loadbench.engine.endpoint import Endpoint
from loadbench.engine.faults import Faults, start_stalls
from loadbench.engine.http import Connection, Limits
from loadbench.engine.models import open_instances
from loadbench.engine.place import bucket_sizes, disputes, places
from loadbench.engine.policy import Rule
from loadbench.engine.protocol import Contract
from loadbench.engine.service import ServiceTimes
from loadbench.engine.serving import Service
from loadbench.engine.split import MOST_BATCHES
from loadbench.engine.statistics import Account
from loadbench.engine.warmup import warm_up
from loadbench.errors import RunError
from loadbench.spec import EngineSpec
from loadbench.units import hostport

BACKLOG = 4096
DRAIN_S = 5.0
QUEUE_ROWS = 2048  # where no SLO says how many can still be served in time
QUEUE_BATCHES = 64
QUEUE_MOST = 65_536
QUEUE_BYTES = 1 << 30
SWITCH_S = 0.0005  # how long a thread may keep the interpreter while another one wants it


class Options(NamedTuple):
    """What `loadbench serve` was asked for."""

    model: str
    host: str
    port: int
    settings: EngineSpec
    trust: bool = False
    follow_stdin: bool = False
    arrivals: Path | None = None


def serve(options: Options) -> None:
    """Serves until a signal comes. Raises SpecError and RunError before it is ready."""
    listener = listen(options.host, options.port)
    if options.follow_stdin:
        threading.Thread(target=_follow_stdin, daemon=True).start()
    settings = options.settings
    models = list(open_instances(options.model, settings, trust=options.trust))
    sys.setswitchinterval(SWITCH_S)
    clean = uvloop.run(_serve(options, models, listener))
    if not clean:  # a batch that never ends must not keep the process
        sys.stdout.flush()
        os._exit(0)


def listen(host: str, port: int) -> socket.socket:
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
            "choose another one with --port (0: any that is free)",
        ) from error
    if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        print(
            f"warning: {host} can be reached from other machines, and anyone there may use it: "
            "there is no password and no encryption",
            file=sys.stderr,
        )
    return listener


def batching(model: Model, settings: EngineSpec) -> Rule:
    """The batcher's rule: the settings, as far as the model goes along."""
    most = min(settings.max_batch, model.max_batch or settings.max_batch)
    if not model.batched:
        return Rule("none", 1)
    if sizes := bucket_sizes(model, settings):
        most = max((size for size in sizes if size <= most), default=sizes[0])
    return Rule(settings.policy, most, settings.max_wait, settings.preferred)


def queue_rows(settings: EngineSpec, rule: Rule, service: ServiceTimes) -> int:
    """How many rows may wait: what can be done within the SLO; without one, 64 full batches and
    at least 2048 rows, so that a short standstill does not turn requests away."""
    if settings.queue is not None:
        return settings.queue
    if settings.slo is None:
        return max(QUEUE_ROWS, QUEUE_BATCHES * rule.max_batch)
    per_batch = max(service.table[rule.max_batch], 1)
    within = settings.slo * rule.max_batch * settings.copies // per_batch
    return min(max(within, 2 * rule.max_batch), QUEUE_MOST)


def request_rows(settings: EngineSpec, rule: Rule, waiting: int) -> int:
    """How many rows one request may have: never more than may wait, or it could never be taken."""
    return min(settings.max_request_rows or MOST_BATCHES * rule.max_batch, waiting)


class _Running(NamedTuple):
    """What belongs together while the engine serves."""

    service: Service
    batcher: Batcher
    connections: set[Connection]
    arrivals: ArrivalLog | None
    start_ns: int


async def _serve(options: Options, models: list[Model], listener: socket.socket) -> bool:
    """Serves until a signal comes; True if every thread came to its end."""
    loop = asyncio.get_running_loop()
    running = _assemble(options, models)
    _allow_files()
    server = await loop.create_server(
        lambda: Connection(running.service, Limits(), running.connections),
        sock=listener,
        backlog=BACKLOG,
    )
    gc.collect()
    gc.freeze()
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    running.batcher.start()
    running.service.ready = True
    if models[0].platform == "fake":
        start_stalls(options.settings.fake, running.start_ns, 0 if options.follow_stdin else -1)
    for note in models[0].notes:
        print(f"note: {note.text}", file=sys.stderr)
    where = hostport(options.host, listener.getsockname()[1])
    print(f"ready http://{where} {models[0].name}", flush=True)
    surveying: asyncio.Future[None] | None = None
    while not stop.is_set():
        await _wait(stop, 1.0)
        _tidy(running)
        if not surveying or surveying.done():
            surveying = loop.run_in_executor(None, running.batcher.survey)
    return await _drain(running, server)


def _assemble(options: Options, models: list[Model]) -> _Running:
    """Warms the models up and puts the engine's parts together."""
    model, settings = models[0], options.settings
    rule = batching(model, settings)
    found = places(models, settings, rule.max_batch)
    disputed = disputes(found)
    warm = warm_up(models, found, rule.max_batch, free="max_batch" not in settings.model_fields_set)
    model.notes = (*model.notes, *disputed, *warm.notes)
    times = found[0].service
    start_ns = time.monotonic_ns()
    arrivals = ArrivalLog(options.arrivals, start_ns) if options.arrivals else None
    waiting = queue_rows(settings, rule, times)
    terms = Terms(rule, waiting, QUEUE_BYTES, settings.slo, found)
    batcher = Batcher(models, terms, times, Account(arrivals), asyncio.get_running_loop())
    faults = Faults.of(settings.fake) if model.platform == "fake" else None
    contract = Contract.of(model, rule.max_batch, request_rows(settings, rule, waiting))
    endpoint = Endpoint(model, contract, batcher, faults, warm.median_ns)
    batcher.failing = batcher.failing._replace(together=settings.on_error == "fail")
    if settings.cache:
        title = f"{model.name} {model.version}"
        names = list(contract.inputs)
        endpoint.cache = ResponseCache(settings.cache, title, names, batcher.account)
    return _Running(Service(endpoint), batcher, set(), arrivals, start_ns)


def _tidy(running: _Running) -> None:
    """What is to be done every second."""
    now = time.monotonic()
    for connection in tuple(running.connections):
        connection.sweep(now)
    if running.arrivals is not None:
        running.arrivals.flush()


async def _drain(running: _Running, server: asyncio.Server) -> bool:
    """Finishes what was taken in, refuses what is too late, and ends; True if all threads did."""
    batcher = running.batcher
    running.service.ready = False
    batcher.drain()
    until = time.monotonic() + DRAIN_S
    while batcher.open and time.monotonic() < until:
        await asyncio.sleep(0.01)
    batcher.refuse_waiting()
    server.close()
    for connection in tuple(running.connections):
        connection.close_idle()
    await asyncio.sleep(0.05)  # the last answers leave
    if running.arrivals is not None:
        running.arrivals.close()
    return batcher.stop(timeout_s=0.5)


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
