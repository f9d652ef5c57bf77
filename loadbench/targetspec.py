"""The table [target] of a scenario: what is measured, how it is reached, and how far it may be
loaded."""

from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from loadbench import environment, units
from loadbench.courtesy import USUAL_MOST, elsewhere
from loadbench.loadspec import Duration, Section, written
from loadbench.metricspec import MetricsSpec, without_password
from loadbench.plan import Tls
from loadbench.targets.wire import header_fault


def _cap(value: object) -> object:
    return value if value is None else units.parse_rate(value)  # type: ignore[arg-type]


class TargetSpec(Section):
    """What is measured: `local:MODEL` (started by us) or an URL."""

    url: str = "local:mlp"
    protocol: Literal["auto", "kserve", "tensorflow", "openai", "torchserve", "http"] = "auto"
    model: str = ""
    timeout: Duration = 10 * units.SECOND  # of a request as a whole; 2 min of OpenAI's
    connect_timeout: Duration = 5 * units.SECOND  # of that, to be connected
    layout: Literal["rows", "columns"] = "rows"  # of what TensorFlow Serving is sent
    signature: str = "serving_default"  # of its model
    replicas: Annotated[tuple[str, ...], Field(max_length=64)] = ()  # further URLs of the same
    weights: tuple[Annotated[float, Field(gt=0, le=1e6)], ...] = ()  # of url, then of each of them
    resolve: Duration = 10 * units.SECOND  # so often names are looked up again; "0s": never
    shared_memory: bool = False  # tensors go through memory of this machine; only of KServe
    binary: bool = True  # false: tensors in JSON, also where a KServe server takes binary ones
    stream: bool = False  # over gRPC by streams, as models that are decoupled are asked anyhow
    connections: Annotated[int, Field(ge=1, le=65_536)] = 1024
    path: str = "/"
    method: Literal["GET", "POST", "PUT"] = "GET"
    ca: str = ""  # PEM files of https and grpcs, as the next two
    cert: str = ""
    key: str = ""
    verify: bool = True
    metrics: MetricsSpec = MetricsSpec()
    headers: dict[str, str] = {}  # of all that is sent there; $NAME is taken from the environment
    max_rate: Annotated[float | None, *written(_cap, "string", "number")] = (
        None  # requests/s that no load of it may exceed, on average
    )
    owned: bool = False  # a host of others is not loaded heavily by mistake

    @property
    def tls(self) -> Tls:
        return Tls(self.ca, self.cert, self.key, self.verify)

    @property
    def deadline(self) -> int | None:
        """What a call over gRPC says that it waits (ns): the timeout, if somebody chose one."""
        return self.timeout if "timeout" in self.model_fields_set else None

    @property
    def remote(self) -> str:
        """Of its URLs the first that may be a machine of somebody else; empty if none is."""
        return next(filter(elsewhere, (self.url, *self.replicas)), "")

    @property
    def guarded(self) -> bool:
        """Whether it may be somebody else's, and nobody has said that it may be loaded."""
        return bool(self.remote) and not self.owned

    @property
    def cap(self) -> float | None:
        """Requests per second that it may be asked for; None: any number."""
        known = [self.max_rate] if self.max_rate is not None else []
        if self.guarded:
            known.append(USUAL_MOST)
        return min(known, default=None)

    @field_validator("url")
    @classmethod
    def _without_a_password(cls, url: str) -> str:
        hint = 'headers = { Authorization = "Basic $TOKEN" } takes it from the environment'
        return without_password(url, hint)

    @field_validator("replicas")
    @classmethod
    def _without_passwords(cls, replicas: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(cls._without_a_password, replicas))

    @model_validator(mode="after")
    def _replicas_are_of_one_kind(self) -> "TargetSpec":
        kinds = {urlsplit(url).scheme for url in (self.url, *self.replicas)}
        if self.replicas and (len(kinds) > 1 or not kinds <= {"http", "https", "grpc", "grpcs"}):
            said = "replicas are servers that run, all of http://, https://, grpc:// or grpcs://"
            raise ValueError(f"{said}: here are {', '.join(sorted(kinds))}")
        if len({self.url.rstrip("/"), *(url.rstrip("/") for url in self.replicas)}) <= len(
            self.replicas
        ):
            raise ValueError("replicas: a server is named twice")
        if self.weights and len(self.weights) != 1 + len(self.replicas):
            raise ValueError(
                f"weights has {len(self.weights)} numbers: {1 + len(self.replicas)} are needed,"
                " of url and of each replica"
            )
        if self.replicas and self.shared_memory:
            raise ValueError("shared_memory is of one server: leave it out, or the replicas")
        return self

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, text in headers.items():
            if fault := header_fault(name, text):
                raise ValueError(f"{name!r} {fault}")
        return headers

    @model_validator(mode="after")
    def _tls_has_a_use(self) -> "TargetSpec":
        if self.key and not self.cert:
            raise ValueError('a key needs its certificate: cert = "client.pem"')
        plain = self.url.startswith(("http://", "grpc://"))
        if plain and self.tls != Tls() and not self.metrics.secure:
            raise ValueError("ca, cert, key and verify are for https:// targets only (or grpcs://)")
        return self


def sends_secrets(raw: object, overrides: Mapping[str, object]) -> str:
    """In a sentence what must be allowed before: that the table in a file, but for what the user
    gives, sends something of the environment away; or empty."""
    headers = raw.get("headers") if isinstance(raw, dict) else None
    if isinstance(headers, dict) and "target.headers" not in overrides:
        for name, text in headers.items():
            own = f"target.headers.{name}" in overrides
            if isinstance(text, str) and environment.names(text) and not own:
                return f"[target] sends a value of your environment in its header {name!r}"
    return ""
