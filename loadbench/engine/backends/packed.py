"""Weights of layers laid out once, at loading, as oneDNN multiplies them. On CPUs only.

torch's own linear layers hand their weights over as they lie, to a library (MKL) that is slow on
the processors of others than Intel; convolutions are laid out anew in every batch. Laid out once, a
batch takes down to 0.4 of the time, for the memory of a second copy. Whether it does on this
machine is measured, and the layers stay as they are where it does not.

These are the operators that torch.compile uses after freezing a model; nothing is compiled here.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from loadbench import units
from loadbench.engine import device, outputs, signature
from loadbench.engine.backends import beside
from loadbench.engine.backends.torch_run import DTYPES, TorchModel
from loadbench.errors import SpecError
from loadbench.model import Note
from loadbench.spec import EngineSpec
from loadbench.units import gigabytes

GAIN, LOSS = 1.05, 0.95  # so much faster at the largest batch, and no slower than this with one row
_LEAST = 1 << 12  # weights of a layer for which it is worth it
_ROOM = 2  # times the copy must be free
_ops = torch.ops.mkldnn
_ALONE: tuple[str, list[float], str] = ("none", [], "")  # nothing is fused behind it

Call = Callable[[torch.Tensor], torch.Tensor]


def pack(model: TorchModel, settings: EngineSpec) -> tuple[Note, ...]:
    """Packs what can be packed, as the settings say; where they leave it open, if it is faster.

    Before the precision is chosen, whose `lower` and `restore` call `renew`.
    """
    layers = list(_layers(model))
    asked = settings.packed is True
    reason = "" if layers else "the model has no large linear layers or convolutions"
    if model.device != "cpu" or model.platform != "pytorch":
        reason = "that is for modules on CPUs, not for cards or files of code"
    if settings.backend == "torch-compile":
        reason = "torch.compile lays weights out by itself"
    if not reason:
        size = sum(layer.weight.nbytes for layer in layers)
        free = device.open_device("cpu", settings.sim).memory().free
        if size * _ROOM > free:
            reason = f"a second copy takes {gigabytes(size)} of {gigabytes(free)} GB that are free"
    if reason and asked:
        return (Note("packed", f"no weights are packed although engine.packed = true: {reason}"),)
    if reason or settings.packed is False:
        return ()
    return _packed(model) if asked else _faster(model, settings.max_batch)


def renew(model: TorchModel) -> None:
    """The weights are others now: lays them out again where they were."""
    if model.packs:
        unpack(model)
        try:
            _lay_out(model)
        except RuntimeError:  # fp16, which few processors can
            unpack(model)


def unpack(model: TorchModel) -> None:
    """The layers as they were."""
    for layer in model.packs:
        del layer.forward
    model.packs = ()
    model.packed = 0
    model.metadata.pop("packed", None)


def _packed(model: TorchModel) -> tuple[Note, ...]:
    try:
        _lay_out(model)
    except RuntimeError as error:
        return _not_here(model, error)
    return (Note("packed", f"weights of {_number(model)} packed for oneDNN, as asked"),)


def _not_here(model: TorchModel, error: BaseException) -> tuple[Note, ...]:
    unpack(model)
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].strip()
    return (Note("packed", f"no weights are packed: torch cannot do that here ({line})"),)


def _faster(model: TorchModel, largest: int) -> tuple[Note, ...]:
    rows, many = beside.usual_rows(model, largest)
    one = beside.time(model, 1)
    arrays = signature.inputs_of(model, min(rows, 2))
    exact = model.run(arrays)
    try:
        _lay_out(model)
        found = model.run(arrays)
        quick, quick_one = beside.time(model, rows), beside.time(model, 1)
    except (RuntimeError, SpecError, MemoryError) as error:
        return _not_here(model, error)
    seen = beside.Beside(
        outputs.difference(found, exact, model.outputs),
        beside.broken(found, exact, model.outputs),
        rows,
        many.fastest_ns / quick.fastest_ns,
        one.fastest_ns / quick_one.fastest_ns,
    )
    speed = f"{seen.gain:.2g} × as fast at batch {rows}, {seen.gain_one:.2g} × with one row"
    if seen.nonfinite or seen.gain < GAIN or seen.gain_one < LOSS:
        unpack(model)
        return (Note("packed", f"weights are not packed for oneDNN: only {speed}"),)
    off = f"outputs differ by up to {units.percent(seen.error)} %"
    text = f"weights of {_number(model)} packed for oneDNN: {speed}; {off}"
    return (Note("packed", text, "engine.packed = false takes them as they are"),)


def _lay_out(model: TorchModel) -> None:
    """RuntimeError if this torch or this processor cannot."""
    done: list[nn.Module] = []
    with torch.inference_mode():
        for layer in _layers(model):
            made = _linear(layer) if type(layer) is nn.Linear else _convolution(layer)
            layer.forward = made
            done.append(layer)
            model.packs = tuple(done)
            model.packed += layer.weight.nbytes
    model.metadata["packed"] = len(done)


def _layers(model: TorchModel) -> Iterator[Any]:
    """Those with weights in the model's precision: autocast casts the others in every batch."""
    for part in model.program.module.modules():
        if type(part) not in (nn.Linear, nn.Conv2d) or part._forward_hooks:
            continue
        weight: torch.Tensor = part.weight  # type: ignore[assignment]
        right = weight.dtype is DTYPES.get(model.precision) and type(weight) is nn.Parameter
        if right and not part._forward_pre_hooks and weight.numel() >= _LEAST and _simple(part):
            yield part


def _simple(layer: Any) -> bool:
    """Whether a convolution pads with zeros, so many that they can be given as numbers."""
    return type(layer) is nn.Linear or (
        layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    )


# What stands in for a layer's `forward` must not hold the layer: the two would go only when the
# collector sees them, and it looks no more at what was there when the engine began to serve


def _linear(layer: Any) -> Call:
    own, bias, product = layer.weight, layer.bias, _ops._linear_pointwise
    weight = _ops._reorder_linear_weight(own)

    def plain(x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, own, bias)

    return _called(lambda x: product(x, weight, bias, *_ALONE), plain, own.dtype)


def _convolution(layer: Any) -> Call:
    where = (layer.padding, layer.stride, layer.dilation, layer.groups)
    padding, stride, dilation, groups = where
    own, bias, convolved = layer.weight, layer.bias, _ops._convolution_pointwise
    weight = _ops._reorder_convolution_weight(own, *where, None)

    def plain(x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, own, bias, stride, padding, dilation, groups)

    def quick(x: torch.Tensor) -> torch.Tensor:
        if x.dim() != 4:  # one image without a batch
            return plain(x)
        found: torch.Tensor = convolved(x, weight, bias, *where, *_ALONE)
        return found

    return _called(quick, plain, own.dtype)


def _called(quick: Call, plain: Call, dtype: torch.dtype) -> Call:
    """Casts as autocast would. What the packed layer cannot do the plain one does, or says in
    torch's own words why not."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.dtype is not dtype:
            if not torch.is_autocast_enabled("cpu"):
                return plain(x)
            x = x.to(dtype)
        try:
            return quick(x)
        except RuntimeError:
            return plain(x)

    return forward


def _number(model: TorchModel) -> str:
    number = len(model.packs)
    return f"{number} layers" if number > 1 else "one layer"
