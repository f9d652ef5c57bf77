"""Everything that can fail before a run: inputs, encoding, the target's name."""

import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from loadbench import limits
from loadbench.errors import SpecError, TargetError
from loadbench.load.answer import Kind
from loadbench.load.connection import Address, Connection
from loadbench.load.deck import Deal, deal, turns
from loadbench.load.memory import Memory
from loadbench.load.sequences import Sequences
from loadbench.load.tls import Shared, TlsConnection
from loadbench.load.tokens import Tokens
from loadbench.model import Note
from loadbench.plan import Endpoint, Plan, RequestPlan, named
from loadbench.shape import peak
from loadbench.targets import inputs
from loadbench.targets.region import Region

_TRIAL_S = 2.0


class Replica(NamedTuple):
    """One of the servers that share a load: where to connect, and what to send there."""

    endpoint: Endpoint
    address: Address
    deal: Deal
    connection: Callable[[Kind, int], Connection]
    sequences: Sequences | None = None

    @property
    def begin(self) -> Callable[[], Deal]:
        """Gives a new connection what it is to send."""
        return self.sequences.begin if self.sequences else lambda: self.deal


class Load(NamedTuple):
    """A plan, ready to be run. With several replicas it has the requests of each as kinds of their
    own, so that all that is told of kinds is told of replicas."""

    plan: Plan
    replicas: tuple[Replica, ...]
    turns: tuple[int, ...]  # whose the next request is, over and over
    notes: Sequence[Note]
    tokens: Tokens | None = None  # where answers come piece by piece
    memory: Memory | None = None  # that the tensors are in, if not in the requests


def make_ready(plan: Plan) -> Load:
    """Raises SpecError and TargetError."""
    if not plan.requests or not plan.phases:
        raise SpecError("the plan has no requests or no phases")
    endpoints = (plan.endpoint, *plan.replicas)
    tokens = Tokens() if plan.endpoint.streams else None
    memory = Memory(plan.endpoint) if plan.endpoint.shared else None
    region = memory.region if memory else None
    replicas: list[Replica] = []
    kinds: list[RequestPlan] = []  # of all of them
    notes: list[Note] = []
    try:
        for endpoint in endpoints:
            kinds += named(plan.requests, endpoint) if plan.replicas else plan.requests
            replica, found = _replica(plan, endpoint, kinds, (region, tokens))
            replicas.append(replica)
            notes += found
        if memory is not None:
            memory.register()
    except BaseException:
        if memory is not None:
            memory.region.forget()
        raise
    notes = [*dict.fromkeys(notes), *_limits(plan)]
    whose = turns(plan.weights or (1.0,) * len(replicas))
    whole = replace(plan, requests=tuple(kinds))
    return Load(whole, tuple(replicas), whose, notes, tokens, memory)


def _replica(
    plan: Plan,
    endpoint: Endpoint,
    kinds: Sequence[RequestPlan],
    common: tuple[Region | None, Tokens | None],
) -> tuple[Replica, list[Note]]:
    """Its own are the last of the kinds of requests."""
    region, tokens = common
    known = addresses(endpoint.host, endpoint.port)
    address = _listening(known, endpoint)
    pools, notes = inputs.prepare(endpoint, plan.requests, plan.seed, region=region)
    first = len(kinds) - len(plan.requests)
    dealt = deal(kinds[first:], pools, plan.seed, first)
    notes += several(endpoint.host, known, address)
    connection, (kind, *_) = _connections(endpoint, tokens), plan.requests
    sequences = Sequences(endpoint, kind, pools[0], dealt, plan.seed) if kind.sequence else None
    return Replica(endpoint, address, dealt, connection, sequences), notes


def _connections(endpoint: Endpoint, tokens: Tokens | None) -> Callable[[Kind, int], Connection]:
    """How a new connection is made."""
    if endpoint.rpc:
        from loadbench.load.answers import AnswersConnection
        from loadbench.load.call import CallConnection, Peer

        peer = Peer(endpoint)
        if tokens is None:
            return partial(CallConnection, peer=peer)
        return partial(AnswersConnection, peer=peer, tokens=tokens)
    if tokens is not None:
        from loadbench.load.stream import StreamConnection

        shared = Shared(endpoint) if endpoint.tls else None
        return partial(StreamConnection, shared=shared, tokens=tokens)
    return partial(TlsConnection, shared=Shared(endpoint)) if endpoint.tls else Connection


def _limits(plan: Plan) -> list[Note]:
    """Makes room for the connections of this process, and says where there is none."""
    share = plan.share.of if plan.share else 1
    most = plan.concurrency if plan.arrivals == "closed" else plan.connections
    closing = peak(plan.phases) / share if plan.endpoint.closes else 0.0
    return limits.doubts(-(-most // share), closing, limits.raise_files())


def addresses(host: str, port: int) -> list[Address]:
    """The addresses of a name, as it is now."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TargetError(f"{host}: {reason}", "check the name") from error
    return [Address(family, where) for family, _, _, _, where in found]


def several(host: str, known: Sequence[Address], chosen: Address) -> list[Note]:
    """A doubt where a name stands for several servers, and only one of them gets the load."""
    alike = sorted({str(found.address[0]) for found in known if found.family == chosen.family})
    if len(alike) < 2:
        return []
    text = f"{host} has {len(alike)} addresses ({', '.join(alike[:4])}{', …' * (len(alike) > 4)})"
    text += f": all of the load goes to {chosen.address[0]}"
    hint = "to load all of them name each: [target] replicas"
    return [Note("one-address", text, hint)]


def _listening(known: Sequence[Address], endpoint: Endpoint) -> Address:
    """Of several addresses (localhost is ::1 and 127.0.0.1) the one that was asked what it serves,
    so that what it tells is of this load, also where its name now tells of others alone; else the
    first that can be connected to; the first at all if none can be now."""
    for address in known:
        if address.address[0] == endpoint.at:
            return address
    asked = addresses(endpoint.at, endpoint.port) if endpoint.at else []
    if len(asked) + len(known) > 1:
        for address in (*asked, *known):
            with socket.socket(address.family, socket.SOCK_STREAM) as trial:
                trial.settimeout(_TRIAL_S)
                if trial.connect_ex(address.address) == 0:
                    return address
    return known[0]
