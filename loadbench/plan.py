"""What the runner and a load process say to each other, one JSON line at a time.

The runner writes a `Plan` as the first line of the load's stdin and `Command`s after it; the load
answers on stdout with `Started`, one model.Window a second and `Finished`. Nothing is sent per
request. The load exits when its stdin closes.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import asdict, replace

from loadbench import environment
from loadbench.courtesy import UNPACED_MOST
from loadbench.errors import SpecError
from loadbench.model import Mark, Note, Tensor, Value, Window
from loadbench.shape import Arrivals, Phase, Steering
from loadbench.units import MS, SECOND, hostport

if TYPE_CHECKING:  # it brings pydantic, which a load process has no use for
    from loadbench.requestspec import RequestSpec
    from loadbench.spec import Spec


_PLACE = re.compile(r"(?:\[([^\s\[\]]*:[^\s\[\]]*)\]|([^\s:\[\]]+))(?::([0-9]{1,5}))?")


class Tls(Value, frozen=True):
    """How to speak https with a target: paths of PEM files, empty for none."""

    ca: str = ""  # who must have signed the target's certificate; none: whom this system trusts
    cert: str = ""  # ours, for targets that ask for one
    key: str = ""  # its key, if it is not in the same file
    verify: bool = True


class Endpoint(Value, frozen=True):
    """Where requests go and how the target speaks there."""

    host: str
    port: int
    protocol: Literal["kserve", "grpc", "tensorflow", "predict", "openai", "http"]  # see `rpc`
    tls: Tls | None = None  # None: plain http
    model: str = ""
    version: str = ""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    batched: bool = True  # the model's tensors have a batch axis in front
    binary: bool = True  # the server takes KServe's binary tensors
    shared: bool = False  # tensors go through memory of this machine
    closes: bool = False  # the server ends each connection after its answer
    path: str = "/"  # of protocols "http" and "openai"
    method: str = "GET"
    headers: dict[str, str] = {}  # of each request; `$NAME` is filled in where they are made
    deadline_ns: int | None = None  # what each call over gRPC says that it waits
    stream: bool = False  # over gRPC: calls are streams, whose answers may be several
    layout: Literal["rows", "columns"] = "rows"  # only of protocol "tensorflow"
    signature: str = ""  # the same, and of "predict"
    stateful: bool = False  # the model takes requests only as parts of a sequence (KServe)
    at: str = ""  # the address of its name that was asked, and is loaded; empty: any of them

    @property
    def tensors(self) -> bool:
        """Whether that is what is sent, of which the server has told."""
        return self.protocol not in ("http", "openai")

    @property
    def streams(self) -> bool:
        """Whether answers come piece by piece, each with a time of its own."""
        return self.protocol == "openai" or self.stream

    @property
    def rpc(self) -> bool:
        """Whether it is gRPC: KServe's (`grpc`), or TensorFlow Serving's (`predict`)."""
        return self.protocol in ("grpc", "predict")

    @property
    def kserve(self) -> bool:
        """Whether the server can be asked about its model as KServe v2 has it."""
        return self.protocol in ("kserve", "grpc")


class Expected(Value, frozen=True):
    """What a good answer over plain HTTP says."""

    json: dict[str, Any] = {}  # values by their path; texts are templates over the data
    body: str | None = None  # the whole of it, a template too
    regex: str | None = None  # what matches somewhere in it
    schema: str = ""  # a file with a JSON schema that it fits
    status: tuple[int, ...] = ()  # one of these; none: any of 2xx


class RequestPlan(Value, frozen=True):
    """One kind of request: how often it is drawn, what it carries, what must come back."""

    name: str
    weight: float = 1.0
    rows: int = 1
    pool: int | None = None  # so many distinct bodies at most
    dims: dict[str, str] = {}  # distributions by name, for shapes
    shapes: dict[str, tuple[int | str, ...]] = {}  # for inputs that leave dimensions open
    values: dict[str, str] = {}  # distributions by input
    data: str = ""  # a file or a folder; empty: seeded random
    method: str = ""  # this and the next four only of protocol "http"
    path: str = ""
    headers: dict[str, str] = {}
    body: str = ""
    form: dict[str, str] = {}
    expect: str | Expected = ""  # a file of outputs; over plain HTTP what an answer says
    tolerance: float | None = None
    check: float | None = None  # the share of answers compared with what is expected
    parameters: dict[str, bool | int | float | str] = {}  # only of KServe: priority, timeout …
    sequence: str = ""  # only of KServe: a distribution of lengths
    words: str = ""  # this and the next two only of protocol "openai": distributions
    max_tokens: str = ""
    options: dict[str, Any] = {}


def place(text: str) -> tuple[str, int | None]:
    """HOST or HOST:PORT, where an IPv6 address stands in brackets. Raises SpecError."""
    found = _PLACE.fullmatch(text)
    if found is None or (found[3] and not 0 < int(found[3]) < 65_536):
        hint = "write it like 10.0.0.7, 10.0.0.7:5557 or [fd00::7]:5557"
        raise SpecError(f"{text!r} is no HOST:PORT", hint)
    return found[1] or found[2], int(found[3]) if found[3] else None


class Share(Value, frozen=True):
    """A part of the load: the arrivals whose number, counted from 0, leaves `index` when divided by
    `of`. Every load process knows the whole sequence and begins its own part of it."""

    index: int = 0
    of: int = 1

    def part(self, whole: int) -> int:
        """Its part of so many; the parts of all shares add up to the whole."""
        return whole // self.of + (self.index < whole % self.of)

    def count(self, first: int, end: int) -> int:
        """How many of the numbers in [first, end) are its own."""
        return (end - self.index - 1) // self.of - (first - self.index - 1) // self.of


ANY = ("*", "0.0.0.0", "::")  # all addresses of this host
PORT = 5557  # where workers of other hosts connect, as Locust's do
WRITING_NS = 120 * SECOND  # for an answer of a model that writes, where nothing else is said
AHEAD = 250 * MS  # so long before all workers act on something it is announced to them


class Workers(Value, frozen=True):
    """The load processes that share one load. Those of other hosts connect to `host` and `port`,
    and the load begins when all that are expected are there."""

    here: int = 0
    elsewhere: int = 0  # at least so many, started there by hand
    host: str = "127.0.0.1"
    port: int = 0  # 0: a free one
    wait_ns: int = 60_000_000_000  # for all to be there


class Journey(Value, frozen=True):
    """People's own Locust file, and the users that run it."""

    file: str
    host: str = ""  # empty: what its classes say
    users: int = 1
    spawn_rate: float | None = None  # users started per second; None: all at once
    tags: tuple[str, ...] = ()
    exclude_tags: tuple[str, ...] = ()
    user_classes: tuple[str, ...] = ()  # empty: all
    arguments: tuple[str, ...] = ()  # for options that the file adds to Locust's own
    headers: dict[str, str] = {}  # of what is sent to the target; $NAME is of the environment
    most: int | None = None  # users that a host of others gets; None: any number


class Plan(Value, frozen=True):
    """All that a load process needs to know before it starts."""

    endpoint: Endpoint
    requests: tuple[RequestPlan, ...]
    arrivals: Arrivals
    phases: tuple[Phase, ...]  # in a closed loop and a journey only their lengths count
    seed: int = 0
    cv: float = 1.0  # of gamma arrivals: coefficient of variation of the gaps
    trace: bytes = b""  # of a trace: ns from the beginning on, as little-endian int64
    loop_ns: int | None = None  # the trace begins anew so often
    concurrency: int = 1  # of a closed loop
    connections: int = 1024  # at most so many at once; what waits for one is held
    warmup_ns: int = 0  # at the first phase's rate, unrecorded
    drain_ns: int = 10_000_000_000  # how long answers are awaited after the last arrival
    timeout_ns: int = 10_000_000_000  # of one request, from when it was begun
    connect_timeout_ns: int = 5_000_000_000  # of that, to be connected
    limit_ns: int | None = None  # unanswered requests older than this are reported as overdue
    replicas: tuple[Endpoint, ...] = ()  # further servers that share the load with `endpoint`
    weights: tuple[float, ...] = ()  # of all of them, `endpoint` first; none: alike
    resolve_ns: int = 0  # so often their names are looked up again; 0: never
    slowest: int = 5  # exemplars a second
    # of the arrivals, or of the concurrency, is this process's; None: nothing yet
    share: Share | None = Share()
    workers: Workers | None = None  # None: one process, which does it all itself
    journey: Journey | None = None  # no phases: it ends with its file's shape, or after a minute
    waits: bool = False  # says Waiting when all is ready, and begins when a `begin` comes
    begin_ns: int = 0  # not before this moment (monotonic ns)


def kinds(spec: "Spec") -> tuple[RequestPlan, ...]:
    """The kinds of request of a scenario; one, `infer`, if it names none."""
    return tuple(map(_kind, spec.request)) or (RequestPlan("infer"),)


def told_to(endpoints: Sequence[Endpoint], requests: Iterable[RequestPlan]) -> dict[str, str]:
    """What targets are told and may not be quoted with (`hidden`), by name: their headers, and the
    secrets that stand in what is asked for."""
    asked = [endpoint.path for endpoint in endpoints], [asdict(request) for request in requests]
    return environment.told(endpoints[0].headers, {"path": asked[0], "request": asked[1]})


def keys_told(
    headers: Mapping[str, str], endpoint: Endpoint, requests: Sequence[RequestPlan]
) -> tuple[str, ...]:
    """What requests show the target of who asks, in words; `headers` are those of all of them."""
    headers = {**headers, **{name: one for kind in requests for name, one in kind.headers.items()}}
    paths = (kind.path or endpoint.path for kind in requests)
    queried = (key for path in paths for key in environment.keys_queried(path))
    certificate = ("a certificate",) if endpoint.tls and endpoint.tls.cert else ()
    return tuple(dict.fromkeys((*environment.keys_among(headers), *queried, *certificate)))


def named(requests: Sequence[RequestPlan], endpoint: Endpoint) -> tuple[RequestPlan, ...]:
    """Kinds of requests as they are told of where there are several replicas."""
    where = hostport(endpoint.host, endpoint.port)
    return tuple(replace(request, name=f"{request.name} → {where}") for request in requests)


def _kind(request: "RequestSpec") -> RequestPlan:
    found = request.model_dump()
    expect = found["expect"] or ""
    found["expect"] = expect if isinstance(expect, str) else Expected(**expect)
    return RequestPlan(**found)


def planned(
    spec: "Spec",
    endpoint: Endpoint,
    phases: Sequence[Phase],
    limit_ns: int | None,
    replicas: Sequence[Endpoint] = (),
) -> Plan:
    """The plan of a scenario."""
    trace = spec.load.replay
    return Plan(
        endpoint=endpoint,
        requests=kinds(spec),
        arrivals=spec.load.arrivals,
        phases=tuple(phases),
        seed=spec.load.seed,
        cv=spec.load.cv or 1.0,
        trace=trace.due.astype("<i8").tobytes() if trace else b"",
        loop_ns=trace.loop_ns if trace else None,
        concurrency=spec.load.concurrency,
        connections=spec.target.connections,
        warmup_ns=spec.load.warmup,
        drain_ns=_patience(spec.load, "drain", endpoint),
        timeout_ns=_patience(spec.target, "timeout", endpoint),
        connect_timeout_ns=spec.target.connect_timeout,
        limit_ns=limit_ns,
        replicas=tuple(replicas),
        weights=spec.target.weights if replicas else (),
        resolve_ns=spec.target.resolve,
        journey=_journey(spec) if spec.load.arrivals == "journey" else None,
    )


def _patience(section: Any, key: str, endpoint: Endpoint) -> int:
    """As the scenario says; where it does not, a model that writes is given longer."""
    said: int = getattr(section, key)
    usual = endpoint.protocol == "openai" and key not in section.model_fields_set
    return WRITING_NS if usual else said


def _journey(spec: "Spec") -> Journey:
    load = spec.load
    return Journey(
        file=load.locustfile,
        users=load.users,
        spawn_rate=load.spawn_rate,
        tags=load.tags,
        exclude_tags=load.exclude_tags,
        user_classes=load.user_classes,
        arguments=load.arguments,
        headers=spec.target.headers,
        most=None if spec.target.owned else UNPACED_MOST,
    )


class Command(Value, frozen=True):
    """`stop` ends the arrivals and drains; `kill` ends at once; `steer` changes the shape; `begin`
    is for a load that waits: `at` which moment (monotonic ns)."""

    command: Literal["stop", "kill", "steer", "begin"]
    steering: Steering | None = None
    at: int = 0


class Waiting(Value, frozen=True, tag_field="kind", tag="waiting"):
    """Of a plan that `waits`: everything is ready, the next Command has to be `begin`."""


class Started(Value, frozen=True, tag_field="kind", tag="started"):
    """Arrivals begin. `origin` is the moment (monotonic ns) that second 0 of the run means. Of a
    journey: how long the load will be, None if only its file's shape knows, and what it is aimed
    at."""

    origin: int
    notes: tuple[Note, ...] = ()
    pids: dict[str, int] = {}  # load processes of this host beside the one that says this
    length_ns: int | None = None
    target: str = ""


class Noted(Value, frozen=True, tag_field="kind", tag="noted"):
    """Something to be said at once: before Started how far the beginning is, then what came up."""

    note: Note


class Finished(Value, frozen=True, tag_field="kind", tag="finished"):
    """The last line. `unfinished` were sent and still open; they are in the last window's
    in_flight. `cpu_ns` is what the process used since Started."""

    reason: Literal["done", "stopped"]
    unfinished: int
    cpu_ns: int
    notes: tuple[Note, ...] = ()


class Broken(Value, frozen=True, tag_field="kind", tag="broken"):
    """The load could not begin, because of an input file that does not fit, say, or could not go
    on. Exit code as in errors."""

    message: str
    hint: str
    exit_code: int


Message = Waiting | Started | Noted | Window | Mark | Finished | Broken
