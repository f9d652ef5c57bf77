"""Whose machine a target is, as far as that can be known without asking anybody."""

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


@pytest.mark.parametrize(
    "host",
    ["models.example", f"not-{socket.gethostname()}", "198.51.100.7", "[2001:db8::7]"],
)
def test_others_may_be_somebody_elses(host: str) -> None:
    assert elsewhere(f"http://{host}:8000")


def test_where_any_address_may_be_taken_none_is_known_by_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket.socket, "bind", lambda *_: None)
    assert elsewhere("http://198.51.100.7:8000")
    assert not elsewhere("http://127.0.0.1:8000")
