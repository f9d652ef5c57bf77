"""The calls that are not infer calls, each asked of the HTTP side, which has the one answer to it.

They are rare, so what it costs to write JSON and read it again does not matter; that both fronts
can never tell different things does.
"""

import base64
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote_from_bytes

import msgspec

from loadbench.engine.http import Handler
from loadbench.engine.rpc import bridge
from loadbench.engine.tensors import Refused

Members = dict[str, Any]
Call = Callable[[Any], Members | Awaitable[Members]]


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
        self.by_name: dict[str, Call] = {
            "ServerLive": lambda _: {"live": self._holds(b"/v2/health/live")},
            "ServerReady": lambda _: {"ready": self.is_ready()},
            "ModelReady": lambda asked: {"ready": self._holds(_of_model(asked, "/ready"))},
            "ServerMetadata": lambda _: self._get(b"/v2"),
            "ModelMetadata": lambda asked: self._get(_of_model(asked, "")),
            "ModelConfig": lambda asked: {"config": self._get(_of_model(asked, "/config"))},
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

    def _get(self, path: bytes) -> Any:
        """What the answer to a GET says. Raises Refused."""
        return bridge.get(self._handler, path)

    async def _post(self, path: bytes, body: Members) -> Any:
        """What the answer to a POST says, when there is one. Raises Refused."""
        heard = await bridge.post(self._handler, path, msgspec.json.encode(body))
        return bridge.decoded(heard)

    def _holds(self, path: bytes) -> bool:
        try:
            self._get(path)
        except Refused:
            return False
        return True

    def _statistics(self, asked: Any) -> Members:
        path = _of_model(asked, "/stats") if asked.name else b"/v2/models/stats"
        found: Members = self._get(path)
        for model in found["model_stats"]:
            if "loadbench" in model:
                model["loadbench"] = msgspec.json.encode(model["loadbench"]).decode()
        return found

    async def _index(self, asked: Any) -> Members:
        return {"models": await self._post(b"/v2/repository/index", {"ready": asked.ready})}

    async def _repository(self, asked: Any, what: str) -> Members:
        parameters: Members = {}
        for name, value in asked.parameters.items():
            kind = value.WhichOneof("parameter_choice")
            given = getattr(value, kind) if kind else None
            if isinstance(given, bytes):  # of a file
                given = base64.b64encode(given).decode()
            parameters[name] = given
        name = quote_from_bytes(asked.model_name.encode(), safe="")
        path = f"/v2/repository/models/{name}/{what}"
        await self._post(path.encode(), {"parameters": parameters})
        return {}

    def _regions(self, kind: str, asked: Any) -> Members:
        found = self._get(_of_region(kind, asked.name, "status"))
        return {"regions": {region["name"]: region for region in found}}

    async def _register_system(self, asked: Any) -> Members:
        body = {"key": asked.key, "offset": asked.offset, "byte_size": asked.byte_size}
        await self._post(_of_region("system", asked.name, "register"), body)
        return {}

    async def _register_cuda(self, asked: Any) -> Members:
        await self._post(_of_region("cuda", asked.name, "register"), {})
        return {}

    async def _unregister(self, kind: str, asked: Any) -> Members:
        await self._post(_of_region(kind, asked.name, "unregister"), {})
        return {}

    async def _trace(self, asked: Any) -> Members:
        body = {name: list(value.value) or None for name, value in asked.settings.items()}
        found = await self._post(b"/v2/trace/setting", body)
        return {
            "settings": {
                name: {"value": value if isinstance(value, list) else [value]}
                for name, value in found.items()
            }
        }

    async def _logging(self, asked: Any) -> Members:
        body = {
            name: getattr(value, kind)
            for name, value in asked.settings.items()
            if (kind := value.WhichOneof("parameter_choice"))
        }
        found = await self._post(b"/v2/logging", body)
        kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
        return {"settings": {name: {kinds[type(value)]: value} for name, value in found.items()}}


def _of_model(asked: Any, what: str) -> bytes:
    return model_path(asked.name.encode(), asked.version.encode(), what)


def _of_region(kind: str, name: str, what: str) -> bytes:
    region = f"/region/{quote_from_bytes(name.encode(), safe='')}" if name else ""
    return f"/v2/{kind}sharedmemory{region}/{what}".encode()
