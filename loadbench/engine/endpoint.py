"""One version of a model as it is served: infer calls go through reader, batcher and writer.

Which path leads here is the business of `serving`; what a front end's request and answer look like
on the wire that of `http`.
"""

from functools import partial
from typing import Any

from loadbench.engine.backends import Model
from loadbench.engine.batcher import Batcher
from loadbench.engine.cache import ResponseCache
from loadbench.engine.faults import Faults, falsified, misshapen
from loadbench.engine.http import Exchange, refusal
from loadbench.engine.job import Job, Served
from loadbench.engine.measure import parts_of
from loadbench.engine.metadata import model_config, model_metadata
from loadbench.engine.protocol import Contract, Plan, Reader, Writer
from loadbench.engine.tensors import Refused
from loadbench.units import MS


class Endpoint:
    """A model, its batcher and its protocol."""

    def __init__(
        self,
        found: Model,
        signature: Contract,
        batcher: Batcher,
        faults: Faults | None,
        warm_ns: dict[int, int],
    ) -> None:
        self.model = found
        self.signature = signature
        self.batcher = batcher
        self._faults = faults
        self._warm_ns = warm_ns
        self.cache: ResponseCache | None = None
        self._reader = Reader(signature)
        self._writer = Writer(signature)

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
        job.id = plan.id
        if self.cache is not None and self.cache.answered(job):
            return
        try:
            self.batcher.submit(job, plan.timeout_ns)
        except Refused as fault:
            exchange.answer(self._unavailable(fault))
            return
        exchange.job = job

    def abandon(self, exchange: Exchange) -> None:
        """The client of an exchange in flight is gone."""
        if exchange.job is not None:
            self.batcher.cancel(exchange.job)

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
        if served.cached:
            timing = b"cache;desc=hit, " + timing
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
        return refusal(fault, f"Retry-After: {self.batcher.retry_after_s()}")

    # ---- what it tells of itself

    def metadata(self) -> dict[str, Any]:
        """In the protocol's words."""
        return model_metadata(self.signature, self.model.platform)

    def config(self) -> dict[str, Any]:
        """In Triton's words."""
        found, batcher = self.model, self.batcher
        told = model_config(
            self.signature, found.platform, batcher.rule, found.device, batcher.instances
        )
        return told | ({"response_cache": {"enable": True}} if self.cache is not None else {})

    def statistics(self) -> dict[str, Any]:
        """In Triton's words, and ours."""
        found, batcher = self.model, self.batcher
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
            parts=parts_of(batcher.models),
            warm_ns=self._warm_ns,
        )
        named = {"name": self.signature.model, "version": self.signature.version}
        return named | batcher.account.kserve() | {"memory_usage": memory, "loadbench": ours}
