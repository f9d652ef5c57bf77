"""Looks up again, while a load runs, what the names of its servers mean."""

import gevent
from gevent.pool import Group

from loadbench.errors import TargetError
from loadbench.load.lane import Lane
from loadbench.load.ready import Load, addresses
from loadbench.targets.places import LEAD_S, may_change, moved
from loadbench.units import SECOND


def follow(load: Load, lane: Lane) -> None:
    """For a greenlet of its own: goes on as long as there is a name that may change. Each is
    followed beside the others, so that none waits for another's name server, or for its move."""
    every_s = load.plan.resolve_ns / SECOND
    named = [at for at, one in enumerate(load.replicas) if may_change(one.endpoint.host)]
    beside = Group()
    try:
        for at in named if every_s else ():
            beside.spawn(_follow, load, lane, at, every_s)
        beside.join(raise_error=True)
    finally:
        beside.kill(block=False)


def _follow(load: Load, lane: Lane, at: int, every_s: float) -> None:
    """A server moves when its address is none of its name's any more; a name that cannot be looked
    up changes nothing."""
    endpoint, address = load.replicas[at].endpoint, load.replicas[at].address
    while not lane.over:
        gevent.sleep(every_s)
        try:
            known = {str(one.address[0]): one for one in addresses(endpoint.host, endpoint.port)}
        except TargetError:
            continue
        where = moved(str(address.address[0]), list(known))
        if where:
            address = known[where]
            gevent.sleep(min(every_s, LEAD_S))
            lane.move(at, address)
