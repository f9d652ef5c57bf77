"""`loadbench serve`: only the engine, for other tools."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from loadbench.errors import SpecError
from loadbench.overrides import parse_settings, put

if TYPE_CHECKING:
    from loadbench.spec import EngineSpec


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8477, show_default=True, type=click.IntRange(0, 65_535), help="0: a free one."
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="A setting of the engine: engine.max_batch=8",
)  # fmt: skip
@click.option("--input", "inputs", multiple=True, metavar="NAME:DTYPE:DIMS",
              help="For files that do not say: x:FP32:-1,256")  # fmt: skip
@click.option("--output", "outputs", multiple=True, metavar="NAME:DTYPE:DIMS")
@click.option("--factory", metavar="MODULE:FUNCTION", help="Makes the model that a file's weights "
              "belong to.")  # fmt: skip
@click.option("--trust", is_flag=True, help="Run code that comes with the model's file.")
@click.option("--grpc-port", type=click.IntRange(0, 65_535),
              help="Serve gRPC too. 0: a free one.")  # fmt: skip
@click.option("--shared-memory", is_flag=True,
              help="Take and give tensors in POSIX shared memory of this machine.")  # fmt: skip
@click.option("--shared-memory-prefix", default="/loadbench", show_default=True, metavar="TEXT",
              help="What its keys must begin with.")  # fmt: skip
@click.option("--allow-loading", is_flag=True, help="Let calls load and unload models although "
              "other machines reach the engine.")  # fmt: skip
@click.option("--follow-stdin", is_flag=True, hidden=True)
@click.option("--arrivals", type=click.Path(path_type=Path, dir_okay=False), hidden=True)
def command(
    models: tuple[str, ...], host: str, port: int, trust: bool, follow_stdin: bool,
    allow_loading: bool, arrivals: Path | None, settings: tuple[str, ...],
    inputs: tuple[str, ...], outputs: tuple[str, ...], factory: str | None,
    grpc_port: int | None, shared_memory: bool, shared_memory_prefix: str,
) -> None:  # fmt: skip
    """Serve each MODEL over HTTP, and gRPC if asked to, in the KServe v2 protocol.

    MODEL is a name of the zoo (mlp, resnet-tiny, encoder), a file (.onnx, TorchScript,
    torch.export, .safetensors), fake, or a folder of models (MODEL/VERSION/model.onnx);
    NAME=MODEL gives it another name. Prints `ready URL MODEL` when all are warm. SIGTERM and
    Ctrl-C finish what is queued, for up to five seconds.
    """
    from loadbench.engine.server import Options, serve

    given = {"inputs": inputs, "outputs": outputs, "factory": factory}
    checked = engine_settings(settings, {key: value for key, value in given.items() if value})
    keys = shared_memory_prefix if shared_memory else None
    serve(Options(models, host, port, checked, trust, follow_stdin, arrivals, keys, grpc_port,
                  allow_loading))  # fmt: skip


def engine_settings(pairs: tuple[str, ...], given: dict[str, object]) -> "EngineSpec":
    """The settings of `--set` and of options of their own. Raises SpecError."""
    from loadbench import spec

    raw: dict[str, object] = {"load": {"phases": [{"rate": 0, "for": "1s"}]}}  # a scenario has one
    for key, value in parse_settings(pairs).items():
        if not key.startswith("engine."):
            raise SpecError(f"--set {key}: serve has settings of the engine only",
                            "--set engine.max_batch=8")  # fmt: skip
        put(raw, key, value)
    for key, value in given.items():
        put(raw, f"engine.{key}", value)
    return spec.check(raw, "--set").engine
