"""Modules built in Python: the zoo's, and those a factory makes for a file of weights."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from loadbench.engine import zoo
from loadbench.engine.backends.prepare import finish, place
from loadbench.engine.backends.torch_run import Program, TorchModel, unshared
from loadbench.spec import EngineSpec


def open_zoo(name: str, settings: EngineSpec, where: str) -> TorchModel:
    """A model of the zoo."""
    entry = zoo.build(name, settings.seed)
    module = place(entry.module, where)
    program = Program(
        name,
        "pytorch",
        module,
        caller(module, tuple(tensor.name for tensor in entry.inputs)),
        entry.inputs,
        tuple(tensor.name for tensor in entry.outputs),
        entry.sizes,
        {"source": "zoo", "seed": settings.seed},
        heavy=heavy(module),
    )
    return finish(program, settings, where)


def caller(
    module: torch.nn.Module, names: tuple[str, ...]
) -> Callable[[dict[str, torch.Tensor]], Any]:
    """Calls the module by keyword where forward has all these names, else by position."""
    known = inspect.signature(module.forward).parameters
    if all(name in known for name in names):
        return lambda tensors: module(**tensors)
    return lambda tensors: module(*(tensors[name] for name in names))


_PRODUCTS = (
    torch.nn.Linear,
    torch.nn.Conv1d,
    torch.nn.Conv2d,
    torch.nn.Conv3d,
    torch.nn.ConvTranspose1d,
    torch.nn.ConvTranspose2d,
    torch.nn.ConvTranspose3d,
)


def heavy(module: torch.nn.Module) -> tuple[torch.nn.Parameter, ...]:
    """Weights that autocast would cast in every batch."""
    return unshared(module, lambda part: type(part) in _PRODUCTS)
