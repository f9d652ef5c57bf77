"""What load this machine can offer, and how late: `loadbench doctor --load`.

A server that answers at once runs in its own process; the load runs in its own as in every run, on
other cores than the server where there are others. First a closed loop, for what is possible at
all; then Poisson arrivals at parts of that, for how punctual they are.
"""

import os
import queue
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from loadbench.errors import RunError
from loadbench.merge import merge
from loadbench.model import Tensor, Value, Window
from loadbench.plan import Endpoint, Finished, Plan, RequestPlan
from loadbench.runner.children import Child
from loadbench.runner.loading import Loading
from loadbench.shape import Phase
from loadbench.trust import cause
from loadbench.units import MS, SECOND, count, percent, significant

CONNECTIONS = 64
_FIRST = 1000.0  # per second: idle but for the timer
_PARTS = (0.2, 0.4, 0.6, 0.8)  # of what a closed loop reaches
BOUNDS_MS = (1.0, 10.0)  # of lateness: exact; a tenth of the usual limit, where doubt begins
_BUSY = 0.9  # of a core
_WAIT_S = 10.0


class Level(Value, frozen=True, omit_defaults=False):
    """Arrivals at one rate. `cpu` in cores, lateness from the due time; None if every request had
    to wait for a connection, for which the generator's loop is not to blame."""

    rate: float
    asked: float  # per second, as the other rates
    sent: float
    late_p50_ms: float | None
    late_p99_ms: float | None
    late_max_ms: float | None
    stall_ms: float
    stall_cause: str
    cpu: float
    cpu_per_request_us: float

    def within(self, bound_ms: float) -> bool:
        """Whether all was sent, and as punctually as that."""
        late = self.late_p99_ms
        return late is not None and late <= bound_ms and self.sent >= 0.99 * self.asked


class Offer(Value, frozen=True, omit_defaults=False):
    """What one load process of this machine can offer."""

    cores: int
    shared: bool  # server and load had the same core
    closed_per_s: float
    connections: int
    limit: Literal["generator", "server", "neither"]
    load_cpu: float
    server_cpu: float
    cpu_per_request_us: float
    stall_ms: float
    stall_cause: str
    levels: tuple[Level, ...]

    def within(self, bound_ms: float) -> float | None:
        """The highest of the rates up to which all are so punctual; None if the first is not."""
        found = None
        for level in self.levels:
            if not level.within(bound_ms):
                break
            found = level.rate
        return found


class _Seen(NamedTuple):
    windows: list[Window]
    server_cpu_ns: int


def measure(say: Callable[[str], None], seconds: int) -> Offer:
    """Takes about six times as many seconds. Raises RunError if the load cannot be made."""
    with tempfile.TemporaryDirectory(prefix="loadbench-") as name:
        folder = Path(name)
        server = Child("server", ["loadbench.load.answerer"], folder / "server.log")
        try:
            port = _number(server)
            own, rest = _cores()
            os.sched_setaffinity(server.pid, own)

            def run(plan: Plan) -> _Seen:
                return _run(plan, folder, server, rest)

            say(f"closed loop, {CONNECTIONS} connections, {seconds} s")
            closed = _plan(port, "closed", (Phase(0, 0, seconds * SECOND),))
            reached = run(closed)
            load = merge(_load(reached.windows))
            rates = (_FIRST, *(_rounded(part * load.done / seconds) for part in _PARTS))
            rates = tuple(rate for rate in rates if rate >= _FIRST)
            say(
                f"arrivals at {', '.join(count(round(rate)) for rate in rates)}/s, {seconds} s each"
            )
            phases = tuple(Phase(rate, rate, seconds * SECOND) for rate in rates)
            levels = run(_plan(port, "poisson", phases)).windows
        finally:
            server.stop(0.5)
    busy = reached.server_cpu_ns / (closed.warmup_ns + seconds * SECOND)
    found = [[w for w in _load(levels) if w.phase == at] for at in range(len(rates))]
    return _offer(
        load, seconds, busy, tuple(_level(r, w) for r, w in zip(rates, found, strict=True))
    )


def _offer(load: Window, seconds: int, busy: float, levels: tuple[Level, ...]) -> Offer:
    own, rest = _cores()
    cpu = (load.cpu_ns or 0) / (seconds * SECOND)
    limit: Literal["generator", "server", "neither"] = "neither"
    if max(cpu, busy) > _BUSY:
        limit = "generator" if cpu > busy or cpu > _BUSY else "server"
    return Offer(
        cores=len(own | rest),
        shared=own == rest,
        closed_per_s=load.done / seconds,
        connections=CONNECTIONS,
        limit=limit,
        load_cpu=cpu,
        server_cpu=busy,
        cpu_per_request_us=(load.cpu_ns or 0) / 1000 / max(1, load.done),
        stall_ms=load.stall_ns / MS,
        stall_cause=load.stall_cause,
        levels=levels,
    )


def _level(rate: float, windows: Sequence[Window]) -> Level:
    if not windows:
        raise RunError("the load ended before its time", "try again on a quieter machine")
    all_of, length = merge(windows), len(windows)
    late = [all_of.lateness.quantile(share) for share in (0.5, 0.99, 1.0)]
    p50, p99, most = (None if ns is None else ns / MS for ns in late)
    cpu = all_of.cpu_ns or 0
    return Level(
        rate=rate,
        asked=all_of.asked / length,
        sent=all_of.sent / length,
        late_p50_ms=p50,
        late_p99_ms=p99,
        late_max_ms=most,
        stall_ms=all_of.stall_ns / MS,
        stall_cause=all_of.stall_cause,
        cpu=cpu / (length * SECOND),
        cpu_per_request_us=cpu / 1000 / max(1, all_of.sent),
    )


def _cores() -> tuple[set[int], set[int]]:
    """(for the server, for the load): other ones where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    return {cores[-1]}, set(cores[:-1] or cores)


def _rounded(rate: float) -> float:
    """To two digits: what is measured is no more exact."""
    return float(f"{rate:.2g}")


def _load(windows: Sequence[Window]) -> list[Window]:
    found = [window for window in windows if window.stage == "load"]
    if not found:
        raise RunError("the load ended before its time", "try again on a quieter machine")
    return found


def _plan(port: int, arrivals: Literal["closed", "poisson"], phases: tuple[Phase, ...]) -> Plan:
    endpoint = Endpoint(
        host="127.0.0.1", port=port, protocol="kserve", model="m", binary=False,
        inputs=(Tensor("x", "FP32", (4,)),), outputs=(Tensor("y", "FP32", (3,)),),
    )  # fmt: skip
    return Plan(
        endpoint=endpoint,
        requests=(RequestPlan("infer"),),
        arrivals=arrivals,
        phases=phases,
        seed=1,
        concurrency=CONNECTIONS,
        warmup_ns=SECOND,
        drain_ns=2 * SECOND,
    )


def _run(plan: Plan, folder: Path, server: Child, cores: set[int]) -> _Seen:
    """One run of the load; its windows, and the CPU time that the server took for it."""
    before = _cpu(server)
    loading = Loading(plan, folder, lambda _: None)
    windows: list[Window] = []
    try:
        os.sched_setaffinity(loading.pid, cores)
        heard = time.monotonic()
        while True:
            message = loading.next(_WAIT_S)
            if isinstance(message, Finished):
                return _Seen(windows, _cpu(server) - before)
            if isinstance(message, Window):
                windows.append(message)
                heard = time.monotonic()
            elif time.monotonic() - heard > _WAIT_S:
                raise RunError(f"the load has said nothing for {_WAIT_S:.0f} s")
    finally:
        loading.stop(0.5)


def _cpu(server: Child) -> int:
    """The CPU time (ns) that the server has used until now."""
    server.say(b"cpu")
    return _number(server)


def _number(server: Child) -> int:
    try:
        line = server.lines.get(timeout=_WAIT_S)
    except queue.Empty:
        raise RunError(f"the server has said nothing for {_WAIT_S:.0f} s") from None
    if line is None:
        raise server.error()
    return int(line)


def text_of(offer: Offer) -> str:
    """For people."""
    core = "the core they share" if offer.shared else "its core"
    busy = f"{percent(offer.load_cpu)} % of a core, the server {percent(offer.server_cpu)} %"
    words = {
        "generator": f"the generator was the limit ({core} was busy)",
        "server": "the server was the limit: the generator can do more",
        "neither": "neither was busy: others had the cores, or the server waited for them",
    }
    lines = [
        f"one load process offers {significant(_rounded(offer.closed_per_s))} requests/s here"
        f" (closed loop, {offer.connections} connections, tiny answers, {offer.cores} cores)",
        f"  {words[offer.limit]}: it used {busy}; {significant(offer.cpu_per_request_us)} µs of"
        " CPU per request",
        f"  {_standstill(offer.stall_ms, offer.stall_cause)}",
        "",
        f"  {'arrivals':>12}{'sent':>12}{'late p50':>11}{'p99':>10}{'max':>10}   CPU  standstill",
        *(_row(level) for level in offer.levels),
        "  each row is of some seconds: too short for percentiles with ±",
        "",
        *_verdict(offer),
    ]
    return "\n".join(lines)


def _row(level: Level) -> str:
    late = (level.late_p50_ms, level.late_p99_ms, level.late_max_ms)
    texts = (_late(value) for value in late)
    cells = "".join(text.rjust(width) for text, width in zip(texts, (11, 10, 10), strict=True))
    exact, fair = (level.within(bound) for bound in BOUNDS_MS)
    sign = "✓" if exact else "▲" if fair else "✗"
    asked, sent = (f"{count(round(rate))}/s" for rate in (level.rate, level.sent))
    cpu = f"{percent(level.cpu)} %".rjust(6)
    still = _standstill(level.stall_ms, level.stall_cause)
    return f"{sign} {asked:>12}{sent:>12}{cells}{cpu}  {still}"


def _late(ms: float | None) -> str:
    return "all held" if ms is None else f"{significant(ms)} ms"


def _standstill(stall_ms: float, name: str) -> str:
    if not name:
        return f"{significant(stall_ms)} ms at most"
    return f"{significant(stall_ms)} ms: {cause(name)[0]}"


def _verdict(offer: Offer) -> Iterator[str]:
    exact, fair = (offer.within(bound) for bound in BOUNDS_MS)
    timer, top = offer.levels[0], offer.levels[-1].rate
    if exact is not None:
        yield f"✓ up to ~{_upto(exact, top)} with lateness p99 under 1 ms"
        p50, p99 = _late(timer.late_p50_ms), _late(timer.late_p99_ms)
        yield f"  the timer wakes it {p50} late (p50), {p99} (p99)"
    if fair is None:
        late = _late(timer.late_p99_ms)
        yield f"✗ no rate can be trusted here: at {count(round(timer.rate))}/s {late} late"
    elif fair != exact:
        yield f"▲ up to ~{_upto(fair, top)} under 10 ms: good for latency limits of 100 ms"
    full = next((level for level in offer.levels if level.cpu > _BUSY), None)
    if full is not None and fair is not None and full.rate <= fair:
        used = f"{percent(full.cpu)} % of a core"
        yield f"  at ~{count(round(full.rate))}/s it uses {used}: that makes a run doubtful"


def _upto(rate: float, top: float) -> str:
    return f"{count(round(rate))}/s" + (", the highest tried," if rate == top else "")
