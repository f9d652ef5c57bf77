"""The lane's gRPC beside perf_analyzer's, from one core each; a table for the README.

    python -m tests.benchmarks.lane_grpc [--rounds 5] [--seconds 4] [--connections 16 64]

Both call ModelInfer of the same C server (fast_grpc.c on nghttp2, compiled here; needs
libnghttp2-dev) with the same tiny tensors, in a closed loop. The server has core 0, the client core
1, rounds are interleaved; rates are by the server's own count, and a row counts only while the
server's core was under 90 % busy.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from loadbench.model import Tensor
from loadbench.plan import Endpoint
from loadbench.targets.messages import message
from tests.benchmarks.clients import PERF_ANALYZER, Job, lane
from tests.benchmarks.lane import Row, of_client, table
from tests.benchmarks.rig import PEERS, Popen, Server, compiled, running

INPUT, OUTPUT = Tensor("x", "FP32", (4,)), Tensor("y", "FP32", (3,))
COUNT = "count"


class RpcServer(Server):
    """The C server with its folder of answers."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._count = folder / COUNT
        self._count.write_bytes(bytes(8))
        for name, said in answers().items():
            (folder / name).write_bytes(said.SerializeToString())
        super().__init__(binary, str(folder))

    def answered(self) -> int:
        return int.from_bytes(self._count.read_bytes(), sys.byteorder)


def answers() -> dict[str, object]:
    """What perf_analyzer asks before it begins, and the answer to each request."""
    infer = message("inference.ModelInferResponse")(model_name="m", model_version="1")
    infer.outputs.add(name=OUTPUT.name, datatype=OUTPUT.datatype, shape=[1, *OUTPUT.shape])
    infer.raw_output_contents.append(bytes(4 * OUTPUT.shape[0]))
    model = message("inference.ModelMetadataResponse")(name="m", versions=["1"], platform="c")
    config = message("inference.ModelConfigResponse")()
    config.config.name, config.config.platform, config.config.max_batch_size = "m", "c", 8
    for tensor, told, typed in (
        (INPUT, model.inputs, config.config.input), (OUTPUT, model.outputs, config.config.output),
    ):  # fmt: skip
        told.add(name=tensor.name, datatype=tensor.datatype, shape=[-1, *tensor.shape])
        typed.add(name=tensor.name, data_type="TYPE_FP32", dims=tensor.shape)
    return {
        "ModelInfer": infer,
        "ModelMetadata": model,
        "ModelConfig": config,
        "ModelReady": message("inference.ModelReadyResponse")(ready=True),
        "ServerLive": message("inference.ServerLiveResponse")(live=True),
        "ServerReady": message("inference.ServerReadyResponse")(ready=True),
        "ServerMetadata": message("inference.ServerMetadataResponse")(name="fast", version="1"),
    }


class Calls(Job):
    """A job whose requests are calls."""

    def __init__(self, port: int, connections: int, folder: Path) -> None:
        self.endpoint = Endpoint(
            host="127.0.0.1", port=port, protocol="grpc", model="m", inputs=(INPUT,),
            outputs=(OUTPUT,),
        )  # fmt: skip
        self.connections = connections
        self.folder = folder
        self.url = f"grpc://127.0.0.1:{port}"


@contextmanager
def perf_analyzer(job: Job, *options: str) -> Iterator[Popen]:
    """Ended when it has been measured."""
    command = [str(PERF_ANALYZER), "-i", "grpc", "-m", "m", "-u", job.url.split("/")[2], *options]
    command += ["--concurrency-range", str(job.connections), "--request-count", "100000000"]
    with running(command, {**os.environ, "LD_LIBRARY_PATH": str(PEERS / "lib")}) as process:
        yield process


CLIENTS: dict[str, Callable[[Job], AbstractContextManager[Popen]]] = {
    "lane": lane,
    "perf_analyzer": perf_analyzer,
    "perf_analyzer, asynchronous": lambda job: perf_analyzer(job, "--async"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, nargs="+", default=[16, 64])
    given = parser.parse_args()
    names = list(CLIENTS) if PERF_ANALYZER.exists() else ["lane"]
    with compiled("fast_grpc", "-lnghttp2") as binary, tempfile.TemporaryDirectory() as folder:
        found = RpcServer(binary, Path(folder))
        try:
            for connections in given.connections:
                rows: dict[str, list[Row]] = {name: [] for name in names}
                for turn in range(given.rounds):
                    for name in names if turn % 2 == 0 else reversed(names):
                        with tempfile.TemporaryDirectory() as own:
                            job = Calls(found.port, connections, Path(own))
                            row = of_client(found, CLIENTS[name](job), given.seconds)
                        rows[name].append(row)
                        print(f"{connections} {name}: {row}", file=sys.stderr)
                table(rows, connections)
        finally:
            found.close()


if __name__ == "__main__":
    main()
