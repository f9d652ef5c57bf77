"""Requests per second of the lane over https from one core, beside wrk over https.

    python -m tests.benchmarks.lane_tls [--rounds 5] [--seconds 5] [--connections 16 64]

Both send the same request to the same C server (fast_server.c with OpenSSL, compiled here; needs
libssl-dev and trustme): a tiny JSON one, then 150 kB of binary tensor. TLS 1.3 with the cipher that
all of them prefer; the lane verifies the server's certificate, wrk never does. Server on core 0,
client on core 1, rounds interleaved; a row counts only while the server's core was under 90 % busy.
`lane, http` is the same lane without TLS, for what TLS costs.
"""

import argparse
import re
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import trustme

from loadbench.plan import Endpoint, Plan, RequestPlan, Tls
from loadbench.shape import Phase
from loadbench.units import SECOND
from tests.benchmarks.rig import Server, compiled, endpoint, one_request, pinned, run_lane, url


class Row(NamedTuple):
    """What one client reached in one round."""

    rate: float
    per_cpu_second: float
    server_busy: float


class Servers(NamedTuple):
    """The same server with and without TLS, and the CA of the former."""

    tls: Server
    plain: Server
    ca: str


@contextmanager
def servers() -> Iterator[Servers]:
    ca = trustme.CA()
    with (
        tempfile.TemporaryDirectory() as folder,
        compiled("fast_server", "-DTLS", "-lssl", "-lcrypto") as secure,
        compiled("fast_server") as plain,
    ):
        cert, trusted = Path(folder) / "server.pem", Path(folder) / "ca.pem"
        cert.write_bytes(ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes())
        trusted.write_bytes(ca.cert_pem.bytes())
        found = Servers(Server(secure, str(cert)), Server(plain), str(trusted))
        try:
            yield found
        finally:
            found.tls.close()
            found.plain.close()


def lane(found: Endpoint, connections: int, seconds: int) -> tuple[float, float]:
    """(requests per second, CPU seconds per second)"""
    plan = Plan(
        endpoint=found,
        requests=(RequestPlan("infer"),),
        arrivals="closed",
        phases=(Phase(0, 0, seconds * SECOND),),
        concurrency=connections,
        warmup_ns=SECOND,
    )
    windows, last = run_lane(plan)
    assert not any(window.failed for window in windows)
    done = sum(window.done for window in windows if window.stage == "load")
    return done / seconds, last.cpu_ns / SECOND / (seconds + 1)


def wrk(found: Endpoint, connections: int, seconds: int) -> tuple[float, float]:
    fields, body = one_request(found)
    with tempfile.TemporaryDirectory() as folder:
        data, script = Path(folder) / "body", Path(folder) / "post.lua"
        data.write_bytes(body)
        headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in fields.items())
        script.write_text(
            f'wrk.method = "POST"\nwrk.body = io.open("{data}", "rb"):read("*a")\n{headers}'
        )
        arguments = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "-s", str(script)]
        out, cpu = pinned([*arguments, url(found).replace("http", "https", 1)])
    assert "Non-2xx" not in out, out
    assert "Socket errors" not in out, out
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", out)
    assert rate, out
    return float(rate[1]), cpu / seconds


def measure(found: Servers, name: str, image: bool, connections: int, seconds: int) -> Row:
    server = found.plain if name == "lane, http" else found.tls
    where = endpoint(server.port, image)
    cpu = server.cpu()
    if name == "wrk":
        rate, client = wrk(where, connections, seconds)
    else:
        tls = Tls(ca=found.ca) if server is found.tls else None
        where = msgspec.structs.replace(where, tls=tls)
        rate, client = lane(where, connections, seconds)
    busy = (server.cpu() - cpu) / (seconds + (name != "wrk"))  # the lane warms up for a second
    return Row(rate, rate / client, busy)


def compare(found: Servers, image: bool, connections: int, given: argparse.Namespace) -> None:
    names = ("lane", "wrk", "lane, http")
    rows: dict[str, list[Row]] = {name: [] for name in names}
    for number in range(given.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            rows[name].append(measure(found, name, image, connections, given.seconds))
    size = "150 kB" if image else "tiny"
    print(f"{size}, {connections} connections, {given.rounds} interleaved rounds")
    base = statistics.median(row.rate for row in rows["wrk"])
    per_cpu = statistics.median(row.per_cpu_second for row in rows["wrk"])
    for name, mine in rows.items():
        rates = sorted(row.rate for row in mine)
        own = statistics.median(row.per_cpu_second for row in mine)
        busy = max(row.server_busy for row in mine)
        print(
            f"  {name:12}{statistics.median(rates):>10,.0f}/s  ({rates[0]:,.0f}–{rates[-1]:,.0f})"
            f"  {statistics.median(rates) / base:5.2f} × wrk"
            f"  {own:>10,.0f} per CPU s  {own / per_cpu:5.2f} × wrk"
            f"  server {busy:.0%} busy{'' if busy < 0.9 else ': does not count'}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[16, 64])
    given = parser.parse_args()
    with servers() as found:
        for connections in given.connections:
            compare(found, False, connections, given)
        compare(found, True, 16, given)


if __name__ == "__main__":
    main()
