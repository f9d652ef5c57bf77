"""ONNX models through OpenVINO, on the CPU. An optional extra: pip install 'loadbench[openvino]'.

An instance runs one batch at a time, so each is compiled for latency: one stream on all threads of
the instance. OpenVINO's throughput mode would run several requests side by side, which here several
instances do. Whether a file may be loaded is told by `onnx_file`.
"""

import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench.engine import device, files, signature
from loadbench.engine.backends import Arrays, beside, onnx_file, onnx_int8, onnx_ports
from loadbench.engine.backends.stated import stated
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.spec import EngineSpec, parse_tensor

_TYPES = {  # OpenVINO's names of types in ONNX's words
    "boolean": "tensor(bool)",
    "u8": "tensor(uint8)",
    "u16": "tensor(uint16)",
    "u32": "tensor(uint32)",
    "u64": "tensor(uint64)",
    "i8": "tensor(int8)",
    "i16": "tensor(int16)",
    "i32": "tensor(int32)",
    "i64": "tensor(int64)",
    "f16": "tensor(float16)",
    "f32": "tensor(float)",
    "f64": "tensor(double)",
}
_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABLE = {"bf16": "BF16", "fp16": "FP16"}
_FULL = ("bad_alloc", "not enough memory", "Failed to allocate")


class _Port(NamedTuple):
    """See onnx_ports.Port."""

    name: str
    type: str
    shape: tuple[Any, ...]


class OpenVinoModel:
    """A Model (see backends). Calls from several threads come one after the other."""

    def __init__(self, compiled: Any, name: str, proto: Any) -> None:
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()
        self._weights = onnx_file.weight_bytes(proto)
        self.name = name
        self.metadata = onnx_file.metadata(proto)
        told = self.metadata.get("version", "")
        self.version = told if told.isdecimal() else "1"
        self.platform = "openvino_onnx"
        self.device = "cpu"
        self.precision = onnx_file.precision(proto)
        self.max_batch: int | None = None
        self.batched = False
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: tuple[Tensor, ...] = ()
        self.notes: tuple[Note, ...] = ()
        self._places: dict[str, int] = {}

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        return {name: array for name, (_, array) in self.raw(arrays).items()}

    def raw(self, arrays: Arrays) -> dict[str, tuple[str, NDArray[Any]]]:
        """Outputs by name with their datatypes."""
        feed = {tensor.name: arrays[tensor.name] for tensor in self.inputs}
        try:
            with self._lock:  # what comes out lies in the request's own memory: copied
                found = self._request.infer(feed, share_inputs=True, share_outputs=False)
                return {
                    name: onnx_ports.typed(np.asarray(found[place]))
                    for name, place in self._places.items()
                }
        except RuntimeError as error:
            text = str(error)
            if any(word in text for word in _FULL):
                raise MemoryError("cpu has no room for this batch") from error
            raise SpecError(f"the model refuses this input: {_short(text)}") from error

    def expect(self, inputs: tuple[Tensor, ...], places: dict[str, int]) -> None:
        """What to feed and fetch until the signature is known."""
        self.inputs, self._places = inputs, places

    def use(self, found: signature.Signature, notes: tuple[Note, ...]) -> None:
        """Takes over what probing found out."""
        self.inputs, self.outputs, self.batched = found.inputs, found.outputs, found.batched
        self.notes = (*notes, *found.notes)
        if found.sizes:
            self.metadata["sizes"] = found.sizes

    def memory(self) -> dict[str, int]:
        """The weights as they are in the file; OpenVINO keeps them rearranged."""
        return {"CPU": self._weights}


def open_openvino(
    path: Path, settings: EngineSpec, sizes: signature.Sizes | None = None
) -> OpenVinoModel:
    """Loads the file and finds out its signature; `sizes` are usual ones for open dimensions."""
    core = _core(settings)
    if onnx_int8.wanted(settings):
        model, notes = onnx_int8.opened(
            path, settings, lambda found: _load(core, found, settings, sizes, "fp32")
        )
    else:
        model, notes = _settled(core, path, settings, sizes)
    model.notes = (
        stated(model, "openvino", settings, "latency hint, one stream"),
        *model.notes,
        *notes,
    )
    return model


def _core(settings: EngineSpec) -> Any:
    if settings.device not in ("auto", "cpu"):
        raise SpecError(
            f'engine.backend = "openvino" runs on the CPU, not on {settings.device}',
            'set engine.device = "cpu", or engine.backend = "onnxruntime"',
        )
    if settings.libraries:
        raise SpecError(
            'engine.libraries are for other backends than "openvino"',
            'set engine.backend = "onnxruntime"',
        )
    return runtime().Core()


def runtime() -> Any:
    """The library; SpecError if it is not installed. Importing it reports the import to its makers
    over the network, unless the package that does so cannot be found: so it is hidden."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise SpecError(
            'engine.backend = "openvino", but OpenVINO is not installed',
            "pip install 'loadbench[openvino]'",
        ) from error
    return openvino


def _settled(
    core: Any, path: Path, settings: EngineSpec, sizes: signature.Sizes | None
) -> tuple[OpenVinoModel, tuple[Note, ...]]:
    """In the precision asked for, or in bf16 where this CPU is measurably faster in it."""
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    asked = settings.precision
    full = _load(core, path, settings, sizes, "fp32")
    stored = full.precision
    if asked == stored or (asked == "auto" and (stored != "fp32" or "BF16" not in able)):
        return full, ()
    if stored != "fp32":
        raise SpecError(
            f"{path} holds {stored} weights, not {asked}",
            f'export it in {asked}, or set engine.precision = "auto"',
        )
    half = "bf16" if asked == "auto" else asked
    if _CAPABLE[half] not in able:
        raise SpecError(f"this CPU does not calculate in {half}", 'set engine.precision = "fp32"')
    model = _load(core, path, settings, sizes, half)
    model.precision = half
    seen = beside.compare(model, full, settings.max_batch)
    if asked == "auto":
        text, wins = beside.verdict(half, seen)
        hint = f'set engine.precision = "{"fp32" if wins else half}" for the other'
        return (model if wins else full), (Note("precision", text, hint),)
    hint = 'set engine.precision = "fp32"' if seen.nonfinite else ""
    return model, (Note("precision", f"{half}, as asked: {seen.speed}; {seen.off}", hint),)


def _load(
    core: Any, path: Path, settings: EngineSpec, sizes: signature.Sizes | None, precision: str
) -> OpenVinoModel:
    proto = onnx_file.read(path)
    properties = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": device.threads(settings.threads, settings.instances),
        "ENABLE_CPU_PINNING": False,  # the server's loop and the load want to run, too
        "INFERENCE_PRECISION_HINT": _HINTS[precision],  # its default may be a half
    }
    try:
        compiled = core.compile_model(core.read_model(str(path)), "CPU", properties)
    except RuntimeError as error:
        raise SpecError(
            f"{path}: OpenVINO refuses it: {_short(str(error))}",
            'engine.backend = "onnxruntime" may know its operators',
        ) from error
    model = OpenVinoModel(compiled, files.name_of(path), proto)
    model.metadata["file"] = path.name
    inputs = onnx_ports.inputs(_ports(compiled.inputs), settings, path, onnx_file.shapeless(proto))
    names, doubts = onnx_ports.outputs(_ports(compiled.outputs), path)
    every = [port.get_any_name() for port in compiled.outputs]
    model.expect(inputs, {name: every.index(name) for name in names})
    try:
        found = signature.probe(model.raw, inputs, sizes or {}, rounds=_rounds(proto, precision))
    except SpecError as error:
        raise SpecError(f"{path}: {error.message}", error.hint) from error
    signature.require(found, tuple(parse_tensor(text) for text in settings.outputs))
    model.use(found, doubts)
    return model


def _rounds(proto: Any, precision: str) -> str:
    """See signature.probe."""
    if precision != "fp32":
        return f"kernels in {precision} differ between batch sizes"
    return onnx_file.rounds(proto)


def _ports(found: Any) -> list[_Port]:
    ports = []
    for port in found:
        name = port.element_type.get_type_name()
        dims = port.partial_shape
        shape = (
            ()
            if dims.rank.is_dynamic
            else tuple(None if dim.is_dynamic else dim.get_length() for dim in dims)
        )
        ports.append(_Port(port.get_any_name(), _TYPES.get(name, name), shape))
    return ports


def _short(text: str) -> str:
    """The end of OpenVINO's message: before it stand the places in its source."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason given"
