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
from loadbench.errors import LoadbenchError, SpecError, TargetError
from loadbench.model import Value, decode
from loadbench.plan import Endpoint, Tls
from loadbench.standing import Settings
from loadbench.targets.between import began_anew, difference, together
from loadbench.targets.describe import describe, describe_replica
from loadbench.targets.pinned import PLAIN, WHOLE_S, Pinned
from loadbench.targets.places import Pin
from loadbench.targets.region import Region
from loadbench.targets.reply import FORBIDDEN, WHO, elsewhere, refusal, unwelcome, words
from loadbench.targets.statistics import Reading, read
from loadbench.targets.tls import OWN_CA, context, explain
from loadbench.targets.wire import Headers, Prepared, filled_headers
from loadbench.units import SECOND, hostport

if TYPE_CHECKING:  # it brings pydantic, which not all who ask need
    from loadbench.targetspec import TargetSpec

__all__ = ["Asker", "Exchange", "Reading", "began_anew", "difference", "together"]

_TIMEOUT = httpx.Timeout(5.0, connect=2.0)
_WHOLE_S = 10.0  # for all of an answer about the server itself
_ABSENT = (400, 404, 405, 501)  # how servers say that they do not have an extension
_AT_FAULT = (400, 404, 405, 413, 415, 422)  # how servers say that a request cannot be served
_HTTP, _RPC = ("http", "https"), ("grpc", "grpcs")
_OVER_RPC = ("auto", "kserve", "tensorflow")
_NO_JSON = (UnicodeDecodeError, RecursionError)  # what msgspec raises beside its own errors
# How it reads that somebody took the question for none, and hung up
_HUNG_UP = ("disconnected without sending", "Connection reset", "Socket closed")


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
        at: str = "",  # the address of its name that is asked; empty: the first that listens
    ) -> None:
        self.where, port = _address(url)
        self.rpc = self.where.scheme in _RPC
        if self.rpc and (port is None or protocol not in _OVER_RPC):
            wrong = "it names no port"
            if port is not None:
                wrong = f"over gRPC there is no protocol = {protocol!r}"
            raise SpecError(f"{url!r} is no target: {wrong}", "grpc://host:port")
        self.tls = (tls or Tls()) if self.where.scheme in ("https", "grpcs") else None
        self.port = port or (443 if self.tls else 80)
        self.host = self.where.hostname or ""
        self._pin = Pin(self.host, self.port, at)
        self.protocol = protocol
        self.known_by = "as the scenario says"  # which protocol it speaks, in words
        self.closes = True  # as long as no answer left its connection open
        self.url = f"{self.where.scheme}://{hostport(self.host, self.port)}"
        self.headers = dict(headers or {})
        self.query = self.where.query  # of what the load asks for
        filled = dict(filled_headers(self.headers))
        self._client = httpx.Client(
            base_url=self.url,
            timeout=_timeout(patience_ns),
            trust_env=False,
            headers=PLAIN,
            transport=self._transport(filled),
        )
        self._client.headers.update(httpx.Headers(filled, encoding="latin-1"))

    def _transport(self, headers: Mapping[str, str]) -> httpx.BaseTransport:
        if not self.rpc:
            return Pinned(self._pin, context(self.tls) if self.tls else False)
        from loadbench.targets.transport import Transport  # it brings grpcio

        for name, text in headers.items():
            if not text.isascii():
                raise SpecError(f"target.headers.{name}: gRPC carries ASCII alone")

        return Transport(self._pin, self.tls, headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()
        self._hide(error)

    def _hide(self, error: BaseException | None) -> None:
        """Takes the secrets that the server was shown out of what failed: it may have repeated them
        in any of its words. All that fails comes by here on its way to people."""
        if isinstance(error, LoadbenchError):
            error.message = self.hidden(error.message)
            error.hint = self.hidden(error.hint)
            error.args = (error.message,)

    def hidden(self, text: str) -> str:
        """A text without the secrets that the server was shown."""
        told = environment.told(self.headers, {"url": f"{self.url}?{self.query}"})
        return environment.hidden(text, told)

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Whatever it answers. TargetError if nothing comes."""
        try:
            answer = self._client.request(method, path, json=body, extensions={WHOLE_S: _WHOLE_S})
        except httpx.HTTPError as error:
            reason, hint = _explain(error, self.where.scheme)
            raise TargetError(f"{self.asked(path, method)}: {reason}", hint) from error
        self.closes &= _ends(answer)
        return answer

    def known(self, path: str) -> httpx.Response:
        """What it answers there. Who refuses for who asks is asked once more, with the query of
        what the load asks for: the key may be there."""
        answer = self.ask("GET", path)
        if self.query and not self.rpc and answer.status_code in (WHO, FORBIDDEN):
            return self.ask("GET", f"{path}?{self.query}")
        return answer

    def asked(self, path: str, method: str = "GET") -> str:
        """A question, as people read of it; over gRPC there are no such paths."""
        where = environment.shown("url", f"{self.url}{path}")
        return self.url if self.rpc else f"{method} {where}"

    def reach(self, path: str) -> None:
        """That it is up, by a question that is for nothing which it serves: so it counts none. Who
        gives no answer to that is asked for the path. TargetError if nothing comes."""
        extensions = {WHOLE_S: _WHOLE_S, "target": b"*"}
        try:
            answer = self._client.request("OPTIONS", "/", extensions=extensions)
        except httpx.HTTPError:
            self.ask("GET", path)
            return
        self.closes &= _ends(answer)

    def refusal(self, answer: httpx.Response) -> str:
        """What it says in refusing, on one line; without the secrets that it was shown."""
        return self.hidden(refusal(answer))

    def unwelcome(self, answer: httpx.Response) -> tuple[str, str]:
        """Of a refusal for who asks: why, and what to try; empty of any other."""
        certificate = ("a certificate",) if self.tls and self.tls.cert else ()
        beside = (*environment.keys_queried(str(answer.request.url)), *certificate)
        return unwelcome(answer.status_code, self.headers, beside)

    def json(self, path: str) -> dict[str, Any]:
        """The JSON object of a call that must succeed."""
        answer = self.ask("GET", path)
        if answer.status_code != 200:
            raise self.refused(path, answer)
        return self.object(answer)

    def refused(self, path: str, answer: httpx.Response) -> TargetError:
        """That it does not answer this, and what to try where it minds who asks."""
        why, hint = self.unwelcome(answer)
        said = f"{self.asked(path)}: {self.refusal(answer)}"
        return TargetError(": ".join(filter(None, (said, why))), hint or elsewhere(answer))

    def object(self, answer: httpx.Response) -> dict[str, Any]:
        """The JSON object that an answer is. TargetError if it is none."""
        found = self.parsed(answer)
        if not isinstance(found, dict):
            path = answer.request.url.path
            raise TargetError(
                f"{self.asked(path)}: not a JSON object", "is this a KServe v2 server?"
            )
        return found

    def parsed(self, answer: httpx.Response) -> Any:
        """The JSON that an answer is. TargetError if it is none."""
        try:
            return msgspec.json.decode(answer.content)
        except (msgspec.DecodeError, *_NO_JSON) as error:
            path = answer.request.url.path
            raise TargetError(
                f"{self.asked(path)}: not JSON: {error}", "is this a KServe v2 server?"
            ) from error

    def describe(self, wanted: "TargetSpec", first: Endpoint | None = None) -> Endpoint:
        """Where and how to send requests. Raises TargetError when the server is down or not ready,
        SpecError when it has no such model, or not what the `first` of several servers has."""
        if wanted.path != "/":
            self.query = urlsplit(wanted.path).query
        try:
            found = describe_replica(self, wanted, first) if first else describe(self, wanted)
        except LoadbenchError as error:  # of which a journey makes a note, and goes on
            self._hide(error)
            raise
        return replace(found, at=self.at)

    @property
    def at(self) -> str:
        """The address of its name that is asked; empty for what is no name that may change."""
        return self._pin.at

    def attempt(self, request: Prepared) -> None:
        """Sends one request as the load will. Raises SpecError if the server finds fault with it;
        that it fails for other reasons is for the run to show."""
        try:
            answer = self._sent(request)
        except httpx.HTTPError:
            return
        if answer.status_code in _AT_FAULT:
            raise SpecError(
                f"{self.url} refuses the inputs of {request.name!r}: {self.refusal(answer)}",
                'give it inputs that it takes: [[request]] with data = "…" or shapes = {…}',
            )

    def exchange(self, request: Prepared) -> Exchange:
        """Sends one request and gives what came back. Raises TargetError if nothing did."""
        begun = time.monotonic_ns()
        try:
            answer = self._sent(request)
        except httpx.HTTPError as error:
            reason, hint = _explain(error, self.where.scheme)
            raise TargetError(f"{self.url}: {reason}", hint) from error
        took = time.monotonic_ns() - begun
        headers = {name.lower(): value for name, value in answer.headers.raw}
        return Exchange(answer.status_code, headers, answer.content, took)

    def _sent(self, request: Prepared) -> httpx.Response:
        """To the byte as the load sends it: nothing of the client's own goes along."""
        if self.rpc:
            from loadbench.targets.rpc import path_of

            return self._client.post(path_of(request.data), content=request.data)
        head, _, body = request.data.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        method, path, _ = first.split(b" ")
        headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        own = httpx.Request(
            method.decode(), self.url, headers=headers, content=body, extensions={"target": path}
        )
        return self._client.send(own)

    def statistics(self, endpoint: Endpoint) -> Reading | None:
        """What the model's server has counted until now; None if it does not count, or tells
        nothing of the model now. Raises TargetError when it does not answer."""
        if not endpoint.kserve:
            return None
        path = f"/v2/models/{quote(endpoint.model, safe='')}/stats"
        answer = self.ask("GET", path)
        if answer.status_code in _ABSENT:
            return None
        try:
            found = read(answer.raise_for_status().content)
        except (httpx.HTTPError, msgspec.MsgspecError, *_NO_JSON) as error:
            raise TargetError(f"{self.asked(path)}: {error}") from error
        return found if found.parts else None

    def register(self, region: Region) -> None:
        """Has the server open a region. Raises SpecError if it does not."""
        body = {"key": region.key, "offset": 0, "byte_size": region.size}
        answer = self.ask("POST", f"/v2/systemsharedmemory/region/{region.name}/register", body)
        if answer.status_code != 200:
            raise SpecError(
                f"{self.url} does not open shared memory {region.key}: {self.refusal(answer)}",
                "it must be on this machine and see its /dev/shm, under the same user",
            )

    def unregister(self, region: Region) -> None:
        """Has the server close it. Raises TargetError if it does not answer."""
        self.ask("POST", f"/v2/systemsharedmemory/region/{region.name}/unregister", {})

    def retune(self, endpoint: Endpoint, wanted: Mapping[str, Any]) -> tuple[Settings, Settings]:
        """Has our own engine bring requests together by other settings from now on; those before
        and after. Raises SpecError if it refuses, TargetError if it does not answer."""
        path = f"/v2/repository/models/{quote(endpoint.model, safe='')}/batching"
        answer = self.ask("POST", path, dict(wanted))
        if answer.status_code in (400, 403, 404):
            raise SpecError(words(answer))
        try:
            found = decode(_Retuned, answer.raise_for_status().content)
        except (httpx.HTTPError, msgspec.MsgspecError, *_NO_JSON) as error:
            raise TargetError(f"{self.asked(path, 'POST')}: {error}") from error
        return found.before, found.after

    def engine_facts(self, endpoint: Endpoint) -> dict[str, Any]:
        """What our own engine says of itself: model, version, device, precision, policy, max_batch,
        instances, warm_ns, notes, card (the UUID of the first one). Empty for other servers."""
        reading = self.statistics(endpoint)
        if reading is None or reading.engine is None:
            return {}
        found = self.json("/health")
        health: dict[str, Any] = {
            key: found[key] for key in ("model", "version", "notes") if key in found
        }
        fields = ("device", "precision", "policy", "max_batch", "instances", "warm_ns")
        card = next((ground.uuid for ground in reading.engine.grounds), "")
        own = {field: getattr(reading.engine, field) for field in fields}
        return {**health, **own, "card": card}


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


def _explain(error: httpx.HTTPError, scheme: str) -> tuple[str, str]:
    """What went wrong and what to do about it; of TLS errors what lies beneath httpx's."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return explain(cause)
        cause = cause.__cause__ or cause.__context__
    reason = str(error) or type(error).__name__
    hung_up = any(words in reason for words in _HUNG_UP)
    if scheme in _RPC:
        if "WRONG_VERSION_NUMBER" in reason:
            return reason, "it does not speak TLS: is it a grpc:// address?"
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            return reason, OWN_CA
        if hung_up or "parsing HTTP/2" in reason or "ALPN" in reason:
            others = (
                "an http:// or an https://" if scheme == "grpcs" else "an http:// or a grpcs://"
            )
            return reason, f"it does not speak gRPC: is it {others} address?"
    elif isinstance(error, httpx.RemoteProtocolError) and "line" in reason:
        return reason, "it does not speak HTTP/1.1: is it a grpc:// address?"
    elif hung_up:
        secure = "" if scheme == "https" else ", or is it an https:// address"
        return reason, f"is the server up, and does it speak HTTP there{secure}?"
    return reason, "is the server up, and the address right?"


def _ends(answer: httpx.Response) -> bool:
    """Whether it is to be believed that all answers end their connection: who speaks 1.1 may hang
    up only after what it does not know."""
    return _closes(answer) and (answer.status_code < 400 or answer.http_version == "HTTP/1.0")


def _closes(answer: httpx.Response) -> bool:
    """HTTP/1.0 closes unless it says that it does not, 1.1 does not unless it says that it does."""
    said = answer.headers.get("connection", "").lower()
    return "close" in said or (answer.http_version == "HTTP/1.0" and "keep-alive" not in said)
