"""What a host that may be somebody else's gets at most, until somebody says that it may be more."""

import socket
from urllib.parse import urlsplit

from loadbench.units import address_of, leads_here

USUAL_MOST = 1000.0  # requests/s of a load that is paced
# Connections of a closed loop, users, requests of one burst. None of them has a rate: they ask as
# fast as they are answered, so that ten are thousands per second of a server that is quick.
UNPACED_MOST = 10
OWN = "--set target.owned=true says that you may: the host is yours, or its owner agrees"


def elsewhere(url: str) -> bool:
    """Whether it may be a machine of somebody else."""
    host = urlsplit(url).hostname
    return bool(host) and not url.startswith("local:") and not _here(host or "")


def _here(host: str) -> bool:
    """Whether this machine calls itself so, or has that address. No name is looked up."""
    if leads_here(host) or host.removesuffix(".") == socket.gethostname().lower():
        return True
    address = address_of(host)
    if address is None:
        return False
    version = address.version
    host = str(address) if version == 4 else host  # of one wire only it has that in its name
    # where the system is set to give any address to anybody, that it gives this one tells nothing
    return _given(host, version) and not _given(_NOBODYS[version], version)


_NOBODYS = {4: "192.0.2.1", 6: "2001:db8::1"}  # in nobody's use: for documentation


def _given(address: str, version: int) -> bool:
    """Whether this machine gives the address to who would listen at it."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.bind((address, 0))
    except OSError:
        return False
    return True
