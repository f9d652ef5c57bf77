"""The calls that are not infer calls, each asked of the HTTP side, which has the one answer to it.

They are rare, so what it costs to write JSON and read it again does not matter; that both fronts
can never tell different things does.
"""

import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_from_bytes

import msgspec

from loadbench.engine.http import Handler
from loadbench.engine.tensors import Refused

Members = dict[str, Any]


def model_path(name: bytes, version: bytes, what: str) -> bytes:
    """The path of a model's call."""
    path = "/v2/models/" + quote_from_bytes(name, safe="")
    if version:
        path += "/versions/" + quote_from_bytes(version, safe="")
    return (path + what).encode()


class Calls:
    """Requests as messages → answers as their members."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.by_name: dict[str, Callable[[Any], Members]] = {
            "ServerLive": lambda _: {"live": self._holds(b"/v2/health/live")},
            "ServerReady": lambda _: {"ready": self.is_ready()},
            "ModelReady": lambda asked: {"ready": self._holds(_of_model(asked, "/ready"))},
            "ServerMetadata": lambda _: self._ask(b"GET", b"/v2"),
            "ModelMetadata": lambda asked: self._ask(b"GET", _of_model(asked, "")),
            "ModelConfig": lambda asked: {"config": self._ask(b"GET", _of_model(asked, "/config"))},
            "ModelStatistics": self._statistics,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": lambda asked: self._repository(asked, "load"),
            "RepositoryModelUnload": lambda asked: self._repository(asked, "unload"),
            "SystemSharedMemoryStatus": lambda asked: self._regions("system", asked),
            "SystemSharedMemoryRegister": self._register_system,
            "SystemSharedMemoryUnregister": lambda asked: self._unregister("system", asked),
            "CudaSharedMemoryStatus": lambda asked: self._regions("cuda", asked),
            "CudaSharedMemoryRegister": self._register_cuda,
            "CudaSharedMemoryUnregister": lambda asked: self._unregister("cuda", asked),
            "TraceSetting": self._trace,
            "LogSettings": self._logging,
        }

    def is_ready(self) -> bool:
        """Whether the engine takes requests."""
        return self._holds(b"/v2/health/ready")

    def require_model(self, name: bytes, version: bytes) -> None:
        """Raises Refused if the model is unknown."""
        self._ask(b"GET", model_path(name, version, ""))

    def _ask(self, method: bytes, path: bytes, body: Members | None = None) -> Any:
        """What the body of an answer says. Raises Refused for one that is an error."""
        answer = self._handler.answer(
            method, path, b"" if body is None else msgspec.json.encode(body)
        )
        status, text = int(answer[9:12]), answer.partition(b"\r\n\r\n")[2]
        found = msgspec.json.decode(text) if text else {}
        if status != 200:
            raise Refused(status, found.get("error", "") if isinstance(found, dict) else "")
        return found

    def _holds(self, path: bytes) -> bool:
        try:
            self._ask(b"GET", path)
        except Refused:
            return False
        return True

    def _statistics(self, asked: Any) -> Members:
        path = _of_model(asked, "/stats") if asked.name else b"/v2/models/stats"
        found: Members = self._ask(b"GET", path)
        return found

    def _index(self, asked: Any) -> Members:
        return {"models": self._ask(b"POST", b"/v2/repository/index", {"ready": asked.ready})}

    def _repository(self, asked: Any, what: str) -> Members:
        parameters: Members = {}
        for name, value in asked.parameters.items():
            kind = value.WhichOneof("parameter_choice")
            given = getattr(value, kind) if kind else None
            is_file = isinstance(given, bytes)
            parameters[name] = base64.b64encode(given).decode() if is_file else given
        name = quote_from_bytes(asked.model_name.encode(), safe="")
        path = f"/v2/repository/models/{name}/{what}"
        self._ask(b"POST", path.encode(), {"parameters": parameters})
        return {}

    def _regions(self, kind: str, asked: Any) -> Members:
        found = self._ask(b"GET", _of_region(kind, asked.name, "status"))
        return {"regions": {region["name"]: region for region in found}}

    def _register_system(self, asked: Any) -> Members:
        body = {"key": asked.key, "offset": asked.offset, "byte_size": asked.byte_size}
        self._ask(b"POST", _of_region("system", asked.name, "register"), body)
        return {}

    def _register_cuda(self, asked: Any) -> Members:
        self._ask(b"POST", _of_region("cuda", asked.name, "register"), {})
        return {}

    def _unregister(self, kind: str, asked: Any) -> Members:
        self._ask(b"POST", _of_region(kind, asked.name, "unregister"))
        return {}

    def _trace(self, asked: Any) -> Members:
        body = {name: list(value.value) or None for name, value in asked.settings.items()}
        found = self._ask(b"POST" if body else b"GET", b"/v2/trace/setting", body or None)
        return {
            "settings": {
                name: {"value": value if isinstance(value, list) else [value]}
                for name, value in found.items()
            }
        }

    def _logging(self, asked: Any) -> Members:
        body = {
            name: getattr(value, kind)
            for name, value in asked.settings.items()
            if (kind := value.WhichOneof("parameter_choice"))
        }
        found = self._ask(b"POST" if body else b"GET", b"/v2/logging", body or None)
        kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
        return {
            "settings": {name: {kinds[type(value)]: value} for name, value in found.items()}
        }


def _of_model(asked: Any, what: str) -> bytes:
    return model_path(asked.name.encode(), asked.version.encode(), what)


def _of_region(kind: str, name: str, what: str) -> bytes:
    region = f"/region/{quote_from_bytes(name.encode(), safe='')}" if name else ""
    return f"/v2/{kind}sharedmemory{region}/{what}".encode()
