"""The calls that change the repository: Triton's load and unload, and ours for who answers and for
how requests are brought together.

They are answered when what they ask for is done, and only where they are allowed at all.
"""

import re
from collections.abc import Callable
from typing import Any

from loadbench.engine.exchange import Exchange, object_of, refusal, response
from loadbench.engine.forwarding import Forwarding
from loadbench.engine.repository import Repository
from loadbench.engine.tensors import Refused
from loadbench.errors import LoadbenchError, SpecError
from loadbench.model import encode

PATH = re.compile(r"/v2/repository/models/([^/]+)/(load|unload|traffic|batching)")
CLOSED = (
    "other machines reach this engine, so that its models cannot be changed by calls: listen on "
    "127.0.0.1, or start it with --allow-loading"
)


class Call(Forwarding):
    """One of these calls, as a connection hands it over."""

    def __init__(self, repository: Repository, name: str, what: str, *, allowed: bool) -> None:
        self._repository = repository
        self._name = name
        self._what = what
        self._allowed = allowed

    def infer(self, exchange: Exchange, data: bytes, start: int) -> None:
        """Does it; the answer comes when it is done. Raises Refused."""
        if not self._allowed:
            raise Refused(403, CLOSED)
        if exchange.of_page:
            raise Refused(403, "models are not changed for web pages, which may be anyone's")

        def done(fault: Refused | None) -> None:
            exchange.answer(response(200) if fault is None else refusal(fault))

        try:
            self._do(object_of(data[start:]), done, exchange)
        except LoadbenchError as error:
            text = "; ".join(filter(None, (error.message, error.hint)))
            raise Refused(400 if isinstance(error, SpecError) else 503, text) from error

    def abandon(self, exchange: Exchange) -> None:
        """What was begun is done all the same."""

    def _do(
        self, asked: dict[str, Any], done: Callable[[Refused | None], None], exchange: Exchange
    ) -> None:
        parameters = asked.get("parameters", {})
        if not isinstance(parameters, dict):
            raise Refused(400, "parameters is no object")
        if self._what == "load":
            self._repository.load(self._name, parameters, done)
        elif self._what == "unload":
            self._repository.unload(self._name, str(parameters.get("version", "")), done)
        elif self._what == "batching":
            exchange.answer(response(200, encode(self._repository.retune(self._name, asked))))
        else:
            self._repository.direct(self._name, asked)
            exchange.answer(response(200, encode(traffic(self._repository, self._name))))


def traffic(repository: Repository, name: str) -> dict[str, Any]:
    """Who answers a model's requests. Raises Refused."""
    model = repository.model(name)
    rows = {row.version: row.reason for row in model.rows()}
    return {
        "name": name,
        "aliases": {"stable": model.current, "latest": latest} | model.aliases
        if (latest := max(model.loaded, key=int, default=""))
        else {},
        "versions": [
            dict(zip(("role", "share"), model.role(number), strict=True))
            | {"version": number, "reason": rows.get(number, "")}
            for number in model.names()
        ],
    }
