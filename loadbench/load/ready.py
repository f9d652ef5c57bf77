"""Everything that can fail before a run: inputs, encoding, the target's name."""

import socket
from collections.abc import Sequence
from typing import NamedTuple

from loadbench.errors import SpecError, TargetError
from loadbench.load.connection import Address
from loadbench.load.deck import Deal, deal
from loadbench.model import Note
from loadbench.plan import Plan
from loadbench.targets import inputs


class Load(NamedTuple):
    """A plan, ready to be run: where to connect, and what to send."""

    plan: Plan
    address: Address
    deal: Deal
    notes: Sequence[Note]


def make_ready(plan: Plan) -> Load:
    """Raises SpecError and TargetError."""
    endpoint = plan.endpoint
    if endpoint.tls:
        raise SpecError("https is not supported yet", "give the target's http:// address")
    if not plan.requests or not plan.phases:
        raise SpecError("the plan has no requests or no phases")
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TargetError(
            f"{endpoint.host}: {error.strerror or error}", "check the name"
        ) from error
    family, _, _, _, where = found[0]
    pools, notes = inputs.prepare(endpoint, plan.requests, plan.seed)
    dealt = deal(plan.requests, pools, plan.seed)
    return Load(plan, Address(family, where), dealt, notes)
