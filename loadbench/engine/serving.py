"""The KServe v2 calls: which path answers what.

Infer calls are the endpoint's; everything else is answered at once from what is known. Sockets are
the business of `http`, processes and signals that of `server`.
"""

import re
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from loadbench import __version__, model
from loadbench.engine.endpoint import Endpoint
from loadbench.engine.exchange import refusal, response
from loadbench.engine.tensors import Refused
from loadbench.units import SECOND

EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
_MODEL = re.compile(rb"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|config|stats|infer))?")


class Service:
    """The paths of one model."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.ready = False
        self._endpoint = endpoint
        self._started = time.monotonic_ns()
        signature = endpoint.signature
        name, version = signature.model.encode(), signature.version.encode()
        self._infer_paths = {
            b"/v2/models/%b/infer" % name,
            b"/v2/models/%b/versions/%b/infer" % (name, version),
        }

    def endpoint(self, path: bytes) -> Endpoint | None:
        """Whose infer call the path is; None: it is something else."""
        if path in self._infer_paths or _plain(path) in self._infer_paths:
            return self._endpoint
        return None

    def answer(self, method: bytes, path: bytes, body: bytes) -> bytes:
        """A whole answer to a call that is not the infer call. Raises Refused."""
        path = _plain(path)
        wanted, call = self._find(path)
        if method != wanted:
            shown = path.decode(errors="replace")
            fault = Refused(405, f"{shown} takes {wanted.decode()}, not {method.decode('latin-1')}")
            return refusal(fault, f"Allow: {wanted.decode()}")
        return call(body)

    def _find(self, path: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
        """The method and the answer that belong to a path."""
        general: dict[bytes, Callable[[bytes], bytes]] = {
            b"/v2": self._server,
            b"/v2/health/live": lambda _: response(200),
            b"/v2/health/ready": self._is_ready,
            b"/v2/models/stats": self._statistics,
            b"/health": self._health,
        }
        if path in general:
            return b"GET", general[path]
        if path == b"/v2/repository/index":
            return b"POST", self._index
        match = _MODEL.fullmatch(path)
        if match is None:
            raise Refused(404, f"there is no {path.decode(errors='replace')}")
        name, version, what = match.groups()
        signature = self._endpoint.signature
        if name != signature.model.encode():
            raise Refused(404, f"there is no model {name.decode(errors='replace')!r}, only "
                               f"{signature.model!r}")  # fmt: skip
        if version not in (None, signature.version.encode()):
            raise Refused(404, f"{signature.model} has no version "
                               f"{version.decode(errors='replace')!r}")  # fmt: skip
        calls: dict[bytes | None, Callable[[bytes], bytes]] = {
            None: self._metadata,
            b"ready": self._is_ready,
            b"config": self._config,
            b"stats": self._statistics,
        }
        if what == b"infer":
            return b"POST", lambda _: response(405)  # a POST to it never comes here
        return b"GET", calls[what]

    def _server(self, _: bytes) -> bytes:
        return _json({"name": "loadbench", "version": __version__, "extensions": EXTENSIONS})

    def _is_ready(self, _: bytes) -> bytes:
        return response(200 if self.ready else 503)

    def _metadata(self, _: bytes) -> bytes:
        return _json(self._endpoint.metadata())

    def _config(self, _: bytes) -> bytes:
        return _json(self._endpoint.config())

    def _index(self, body: bytes) -> bytes:
        try:
            asked = msgspec.json.decode(body) if body.strip() else {}
        except msgspec.DecodeError as error:
            raise Refused(400, f"not JSON: {error}") from error
        if not isinstance(asked, dict):
            raise Refused(400, "the body is not an object")
        if asked.get("ready") is True and not self.ready:
            return _json([])
        state = "READY" if self.ready else "UNAVAILABLE"
        signature = self._endpoint.signature
        return _json([
            {"name": signature.model, "version": signature.version, "state": state, "reason": ""}
        ])  # fmt: skip

    def _statistics(self, _: bytes) -> bytes:
        return _json({"model_stats": [self._endpoint.statistics()]})

    def _health(self, _: bytes) -> bytes:
        found, batcher = self._endpoint.model, self._endpoint.batcher
        account = batcher.account
        last = account.last_inference_ms
        status = "ok" if self.ready else "stopping" if batcher.draining else "starting"
        return _json({
            "status": status,
            "model": self._endpoint.signature.model,
            "version": self._endpoint.signature.version,
            "platform": found.platform,
            "device": found.device,
            "devices": batcher.grounds(),
            "precision": found.precision,
            "memory": found.memory(),
            "last_inference": last / 1000 if last else None,  # seconds since 1970
            "uptime": round((time.monotonic_ns() - self._started) / SECOND, 3),
            "requests": {"done": account.answered, "failed": account.failed, "shed": account.shed},
            "waiting": batcher.waiting,
            "open": batcher.open,  # waiting or running
            "metadata": found.metadata,
            "notes": found.notes,
        })  # fmt: skip


def _plain(path: bytes) -> bytes:
    """The path without its query, its %-escapes resolved."""
    return unquote_to_bytes(path.partition(b"?")[0])


def _json(value: Any) -> bytes:
    return response(200, model.encode(value))
