"""ONNX models through ONNX Runtime, on the CPU, on CUDA or through TensorRT.

What is in the file, and whether it may be loaded at all, is told by `onnx_file`; who runs it by
`onnx_providers`; how int8 is made of it by `onnx_int8`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from loadbench.engine import device, files, outputs, signature
from loadbench.engine.backends import (
    Arrays,
    beside,
    onnx_file,
    onnx_int8,
    onnx_ports,
    onnx_providers,
)
from loadbench.engine.backends.onnx_bound import Bound
from loadbench.engine.backends.onnx_providers import Opened, Placed, Wanted, short
from loadbench.engine.backends.stated import stated
from loadbench.engine.device.broken import fault_of, lacks_memory
from loadbench.engine.measure import sizes as buckets
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.spec import EngineSpec, parse_tensor
from loadbench.units import percent

_RUN_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)

Call = Callable[[Sequence[str], Mapping[str, NDArray[Any]]], Sequence[Any]]


class OnnxModel:
    """A Model (see backends). `run` may be called from several threads."""

    def __init__(self, opened: Opened, call: Call, name: str, proto: Any) -> None:
        self.session = opened.session
        self.provider = opened.placed.provider
        self.lost = opened.lost
        self._call = call
        self._weights = onnx_file.weight_bytes(proto)
        self.name = name
        self.metadata = onnx_file.metadata(proto)
        told = self.metadata.get("version", "")
        self.version = told if told.isdecimal() else "1"
        self.platform = "onnxruntime_onnx"
        self.device = opened.placed.where
        self.precision = onnx_file.precision(proto)
        self.max_batch: int | None = None
        self.batched = False
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: tuple[Tensor, ...] = ()
        self.notes: tuple[Note, ...] = ()
        self._names: list[str] = []

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        return {name: array for name, (_, array) in self.raw(arrays).items()}

    def raw(self, arrays: Arrays) -> dict[str, tuple[str, NDArray[Any]]]:
        """Outputs by name with their datatypes."""
        feed = {t.name: onnx_ports.texts(arrays[t.name], t.datatype) for t in self.inputs}
        try:
            found = self._call(self._names, feed)
        except _RUN_ERRORS as error:
            if lacks_memory(str(error)):
                raise MemoryError(f"{self.device} has no room for this batch") from error
            if fault_of(error):
                raise
            raise SpecError(f"the model refuses this input: {short(str(error))}") from error
        return {
            name: onnx_ports.typed(np.asarray(array))
            for name, array in zip(self._names, found, strict=True)
        }

    def use(self, found: signature.Signature, notes: tuple[Note, ...]) -> None:
        """Takes over what probing found out."""
        self.inputs, self.outputs, self.batched = found.inputs, found.outputs, found.batched
        self.notes = (*notes, *found.notes)
        if found.sizes:
            self.metadata["sizes"] = found.sizes

    def expect(self, inputs: tuple[Tensor, ...], outputs: list[str]) -> None:
        """What to feed and fetch until the signature is known."""
        self.inputs, self._names = inputs, outputs

    def memory(self) -> dict[str, int]:
        """The weights alone: ONNX Runtime does not tell what its arenas hold."""
        return {"CPU" if self.device == "cpu" else "GPU": self._weights}


def open_onnx(path: Path, settings: EngineSpec, sizes: signature.Sizes | None = None) -> OnnxModel:
    """Loads the file and finds out its signature; `sizes` are usual ones for open dimensions."""
    placed = onnx_providers.place(settings, ort.get_available_providers(), device.Nvml())
    if settings.graphs is True and placed.provider == "cpu":
        raise SpecError(
            "engine.graphs = true, but the model runs on the CPU",
            'leave it out, or set engine.device = "cuda"',
        )
    if onnx_int8.wanted(settings):
        model, notes = onnx_int8.opened(path, settings, lambda p: _load(p, settings, sizes, placed))
    else:
        model = _load(path, settings, sizes, placed)
        notes = _settle(model, path, settings, sizes)
    who = f"{onnx_providers.TITLES[model.provider]} provider"
    said = stated(model, "onnxruntime", settings, who, model.lost)
    model.notes = (said, *model.notes, *notes)
    return model


def _load(
    path: Path, settings: EngineSpec, sizes: signature.Sizes | None, placed: Placed
) -> OnnxModel:
    """The file as it is, on the provider, its signature found out."""
    proto = onnx_file.read(path, custom=bool(settings.libraries))
    wanted = _wanted(proto, path, settings, placed, sizes or {})
    opened = onnx_providers.open_session(path, settings, placed, wanted)
    session, where = opened.session, opened.placed.where
    bound = Bound(session, where, wanted.graphs) if where != "cpu" else None
    model = OnnxModel(opened, bound or session.run, files.name_of(path), proto)
    model.metadata["file"] = path.name
    names, doubts = onnx_ports.outputs(session.get_outputs(), path)
    shapeless = onnx_file.shapeless(proto)
    model.expect(onnx_ports.inputs(session.get_inputs(), settings, path, shapeless), names)
    try:
        found = signature.probe(model.raw, model.inputs, sizes or {}, rounds=_rounds(proto, wanted))
    except SpecError as error:
        raise SpecError(f"{path}: {error.message}", error.hint) from error
    signature.require(found, tuple(parse_tensor(text) for text in settings.outputs))
    model.use(found, doubts)
    if bound is not None and wanted.graphs:
        asked = {size for size in settings.buckets if size <= settings.max_batch}
        rows = sorted(asked) or buckets(settings.max_batch)
        bound.record(rows if found.batched else (1,), found.batched)
        if found.batched:  # the batcher pads to these, and plans with them
            model.metadata["buckets"] = list(rows)
    return model


def _wanted(
    proto: Any, path: Path, settings: EngineSpec, placed: Placed, sizes: signature.Sizes
) -> Wanted:
    """What the provider is to be told."""
    if placed.provider == "cpu":
        return Wanted()
    asked = settings.precision
    precision = onnx_file.precision(proto) if asked in ("auto", "int8-static") else asked
    memory = None
    if settings.gpu_memory is not None:
        index = int(placed.where.partition(":")[2])
        memory = round(settings.gpu_memory * device.Nvml().mem_get_info(index)[1])
    if placed.provider != "tensorrt":
        return Wanted(precision, memory, settings.graphs is True)
    profile = onnx_file.profile(proto, settings.max_batch, sizes, settings.inputs)
    data = onnx_file.data_files(proto, path)
    cache = onnx_providers.cache_of(path, data)
    return Wanted(precision, memory, settings.graphs is True, profile, cache)


def _rounds(proto: Any, wanted: Wanted) -> str:
    """See signature.probe."""
    if wanted.precision in ("fp16", "bf16"):
        return f"kernels in {wanted.precision} differ between batch sizes"
    return onnx_file.rounds(proto)


def _settle(
    model: OnnxModel, path: Path, settings: EngineSpec, sizes: signature.Sizes | None
) -> tuple[Note, ...]:
    """ONNX Runtime runs a file in the precision it has; only TensorRT lowers it."""
    stored, asked = model.precision, settings.precision
    if asked in ("auto", stored):
        return ()
    if model.provider != "tensorrt" or asked not in ("fp16", "bf16") or stored != "fp32":
        raise SpecError(
            f"{path} holds {stored} weights, and ONNX Runtime runs a file as it is",
            f'export it in {asked}, or set engine.precision = "auto"',
        )
    model.precision = asked
    arrays = signature.inputs_of(model, 2)
    exact = _load(path, settings, sizes, Placed("cpu", "cpu")).run(arrays)
    found = model.run(arrays)
    if beside.broken(found, exact, model.outputs):
        text = f"{asked}, as asked, gives NaN or infinity where fp32 gives numbers"
        return (Note("precision", text, 'set engine.precision = "bf16" or "fp32"'),)
    off = percent(outputs.difference(found, exact, model.outputs))
    text = f"{asked} by TensorRT, as asked: outputs differ from fp32 by up to {off} %"
    return (Note("precision", text),)
