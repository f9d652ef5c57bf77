"""Certificates for tests, good and bad, and small TLS servers that follow a script."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from loadbench.plan import Endpoint, Plan, Tls
from tests.lanes import plan


class Papers(NamedTuple):
    """Paths of PEM files. All but `ca`, `other_ca` and the last three hold a key, too."""

    ca: str
    other_ca: str
    server: str  # for localhost and 127.0.0.1
    elsewhere: str  # for another name
    expired: str
    client: str
    stranger: str  # a client's, of the other CA
    bare: str  # the client's certificate alone
    key: str  # its key
    locked: str  # the same, encrypted

    @property
    def tls(self) -> Tls:
        return Tls(ca=self.ca)


def make_papers(folder: Path) -> Papers:
    ca, other = trustme.CA(), trustme.CA()
    past = datetime.now(UTC) - timedelta(days=1)
    client = ca.issue_cert("someone@example.org")

    def write(name: str, data: bytes) -> str:
        (folder / name).write_bytes(data)
        return str(folder / name)

    def leaf(name: str, found: trustme.LeafCert) -> str:
        return write(name, found.private_key_and_cert_chain_pem.bytes())

    key = load_pem_private_key(client.private_key_pem.bytes(), None)
    locked = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    return Papers(
        ca=write("ca.pem", ca.cert_pem.bytes()),
        other_ca=write("other.pem", other.cert_pem.bytes()),
        server=leaf("server.pem", ca.issue_cert("localhost", "127.0.0.1")),
        elsewhere=leaf("elsewhere.pem", ca.issue_cert("elsewhere.example")),
        expired=leaf("expired.pem", ca.issue_cert("127.0.0.1", not_after=past)),
        client=leaf("client.pem", client),
        stranger=leaf("stranger.pem", other.issue_cert("stranger@example.org")),
        bare=write("bare.pem", b"".join(found.bytes() for found in client.cert_chain_pems)),
        key=write("client.key", client.private_key_pem.bytes()),
        locked=write("locked.key", locked),
    )


def secure(wanted: Plan, tls: Tls, **changed: Any) -> Plan:
    endpoint = msgspec.structs.replace(wanted.endpoint, tls=tls, **changed)
    return msgspec.structs.replace(wanted, endpoint=endpoint)


def page(port: int, tls: Tls, **changed: Any) -> Plan:
    """GET / of a plain HTTP server, over TLS."""
    fields: dict[str, Any] = {"rate": 20, "seconds": 0.25} | changed
    endpoint = Endpoint(host="127.0.0.1", port=port, protocol="http", tls=tls)
    return msgspec.structs.replace(plan(port, **fields), endpoint=endpoint)


def server_context(cert: str, client_ca: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert)
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


@contextmanager
def scripted(play: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server whose every connection is `play`ed in a thread of its own; its port."""
    threads: list[threading.Thread] = []

    def run(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):  # whether the client leaves early is not asked
            play(sock)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=run, args=(sock,)))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join(10)


def read_request(stream: ssl.SSLSocket) -> bytes:
    """The body of one request; ConnectionError at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(stream)
    head, _, body = data.partition(b"\r\n\r\n")
    at = head.lower().find(b"\r\ncontent-length:")
    length = int(head[at + 17 :].split(b"\r\n")[0]) if at >= 0 else 0
    parts = [body]
    missing = length - len(body)
    while missing > 0:
        parts.append(_some(stream))
        missing -= len(parts[-1])
    return b"".join(parts)


def _some(stream: ssl.SSLSocket) -> bytes:
    data = stream.recv(1 << 16)
    if not data:
        raise ConnectionError
    return data


@contextmanager
def terminated(cert: str, port: int, client_ca: str = "") -> Iterator[int]:
    """TLS before a plain server on loopback; the port to connect to."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, outer), pump(inner, writer))

    async def main() -> None:
        context = server_context(cert, client_ca)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        await ended.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # they end with their connections
            await asyncio.wait(others, timeout=5)

    ports: list[int] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    ended = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(10)
        loop.close()
