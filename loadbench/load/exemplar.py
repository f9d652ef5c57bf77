"""A request as a Sample, with what the server said of its parts (Server-Timing)."""

from collections.abc import Callable

from loadbench import ride, timing
from loadbench.load.connection import Connection
from loadbench.load.ledger import HELD
from loadbench.model import Sample


def sample(
    connection: Connection, done: int, failure: str, data: bytes, named: Callable[[str], str] = str
) -> Sample:
    """`data` begins with the head of the answer, as far as it is known; the server's names of parts
    are told as `named` has them."""
    text = timing.field(data)
    told = timing.read(text)
    return Sample(
        request=connection.kind.name,
        due=connection.due,
        begun=connection.begun,
        sent=connection.sent,
        done=done,
        failure=failure,
        queue_ns=told.queue,
        batch_wait_ns=told.batch,
        compute_ns=told.compute,
        batch=told.size,
        ride=ride.read(text),
        held=bool(connection.code & HELD),
        parts={named(name): ns for name, ns in told.parts.items()},
        first=connection.first or None,
    )
