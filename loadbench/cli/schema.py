"""`loadbench schema KIND`: the JSON schema of what loadbench writes and reads."""

import json

import click

from loadbench.cli.say import give
from loadbench.report.schema import KINDS, schema


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
def command(kind: str) -> None:
    """The JSON schema of KIND: what --json prints of a run (summary), of repeats (series), of a
    comparison (of more than two: matrix), an ab, a find or a history; a verdict (--json-file); a
    scenario; or run.json (run)."""
    give(json.dumps(schema(kind), indent=2, ensure_ascii=False))
