"""Pools: the distinct requests of one kind, made once before a run, within bounds of number and
memory."""

from collections.abc import Callable, Iterable, Iterator

from loadbench.errors import SpecError
from loadbench.model import Note
from loadbench.plan import RequestPlan
from loadbench.targets.template import MOST
from loadbench.targets.wire import Prepared

POOL = 32  # made-up requests of one kind, where a scenario does not say how many
DRAWN = 256  # the same of those whose dimensions are drawn
POOL_MOST = 65_536
POOL_BYTES = 64 << 20  # of all requests of one kind together
_TRIES = 20  # to make a request that differs from all before


def gather(
    request: RequestPlan, made: Iterable[Prepared], most: int
) -> tuple[list[Prepared], list[Note]]:
    """As many as `most` and memory allow, at least one, and a note if these are fewer than were
    asked for or given."""
    pool: list[Prepared] = []
    size = 0
    for found in made:
        if len(found.data) > MOST:
            raise SpecError(f"request {request.name!r}: a body of more than {MOST >> 20} MiB")
        taken = len(found.data) + found.kept
        if pool and (len(pool) == most or size + taken > POOL_BYTES):
            break
        pool.append(found)
        size += taken
    else:
        few = not request.data and len(pool) < min(request.pool or 0, most)
        return pool, [_note(request, f"only {len(pool):,} different bodies can be made")] * few
    if (request.pool is None and not request.data) or len(pool) == request.pool:
        return pool, []
    what = f"rows of {request.data}" if request.data else "bodies"
    bound = f"{POOL_BYTES >> 20} MiB or {most:,} are the most"
    return pool, [_note(request, f"only the first {len(pool):,} {what} are sent: {bound}")]


def _note(request: RequestPlan, text: str) -> Note:
    hint = "set pool to the number of distinct bodies you want"
    return Note("pool-cut", f"{request.name!r}: {text}", hint)


def distinct(make: Callable[[int], Prepared], number: int) -> Iterator[Prepared]:
    """Requests `make(0)`, `make(1)` … of which none equals another. One that comes out equal to an
    earlier one is made anew, and left out if that does not help; none follow when so many in a row
    had to be left out that nothing new is to be expected."""
    seen: set[int] = set()
    left_out = 0
    for index in range(number):
        for _ in range(_TRIES):
            found = make(index)
            if hash(found.data) not in seen:
                break
        else:
            left_out += 1
            if left_out == _TRIES:
                return
            continue
        left_out = 0
        seen.add(hash(found.data))
        yield found
