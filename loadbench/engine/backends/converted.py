"""The zoo's models in the other forms that people serve: ONNX, TorchScript, torch.export.

So that two backends can be compared on the same weights. The files are like anybody's and go the
same way as theirs.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from loadbench.engine import datatypes, signature, zoo
from loadbench.engine.backends import Model
from loadbench.engine.backends.torch_run import TorchModel
from loadbench.errors import SpecError
from loadbench.model import Tensor
from loadbench.spec import EngineSpec


def open_converted(name: str, settings: EngineSpec, where: str) -> TorchModel:
    """A zoo model through TorchScript or torch.export, as `settings.backend` says."""
    from loadbench.engine.backends import exported, torchscript

    entry = zoo.build(name, settings.seed)
    metadata = {"source": "zoo", "seed": settings.seed, "sizes": entry.sizes}
    told = settings.model_copy(update={"outputs": tuple(_text(t) for t in entry.outputs)})
    if settings.backend == "torch-export":
        return exported.from_program(_exported(entry), name, told, where, metadata)
    told = told.model_copy(update={"inputs": tuple(_text(t) for t in entry.inputs)})
    module = _scripted(entry).to(where)
    return torchscript.from_script(module, name, told, where, metadata)


def open_as_onnx(
    name: str, settings: EngineSpec, load: Callable[[Path, EngineSpec, signature.Sizes], Model]
) -> Model:
    """A zoo model through whoever runs ONNX: `load` opens the file that is made of it."""
    with tempfile.TemporaryDirectory(prefix="loadbench-") as folder:
        path = Path(folder) / f"{name}.onnx"
        entry = save(name, settings.seed, path)
        return load(path, settings, entry.sizes)


def save(name: str, seed: int, path: Path) -> zoo.Entry:
    """Writes a zoo model as `path`'s suffix says: .onnx, .pt2 (torch.export), .pt (TorchScript)."""
    entry = zoo.build(name, seed)
    if path.suffix == ".onnx":
        _save_onnx(entry, path)
    elif path.suffix == ".pt2":
        torch.export.save(_exported(entry), path)
    else:
        with _quiet():
            _scripted(entry).save(str(path))
    return entry


def _save_onnx(entry: zoo.Entry, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401 (torch's exporter is built on it)
    except ImportError as error:
        raise SpecError(
            "making ONNX files needs onnxscript, which is not installed",
            "pip install 'loadbench[export]', or give the path of an .onnx",
        ) from error
    with _quiet():
        torch.onnx.export(
            _rearranged(entry),
            _example(entry),
            str(path),
            dynamo=True,
            verbose=False,
            dynamic_shapes=_open_axes(entry),
            input_names=[tensor.name for tensor in entry.inputs],
            output_names=[tensor.name for tensor in entry.outputs],
            external_data=False,
        )


def _exported(entry: zoo.Entry) -> torch.export.ExportedProgram:
    with _quiet():
        return torch.export.export(
            _rearranged(entry), _example(entry), dynamic_shapes=_open_axes(entry)
        )


def _rearranged(entry: zoo.Entry) -> torch.nn.Module:
    """Weights in plain order: torch.export.save doubts that others are whole."""
    module = entry.module.eval()
    plain: torch.nn.Module = module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return plain


def _scripted(entry: zoo.Entry) -> Any:
    with _quiet():
        return torch.jit.trace(entry.module.eval(), _example(entry))  # type: ignore[no-untyped-call]


def _example(entry: zoo.Entry) -> tuple[torch.Tensor, ...]:
    rows = tuple(Tensor(t.name, t.datatype, t.shape[1:]) for t in entry.inputs)
    arrays = signature.example(rows, 2, entry.sizes)
    return tuple(datatypes.to_torch(arrays[t.name], t.datatype) for t in entry.inputs)


def _open_axes(entry: zoo.Entry) -> tuple[dict[int, Any], ...]:
    """What is −1 in the entry stays open; which axes are one size torch finds out itself."""
    return tuple(
        {axis: torch.export.Dim.AUTO for axis, size in enumerate(tensor.shape) if size == -1}
        for tensor in entry.inputs
    )


def _text(tensor: Tensor) -> str:
    return f"{tensor.name}:{tensor.datatype}:{','.join(map(str, tensor.shape))}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks: deprecations inside torch, TorchScript's own deprecation,
    axes renamed, and torchvision not being there, which no zoo model uses."""
    noisy = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = noisy.level
    noisy.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", ".*axis name.*will not be used", UserWarning)
            yield
    finally:
        noisy.setLevel(level)
