"""One request of each kind of a scenario, and what came back: is it asked and answered as meant?

The target is opened as for a run, and closed again; nothing is measured and nothing is kept.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from loadbench import timing, units
from loadbench.environment import hidden, shown
from loadbench.errors import SpecError
from loadbench.failing import behind, refuses_who
from loadbench.hiding import hiding
from loadbench.model import Value
from loadbench.plan import Endpoint, keys_told, kinds, named, told_to
from loadbench.printable import printable
from loadbench.runner.target import Target, open_target
from loadbench.spec import Scenario
from loadbench.targets.ask import Asker, Exchange
from loadbench.targets.inputs import prepare
from loadbench.targets.reply import led
from loadbench.targets.speech import speech
from loadbench.targets.wire import BadAnswer, Prepared, welcome

_SHOWN = 6  # values of an output
_WORDS = {"batch": "batch wait"}
_ASKS_WHO = {"7": "grpc_PERMISSION_DENIED", "16": "grpc_UNAUTHENTICATED"}


class Tried(Value, frozen=True, omit_defaults=False):
    """A request that was sent once. `fault` says what is wrong with its answer, if anything is;
    `parts` are the server's own times in ms."""

    request: str
    line: str  # its first line
    sent_bytes: int
    status: int
    took_ms: float
    answer_bytes: int
    parts: dict[str, float]
    shown: tuple[str, ...]
    fault: str = ""
    answered: str = ""  # the status of gRPC, if that is what was spoken


def try_out(scenario: Scenario, trust: bool, say: Callable[[str], None]) -> tuple[str, list[Tried]]:
    """(the target, what each kind of request brought). Raises what a run would that cannot begin,
    and SpecError for a journey, whose users alone know what they send."""
    if scenario.spec.load.arrivals == "journey":
        raise SpecError(
            f"{scenario.name} is a Locust file: what it sends is known only while its users run",
            "run it for a moment instead: --duration 5s",
        )
    if scenario.foreign and not trust:
        raise SpecError(scenario.foreign, "read it, then allow that with --trust")
    hide = hiding(scenario.spec)
    with (
        tempfile.TemporaryDirectory(prefix="loadbench-dry-") as place,
        open_target(scenario, Path(place), trust, lambda text: say(hide(text))) as target,
    ):
        return hide(_title(target)), hide(_tried(scenario, target))


def _title(target: Target) -> str:
    facts = (target.device, str(target.settings.get("precision", "")))
    return " · ".join([target.title, *(fact for fact in facts if fact)])


def _tried(scenario: Scenario, target: Target) -> list[Tried]:
    spec, found = scenario.spec, []
    wanted = spec.target
    urls, endpoints = (target.url, *wanted.replicas), (target.endpoint, *target.replicas)
    for url, endpoint in zip(urls, endpoints, strict=True):
        asked = named(kinds(spec), endpoint) if target.replicas else kinds(spec)
        pools, _ = prepare(endpoint, asked, spec.load.seed, most=1)
        with Asker(url, wanted.protocol, wanted.tls, wanted.headers) as asker:
            said = told_to([endpoint], asked)
            for kind, [request, *_] in zip(asked, pools, strict=True):
                answer, sent = asker.exchange(request), keys_told(wanted.headers, endpoint, [kind])
                found.append(_one(endpoint, request, answer, said, sent))
    return found


def _one(
    endpoint: Endpoint,
    request: Prepared,
    answer: Exchange,
    said: Mapping[str, str],
    sent: tuple[str, ...],
) -> Tried:
    """`said` is what it was sent, whose secrets some servers repeat; `sent` the keys of that."""
    rpc = answer.headers.get(b"grpc-status", b"").decode("latin-1")
    told = f"grpc_{rpc}" if rpc else f"HTTP {answer.status}"
    fault = (
        ""
        if welcome(answer.status, request.statuses)
        else told + _of_who(answer.status, rpc, sent) + _led(answer, said)
    )
    if not fault:
        try:
            for check in (request.check, request.strict):
                if check is not None:
                    check(answer.headers, answer.body)
        except BadAnswer as error:
            fault = hidden(f"{error.failure}: {error}", said)
    parts = timing.read(answer.headers.get(b"server-timing", b"")).told
    return Tried(
        request=request.name,
        line=_line(endpoint, request),
        sent_bytes=len(request.data),
        status=answer.status,
        took_ms=answer.took_ns / units.MS,
        answer_bytes=len(answer.body),
        parts={_WORDS.get(name, hidden(name, said)): ns / units.MS for name, ns in parts.items()},
        shown=_shown(endpoint, answer, said, bool(fault)),
        fault=fault,
        answered=f"gRPC {rpc}" if rpc else "",
    )


def _of_who(status: int, rpc: str, sent: tuple[str, ...]) -> str:
    """What a refusal for who asks is likely about; "" of any other."""
    kind = _ASKS_WHO.get(rpc, f"http_{status}")
    if not refuses_who(kind):
        return ""
    return f": {'; '.join(behind(kind, sent))}"


def _led(answer: Exchange, said: Mapping[str, str]) -> str:
    """Where it sends who asks, which no load follows."""
    place = led(answer.status, answer.headers.get(b"location", b"").decode("latin-1"))
    return hidden(f": {place}", said) if place else ""


def _line(endpoint: Endpoint, request: Prepared) -> str:
    if endpoint.rpc:
        from loadbench.targets.rpc import path_of  # it brings protobuf

        return f"{path_of(request.data).rpartition('/')[2]} {endpoint.model}"
    line = request.data.partition(b"\r\n")[0].decode("latin-1").removesuffix(" HTTP/1.1")
    return str(shown("line", line))


def _shown(
    endpoint: Endpoint, answer: Exchange, said: Mapping[str, str], fault: bool
) -> tuple[str, ...]:
    """The outputs, or the beginning of the text."""
    if endpoint.tensors and not fault:
        return _tensors(endpoint, answer, said)
    text = hidden(answer.body, said)
    return (printable(text),) if text else ()


def _tensors(endpoint: Endpoint, answer: Exchange, said: Mapping[str, str]) -> tuple[str, ...]:
    """The outputs with their first values. What is to be hidden is so before anything is cut."""
    kinds = {tensor.name: tensor.datatype for tensor in endpoint.outputs}
    lines = []
    for name, array in speech(endpoint).read(answer.headers, answer.body).items():
        first = ", ".join(_value(value, said) for value in array.ravel()[:_SHOWN].tolist())
        more = ", …" if array.size > _SHOWN else ""
        kind = hidden(f"{name} {kinds.get(name, '')}", said)
        lines.append(f"{kind} {list(array.shape)}: {first}{more}")
    return tuple(lines)


def _value(value: object, said: Mapping[str, str]) -> str:
    return f"{value:.4g}" if isinstance(value, float) else hidden(repr(value), said)[:40]


def text_of(target: str, tried: list[Tried]) -> str:
    """What people read."""
    lines = [f"dry run against {target}: one request of each kind"]
    for one in tried:
        parts = "  ".join(f"{name} {units.significant(ms)}" for name, ms in one.parts.items())
        sign = f"✗ {one.fault}" if one.fault else "✓ as it should be"
        lines += [
            "",
            f"{one.request}   {one.line}   {units.count(one.sent_bytes)} bytes",
            f"  {one.answered or f'HTTP {one.status}'} in {units.significant(one.took_ms)} ms, "
            f"{units.count(one.answer_bytes)} bytes{f'   ({parts} ms)' if parts else ''}",
            *(f"  {line}" for line in one.shown),
            f"  {sign}",
        ]
    return "\n".join(lines)
