"""`loadbench tui --web`: a real server, asked as browsers and as others do."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.browser import CHROMIUM, Page, browser
from tests.running import loadbench, scenario

pytestmark = pytest.mark.long  # a minute and more


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that is over."""
    here = tmp_path_factory.mktemp("web")
    loadbench("run", scenario(here), "--out", here / "results", cwd=here)
    (found,) = (here / "results").glob("*/run.json")
    return found.parent


@contextmanager
def serving(*arguments: str | Path) -> Iterator[tuple[psutil.Process, str]]:
    """The process and its address, key included."""
    command = [sys.executable, "-m", "loadbench", "tui", "--web", "--port", "0"]
    with subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            yield psutil.Process(process.pid), process.stdout.readline().split()[1]
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            finally:
                process.kill()


async def status(url: str, **headers: str) -> int:
    async with aiohttp.ClientSession() as client, client.get(url, headers=headers) as answer:
        return answer.status


@asynccontextmanager
async def tab(address: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A browser's: the page first, then the socket with the cookie that came with it."""
    jar = aiohttp.CookieJar(unsafe=True)  # as browsers do for addresses that are numbers
    base = address.partition("?")[0]
    async with aiohttp.ClientSession(cookie_jar=jar) as client:
        async with client.get(address) as page:
            assert page.status == 200
            assert "https://" not in await page.text()  # nothing from elsewhere
        async with client.ws_connect(f"{base}ws?width=100&height=30") as socket:
            yield socket


async def read_until(socket: aiohttp.ClientWebSocketResponse, wanted: bytes) -> bytes:
    found = b""
    async with asyncio.timeout(60):
        while wanted not in found:
            message = await socket.receive()
            assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message
            found += message.data if isinstance(message.data, bytes) else message.data.encode()
    return found


def test_a_tab_shows_the_run_and_leaves_nothing(run: Path) -> None:
    async def visit(address: str, process: psutil.Process) -> None:
        async with tab(address) as socket:
            await read_until(socket, b"Throughput")
            children = process.children(recursive=True)
            assert any("--attach" in child.cmdline() for child in children)
            await socket.send_json(["stdin", "2"])
            await read_until(socket, b"Batch")
        _, alive = await asyncio.to_thread(psutil.wait_procs, children, 30)
        assert not alive

    with serving("--attach", run) as (process, address):
        asyncio.run(visit(address, process))


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_window_shows_all_of_it_at_every_size(run: Path, tmp_path: Path) -> None:
    """The cells are measured with the font that they are drawn with: they keep their height."""

    async def look(address: str) -> None:
        async with browser(tmp_path) as page:
            await page.open(address)
            await seen(page, 900)
            await page.resize(700, 420)
            await seen(page, 420)
            await page.resize(1280, 800)
            await seen(page, 800)
            base = address.partition("?")[0]
            assert page.asked
            assert all(url.startswith(base) for url in page.asked)
            assert not any('"error"' in said or "'error'" in said for said in page.complaints)

    async def seen(page: Page, height: int) -> None:
        """As many rows as the window has room for: less than one is left below them."""
        rows = "document.querySelector('.xterm-screen')?.getBoundingClientRect().height ?? 0"
        for _ in range(400):
            found = await page.read(rows)
            if height - 25 <= found <= height:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{found} of {height} pixels")

    with serving("--attach", run) as (_, address):
        asyncio.run(look(address))


def test_only_who_has_the_key_and_asks_this_machine_gets_in(run: Path) -> None:
    async def ask(address: str) -> None:
        base = address.partition("?")[0]
        assert await status(address) == 200
        assert await status(base) == 403
        assert await status(f"{base}?key=guessed") == 403
        assert await status(f"{base}ws") == 403
        assert await status(f"{base}static/js/textual.js") == 403
        assert await status(address, Host="evil.example") == 403
        assert await status(address, Origin="http://evil.example") == 403
        assert await status(address, Host="localhost:1", Origin="http://localhost:1") == 200

    with serving("--attach", run) as (_, address):
        asyncio.run(ask(address))


def test_a_killed_server_leaves_no_dashboards(run: Path) -> None:
    async def kill(address: str, process: psutil.Process) -> None:
        async with tab(address) as socket:
            await read_until(socket, b"Throughput")
            children = process.children(recursive=True)
            os.kill(process.pid, signal.SIGKILL)
            _, alive = await asyncio.to_thread(psutil.wait_procs, children, 30)
            assert not alive

    with serving("--attach", run) as (process, address):
        asyncio.run(kill(address, process))


def test_a_port_that_is_taken_is_said_before_anything_starts(run: Path) -> None:
    with serving("--attach", run) as (_, address):
        port = address.split(":")[2].partition("/")[0]
        cwd = run.parents[1]
        before = len(list(run.parent.iterdir()))
        ended = loadbench("tui", "own.toml", "--web", "--port", port, cwd=cwd, code=3)
        assert f"port {port} on 127.0.0.1" in ended.stderr
        assert len(list(run.parent.iterdir())) == before


def test_what_is_missing_is_named(run: Path) -> None:
    code = "import sys; sys.modules['textual_serve'] = None\nfrom loadbench.cli import main\nmain()"
    command = [sys.executable, "-c", code, "tui", "--web", "--attach", str(run)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "pip install 'loadbench[web]'" in ended.stderr
