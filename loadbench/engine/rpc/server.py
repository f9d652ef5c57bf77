"""gRPC's sockets and calls, on the event loop that HTTP is on: in one process, on a loop of its own
each request would cross threads twice more.

What a client may cost is bounded: bytes of a message and of metadata, streams of one connection,
connections and calls altogether; not what messages that are still arriving hold together, which
the library does not tell. A call that is cancelled, or whose client is gone, frees its place in the
queue.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf import json_format  # type: ignore[import-untyped]

from loadbench.engine.crowd import IDLE_S
from loadbench.engine.http import IN_FLIGHT, Handler, Limits
from loadbench.engine.rpc import bridge
from loadbench.engine.rpc.calls import Call, Calls, model_path
from loadbench.engine.rpc.messages import HEALTH, INFERENCE, message, methods
from loadbench.engine.rpc.wire import Parts, Translator, take_apart
from loadbench.engine.tensors import Refused
from loadbench.errors import RunError

CALLS = 16_384  # at once; more wait, and nothing of them is looked at
ALIVE_S, DEAD_S = 60, 20  # after so long without a word a client is asked for one, and given up
WATCH_S = 0.5  # between two looks of a health watcher
KNOWN_PATHS = 256
_ENVELOPE = 1 << 20  # of a message beside its tensors
_CODES = {
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_CAUSES = {
    "full": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "deadline": grpc.StatusCode.DEADLINE_EXCEEDED,
}


async def start(address: str, handler: Handler, limits: Limits, most: int) -> "Rpc":
    """Listens on `host:port`, for `most` connections. Raises RunError if the address cannot be
    had."""
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limits.body + _ENVELOPE),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", IN_FLIGHT),
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_allowed_incoming_connections", most),
        ("grpc.max_connection_idle_ms", round(1000 * IDLE_S)),
        # A machine that is gone says nothing, and what it had half sent would be kept for hours
        ("grpc.keepalive_time_ms", 1000 * ALIVE_S),
        ("grpc.keepalive_timeout_ms", 1000 * DEAD_S),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=CALLS)
    fronts = _Front(handler)
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler(INFERENCE, fronts.handlers()),
        grpc.method_handlers_generic_handler(HEALTH, fronts.health()),
    ))  # fmt: skip
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise RunError(
            f"cannot listen for gRPC on {address}",
            "choose another one with --grpc-port (0: any that is free)",
        ) from error
    await server.start()
    return Rpc(server, port)


class Rpc:
    """A running gRPC server."""

    def __init__(self, server: Any, port: int) -> None:
        self._server = server
        self.port: int = port

    async def stop(self, seconds: float) -> None:
        """Takes no new calls, and ends those that are open after so long."""
        await self._server.stop(seconds)


class _Front:
    """Every call of the two services."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._calls = Calls(handler)
        self._paths: dict[tuple[bytes, bytes], bytes] = {}
        self._translator = Translator()

    def handlers(self) -> dict[str, Any]:
        """The inference service's, by the method's name."""
        found: dict[str, Any] = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self._infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._stream),
        }
        for method in methods(INFERENCE):
            if method.name not in found:
                found[method.name] = grpc.unary_unary_rpc_method_handler(
                    partial(
                        _called, self._calls.by_name[method.name], method.output_type.full_name
                    ),
                    request_deserializer=message(method.input_type.full_name).FromString,
                )
        return found

    def health(self) -> dict[str, Any]:
        """The health service's, by the method's name."""
        read = message(f"{HEALTH}CheckRequest").FromString
        return {
            "Check": grpc.unary_unary_rpc_method_handler(self._check, request_deserializer=read),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch, request_deserializer=read),
        }

    # ---- infer

    async def _infer(self, request: bytes, context: Any) -> bytes:
        try:
            return await self._ask(take_apart(request), context)
        except Refused as fault:
            await _abort(context, fault)
            raise

    async def _ask(self, parts: Parts, context: Any) -> bytes:
        """A serialized answer. Raises Refused; cancelled, it gives up the request's place."""
        question = self._translator.question(parts)
        heard = await bridge.post(
            self._handler, self._path(parts.model, parts.version), question.body(),
            len(question.header), context.time_remaining(),
        )  # fmt: skip
        return self._translator.answer(parts.id, heard)

    def _path(self, model: bytes, version: bytes) -> bytes:
        path = self._paths.get((model, version))
        if path is None:
            if len(self._paths) >= KNOWN_PATHS:
                self._paths.clear()
            path = self._paths[model, version] = model_path(model, version, "/infer")
        return path

    async def _stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Answers in the order of the requests, of which several may be in flight."""
        asked: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(IN_FLIGHT)
        open_tasks: set[asyncio.Task[Any]] = set()

        async def read() -> None:
            async for request in requests:
                task = asyncio.create_task(self._streamed(request, context))
                open_tasks.add(task)
                task.add_done_callback(open_tasks.discard)
                await asked.put(task)
            await asked.put(None)

        reader = asyncio.create_task(read())
        try:
            while (task := await asked.get()) is not None:
                yield await task
        finally:
            reader.cancel()
            for task in tuple(open_tasks):
                task.cancel()

    async def _streamed(self, request: bytes, context: Any) -> bytes:
        """A serialized ModelStreamInferResponse: in a stream an error ends only its own request."""
        answer = message("inference.ModelStreamInferResponse")()
        try:
            parts = take_apart(request)
        except Refused as fault:
            answer.error_message = fault.message
        else:
            try:
                answer.infer_response.MergeFromString(await self._ask(parts, context))
            except Refused as fault:
                answer.error_message = fault.message
                answer.infer_response.id = parts.id.decode(errors="replace")
        packed: bytes = answer.SerializeToString()
        return packed

    # ---- health

    def _state(self, service: str) -> int | None:
        """SERVING or NOT_SERVING; None for a service that is not here."""
        if service not in ("", INFERENCE, HEALTH):
            return None
        return 1 if self._calls.is_ready() else 2

    async def _check(self, asked: Any, context: Any) -> bytes:
        state = self._state(asked.service)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no {asked.service!r}")
        return _health(state or 0)

    async def _watch(self, asked: Any, _: Any) -> AsyncIterator[bytes]:
        told: int | None = None
        while True:
            state = self._state(asked.service)
            now = 3 if state is None else state  # SERVICE_UNKNOWN
            if now != told:
                told = now
                yield _health(now)
            await asyncio.sleep(WATCH_S)


def _health(state: int) -> bytes:
    packed: bytes = message(f"{HEALTH}CheckResponse")(status=state).SerializeToString()
    return packed


async def _called(call: Call, kind: str, asked: Any, context: Any) -> bytes:
    """The serialized answer to a call that is no infer call."""
    try:
        found = call(asked)
        if inspect.isawaitable(found):
            found = await found
    except Refused as fault:
        await _abort(context, fault)
        raise
    answer = json_format.ParseDict(found, message(kind)(), ignore_unknown_fields=True)
    packed: bytes = answer.SerializeToString()
    return packed


async def _abort(context: Any, fault: Refused) -> None:
    """Ends a call with the code that says what HTTP says by its status."""
    code = _CAUSES.get(fault.cause) or _CODES.get(fault.status, grpc.StatusCode.INVALID_ARGUMENT)
    retry_s = fault.retry_s if isinstance(fault, bridge.Declined) else 0
    # A client that retries by itself waits so long
    trailing = (("grpc-retry-pushback-ms", str(1000 * retry_s)),) if retry_s else ()
    await context.abort(code, fault.message, trailing)
