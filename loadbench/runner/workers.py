"""Which load processes a run is to have, from what was asked for on the command line."""

from urllib.parse import urlsplit

from loadbench.errors import SpecError
from loadbench.model import Note
from loadbench.plan import PORT, Workers, place
from loadbench.spec import Spec
from loadbench.units import leads_here, loopback


def chosen(here: int, elsewhere: int, bind: str | None, wait_ns: int, spec: Spec) -> Workers | None:
    """None: one process, which does it all. Raises SpecError for what does not go together."""
    url = spec.target.url
    if spec.load.arrivals == "journey" and (here or elsewhere or bind):
        raise SpecError(
            "a Locust file runs in one load process: its users cannot be dealt out",
            "leave out --workers, --expect-workers and --master-bind",
        )
    if bind is None:
        if elsewhere:
            raise SpecError(
                "--expect-workers needs an address that they can reach",
                "give one of this host: --master-bind 10.0.0.7",
            )
        return Workers(here=here, wait_ns=wait_ns) if here else None
    host, port = place(bind)
    if not loopback(host) and local(url):
        raise SpecError(
            f"workers on other hosts cannot reach {url}: it listens on this host alone",
            "start it with `loadbench serve MODEL --host ADDRESS` and give --target http://ADDRESS",
        )
    if not here:
        elsewhere = max(1, elsewhere)  # somebody has to offer the load
    return Workers(here, elsewhere, host, PORT if port is None else port, wait_ns)


def local(url: str) -> bool:
    return url.startswith("local:") or leads_here(urlsplit(url).hostname or "")


def notes(workers: Workers | None) -> tuple[Note, ...]:
    """What is to be said of a run with workers."""
    if workers is None or loopback(workers.host):
        return ()
    text = f"the link to the workers ({workers.host}) has no encryption and no password"
    return (Note("open-link", text, "use it only in a network whose hosts you trust"),)
