"""How the lane comes to a TLS connection: certificates, handshakes, sessions, keys."""

import _socket
import contextlib
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable

import msgspec
import pytest

from loadbench.load.tls import Channel, Shared
from loadbench.plan import Endpoint, Tls
from loadbench.units import MS, SECOND
from tests.known_server import GOOD
from tests.lanes import drive, known_server, plan
from tests.secure import Papers, make_papers, page, read_request, scripted, secure, server_context


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return make_papers(tmp_path_factory.mktemp("papers"))


@pytest.mark.parametrize("cert", ["server", "elsewhere", "expired"])
def test_a_certificate_that_cannot_be_verified_fails_the_request(papers: Papers, cert: str) -> None:
    tls = Tls(ca=papers.other_ca) if cert == "server" else papers.tls
    with known_server(cert=getattr(papers, cert)) as server:
        found = drive(secure(plan(server.port, rate=40, seconds=0.5), tls))
        unverified = drive(secure(plan(server.port, rate=40, seconds=0.5), Tls(verify=False)))
    found.check()
    assert found.failed == {"tls_certificate": 20}
    assert unverified.failed == {}
    assert unverified.sum("done") == server.counts["got"] == 20


def test_a_client_certificate_is_shown_to_those_who_ask(papers: Papers) -> None:
    context = server_context(papers.server, papers.ca)

    def play(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as stream:
            while True:
                read_request(stream)
                stream.sendall(GOOD)

    with scripted(play) as port:
        wanted = plan(port, rate=40, seconds=0.25)
        both = drive(secure(wanted, Tls(papers.ca, cert=papers.client)))
        apart = drive(secure(wanted, Tls(papers.ca, cert=papers.bare, key=papers.key)))
        none = drive(secure(wanted, papers.tls))
        stranger = drive(secure(wanted, Tls(papers.ca, cert=papers.stranger)))
    assert (both.sum("done"), apart.sum("done")) == (10, 10)
    for found in (none, stranger):
        found.check()
        assert found.failed == {"tls_refused": 10}


def test_a_refusal_is_found_behind_a_reset(papers: Papers) -> None:
    """A connection is reset amid a request, and why lies unread before that."""
    context = server_context(papers.server, papers.ca)
    over = threading.Event()

    def play(sock: socket.socket) -> None:
        try:
            context.wrap_socket(sock, server_side=True)
        finally:
            over.set()

    def insist(channel: Channel) -> None:
        for _ in range(100):
            channel.send(bytes(1000))
            time.sleep(0.01)

    with scripted(play) as port, contextlib.closing(_socket.socket()) as sock:
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        shared = Shared(Endpoint(host="127.0.0.1", port=port, protocol="http", tls=papers.tls))
        channel = Channel(sock, shared)
        while not channel.shake():
            select.select([sock.fileno()], [], [])
        channel.send(bytes(1000))  # the last of the handshake goes out with it
        assert over.wait(10)
        with pytest.raises(ConnectionError):
            insist(channel)
    assert channel.failure == "tls_refused"


def test_a_server_that_asks_only_after_the_request(papers: Papers) -> None:
    """It wants our certificate once it knows what for: what OpenSSL then says of its own must get
    out though the lane just waits for its answer."""
    context = server_context(papers.server)
    context.post_handshake_auth = True
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(papers.ca)
    shown = []

    def play(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as stream:
            read_request(stream)
            stream.verify_client_post_handshake()
            stream.do_handshake()  # now it asks
            stream.settimeout(0.5)
            with contextlib.suppress(TimeoutError):  # takes in what TLS says; nothing else comes
                stream.recv(1)
            shown.append(stream.getpeercert())
            stream.sendall(GOOD)

    with scripted(play) as port:
        wanted = plan(port, arrivals="closed", concurrency=1, seconds=0.1)
        found = drive(secure(wanted, Tls(papers.ca, cert=papers.client)))
    assert found.sum("done") == 1
    assert shown
    assert shown[0]


@pytest.mark.skipif(not shutil.which("openssl"), reason="it renegotiates on command")
@pytest.mark.parametrize(("version", "command"), [("-tls1_2", b"R\n"), ("-tls1_3", b"K\n")])
def test_keys_that_change_amid_a_connection(papers: Papers, version: str, command: bytes) -> None:
    """Before each answer: a handshake anew in TLS 1.2, new keys for both sides in TLS 1.3."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    files = ["-cert", papers.server, "-key", papers.server]
    server = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", version, *files]
    with subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        while b"ACCEPT" not in stdout.readline():
            pass

        def answer() -> None:
            for line in stdout:
                if line == b"\r\n":  # the end of a request
                    for text in (command, GOOD):
                        stdin.write(text)
                        stdin.flush()
                        time.sleep(0.05)  # it takes a command only by itself

        answering = threading.Thread(target=answer)
        answering.start()
        try:
            found = drive(page(port, papers.tls, arrivals="closed", concurrency=1, seconds=0.5))
        finally:
            process.kill()
            answering.join()
    found.check()
    assert found.failed == {}
    assert found.sum("done") > 2


def hang_up(sock: socket.socket) -> None:
    sock.recv(1)


def speak_plainly(sock: socket.socket) -> None:
    sock.recv(4096)
    sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def leave_early(sock: socket.socket) -> None:
    """Closes the connection amid its own part of the handshake."""
    sock.recv(4096)
    sock.sendall(b"\x16\x03\x03\x01\x00only the beginning")


@pytest.mark.parametrize("play", [speak_plainly, leave_early])
def test_a_handshake_that_comes_to_nothing_is_named(
    papers: Papers, play: Callable[[socket.socket], None]
) -> None:
    with scripted(play) as port:
        found = drive(page(port, papers.tls))
    found.check()
    assert found.failed == {"tls_handshake": 5}


def test_a_handshake_that_is_reset(papers: Papers) -> None:
    with scripted(hang_up) as port:  # what it has not read resets the connection
        found = drive(page(port, papers.tls))
    found.check()
    assert found.failed == {"reset": 5}


def test_a_handshake_takes_part_in_latency_and_costs_nothing_while_it_waits(
    papers: Papers,
) -> None:
    context = server_context(papers.server)

    def play(sock: socket.socket) -> None:
        time.sleep(0.3)
        with context.wrap_socket(sock, server_side=True) as stream:
            while True:
                read_request(stream)
                stream.sendall(GOOD)

    with scripted(play) as port:
        wanted = page(port, papers.tls, arrivals="closed", concurrency=1, seconds=0.4)
        found = drive(wanted)
    found.check()
    assert found.failed == {}
    slowest = max(sample.done - sample.due for w in found.windows for sample in w.slowest)
    assert slowest > 300 * MS


def test_a_loop_that_awaits_handshakes_rests(papers: Papers) -> None:
    """Sockets that are ready to be written to must not keep it awake."""
    with scripted(lambda _: time.sleep(1.5)) as port:
        wanted = page(port, papers.tls, arrivals="closed", concurrency=4, seconds=1)
        found = drive(msgspec.structs.replace(wanted, timeout_ns=SECOND))
    assert found.failed.get("connect_timeout") == 4
    assert found.finished.cpu_ns < SECOND // 5


def test_sessions_are_resumed(papers: Papers) -> None:
    with known_server(cert=papers.server, misbehave="last") as server:
        wanted = plan(server.port, arrivals="closed", concurrency=1, seconds=0.5)
        found = drive(secure(wanted, papers.tls))
    found.check()
    assert found.failed == {}
    assert server.counts["connections"] > 20
    assert server.counts["resumed"] > server.counts["connections"] / 2  # once there is a ticket


def test_a_name_is_sent_along(papers: Papers) -> None:
    """Servers of several names choose their certificate by it (SNI); HTTP/1.1 is agreed on."""
    context = server_context(papers.server)
    context.set_alpn_protocols(["h2", "http/1.1"])
    names: list[str | None] = []
    context.sni_callback = lambda _tls, name, _context: names.append(name)
    agreed = threading.Event()

    def play(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as stream:
            if stream.selected_alpn_protocol() == "http/1.1":
                agreed.set()
            read_request(stream)
            stream.sendall(GOOD)

    with scripted(play) as port:
        drive(secure(plan(port, rate=20, seconds=0.1), papers.tls, host="localhost"))
    assert set(names) == {"localhost"}
    assert agreed.is_set()
