"""The load of a scenario: rates, phases, arrivals; and how fields with units are written in TOML.

What comes out is frozen and holds plain numbers. The other tables, and finding and reading the
file, are `spec`'s.
"""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SkipValidation,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from loadbench import units
from loadbench.errors import SpecError
from loadbench.shape import Arrivals, Phase
from loadbench.trace import Replay, Trace, read


def written(parse: Callable[[Any], Any], *kinds: str) -> list[Any]:
    """A field written as text with a unit; pydantic shows the parser's own words on error."""

    def check(value: Any) -> Any:
        try:
            return parse(value)
        except SpecError as error:
            raise ValueError(f"{error.message}: {error.hint}") from error

    return [BeforeValidator(check), WithJsonSchema({"type": list(kinds) or ["string"]})]


Duration = Annotated[
    int, *written(units.parse_duration), PlainSerializer(units.exact_duration, when_used="json")
]
Share = Annotated[
    float,
    *written(units.parse_share),
    PlainSerializer(lambda share: f"{share * 100:g} %", when_used="json"),
]

Size = Annotated[
    int,
    *written(units.parse_size, "string", "integer"),
    PlainSerializer(lambda size: f"{size} B", when_used="json"),
]


class Asked(NamedTuple):
    """A rate: absolute per second, or a share of the capacity that calibration finds."""

    value: float
    relative: bool

    def resolve(self, capacity: float | None) -> float:
        if not self.relative:
            return self.value
        if capacity is None:
            raise SpecError("a rate in % needs a calibration", 'set load.calibrate = "3s"')
        return self.value * capacity


def _asked(value: Any) -> Any:
    if isinstance(value, str) and value.rstrip().endswith("%"):
        return Asked(units.parse_share(value), relative=True)
    return Asked(units.parse_rate(value), relative=False)


def _asked_text(asked: Asked) -> str | float:
    return f"{asked.value * 100:g} %" if asked.relative else asked.value


Rate = Annotated[
    Asked,
    *written(_asked, "string", "number"),
    PlainSerializer(_asked_text, when_used="json-unless-none"),
]


class Section(BaseModel):
    """A table of the scenario: frozen, no unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, arbitrary_types_allowed=True
    )


class PhaseSpec(Section):
    """`{rate = 300, for = "20s"}` or `{from = 300, to = 1200, for = "1m"}`; with `sine = "10s"`
    or `sawtooth = "10s"` from one to the other in each 10 s anew."""

    rate: Rate | None = None
    start: Rate | None = Field(None, alias="from")
    end: Rate | None = Field(None, alias="to")
    sine: Duration | None = None
    sawtooth: Duration | None = None
    length: Duration = Field(alias="for")

    @property
    def period(self) -> int | None:
        return self.sawtooth if self.sine is None else self.sine

    @model_validator(mode="after")
    def _one_of(self) -> "PhaseSpec":
        ramp = (self.start is not None, self.end is not None)
        if (self.rate is None) != all(ramp) or (self.rate is not None and any(ramp)):
            raise ValueError("give either rate, or both from and to")
        if self.length <= 0:
            raise ValueError("for must be longer than nothing")
        if self.period is not None:
            if self.start is None or (self.sine is not None and self.sawtooth is not None):
                raise ValueError("either a sine or a sawtooth goes between from and to")
            if not 0 < self.period <= self.length:
                raise ValueError("the period of a sine or sawtooth must be in 0 … for")
        return self

    def resolve(self, capacity: float | None) -> Phase:
        if self.rate is not None:
            rate = self.rate.resolve(capacity)
            return Phase(rate, rate, self.length)
        assert self.start is not None
        assert self.end is not None
        start, end = self.start.resolve(capacity), self.end.resolve(capacity)
        return Phase(start, end, self.length, self.period, self.sine is not None)


_NO_RATE = Asked(0.0, relative=False)

_OF_JOURNEYS = (
    "locustfile", "users", "spawn_rate", "tags", "exclude_tags", "user_classes", "arguments",
)  # fmt: skip

TraceFile = Annotated[
    SkipValidation[Trace],
    *written(read),
    PlainSerializer(lambda trace: trace.path),
]


Words = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda raw: tuple(shlex.split(raw)) if isinstance(raw, str) else raw),
]


class LoadSpec(Section):
    """When requests are sent."""

    arrivals: Arrivals = "poisson"
    seed: int = 7
    cv: Annotated[float, Field(gt=0, le=20)] | None = None  # of gamma: 1 is Poisson, more is bursts
    trace: TraceFile | None = None
    scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0  # of a trace: 2 is twice its rate
    loop: bool = False  # a trace that is over begins anew
    phases: Annotated[
        tuple[PhaseSpec, ...], Field(max_length=10_000, validate_default=True)
    ] = ()  # none: as long as the trace, or as the shape of the Locust file
    locustfile: str = ""  # of a journey: whose users send the requests
    users: Annotated[int, Field(ge=1, le=100_000)] = 1
    spawn_rate: Annotated[float, Field(gt=0, le=10_000)] | None = (
        None  # users a second; all at once
    )
    tags: Words = ()  # of the tasks to be run
    exclude_tags: Words = ()
    user_classes: Words = ()
    arguments: Words = ()  # of the options that the file adds to Locust's
    concurrency: Annotated[int, Field(ge=1, le=65_536)] = 1
    warmup: Duration = 2 * units.SECOND
    drain: Duration = 10 * units.SECOND
    calibrate: Duration | None = None  # closed loop of this length before, for rates in %

    @property
    def replay(self) -> Replay | None:
        """The trace as it is played."""
        return self.trace.replay(self.scale, self.loop) if self.trace else None

    @model_validator(mode="before")
    @classmethod
    def _some_need_no_rate(cls, raw: Any) -> Any:
        """In a closed loop, a trace and a journey a phase is just a length: `{for = "30s"}`. A
        journey has no warm-up unless asked for: its users decide what they do first."""
        if isinstance(raw, dict) and raw.get("arrivals") == "journey":
            raw = {"warmup": "0s", **raw}
        if isinstance(raw, dict) and raw.get("arrivals") in ("closed", "trace", "journey"):
            phases = raw.get("phases")
            if isinstance(phases, list | tuple):
                filled = [
                    {"rate": 0, **phase} if isinstance(phase, dict) and "from" not in phase
                    else phase
                    for phase in phases
                ]  # fmt: skip
                return {**raw, "phases": filled}
        return raw

    @field_validator("cv", "trace", "scale", "loop", *_OF_JOURNEYS)
    @classmethod
    def _fits_the_arrivals(cls, value: Any, info: ValidationInfo) -> Any:
        kind = "gamma" if info.field_name == "cv" else "trace"
        kind = "journey" if info.field_name in _OF_JOURNEYS else kind
        default = cls.model_fields[str(info.field_name)].default
        if value != default and info.data.get("arrivals", kind) != kind:
            raise ValueError(f'only arrivals = "{kind}" take it')
        return value

    @field_validator("phases")
    @classmethod
    def _has_phases(
        cls, phases: tuple[PhaseSpec, ...], info: ValidationInfo
    ) -> tuple[PhaseSpec, ...]:
        arrivals = info.data.get("arrivals")
        if not phases and arrivals not in ("trace", "journey"):
            raise ValueError('give at least one, like { rate = 100, for = "30s" }')
        if arrivals == "trace" and any(phase.rate != _NO_RATE for phase in phases):
            raise ValueError("a trace brings its own rate: leave only for, and set scale")
        if arrivals == "journey" and any(phase.rate != _NO_RATE for phase in phases):
            raise ValueError("a journey has users, no rate: leave only for, and set users")
        return phases

    @model_validator(mode="after")
    def _is_whole(self) -> "LoadSpec":
        if self.arrivals == "gamma" and self.cv is None:
            raise ValueError("gamma arrivals need cv, the variation of their gaps: cv = 2.0")
        if self.arrivals == "trace" and not self.trace:
            raise ValueError('trace arrivals need a file of times: trace = "times.csv"')
        replay = self.replay
        if replay and not self.loop and sum(phase.length for phase in self.phases) > replay.span_ns:
            took = units.duration(replay.span_ns)
            raise ValueError(f"the trace ends after {took}: set loop = true, or a shorter for")
        return self

    @model_validator(mode="after")
    def _is_a_journey(self) -> "LoadSpec":
        if self.arrivals != "journey":
            return self
        if not self.locustfile:
            raise ValueError('a journey needs a Locust file: locustfile = "users.py"')
        if not Path(self.locustfile).is_file():
            raise ValueError(f"{self.locustfile}: no such Locust file")
        if self.calibrate is not None:
            raise ValueError("only rates are calibrated, and a journey has users: leave it out")
        return self

    @model_validator(mode="after")
    def _relative_needs_calibration(self) -> "LoadSpec":
        relative = any(
            rate is not None and rate.relative
            for phase in self.phases
            for rate in (phase.rate, phase.start, phase.end)
        )
        if relative and self.calibrate is None:
            raise ValueError('rates in % need a calibration: set calibrate = "3s"')
        return self

    @property
    def unheeded(self) -> str:
        """What of the phases counts for nothing, in a sentence; empty: all counts."""
        rates = any(phase.rate != _NO_RATE for phase in self.phases)
        if self.arrivals != "closed" or not rates:
            return ""
        return (
            f"closed loop: the rates of its phases count for nothing, {self.concurrency} requests"
            " are kept under way"
        )

    def resolve(self, capacity: float | None = None) -> tuple[Phase, ...]:
        """The shape in requests per second; of a trace its mean rate."""
        replay = self.replay
        if replay:
            lengths = [phase.length for phase in self.phases] or [replay.span_ns]
            return tuple(Phase(replay.rate, replay.rate, length) for length in lengths)
        return tuple(phase.resolve(capacity) for phase in self.phases)
