"""Files of weights: safetensors and torch checkpoints, filled into a module that a factory makes.

Checkpoints are pickles. They are read with torch's `weights_only`, which builds tensors and plain
containers and nothing else; whatever wants more is refused unless the user trusts the file.
"""

import pickle
import sys
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from loadbench.engine import files
from loadbench.engine.backends import quantized
from loadbench.engine.backends.eager import caller, heavy
from loadbench.engine.backends.prepare import declared, finish, place
from loadbench.engine.backends.torch_run import Program, TorchModel
from loadbench.engine.imported import imported
from loadbench.errors import SpecError
from loadbench.spec import EngineSpec

NESTS = ("model_state_dict", "state_dict", "model", "module", "net", "weights", "params")
_PACKED = "_packed_params"  # of torch.ao's quantised layers: tensors in a tuple, and their dtype
_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel's and torch.compile's


class Weights(NamedTuple):
    """What a file holds: a state dict, or (only if trusted) a whole module; and what it says."""

    state: dict[str, torch.Tensor]
    module: torch.nn.Module | None
    metadata: dict[str, Any]


def open_checkpoint(
    path: Path, kind: files.Kind, settings: EngineSpec, where: str, trust: bool
) -> TorchModel:
    """Loads weights into the module of `settings.factory`."""
    weights = read_safetensors(path) if kind == "safetensors" else read_checkpoint(path, trust)
    if weights.module is not None and not settings.factory:
        module = weights.module
    else:
        module = make(settings.factory, path)
        _fill(module, weights, path, settings.factory)
    quantised = quantized.precision_of(module)
    module = place(module, where)
    inputs = declared(settings, str(path))
    program = Program(
        files.name_of(path),
        "pytorch",
        module,
        caller(module, tuple(tensor.name for tensor in inputs)),
        inputs,
        metadata={"file": path.name, "format": kind, **weights.metadata},
        heavy=() if quantised else heavy(module),
    )
    return finish(program, settings, where)


def read_safetensors(path: Path) -> Weights:
    """Tensors and their metadata; the format holds nothing that could run."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            told = dict(file.metadata() or {})
    except SafetensorError as error:
        raise files.broken(path, str(error)) from error
    return Weights(_unwrapped(state), None, files.told(told))


def read_checkpoint(path: Path, trust: bool) -> Weights:
    """What `torch.save` wrote; SpecError for what is more than tensors, unless trusted."""
    try:
        loaded = _load(path, trust)
    except pickle.UnpicklingError as error:
        raise _unsafe(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise files.broken(path, str(error).partition("\n")[0] or type(error).__name__) from error
    except (ImportError, AttributeError) as error:
        raise SpecError(
            f"{path} holds objects of a class that is not here: {error}",
            "start loadbench where its module can be imported, or save only the state dict",
        ) from error
    if isinstance(loaded, torch.nn.Module):
        return Weights(loaded.state_dict(), loaded, {})
    if not isinstance(loaded, Mapping):
        raise SpecError(
            f"{path} holds a {type(loaded).__name__}, not weights", "save module.state_dict()"
        )
    state = _state(loaded)
    if state is None:
        keys = ", ".join(map(repr, list(loaded)[:8])) or "nothing"
        raise SpecError(
            f"{path} holds no weights, only {keys}", f"weights are looked for in {', '.join(NESTS)}"
        )
    metadata = {} if state is loaded else files.told(loaded)
    return Weights(_unwrapped(state), None, metadata)


def _load(path: Path, trust: bool) -> Any:
    """Even a trusted file gets its code run only if it cannot be read without."""
    try:
        with warnings.catch_warnings():
            # That it may not understand newer pickles; what it does not understand it refuses.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            # Quantised tensors in files are deprecated, and people have such files.
            warnings.filterwarnings("ignore", "TypedStorage is deprecated", UserWarning)
            warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
            return _safely(path)
    except pickle.UnpicklingError:
        if not trust:
            raise
    return torch.load(path, map_location="cpu", weights_only=False)


def _safely(path: Path) -> Any:
    """Tensors and plain containers only. torchao's kinds of tensors are among them once it is
    imported: it registers what can be read without running code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "torchao." not in str(error) or "torchao" in sys.modules:
            raise
    quantized.require("torchao", str(path))
    return torch.load(path, map_location="cpu", weights_only=True)


def make(factory: str, path: Path) -> torch.nn.Module:
    """The module that `package.module:function` returns; the current folder is importable."""
    hint = "add --factory package.module:function, which returns the nn.Module for these weights"
    if not factory:
        raise SpecError(f"{path} holds only weights, not the model they belong to", hint)
    place_of, colon, name = factory.partition(":")
    if not colon or not place_of or not name:
        raise SpecError(f"--factory {factory!r} is not package.module:function", hint)
    function = imported("--factory", factory)
    try:
        module = function()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # exit included
        raise SpecError(
            f"--factory {factory} failed: {type(error).__name__}: {error}",
            "it is called without arguments",
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise SpecError(f"--factory {factory} returned a {type(module).__name__}", hint)
    return module


def _fill(module: torch.nn.Module, weights: Weights, path: Path, factory: str) -> None:
    packed = any(_PACKED in name for name in weights.state)
    if packed and not quantized.precision_of(module):
        raise SpecError(
            f"{path} holds weights that torch.ao quantised, --factory {factory} makes others",
            "let it return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}), or"
            " however they were made",
        )
    foreign = any(map(quantized.is_foreign, weights.state.values()))
    try:
        missing, unknown = module.load_state_dict(weights.state, strict=False, assign=foreign)
    except RuntimeError as error:  # sizes
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise SpecError(
            f"{path} does not fit --factory {factory}: {lines[0]}",
            "the factory must build the model with the sizes that it was trained with",
        ) from error
    if missing or unknown:
        parts = [f"missing {', '.join(missing[:4])}"] if missing else []
        parts += [f"not expected {', '.join(unknown[:4])}"] if unknown else []
        total = f" ({len(missing)} missing, {len(unknown)} not expected)"
        raise SpecError(f"{path} does not fit --factory {factory}: {'; '.join(parts)}{total}")


def _state(loaded: Mapping[Any, Any]) -> Mapping[str, torch.Tensor] | None:
    if any(isinstance(value, torch.Tensor) for value in loaded.values()) and all(
        isinstance(value, torch.Tensor) or (isinstance(name, str) and _PACKED in name)
        for name, value in loaded.items()
    ):
        return loaded
    for nest in NESTS:
        inner = loaded.get(nest)
        if isinstance(inner, torch.nn.Module):
            inner = inner.state_dict()
        if isinstance(inner, Mapping):
            found = _state(inner)
            if found is not None:
                return found
    return None


def _unwrapped(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without what wrappers put in front of every one of them. The versions of their parts
    stay with them: by these torch.ao's parts know in which form their weights are."""
    found = OrderedDict(state)
    versions = dict(getattr(state, "_metadata", {}))
    for prefix in _WRAPPERS * 2:  # either may be around the other
        if all(name.startswith(prefix) for name in found):
            found = OrderedDict((n.removeprefix(prefix), tensor) for n, tensor in found.items())
            versions = {name.removeprefix(prefix): said for name, said in versions.items()}
    found._metadata = versions  # type: ignore[attr-defined]
    return found


def _unsafe(path: Path, error: pickle.UnpicklingError) -> SpecError:
    text = str(error)
    marker = "Unsupported global: GLOBAL "
    if marker in text:
        what = text.partition(marker)[2].split()[0]
        return SpecError(
            f"{path} holds a pickled {what}: loading it would run code of the file",
            "save module.state_dict() instead, or add --trust if you know where the file is from",
        )
    if "Weights only load failed" in text and "Unsupported" in text:
        return SpecError(
            f"{path} holds pickled Python objects: loading it would run code of the file",
            "save module.state_dict() instead, or add --trust if you know where the file is from",
        )
    return files.broken(path, "it is no complete torch checkpoint")
