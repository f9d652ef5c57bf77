"""What the requests of a scenario are drawn from, told before anything runs."""

from collections.abc import Sequence

from loadbench.plan import RequestPlan
from loadbench.targets.pool import DRAWN
from loadbench.targets.shapes import describe


def requests_text(requests: Sequence[RequestPlan], seed: int) -> str:
    """A line for each dimension that is drawn, as the run will draw it; "" if none is."""
    return "\n".join(
        f"{request.name}: {text}"
        for request in requests
        for text in describe(request, seed, request.pool or DRAWN)
    )
