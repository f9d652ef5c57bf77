"""The KServe v2 calls of one model: which path answers what.

Infer calls go through the reader, the batcher and the writer; everything else is answered at once
from what is known. Sockets are the business of `http`, processes and signals that of `server`.
"""

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from loadbench import __version__, model
from loadbench.engine.backends import Model
from loadbench.engine.batcher import Batcher
from loadbench.engine.faults import Faults, falsified, misshapen
from loadbench.engine.http import Exchange, refusal, response
from loadbench.engine.job import Job, Served
from loadbench.engine.metadata import model_config, model_metadata
from loadbench.engine.protocol import Contract, Plan, Reader, Writer
from loadbench.engine.tensors import Refused
from loadbench.units import MS, SECOND

EXTENSIONS = ("binary_tensor_data", "model_configuration", "statistics")
_MODEL = re.compile(rb"/v2/models/([^/]+)(?:/versions/([^/]+))?(?:/(ready|config|stats|infer))?")


class Service:
    """One model, its batcher and its protocol."""

    def __init__(
        self,
        found: Model,
        signature: Contract,
        batcher: Batcher,
        faults: Faults | None,
        warm_ns: dict[int, int],
    ) -> None:
        self.ready = False
        self._model = found
        self._signature = signature
        self._batcher = batcher
        self._faults = faults
        self._warm_ns = warm_ns
        self._reader = Reader(signature)
        self._writer = Writer(signature)
        self._started = time.monotonic_ns()
        name, version = signature.model.encode(), signature.version.encode()
        self._infer_paths = {
            b"/v2/models/%b/infer" % name,
            b"/v2/models/%b/versions/%b/infer" % (name, version),
        }

    # ---- inference

    def infers(self, path: bytes) -> bool:
        """Whether the path is the infer call of the model."""
        return path in self._infer_paths or _plain(path) in self._infer_paths

    def infer(self, exchange: Exchange, body: bytes) -> None:
        """Queues an infer request. Raises Refused for one that cannot be asked of the model."""
        length: int | None = None
        if exchange.header_length is not None:
            if not exchange.header_length.isdigit() or len(exchange.header_length) > 12:
                raise Refused(400, "Inference-Header-Content-Length is not a number of bytes")
            length = int(exchange.header_length)
        plan, arrays = self._reader.read(body, length)
        job = Job(arrays, plan.rows, plan.shapes, partial(self._reply, exchange, plan))
        job.size_bytes = len(body)
        try:
            self._batcher.submit(job, plan.timeout_ns)
        except Refused as fault:
            exchange.answer(self._unavailable(fault))
            return
        exchange.job = job

    def abandon(self, exchange: Exchange) -> None:
        """The client of an exchange in flight is gone."""
        if exchange.job is not None:
            self._batcher.cancel(exchange.job)

    def _reply(self, exchange: Exchange, plan: Plan, result: Served | Refused) -> bool:
        """Answers an infer request; False if it is no good answer."""
        exchange.job = None
        if isinstance(result, Refused):
            answer = self._unavailable(result) if result.status == 503 else refusal(result)
            exchange.answer(answer)
            return False
        if self._faults is not None:
            return self._spoiled(self._faults, exchange, plan, result)
        try:
            exchange.answer(self._answer(plan, result))
        except UnicodeDecodeError:
            exchange.answer(refusal(Refused(500, "an output is no text: ask for binary_data")))
            return False
        return True

    def _answer(self, plan: Plan, served: Served) -> bytes:
        header, tensors, binary = self._writer.write(plan, served.outputs)
        timing = b"queue;dur=%.3f, batch;dur=%.3f, compute;dur=%.3f, size;desc=%d" % (
            served.queue_ns / MS, served.batch_wait_ns / MS, served.compute_ns / MS, served.size,
        )  # fmt: skip
        if not binary:
            return b"".join((
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer-Timing: ", timing,
                b"\r\nContent-Length: %d\r\n\r\n" % len(header), header,
            ))  # fmt: skip
        length = len(header) + sum(map(len, tensors))
        return b"".join((
            b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nServer-Timing: ", timing,
            b"\r\nInference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n"
            % (len(header), length), header, *tensors,
        ))  # fmt: skip

    def _spoiled(self, faults: Faults, exchange: Exchange, plan: Plan, served: Served) -> bool:
        """An answer with what the fake engine is to do wrong."""
        fault = faults.draw()
        if fault == "error":
            exchange.answer(refusal(Refused(500, "an error, as the settings demand")))
            return False
        if fault == "shape":
            served = served._replace(outputs=misshapen(served.outputs))
        elif fault == "value":
            served = served._replace(outputs=falsified(served.outputs))
        answer = self._answer(plan, served)
        if fault == "short":
            head, _, body = answer.partition(b"\r\n\r\n")
            length = b"Content-Length: %d" % len(body)
            answer = head.replace(b"\r\n" + length, b"\r\nContent-Length: %d" % (len(body) - 4))
            answer += b"\r\n\r\n" + body[:-4]
        if fault == "hangup":
            exchange.hang_up = True
            answer = answer[: len(answer) - 8]
        elif faults.slow_body_s:
            middle = (answer.index(b"\r\n\r\n") + 4 + len(answer)) // 2
            exchange.gap_s = faults.slow_body_s
            exchange.rest, answer = answer[middle:], answer[:middle]
        exchange.answer(answer)
        return fault in ("", "value")

    def _unavailable(self, fault: Refused) -> bytes:
        return refusal(fault, f"Retry-After: {self._batcher.retry_after_s()}")

    # ---- everything else

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
        signature = self._signature
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
        return _json(model_metadata(self._signature, self._model.platform))

    def _config(self, _: bytes) -> bytes:
        found, batcher = self._model, self._batcher
        return _json(
            model_config(
                self._signature, found.platform, batcher.rule, found.device, batcher.instances
            )
        )

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
        signature = self._signature
        return _json([
            {"name": signature.model, "version": signature.version, "state": state, "reason": ""}
        ])  # fmt: skip

    def _statistics(self, _: bytes) -> bytes:
        found, batcher = self._model, self._batcher
        memory = [
            {"type": kind, "id": 0, "byte_size": size} for kind, size in found.memory().items()
        ]
        ours = batcher.account.engine(
            waiting=batcher.waiting,
            instances=batcher.instances,
            max_batch=batcher.rule.max_batch,
            policy=batcher.rule.policy,
            device=found.device,
            precision=found.precision,
            warm_ns=self._warm_ns,
        )
        named = {"name": self._signature.model, "version": self._signature.version}
        stats = named | batcher.account.kserve() | {"memory_usage": memory, "loadbench": ours}
        return _json({"model_stats": [stats]})

    def _health(self, _: bytes) -> bytes:
        found, account = self._model, self._batcher.account
        last = account.last_inference_ms
        status = "ok" if self.ready else "stopping" if self._batcher.draining else "starting"
        return _json({
            "status": status,
            "model": self._signature.model,
            "version": self._signature.version,
            "platform": found.platform,
            "device": found.device,
            "precision": found.precision,
            "memory": found.memory(),
            "last_inference": last / 1000 if last else None,  # seconds since 1970
            "uptime": round((time.monotonic_ns() - self._started) / SECOND, 3),
            "requests": {"done": account.success, "failed": account.failed, "shed": account.shed},
            "waiting": self._batcher.waiting,
            "open": self._batcher.open,  # waiting or running
            "metadata": found.metadata,
            "notes": found.notes,
        })  # fmt: skip


def _plain(path: bytes) -> bytes:
    """The path without its query, its %-escapes resolved."""
    return unquote_to_bytes(path.partition(b"?")[0])


def _json(value: Any) -> bytes:
    return response(200, model.encode(value))
