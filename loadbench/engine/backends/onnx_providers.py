"""ONNX Runtime's execution providers: which one, with which options, and whether it is there.

ONNX Runtime lists providers whose libraries it cannot load, and then runs on the CPU without a
word: so what a session really uses is looked at. CUDA and TensorRT were run against stand-ins for
the library only, never on a card.
"""

import contextlib
import hashlib
import os
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from loadbench.engine import device, libraries
from loadbench.errors import SpecError
from loadbench.spec import EngineSpec

NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
TITLES = {"cpu": "CPU", "cuda": "CUDA", "tensorrt": "TensorRT"}
LOAD_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)
_SILENT = 4  # ONNX Runtime writes its errors to stderr and raises them too: once is enough
_INSTALL = {
    "cuda": "pip install 'onnxruntime-gpu[cuda,cudnn]' brings the CUDA and cuDNN that it asks for",
    "tensorrt": "pip install tensorrt, of the CUDA version that onnxruntime-gpu was built for",
}

Shapes = Mapping[str, tuple[int, ...]]


class Placed(NamedTuple):
    """Who runs the model, and where."""

    provider: str  # a key of NAMES
    where: str  # "cpu", "cuda:0"


class Wanted(NamedTuple):
    """What a provider is told of the model and of the settings."""

    precision: str = "fp32"  # to run in
    memory: int | None = None  # bytes of the card that it may take
    graphs: bool = False
    profile: tuple[Shapes, Shapes, Shapes] | None = None  # least, usual and largest shapes
    cache: str = ""  # the name under which compiled engines are kept


class Opened(NamedTuple):
    """A session that really runs where it says. `lost`: what was fallen back from, and why, or what
    of the model the provider left to the CPU."""

    session: Any
    placed: Placed
    lost: str = ""


def place(settings: EngineSpec, known: list[str], cuda: device.Cuda) -> Placed:
    """Provider and device. `known` are the providers that this ONNX Runtime was built with.

    SpecError for what was asked for and is not there; only `auto` takes the CPU instead.
    """
    asked = settings.provider
    if asked == "cpu" or (asked == "auto" and settings.device == "cpu"):
        if settings.device not in ("auto", "cpu"):
            raise SpecError(
                f'engine.provider = "cpu" does not run on engine.device = {settings.device!r}',
                "leave one of them out",
            )
        return Placed("cpu", "cpu")
    if asked != "auto" and settings.device == "cpu":
        raise SpecError(
            f'engine.provider = {asked!r} does not run on engine.device = "cpu"',
            "leave one of them out",
        )
    wanted = "cuda" if asked == "auto" else asked
    if NAMES[wanted] not in known:
        if asked == "auto" and settings.device == "auto":
            return Placed("cpu", "cpu")
        raise SpecError(
            f"this ONNX Runtime was built without {TITLES[wanted]}",
            "pip install onnxruntime-gpu in place of onnxruntime",
        )
    pinned = "cuda" if settings.device == "auto" and asked != "auto" else settings.device
    where = device.choose(pinned, cuda)
    return Placed("cpu" if where == "cpu" else wanted, where)


def listed(placed: Placed, wanted: Wanted) -> list[Any]:
    """Execution providers with their options, the one wanted first."""
    found: list[Any] = [NAMES["cpu"]]
    if placed.provider == "cpu":
        return found
    index = int(placed.where.partition(":")[2])
    found.insert(0, (NAMES["cuda"], _cuda(index, wanted)))
    if placed.provider == "tensorrt":  # what TensorRT cannot do goes to CUDA
        found.insert(0, (NAMES["tensorrt"], _tensorrt(index, wanted)))
    return found


def open_session(path: Path, settings: EngineSpec, placed: Placed, wanted: Wanted) -> Opened:
    """A session, and who really runs it. A provider that cannot be loaded is a SpecError, unless
    nobody asked for it."""
    ort.set_default_logger_severity(_SILENT)
    why = ""
    try:
        session = _create(path, settings, placed, wanted)
        if session.get_providers()[0] == NAMES[placed.provider]:
            return Opened(session, placed, strays(session) if placed.provider != "cpu" else "")
    except (*LOAD_ERRORS, RuntimeError) as error:
        missing = isinstance(error, RuntimeError | ort_errors.EPFail)  # as TensorRT's libraries are
        if placed.provider == "cpu" or not missing:
            raise SpecError(
                f"{path}: ONNX Runtime refuses it: {short(str(error))}",
                "onnx.checker.check_model says more about what is wrong in a file",
            ) from error
        why = f" ({short(str(error)).rpartition(') ')[2]})"
    title = TITLES[placed.provider]
    text = f"ONNX Runtime cannot load {title}: its libraries are missing or of another version{why}"
    if (settings.device, settings.provider) != ("auto", "auto"):
        raise SpecError(text, f'{_INSTALL[placed.provider]}; or set engine.provider = "cpu"')
    here = Placed("cpu", "cpu")
    spare = open_session(path, settings, here, wanted)
    return spare._replace(lost=f"{placed.where} is not used: {text}")


def strays(session: Any) -> str:
    """Which operations of a card's session ONNX Runtime gave to the CPU; empty for none. Sizes and
    shapes are rightly reckoned there; products are not."""
    try:
        parts = session.get_provider_graph_assignment_info()
    except AttributeError:  # an older ONNX Runtime
        return ""
    kinds = [(part.ep_name, node.op_type) for part in parts for node in part.get_nodes()]
    here = Counter(kind for name, kind in kinds if name == NAMES["cpu"])
    if not here:
        return ""
    most = ", ".join(kind for kind, _ in here.most_common(4))
    return f"{here.total()} of {len(kinds)} operations run on the CPU ({most})"


def cache_of(path: Path, data: list[Path]) -> str:
    """A name for what is compiled of a model: by its content and that of its external data, since
    a cache by the names in the graph would give a retrained model its predecessor's weights."""
    digest = hashlib.sha256()
    for part in (path, *data):
        with part.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:24]


def short(text: str) -> str:
    """ONNX Runtime's message without its own error code in front."""
    line = text.strip().splitlines()[0] if text.strip() else "no reason given"
    return line.rpartition("[ONNXRuntimeError] : ")[2][:300]


def _create(path: Path, settings: EngineSpec, placed: Placed, wanted: Wanted) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = device.threads(settings.threads, settings.instances)
    options.inter_op_num_threads = 1
    # Spinning threads would take the cores that the server's loop and the load need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for library in settings.libraries:
        try:
            options.register_custom_ops_library(str(Path(library).resolve()))
        except LOAD_ERRORS as error:
            raise libraries.cannot(library, error) from error
    if placed.provider != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # Finds CUDA where pip installs it; its remarks must not get between our own lines.
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    providers = listed(placed, wanted)
    return ort.InferenceSession(str(path), options, providers=providers, enable_fallback=0)


def _cuda(index: int, wanted: Wanted) -> dict[str, Any]:
    options: dict[str, Any] = {
        "device_id": index,
        # The arena would double with every larger batch, and the default search for convolution
        # algorithms tries them all again for each new batch size.
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        # Tensor cores want half precision with the channels last; in fp32 it only costs.
        "prefer_nhwc": int(wanted.precision in ("fp16", "bf16")),
        "use_tf32": 0,  # fp32 means fp32: TF32 keeps three digits
    }
    if wanted.memory is not None:
        options["gpu_mem_limit"] = wanted.memory
    if wanted.graphs:
        options["enable_cuda_graph"] = 1
    return options


def _tensorrt(index: int, wanted: Wanted) -> dict[str, Any]:
    folder = str(_cache())
    options: dict[str, Any] = {
        "device_id": index,
        "trt_fp16_enable": wanted.precision == "fp16",
        "trt_bf16_enable": wanted.precision == "bf16",
        "trt_int8_enable": wanted.precision == "int8",
        # Building an engine takes minutes; timings of its kernels hold for other models, too.
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": folder,
        "trt_engine_cache_prefix": wanted.cache,
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": folder,
    }
    if wanted.profile is not None:
        for name, shapes in zip(("min", "opt", "max"), wanted.profile, strict=True):
            options[f"trt_profile_{name}_shapes"] = _profile(shapes)
    if wanted.memory is not None:
        options["trt_max_workspace_size"] = wanted.memory
    if wanted.graphs:
        options["trt_cuda_graph_enable"] = True
    return options


def _profile(shapes: Shapes) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _cache() -> Path:
    """Where engines are kept: ours alone, since what lies there is loaded as code."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "loadbench" / "tensorrt"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    return folder
