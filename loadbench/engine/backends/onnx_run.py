"""ONNX models through ONNX Runtime, on the CPU or on CUDA.

What is in the file, and whether it may be loaded at all, is told by `onnx_file`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from loadbench.engine import datatypes, device, files, libraries, signature
from loadbench.engine.backends import Arrays, onnx_file
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.spec import EngineSpec, parse_tensor

_LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
_RUN_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
_SILENT = 4  # ONNX Runtime writes its errors to stderr and raises them too: once is enough
_FULL = ("Failed to allocate memory", "out of memory", "bad_alloc", "BFCArena")


class OnnxModel:
    """A Model (see backends). `run` may be called from several threads."""

    def __init__(self, session: Any, name: str, where: str, proto: Any) -> None:
        self._session = session
        self._weights = onnx_file.weight_bytes(proto)
        self.name = name
        self.metadata = onnx_file.metadata(proto)
        told = self.metadata.get("version", "")
        self.version = told if told.isdecimal() else "1"
        self.platform = "onnxruntime_onnx"
        self.device = where
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
        feed = {t.name: _texts(arrays[t.name], t.datatype) for t in self.inputs}
        try:
            found = self._session.run(self._names, feed)
        except _RUN_ERRORS as error:
            text = str(error)
            if any(word in text for word in _FULL):
                raise MemoryError(f"{self.device} has no room for this batch") from error
            if "CUDA failure" in text or "CUDNN failure" in text:  # the device's fault
                raise
            raise SpecError(f"the model refuses this input: {_short(text)}") from error
        return {
            name: _typed(np.asarray(array)) for name, array in zip(self._names, found, strict=True)
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
    proto = onnx_file.read(path, custom=bool(settings.libraries))
    session, where, notes = _session(path, settings)
    model = OnnxModel(session, files.name_of(path), where, proto)
    model.metadata["file"] = path.name
    if settings.precision not in ("auto", model.precision):
        raise SpecError(
            f"{path} holds {model.precision} weights, and ONNX Runtime runs a file as it is",
            f'export it in {settings.precision}, or set engine.precision = "auto"',
        )
    outputs, doubts = _outputs(session, path)
    inputs = _inputs(session, settings, path, onnx_file.shapeless(proto))
    model.expect(inputs, outputs)
    try:
        found = signature.probe(model.raw, inputs, sizes or {})
    except SpecError as error:
        raise SpecError(f"{path}: {error.message}", error.hint) from error
    signature.require(found, tuple(parse_tensor(text) for text in settings.outputs))
    model.use(found, (*notes, *doubts))
    return model


def providers(where: str) -> list[Any]:
    """Execution providers for a device, the one wanted first."""
    if where == "cpu":
        return ["CPUExecutionProvider"]
    options = {
        "device_id": int(where.partition(":")[2]),
        # The arena would double with every larger batch, and the default search for convolution
        # algorithms tries them all again for each new batch size.
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
    }
    return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


def place(asked: str, known: list[str], cuda: device.Cuda) -> str:
    """The device, given the execution providers of this ONNX Runtime."""
    if "CUDAExecutionProvider" in known:
        return device.choose(asked, cuda)
    if asked.startswith("cuda"):
        raise SpecError(
            f"engine.device = {asked!r}, but this ONNX Runtime has no CUDA",
            "pip install onnxruntime-gpu in place of onnxruntime",
        )
    return "cpu"


def _session(path: Path, settings: EngineSpec) -> tuple[Any, str, tuple[Note, ...]]:
    ort.set_default_logger_severity(_SILENT)
    where = place(settings.device, ort.get_available_providers(), device.Nvml())
    session = _create(path, settings, where)
    if where == "cpu" or session.get_providers()[0] == "CUDAExecutionProvider":
        return session, where, ()
    text = f"ONNX Runtime cannot use {where}: CUDA or cuDNN is missing, or of another version"
    if settings.device != "auto":
        raise SpecError(text, 'set engine.device = "cpu", or install the CUDA that it asks for')
    return session, "cpu", (Note("device", f"{text}; the CPU is used", "see onnxruntime.ai"),)


def _create(path: Path, settings: EngineSpec, where: str) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = device.threads(settings.threads, settings.instances)
    options.inter_op_num_threads = 1
    # Spinning threads would take the cores that the server's loop and the load need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for library in settings.libraries:
        try:
            options.register_custom_ops_library(str(Path(library).resolve()))
        except _LOAD_ERRORS as error:
            raise libraries.cannot(library, error) from error
    try:
        return ort.InferenceSession(str(path), options, providers=providers(where))
    except _LOAD_ERRORS as error:
        raise SpecError(
            f"{path}: ONNX Runtime refuses it: {_short(str(error))}",
            "onnx.checker.check_model says more about what is wrong in a file",
        ) from error


def _inputs(
    session: Any, settings: EngineSpec, path: Path, shapeless: frozenset[str]
) -> tuple[Tensor, ...]:
    """As the graph says; --input may close dimensions that it leaves open, and must give those of
    `shapeless` inputs."""
    said = []
    for node in session.get_inputs():
        datatype = datatypes.ONNX.get(node.type)
        if datatype is None:
            raise SpecError(
                f"{path}: input {node.name!r} is a {node.type}, which cannot be served",
                "export it with tensor inputs of plain numbers",
            )
        shape = tuple(dim if isinstance(dim, int) and dim > 0 else -1 for dim in node.shape)
        said.append(Tensor(node.name, datatype, shape))
    given = {tensor.name: tensor for tensor in map(parse_tensor, settings.inputs)}
    for name in given.keys() - {tensor.name for tensor in said}:
        known = ", ".join(tensor.name for tensor in said)
        raise SpecError(f"{path} has no input {name!r}", f"its inputs: {known}")
    found = []
    for tensor in said:
        own = given.get(tensor.name)
        if tensor.name not in shapeless:
            found.append(_narrowed(tensor, own))
        elif own is None or own.datatype != tensor.datatype:
            raise SpecError(
                f"{path} does not say how many dimensions input {tensor.name!r} has",
                f"add --input {tensor.name}:{tensor.datatype}:DIMS, e.g. -1,3,224,224",
            )
        else:
            found.append(own)
    return tuple(found)


def _narrowed(said: Tensor, given: Tensor | None) -> Tensor:
    if given is None:
        return said
    fits = len(said.shape) == len(given.shape) and all(
        a in (-1, b) for a, b in zip(said.shape, given.shape, strict=True)
    )
    if said.datatype != given.datatype or not fits:
        dims = ",".join(map(str, said.shape))
        raise SpecError(
            f"--input {given.name} does not fit: the file says {said.datatype} [{dims}]",
            "leave it out, or close only dimensions that are -1",
        )
    return given


def _outputs(session: Any, path: Path) -> tuple[list[str], tuple[Note, ...]]:
    """Names of the outputs that are tensors; a note for each other."""
    names, notes = [], []
    for node in session.get_outputs():
        if node.type in datatypes.ONNX:
            names.append(node.name)
            continue
        text = f"output {node.name!r} is a {node.type} and is left out"
        notes.append(Note("output", text, "export it as a tensor (of scikit-learn: zipmap=False)"))
    if not names:
        raise SpecError(f"{path} has no output that is a tensor", notes[0].hint if notes else "")
    return names, tuple(notes)


def _texts(array: NDArray[Any], datatype: str) -> NDArray[Any]:
    """ONNX Runtime's strings are str, the protocol's are bytes."""
    if datatype != "BYTES":
        return array
    try:
        flat = [item.decode() if isinstance(item, bytes) else str(item) for item in array.flat]
    except UnicodeDecodeError as error:
        raise SpecError("the model takes UTF-8 texts, and this input is none") from error
    found = np.empty(len(flat), np.object_)
    found[:] = flat
    return found.reshape(array.shape)


def _typed(array: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    if array.dtype.kind in "OUS":
        flat = [str(item).encode() for item in array.flat]
        found = np.empty(len(flat), np.object_)
        found[:] = flat
        return "BYTES", found.reshape(array.shape)
    name = next(
        name for name, dtype in datatypes.NUMPY.items() if dtype == array.dtype and name != "BF16"
    )
    return name, array


def _short(text: str) -> str:
    """ONNX Runtime's message without its own error code in front."""
    line = text.strip().splitlines()[0] if text.strip() else "no reason given"
    return line.rpartition("[ONNXRuntimeError] : ")[2][:300]
