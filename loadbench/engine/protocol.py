"""The Open Inference Protocol's infer call (KServe v2): bytes of a request → arrays.

Knows JSON, Triton's binary tensor extension and their mixtures, and checks everything against the
model's signature before anything is queued. What a JSON header asks for is kept (`Reader`), since
clients send the same header over and over; only what follows it differs.
"""

from typing import Any, NamedTuple

import msgspec

from loadbench.engine.backends import Model
from loadbench.engine.datatypes import NUMPY
from loadbench.engine.shared import (
    REGION,
    Regions,
    Shared,
    SharedInput,
    inputs_of,
    place_of,
    shared_of,
)
from loadbench.engine.tensors import (
    NO_JSON,
    Array,
    Refused,
    elements,
    from_bytes,
    from_json,
)
from loadbench.model import Tensor

KEPT_HEADERS = 256
KEPT_SIZE = 8192
NS_PER_US = 1000


class Contract(NamedTuple):
    """What a model takes and gives, as the protocol sees it."""

    model: str
    version: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    batched: bool
    max_batch: int  # 0: unbatched
    max_rows: int = 0  # of one request, run in parts if over `max_batch`; 0: no more than that
    regions: Regions | None = None  # where tensors may be that are not in a message

    @classmethod
    def of(cls, model: Model, max_batch: int, max_rows: int = 0) -> "Contract":
        """`max_batch` is the engine's, which may be less than the model's."""
        return cls(
            model.name,
            model.version,
            {tensor.name: tensor for tensor in model.inputs},
            {tensor.name: tensor for tensor in model.outputs},
            model.batched,
            max_batch if model.batched else 0,
            max(max_rows, max_batch) if model.batched else 0,
        )


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: Any = None


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Infer(msgspec.Struct):
    inputs: list[_Input]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[_Output] | None = None


class Slot(NamedTuple):
    """Where an input's bytes lie behind the JSON header."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Plan(NamedTuple):
    """What a request's JSON header asks for."""

    id: str
    rows: int
    shapes: tuple[tuple[int, ...], ...]  # per row: requests with equal shapes can share a batch
    timeout_ns: int | None
    slots: tuple[Slot, ...]  # in the order of the model's inputs
    outputs: tuple[tuple[str, str, bool], ...]  # name, datatype, binary
    tail: int  # bytes behind the header
    plain: bool = False  # every input's bytes are its array's, whatever they are
    shared: Shared | None = None  # what is in shared memory
    priority: int = 0  # 1 is the most urgent; 0: it says none


class Call(NamedTuple):
    """A request, decoded."""

    plan: Plan
    arrays: dict[str, Array]


class Reader:
    """Decodes infer requests for one model, keeping the headers it has seen."""

    def __init__(self, signature: Contract) -> None:
        self._signature = signature
        self._decoder = msgspec.json.Decoder(_Infer)
        self._kept: dict[bytes, Plan] = {}

    def read(self, body: bytes, header_length: int | None) -> Call:
        """`header_length` is the value of Inference-Header-Content-Length; None: all is JSON.

        Raises Refused for anything that the model or the protocol does not allow.
        """
        if header_length is None:
            return self._decode(body, b"")
        if header_length == 0:
            return self._raw(body)
        if not 0 < header_length <= len(body):
            raise Refused(
                400, f"Inference-Header-Content-Length is {header_length}, the body {len(body)}"
            )
        header = body[:header_length]
        plan = self._kept.get(header)
        if plan is None:
            return self._decode(header, memoryview(body)[header_length:])
        tail = memoryview(body)[header_length:]
        if len(tail) != plan.tail:
            raise Refused(400, f"{len(tail)} bytes of binary data instead of {plan.tail}")
        return Call(plan, self._arrays(plan, tail))

    def plain(self, data: bytes, start: int, end: int) -> Plan | None:
        """What the header in `data[start:end]` asks for, if it has been read before and what
        follows it needs no look but at its length: that is right then."""
        plan = self._kept.get(data[start:end])
        if plan is not None and plan.plain and len(data) - end == plan.tail:
            return plan
        return None

    def _decode(self, header: bytes, tail: bytes | memoryview) -> Call:
        try:
            asked = self._decoder.decode(header)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Refused(400, f"not an inference request: {error}") from error
        plan, written = _plan(self._signature, asked)
        if len(tail) != plan.tail:
            raise Refused(400, f"{len(tail)} bytes of binary data instead of {plan.tail}")
        arrays = self._arrays(plan, memoryview(tail)) | written
        if not written and not plan.id and len(header) <= KEPT_SIZE:
            if len(self._kept) >= KEPT_HEADERS:
                self._kept.clear()
            plain = not any(slot.datatype in ("BOOL", "BYTES") for slot in plan.slots)
            plain &= plan.shared is None
            plan = self._kept[bytes(header)] = plan._replace(plain=plain)
        return Call(plan, arrays)

    def _arrays(self, plan: Plan, tail: memoryview) -> dict[str, Array]:
        arrays = arrays_of(plan, tail)
        if plan.shared is not None:
            arrays |= inputs_of(self._signature.regions, plan.shared)
        return arrays

    def _raw(self, body: bytes) -> Call:
        """A body that is the one input's row and nothing else."""
        signature = self._signature
        if len(signature.inputs) != 1:
            raise Refused(400, f"a raw request needs a model with one input, not "
                               f"{len(signature.inputs)}")  # fmt: skip
        (tensor,) = signature.inputs.values()
        if tensor.datatype == "BYTES":
            body = len(body).to_bytes(4, "little") + body
        shape = _raw_shape(tensor, len(body))
        outputs = tuple((out.name, out.datatype, True) for out in signature.outputs.values())
        whole = (1, *shape) if signature.batched else shape
        slot = Slot(tensor.name, tensor.datatype, whole, 0, len(body))
        plan = Plan("", 1, (shape,), None, (slot,), outputs, len(body))
        return Call(plan, arrays_of(plan, memoryview(body)))


def _raw_shape(tensor: Tensor, size: int) -> tuple[int, ...]:
    """A raw request's shape: the tensor's own, an open dimension being found from the size."""
    if tensor.shape.count(-1) > 1:
        raise Refused(400, f"a raw request cannot say the shape of {tensor.name!r}")
    known = elements(tuple(dimension for dimension in tensor.shape if dimension > 0))
    if tensor.datatype == "BYTES":
        return tuple(1 if dimension < 0 else dimension for dimension in tensor.shape)
    step = known * NUMPY[tensor.datatype].itemsize
    if size == 0 or size % step:
        raise Refused(400, f"{size} bytes are no row of {tensor.name!r} {list(tensor.shape)}")
    return tuple(size // step if dimension < 0 else dimension for dimension in tensor.shape)


def arrays_of(plan: Plan, tail: memoryview) -> dict[str, Array]:
    """Views on the inputs' bytes where that is possible. Raises Refused if they do not fit."""
    return {
        slot.name: from_bytes(slot.name, slot.datatype, tail[slot.start : slot.end], slot.shape)
        for slot in plan.slots
    }


def _plan(signature: Contract, asked: _Infer) -> tuple[Plan, dict[str, Array]]:
    """The plan, and the inputs that were written in JSON."""
    slots: list[Slot] = []
    written: dict[str, Array] = {}
    elsewhere: list[SharedInput] = []
    shapes: dict[str, tuple[int, ...]] = {}
    rows = 0
    at = 0
    for given in asked.inputs:
        shape = _shape(signature, given)
        if given.name in shapes:
            raise Refused(400, f"input {given.name!r} is given twice")
        rows = _rows(signature, given.name, shape, rows)
        shapes[given.name] = shape[1:] if signature.batched else shape
        size = given.parameters.get("binary_data_size")
        place = place_of(f"input {given.name!r}", given.parameters)
        if place is not None:
            if size is not None or given.data is not None:
                raise Refused(400, f"input {given.name!r} is in shared memory and in the request")
            elsewhere.append(SharedInput(given.name, given.datatype, shape, place))
            continue
        if size is None:
            if given.data is None:
                raise Refused(400, f"input {given.name!r} has neither data nor binary_data_size")
            written[given.name] = from_json(given.name, given.datatype, given.data, shape)
            continue
        if type(size) is not int or size < 0 or given.data is not None:
            raise Refused(400, f"input {given.name!r}: binary_data_size must be a number of bytes "
                               "and stand without data")  # fmt: skip
        slots.append(Slot(given.name, given.datatype, shape, at, at + size))
        at += size
    missing = signature.inputs.keys() - shapes.keys()
    if missing:
        raise Refused(400, f"missing input {', '.join(map(repr, sorted(missing)))}")
    ordered = tuple(shapes[name] for name in signature.inputs)
    order = list(signature.inputs)
    slots.sort(key=lambda slot: order.index(slot.name))
    timeout = _timeout(asked.parameters)
    priority = _priority(asked.parameters)
    chosen = _chosen(signature, asked)
    plan = Plan(asked.id, rows or 1, ordered, timeout, tuple(slots), chosen, at)
    wishes = {output.name: output.parameters for output in asked.outputs or ()}
    shared = shared_of(elsewhere, wishes)
    return plan._replace(shared=shared, priority=priority), written


def _shape(signature: Contract, given: _Input) -> tuple[int, ...]:
    """The input's shape, checked with name and datatype against the model's."""
    tensor = signature.inputs.get(given.name)
    if tensor is None:
        known = ", ".join(map(repr, signature.inputs))
        raise Refused(400, f"{signature.model} has no input {given.name!r}, it has {known}")
    if given.datatype != tensor.datatype:
        raise Refused(400, f"input {given.name!r} is {tensor.datatype}, not {given.datatype}")
    wanted = (-1, *tensor.shape) if signature.batched else tensor.shape
    shape = tuple(given.shape)
    if signature.batched and len(shape) == len(tensor.shape):
        shape = (1, *shape)  # one row, written without its batch axis
    fits = len(shape) == len(wanted) and all(
        found > 0 and allowed in (-1, found) for found, allowed in zip(shape, wanted, strict=True)
    )
    if not fits or elements(shape) >= 1 << 40:
        raise Refused(
            400, f"input {given.name!r} has shape {given.shape}, the model takes {list(wanted)}"
        )
    return shape


def _rows(signature: Contract, name: str, shape: tuple[int, ...], before: int) -> int:
    if not signature.batched:
        return 1
    if before and shape[0] != before:
        raise Refused(400, f"input {name!r} has {shape[0]} rows, another one {before}")
    most = signature.max_rows or signature.max_batch
    if shape[0] > most:
        raise Refused(
            400,
            f"a request of {shape[0]} rows is over the engine's limit of {most} "
            f"(max_batch is {signature.max_batch}): send it in parts, or raise "
            "engine.max_request_rows",
        )
    return shape[0]


def _timeout(parameters: dict[str, Any]) -> int | None:
    """The request's own limit: `timeout` in µs; 0 is none."""
    timeout = parameters.get("timeout", 0)
    if type(timeout) is not int or not 0 <= timeout < 1 << 50:
        raise Refused(400, f"timeout is {timeout!r}, not a number of microseconds")
    return timeout * NS_PER_US or None


def _priority(parameters: dict[str, Any]) -> int:
    """`priority`: lower is more urgent, from 1 on; 0 is none."""
    priority = parameters.get("priority", 0)
    if type(priority) is not int or not 0 <= priority < 1 << 32:
        raise Refused(400, f"priority is {priority!r}, not a whole number from 0 on")
    return priority


def _chosen(signature: Contract, asked: _Infer) -> tuple[tuple[str, str, bool], ...]:
    """The outputs that are wanted, in order, each with its datatype and whether in binary."""
    binary = _flag("binary_data_output", asked.parameters.get("binary_data_output", False))
    wanted = asked.outputs or [_Output(name) for name in signature.outputs]
    chosen: dict[str, tuple[str, str, bool]] = {}
    for output in wanted:
        tensor = signature.outputs.get(output.name)
        if tensor is None:
            known = ", ".join(map(repr, signature.outputs))
            raise Refused(400, f"{signature.model} has no output {output.name!r}, it has {known}")
        if "classification" in output.parameters:
            raise Refused(400, f"output {output.name!r}: classification is not supported")
        as_binary = _flag("binary_data", output.parameters.get("binary_data", binary))
        as_binary |= REGION in output.parameters
        if tensor.datatype in NO_JSON and not as_binary:
            raise Refused(400, f"output {output.name!r}: {tensor.datatype} has no JSON form, "
                               "ask for binary_data")  # fmt: skip
        if output.name in chosen:
            raise Refused(400, f"output {output.name!r} is asked for twice")
        chosen[output.name] = (output.name, tensor.datatype, as_binary)
    return tuple(chosen.values())


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise Refused(400, f"{name} is {value!r}, not true or false")
    return value
