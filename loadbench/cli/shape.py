"""`loadbench shape SCENARIO`: the load drawn in the terminal before anything runs."""

import shutil

import click

from loadbench import spec, units
from loadbench.cli.say import give
from loadbench.overrides import parse_settings
from loadbench.plan import kinds
from loadbench.report.requests import requests_text
from loadbench.report.shape import shape_text


@click.command()
@click.argument("scenario")
@click.option("--rate", metavar="RATE", help='Same rate throughout, like 300 or "80 %".')
@click.option("--duration", metavar="TIME", help='Length of the recorded load, like "30s".')
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Any scenario key.")
@click.option("--capacity", metavar="RATE", help="What 100 % is; else rates in % are drawn in %.")
@click.option("--width", type=click.IntRange(20, 1000), help="Columns; default: the terminal's.")
@click.option("--height", type=click.IntRange(2, 200), default=12, help="Rows of the chart.")
def command(
    scenario: str,
    rate: str | None,
    duration: str | None,
    settings: tuple[str, ...],
    capacity: str | None,
    width: int | None,
    height: int,
) -> None:
    """Draws when SCENARIO would send requests; nothing is run."""
    found = spec.load(scenario, parse_settings(settings), rate=rate, duration=duration)
    full = units.parse_rate(capacity) if capacity else None
    wide = width or min(shutil.get_terminal_size().columns, 120)
    give(f"{found.name}: {found.spec.title}" if found.spec.title else found.name)
    give("")
    give(shape_text(found.spec.load, full, wide, height))
    drawn = requests_text(kinds(found.spec), found.spec.load.seed)
    if drawn:
        give(f"\n{drawn}")
