"""One version of a model as it is served: infer calls go through reader, batcher and writer.

Which path leads here is the business of `serving`; what a front end's request and answer look like
on the wire that of `http`.
"""

from typing import Any

import numpy as np

from loadbench.engine.backends import Model
from loadbench.engine.batcher import Batcher, Terms
from loadbench.engine.cache import ResponseCache
from loadbench.engine.exchange import LARGE, Exchange, Form, middle_of, refusal, written
from loadbench.engine.faults import Faults, falsified, misshapen
from loadbench.engine.job import Job, Ran, Served
from loadbench.engine.measure import parts_of
from loadbench.engine.metadata import model_config, model_metadata
from loadbench.engine.protocol import Contract, Plan, Reader
from loadbench.engine.split import Whole
from loadbench.engine.tensors import Array, Refused, memory_of
from loadbench.engine.watch import Watcher
from loadbench.engine.writer import Writer

NO_LIMIT = 1 << 62


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
        self.faults = faults
        self._warm_ns = warm_ns
        self.cache: ResponseCache | None = None
        self._most = signature.max_batch or NO_LIMIT  # rows that are asked in one
        self.watcher: Watcher | None = None
        self._reader = Reader(signature)
        self._writer = Writer(signature)

    def start(self) -> None:
        """Requests may come from now on."""
        self.batcher.start()
        if self.watcher is not None:
            self.watcher.start()

    def stop(self, timeout_s: float) -> bool:
        """Ends its threads. False if one is still in a batch after so long."""
        ended = self.batcher.stop(timeout_s)
        if self.watcher is not None:
            self.watcher.stop()
        return ended

    def change(self, terms: Terms, now: int) -> None:
        """Goes on by other terms from now on: larger requests than a batch come in parts."""
        self._most = terms.rule.max_batch
        self.signature = self.signature._replace(max_batch=terms.rule.max_batch)
        self.batcher.change(terms, now)

    def infer(self, exchange: Exchange, data: bytes, start: int) -> None:
        """Queues an infer request, whose body begins at `data[start]`. Raises Refused for one that
        cannot be asked of the model."""
        length = exchange.header_length
        if length is not None and length < 0:
            raise Refused(400, "Inference-Header-Content-Length is not a number of bytes")
        end = start + (length or 0)
        exchange.size_bytes = len(data) - start
        plan = self._reader.plain(data, start, end) if length else None
        if plan is None:
            plan, exchange.arrays = self._reader.read(data[start:] if start else data, length)
            taken = sum(map(memory_of, exchange.arrays.values()))
            exchange.size_bytes = max(exchange.size_bytes, taken)
        else:
            large = plan.tail > LARGE
            exchange.tail = memoryview(data)[end:] if large else data[end:]
        exchange.plan = plan
        exchange.rows = plan.rows
        exchange.shapes = plan.shapes
        if plan.priority:
            exchange.priority = plan.priority
        try:
            if self.cache is None and plan.rows <= self._most:
                self.batcher.submit(exchange, plan.timeout_ns)
            else:
                asked = self.ask(exchange, plan.timeout_ns)
                exchange.asked = asked if isinstance(asked, Whole) else None
        except Refused as fault:
            exchange.answer(self._unavailable(fault))

    def abandon(self, exchange: Exchange) -> None:
        """The client of an exchange in flight is gone."""
        self.withdraw(exchange.asked or exchange)

    def ask(self, job: Job, timeout_ns: int | None) -> Job | Whole:
        """Queues a request that some front end has read, in parts if a batch cannot hold it.

        What it gives is for `withdraw`. Raises Refused if there is no room for all of it.
        """
        if self.cache is not None and self.cache.answered(job, self.batcher.account):
            return job
        most = self.signature.max_batch
        if not most or job.rows <= most:
            self.batcher.submit(job, timeout_ns)
            return job
        whole = Whole(job, most, self.batcher.cancel)
        for number, part in enumerate(whole.parts):
            try:
                self.batcher.submit(part, timeout_ns)
            except Refused:
                del whole.parts[number:]
                whole.withdraw()
                raise
        return whole

    def announce(self, number: int) -> None:
        """So many requests have begun to arrive; −1: one has come, or will not any more."""
        self.batcher.announce(number)

    def withdraw(self, asked: Job | Whole) -> None:
        """Nobody wants the answer any more: what still waits is not run."""
        if isinstance(asked, Whole):
            asked.withdraw()
        else:
            self.batcher.cancel(asked)

    def settle(self, exchange: Exchange, result: Served | Refused) -> bool:
        """Answers an infer request; False if it is no good answer."""
        plan = exchange.plan
        assert plan is not None
        if isinstance(result, Refused):
            answer = self._unavailable(result) if result.status == 503 else refusal(result)
            exchange.answer(answer)
            return False
        if self.faults is not None:
            return self._spoiled(self.faults, exchange, plan, result)
        try:
            exchange.answer(self._answer(plan, result))
        except UnicodeDecodeError:
            exchange.answer(refusal(Refused(500, "an output is no text: ask for binary_data")))
            return False
        except Refused as fault:  # of shared memory
            exchange.answer(refusal(fault))
            return False
        return True

    def form(self, exchange: Exchange, ran: Ran) -> Form | None:
        """What the answers to requests of the same plan and batch share; None: write each alone."""
        plan = exchange.plan
        assert plan is not None
        if self.faults is not None or not plan.plain or ran.alone:
            return None
        if len(plan.outputs) > 1 and plan.rows > 1:
            return None
        arrays: list[Array] = []
        step = 0
        for name, datatype, binary in plan.outputs:
            array = ran.outputs[name]
            if not binary or datatype == "BYTES" or not array.size:
                return None
            arrays.append(array)
            step += array.nbytes // ran.rows
        size = step * plan.rows
        if size > LARGE:
            return None
        answer = self._writer.write(plan, ran.outputs_of(0, plan.rows))
        middle = middle_of(answer, size, ran.compute_ns, ran.rows, ran.ride)
        return Form(_side_by_side(arrays, ran.rows), step, size, middle)

    def _answer(self, plan: Plan, served: Served) -> bytes:
        return written(self._writer.write(plan, served.outputs), served)

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

    @property
    def broken(self) -> str:
        """Why a device is unfit to run anything; empty: none is."""
        return next(filter(None, (place.verdict.broken for place in self.batcher.places)), "")

    def metadata(self) -> dict[str, Any]:
        """In the protocol's words."""
        return model_metadata(self.signature, self.model.platform)

    def config(self) -> dict[str, Any]:
        """In Triton's words."""
        found, batcher = self.model, self.batcher
        told = model_config(
            self.signature, found.platform, batcher.rule, found.device, batcher.instances
        )
        told["parameters"] = {
            key: {"string_value": text}
            for key, text in batcher.settings.texts.items()
            if text != "none" or key == "policy"
        }
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
            settings=batcher.settings,
            device=found.device,
            precision=found.precision,
            grounds=batcher.grounds(),
            parts=parts_of(batcher.models),
            cache=self.cache.told(batcher.account) if self.cache is not None else None,
            warm_ns=self._warm_ns,
        )
        named = {"name": self.signature.model, "version": self.signature.version}
        return named | batcher.account.kserve() | {"memory_usage": memory, "loadbench": ours}


def _side_by_side(arrays: list[Array], rows: int) -> bytes:
    """The bytes of each row of the first, then of the second…"""
    if len(arrays) == 1:
        return arrays[0].tobytes()
    parts = [np.ascontiguousarray(array).reshape(rows, -1).view(np.uint8) for array in arrays]
    return np.concatenate(parts, axis=1).tobytes()
