"""Whoever takes an infer request only to hand it on to a version of a model.

It makes that version the exchange's endpoint, so that all later calls are the version's.
"""

from loadbench.engine.exchange import Exchange, Form
from loadbench.engine.job import Ran, Served
from loadbench.engine.tensors import Refused


class Forwarding:
    """What is never called once the exchange is someone else's."""

    def abandon(self, exchange: Exchange) -> None:
        raise AssertionError("the exchange was handed on")

    def settle(self, exchange: Exchange, result: Served | Refused) -> bool:
        raise AssertionError("the exchange was handed on")

    def form(self, exchange: Exchange, ran: Ran) -> Form | None:
        raise AssertionError("the exchange was handed on")

    def announce(self, number: int) -> None:
        """Whom the request will reach is not known yet: nobody is told."""
