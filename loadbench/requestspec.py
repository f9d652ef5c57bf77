"""The kinds of request of a scenario, `[[request]]`: what they carry and what must come back.

What can be told without the target and without reading data is checked here; the rest when the
requests are made, which is also before anything is sent.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    PlainSerializer,
    SkipValidation,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from loadbench import distribution
from loadbench.errors import SpecError
from loadbench.loadspec import Section, Share, written
from loadbench.targets import template

_NAMED = re.compile(r"\$[A-Za-z_]\w*")  # with braces it is a place for data


def _drawn(value: Any) -> str:
    distribution.parse(value)
    return str(value)


def _template(value: Any) -> str:
    if not isinstance(value, str):
        raise SpecError(f"{value!r} is not a text", "put it in quotes")
    template.parse(value)
    return value


def _dim(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise SpecError(f"{value!r} is not a dimension", "a number, a name or a distribution")
    return value


Drawn = Annotated[str, *written(_drawn, "string", "number")]
Dim = Annotated[SkipValidation[int | str], *written(_dim, "integer", "string")]
Template = Annotated[str, *written(_template)]


class ExpectSpec(Section):
    """What a good answer is: over plain HTTP its status, values in its JSON by their path, a file
    with the JSON schema that it fits, the whole body, or what matches it; of a KServe model the
    file of its outputs, which is written alone."""

    file: str = ""
    status: tuple[Annotated[int, Field(ge=200, le=599)], ...] = ()  # none: any of 2xx
    schema_file: str = Field("", alias="schema")
    values: dict[str, Any] = Field({}, alias="json")
    body: Template | None = None
    regex: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, raw: Any) -> Any:
        if not isinstance(raw, str | dict | ExpectSpec):
            raise ValueError("a file of outputs, or a table of status, json, schema, body or regex")
        return {"file": raw} if isinstance(raw, str) else raw

    @field_validator("status", mode="before")
    @classmethod
    def _one_or_more(cls, raw: Any) -> Any:
        return (raw,) if isinstance(raw, int) else raw

    @field_validator("regex")
    @classmethod
    def _compiles(cls, text: str | None) -> str | None:
        try:
            re.compile(text or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return text

    @field_validator("values")
    @classmethod
    def _can_be_read(cls, values: dict[str, Any]) -> dict[str, Any]:
        try:
            for path, value in values.items():
                template.json_path(path)
                if isinstance(value, str):
                    template.parse(value)
        except SpecError as error:
            raise ValueError(f"{error.message}: {error.hint}") from error
        return values

    @model_validator(mode="after")
    def _says_something(self) -> "ExpectSpec":
        said = self.file or self.values or self.status or self.schema_file
        if not said and self.body is None and self.regex is None:
            raise ValueError(
                'say what: { json = { label = "cat" } }, { schema = "answer.json" }, { body = … },'
                " { regex = … } or { status = 404 }"
            )
        return self


def _dumped(found: ExpectSpec | None) -> Any:
    if found is None or found.file:
        return found and found.file
    return found.model_dump(by_alias=True, exclude_defaults=True)


Expect = Annotated[
    ExpectSpec | None,
    PlainSerializer(_dumped),
    WithJsonSchema({"type": ["string", "object"]}),
]


class RequestSpec(Section):
    """One kind of request; several are drawn by weight."""

    name: str
    weight: Annotated[float, Field(gt=0)] = 1.0
    rows: Annotated[int, Field(ge=1)] = 1
    pool: Annotated[int, Field(ge=1, le=65_536)] | None = None  # distinct bodies at most
    dims: dict[str, Drawn] = {}  # by name, for shapes; inputs that share one have it equal
    shapes: dict[str, tuple[Dim, ...]] = {}
    values: dict[str, Drawn] = {}  # by input
    data: str = ""
    method: Literal["", "GET", "POST", "PUT", "PATCH", "DELETE"] = ""  # "": the target's
    path: Template = ""  # "": the target's
    headers: dict[str, Template] = {}
    body: Template = ""
    form: dict[str, Template] = {}  # multipart/form-data
    expect: Expect = None
    tolerance: Annotated[float, Field(ge=0, lt=1)] | None = None
    parameters: dict[str, bool | int | float | str] = {}  # only of KServe: priority, timeout …
    sequence: Drawn = ""  # of a stateful model: so many requests belong together; only of KServe
    words: Drawn = ""  # of made-up prompts; this and the next two only of protocol "openai"
    max_tokens: Drawn = ""
    options: dict[str, Any] = {}  # of the body: temperature, stop, ignore_eos, stream …
    check: Share | None = (
        None  # of all answers, compared with what is expected; None: all over plain HTTP, else 1 %
    )

    @field_validator("shapes")
    @classmethod
    def _are_drawn(
        cls, shapes: dict[str, tuple[int | str, ...]], info: ValidationInfo
    ) -> dict[str, tuple[int | str, ...]]:
        dims = info.data.get("dims", {})
        for dim in (dim for shape in shapes.values() for dim in shape):
            if isinstance(dim, str) and dim.isidentifier() and dim not in dims:
                raise ValueError(f'no dimension {dim!r} in dims: dims = {{ {dim} = "…" }}')
            try:
                if isinstance(dim, str) and dim not in dims:
                    distribution.parse(dim)
            except SpecError as error:
                raise ValueError(f"{error.message}: {error.hint}") from error
        return shapes

    @field_validator("headers")
    @classmethod
    def _hold_no_secret(cls, headers: dict[str, str]) -> dict[str, str]:
        """What stands here is sent as it stands, and data may stand in it, which is to have no way
        to the environment."""
        for name, text in headers.items():
            if found := _NAMED.search(text):
                raise ValueError(
                    f"{name!r}: {found[0]} would be sent as it stands: values of the environment"
                    " are for target.headers, put it there"
                )
        return headers

    @model_validator(mode="after")
    def _fits_together(self) -> "RequestSpec":
        if self.body and self.form:
            raise ValueError("give either body or form")
        if self.check is not None and not 0 < self.check <= 1:
            raise ValueError('check is a share of the answers, like "1 %"')
        if self.check is not None and not (self.expect or self.data):
            raise ValueError("check compares with what expect says: give expect")
        if self.expect and self.expect.file and not self.data:
            raise ValueError("expect holds the outputs of the rows of data: give data")
        return self
