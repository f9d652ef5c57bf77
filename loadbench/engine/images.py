"""The plugin `image`: 8-bit pictures as clients have them → the floats that a model was trained on.

How that is done is said by the model's file (`preprocess_params`, in the words of torchvision, timm
or Hugging Face) or by the plugin's options, which come first. Nothing is resized: clients send the
size that the model takes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadbench.engine.backends import Arrays, Model
from loadbench.errors import SpecError
from loadbench.model import Tensor
from loadbench.targets.datatypes import FLOATS

_WORDS = {  # ours first
    "mean": ("mean", "image_mean"),
    "std": ("std", "image_std"),
    "scale": ("scale", "rescale_factor"),
    "layout": ("layout", "data_format"),
}
_LAYOUTS = {"HWC": "HWC", "CHW": "CHW", "CHANNELS_LAST": "HWC", "CHANNELS_FIRST": "CHW"}


def image(options: Mapping[str, Any], model: Model, what: str) -> Callable[[Arrays], Any]:
    """(pixels · scale − mean) / std, as CHW floats. `scale` is 1/255, `mean` 0, `std` 1, and the
    `layout` that clients send HWC, unless something else is said. SpecError if it says nonsense or
    the model takes no images."""
    unknown = options.keys() - {"input", *_WORDS}
    if unknown:
        raise SpecError(
            f"{what} image has no option {min(unknown)!r}", f"known: input, {', '.join(_WORDS)}"
        )
    tensor = _picture(model, options.get("input"), what)
    told = model.metadata.get("preprocess_params")
    said = {**_ours(told if isinstance(told, Mapping) else {}), **options}
    channels, height, width = tensor.shape
    scale, mean, std = (_numbers(said, name, channels, what) for name in ("scale", "mean", "std"))
    if not std.all():
        raise SpecError(f"{what} image: a std of 0 would divide by nothing")
    layout = _LAYOUTS.get(str(said.get("layout", "HWC")).upper())
    if layout is None:
        raise SpecError(f"{what} image: layout is {said['layout']!r}", "HWC or CHW")
    factor, offset = (scale / std).astype(np.float32), (-mean / std).astype(np.float32)

    def call(arrays: Arrays) -> dict[str, NDArray[Any]]:
        pixels = arrays[tensor.name]
        if layout == "HWC":
            pixels = np.moveaxis(pixels, -1, -3)
        found = np.multiply(pixels, factor, dtype=np.float32, order="C")
        found += offset
        return {**arrays, tensor.name: found}

    dims = (height, width, channels) if layout == "HWC" else tensor.shape
    lead = (-1,) if model.batched else ()
    call.inputs = tuple(  # type: ignore[attr-defined]
        _written(Tensor(t.name, "UINT8", (*lead, *dims)))
        if t is tensor
        else _written(Tensor(t.name, t.datatype, (*lead, *t.shape)))
        for t in model.inputs
    )
    return call


def _picture(model: Model, name: str | None, what: str) -> Tensor:
    """The input that takes images: floats of channels × height × width."""
    found = [
        tensor
        for tensor in model.inputs
        if tensor.datatype in FLOATS and len(tensor.shape) == 3 and name in (None, tensor.name)
    ]
    if len(found) != 1 or found[0].shape[0] < 1:
        which = f"input {name!r}" if name else "one input"
        raise SpecError(
            f"{what} image: {model.name} has not {which} of floats [channels, height, width]",
            'options = {input = "NAME"} says which it is',
        )
    return found[0]


def _ours(told: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        name: told[word]
        for name, words in _WORDS.items()
        for word in words
        if told.get(word) is not None
    }


def _numbers(said: Mapping[str, Any], name: str, channels: int, what: str) -> NDArray[np.float64]:
    """One number for each channel, to be multiplied with CHW."""
    default = {"scale": 1 / 255, "mean": 0.0, "std": 1.0}[name]
    try:
        found = np.asarray(said.get(name, default), np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise SpecError(f"{what} image: {name} is {said[name]!r}, no numbers") from error
    if found.size not in (1, channels) or not np.isfinite(found).all():
        raise SpecError(f"{what} image: {name} is {said[name]!r}", f"one number, or {channels}")
    return np.broadcast_to(found, channels).reshape(channels, 1, 1)


def _written(tensor: Tensor) -> str:
    return f"{tensor.name}:{tensor.datatype}:{','.join(map(str, tensor.shape))}"
