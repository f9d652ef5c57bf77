"""Everything that can fail before a run: inputs, encoding, the target's name."""

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from loadbench import limits
from loadbench.errors import SpecError, TargetError
from loadbench.load.answer import Kind
from loadbench.load.connection import Address, Connection
from loadbench.load.deck import Deal, deal
from loadbench.load.tls import Shared, TlsConnection
from loadbench.load.tokens import Tokens
from loadbench.model import Note
from loadbench.plan import Endpoint, Plan
from loadbench.shape import peak
from loadbench.targets import inputs
from loadbench.targets.region import Region
from loadbench.units import hostport

if TYPE_CHECKING:
    from loadbench.targets.ask import Asker

_TRIAL_S = 2.0


class Load(NamedTuple):
    """A plan, ready to be run: where to connect, and what to send."""

    plan: Plan
    address: Address
    deal: Deal
    notes: Sequence[Note]
    connection: Callable[[Kind, int], Connection]
    tokens: Tokens | None = None  # where answers come piece by piece
    close: Callable[[], None] = lambda: None  # when the run is over


def make_ready(plan: Plan) -> Load:
    """Raises SpecError and TargetError."""
    endpoint = plan.endpoint
    if not plan.requests or not plan.phases:
        raise SpecError("the plan has no requests or no phases")
    known = _known(endpoint.host, endpoint.port)
    address = _listening(known)
    region = Region() if endpoint.shared else None
    try:
        pools, notes = inputs.prepare(endpoint, plan.requests, plan.seed, region=region)
        if region is not None:
            _registered(endpoint, region)
    finally:
        if region is not None:
            region.forget()
    dealt = deal(plan.requests, pools, plan.seed)
    notes = [*notes, *several(endpoint.host, known, address), *_limits(plan)]
    tokens = Tokens() if endpoint.protocol == "openai" else None
    found = Load(plan, address, dealt, notes, _connections(endpoint, tokens), tokens)
    return found._replace(close=partial(_unregistered, endpoint, region)) if region else found


def _asker(endpoint: Endpoint) -> "Asker":
    from loadbench.targets.ask import Asker  # it brings an HTTP client

    rpc = endpoint.protocol == "grpc"
    scheme = ("grpcs" if rpc else "https") if endpoint.tls else ("grpc" if rpc else "http")
    place = hostport(endpoint.host, endpoint.port)
    return Asker(f"{scheme}://{place}", "kserve", endpoint.tls, endpoint.headers)


def _registered(endpoint: Endpoint, region: Region) -> None:
    with _asker(endpoint) as asker:
        asker.register(region)


def _unregistered(endpoint: Endpoint, region: Region) -> None:
    """A server that is gone needs no farewell."""
    with suppress(TargetError), _asker(endpoint) as asker:
        asker.unregister(region)


def _connections(endpoint: Endpoint, tokens: Tokens | None) -> Callable[[Kind, int], Connection]:
    """How a new connection is made."""
    if tokens is not None:
        from loadbench.load.stream import StreamConnection

        shared = Shared(endpoint) if endpoint.tls else None
        return partial(StreamConnection, shared=shared, tokens=tokens)
    if endpoint.protocol == "grpc":
        from loadbench.load.call import CallConnection, Peer

        return partial(CallConnection, peer=Peer(endpoint))
    return partial(TlsConnection, shared=Shared(endpoint)) if endpoint.tls else Connection


def _limits(plan: Plan) -> list[Note]:
    """Makes room for the connections of this process, and says where there is none."""
    share = plan.share.of if plan.share else 1
    most = plan.concurrency if plan.arrivals == "closed" else plan.connections
    closing = peak(plan.phases) / share if plan.endpoint.closes else 0.0
    return limits.doubts(-(-most // share), closing, limits.raise_files())


def _known(host: str, port: int) -> list[Address]:
    """The addresses of a name. It is asked for once: what it means later does not matter."""
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
    return [Note("one-address", text, "names are resolved once; put a balancer before them")]


def _listening(addresses: Sequence[Address]) -> Address:
    """Of several addresses (localhost is ::1 and 127.0.0.1) the first that can be connected to; the
    first at all if none can be now."""
    if len(addresses) > 1:
        for address in addresses:
            with socket.socket(address.family, socket.SOCK_STREAM) as trial:
                trial.settimeout(_TRIAL_S)
                if trial.connect_ex(address.address) == 0:
                    return address
    return addresses[0]
