"""Code of people's own around a model: what they run before it and after it, on whole batches.

A plugin is a function, or a class that is made once per instance and then called. It gets the named
arrays of all rows of a batch and returns named arrays of as many rows; where the model has no batch
axis, those of one request. Whole batches, because one call for 32 rows costs little more than one
for a single row, because its time is then part of the batch's and so of what deadlines are planned
with, and because a fault is found by halving like any other. What it gets is read-only.

Clients see the inputs that the first plugin takes (its attribute `inputs`, or the setting) and the
outputs that the last one gives, which is found by trying it.
"""

import functools
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loadbench.aroundspec import PluginSpec
from loadbench.engine import datatypes, signature
from loadbench.engine.backends import Arrays, Model
from loadbench.engine.images import image
from loadbench.engine.imported import imported
from loadbench.engine.inputs import as_bytes, fitted
from loadbench.engine.measure import parts_of
from loadbench.errors import LoadbenchError, SpecError
from loadbench.model import Tensor
from loadbench.spec import EngineSpec, parse_tensor

Values = dict[str, NDArray[Any]]


class Plugin(NamedTuple):
    """One function to be run on batches."""

    title: str  # "preprocess package.module:function"
    call: Callable[..., Any]
    before: bool  # the model
    inputs: tuple[Tensor, ...]  # whole shapes; empty: what comes after it takes
    example: Arrays | None  # rows that it can bear, where random ones would be none
    sees_inputs: bool  # it also wants what the client sent


class Surrounded:
    """A Model (see backends) with plugins around another. Used like any other."""

    def __init__(self, model: Model, plugins: Sequence[Plugin]) -> None:
        self.inner = model
        self._before = [plugin for plugin in plugins if plugin.before]
        self._after = [plugin for plugin in plugins if not plugin.before]
        self.name = model.name
        self.version = model.version
        self.platform = model.platform
        self.device = model.device
        self.precision = model.precision
        self.max_batch = model.max_batch
        self.metadata = {**model.metadata, "plugins": [plugin.title for plugin in plugins]}
        self.notes = model.notes
        self.batched = model.batched
        self.inputs: tuple[Tensor, ...] = model.inputs
        self.outputs: tuple[Tensor, ...] = model.outputs
        self.example: Arrays | None = next((p.example for p in self._before if p.example), None)
        titles = [p.title for p in self._before] + ["model"] + [p.title for p in self._after]
        self._own: dict[str, list[int]] = {title: [0, 0] for title in titles}  # batches, ns

    @property
    def parts(self) -> dict[str, Sequence[int]]:
        """Batches and ns of each plugin, of the model, and of what the model itself is made of."""
        return {**self._own, **parts_of([self.inner])}

    def run(self, arrays: Arrays) -> Values:
        """See backends.Model. A fault of a plugin is a LoadbenchError that names it, of a
        preprocess plugin that finds fault with the input (ValueError) a SpecError."""
        sent = {name: _sealed(array) for name, array in arrays.items()}
        rows = len(next(iter(sent.values()))) if self.batched else None
        found: Values = dict(arrays)
        if self._before:
            found = self._prepared(sent, rows)
            # What no plugin touched goes on as it came: read-only arrays are copied by torch
            found = {name: arrays[name] if a is sent.get(name) else a for name, a in found.items()}
        begun = time.monotonic_ns()
        found = self.inner.run(found)
        self._count("model", begun)
        for plugin in self._after:
            found = self._step(plugin, found, sent, rows)
        return {name: array for name, (_, array) in self._typed(found).items()}

    def memory(self) -> dict[str, int]:
        """Of the model; what plugins hold they do not tell."""
        return self.inner.memory()

    def settle(self) -> None:
        """Finds out, by trying, what clients send and get. SpecError if it does not run."""
        lead = (-1,) if self.inner.batched else ()
        whole = tuple(Tensor(t.name, t.datatype, (*lead, *t.shape)) for t in self.inner.inputs)
        takes = next((plugin.inputs for plugin in self._before if plugin.inputs), whole)
        for tensor in takes:
            if lead and tensor.shape[:1] != lead:
                dims = ",".join(map(str, (-1, *tensor.shape)))
                raise SpecError(
                    f"{self._before[0].title}: {tensor.name} has no batch axis in front",
                    f"write it like {tensor.name}:{tensor.datatype}:{dims}",
                )
        sizes = self.metadata.pop("sizes", {})
        try:
            found = signature.probe(self._tried, takes, sizes, self.example)
        except SpecError as error:
            raise SpecError(
                f"{self.name} with its plugins: {error.message}",
                "a plugin's attribute inputs says what clients send it, and example which rows to "
                "try it with; otherwise it is tried with random ones that the model would take",
            ) from error
        self.inputs, self.outputs, self.batched = found.inputs, found.outputs, found.batched
        known = {note.code for note in self.notes}
        self.notes += tuple(note for note in found.notes if note.code not in known)
        if found.sizes:
            self.metadata["sizes"] = found.sizes

    def _tried(self, arrays: dict[str, NDArray[Any]]) -> dict[str, tuple[str, NDArray[Any]]]:
        """One run with the outputs' types still unknown."""
        self.outputs = ()
        try:
            return self._typed(self.run(arrays))
        except LoadbenchError as error:
            raise SpecError(error.message, error.hint) from error

    def _prepared(self, sent: Values, rows: int | None) -> Values:
        found = sent
        for plugin in self._before:
            found = self._step(plugin, found, sent, rows)
        return self._taken(found)

    def _step(self, plugin: Plugin, found: Values, sent: Values, rows: int | None) -> Values:
        begun = time.monotonic_ns()
        try:
            more = {"inputs": sent} if plugin.sees_inputs else {}
            given = plugin.call(found, **more)
        except (MemoryError, LoadbenchError, KeyboardInterrupt):
            raise
        except ValueError as error:
            kind = SpecError if plugin.before else LoadbenchError
            raise kind(f"{plugin.title}: {error}") from error
        except BaseException as error:  # whatever people's code raises is its fault
            raise LoadbenchError(
                f"{plugin.title} failed: {type(error).__name__}: {error}"
            ) from error
        self._count(plugin.title, begun)
        return _arrays(plugin, given, rows)

    def _count(self, title: str, begun: int) -> None:
        part = self._own[title]
        part[0] += 1
        part[1] += time.monotonic_ns() - begun

    def _taken(self, found: Values) -> Values:
        """What the plugins made, as the model takes it; LoadbenchError if it is something else."""
        inner = self.inner
        try:
            return {
                tensor.name: fitted(found[tensor.name], tensor, inner.batched)
                for tensor in inner.inputs
            }
        except KeyError as error:
            fault = f"gives no {error}, only {', '.join(map(repr, found)) or 'nothing'}"
        except SpecError as error:
            fault = f"does not give what {inner.name} takes: {error.message}"
        raise LoadbenchError(f"{self._before[-1].title} {fault}")

    def _typed(self, found: Values) -> dict[str, tuple[str, NDArray[Any]]]:
        """Outputs with their datatypes, in forms that the protocol knows."""
        known = {tensor.name: tensor.datatype for tensor in (*self.inner.outputs, *self.outputs)}
        return {name: _typed(name, array, known.get(name)) for name, array in found.items()}


def surround(model: Model, settings: EngineSpec) -> Surrounded:
    """The model with the plugins of the settings. SpecError for those that cannot be found, or with
    which the model does not run."""
    found = [
        _plugin(kind, spec, model)
        for kind, specs in (
            ("preprocess", settings.preprocess),
            ("postprocess", settings.postprocess),
        )
        for spec in sorted(specs, key=lambda spec: spec.priority)
    ]
    for index, plugin in enumerate(found):
        before = [other.title for other in found[:index]]
        if plugin.title in before:  # used once more, with other options
            found[index] = plugin._replace(title=f"{plugin.title} #{index + 1}")
    surrounded = Surrounded(model, found)
    surrounded.settle()
    return surrounded


def _plugin(kind: str, spec: PluginSpec, model: Model) -> Plugin:
    what = f"engine.{kind}"
    if spec.use == "image":
        call: Callable[..., Any] = image(spec.options, model, what)
    else:
        call = _own(what, spec)
    declared = spec.inputs or getattr(call, "inputs", ())
    declared = (declared,) if isinstance(declared, str) else declared
    return Plugin(
        title=f"{kind} {spec.use}",
        call=call,
        before=kind == "preprocess",
        inputs=tuple(map(parse_tensor, declared)),
        example=getattr(call, "example", None),
        sees_inputs=kind == "postprocess" and _has_parameter(call, "inputs"),
    )


def _own(what: str, spec: PluginSpec) -> Callable[..., Any]:
    """What is to be called with each batch: a function, or what a class makes."""
    found = imported(what, spec.use)
    if not inspect.isclass(found):
        return _with(found, spec.options) if spec.options else found
    try:
        made: Any = found(**spec.options)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever people's code raises
        raise SpecError(
            f"{what} {spec.use} failed: {type(error).__name__}: {error}",
            "a class is made with its options, and what comes of it called with each batch",
        ) from error
    if not callable(made):
        raise SpecError(f"{what} {spec.use}: what the class makes cannot be called")
    called: Callable[..., Any] = made
    return called


def _with(function: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    """The function with its options, and with what it says of itself."""

    @functools.wraps(function)
    def call(arrays: Values, **more: Any) -> Any:
        return function(arrays, **options, **more)

    return call


def _has_parameter(call: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(call).parameters
    except (TypeError, ValueError):  # of a function in C
        return False


def _sealed(array: NDArray[Any]) -> NDArray[Any]:
    """A view that cannot be written to: the same rows may be run again."""
    view = array.view()
    view.flags.writeable = False
    return view


def _arrays(plugin: Plugin, given: Any, rows: int | None) -> Values:
    if not isinstance(given, Mapping) or not given:
        raise LoadbenchError(
            f"{plugin.title} returned a {type(given).__name__}, not a dict of arrays by name"
        )
    try:
        found = {str(name): np.asarray(value) for name, value in given.items()}
    except (ValueError, TypeError) as error:
        raise LoadbenchError(f"{plugin.title} returned what is no array: {error}") from error
    for name, array in found.items():
        if rows is not None and array.shape[:1] != (rows,):
            shape = list(array.shape)
            raise LoadbenchError(
                f"{plugin.title} returned {name!r} of shape {shape} for {rows} rows"
            )
    return found


def _typed(name: str, array: NDArray[Any], known: str | None) -> tuple[str, NDArray[Any]]:
    """An array and its datatype: the one it is known to have where its form is the same."""
    if array.dtype.kind in "OUS":
        try:
            return "BYTES", as_bytes(name, array)
        except SpecError as error:  # of whoever wrote the plugin, not of the client
            raise LoadbenchError(f"output {error.message}") from error
    if known is not None and array.dtype == datatypes.NUMPY[known]:
        return known, array
    for datatype, kind in datatypes.NUMPY.items():
        if kind == array.dtype and datatype != "BF16":
            return datatype, array
    raise LoadbenchError(f"output {name!r} is {array.dtype}, which the protocol cannot carry")
