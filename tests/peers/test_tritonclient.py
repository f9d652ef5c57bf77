"""tritonclient[http] against `loadbench serve`: what its users call, answered as Triton answers.

The same tests run against the real Triton (`matmul`), so what they ask for is what that does.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from servers import Server, serve, triton
from tritonclient.http import (
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
    InferResult,
)
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

SERVERS = {"fake": "loadbench", "mlp": "loadbench", "matmul": "triton"}


@pytest.fixture(scope="module", params=SERVERS)
def model(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def served(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp(model)
    started = triton(folder) if SERVERS[model] == "triton" else serve(folder, model)
    with started as server:
        yield server


@pytest.fixture
def client(served: Server) -> Iterator[InferenceServerClient]:
    found = InferenceServerClient(f"127.0.0.1:{served.port}", concurrency=4)
    yield found
    found.close()


def rows_for(client: InferenceServerClient, model: str, rows: int) -> dict[str, NDArray[Any]]:
    """Numbers for each input of the model, seeded."""
    random = np.random.default_rng(5)
    found = {}
    for tensor in client.get_model_metadata(model)["inputs"]:
        shape = (rows, *tensor["shape"][1:])
        found[tensor["name"]] = random.random(shape).astype(triton_to_np_dtype(tensor["datatype"]))
    return found


def infer(
    client: InferenceServerClient,
    model: str,
    arrays: dict[str, NDArray[Any]],
    *,
    binary: bool = True,
    **options: Any,
) -> InferResult:
    types = {each["name"]: each["datatype"] for each in client.get_model_metadata(model)["inputs"]}
    inputs = []
    for name, array in arrays.items():
        tensor = InferInput(name, list(array.shape), types.get(name, "FP32"))
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    return client.infer(model, inputs, **options)


def outputs_of(
    client: InferenceServerClient, model: str, result: InferResult
) -> dict[str, NDArray[Any]]:
    names = [each["name"] for each in client.get_model_metadata(model)["outputs"]]
    return {name: result.as_numpy(name) for name in names}


def test_health(client: InferenceServerClient, model: str) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model)
    assert not client.is_model_ready("nothing")


def test_metadata_config_and_statistics(client: InferenceServerClient, model: str) -> None:
    assert client.get_server_metadata()["name"] == SERVERS[model]
    assert "statistics" in client.get_server_metadata()["extensions"]
    metadata, config = client.get_model_metadata(model), client.get_model_config(model)
    version = metadata["versions"][0]
    assert metadata == client.get_model_metadata(model, version)
    assert metadata["name"] == config["name"] == model
    assert config["max_batch_size"] > 1
    for tensor, configured in zip(metadata["inputs"], config["input"], strict=True):
        assert tensor["name"] == configured["name"]
        assert tensor["shape"] == [-1, *configured["dims"]]
        assert "TYPE_" + tensor["datatype"] == configured["data_type"]

    before = client.get_inference_statistics(model)["model_stats"][0]
    infer(client, model, rows_for(client, model, 3))
    after = client.get_inference_statistics(model, version)["model_stats"][0]
    assert after["inference_count"] == before["inference_count"] + 3
    assert after["execution_count"] == before["execution_count"] + 1
    success = [each["inference_stats"]["success"]["count"] for each in (before, after)]
    assert success[1] == success[0] + 1
    assert model in [each["name"] for each in client.get_inference_statistics()["model_stats"]]


def test_json_and_binary_give_the_same_answer(client: InferenceServerClient, model: str) -> None:
    arrays = rows_for(client, model, 2)
    binary = outputs_of(client, model, infer(client, model, arrays, request_id="7"))
    in_json = infer(client, model, arrays, binary=False)
    names = list(binary)
    all_json = infer(
        client,
        model,
        arrays,
        binary=False,
        outputs=[InferRequestedOutput(name, binary_data=False) for name in names],
    )
    assert in_json.get_response()["model_name"] == model
    for name, expected in binary.items():
        assert expected.shape[0] == 2
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(in_json.as_numpy(name), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(all_json.as_numpy(name), expected, rtol=1e-5, atol=1e-6)
        assert "data" in all_json.get_output(name), "asked for in JSON, answered in binary"


def test_each_request_of_a_batch_gets_its_own_rows(
    client: InferenceServerClient, model: str
) -> None:
    arrays = rows_for(client, model, 8)
    together = outputs_of(client, model, infer(client, model, arrays))
    for row in range(8):
        own = {name: array[row : row + 1] for name, array in arrays.items()}
        for name, found in outputs_of(client, model, infer(client, model, own)).items():
            np.testing.assert_allclose(found, together[name][row : row + 1], rtol=2e-2, atol=2e-2)


def test_the_id_comes_back(client: InferenceServerClient, model: str) -> None:
    result = infer(client, model, rows_for(client, model, 1), request_id="order-7")
    assert result.get_response()["id"] == "order-7"


def test_only_the_outputs_asked_for_are_answered(client: InferenceServerClient, model: str) -> None:
    names = [each["name"] for each in client.get_model_metadata(model)["outputs"]]
    for name in names:
        asked = [InferRequestedOutput(name)]
        result = infer(client, model, rows_for(client, model, 1), outputs=asked)
        assert [each["name"] for each in result.get_response()["outputs"]] == [name]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_compression_both_ways(
    client: InferenceServerClient, model: str, algorithm: str, binary: bool
) -> None:
    """A server may answer plainly all the same, as loadbench does where an answer is small."""
    arrays = rows_for(client, model, 2)
    plain = outputs_of(client, model, infer(client, model, arrays))
    packed = infer(
        client,
        model,
        arrays,
        binary=binary,
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    for name, found in outputs_of(client, model, packed).items():
        np.testing.assert_allclose(found, plain[name], rtol=1e-5, atol=1e-6)


def test_wrong_input_is_told_and_not_run(client: InferenceServerClient, model: str) -> None:
    right = rows_for(client, model, 1)
    limit = client.get_model_config(model)["max_batch_size"]
    name, array = next(iter(right.items()))
    wrong = {
        "name": ({"wrong": array}, "wrong"),
        "shape": ({name: np.zeros((1, 7, 7), array.dtype)}, name),
        "datatype": ({name: array.astype(np.float64)}, name),
        "rows": (rows_for(client, model, 5000), str(limit)),
    }
    before = client.get_inference_statistics(model)["model_stats"][0]["inference_count"]
    for fault, (arrays, said) in wrong.items():
        inputs = []
        for each, data in arrays.items():
            datatype = "FP64" if data.dtype == np.float64 else "FP32"
            inputs.append(InferInput(each, list(data.shape), datatype))
            inputs[-1].set_data_from_numpy(data)
        with pytest.raises(InferenceServerException) as caught:
            client.infer(model, inputs)
        assert caught.value.status() == "400", fault
        assert said in caught.value.message(), fault
    after = client.get_inference_statistics(model)["model_stats"][0]["inference_count"]
    assert after == before


def test_unknown_names_are_told(client: InferenceServerClient, model: str) -> None:
    arrays = rows_for(client, model, 1)
    with pytest.raises(InferenceServerException, match="no-such-output"):
        infer(client, model, arrays, outputs=[InferRequestedOutput("no-such-output")])
    with pytest.raises(InferenceServerException, match="no-such-model") as caught:
        client.get_model_metadata("no-such-model")
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="99") as caught:
        client.get_model_metadata(model, "99")
    assert caught.value.status() == "404"
