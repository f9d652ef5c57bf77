"""Whose machine a target is, as far as that can be known without asking anybody."""

import ipaddress
import socket

import psutil
import pytest

from loadbench.courtesy import elsewhere

FAMILIES = (socket.AF_INET, socket.AF_INET6)
ADDRESSES = [
    one.address
    for card in psutil.net_if_addrs().values()
    for one in card
    if one.family in FAMILIES and "%" not in one.address  # of one wire only: no target
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_of_this_machine_is_this_machine(address: str) -> None:
    host = f"[{address}]" if ":" in address else address
    assert not elsewhere(f"http://{host}:8000")


def test_the_name_of_this_machine_is_this_machine() -> None:
    assert not elsewhere(f"http://{socket.gethostname().upper()}:8000")


@pytest.mark.parametrize("form", ["[::ffff:{}]", "{:#x}", "{}"])
@pytest.mark.parametrize("address", [one for one in ADDRESSES if ":" not in one])
def test_so_is_it_however_its_address_is_written(address: str, form: str) -> None:
    number = int(ipaddress.IPv4Address(address))
    host = form.format(number if "x" in form or form == "{}" else address)
    assert not elsewhere(f"http://{host}:8000")


@pytest.mark.parametrize(
    "host",
    [
        "localhost.", "LOCALHOST", "127.1", "0177.0.0.1", "0", "0.0.0.0", "[::]",
        "[::ffff:7f00:1]", f"{socket.gethostname()}.",
    ],
)  # fmt: skip
def test_loopback_is_this_machine_however_it_is_written(host: str) -> None:
    assert not elsewhere(f"http://{host}:8000")


@pytest.mark.parametrize(
    "host",
    ["models.example", "127.models.example", "localhost.example", "127.0.0.1.", "a..b",
     "[fe80::1:2:3:4%nowhere]", "[::ffff:198.51.100.7]", "0xc6336407",
     f"not-{socket.gethostname()}", "198.51.100.7", "[2001:db8::7]"],
)  # fmt: skip
def test_others_may_be_somebody_elses(host: str) -> None:
    assert elsewhere(f"http://{host}:8000")


def test_where_any_address_may_be_taken_none_is_known_by_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket.socket, "bind", lambda *_: None)
    assert elsewhere("http://198.51.100.7:8000")
    assert not elsewhere("http://127.0.0.1:8000")
