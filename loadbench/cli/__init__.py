"""The command line: one module per command, imported only when that command is called."""

import importlib
import sys
from typing import Any

import click

from loadbench import __version__
from loadbench.errors import LoadbenchError
from loadbench.printable import harmless

# name → (group, one line of help). Kept here so that --help imports no command.
COMMANDS = {
    "tui": ("run", "The dashboard; with no scenario the tour."),
    "run": ("run", "One run without a screen, with checks and a summary."),
    "worker": ("run", "A load process that offers its share of a run of another host."),
    "serve": ("run", "Only the engine, for other tools: KServe v2 over HTTP."),
    "tell": ("run", "Changes, marks or stops a run that is going on."),
    "list": ("look", "The runs in results/, newest first."),
    "show": ("look", "One run's summary."),
    "history": ("look", "A metric over all runs of a scenario, and the commit that changed it."),
    "export": ("look", "A run for other tools: CSV, Parquet, HdrHistogram, Prometheus, MLflow …"),
    "schema": ("look", "The JSON schema of a summary, a comparison, a scenario …"),
    "shape": ("look", "The load of a scenario, drawn before anything runs."),
    "doctor": ("look", "Is this machine fit to measure; with a model: check and time it."),
    "optimum": ("judge", "How much of the best possible the batcher reached in a run."),
    "find": ("judge", "The highest rate at which a target holds its limit; of several settings."),
    "report": ("judge", "An HTML page about a run, or several beside each other."),
    "compare": ("judge", "Two runs side by side, and the settings that differ."),
    "ab": ("judge", "Two targets in turns in one session: is B better or worse than A?"),
    "bisect": ("judge", "The first commit that made a scenario worse, by git bisect."),
    "baseline": ("judge", "Which run others are compared with: set, show, list, forget."),
}


class _Lazy(click.Group):
    """Loads `loadbench.cli.NAME` for command NAME; its `command` is the click command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"loadbench.cli.{name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for group in dict.fromkeys(group for group, _ in COMMANDS.values()):
            with formatter.section(group.capitalize()):
                rows = [(name, text) for name, (found, text) in COMMANDS.items() if found == group]
                formatter.write_dl(rows)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="loadbench")
def cli() -> None:
    """How much load does a model serve within its latency limit, and did a change help?"""


def main(arguments: list[str] | None = None) -> None:
    """The entry point: every error that loadbench raises ends here, as text and an exit code."""
    try:
        result: Any = cli.main(arguments, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except LoadbenchError as error:
        for line in harmless(error.message).splitlines():
            click.echo(f"loadbench: {line}", err=True)
        if error.hint:
            click.echo(f"  → {harmless(error.hint)}", err=True)
        sys.exit(error.exit_code)
    sys.exit(result if isinstance(result, int) else 0)
