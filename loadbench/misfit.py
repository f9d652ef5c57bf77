"""Can what a server tells of its inside be of the requests that were measured? None of them was in
it for longer than its answer was waited for, however the server batches.

A mean may be of other requests as well, so totals are compared: the server's may be as long as all
waits together, and each request that this run did not see answered may have taken all of its time.
Beside that a reading may come a second early or late, and some servers count whole milliseconds.
What is beyond all of this is in another unit, or counted twice.
"""

from loadbench import units
from loadbench.account import Account
from loadbench.model import Note, Part, Server, Window
from loadbench.units import MS, SECOND

_ROUNDED_NS = MS  # of each part of a request
_NEAR = 0.1  # of the waits: pace and rounding of both clocks


def misfit(total: Account) -> Note | None:
    """What is to be known of a server's times that are longer than the answers took."""
    server = total.whole.server
    if server is None or not total.seconds:
        return None
    parts = _parts(server)
    answered, waited_ns = waits(total.whole)
    near_ns = waited_ns * (_NEAR + 1 / total.seconds)
    rounded_ns = _ROUNDED_NS * sum(part.count for part in parts)
    length_ns = (len(total.steady) + len(total.rest)) * SECOND
    others_ns = _others(total, server, answered) * length_ns
    inside_ns = sum(part.total_ns for part in parts)
    if not waited_ns or inside_ns <= waited_ns + near_ns + rounded_ns + others_ns:
        return None
    mean_ns = sum(part.mean_ns or 0.0 for part in parts) * server.modelled
    text = (
        f"the server tells of {units.ms(mean_ns)} ms inside it for the mean request, and the answer"
        f" took {units.ms(waited_ns / answered)} ms: both cannot be"
    )
    given = "[target.metrics]" if server.source.startswith("metrics") else server.source
    hint = f"look at the units of {given}, and whether it counts anything twice"
    return Note("inside-longer", text, hint)


def waits(whole: Window) -> tuple[int, float]:
    """The requests that a server's times are of, and how long (ns) their answers took together:
    warm-up's last ones, too."""
    taken = sum(part.service.total for part in whole.requests.values() if part.service.count)
    return whole.done + whole.tail_done, taken + whole.tail_service_ns


def _others(total: Account, server: Server, answered: int) -> int:
    """At most so many requests may be in a server's times whose answers this run did not see: of
    other clients, of tries before the last, of what it gave up itself."""
    told = max(server.requests or 0, *(part.count for part in _parts(server)), 0)
    told += server.failed or 0
    return max(0, told - answered) + total.missed + total.whole.tail_failed


def _parts(server: Server) -> list[Part]:
    return [part for part in (server.queue, server.batch_wait, server.compute) if part]
