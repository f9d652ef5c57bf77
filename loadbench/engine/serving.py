"""The KServe v2 calls: which path answers what.

Infer calls are the endpoints', changes those of `calls`; everything else is answered at once from
what is known. Sockets are the business of `http`, processes and signals that of `server`.
"""

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

from loadbench import __version__, model
from loadbench.engine.calls import PATH, Call, traffic
from loadbench.engine.endpoint import Endpoint
from loadbench.engine.exchange import Inferring, object_of, refusal, response
from loadbench.engine.extensions import MEMORY, Extensions, Registering
from loadbench.engine.repository import Repository
from loadbench.engine.shared import Regions
from loadbench.engine.tensors import Refused
from loadbench.engine.watch.profile import Profiling
from loadbench.units import SECOND

EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|config|stats|infer))?")
_PROFILE = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/profile")

Answer = Callable[[], bytes]


class Service:
    """The paths of the models in a repository."""

    def __init__(
        self, repository: Repository, regions: Regions | None = None, *, may_load: bool = True
    ) -> None:
        """`may_load`: whether calls may load and unload models."""
        self._extensions = Extensions(regions, self._all_statistics)
        self._repository = repository
        self._may_load = may_load
        self._started = time.monotonic_ns()

    def endpoint(self, path: bytes) -> Inferring | None:
        """Who answers a POST to the path later than at once; None: it is something else."""
        answering = self._repository.paths.get(path)
        if answering is not None:
            return answering
        plain = _plain(path)
        if (match := PATH.fullmatch(plain)) and match[2]:
            return Call(self._repository, match[1], match[2], allowed=self._may_load)
        if match := _PROFILE.fullmatch(plain):
            find = partial(self._repository.find, match[1], match[2] or "")
            return Profiling(lambda: find().batcher, allowed=self._may_load)
        if plain.startswith(MEMORY):
            return Registering(partial(self.answer, b"POST", path))
        return self._repository.paths.get(plain.encode())

    def answer(self, method: bytes, path: bytes, body: bytes) -> bytes:
        """A whole answer to a call that is not an infer call. Raises Refused."""
        shown = _plain(path)
        found = self._extensions.answer(method, shown, body)
        if found is not None:
            return found
        wanted, call = self._find(shown, body)
        if method != wanted:
            fault = Refused(405, f"{shown} takes {wanted.decode()}, not {method.decode('latin-1')}")
            return refusal(fault, f"Allow: {wanted.decode()}")
        return call()

    def _find(self, path: str, body: bytes) -> tuple[bytes, Answer]:
        """The method and the answer that belong to a path."""
        general: dict[str, Answer] = {
            "/v2": self._server,
            "/v2/health/live": lambda: response(200),
            "/v2/health/ready": lambda: response(200 if self._repository.ready else 503),
            "/v2/models/stats": lambda: _json({"model_stats": self._all_statistics()}),
            "/health": self._health,
        }
        if path in general:
            return b"GET", general[path]
        if path == "/v2/repository/index":
            return b"POST", lambda: self._index(body)
        if match := PATH.fullmatch(path):
            name, what = match.groups()
            if what == "traffic":
                return b"GET", lambda: _json(traffic(self._repository, name))
            if what == "batching":
                return b"GET", lambda: self._batching(name)
            return b"POST", lambda: response(405)  # a POST to it never comes here
        if _PROFILE.fullmatch(path):
            return b"POST", lambda: response(405)  # likewise
        match = _MODEL.fullmatch(path)
        if match is None:
            raise Refused(404, f"there is no {path}")
        return self._of_model(match[1], match[2] or "", match[3])

    def _of_model(self, name: str, version: str, what: str | None) -> tuple[bytes, Answer]:
        repository = self._repository
        if what == "ready":
            return b"GET", lambda: self._is_ready(name, version)
        if what == "stats":
            return b"GET", lambda: self._statistics(name, version)
        endpoint = repository.find(name, version)
        found = repository.model(name)
        if what == "infer":
            return b"POST", lambda: response(405)  # a POST to it never comes here
        if what == "config":
            kept = {"latest": {"num_versions": max(1, len(found.loaded))}}
            return b"GET", lambda: _json(endpoint.config() | {"version_policy": kept})
        return b"GET", lambda: _json(endpoint.metadata() | {"versions": found.names()})

    def _batching(self, name: str) -> bytes:
        found = self._repository.find(name)
        told = {"name": name, "version": found.signature.version}
        return _json(told | {"settings": found.batcher.settings})

    def _server(self) -> bytes:
        extensions = (*EXTENSIONS, *self._extensions.names)
        return _json({"name": "loadbench", "version": __version__, "extensions": extensions})

    def _is_ready(self, name: str, version: str) -> bytes:
        if self._repository.model(name).loaded:
            broken = self._repository.find(name, version).broken
            return response(503 if broken or self._repository.draining else 200)
        return response(503)

    def _index(self, body: bytes) -> bytes:
        asked = object_of(body)
        rows = [row._asdict() for row in self._repository.index()]
        if self._repository.draining:
            rows = [row | {"state": "UNAVAILABLE"} for row in rows]
        only = asked.get("ready") is True
        return _json([row for row in rows if row["state"] == "READY" or not only])

    def _statistics(self, name: str, version: str) -> bytes:
        found = self._repository.model(name).statistics()
        if version:
            number = self._repository.find(name, version).signature.version
            found = [entry for entry in found if entry["version"] == number]
        return _json({"model_stats": found})

    def _all_statistics(self) -> list[dict[str, Any]]:
        models = self._repository.models.values()
        return [entry for found in models for entry in found.statistics()]

    def _status(self) -> str:
        if self._repository.draining:
            return "stopping"
        if self._repository.broken:
            return "broken"
        return "ok" if self._repository.ready else "empty"

    def _health(self) -> bytes:
        repository = self._repository
        told: dict[str, Any] = {
            "status": self._status(),
            "reason": repository.broken,
            "uptime": round((time.monotonic_ns() - self._started) / SECOND, 3),
            "notes": [*repository.notes],
            "models": [row._asdict() for row in repository.index()],
        }
        first = next((found for found in repository.models.values() if found.loaded), None)
        if first is not None:
            endpoint = first.loaded[first.current].endpoint
            told |= _health_of(endpoint)
            told["notes"] += endpoint.model.notes
        return _json(told)


def _health_of(endpoint: Endpoint) -> dict[str, Any]:
    """The members of /health that tell of one version: the first model's current one."""
    found, batcher = endpoint.model, endpoint.batcher
    account = batcher.account
    last = account.last_inference_ms
    return {
        "model": endpoint.signature.model,
        "version": endpoint.signature.version,
        "platform": found.platform,
        "device": found.device,
        "devices": batcher.grounds(),
        "precision": found.precision,
        "memory": found.memory(),
        "last_inference": last / 1000 if last else None,  # seconds since 1970
        "requests": {"done": account.answered, "failed": account.failed, "shed": account.shed},
        "waiting": batcher.waiting,
        "open": batcher.open,  # waiting or running
        "metadata": found.metadata,
    }


def _plain(path: bytes) -> str:
    """The path without its query, its %-escapes resolved."""
    return unquote_to_bytes(path.partition(b"?")[0]).decode(errors="replace")


def _json(value: Any) -> bytes:
    return response(200, model.encode(value))
