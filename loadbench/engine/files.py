"""What kind of model a file holds, told from its content; nothing in it is executed here.

Suffixes mean little: .pt is TorchScript, an exported program or a checkpoint. How each kind is
loaded is its backend's business, as is what can only be seen inside.
"""

import json
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from loadbench import units
from loadbench.engine import device
from loadbench.errors import SpecError

Kind = Literal["onnx", "torchscript", "export", "checkpoint", "safetensors"]

LARGEST = 64 * 2**30  # bytes: what is larger is no model for one machine
_VERSIONS = ("version", "model_version", "epoch", "global_step", "step")
_KINDS = (
    "loadbench serves .onnx, TorchScript, torch.export (.pt2), .safetensors and torch checkpoints"
)
_STRANGERS = {  # how files begin that people take for servable models
    b"GGUF": "a GGUF file (llama.cpp)",
    b"\x89HDF": "an HDF5 file (Keras)",
    b"ftrt": "a TensorRT engine",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"version https://git-lfs": "a Git LFS pointer: `git lfs pull` fetches the file itself",
}
TITLES: dict[Kind, str] = {
    "onnx": "an ONNX model",
    "torchscript": "a TorchScript archive",
    "export": "a torch.export archive",
    "checkpoint": "a torch checkpoint",
    "safetensors": "a safetensors file",
}


def detect(path: Path) -> Kind:
    """The kind of model in `path`; SpecError if there is none, or it is cut off or too large."""
    size = _size(path)
    with path.open("rb") as file:
        head = file.read(64)
    for start, what in _STRANGERS.items():
        if head.startswith(start):
            raise SpecError(f"{path} is {what}", _KINDS)
    if head.startswith(b"PK\x03\x04"):
        return _in_zip(path)
    if head[4:8] == b"ORTM":
        raise SpecError(f"{path} is in ONNX Runtime's own format", "give the .onnx it was made of")
    if len(head) > 8 and head[8:9] == b"{":
        (length,) = struct.unpack("<Q", head[:8])
        if 8 + length > size:
            raise broken(path, f"its header says {length} bytes, the file has {size - 8}")
        return "safetensors"
    if head[:1] == b"\x80":  # pickle's PROTO: torch.save before 1.6
        return "checkpoint"
    if head[:1] == b"\x08" or path.suffix == ".onnx":  # protobuf: field 1, ir_version
        return "onnx"
    raise SpecError(f"{path} is not a model file", _KINDS)


def name_of(path: Path) -> str:
    """The model's name in URLs: the file's, with what a URL would have to escape as dashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "model"


def broken(path: Path, why: str) -> SpecError:
    """The error for a file that began like a model and does not hold one."""
    return SpecError(f"{path} is damaged: {why}", "was it copied to its end?")


def told(found: Mapping[Any, Any]) -> dict[str, Any]:
    """What a file says of itself beside its weights: version and preprocessing, as plain values."""
    kept: dict[str, Any] = {}
    for name in _VERSIONS:
        value = found.get(name)
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            kept["version"] = str(value)
            break
    preprocess = found.get("preprocess_params")
    if isinstance(preprocess, str):  # safetensors and ONNX carry texts only
        try:
            preprocess = _plain(json.loads(preprocess))
        except (json.JSONDecodeError, RecursionError):
            kept["preprocess_params"] = preprocess
            return kept
    if preprocess is not None:
        kept["preprocess_params"] = _plain(preprocess)
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "tolist"):  # a tensor or an array
        return value.tolist()
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            raise SpecError(f"{path} is a folder", f"give the file in it; {_KINDS}")
        if not path.exists():
            raise SpecError(f"{path}: no such model file", "give the path of a file that exists")
        if not path.is_file():
            raise SpecError(f"{path} is not a regular file", _KINDS)
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror or error}", "see its permissions") from error
    if size == 0:
        raise SpecError(f"{path} is empty", "was it copied to its end?")
    require_size(size, str(path))
    return size


def require_size(size: int, what: str) -> None:
    """SpecError if so many bytes are more than a model's, or more than fit in memory."""
    if size > LARGEST:
        largest = units.gigabytes(LARGEST)
        raise SpecError(f"{what} holds {units.gigabytes(size)} GB", f"at most {largest} GB")
    device.require_room(size, what)


def _in_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile as error:
        raise broken(path, "the archive has no end") from error
    except (OSError, ValueError, NotImplementedError) as error:
        raise broken(path, str(error)) from error
    # torch stores its entries as they are; a compressed one could unpack to any size.
    require_size(sum(entry.file_size for entry in entries), f"{path}, unpacked,")
    names = {entry.filename.partition("/")[2] for entry in entries}
    if any(name.startswith("data/aotinductor/") for name in names):
        raise SpecError(
            f"{path} is a package of compiled code (AOTInductor)",
            "save the exported program itself: torch.export.save(program, path)",
        )
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return "torchscript"
    if {"archive_format", "archive_version"} <= names or any(
        entry.filename == "serialized_exported_program.json" for entry in entries
    ):
        return "export"
    if "data.pkl" in names:
        return "checkpoint"
    raise SpecError(f"{path} is an archive without a model in it", _KINDS)
