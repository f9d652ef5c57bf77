"""What an alert rule can watch: each quantity, read from the last 10 s of a run, merged.

What a machine does not have is None: no data, never 0. A request that failed, or is unanswered and
already older than the limit, counts as over it; under 100 requests the latency says `few data`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from loadbench import units
from loadbench.machine import Gpu, highest
from loadbench.model import AlertState, Window
from loadbench.streams import TIMES

SPAN_S = 10
NEWEST = ("memory", "gpu_memory", "in_flight")  # states: read of the newest second alone
ENOUGH = 100
TOO_SHORT = f"of {SPAN_S} s: too short for a band"  # why a percentile here has none


@dataclass(frozen=True, slots=True)
class Span:
    """What a rule looks at: the last windows, the same merged, and which GPU the engine uses."""

    windows: tuple[Window, ...]
    merged: Window
    gpu: int | None  # None: no GPU of this machine serves the model

    def cards(self, quantity: str) -> tuple[Gpu, ...]:
        """Those that may serve the model, as a quantity looks at them."""
        machine = (self.windows[-1] if quantity in NEWEST else self.merged).machine
        return machine.serving(self.gpu) if machine else ()

    def card(self, quantity: str) -> Gpu | None:
        """Whose reading it is. Of several that may serve it is the one with the highest: a full one
        is trouble whichever it is, and an idle one none while another is busy."""
        look = OF_CARDS.get(quantity)
        return highest(self.cards(quantity), look) if look else None

    @property
    def failed(self) -> int:
        return sum(self.merged.failed.values()) + self.merged.unsent

    @property
    def beyond(self) -> float:
        """Share of the requests that failed, or are unanswered and older than the limit: of two
        percentiles among those, which have no number, the one with more of them is further."""
        number = self.failed + self.windows[-1].overdue
        return number / max(1, self.merged.done + number)


Reading = float | AlertState | None  # a value, why it says nothing, or nothing there


def _quantile(share: float) -> Callable[[Span], Reading]:
    def read(span: Span) -> Reading:
        latency = span.merged.latency
        beyond = span.failed + span.windows[-1].overdue  # overdue is a state: the newest counts
        if latency.count + beyond < ENOUGH:
            return "few data"
        value = latency.quantile_of_asked(share, beyond)
        return None if value is None else value / units.MS

    return read


def _token_times(name: str) -> Callable[[Span], Reading]:
    """Their p99, of answers that come token by token."""

    def read(span: Span) -> Reading:
        stream = span.merged.stream
        if stream is None:
            return None
        found = TIMES[name](stream)
        beyond = stream.barren if name == "first_token" else 0
        if found.count + beyond < ENOUGH:
            return "few data"
        value = found.quantile_of_asked(0.99, beyond)
        return None if value is None else value / units.MS

    return read


def _errors(span: Span) -> Reading:
    total = span.merged.done + span.failed
    return span.failed / total if total >= ENOUGH else "few data"


def _lateness(span: Span) -> Reading:
    value = span.merged.lateness.quantile(0.99)
    return None if value is None else value / units.MS


def _throughput(span: Span) -> Reading:
    return span.merged.done / len(span.windows)


def _queue_growth(span: Span) -> Reading:
    """Slope of the least-squares line through the requests waiting or in flight, per second."""
    open_now = [window.in_flight + window.waiting for window in span.windows]
    n = len(open_now)
    if n < SPAN_S:
        return "few data"
    middle = (n - 1) / 2
    spread = sum((at - middle) ** 2 for at in range(n))
    return sum((at - middle) * value for at, value in enumerate(open_now)) / spread


def _of_card(quantity: str) -> Callable[[Span], Reading]:
    def read(span: Span) -> Reading:
        if quantity == "gpu_utilization" and not span.windows[-1].asked:
            return None  # an idle GPU without requests is no news
        card = span.card(quantity)
        return OF_CARDS[quantity](card) if card else None

    return read


OF_CARDS: dict[str, Callable[[Gpu], float | None]] = {
    "gpu_utilization": lambda card: card.utilization,
    "gpu_memory": lambda card: card.filled,
    "gpu_temperature": lambda card: card.temperature_c,
    "gpu_power": lambda card: card.power_w,
}


def _memory(span: Span) -> Reading:
    machine = span.windows[-1].machine
    if not machine or machine.memory_used is None or not machine.memory_total:
        return None
    return machine.memory_used / machine.memory_total


def _cpu(span: Span) -> Reading:
    return span.merged.machine.cpu if span.merged.machine else None


def _silence(span: Span) -> Reading:
    return 0.0  # a window has come; the runner tells of those that did not (Watch.silent)


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something a rule can watch: how it is read, in which unit, and what people call it."""

    read: Callable[[Span], Reading]
    unit: str  # "ms", "%", "/s", "s", "°C", "W", ""
    title: str

    @property
    def of_order(self) -> bool:
        """Whether it is a percentile, as all times are."""
        return self.unit == "ms"


QUANTITIES: dict[str, Quantity] = {
    "p50": Quantity(_quantile(0.5), "ms", "p50 latency"),
    "p95": Quantity(_quantile(0.95), "ms", "p95 latency"),
    "p99": Quantity(_quantile(0.99), "ms", "p99 latency"),
    "first_token_p99": Quantity(_token_times("first_token"), "ms", "p99 of first tokens"),
    "token_gap_p99": Quantity(_token_times("token_gap"), "ms", "p99 between tokens"),
    "errors": Quantity(_errors, "%", "errors"),
    "gpu_utilization": Quantity(_of_card("gpu_utilization"), "%", "GPU utilisation"),
    "gpu_memory": Quantity(_of_card("gpu_memory"), "%", "GPU memory"),
    "gpu_temperature": Quantity(_of_card("gpu_temperature"), "°C", "GPU temperature"),
    "gpu_power": Quantity(_of_card("gpu_power"), "W", "GPU power"),
    "memory": Quantity(_memory, "%", "memory"),
    "cpu": Quantity(_cpu, "%", "CPU"),
    "lateness": Quantity(_lateness, "ms", "load generator late"),
    "queue_growth": Quantity(_queue_growth, "/s", "queue growing"),
    "throughput": Quantity(_throughput, "/s", "throughput"),
    "in_flight": Quantity(lambda span: float(span.windows[-1].in_flight), "", "in flight"),
    "silence": Quantity(_silence, "s", "no data"),
}
