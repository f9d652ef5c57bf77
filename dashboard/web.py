"""The dashboard in a browser: each tab is a dashboard of its own, attached to one run.

textual-serve runs them and carries their pictures. What it leaves open is closed here. A page of
any other site can make a browser connect to this machine, and whoever steers a dashboard can start
programs: so the address holds a key that only the terminal has shown, and requests must name this
machine as their host. Nothing is fetched from elsewhere.
"""

import asyncio
import hmac
import ipaddress
import secrets
import shlex
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from textual_serve.server import Server

from loadbench.errors import RunError

COOKIE = "loadbench"
HOST = "127.0.0.1"
_PAGES = Path(__file__).parent / "browser"
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Pages(Server):
    """On a port of this machine. `key` opens the door."""

    def __init__(self, port: int) -> None:
        super().__init__("", HOST, port, title="loadbench", templates_path=_PAGES)
        self.key = secrets.token_urlsafe(16)

    def show(self, command: Sequence[str]) -> None:
        """Runs the command for each tab, until a signal comes."""
        self.command = f"exec {shlex.join(command)}"  # no shell between us and it
        self.serve()

    @property
    def address(self) -> str:
        """What to open."""
        return f"{self.public_url}/?key={self.key}"

    def initialize_logging(self) -> None:
        """Nothing of every request: the terminal has other things to tell."""

    async def on_startup(self, app: web.Application) -> None:
        """Says where it is, once it is: it does not listen yet."""
        self._saying = asyncio.create_task(self._say())

    async def _say(self) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection(HOST, self.port)
            except ConnectionError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            print(f"open {self.address} in a browser; ctrl+c ends it, a run goes on", flush=True)
            return

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._guard)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Lets in who has the key, which becomes a cookie at the first page."""
        if not _is_here(request.host):
            raise web.HTTPForbidden(text="this dashboard answers only to 127.0.0.1\n")
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{request.host}":
            raise web.HTTPForbidden(text="another site's page asks for this dashboard\n")
        given = request.query.get("key", "")
        if not (self._opens(given) or self._opens(request.cookies.get(self._cookie, ""))):
            raise web.HTTPForbidden(text="open the address that the terminal shows: it has a key\n")
        answer = await handler(request)
        if given and not answer.prepared:
            answer.set_cookie(self._cookie, self.key, httponly=True, samesite="Strict")
        return answer

    @property
    def _cookie(self) -> str:
        return f"{COOKIE}-{self.port}"  # cookies do not tell ports apart

    def _opens(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.key.encode())

    async def handle_index(self, request: web.Request) -> Any:
        """The page, which asks the host that it came from for the rest."""
        self.public_url = f"http://{request.host}"
        return await super().handle_index(request)


def _is_here(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def free_port(port: int) -> int:
    """The port if nobody has it; 0: any that is free. Raises RunError."""
    try:
        with socket.socket() as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((HOST, port))
            return int(found.getsockname()[1])
    except OSError as error:
        raise RunError(
            f"port {port} on {HOST}: {error.strerror}", "choose another one with --port"
        ) from error
