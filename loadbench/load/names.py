"""Looks up again, while a load runs, what the names of its servers mean."""

import gevent

from loadbench.errors import TargetError
from loadbench.load.lane import Lane
from loadbench.load.ready import Load, addresses
from loadbench.targets.places import LEAD_S, may_change
from loadbench.units import SECOND


def follow(load: Load, lane: Lane) -> None:
    """For a greenlet of its own: goes on as long as there is a name that may change. A server moves
    when its address is none of its name's any more; a name that cannot be looked up changes
    nothing."""
    named = [at for at, one in enumerate(load.replicas) if may_change(one.endpoint.host)]
    where = {at: load.replicas[at].address for at in named}
    every_s = load.plan.resolve_ns / SECOND
    while where and every_s and not lane.over:
        gevent.sleep(every_s)
        for at, address in where.items():
            endpoint = load.replicas[at].endpoint
            try:
                known = addresses(endpoint.host, endpoint.port)
            except TargetError:
                continue
            if address not in known:
                alike = [one for one in known if one.family == address.family]
                where[at] = (alike or known)[0]
                gevent.sleep(min(every_s, LEAD_S))
                lane.move(at, where[at])
