"""Has a gRPC server answer what an HTTP one is asked: metadata, health, statistics, one inference.

A transport for httpx, so that whoever asks (`ask`) asks all servers the same, and reads the same
answers. grpcio does the speaking; it is imported only where there is a gRPC target.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import msgspec

from loadbench.errors import SpecError
from loadbench.plan import Tls
from loadbench.targets import predict
from loadbench.targets.messages import INFERENCE, message
from loadbench.targets.places import Pin
from loadbench.targets.rpc import CODES, PATH, PREFIX, STREAM, head_length, within
from loadbench.targets.wire import MOST
from loadbench.units import hostport

_TIMEOUT_S = 5.0
_STATUS = {
    "INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429, "UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}  # fmt: skip
_NOT_METADATA = (b"te", b"content-type", b"user-agent", b"grpc-timeout")
_COMPUTE = ("compute_input", "compute_infer", "compute_output")
_PARTS = ("success", "fail", "queue", "cache_hit", "cache_miss", *_COMPUTE)
_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", MOST),  # unpacked
    ("grpc.max_send_message_length", -1),
)
_CALLS = (PATH, STREAM, predict.PATH)
Members = dict[str, Any]


class Transport(httpx.BaseTransport):
    """One server at the address of `pin`. `headers` go with all that it is asked, as metadata.
    SpecError for files of TLS that cannot be used."""

    def __init__(self, pin: Pin, tls: Tls | None, headers: Mapping[str, str]) -> None:
        import grpc

        self._grpc = grpc
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())
        self._pin = pin
        self._credentials = None if tls is None else grpc.ssl_channel_credentials(*_papers(tls))
        self._open: Any = None

    @property
    def _channel(self) -> Any:
        """Made when it is needed first: until then nobody has to know where the server is."""
        if self._open is None:
            pin = self._pin
            place, options = hostport(pin.at or pin.host, pin.port), _OPTIONS
            if pin.at:  # the server is to be called by its name all the same
                options += (("grpc.default_authority", hostport(pin.host, pin.port)),)
            if self._credentials is None:
                self._open = self._grpc.insecure_channel(place, options)
            else:
                named = (("grpc.ssl_target_name_override", pin.host),) if pin.at else ()
                self._open = self._grpc.secure_channel(place, self._credentials, options + named)
        return self._open

    def close(self) -> None:
        if self._open is not None:
            self._open.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode("ascii")
        try:
            if path in _CALLS:
                patience_s = request.extensions.get("timeout", {}).get("read") or _TIMEOUT_S
                return self._infer(path, request.read(), patience_s)
            parts = [unquote(part) for part in path.split("/")[1:]]
            return self._asked(parts, request.read())
        except self._grpc.RpcError as error:
            name = error.code().name
            if path not in _CALLS and name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):
                raise httpx.ConnectError(f"{name}: {error.details()}", request=request) from error
            found = {"error": error.details() or name}
            status = _STATUS.get(name, 500)
            return httpx.Response(status, json=found, headers={"grpc-status": name})

    def _asked(self, parts: list[str], body: bytes) -> httpx.Response:
        match parts:
            case ["v2"]:
                told = self._ask("ServerMetadata")
                found: Any = {"name": told.name, "extensions": list(told.extensions)}
            case ["v2", "health", "ready"]:
                return httpx.Response(200 if self._ask("ServerReady").ready else 503)
            case ["v2", "repository", "index"]:
                index = self._ask("RepositoryIndex", **msgspec.json.decode(body)).models
                found = [{"name": model.name, "state": model.state} for model in index]
            case ["v2", "models", model]:
                found = _metadata(self._ask("ModelMetadata", name=model))
            case ["v2", "models", model, "config"]:
                config = self._ask("ModelConfig", name=model).config
                found = {
                    "max_batch_size": config.max_batch_size,
                    "model_transaction_policy": {
                        "decoupled": config.model_transaction_policy.decoupled
                    },
                }
                if config.WhichOneof("scheduling_choice") == "sequence_batching":
                    found["sequence_batching"] = {}
            case ["v2", "systemsharedmemory", "region", name, "register"]:
                self._ask("SystemSharedMemoryRegister", name=name, **msgspec.json.decode(body))
                found = {}
            case ["v2", "systemsharedmemory", "region", name, "unregister"]:
                self._ask("SystemSharedMemoryUnregister", name=name)
                found = {}
            case ["v1", "models", model]:
                found = predict.told_of(model, self._call)
            case ["v1", "models", model, "metadata"]:
                found = predict.metadata(model, self._call)
            case ["v2", "models", model, "stats"]:
                stats = self._ask("ModelStatistics", name=model).model_stats
                return httpx.Response(200, content=_statistics(stats))
            case _:
                return httpx.Response(501, json={"error": "not over gRPC"})
        return httpx.Response(200, json=found)

    def _ask(self, name: str, /, **members: Any) -> Any:
        request = message(f"inference.{name}Request")(**members)
        return self._call(INFERENCE, name, request, f"inference.{name}Response")

    def _call(self, service: str, name: str, request: Any, response: str) -> Any:
        call = self._channel.unary_unary(
            f"/{service}/{name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=message(response).FromString,
        )
        return call(request, timeout=_TIMEOUT_S, metadata=self._metadata)

    def _infer(self, path: str, data: bytes, patience_s: float) -> httpx.Response:
        """One prepared call, its own headers included; of a stream the first answer."""
        from hpack import Decoder

        start = head_length(data)
        fields = Decoder().decode(data[9:start], raw=True)
        metadata = [
            _pair(bytes(name), bytes(value))
            for name, value in fields
            if not name.startswith(b":") and name not in _NOT_METADATA
        ]
        asked = data[start + PREFIX.size :]
        if path == STREAM:
            answers = self._channel.stream_stream(path)(
                iter([asked]), timeout=patience_s, metadata=metadata
            )
            said = list(answers)
            error, body = within(said[0]) if said else ("no answer came", b"")
            if error:
                return httpx.Response(500, json={"error": error})
        else:
            call = self._channel.unary_unary(path)
            body = call(asked, timeout=patience_s, metadata=metadata)
        return httpx.Response(200, content=body, headers={"grpc-status": CODES[0]})


def _pair(name: bytes, value: bytes) -> tuple[str, str | bytes]:
    if name.endswith(b"-bin"):
        return name.decode(), base64.b64decode(value + b"==")
    return name.decode(), value.decode("latin-1")


def _papers(tls: Tls) -> tuple[bytes | None, bytes | None, bytes | None]:
    """(who is believed, our key, our certificate), as grpcio wants them. SpecError."""
    if not tls.verify:
        raise SpecError(
            "target.verify = false cannot be had with gRPC: who is asked must be known",
            'say whom to believe: [target] ca = "server.pem"',
        )
    cert = _file("cert", tls.cert)
    return _file("ca", tls.ca), _file("key", tls.key) or cert, cert


def _file(key: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SpecError(f"target.{key} {path!r}: {error.strerror}") from error


def _metadata(told: Any) -> Members:
    return {
        key: [
            {"name": each.name, "datatype": each.datatype, "shape": list(each.shape)}
            for each in getattr(told, key)
        ]
        for key in ("inputs", "outputs")
    }


def _statistics(stats: Any) -> bytes:
    """As over HTTP. What our own engine adds is JSON already."""
    models = []
    for told in stats:
        found: Members = {
            "version": told.version,
            "inference_count": told.inference_count,
            "execution_count": told.execution_count,
            "inference_stats": _durations(told.inference_stats, _PARTS),
            "batch_stats": [
                {"batch_size": size.batch_size} | _durations(size, _COMPUTE)
                for size in told.batch_stats
            ],
        }
        if told.loadbench:
            found["loadbench"] = msgspec.Raw(told.loadbench.encode())
        models.append(found)
    return msgspec.json.encode({"model_stats": models})


def _durations(told: Any, names: tuple[str, ...]) -> Members:
    """Those that are told: one that is not would be a zero, which is no gap."""
    found = {name: getattr(told, name) for name in names if told.HasField(name)}
    return {name: {"count": one.count, "ns": one.ns} for name, one in found.items()}
