"""A search led through a simulated run, as the runner leads it through a real one."""

from collections.abc import Callable

from loadbench.judge.pilot import Pilot
from loadbench.judge.search import Found, Terms
from loadbench.judge.stage import Seen
from tests.queues import Server, Simulated


def led(
    server: Server,
    terms: Terms,
    seed: int = 1,
    seen: tuple[Seen, ...] = (),
    each: Callable[[Simulated, list[Seen]], None] = lambda run, seen: None,
) -> tuple[Found, list[Seen]]:
    """Until the search is over. `each` is called before every second and may change the server;
    raises StopIteration through where it does."""
    pilot = Pilot(terms, lambda stage, spent: None, seen, sum(s.seconds + 2.0 for s in seen))
    if pilot.found is not None:
        return pilot.found, pilot.seen
    assert pilot.probe is not None
    limit_s = (terms.claim.limit_ns or 0) / 1e9
    run = Simulated(server, limit_s, seed, pilot.probe.rate)
    for _ in range(terms.budget_s + 100):
        each(run, pilot.seen)
        order = pilot.see(run.window())
        if order is None:
            continue
        if order.steering is None:
            assert pilot.found is not None
            return pilot.found, pilot.seen
        assert order.steering.rate is not None
        run.rate, run.paused = order.steering.rate, order.steering.paused
    raise AssertionError("the search never ended")
