"""What a host that may be somebody else's gets at most, until somebody says that it may be more."""

from urllib.parse import urlsplit

from loadbench.units import leads_here

USUAL_MOST = 1000.0  # requests/s of a load that is paced
# Connections of a closed loop, users, requests of one burst. None of them has a rate: they ask as
# fast as they are answered, so that ten are thousands per second of a server that is quick.
UNPACED_MOST = 10
OWN = "--set target.owned=true says that you may: the host is yours, or its owner agrees"


def elsewhere(url: str) -> bool:
    """Whether it may be a machine of somebody else."""
    host = urlsplit(url).hostname
    return bool(host) and not url.startswith("local:") and not leads_here(host or "")
