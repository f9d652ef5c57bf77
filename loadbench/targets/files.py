"""Reads input files into arrays: .npy, .npz, .json, lines and folders of images. Whether they fit a
model is for `columns` to say; here only what cannot be read is an error."""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loadbench.errors import SpecError
from loadbench.model import Tensor
from loadbench.targets.columns import column
from loadbench.targets.dataset import rows
from loadbench.targets.datatypes import DTYPES

if TYPE_CHECKING:
    from PIL.Image import Image

_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_KNOWN = "use .npy, .npz, .json, .jsonl, .txt or a folder of images"
IMAGES = 256  # read from a folder at most, if no other number is asked for

Item = tuple[str | None, NDArray[Any]]  # (datatype if the file says it, values)
Found = dict[str, Item]


def read(name: str, tensors: Sequence[Tensor], most: int = IMAGES) -> Found:
    """Arrays by the name of the model's tensor; of images `most`. Raises SpecError naming the
    file."""
    path = Path(name)
    if path.is_dir():
        return _folder(path, tensors, most)
    if not path.is_file():
        raise SpecError(f"{name}: no such file or folder", _KNOWN)
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return {_only(path, tensors): (None, np.load(path, allow_pickle=False))}
        if suffix == ".npz":
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {key: (None, arrays[key]) for key in arrays.files}
        if suffix == ".json":
            return _json(path, tensors)
        if suffix in (".jsonl", ".ndjson", ".txt"):
            return _lines(path, tensors)
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise SpecError(f"{name}: not readable as {suffix}: {error}", _KNOWN) from error
    raise SpecError(f"{name}: inputs cannot be read from {suffix or 'this'}", _KNOWN)


def _only(path: Path, tensors: Sequence[Tensor]) -> str:
    if len(tensors) != 1:
        names = ", ".join(tensor.name for tensor in tensors) or "unknown ones"
        raise SpecError(
            f"{path}: one array, but the model's are {names}", "use .npz with an array for each"
        )
    return tensors[0].name


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class _Request(msgspec.Struct):
    inputs: list[_Input]


def _json(path: Path, tensors: Sequence[Tensor]) -> Found:
    text = path.read_bytes()
    found: Any = msgspec.json.decode(text)  # a DecodeError is a ValueError
    if isinstance(found, dict) and isinstance(found.get("inputs"), list):
        request = msgspec.json.decode(text, type=_Request)
        return {item.name: (item.datatype, _values(path, item)) for item in request.inputs}
    if isinstance(found, list):
        return {_only(path, tensors): (None, column(found))}
    if isinstance(found, dict) and found:
        return {key: (None, column(values)) for key, values in found.items()}
    raise SpecError(f"{path}: neither a KServe request nor {{input: values}}", _KNOWN)


def _lines(path: Path, tensors: Sequence[Tensor]) -> Found:
    """A row of each tensor in each line, or a text."""
    found: dict[str, list[Any]] = {}
    for row in rows(str(path)):
        if not row.fields or (found and row.fields.keys() != found.keys()):
            known = ", ".join(found) or "nothing by name"
            hint = 'write { "input": value, … } in each line'
            raise SpecError(f"{row.where}: {', '.join(row.fields)} after {known}", hint)
        for key, value in row.fields.items():
            found.setdefault(key, []).append(value)
    if path.suffix.lower() == ".txt":
        return {_only(path, tensors): (None, column(found["line"]))}
    return {key: (None, column(values)) for key, values in found.items()}


def _values(path: Path, item: _Input) -> NDArray[Any]:
    if item.datatype not in DTYPES:
        text = f"{path}: input {item.name!r} has the unknown type {item.datatype!r}"
        raise SpecError(text, f"known: {', '.join(DTYPES)}")
    dtype = None if item.datatype in ("BYTES", "BF16") else DTYPES[item.datatype]
    return np.array(item.data, dtype).reshape(item.shape)


def images(name: str) -> list[Path]:
    """The images in a folder, if it is one."""
    path = Path(name)
    files = sorted(path.iterdir()) if path.is_dir() else []
    return [file for file in files if file.suffix.lower() in _IMAGES]


def _folder(path: Path, tensors: Sequence[Tensor], most: int) -> Found:
    """The folder's images, resized to the model's one image input."""
    import PIL
    from PIL import Image

    names = images(str(path))
    if not names:
        raise SpecError(f"{path}: no images in this folder", f"known: {', '.join(_IMAGES)}")
    name = _only(path, tensors)
    tensor = tensors[0]
    if len(tensor.shape) not in (2, 3) or tensor.datatype not in ("UINT8", "FP16", "BF16", "FP32"):
        size = "×".join(map(str, tensor.shape))
        raise SpecError(f"{path}: images do not fit input {name!r} ({tensor.datatype} {size})")
    found = []
    for file in names[:most]:
        try:
            with Image.open(file) as image:
                found.append(_pixels(image, tensor.shape))
        except (OSError, ValueError, PIL.UnidentifiedImageError) as error:
            raise SpecError(f"{file}: not readable as an image: {error}") from error
    pixels = np.stack(found)
    return {name: (None, pixels if tensor.datatype == "UINT8" else pixels / np.float32(255))}


def _pixels(image: "Image", shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Bytes of the image in the shape: H×W, C×H×W or H×W×C."""
    first = len(shape) == 3 and _channels_first(shape)
    channels, sides = (1, shape) if len(shape) == 2 else (shape[0], shape[1:])
    if len(shape) == 3 and not first:
        channels, sides = shape[2], shape[:2]
    height, width = sides
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
    if mode is None:
        raise SpecError(f"an image has 1, 3 or 4 channels, the input {channels}")
    pixels = np.asarray(image.convert(mode).resize((width, height)), np.uint8)
    if len(shape) == 2:
        return pixels
    pixels = pixels.reshape(height, width, -1)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) if first else pixels


def _channels_first(shape: tuple[int, ...]) -> bool:
    """Three is likelier a number of channels than one, one likelier than four."""
    for channels in (3, 1, 4):
        if channels in (shape[0], shape[2]):
            return shape[0] == channels
    return True
