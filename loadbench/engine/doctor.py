"""Looks a model over before it is served: does it load, are its outputs numbers, what is its L(b)?

What the machine is fit for is `loadbench.ready`'s question.
"""

import time

from loadbench import units
from loadbench.engine import device, measure, outputs, signature
from loadbench.engine.backends import Model
from loadbench.engine.measure import Timing
from loadbench.engine.models import open_model
from loadbench.engine.place import bucket_sizes
from loadbench.engine.room import MARGIN, Footprint, knee
from loadbench.engine.unused import unused
from loadbench.errors import RunError
from loadbench.model import Note, Tensor, Value
from loadbench.spec import EngineSpec

_HEAD = "  batch  fastest ms   median ms  slowest ms    rows/s   runs"


class Report(Value, frozen=True):
    """What was found. `passed` is false if an output holds NaN or infinity."""

    model: str
    version: str
    platform: str
    device: str
    device_name: str
    precision: str
    threads: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batched: bool
    max_batch: int  # the largest that was timed
    load_ns: int
    memory: dict[str, int]
    free_memory: int  # on the device, once the model is loaded
    footprint: tuple[float, float] | None  # bytes of a batch, and of each row; None: not told
    fitting: int | None  # the largest batch for which memory is free now
    knee: int | None  # rows beyond which a row gets less than 3 % cheaper
    nonfinite: dict[str, int]  # values that are NaN or infinite, by output
    timings: tuple[Timing, ...]
    notes: tuple[Note, ...]
    metadata: dict[str, object]

    @property
    def passed(self) -> bool:
        return not self.nonfinite


def examine(name: str, settings: EngineSpec, *, trust: bool = False) -> Report:
    """Loads the model, checks its outputs for one row and for the most, times every batch size.

    SpecError if it cannot be loaded, RunError if it does not fit into memory.
    """
    begun = time.monotonic_ns()
    model = open_model(name, settings, trust=trust)
    loaded = time.monotonic_ns() - begun
    where = device.open_device(model.device, settings.sim)
    rising = bucket_sizes(model, settings)
    try:
        timings = measure.table(model, settings.max_batch, where=where, rising=rising)
    except MemoryError as error:
        raise RunError(str(error), "free some, or serve it on a larger device") from error
    memory = where.memory()
    footprint = Footprint.fit({t.rows: t.peak for t in timings if t.peak is not None})
    return Report(
        model=model.name,
        version=model.version,
        platform=model.platform,
        device=model.device,
        device_name=where.title(),
        precision=model.precision,
        threads=device.threads(settings.threads, settings.copies),
        inputs=model.inputs,
        outputs=model.outputs,
        batched=model.batched,
        max_batch=timings[-1].rows,
        load_ns=loaded,
        memory=model.memory(),
        free_memory=memory.free,
        footprint=footprint,
        fitting=footprint.rows((1 - MARGIN) * memory.spare) if footprint else None,
        knee=knee({timing.rows: timing.fastest_ns for timing in timings}),
        nonfinite=_nonfinite(model, timings[-1].rows),
        timings=timings,
        notes=(*model.notes, *unused(settings, model)),
        metadata=dict(model.metadata),
    )


def text_of(report: Report) -> str:
    """The report for people."""
    where = f"{report.device_name} ({report.device})"
    number = f"{report.threads} thread{'s' if report.threads > 1 else ''}"
    threads = f" · {number}" if report.device == "cpu" else ""
    held = ", ".join(
        f"{units.significant(size / 1e6)} MB of {kind} memory"
        for kind, size in report.memory.items()
    )
    lines = [
        f"{report.model} · version {report.version} · {report.platform} · {report.precision}"
        f" on {where}{threads}",
        f"loaded in {units.duration(report.load_ns)}, holds {held};"
        f" {units.gigabytes(report.free_memory)} GB are free",
        *(f"  in   {_tensor(t, report.batched)}{_timed(t, report)}" for t in report.inputs),
        *(f"  out  {_tensor(t, report.batched)}" for t in report.outputs),
        "",
        _HEAD,
        *(_line(timing) for timing in report.timings),
        "",
    ]
    lines += _limits(report)
    lines += [
        f"✗ output {name!r}: {units.count(number)} values are NaN or infinite"
        for name, number in report.nonfinite.items()
    ]
    if report.passed:
        lines.append(f"✓ outputs are numbers, with one row and with {report.max_batch}")
    for note in report.notes:
        mark = "·" if note.code == "backend" else "▲"  # what was chosen is no doubt
        lines.append(f"{mark} {note.text}" + (f" ({note.hint})" if note.hint else ""))
    return "\n".join(lines)


def _limits(report: Report) -> list[str]:
    """What bounds a batch, as far as it shows."""
    found = []
    if report.footprint:
        fixed, row = (units.significant(size / 1e6) for size in report.footprint)
        text = f"a batch takes {fixed} MB and {row} MB a row: {report.fitting} rows fit"
        found.append(f"{text} into what is free")
    if report.knee:
        found.append(f"batches of more than {report.knee} gain less than 3 % a row")
    return [*found, ""] if found else []


def _nonfinite(model: Model, largest: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for rows in sorted({1, largest}):
        answer = model.run(signature.inputs_of(model, rows))
        found.update(outputs.nonfinite(answer, model.outputs))
    return found


def _line(timing: Timing) -> str:
    times = (timing.fastest_ns, timing.median_ns, timing.slowest_ns)
    shown = "".join(f"{units.ms(ns):>12}" for ns in times)
    rate = units.significant(timing.rows_per_second)
    return f"{timing.rows:>7}{shown}{rate:>10}{timing.runs:>7}"


def _timed(tensor: Tensor, report: Report) -> str:
    """The sizes that stood for the open ones."""
    sizes = report.metadata.get("sizes")
    if not isinstance(sizes, dict) or tensor.name not in sizes:
        return ""
    return f", timed with [{','.join(map(str, sizes[tensor.name]))}]"


def _tensor(tensor: Tensor, batched: bool) -> str:
    dims = (-1, *tensor.shape) if batched else tensor.shape
    return f"{tensor.name}  {tensor.datatype} [{','.join(map(str, dims))}]"
