"""A request as a Sample, with what the server said of its parts (Server-Timing)."""

from loadbench import ride, timing
from loadbench.load.connection import Connection
from loadbench.load.ledger import HELD
from loadbench.model import Sample


def sample(connection: Connection, done: int, failure: str, data: bytes) -> Sample:
    """`data` begins with the head of the answer, as far as it is known."""
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
        parts=dict(told.parts),
        first=connection.first or None,
    )
