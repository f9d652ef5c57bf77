"""Makes int8 of an fp32 ONNX model, with ONNX Runtime's quantisation.

`int8` is dynamic: weights are int8, activations are measured in each batch. `int8-static` measures
them here, on calibration rows, and also covers convolutions. What either costs in exactness is
measured against the fp32 model and said.
"""

import logging
import platform
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from loadbench.engine import files, signature
from loadbench.engine.backends import Model, beside
from loadbench.engine.datatypes import NUMPY
from loadbench.errors import SpecError
from loadbench.model import Note, Tensor
from loadbench.spec import EngineSpec

Rows = dict[str, NDArray[Any]]
Loaded = TypeVar("Loaded", bound=Model)

LARGEST = 1 << 30  # bytes of weights: beyond, ONNX's own tools need other forms of files
MOST_ROWS = 512
_MADE_UP = 64  # rows, where the user gives none
_STEP = 16  # of them at once
_PRODUCTS = ("MatMul", "Gemm", "Conv")
# Additions stay exact: with a mask of −10,000 on one side int8 would have nothing left for the
# other. What only clips or picks takes the int8 values on to the next product.
_STATIC = [*_PRODUCTS, "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool"]
_DYNAMIC = ["MatMul", "Gemm", "Attention", "LSTM"]  # a dynamic convolution is slower than fp32
_POOR = 0.1  # of the largest output: beyond, the note says what could help


def wanted(settings: EngineSpec) -> bool:
    """Whether the settings ask for int8."""
    return settings.precision in ("int8", "int8-static")


def opened(
    path: Path, settings: EngineSpec, load: Callable[[Path], Loaded]
) -> tuple[Loaded, tuple[Note, ...]]:
    """The model of `path` in int8, and what that changes. `load` loads an .onnx as it is.

    SpecError if it holds nothing that can be quantised, or calibration rows that do not fit it.
    """
    full = load(path)
    if full.precision == "int8":
        return full, (Note("precision", "int8: as the weights of the file are"),)
    if full.precision != "fp32":
        raise SpecError(
            f"{path} holds {full.precision} weights: int8 is made of fp32 ones",
            "export it in fp32, or leave out engine.precision",
        )
    static = settings.precision == "int8-static"
    rows = calibration(full, settings) if static else None
    with tempfile.TemporaryDirectory(prefix="loadbench-") as folder:
        target = Path(folder) / path.name
        done, all_of_them = quantise(path, target, rows, full.device)
        model = load(target)
    model.precision = "int8"
    given = rows[0] if rows and settings.calibration else None
    seen = beside.compare(model, full, settings.max_batch, given)
    how = _how(settings, rows, full.batched)
    text = f"int8 ({how}): {done} of {all_of_them} products; {seen.speed}; {seen.off}"
    return model, (Note("precision", text, _advice(seen, settings)),)


def quantise(path: Path, target: Path, rows: Sequence[Rows] | None, where: str) -> tuple[int, int]:
    """Writes the int8 model: static with calibration `rows`, else dynamic. Returns how many matrix
    products and convolutions are int8 now, and how many there are."""
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static

    proto = _read(path)
    before = _count(proto, _PRODUCTS)
    reduced = _saturates()
    with _quiet(path):
        if rows is None:
            quantize_dynamic(
                proto,
                target,
                op_types_to_quantize=_DYNAMIC,
                per_channel=True,
                reduce_range=reduced,
                weight_type=QuantType.QInt8,
            )
        else:
            symmetric = where != "cpu"  # TensorRT knows no zero point; CPUs are faster with one
            quantize_static(
                proto,
                target,
                _Reader(rows),
                op_types_to_quantize=_STATIC,
                per_channel=True,
                reduce_range=reduced,
                activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options={"ActivationSymmetric": symmetric},
            )
    done = _done(onnx.load(str(target)), rows is not None)
    if not done:
        products = "a matrix product" if rows is None else "a product or convolution"
        raise SpecError(
            f"{path} has nothing to quantise: there is not {products} with constant weights",
            'engine.precision = "int8-static" takes convolutions, too'
            if rows is None and _count(proto, ("Conv",))
            else 'engine.precision = "fp32" serves it as it is',
        )
    return done, before


def calibration(model: Model, settings: EngineSpec) -> list[Rows]:
    """Batches to calibrate with: the user's, else made up from what the inputs are said to be."""
    if not settings.calibration:
        if not model.batched:
            return [signature.inputs_of(model, 1, seed) for seed in range(2, 2 + _STEP)]
        step = min(_STEP, model.max_batch or _STEP)
        seeds = range(2, 2 + _MADE_UP // step)
        return [signature.inputs_of(model, step, seed) for seed in seeds]
    path = Path(settings.calibration).expanduser()
    found = _loaded(path, model)
    number = min(len(array) for array in found.values())
    if not model.batched:
        return [{name: array[i] for name, array in found.items()} for i in range(number)]
    step = min(_STEP, model.max_batch or _STEP)
    return [
        {name: array[i : i + step] for name, array in found.items()} for i in range(0, number, step)
    ]


def _loaded(path: Path, model: Model) -> Rows:
    """Rows of every input, from an .npz by name or an .npy for the only one."""
    try:
        arrays = _arrays(path, model.inputs[0].name)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SpecError(
            f"engine.calibration: {path} cannot be read: {error}",
            "give an .npz with an array of rows for each input, or an .npy for the only one",
        ) from error
    for tensor in model.inputs:
        if tensor.name not in arrays:
            held = ", ".join(arrays)
            raise SpecError(
                f"engine.calibration: {path} has no rows for input {tensor.name!r}",
                f"it holds {held}",
            )
    return {tensor.name: _fitting(arrays[tensor.name], tensor, path) for tensor in model.inputs}


def _arrays(path: Path, only: str) -> Rows:
    files.require_size(path.stat().st_size, str(path))
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        files.require_size(unpacked, f"{path}, unpacked,")
    given = np.load(path, mmap_mode="r", allow_pickle=False)
    if isinstance(given, np.ndarray):
        return {only: given}
    with given:
        return {name: given[name] for name in given.files}


def _fitting(array: NDArray[Any], tensor: Tensor, path: Path) -> NDArray[Any]:
    """The rows in the input's type; SpecError if their shape is another, or they are no numbers."""
    shape = tensor.shape
    fits = array.ndim == 1 + len(shape) and all(
        want in (-1, size) for want, size in zip(shape, array.shape[1:], strict=True)
    )
    if not fits or array.dtype.kind not in "biuf" or not array.size:
        said, dims = "×".join(map(str, array.shape)), ",".join(map(str, shape))
        raise SpecError(
            f"engine.calibration: {path} holds {said} of {array.dtype}",
            f"rows of {tensor.datatype} [{dims}] are wanted, one after the other",
        )
    found = np.ascontiguousarray(array[:MOST_ROWS]).astype(NUMPY[tensor.datatype])
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise SpecError(f"engine.calibration: {path} holds NaN or infinity", "leave such rows out")
    return found


class _Reader:
    """What ONNX Runtime's calibration asks for rows."""

    def __init__(self, rows: Sequence[Rows]) -> None:
        self._rows = iter(rows)

    def get_next(self) -> Rows | None:
        return next(self._rows, None)


def _read(path: Path) -> onnx.ModelProto:
    """The model with its weights, without the shapes that its exporter noted: those of weights
    become wrong where the quantisation transposes them."""
    proto = onnx.load(str(path))
    if proto.ByteSize() > LARGEST:
        raise SpecError(
            f"{path} holds more than {LARGEST >> 30} GiB of weights, too many to be made int8 here",
            "quantise it beforehand, with onnxruntime.quantization, and serve the result",
        )
    del proto.graph.value_info[:]
    return proto


def _count(proto: onnx.ModelProto, kinds: Sequence[str]) -> int:
    found = Counter(node.op_type for node in proto.graph.node)
    return sum(found[kind] for kind in kinds)


def _done(proto: onnx.ModelProto, static: bool) -> int:
    """How many products are int8."""
    if not static:
        return _count(proto, ("MatMulInteger", "DynamicQuantizeLSTM", "QAttention"))
    made = {name for node in proto.graph.node if node.op_type == "DequantizeLinear"
            for name in node.output}  # fmt: skip
    return sum(
        node.op_type in _PRODUCTS and set(node.input[:2]) <= made for node in proto.graph.node
    )


def _how(settings: EngineSpec, rows: Sequence[Rows] | None, batched: bool) -> str:
    if rows is None:
        return "dynamic"
    number = sum(len(next(iter(batch.values()))) if batched else 1 for batch in rows)
    whose = settings.calibration or "made up at random"
    return f"static, calibrated with {number} rows, {whose}"


def _advice(seen: beside.Beside, settings: EngineSpec) -> str:
    static = settings.precision == "int8-static"
    if static and not settings.calibration:
        return "engine.calibration = rows.npz calibrates with true ones"
    if seen.nonfinite or seen.error > _POOR or seen.gain < 1:
        other = "" if static else '"int8-static" or '
        return f'engine.precision = {other}"fp32" may serve better'
    return ""


def _saturates() -> bool:
    """Whether the CPU adds up two products of 8 bits in 16: x86 without VNNI does, and loses what
    does not fit unless weights keep to 7 bits."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return True


@contextmanager
def _quiet(path: Path) -> Iterator[None]:
    """Without the advice that the quantiser logs; its faults are the file's."""
    handlers, level = list(logging.root.handlers), logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    except (ValueError, KeyError, RuntimeError, NotImplementedError, AttributeError) as error:
        line = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
        raise SpecError(
            f"{path} cannot be made int8: {line[:300]}", 'engine.precision = "fp32" does without'
        ) from error
    finally:
        logging.disable(level)
        logging.root.handlers[:] = handlers
