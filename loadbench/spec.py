"""Scenarios: TOML → Spec, with errors that name the file, the line and the key.

pydantic checks what people write; what comes out is frozen and holds plain numbers (ns, per second,
fractions). `load` finds a scenario by path or by the name of one that ships with loadbench.
"""

import ast
import difflib
import tomllib
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import (
    Field,
    PlainSerializer,
    SkipValidation,
    ValidationError,
    model_validator,
)

from loadbench import environment, streams, units
from loadbench.alertspec import AlertsSpec
from loadbench.aroundspec import Names, Plugins, code_of
from loadbench.errors import SpecError
from loadbench.faults import explain
from loadbench.loadspec import Duration, LoadSpec, Section, Share, Size, written
from loadbench.model import Check, Tensor
from loadbench.overrides import put, reshape
from loadbench.queuespec import LEVELS, Policy, Queueing, QueueSpec, disagreement
from loadbench.requestspec import RequestSpec
from loadbench.simspec import SimSpec
from loadbench.targetspec import TargetSpec, sends_secrets
from loadbench.watchspec import WatchSpec

Checked = TypeVar("Checked", bound=Section)


_SERVICES = r"^(constant|exponential|lognormal\(\d+(\.\d+)?\))$"
_SERVICE_WORDS = 'constant, exponential or like "lognormal(0.5)"'


class FakeSpec(Section):
    """The known-answer engine: serves a batch of b in a + c·b and misbehaves on demand."""

    a: Duration = 5 * units.MS
    c: Duration = 0
    service: Annotated[str, Field(pattern=_SERVICES, description=_SERVICE_WORDS)] = "constant"
    stall: Annotated[
        str, Field(pattern=r"^$|^.+ every .+$", description='like "200 ms every 5 s"')
    ] = ""
    errors: Share = 0.0
    wrong: Share = 0.0  # in form
    mistakes: Share = 0.0  # right in form, but the last value of each row is off by one
    hangups: Share = 0.0
    slow_body: Duration = 0
    width: Annotated[int, Field(ge=1, le=1 << 20)] = 16  # numbers in a row
    busy: bool = False
    seed: int = 1

    def stall_ns(self) -> tuple[int, int] | None:
        """(length, period) of the stalls."""
        if not self.stall:
            return None
        length, period = self.stall.split(" every ")
        return units.parse_duration(length), units.parse_duration(period)

    @model_validator(mode="after")
    def _stall_parses(self) -> "FakeSpec":
        try:
            stall = self.stall_ns()
        except SpecError as error:
            raise ValueError(f"{error.message}: {error.hint}") from error
        if stall and not 0 < stall[0] < stall[1]:
            raise ValueError("a stall must be shorter than its period")
        return self


_DEVICE_WORDS = 'auto, cpu, cuda or cards like "cuda:0" and "cuda:0,cuda:1"'
DEVICES = r"^(auto|cpu|cuda|sim|cuda:\d+(,cuda:\d+)*|sim:\d+(,sim:\d+)*)$"


class EngineSpec(Section):
    """Settings of the embedded engine."""

    backend: Literal[
        "auto", "torch", "torchscript", "torch-export", "torch-compile", "onnxruntime", "openvino",
        "fake",
    ] = "auto"  # fmt: skip
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"  # only of `onnxruntime`
    device: Annotated[str, Field(pattern=DEVICES, description=_DEVICE_WORDS)] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8", "int8-static"] = "auto"
    calibration: str = ""  # .npz or .npy, only of `int8-static`
    gpu_memory: Share | None = None  # of the card's, that the model may take
    graphs: bool | Literal["auto"] = "auto"  # CUDA's; auto: torch models of closed shapes
    packed: bool | Literal["auto"] = "auto"  # a CPU's weights for oneDNN; auto: where it is faster
    max_batch: Annotated[int, Field(ge=1, le=4096)] = 32
    policy: Policy = "deadline"
    slo: Duration | None = None  # no SLO: nothing is shed but by the queue's bound
    max_wait: Duration = 5 * units.MS  # only of `fixed`
    preferred: tuple[int, ...] = ()  # only of `fixed`
    hold: bool = True  # `deadline`: wait a moment for clients who are usually back at once
    priorities: Annotated[int, Field(ge=1, le=LEVELS)] = 1  # that are told apart; 1: none are
    default_priority: Annotated[int, Field(ge=1)] | None = None  # None: the middle one
    queue_policy: QueueSpec = QueueSpec()  # only of `fixed`, as the next
    level: dict[int, QueueSpec] = {}  # of one priority, instead of it
    buckets: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = ()  # sizes batches are padded to
    queue: Annotated[int, Field(ge=1)] | None = None  # rows; None: what fits into the SLO
    max_request_rows: Annotated[int, Field(ge=1, le=65_536)] | None = None  # None: 16 × max_batch
    instances: Annotated[int, Field(ge=1, le=64)] = 1
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None  # None: cores left by the load
    seed: int = 1
    canary: Share = 0.0  # of the requests, for a new version before it takes over; 0: at once
    shadow: bool = False  # a new version runs what the old one is asked, and answers nobody
    factory: str = ""  # package.module:function, for files that hold only weights
    inputs: tuple[str, ...] = ()  # NAME:DTYPE:DIMS, for files that do not say
    outputs: tuple[str, ...] = ()
    watch: WatchSpec = WatchSpec()
    preprocess: Plugins = ()
    postprocess: Plugins = ()
    libraries: Names = ()  # of custom operators; their code is run
    on_error: Literal["skip", "fail"] = "skip"  # skip: a bad row fails alone; fail: its whole batch
    cache: Size = 0  # bytes of answers that are kept; 0: none
    fake: FakeSpec = FakeSpec()
    sim: SimSpec = SimSpec()

    @model_validator(mode="after")
    def _every_device_has_an_instance(self) -> "EngineSpec":
        devices = self.device.count(",") + 1
        if "instances" in self.model_fields_set and self.instances < devices:
            raise ValueError(f"{devices} devices need as many instances, or more")
        return self

    @model_validator(mode="after")
    def _queueing_agrees(self) -> "EngineSpec":
        found = Queueing(
            self.policy, self.slo, self.max_batch, self.preferred, self.priorities,
            self.default_priority, self.level, self.copies,
        )  # fmt: skip
        if wrong := disagreement(found):
            raise ValueError(wrong)
        return self

    @property
    def copies(self) -> int:
        """Instances in all: as asked, else one on each device that is named."""
        return max(self.instances, self.device.count(",") + 1)

    @model_validator(mode="after")
    def _settings_have_a_use(self) -> "EngineSpec":
        if self.provider != "auto" and self.backend not in ("auto", "onnxruntime"):
            raise ValueError('provider is for backend = "onnxruntime" only')
        if self.graphs is True and self.backend in ("openvino", "fake"):
            raise ValueError("graphs are for backends of CUDA cards only")
        if self.packed is True and self.backend not in ("auto", "torch"):
            raise ValueError('packed is for backend = "torch" only')
        if self.calibration and self.precision != "int8-static":
            raise ValueError('calibration is for precision = "int8-static" only')
        if self.gpu_memory == 0:
            raise ValueError("gpu_memory = 0 leaves no room for anything: leave it out for all")
        if self.buckets and min(self.buckets) > self.max_batch:
            raise ValueError(f"buckets are all above max_batch ({self.max_batch}): raise that")
        return self


_LATENCY_CHECKS = ("mean", "p50", "p90", "p95", "p99", "p99_9", "max")
_TOKEN_CHECKS = streams.CHECKS  # of answers that come token by token
_SHARE_CHECKS = ("errors", "on_time", "asked_done")


def _check(name: str, text: Any) -> Check:
    if not isinstance(text, str) or text.strip()[:1] not in ("<", ">"):
        raise SpecError(f"{text!r} is not a condition", 'write it like "< 100 ms"')
    text = text.strip()
    rest = text[1:].lstrip("= ").strip()
    if name in _LATENCY_CHECKS or name in _TOKEN_CHECKS:
        limit: float = units.parse_duration(rest)
    elif name in _SHARE_CHECKS:
        limit = units.parse_share(rest)
    else:
        limit = units.parse_rate(rest)
    return Check(name, text[0] == ">", limit, text)


def checks_of(raw: Any) -> Any:
    """A table of checks as Checks; SpecError where one is none."""
    if isinstance(raw, tuple):  # of those that are made
        return raw
    if not isinstance(raw, Mapping):
        raise SpecError(f"{raw!r} is no table of checks", 'write it like { p99 = "< 100 ms" }')
    known = (*_LATENCY_CHECKS, *_SHARE_CHECKS, "throughput", "done", *_TOKEN_CHECKS, "tokens")
    found = []
    for name, text in raw.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            guess = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise SpecError(f"unknown check {name!r}", guess)
        found.append(_check(name, text))
    return tuple(found)


Checks = Annotated[
    tuple[SkipValidation[Check], ...],
    *written(checks_of, "object"),
    PlainSerializer(lambda checks: {check.name: check.text for check in checks}),
]


class AlertSpec(Section):
    """`{when = "gpu_memory > 80 %", for = "5s"}`: a new rule, or other limits for a built-in one.
    `off = true` silences a built-in rule."""

    when: str
    length: Duration = Field(5 * units.SECOND, alias="for")
    off: bool = False


class Spec(Section):
    """One scenario, checked."""

    title: str = ""
    target: TargetSpec = TargetSpec()
    engine: EngineSpec = EngineSpec()
    load: LoadSpec
    request: tuple[RequestSpec, ...] = ()
    checks: Checks = ()
    alert: tuple[AlertSpec, ...] = ()
    alerts: AlertsSpec = AlertsSpec()

    def facts(self) -> dict[str, Any]:
        """As it is written down and passed on, without secrets; and as it is compared with that."""
        found: dict[str, Any] = environment.kept(self.model_dump(mode="json"))
        return found

    @model_validator(mode="before")
    @classmethod
    def _journeys_know_their_target(cls, raw: Any) -> Any:
        """No url is the host that the Locust file names."""
        load = raw.get("load") if isinstance(raw, Mapping) else None
        if isinstance(load, Mapping) and load.get("arrivals") == "journey":
            target = raw.get("target", {})
            if isinstance(target, Mapping):
                return {**raw, "target": {"url": "", **target}}
        return raw

    @model_validator(mode="after")
    def _requests_are_ours(self) -> "Spec":
        if self.load.arrivals == "journey" and self.request:
            raise ValueError("the Locust file says what is sent: leave [[request]] out")
        return self


class Scenario(NamedTuple):
    """A checked scenario and where it came from. `raw` is the TOML after all overrides; `own` says
    that it is a Locust file which the user named, not one that a scenario brings along; `code` is
    the first setting by which the file itself has the engine run somebody's code; `file`
    is where it was read; `sends` says, in a sentence, that it sends a secret of the user's away;
    `overrides` are the dotted keys that the file had no say in."""

    name: str
    spec: Spec
    raw: dict[str, Any]
    own: bool = False
    code: str = ""
    file: str = ""
    sends: str = ""
    overrides: frozenset[str] = frozenset()

    @property
    def foreign(self) -> str:
        """In a sentence what code the file has somebody run, who must be asked before; or empty."""
        if self.spec.load.locustfile and not self.own:
            return f"{self.name} runs the code in {self.spec.load.locustfile}"
        if self.code:
            return f"{self.name} has the engine run code: {self.code}"
        return self.spec.alerts.foreign or self.sends

    def wrote(self, key: str) -> bool:
        """Whether a dotted key is as its file says, and not as somebody else does."""
        section, _, name = key.partition(".")
        found = self.raw.get(section)
        return isinstance(found, dict) and name in found and key not in self.overrides


def shipped() -> dict[str, Path]:
    """The scenarios that come with loadbench, by name."""
    folder = Path(__file__).parent.parent / "scenarios"  # not one of the working folder
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find(name: str) -> Path:
    """A path to a .toml or a Locust file, or the name of a shipped scenario."""
    path, known = Path(name), shipped()
    if name in known and not path.is_file():  # a folder may be called so, too
        return known[name]
    if path.suffix in (".toml", ".py") or path.exists():
        if not path.is_file():
            what = "is a folder, no scenario file" if path.is_dir() else "no such scenario file"
            raise SpecError(f"{name}: {what}", f"give a .toml or one of: {', '.join(known)}")
        return path
    if "://" in name:
        raise SpecError(f"{name} is a target, no scenario", f"give both: steady --target {name}")
    near = difflib.get_close_matches(name, known, 1)
    guess = f"did you mean {near[0]!r}? " if near else ""
    raise SpecError(
        f"there is no scenario {name!r}", f"{guess}known: {', '.join(known)}, or a path to a .toml"
    )


def load(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    rate: str | None = None,
    duration: str | None = None,
) -> Scenario:
    """Reads a scenario; `overrides` maps dotted keys to values and wins over the file. A Locust
    file (.py) is a scenario by itself: a journey of one user.

    `rate` makes the load one phase of that rate; `duration` stretches the shape to that length.
    """
    path = find(name)
    own = path.suffix == ".py"
    try:
        text = path.read_text(encoding="utf-8")
        raw = _journey(path, text) if own else tomllib.loads(text)
        text = "" if own else text  # it has no keys
    except UnicodeDecodeError as error:
        raise SpecError(
            f"{path}: byte {error.start + 1} is not UTF-8", "save it as UTF-8"
        ) from error
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"{path}: {error}") from error
    overrides = overrides or {}
    tables = {key.partition(".")[0] for key in overrides} - raw.keys()  # that the file has not
    given = {*overrides, *tables}
    engine = raw.get("engine", {})
    engine = engine if isinstance(engine, dict) else {}
    code = code_of({k: v for k, v in engine.items() if f"engine.{k}" not in overrides})
    sends = sends_secrets(raw.get("target"), overrides)
    for key, value in overrides.items():
        put(raw, key, value)
    if key := next(environment.left_out(raw), ""):
        raise SpecError(
            f"{path}: {key}: it looks like a secret, and was left out where this was written down",
            f"give it again: --set {key}=…, or name it: $NAME is taken from the environment",
        )
    if rate or duration:
        found = check(raw, str(path), text, given)
        reshape(raw, [phase.length for phase in found.load.phases], rate, duration)
        given.add("load")  # as it was written there it is in order
    checked = check(raw, str(path), text, given)
    if rate and not any(phase.rate and phase.rate.value for phase in checked.load.phases):
        raise SpecError(f"a rate of {rate!r} asks for nothing", 'write it like 300 or "300/s"')
    whose = frozenset(overrides)
    return Scenario(path.stem, checked, raw, own, code, str(path.resolve()), sends, whose)


def _journey(path: Path, text: str) -> dict[str, Any]:
    """Parsed, not run: a fault of its syntax is known before a run is begun."""
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(text)
    except SyntaxError as error:
        raise SpecError(f"{path}: line {error.lineno}: SyntaxError: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise SpecError(f"{path}: is no Python: {error}") from error
    return {"load": {"arrivals": "journey", "locustfile": str(path)}}


def check(raw: dict[str, Any], origin: str, text: str = "", given: Collection[str] = ()) -> Spec:
    """The Spec of a raw scenario, some of whose keys were `given` and are not its text's; SpecError
    with every fault found, each with its line."""
    return checked(Spec, raw, origin, text, given)


def checked(
    kind: type[Checked],
    raw: dict[str, Any],
    origin: str,
    text: str = "",
    given: Collection[str] = (),
) -> Checked:
    """The same for any section by itself."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise SpecError("\n".join(explain(error, kind, origin, text, given))) from error


def parse_tensor(text: str) -> Tensor:
    """`x:FP32:-1,256` → Tensor with the batch axis (the first −1) taken off by the caller."""
    parts = text.split(":")
    example = "write it like x:FP32:-1,256 (NAME:DTYPE:DIMS)"
    if len(parts) != 3 or not parts[0]:
        raise SpecError(f"{text!r} is no input or output", example)
    name, datatype, dims = parts
    try:
        shape = tuple(int(dim) for dim in dims.split(",")) if dims else ()
    except ValueError as error:
        raise SpecError(f"{text!r}: {dims!r} are not dimensions", example) from error
    if any(dim == 0 or dim < -1 for dim in shape):
        raise SpecError(f"{text!r}: a dimension is positive, or -1 for any", example)
    datatype = datatype.upper()
    if datatype not in DATATYPES:
        raise SpecError(f"{text!r}: unknown type {datatype!r}", f"known: {', '.join(DATATYPES)}")
    return Tensor(name, datatype, shape)


DATATYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
)  # fmt: skip
