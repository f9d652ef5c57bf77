"""The settings of simulated GPUs: `[engine.sim]` in a scenario. Frozen, in plain bytes and ns."""

import re
from typing import Annotated, NamedTuple

from pydantic import Field, model_validator

from loadbench import units
from loadbench.errors import SpecError
from loadbench.loadspec import Section, Share, Size


class Phase(NamedTuple):
    """So much, for so long (ns) in every period (ns) but the first."""

    amount: float
    length: int
    period: int


class SimSpec(Section):
    """A card with so much memory, on which a batch of b takes batch + row · b of it."""

    cards: Annotated[int, Field(ge=1, le=16)] = 1
    memory: Size = 8_000_000_000
    weights: Size = 500_000_000  # of each instance of the model
    batch: Size = 100_000_000
    row: Size = 20_000_000
    depth: Annotated[int, Field(ge=1, le=2)] = 1  # 2: a batch is launched while another one runs
    other: str = ""  # "3 GB for 2 s every 10 s": another process takes as much
    throttle: str = ""  # "2 for 2 s every 10 s": everything takes twice as long
    oom: Share = 0.0  # of the batches find no room although there is some, warm-up aside
    seed: int = 1

    def other_phase(self) -> Phase | None:
        """What another process takes (bytes)."""
        return _phase(self.other, "other", "3 GB for 2 s every 10 s")

    def throttle_phase(self) -> Phase | None:
        """How many times slower the card is."""
        return _phase(self.throttle, "throttle", "2 for 2 s every 10 s")

    @model_validator(mode="after")
    def _phases_parse(self) -> "SimSpec":
        try:
            self.other_phase()
            slower = self.throttle_phase()
        except SpecError as error:
            raise ValueError(f"{error.message}: {error.hint}") from error
        if slower and slower.amount < 1:
            raise ValueError("throttle: a factor below 1 would be faster")
        return self


def _phase(text: str, key: str, example: str) -> Phase | None:
    if not text:
        return None
    amount, found, rest = text.partition(" for ")
    length, also, period = rest.partition(" every ")
    if not found or not also:
        raise SpecError(f"{key} = {text!r} is not understood", f'write it like "{example}"')
    if key == "other":
        number: float = units.parse_size(amount)
    elif re.fullmatch(r"\d+(\.\d+)?", amount):
        number = float(amount)
    else:
        raise SpecError(f"{key} = {text!r}: {amount!r} is no factor", f'write it like "{example}"')
    phase = Phase(number, units.parse_duration(length), units.parse_duration(period))
    if not 0 < phase.length < phase.period:
        raise SpecError(f"{key} = {text!r} never ends", f'write it like "{example}"')
    return phase
