"""`open_model`: a name of the zoo or a path → a Model, loaded, on its device, ready to run.

Which backend runs what is decided here; how is the backends' business, and how a path is told for
what it holds that of `files`. Nothing of a file is executed unless the caller trusts it.
"""

import difflib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from loadbench.engine import device, files, libraries
from loadbench.engine.backends import Model
from loadbench.errors import RunError, SpecError
from loadbench.spec import EngineSpec

INT8 = ("int8", "int8-static")
ZOO = ("mlp", "resnet-tiny", "encoder")
_BACKENDS: dict[files.Kind, tuple[str, ...]] = {  # the first is what "auto" means
    "onnx": ("onnxruntime", "openvino"),
    "torchscript": ("torchscript",),
    "export": ("torch-export", "torch-compile"),
    "checkpoint": ("torch", "torch-compile"),
    "safetensors": ("torch", "torch-compile"),
}


def open_model(name: str, settings: EngineSpec, *, trust: bool = False) -> Model:
    """Loads `name` by `settings`.

    Raises SpecError for whatever is wrong with the name, the file or the settings, RunError if the
    device has no room. `trust` allows files whose loading runs code of theirs.
    """
    device.number_as_the_driver()
    model = _loaded(name, settings, trust=trust)
    if settings.gpu_memory is not None and model.device == "cpu":
        raise SpecError(
            f"engine.gpu_memory = {settings.gpu_memory:.0%}, but {name} runs on the CPU",
            'leave it out, or set engine.device = "cuda"',
        )
    return model


def _loaded(name: str, settings: EngineSpec, *, trust: bool) -> Model:
    """As `open_model`; also of a stage of a pipeline."""
    try:
        placed = _placed(settings, settings.device.partition(",")[0])
        return _surrounded(_open(name, placed, trust), settings)
    except MemoryError as error:
        raise RunError(
            f"{name} does not fit into the memory of the device: {error}",
            "free some, choose another engine.device, or serve a smaller model",
        ) from error


def open_instances(name: str, settings: EngineSpec, *, trust: bool = False) -> tuple[Model, ...]:
    """As many as `settings.copies`, all as the first one chose to be, spread over the devices that
    the settings leave open or name."""
    asked = settings
    settings = _placed(settings, settings.device.partition(",")[0])  # with as many instances
    first = open_model(name, settings, trust=trust)
    settings = like(first, settings)
    where = _spread(asked, first.device)
    rest = (open_model(name, _placed(settings, found), trust=trust) for found in where[1:])
    return (first, *rest)


def devices(name: str, settings: EngineSpec, beside: str = "cpu") -> tuple[str, ...]:
    """Where the instances would be if they were opened now; those of a pipeline, whose stages have
    their own say, on `beside`; none where opening will refuse the device. Raises SpecError as
    opening would."""
    if settings.device.startswith("sim") and name != "fake":
        return ()
    device.number_as_the_driver()
    if name.endswith(".toml"):
        return _spread(settings, beside)
    first = _where(name, _placed(settings, settings.device.partition(",")[0]))
    return tuple(_where(name, _placed(settings, found)) for found in _spread(settings, first))


def _where(name: str, settings: EngineSpec) -> str:
    if name == "fake":
        from loadbench.engine.device.simulated import choose

        return choose(settings.device, settings.sim) if settings.device[:3] == "sim" else "cpu"
    if settings.device == "cpu" or settings.backend == "openvino":
        return "cpu"
    chosen = name in ZOO and settings.backend == "auto"  # as `_open_zoo` does
    provided = chosen and (settings.provider != "auto" or settings.precision in INT8)
    if name.endswith(".onnx") or settings.backend == "onnxruntime" or provided:
        import onnxruntime

        from loadbench.engine.backends import onnx_providers

        known = onnxruntime.get_available_providers()
        return onnx_providers.place(settings, known, device.Nvml()).where
    import torch

    return device.choose(settings.device, device.cards_of(torch.cuda))


def _spread(settings: EngineSpec, first: str) -> tuple[str, ...]:
    """A device for each instance, the first one on `first`."""
    cards = _free_memory(first, settings) if settings.copies > 1 else []
    return device.spread(settings.device, first, settings.copies, cards)


def like(model: Model, settings: EngineSpec) -> EngineSpec:
    """What timing chose for a model of torch's goes for another of the kind, too."""
    if not model.platform.startswith("pytorch") or model.precision not in ("fp32", "bf16", "fp16"):
        return settings
    chosen: dict[str, object] = {}
    if settings.precision == "auto":
        chosen["precision"] = model.precision
    if settings.packed == "auto":
        chosen["packed"] = "packed" in model.metadata
    return settings.model_copy(update=chosen)


def _placed(settings: EngineSpec, where: str) -> EngineSpec:
    return settings.model_copy(update={"device": where, "instances": settings.copies})


def _free_memory(where: str, settings: EngineSpec) -> list[int]:
    """Bytes that are free on each card of the kind."""
    kind = where.partition(":")[0]
    if kind == "sim":
        found = (device.open_device(f"sim:{i}", settings.sim) for i in range(settings.sim.cards))
        return [card.memory().free for card in found]
    cards = device.Nvml()
    return [cards.mem_get_info(i)[0] for i in range(cards.device_count())] if kind == "cuda" else []


def _surrounded(model: Model, settings: EngineSpec) -> Model:
    """With the plugins that the settings ask for."""
    if not (settings.preprocess or settings.postprocess):
        return model
    from loadbench.engine.plugins import surround

    return surround(model, settings)


def _open(name: str, settings: EngineSpec, trust: bool) -> Model:
    """Backends are imported here, one at a time: torch alone costs a second."""
    if settings.device.startswith("sim") and name != "fake":
        raise SpecError(
            f"engine.device = {settings.device!r} is a simulated GPU: no model can run on it",
            "serve the model named fake there",
        )
    if name == "fake" or settings.backend == "fake":
        if name != "fake":
            raise SpecError('engine.backend = "fake" runs no model', "serve the model named fake")
        from loadbench.engine.backends.fake import open_fake

        return open_fake(settings)
    if name in ZOO:
        return _open_zoo(name, settings)
    if name.endswith(".toml"):
        from loadbench.engine.pipeline import open_pipeline

        return open_pipeline(_path(name), settings, trust, partial(_loaded, trust=trust))
    libraries.require(settings.libraries, trust)
    return _open_file(_path(name), settings, trust)


def _open_onnx(
    path: Path, settings: EngineSpec, sizes: Mapping[str, tuple[int, ...]] | None = None
) -> Model:
    """An .onnx file through the backend of the settings; `sizes` are usual ones for open axes."""
    if settings.backend == "openvino":
        from loadbench.engine.backends.openvino_run import open_openvino

        return open_openvino(path, settings, sizes)
    from loadbench.engine.backends.onnx_run import open_onnx

    return open_onnx(path, settings, sizes)


def _path(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.exists() and not path.suffix and len(path.parts) == 1:
        near = difflib.get_close_matches(name, (*ZOO, "fake"), 1)
        guess = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join((*ZOO, "fake"))
        raise SpecError(f"there is no model {name!r}", f"{guess}known: {known}, or a path")
    return path


def _open_zoo(name: str, settings: EngineSpec) -> Model:
    if settings.factory or settings.inputs or settings.outputs or settings.libraries:
        raise SpecError(
            f"{name} is made by loadbench: it needs no --factory, --input, --output or libraries",
            "leave them out, or give a path to your own file",
        )
    backend = settings.backend
    if backend == "auto" and (settings.provider != "auto" or settings.precision in INT8):
        backend = "onnxruntime"
    if backend in ("onnxruntime", "openvino"):
        from loadbench.engine.backends.converted import open_as_onnx

        return open_as_onnx(name, settings.model_copy(update={"backend": backend}), _open_onnx)
    import torch

    where = device.choose(settings.device, device.cards_of(torch.cuda))
    if settings.backend in ("torchscript", "torch-export"):
        from loadbench.engine.backends.converted import open_converted

        return open_converted(name, settings, where)
    from loadbench.engine.backends.eager import open_zoo

    return open_zoo(name, settings, where)


def _open_file(path: Path, settings: EngineSpec, trust: bool) -> Model:
    kind = files.detect(path)
    fitting = _BACKENDS[kind]
    if settings.backend not in ("auto", *fitting):
        raise SpecError(
            f"{path} is {files.TITLES[kind]}: engine.backend = {settings.backend!r} cannot run it",
            f'set engine.backend = "{fitting[0]}" or "auto"',
        )
    if settings.factory and kind not in ("checkpoint", "safetensors"):
        raise SpecError(
            f"{path} is {files.TITLES[kind]} and holds its model itself", "leave out --factory"
        )
    if kind == "onnx":
        return _open_onnx(path, settings)
    if kind in ("torchscript", "export") and not trust:
        raise SpecError(
            f"{path} is {files.TITLES[kind]}: loading it runs code of the file",
            "add --trust if you know where it is from; .onnx and .safetensors need no trust",
        )
    return _open_torch(path, kind, settings, trust)


def _open_torch(path: Path, kind: files.Kind, settings: EngineSpec, trust: bool) -> Model:
    import torch

    where = device.choose(settings.device, device.cards_of(torch.cuda))
    libraries.load_into_torch(settings.libraries)
    if kind == "torchscript":
        from loadbench.engine.backends.torchscript import open_torchscript

        return open_torchscript(path, settings, where)
    if kind == "export":
        from loadbench.engine.backends.exported import open_exported

        return open_exported(path, settings, where)
    from loadbench.engine.backends.checkpoint import open_checkpoint

    return open_checkpoint(path, kind, settings, where, trust)
