"""Who comes back: clients that send their next request as soon as they are answered, and whether a
batch should be held for them.

Clients in a closed loop come back in a burst just after their batch. To start with the first few of
them splits them into batches that take turns and are all too small; to hold a batch for a burst
that does not come only costs time. So each client (in HTTP a connection) has a record of its own of
how soon it is back, `Returns` tells who is expected when, and `weighed` whether that is worth the
wait. Nothing here reads a clock; when batches start is the business of `policy`.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

PAST = 8  # returns that a client's record holds
READ = 4  # returns between two looks at a full record: a look costs a microsecond
MOST = 0.75  # the part of them that was as quick as it is expected to be
LATE_NS = 50_000  # that anyone may be later
BLAMED = 4  # one in so many late returns counts where a batch that ran may be to blame
DOUBT = 0.5  # of a client's weight, by how far its quick and its slow returns lie apart
MARGIN = 0.05  # by which those who are waited for must come denser than requests do on average
OTHERS = 1.5  # batches that a request lasts which comes at any time: half of one passes, one is its
MEMORY = 1 / 32  # weight of the newest batch in the average rate of requests
SHARE_MEMORY = 1 / 256  # weight of the newest request in the share of quick clients
LONGEST = 8  # full batches: a longer pause counts as this in the average rate
CHECKED = 4  # a hold is looked at again when one in so many of those it is for are due

Shapes = tuple[tuple[int, ...], ...]


class Client:
    """How soon a client is back after its answers. Times are monotonic ns."""

    __slots__ = (
        "away", "blamed", "due", "left", "past", "rows", "shapes", "unread", "usual", "weight",
    )  # fmt: skip

    def __init__(self) -> None:
        self.left = 0  # when the batch ended with which it was answered last
        self.away = 0  # requests of it in that batch that no further one has followed yet
        self.due = 0  # when it is expected at the latest; 0: it is not
        self.past: list[int] = []  # ns from the end of its batch to its next request
        self.usual = 0  # of these what `MOST` did not exceed; 0: not known
        self.weight = 0.0  # how probable it is that it comes by then, less for the irregular
        self.blamed = 0
        self.unread = 0
        self.rows = 1
        self.shapes: Shapes = ()


class Due(NamedTuple):
    """So many rows are expected, on average, not later than then."""

    at: int
    rows: float


class Prospect(NamedTuple):
    """What a hold is weighed by. `service` is the planned time (ns) of a batch by its rows."""

    service: Sequence[int]
    most: int  # rows of a batch
    rate: float  # rows that come per ns, on average
    share: float  # of the requests that are from clients who are usually back soon


class Hold(NamedTuple):
    """Wait until there are so many rows, but not longer than until then; then think again."""

    until: int
    rows: int


class Returns:
    """The clients that were answered last, and how requests come. Not safe among threads."""

    def __init__(self) -> None:
        self._awaited: list[Client] = []  # by `due`
        self._table: Sequence[int] = ()
        self._horizon = 0  # ns; a longer wait is never worth it
        self._batch_started = 0
        self._batch_ended = 0
        self._arrived = 0  # rows since then
        self._rows = self._ns = 0.0  # what comes while a batch and its pause last, on average
        self._share = 1.0
        self._hold: Hold | None = None
        self._held_shapes: Shapes = ()

    def arrived(self, client: Client | None, rows: int, shapes: Shapes, now: int) -> None:
        """A request has come; None: nobody knows from whom."""
        self._arrived += rows
        quick = client is not None and 0 < client.usual < self._horizon
        self._share += (quick - self._share) * SHARE_MEMORY
        if client is None:
            return
        client.rows, client.shapes = rows, shapes
        if not client.away:
            return
        client.away -= 1
        took = now - client.left
        past = client.past
        if took > client.usual and past and self._was_in_the_way(client):
            client.blamed += 1
            if client.blamed % BLAMED:
                return
        past.append(took)
        if len(past) > PAST:
            del past[0]
            client.unread += 1
            if client.unread < READ:
                return
        client.unread = 0
        ordered = sorted(past)
        place = -int(-MOST * len(past) // 1) - 1
        usual = client.usual = ordered[place]
        spread = (usual - ordered[len(past) // 4]) / usual
        client.weight = (place + 1) / len(past) * (1 - DOUBT * spread)

    def _was_in_the_way(self, client: Client) -> bool:
        """Whether a batch started before the client was due: on a processor that it shares with
        the model a request may then have been there earlier than it was read."""
        started = self._batch_started
        return started >= client.left and (not client.due or started < client.due)

    def answered(
        self, clients: Iterable[Client | None], ended: int, service: Sequence[int]
    ) -> None:
        """A batch has ended; each request of it is named by its client. Where several run at once
        one may be told after another that ended later."""
        if service is not self._table:
            self._table = service
            self._horizon = horizon(service)
        gone = []
        for client in clients:
            if client is None:
                continue
            if client.left == ended:
                client.away += 1
                continue
            client.left = ended
            client.away = 1
            client.due = 0
            if 0 < client.usual < self._horizon:
                client.due = ended + client.usual + LATE_NS
                gone.append(client)
        for client in self._awaited:
            if client.away and client.due > ended and client.left != ended:
                gone.append(client)
        self._awaited = gone
        self._awaited.sort(key=attrgetter("due"))
        if self._batch_ended:
            pause = max(0, min(ended - self._batch_ended, LONGEST * service[-1]))
            self._rows += MEMORY * (self._arrived - self._rows)
            self._ns += MEMORY * (pause - self._ns)
        self._arrived, self._batch_ended = 0, max(self._batch_ended, ended)

    def unawaited(self) -> None:
        """A batch has ended after which nobody has to be waited for: there is no need to know when
        those whom it answered are back."""
        self._awaited = []
        self._arrived = self._batch_ended = 0

    def started(self, now: int) -> None:
        """A batch starts."""
        self._batch_started = now
        self._hold = None

    def hold(self, rows: int, shapes: Shapes, most: int, now: int) -> Hold | None:
        """What to wait for with `rows` of these shapes before a batch; None: for nothing."""
        if not self._awaited or not self._ns or rows >= most:
            return None
        held = self._hold
        if held and rows < held.rows and now < held.until and shapes == self._held_shapes:
            return held
        prospect = Prospect(self._table, most, self._rows / self._ns, self._share)
        self._held_shapes = shapes
        self._hold = weighed(rows, self.expected(shapes, now), prospect, now)
        return self._hold

    def expected(self, shapes: Shapes, now: int) -> list[Due]:
        """Who of those answered last should still come, the first first; the less, the more who
        should be here are not."""
        came = passed = 0.0
        coming = []
        for client in self._awaited:
            if client.due <= now:
                passed += client.weight
                came += not client.away
            elif client.away and client.shapes == shapes:
                coming.append(client)
        trust = min(1.0, (1 + came) / (1 + passed))
        return [Due(found.due, found.away * found.rows * found.weight * trust) for found in coming]


def horizon(service: Sequence[int]) -> int:
    """The most (ns) that two batches can save by being one."""
    largest = len(service) - 1
    saved = [0]
    rows = 1
    while 2 * rows <= largest:
        saved.append(2 * service[rows] - service[2 * rows])
        rows *= 2
    return max(saved)


def weighed(rows: int, due: Sequence[Due], prospect: Prospect, now: int) -> Hold | None:
    """How long to hold `rows` for those who are due; None: start now.

    Two things must hold. Those who are waited for must come denser, over the wait and over what
    they make the batch longer, than requests come anyway: that raises the rate (of a renewal
    process, by its average reward), and it never is so for arrivals that have nothing to do with
    the answers. And the mean time to an answer must not rise: those who come back gain what one
    batch is quicker than two in turn, all others lose by the batches becoming longer.
    """
    service, most, rate, share = prospect
    price = rate * (1 + MARGIN)
    best = coming = 0.0
    hold: Hold | None = None
    chosen = 0
    for number, (at, more) in enumerate(due):
        coming += more
        size = min(round(rows + coming), most)
        if size == rows:
            continue
        together = at - now + service[size]
        apart = service[rows] + service[size - rows]
        if share * (apart - together) <= (1 - share) * OTHERS * (together - apart / 2):
            continue
        gain = min(coming, most - rows) - price * (together - service[rows])
        if gain > best:
            best, chosen, hold = gain, number, Hold(at, size)
        if size == most:
            break
    return hold and hold._replace(until=due[chosen // CHECKED].at)
