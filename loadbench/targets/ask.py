"""Asks a server about itself: metadata, health, statistics. Never on the path of the load.

Whatever is asked goes through one client that is kept open, past any proxy of the environment: what
is measured must be reached as the load reaches it.
"""

import ssl
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import SplitResult, quote, urlsplit

import httpx
import msgspec
from msgspec.structs import replace

from loadbench import environment
from loadbench.errors import SpecError, TargetError
from loadbench.model import Tensor, Value, decode
from loadbench.plan import Endpoint, Tls
from loadbench.standing import Settings
from loadbench.targets import tensorflow
from loadbench.targets.plain import check_path
from loadbench.targets.statistics import Reading, difference, read
from loadbench.targets.tls import context, explain
from loadbench.targets.wire import Headers, Prepared
from loadbench.units import SECOND, hostport

if TYPE_CHECKING:  # it brings pydantic, which not all who ask need
    from loadbench.targetspec import TargetSpec

__all__ = ["Asker", "Exchange", "Reading", "difference"]

_TIMEOUT = httpx.Timeout(5.0, connect=2.0)
_ABSENT = (400, 404, 405, 501)  # how servers say that they do not have an extension
_AT_FAULT = (400, 404, 405, 413, 415, 422)  # how servers say that a request cannot be served
_HTTP, _RPC = ("http", "https"), ("grpc", "grpcs")
_BINARY = "binary_tensor_data"


class _Retuned(Value, frozen=True):
    before: Settings
    after: Settings


class Exchange(NamedTuple):
    """An answer and the time from asking to its last byte, as one client sees it."""

    status: int
    headers: Headers
    body: bytes
    took_ns: int


class Asker:
    """A client of one server. Use it as a context manager."""

    def __init__(
        self,
        url: str,
        protocol: str = "auto",
        tls: Tls | None = None,
        headers: Mapping[str, str] | None = None,
        patience_ns: tuple[int, int] | None = None,  # for an answer, of that to be connected
    ) -> None:
        self._where, port = _address(url)
        self._rpc = self._where.scheme in _RPC
        if self._rpc and (port is None or protocol == "http"):
            wrong = "it names no port" if port is None else 'it cannot speak protocol = "http"'
            raise SpecError(f"{url!r} is no target: {wrong}", "grpc://host:port")
        self._tls = (tls or Tls()) if self._where.scheme in ("https", "grpcs") else None
        self._port = port or (443 if self._tls else 80)
        self._host = self._where.hostname or ""
        self._protocol = "kserve" if self._rpc else protocol
        self._mute = False  # it has no statistics
        self.known_by = "as the scenario says"  # which protocol it speaks, in words
        self._closes = True  # as long as no answer left its connection open
        self.url = f"{self._where.scheme}://{hostport(self._host, self._port)}"
        self._headers = dict(headers or {})
        filled = {name: environment.filled(text, f"target.headers.{name}")
                  for name, text in self._headers.items()}  # fmt: skip
        self._client = httpx.Client(
            base_url=self.url,
            timeout=_timeout(patience_ns),
            trust_env=False,
            verify=context(self._tls) if self._tls else False,
            headers=filled,
            transport=self._transport(filled) if self._rpc else None,
        )

    def _transport(self, headers: Mapping[str, str]) -> httpx.BaseTransport:
        from loadbench.targets.transport import Transport  # it brings grpcio

        return Transport(hostport(self._host, self._port), self._tls, headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def _ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        try:
            answer = self._client.request(method, path, json=body)
            self._closes &= _closes(answer)
            return answer
        except httpx.HTTPError as error:
            reason, hint = _explain(error)
            raise TargetError(f"{method} {self.url}{path}: {reason}", hint) from error

    def _json(self, path: str) -> dict[str, Any]:
        """The JSON object of a call that must succeed."""
        answer = self._ask("GET", path)
        if answer.status_code != 200:
            raise TargetError(f"GET {self.url}{path}: {_refusal(answer)}")
        return self._object(answer)

    def _object(self, answer: httpx.Response) -> dict[str, Any]:
        found = self._parsed(answer)
        if not isinstance(found, dict):
            path = answer.request.url.path
            raise TargetError(
                f"GET {self.url}{path}: not a JSON object", "is this a KServe v2 server?"
            )
        return found

    def _parsed(self, answer: httpx.Response) -> Any:
        try:
            return msgspec.json.decode(answer.content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            path = answer.request.url.path
            raise TargetError(
                f"GET {self.url}{path}: not JSON: {error}", "is this a KServe v2 server?"
            ) from error

    def describe(self, wanted: "TargetSpec") -> Endpoint:
        """Where and how to send requests. Raises TargetError when the server is down or not ready,
        SpecError when it has no such model."""
        protocol = self._found_protocol(wanted) if self._protocol == "auto" else self._protocol
        if protocol == "tensorflow":
            return self._tensorflow(wanted)
        if protocol == "http":
            path = self._path(wanted.path)
            check_path(path)
            self._ask("GET", path)  # any answer will do
            return Endpoint(
                host=self._host, port=self._port, protocol="http", tls=self._tls,
                path=path, method=wanted.method, closes=self._closes, headers=self._headers,
            )  # fmt: skip
        extensions = self._json("/v2").get("extensions") or []
        ready = self._ask("GET", "/v2/health/ready")
        if ready.status_code != 200:
            raise TargetError(f"{self.url} is not ready (HTTP {ready.status_code})", "wait for it")
        model = wanted.model or self._only_model()
        found = self._kserve(model, binary=_BINARY in extensions)
        if self._rpc:
            found = replace(found, protocol="grpc", closes=False, deadline_ns=wanted.deadline)
        return found

    def _path(self, wanted: str) -> str:
        """What to ask for, query included: the scenario's path, else the URL's."""
        if wanted != "/":
            return wanted
        query = f"?{self._where.query}" if self._where.query else ""
        return (self._where.path or "/") + query

    def _found_protocol(self, wanted: "TargetSpec") -> str:
        """A KServe server says at /v2 what it is, TensorFlow Serving by how it tells of a model, or
        refuses to."""
        found = _json_of(self._ask("GET", "/v2"))
        if isinstance(found, dict) and "extensions" in found:
            self.known_by = "speaks KServe v2: /v2 tells its extensions"
            return "kserve"
        path = tensorflow.model_path(wanted.model).rstrip("/")
        found = _json_of(self._ask("GET", path), anyhow=True)
        if tensorflow.serves(found) or tensorflow.refuses(found):
            self.known_by = f"is TensorFlow Serving: {path} says so"
            return "tensorflow"
        self.known_by = "plain HTTP: neither /v2 nor /v1/models is known there"
        return "http"

    def _tensorflow(self, wanted: "TargetSpec") -> Endpoint:
        model = wanted.model
        if not model:
            raise SpecError(
                f"which model? {self.url} is TensorFlow Serving, which does not tell which it has",
                'name it: [target] model = "…"',
            )
        path = tensorflow.model_path(model)
        answer = self._ask("GET", path)
        state = _json_of(answer)
        if not tensorflow.serves(state):
            raise SpecError(f"{self.url} has no model {model!r}: {_refusal(answer)}")
        if not tensorflow.ready(state):
            raise TargetError(f"{self.url}: no version of {model!r} can be asked", "wait for it")
        try:
            told = self._json(f"{path}/metadata")
            inputs, outputs = tensorflow.signature(told, wanted.signature)
        except ValueError as error:
            raise TargetError(f"GET {self.url}{path}/metadata: {error}") from error
        batched = all(tensor.shape[:1] == (-1,) for tensor in (*inputs, *outputs))
        if batched:
            inputs, outputs = _without_batch(inputs), _without_batch(outputs)
        return Endpoint(
            host=self._host, port=self._port, protocol="tensorflow", tls=self._tls, model=model,
            inputs=inputs, outputs=outputs, batched=batched, closes=self._closes,
            headers=self._headers, layout=wanted.layout, signature=wanted.signature,
        )  # fmt: skip

    def _models(self) -> list[str]:
        """The models the server tells of; empty if it does not."""
        answer = self._ask("POST", "/v2/repository/index", {})
        if answer.status_code != 200:
            return []
        found = self._parsed(answer)
        entries = found if isinstance(found, list) else []
        named = [entry for entry in entries if isinstance(entry, dict) and "name" in entry]
        return sorted(
            {str(entry["name"]) for entry in named if entry.get("state", "READY") in ("READY", "")}
        )

    def _only_model(self) -> str:
        models = self._models()
        if len(models) == 1:
            return models[0]
        known = f"{self.url} has {', '.join(models)}" if models else f"{self.url} does not tell any"
        raise SpecError(f"which model? {known}", 'name it: [target] model = "…"')

    def _kserve(self, model: str, binary: bool) -> Endpoint:
        path = f"/v2/models/{quote(model, safe='')}"
        answer = self._ask("GET", path)
        if answer.status_code in (400, 404):
            known = ", ".join(self._models()) or "it does not tell which it has"
            raise SpecError(f"{self.url} has no model {model!r}: {_refusal(answer)}", known)
        if answer.status_code != 200:
            raise TargetError(f"GET {self.url}{path}: {_refusal(answer)}")
        found = self._parsed(answer)
        inputs, outputs = (self._tensors(found, key) for key in ("inputs", "outputs"))
        batched = self._batched(path, (*inputs, *outputs))
        if batched:
            inputs, outputs = _without_batch(inputs), _without_batch(outputs)
        return Endpoint(
            host=self._host, port=self._port, protocol="kserve", tls=self._tls, model=model,
            inputs=inputs, outputs=outputs, batched=batched, binary=binary, closes=self._closes,
            headers=self._headers,
        )  # fmt: skip

    def _tensors(self, metadata: Any, key: str) -> tuple[Tensor, ...]:
        try:
            return tuple(
                Tensor(item["name"], item["datatype"], tuple(map(int, item["shape"])))
                for item in metadata.get(key) or ()
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise TargetError(
                f"{self.url}: the model's {key} are not as KServe v2 has them: {metadata}"
            ) from error

    def _batched(self, path: str, tensors: tuple[Tensor, ...]) -> bool:
        """Whether tensors have a batch axis in front. Only the configuration can tell a batch axis
        from an open dimension; without it, one that is open everywhere is taken for it."""
        answer = self._ask("GET", f"{path}/config")
        if answer.status_code == 200:
            most = self._object(answer).get("max_batch_size", 0)
            try:
                return int(most) > 0
            except (TypeError, ValueError) as error:
                raise TargetError(
                    f"GET {self.url}{path}/config: max_batch_size is {most!r}, no number"
                ) from error
        return bool(tensors) and all(tensor.shape[:1] == (-1,) for tensor in tensors)

    def attempt(self, request: Prepared) -> None:
        """Sends one request as the load will. Raises SpecError if the server finds fault with it;
        that it fails for other reasons is for the run to show."""
        try:
            answer = self._sent(request)
        except httpx.HTTPError:
            return
        if answer.status_code in _AT_FAULT:
            raise SpecError(
                f"{self.url} refuses the inputs of {request.name!r}: {_refusal(answer)}",
                'give it inputs that it takes: [[request]] with data = "…" or shapes = {…}',
            )

    def exchange(self, request: Prepared) -> Exchange:
        """Sends one request and gives what came back. Raises TargetError if nothing did."""
        begun = time.monotonic_ns()
        try:
            answer = self._sent(request)
        except httpx.HTTPError as error:
            reason, hint = _explain(error)
            raise TargetError(f"{self.url}: {reason}", hint) from error
        took = time.monotonic_ns() - begun
        headers = {name.lower(): value for name, value in answer.headers.raw}
        return Exchange(answer.status_code, headers, answer.content, took)

    def _sent(self, request: Prepared) -> httpx.Response:
        if self._rpc:
            from loadbench.targets.rpc import PATH

            return self._client.post(PATH, content=request.data)
        head, _, body = request.data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
        return self._client.request(method, path, headers=headers, content=body)

    def statistics(self, endpoint: Endpoint) -> Reading | None:
        """What the model's server has counted until now; None if it does not count. Raises
        TargetError when it does not answer."""
        if not endpoint.kserve or self._mute:
            return None
        path = f"/v2/models/{quote(endpoint.model, safe='')}/stats"
        answer = self._ask("GET", path)
        if answer.status_code in _ABSENT:
            self._mute = True
            return None
        try:
            return read(answer.raise_for_status().content)
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            raise TargetError(f"GET {self.url}{path}: {error}") from error

    def retune(self, endpoint: Endpoint, wanted: Mapping[str, Any]) -> tuple[Settings, Settings]:
        """Has our own engine bring requests together by other settings from now on; those before
        and after. Raises SpecError if it refuses, TargetError if it does not answer."""
        path = f"/v2/repository/models/{quote(endpoint.model, safe='')}/batching"
        answer = self._ask("POST", path, dict(wanted))
        if answer.status_code in (400, 403, 404):
            raise SpecError(_words(answer))
        try:
            found = decode(_Retuned, answer.raise_for_status().content)
        except (httpx.HTTPError, msgspec.MsgspecError) as error:
            raise TargetError(f"POST {self.url}{path}: {error}") from error
        return found.before, found.after

    def engine_facts(self, endpoint: Endpoint) -> dict[str, Any]:
        """What our own engine says of itself: model, version, device, precision, policy, max_batch,
        instances, warm_ns, notes, card (the UUID of the first one). Empty for other servers."""
        reading = self.statistics(endpoint)
        if reading is None or reading.engine is None:
            return {}
        found = self._json("/health")
        health: dict[str, Any] = {
            key: found[key] for key in ("model", "version", "notes") if key in found
        }
        fields = ("device", "precision", "policy", "max_batch", "instances", "warm_ns")
        card = next((ground.uuid for ground in reading.engine.grounds), "")
        own = {field: getattr(reading.engine, field) for field in fields}
        return {**health, **own, "card": card}


def _json_of(answer: httpx.Response, anyhow: bool = False) -> Any:
    """What it says in JSON; None if that is none, or (unless `anyhow`) a refusal."""
    if answer.status_code != 200 and not anyhow:
        return None
    try:
        return msgspec.json.decode(answer.content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _timeout(patience_ns: tuple[int, int] | None) -> httpx.Timeout:
    if patience_ns is None:
        return _TIMEOUT
    return httpx.Timeout(patience_ns[0] / SECOND, connect=patience_ns[1] / SECOND)


def _address(url: str) -> tuple[SplitResult, int | None]:
    """The parts of a target's address, and its port. Raises SpecError."""
    where = urlsplit(url)
    if where.scheme not in (*_HTTP, *_RPC) or not where.hostname:
        hint = "local:MODEL starts an engine, http://host:port is a server that runs"
        raise SpecError(f"{url!r} is no target", f"{hint}, grpc://host:port one that speaks gRPC")
    try:
        port = where.port
        where.hostname.encode("idna")
    except ValueError as error:
        hint = "http://host:port, each part of the host's name 1 to 63 characters long"
        raise SpecError(f"{url!r} is no target: {error}", hint) from error
    return where, port


def _explain(error: httpx.HTTPError) -> tuple[str, str]:
    """What went wrong and what to do about it; of TLS errors what lies beneath httpx's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return explain(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__, "is the server up, and the address right?"


def _without_batch(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(Tensor(found.name, found.datatype, found.shape[1:]) for found in tensors)


def _closes(answer: httpx.Response) -> bool:
    """HTTP/1.0 closes unless it says that it does not, 1.1 does not unless it says that it does."""
    said = answer.headers.get("connection", "").lower()
    return "close" in said or (answer.http_version == "HTTP/1.0" and "keep-alive" not in said)


def _refusal(answer: httpx.Response) -> str:
    """What a server says in refusing, on one line."""
    return f"HTTP {answer.status_code} {_words(answer)}".strip()


def _words(answer: httpx.Response) -> str:
    try:
        found = msgspec.json.decode(answer.content)
        text = str(found["error"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        text = answer.text
    return " ".join(text.split())[:200]
