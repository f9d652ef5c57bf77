"""`loadbench schema KIND`: the JSON schema of what loadbench writes and reads."""

import json

import click

from loadbench.report.schema import KINDS, schema


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
def command(kind: str) -> None:
    """The JSON schema of KIND: a summary, a comparison, a matrix (a comparison of more than two),
    a verdict (--json-file), a scenario, or run.json."""
    click.echo(json.dumps(schema(kind), indent=2, ensure_ascii=False))
