"""How requests wait in the embedded engine: the settings of its policies that need a table.

Which policies there are and what they are for is told by `loadbench.engine.rule`.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from loadbench.loadspec import Duration, Section

Policy = Literal["deadline", "efficient", "failfast", "fixed", "adaptive", "none"]
LEVELS = 64


class QueueSpec(Section):
    """How requests of a priority wait under `fixed`, as in Triton's `ModelQueuePolicy`."""

    timeout: Duration = 0  # in the queue; 0: none
    override: bool = False  # a request's own timeout counts, where it is the shorter
    action: Literal["reject", "delay"] = "reject"  # delay: who is over it is served after the rest
    requests: Annotated[int, Field(ge=0)] = 0  # that may wait; 0: no limit of its own


class Queueing(NamedTuple):
    """What of the engine's settings has to agree."""

    policy: str
    slo: int | None
    max_batch: int
    preferred: tuple[int, ...]
    priorities: int
    default_priority: int | None
    level: Mapping[int, QueueSpec]
    copies: int


def disagreement(found: Queueing) -> str:
    """What of it makes no sense together, in a sentence that names the key; empty: it does."""
    if found.slo == 0:
        return "slo = 0 leaves no time for anything: leave it out for none"
    if found.policy == "efficient" and found.slo is None:
        return 'policy = "efficient" waits as long as the SLO allows: set slo'
    if found.policy == "adaptive" and found.copies > 1:
        return 'policy = "adaptive" has one batch in flight, as BentoML: leave instances at 1'
    if wrong := [size for size in found.preferred if not 1 <= size <= found.max_batch]:
        return f"preferred has {wrong[0]}, which is not between 1 and max_batch ({found.max_batch})"
    if found.default_priority is not None and found.default_priority > found.priorities:
        return f"default_priority is {found.default_priority}, priorities only {found.priorities}"
    if wrong := [level for level in found.level if not 1 <= level <= found.priorities]:
        return f"level.{wrong[0]} is none of the {found.priorities} priorities: raise priorities"
    return ""
