"""Values that are no numbers: whose fault they are, and in which part of the model they begin."""

from collections.abc import Callable, Iterator
from typing import Any

from numpy.typing import NDArray

from loadbench import units
from loadbench.engine import outputs
from loadbench.engine.backends import Arrays, Model
from loadbench.errors import LoadbenchError, SpecError


def guard(model: Model) -> Callable[[Arrays, dict[str, NDArray[Any]]], None]:
    """A check that raises SpecError if what came in holds NaN or infinity, and LoadbenchError if
    only what comes out does."""

    def check(arrays: Arrays, found: dict[str, NDArray[Any]]) -> None:
        bad = outputs.nonfinite(found, model.outputs)
        if not bad:
            return
        if given := outputs.nonfinite(arrays, model.inputs):
            raise SpecError(f"input {_counted(given)}")
        where = origin(model, arrays)
        raise LoadbenchError(
            f"output {_counted(bad)}" + (f"; it begins in {where}" if where else "")
        )

    return check


def origin(model: Model, arrays: Arrays) -> str:
    """The first module, in the order in which they run, that makes no number of numbers; "" where
    the model has no modules to be looked at. Runs the model once more."""
    found = list(modules_of(model))
    if not found:
        return ""
    from loadbench.engine.watch.modules import first_nonfinite  # torch is loaded already

    launchers: list[Any] = [getattr(part, "launcher", None) for part in parts_of(model)]
    recorders = [found for found in launchers if hasattr(found, "recorded")]
    recorded = [recorder.recorded for recorder in recorders]
    try:
        for recorder in recorders:  # a graph that is replayed calls no module
            recorder.recorded = None
        return first_nonfinite(model, found, arrays)
    finally:
        for recorder, graphs in zip(recorders, recorded, strict=True):
            recorder.recorded = graphs


def modules_of(model: Any) -> Iterator[Any]:
    """The torch modules in a model: its own, or those of the models that it is made of."""
    return (part.program.module for part in parts_of(model) if hasattr(part, "program"))


def parts_of(model: Any) -> Iterator[Any]:
    """A model and those that it is made of."""
    yield model
    for part in (getattr(model, "inner", None), *getattr(model, "stages", ())):
        if part is not None:
            yield from parts_of(getattr(part, "model", part))


def _counted(bad: dict[str, int]) -> str:
    name, number = next(iter(bad.items()))
    values = "a value is" if number == 1 else f"{units.count(number)} values are"
    return f"{name!r}: {values} NaN or infinite"
