"""A request as a Sample, with what the server said of its parts (Server-Timing)."""

from collections.abc import Iterator, Mapping

from loadbench import ride, timing
from loadbench.environment import hidden
from loadbench.load.connection import Connection
from loadbench.load.ledger import HELD
from loadbench.model import Note, Sample

MOST_PARTS = 64  # names of parts that a run tells apart
OTHER = "other"


class Parts:
    """The server's names of parts, as they may be told to others; of the time of those that are too
    many the sum. A server may make up new ones with each answer: each would cost its windows and
    logs room, and the load the time to look for secrets in it."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._known: dict[str, str] = {}  # as the server has it → as it is told
        self._others = False

    def told(self, parts: Mapping[str, int]) -> dict[str, int]:
        """In ns, by the names as they are told."""
        found: dict[str, int] = {}
        for name, ns in parts.items():
            known = self._known.get(name) or self._new(name)
            found[known] = found.get(known, 0) + ns
        return found

    def _new(self, name: str) -> str:
        if len(self._known) >= MOST_PARTS:
            self._others = True
            return OTHER
        return self._known.setdefault(name, hidden(name, self._headers))

    def notes(self) -> Iterator[Note]:
        """What is to be said of them when all is over."""
        if self._others:
            text = f"Server-Timing has more than {MOST_PARTS} names of parts: the time of the "
            text += f"others is told as {OTHER!r}"
            yield Note("many-parts", text, "have the server give each part one name in all answers")


def sample(
    connection: Connection, done: int, failure: str, data: bytes, named: Parts | None = None
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
        parts=named.told(told.parts) if named else dict(told.parts),
        first=connection.first or None,
    )
