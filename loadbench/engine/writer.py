"""Answers to infer calls as they stand in a body: JSON, raw tensors behind it, shared memory."""

from typing import Any, NamedTuple

import msgspec

from loadbench.engine.protocol import KEPT_HEADERS, Contract, Plan
from loadbench.engine.shared import Shared, put
from loadbench.engine.tensors import Array, to_bytes, to_json


class Answer(NamedTuple):
    """An infer answer's body: a JSON header, and raw tensors if any were asked for."""

    header: bytes
    tensors: list[bytes]
    binary: bool


class Writer:
    """Encodes infer answers of one model, keeping the headers of all-binary ones."""

    def __init__(self, signature: Contract) -> None:
        self._signature = signature
        self._kept: dict[tuple[Any, ...], bytes] = {}

    def write(self, plan: Plan, outputs: dict[str, Array]) -> Answer:
        """Only the outputs that the plan asks for. Raises UnicodeDecodeError for BYTES no text,
        Refused where shared memory does not take an output."""
        if plan.shared is not None and plan.shared.outputs:
            return self._elsewhere(plan, plan.shared, outputs)
        tensors: list[bytes] = []
        for name, datatype, binary in plan.outputs:
            if binary:
                tensors.append(to_bytes(outputs[name], datatype))
        if len(tensors) < len(plan.outputs):
            return Answer(self._header(plan, outputs, tensors), tensors, bool(tensors))
        shapes = tuple([outputs[name].shape for name, _, _ in plan.outputs])
        key = (plan.id, plan.outputs, shapes, tuple(map(len, tensors)))
        header = self._kept.get(key)
        if header is None:
            header = self._header(plan, outputs, tensors)
            if not plan.id:
                if len(self._kept) >= KEPT_HEADERS:
                    self._kept.clear()
                self._kept[key] = header
        return Answer(header, tensors, True)

    def _elsewhere(self, plan: Plan, shared: Shared, outputs: dict[str, Array]) -> Answer:
        """Some outputs go to shared memory, and the answer says so."""
        put(self._signature.regions, shared, plan.outputs, outputs)
        tensors = [
            to_bytes(outputs[name], datatype)
            for name, datatype, binary in plan.outputs
            if binary and name not in shared.outputs
        ]
        return Answer(self._header(plan, outputs, tensors), tensors, bool(tensors))

    def _header(self, plan: Plan, outputs: dict[str, Array], tensors: list[bytes]) -> bytes:
        places = plan.shared.outputs if plan.shared is not None else {}
        raw = iter(tensors)
        described: list[dict[str, Any]] = []
        for name, datatype, binary in plan.outputs:
            array = outputs[name]
            entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
            if binary and name not in places:  # perf_analyzer takes parameters for this one
                entry["parameters"] = {"binary_data_size": len(next(raw))}
            elif name not in places:
                entry["data"] = to_json(array, datatype)
            described.append(entry)
        answer: dict[str, Any] = {"id": plan.id} if plan.id else {}
        answer |= {
            "model_name": self._signature.model,
            "model_version": self._signature.version,
            "outputs": described,
        }
        return msgspec.json.encode(answer)
