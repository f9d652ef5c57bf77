"""Models that run one after the other, served as one: a TOML file of stages → a Model.

A batch goes through all stages in turn before its answers leave, so that the batcher sees one model
whose time is the sum of its stages', and plans deadlines with that. Stages are not batched anew in
between: that would need a queue for each, and give back less than it costs where they run on the
same device. Values go from stage to stage by name.
"""

import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from loadbench.aroundspec import PipelineSpec, StageSpec, code_of
from loadbench.engine import files, signature
from loadbench.engine.backends import Arrays, Model
from loadbench.engine.inputs import cast
from loadbench.engine.measure import parts_of
from loadbench.errors import LoadbenchError, SpecError
from loadbench.model import Note, Tensor, Value
from loadbench.spec import EngineSpec, checked

LARGEST = 1 << 20  # bytes of the file
OF_A_STAGE = (
    "backend", "provider", "device", "precision", "calibration", "graphs", "threads", "seed",
    "factory", "inputs", "outputs", "preprocess", "postprocess", "libraries", "fake",
)  # fmt: skip
_NUMBERS = ("INT", "UINT", "FP", "BF")

Open = Callable[[str, EngineSpec], Model]


class Stage(NamedTuple):
    """A model, and where its inputs come from and its outputs go."""

    title: str
    model: Model
    take: Mapping[str, str]  # its input → the value's name
    give: Mapping[str, str]  # its output → the value's name


class Pipeline:
    """A Model (see backends) made of others."""

    platform = "ensemble"  # Triton's word for it

    def __init__(self, name: str, version: str, stages: Sequence[Stage]) -> None:
        self.name = name
        self.version = version
        self.stages = stages
        models = [stage.model for stage in stages]
        self.batched = models[0].batched
        self.device = next((m.device for m in models if m.device != "cpu"), "cpu")
        precisions = {model.precision for model in models}
        self.precision = precisions.pop() if len(precisions) == 1 else "mixed"
        self.max_batch = min((m.max_batch for m in models if m.max_batch), default=None)
        self.metadata: dict[str, Any] = {"stages": {s.title: s.model.metadata for s in stages}}
        own = [set(m.metadata["buckets"]) for m in models if m.metadata.get("buckets")]
        common = set.intersection(*own) if own else set()
        if found := [size for size in sorted(common) if size <= (self.max_batch or size)]:
            self.metadata["buckets"] = found
        self.notes: tuple[Note, ...] = tuple(
            Note(note.code, f"stage {stage.title}: {note.text}", note.hint)
            for stage in stages
            for note in stage.model.notes
        )
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: tuple[Tensor, ...] = ()
        self._own = {stage.title: [0, 0] for stage in stages}

    @property
    def parts(self) -> dict[str, Sequence[int]]:
        """Batches and ns of each stage, and of what stages themselves are made of."""
        found: dict[str, Sequence[int]] = {}
        for stage in self.stages:
            found[f"stage {stage.title}"] = self._own[stage.title]
            for name, part in parts_of([stage.model]).items():
                found[f"{stage.title}: {name}"] = part
        return found

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """See backends.Model. A fault names the stage."""
        values = dict(arrays)
        for stage in self.stages:
            begun = time.monotonic_ns()
            values |= _ran(stage, values, arrays)
            part = self._own[stage.title]
            part[0] += 1
            part[1] += time.monotonic_ns() - begun
        return {tensor.name: values[tensor.name] for tensor in self.outputs}

    def memory(self) -> dict[str, int]:
        """Of all stages together."""
        found: dict[str, int] = {}
        for stage in self.stages:
            for kind, size in stage.model.memory().items():
                found[kind] = found.get(kind, 0) + size
        return found

    def settle(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        """Tries it as a whole; its tensors come without a batch axis if its models have one."""
        self.outputs = outputs
        types = {tensor.name: tensor.datatype for tensor in outputs}

        def run(arrays: dict[str, NDArray[Any]]) -> dict[str, tuple[str, NDArray[Any]]]:
            try:
                return {name: (types[name], array) for name, array in self.run(arrays).items()}
            except LoadbenchError as error:
                raise SpecError(error.message, error.hint) from error

        lead = (-1,) if self.batched else ()
        whole = [Tensor(t.name, t.datatype, (*lead, *t.shape)) for t in inputs]
        sizes = {
            value: stage.model.metadata["sizes"][name]
            for stage in self.stages
            for name, value in stage.take.items()
            if name in stage.model.metadata.get("sizes", {})
        }
        try:
            found = signature.probe(run, whole, sizes)
        except SpecError as error:
            raise SpecError(f"{self.name}: {error.message}", error.hint) from error
        self.inputs, self.outputs, self.batched = found.inputs, found.outputs, found.batched
        self.notes += found.notes
        if found.sizes:
            self.metadata["sizes"] = found.sizes


def _ran(stage: Stage, values: Arrays, sent: Arrays) -> dict[str, NDArray[Any]]:
    """The values that a stage gives; `sent` are those of them that it takes from clients."""
    where = f"stage {stage.title}"
    try:
        given = {
            tensor.name: _taken(tensor, stage.take[tensor.name], values, sent)
            for tensor in stage.model.inputs
        }
        found = stage.model.run(given)
    except (MemoryError, KeyboardInterrupt):
        raise
    except LoadbenchError as error:
        raise type(error)(f"{where}: {error.message}", error.hint) from error
    except BaseException as error:  # whatever a model raises is the model's fault, as Rust's panics
        raise LoadbenchError(f"{where} failed: {type(error).__name__}: {error}") from error
    return {value: found[name] for name, value in stage.give.items()}


def _taken(tensor: Tensor, value: str, values: Arrays, sent: Arrays) -> NDArray[Any]:
    """A value as an input of a stage. One that does not fit is the client's fault only where the
    client sent it."""
    try:
        return cast(tensor.name, values[value], tensor.datatype)
    except SpecError as error:
        if values[value] is sent.get(value):
            raise
        raise LoadbenchError(error.message, error.hint) from error


class _Known(Value, frozen=True):
    """The values that there are when a stage begins, and those that clients are to send."""

    inputs: dict[str, Tensor]
    values: dict[str, Tensor]


def open_pipeline(path: Path, settings: EngineSpec, trust: bool, open_stage: Open) -> Pipeline:
    """Loads the models of all stages. SpecError for whatever is wrong with the file or does not fit
    together, as for a model."""
    raw = _read(path)
    spec = checked(PipelineSpec, raw, str(path))
    for key in ("factory", "inputs", "outputs", "libraries"):
        if getattr(settings, key):
            raise SpecError(
                f"{path} is a pipeline: engine.{key} belongs to one of its stages",
                f"write {key} = … into its [[stage]]",
            )
    titles: list[str] = []
    stages: list[Stage] = []
    known = _Known({}, {})
    for index, stage in enumerate(spec.stage):
        where = f"{path} stage {index + 1}"
        own = _settings(stage, settings, where, trust)
        try:
            model = open_stage(_place(stage, path, trust), own)
        except SpecError as error:
            raise SpecError(f"{where}: {error.message}", error.hint) from error
        title = model.name if model.name not in titles else f"{model.name}-{index + 1}"
        titles.append(title)
        take = _takes(stage, model, known, spec.inputs if index else None, where)
        stages.append(Stage(title, model, take, _gives(stage, model, where)))
        known.values.update(
            {stages[-1].give[t.name]: Tensor(stages[-1].give[t.name], t.datatype, t.shape)
             for t in model.outputs}
        )  # fmt: skip
    _require_alike(stages, path)
    unused = [name for name in spec.inputs if name not in known.inputs]
    if unused:
        raise SpecError(f"{path}: no stage takes the input {unused[0]!r}")
    last = spec.outputs or tuple(stages[-1].give.values())
    missing = [name for name in last if name not in known.values or name in known.inputs]
    if missing:
        raise SpecError(f"{path}: no stage gives {missing[0]!r}", f"they give {_names(stages)}")
    pipeline = Pipeline(files.name_of(path), str(spec.version), stages)
    pipeline.settle(tuple(known.inputs.values()), tuple(known.values[name] for name in last))
    return pipeline


def is_pipeline(path: Path) -> bool:
    """Whether a file holds stages, and not a scenario or nothing that can be read."""
    try:
        return "stage" in _read(path)
    except SpecError:
        return False


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST:
            raise SpecError(f"{path} is no pipeline: it has more than {LARGEST} bytes")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(f"{path}: {error}", "a pipeline is a TOML file of [[stage]]s") from error


def _place(stage: StageSpec, path: Path, trust: bool) -> str:
    """A path beside the pipeline's file, else a name of the zoo."""
    wanted = Path(stage.model)
    if not trust and (wanted.is_absolute() or ".." in wanted.parts):
        raise SpecError(
            f"{stage.model} lies outside the folder of {path}",
            "put it beside the pipeline, or allow that with --trust",
        )
    if stage.model.endswith(".toml"):
        raise SpecError(f"{stage.model} is a pipeline itself", "list its stages here")
    beside = path.parent / stage.model
    return str(beside) if beside.exists() or "." in stage.model else stage.model


def _settings(stage: StageSpec, settings: EngineSpec, where: str, trust: bool) -> EngineSpec:
    """The engine's, with the stage's own in front."""
    for key in stage.settings:
        if key in EngineSpec.model_fields and key not in OF_A_STAGE:
            raise SpecError(
                f"{where}: {key} is not a stage's to say, the pipeline is batched as a whole",
                f"--set engine.{key}=…",
            )
    code = code_of(stage.settings)
    if code and not trust:
        raise SpecError(f"{where} has code run: {code}", "read it, then allow that with --trust")
    own = checked(EngineSpec, stage.settings, where)
    of_the_whole = {"preprocess": (), "postprocess": ()}
    said = {key: getattr(own, key) for key in stage.settings}
    return settings.model_copy(update={**of_the_whole, **said})


def _takes(
    stage: StageSpec, model: Model, known: _Known, asked: Sequence[str] | None, where: str
) -> dict[str, str]:
    """Which value each input takes. What the first stage takes (then `asked` is None) clients send,
    and what they send besides is named by the pipeline."""
    unknown = stage.take.keys() - {tensor.name for tensor in model.inputs}
    if unknown:
        names = ", ".join(tensor.name for tensor in model.inputs)
        raise SpecError(f"{where}: {model.name} has no input {min(unknown)!r}", f"it has {names}")
    found = {}
    for tensor in model.inputs:
        value = found[tensor.name] = stage.take.get(tensor.name, tensor.name)
        if value not in known.values:
            if asked is not None and value not in asked:
                raise SpecError(
                    f"{where}: nothing gives {value!r} to {model.name}",
                    f'known: {", ".join(known.values)}; take = {{{tensor.name} = "…"}} says which,'
                    " or add it to the pipeline's inputs",
                )
            sent = Tensor(value, tensor.datatype, tensor.shape)
            known.values[value] = known.inputs[value] = sent
        _require_fit(known.values[value], tensor, f"{where}: {model.name}")
    return found


def _require_fit(value: Tensor, tensor: Tensor, where: str) -> None:
    shapes = len(value.shape) == len(tensor.shape) and all(
        -1 in pair or pair[0] == pair[1] for pair in zip(value.shape, tensor.shape, strict=True)
    )
    numbers = all(t.datatype.startswith(_NUMBERS) for t in (value, tensor))
    if shapes and (value.datatype == tensor.datatype or numbers):
        return
    raise SpecError(
        f"{where} takes {tensor.name!r} as {_words(tensor)}, but {value.name!r} is {_words(value)}",
        "let a postprocess plugin of the stage before, or a preprocess plugin of this one, turn it",
    )


def _words(tensor: Tensor) -> str:
    return f"{tensor.datatype} [{','.join(map(str, tensor.shape))}]"


def _gives(stage: StageSpec, model: Model, where: str) -> dict[str, str]:
    names = [tensor.name for tensor in model.outputs]
    unknown = stage.give.keys() - set(names)
    if unknown:
        raise SpecError(
            f"{where}: {model.name} has no output {min(unknown)!r}", f"it has {', '.join(names)}"
        )
    found = {name: stage.give.get(name, name) for name in names}
    if len(set(found.values())) < len(found):
        raise SpecError(f"{where}: two outputs of {model.name} have one name")
    return found


def _require_alike(stages: Sequence[Stage], path: Path) -> None:
    """Rows go through all stages together, or one request at a time goes through all of them."""
    alone = [stage.title for stage in stages if not stage.model.batched]
    if alone and len(alone) < len(stages):
        raise SpecError(
            f"{path}: {alone[0]} runs one request at a time, other stages run batches",
            f"loadbench doctor tells why {alone[0]} cannot batch",
        )


def _names(stages: Sequence[Stage]) -> str:
    return ", ".join(name for stage in stages for name in stage.give.values())
