"""What the engine answers beside the models: shared memory, /metrics, trace and log settings."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from loadbench.engine import metrics, shared
from loadbench.engine.exchange import Exchange, object_of, refusal, response
from loadbench.engine.forwarding import Forwarding
from loadbench.engine.shared import Regions
from loadbench.engine.tensors import Refused

# What Triton answers of settings that were never touched, as far as it is true here too
_TRACE: dict[str, Any] = {
    "trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1", "log_frequency": "0",
    "trace_file": "", "trace_mode": "triton",
}  # fmt: skip
_LOGGING: dict[str, Any] = {
    "log_file": "", "log_info": True, "log_warning": True, "log_error": True,
    "log_verbose_level": 0, "log_format": "default",
}  # fmt: skip
MEMORY = ("/v2/systemsharedmemory/", "/v2/cudasharedmemory/")

Statistics = Callable[[], Iterable[dict[str, Any]]]


class Registering(Forwarding):
    """A call that registers shared memory or forgets it, as a connection hands it over."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        """`answer` makes one of the body. Raises Refused."""
        self._answer = answer

    def infer(self, exchange: Exchange, data: bytes, start: int) -> None:
        """Does it at once. Raises Refused."""
        if exchange.of_page:
            raise Refused(403, "shared memory is not for web pages, which may be anyone's")
        exchange.answer(self._answer(data[start:]))


class Extensions:
    """Answers to what belongs to no model."""

    def __init__(self, regions: Regions | None, statistics: Statistics) -> None:
        """`regions` is None where shared memory is off; `statistics` are those of all models."""
        self._regions = regions
        self._statistics = statistics
        self._probe: Any = None

    @property
    def names(self) -> tuple[str, ...]:
        """In the protocol's words."""
        return ("system_shared_memory",) if self._regions is not None else ()

    def answer(self, method: bytes, path: str, body: bytes) -> bytes | None:
        """A whole answer; None if the path is not one of these. Raises Refused."""
        if path == "/metrics":
            return _only(b"GET", method, path) or self._metrics()
        if path.startswith(MEMORY):
            wanted = b"GET" if path.endswith("/status") else b"POST"
            return _only(wanted, method, path) or self._memory(path, body)
        model, _, setting = path.rpartition("/trace/setting")
        if setting == "" and (model == "/v2" or model.startswith("/v2/models/")):
            return _settings("trace", _TRACE, method, body)
        if path == "/v2/logging":
            return _settings("log", _LOGGING, method, body)
        return None

    def _memory(self, path: str, body: bytes) -> bytes:
        found = shared.answer(self._regions, path, body)
        return response(200) if found is None else response(200, msgspec.json.encode(found))

    def _metrics(self) -> bytes:
        if self._probe is None:  # NVML is opened for those who ask for it
            from loadbench.probe import Nvml, Probe

            self._probe = Probe(Nvml.open(), dict)
        return response(
            200, metrics.page(self._statistics(), self._probe.read()), kind=metrics.KIND
        )


def _only(wanted: bytes, method: bytes, path: str) -> bytes | None:
    """What another method than the wanted one gets."""
    if method == wanted:
        return None
    fault = Refused(405, f"{path} takes {wanted.decode()}, not {method.decode('latin-1')}")
    return refusal(fault, f"Allow: {wanted.decode()}")


def _settings(what: str, found: dict[str, Any], method: bytes, body: bytes) -> bytes:
    """Settings can be read, and set to what they are. Raises Refused."""
    if method == b"POST":
        for name, value in object_of(body).items():
            if name not in found:
                raise Refused(400, f"there is no {what} setting {name!r}")
            if value is not None and value != found[name]:
                raise Refused(400, f"{name} cannot be set to {value!r}: it stays {found[name]!r}")
    elif method != b"GET":
        raise Refused(405, f"{what} settings take GET and POST, not {method.decode('latin-1')}")
    return response(200, msgspec.json.encode(found))
