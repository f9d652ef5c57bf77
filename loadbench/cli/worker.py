"""`loadbench worker`: a load process that offers its share of a run that another host makes."""

import os
import sys

import click

from loadbench.plan import PORT, place
from loadbench.units import SECOND, parse_duration


@click.command()
@click.option("--master", required=True, metavar="HOST[:PORT]", help="Where the run is made.")
@click.option(
    "--wait", default="60s", show_default=True, metavar="TIME", help="How long to look for it."
)
def command(master: str, wait: str) -> None:
    """Offer a share of the load of a run on another host, as its master says.

    There: `loadbench run SCENARIO --master-bind HOST --expect-workers N`. The link has no
    encryption and no password, and whoever is the master decides what this host sends where: use it
    in a network whose hosts you trust.

    Exit codes: 0 the run is over, 2 this host cannot take part (a file is missing, say), 3 there is
    no master (any more), 130/143 asked to leave: what was under way is finished, others take over.
    """
    host, port = place(master)
    wait_s = parse_duration(wait) / SECOND
    where = ["--host", host, "--port", str(port or PORT), "--wait", str(wait_s)]
    sys.stdout.flush()
    # in place of this process, so that signals reach it and no gevent comes in here
    os.execv(sys.executable, [sys.executable, "-m", "loadbench.load.worker", *where])
