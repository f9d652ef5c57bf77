"""tritonclient[grpc] against `loadbench serve`: its public calls, and answers equal to the model's.

What HTTP gives is the measure for gRPC: test_tritonclient.py holds it to the real Triton. The MLP's
answers are held to torch, run eagerly in loadbench's environment on the same weights.
"""

import json
import queue
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import tritonclient.http
from numpy.typing import NDArray
from servers import LOADBENCH, Server, serve
from tritonclient.grpc import (
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
    InferResult,
)
from tritonclient.utils import InferenceServerException, shared_memory, triton_to_np_dtype

_EAGER = """
import json, sys
import numpy as np
from loadbench.engine.models import open_model
from loadbench.spec import EngineSpec
x = np.array(json.load(sys.stdin), np.float32)
model = open_model(sys.argv[1], EngineSpec(precision="fp32", threads=1))
(out,) = model.outputs
print(json.dumps(model.run({model.inputs[0].name: x})[out.name].tolist()))
"""


class Served(NamedTuple):
    name: str
    server: Server
    client: InferenceServerClient


@pytest.fixture(scope="module", params=["fake", "mlp"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    name: str = request.param
    settings = ("--set", 'engine.precision="fp32"') if name == "mlp" else ()
    shared = ("--shared-memory", "--shared-memory-prefix", "/peers-")
    folder = tmp_path_factory.mktemp(name)
    with serve(folder, name, "--grpc-port", "0", *shared, *settings) as server:
        client = InferenceServerClient(f"127.0.0.1:{server.grpc_port}")
        yield Served(name, server, client)
        client.close()


def rows_for(served: Served, rows: int, seed: int = 5) -> NDArray[Any]:
    """Numbers for the model's one input, seeded."""
    (tensor,) = served.client.get_model_metadata(served.name).inputs
    random = np.random.default_rng(seed)
    drawn: NDArray[Any] = random.random((rows, *tensor.shape[1:]))
    return drawn.astype(triton_to_np_dtype(tensor.datatype))


def names_of(served: Served) -> tuple[str, str]:
    """Of the input and of the output."""
    found = served.client.get_model_metadata(served.name)
    return found.inputs[0].name, found.outputs[0].name


def given(served: Served, array: NDArray[Any]) -> InferInput:
    tensor = InferInput(names_of(served)[0], list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return tensor


def infer(served: Served, array: NDArray[Any], **options: Any) -> InferResult:
    return served.client.infer(served.name, [given(served, array)], **options)


def over_http(served: Served, array: NDArray[Any]) -> NDArray[Any]:
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{served.server.port}")
    name, output = names_of(served)
    tensor = tritonclient.http.InferInput(name, list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    found: NDArray[Any] = client.infer(served.name, [tensor]).as_numpy(output)
    client.close()
    return found


def test_every_answer_is_the_eager_models(served: Served) -> None:
    x = rows_for(served, 8)
    if served.name == "fake":
        expected = x  # it gives back what it gets
    else:
        python = str(LOADBENCH.resolve().parent / "python")
        ended = subprocess.run(
            [python, "-c", _EAGER, served.name],
            input=json.dumps(x.tolist()), capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        expected = np.array(json.loads(ended.stdout), np.float32)
    output = names_of(served)[1]
    np.testing.assert_allclose(infer(served, x).as_numpy(output), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(over_http(served, x), expected, rtol=1e-4, atol=1e-5)
    for row in range(8):
        found = infer(served, x[row : row + 1]).as_numpy(output)
        np.testing.assert_allclose(found, expected[row : row + 1], rtol=1e-4, atol=1e-5)


def test_health_metadata_and_config_are_what_http_tells(served: Served) -> None:
    client, name = served.client, served.name
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(name)
    assert client.is_model_ready(name, "1")
    assert not client.is_model_ready("nothing")
    web = tritonclient.http.InferenceServerClient(f"127.0.0.1:{served.server.port}")
    assert client.get_server_metadata(as_json=True) == web.get_server_metadata()
    ours, theirs = client.get_model_metadata(name), web.get_model_metadata(name)
    assert [list(each.shape) for each in ours.inputs] == [
        each["shape"] for each in theirs["inputs"]
    ]
    config = client.get_model_config(name, as_json=True)["config"]
    assert config["max_batch_size"] == web.get_model_config(name)["max_batch_size"]
    assert config["input"][0]["data_type"] == "TYPE_FP32"
    assert "dynamic_batching" in config
    web.close()


def test_statistics_count_what_was_asked(served: Served) -> None:
    def read() -> Any:
        return served.client.get_inference_statistics(served.name).model_stats[0]

    before = read()
    infer(served, rows_for(served, 3))
    after = read()
    assert after.inference_count == before.inference_count + 3
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1
    assert len(served.client.get_inference_statistics().model_stats) == 1


def test_repository_trace_and_log_settings(served: Served) -> None:
    client, name = served.client, served.name
    (entry,) = client.get_model_repository_index().models
    assert (entry.name, entry.state) == (name, "READY")
    assert list(client.get_trace_settings(name).settings["trace_level"].value) == ["OFF"]
    assert client.get_log_settings().settings["log_error"].bool_param
    client.unload_model(name)
    assert not client.is_model_ready(name)
    client.load_model(name)
    assert client.is_model_ready(name)
    x = rows_for(served, 2)
    np.testing.assert_array_equal(infer(served, x).as_numpy(names_of(served)[1]).shape[:1], [2])


def test_asynchronous_and_streamed_requests_get_their_own_answers(served: Served) -> None:
    output = names_of(served)[1]
    client = served.client
    arrays = {str(n): rows_for(served, 1 + n % 3, seed=n) for n in range(40)}
    expected = {number: over_http(served, array) for number, array in arrays.items()}
    found: queue.Queue[Any] = queue.Queue()

    def keep(result: InferResult | None, error: InferenceServerException | None) -> None:
        found.put((result, error))

    def check(result: InferResult | None, error: InferenceServerException | None) -> str:
        assert error is None, error
        assert result is not None
        number: str = result.get_response().id
        np.testing.assert_allclose(result.as_numpy(output), expected[number], rtol=1e-4, atol=1e-5)
        return number

    for number, array in arrays.items():
        client.async_infer(served.name, [given(served, array)], keep, request_id=number)
    assert {check(*found.get(timeout=30)) for _ in arrays} == set(arrays)

    client.start_stream(keep)
    for number, array in arrays.items():
        client.async_stream_infer(served.name, [given(served, array)], request_id=number)
    assert [check(*found.get(timeout=30)) for _ in arrays] == list(arrays)
    client.async_stream_infer("nothing", [given(served, rows_for(served, 1))])
    _, error = found.get(timeout=30)
    assert "nothing" in str(error)
    client.stop_stream()


def test_shared_memory_both_ways(served: Served) -> None:
    x = rows_for(served, 4)
    name, output = names_of(served)
    expected = over_http(served, x)
    client = served.client
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory()
    regions = [
        shared_memory.create_shared_memory_region(what, f"/peers-{what}", size)
        for what, size in (("given", x.nbytes), ("got", expected.nbytes))
    ]
    try:
        shared_memory.set_shared_memory_region(regions[0], [x])
        client.register_system_shared_memory("given", "/peers-given", x.nbytes)
        client.register_system_shared_memory("got", "/peers-got", expected.nbytes)
        assert set(client.get_system_shared_memory_status().regions) == {"given", "got"}
        tensor = InferInput(name, list(x.shape), "FP32")
        tensor.set_shared_memory("given", x.nbytes)
        wanted = InferRequestedOutput(output)
        wanted.set_shared_memory("got", expected.nbytes)
        client.infer(served.name, [tensor], outputs=[wanted])
        found = shared_memory.get_contents_as_numpy(regions[1], np.float32, list(expected.shape))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        with pytest.raises(InferenceServerException, match="does not begin with"):
            client.register_system_shared_memory("other", "/other", 8)
        with pytest.raises(InferenceServerException, match="not supported"):
            client.register_cuda_shared_memory("cuda", b"aGFuZGxl", 0, 8)
    finally:
        client.unregister_system_shared_memory()
        for region in regions:
            shared_memory.destroy_shared_memory_region(region)


def test_errors_have_grpcs_codes(served: Served) -> None:
    x = rows_for(served, 1)
    wrong: dict[str, tuple[Any, str]] = {
        "model": (lambda: served.client.infer("nothing", [given(served, x)]), "NOT_FOUND"),
        "shape": (lambda: infer(served, np.zeros((1, 3), np.float32)), "INVALID_ARGUMENT"),
        "output": (lambda: infer(served, x, outputs=[InferRequestedOutput("no")]),
                   "INVALID_ARGUMENT"),
        "timeout": (lambda: infer(served, x, timeout=1), "DEADLINE_EXCEEDED"),
    }  # fmt: skip
    infer(served, x)  # plans are only held to what ran lately
    for what, (call, code) in wrong.items():
        with pytest.raises(InferenceServerException) as caught:
            call()
        assert caught.value.status() == f"StatusCode.{code}", what
