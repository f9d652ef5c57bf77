"""TensorFlow Serving: recognised, described, asked by rows and by columns, its answers held to what
its signature promises."""

import json
import math
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from msgspec.structs import replace

from loadbench import runlog
from loadbench.errors import SpecError, TargetError
from loadbench.model import Tensor, Window
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets import inputs, tensorflow
from loadbench.targets.ask import Asker
from loadbench.targets.speech import speech
from loadbench.targets.wire import BadAnswer, Prepared
from loadbench.targetspec import TargetSpec
from tests.running import summary
from tests.tfserving import tensorflow_serving


def described(url: str, model: str, **more: Any) -> Endpoint:
    with Asker(url) as asker:
        return asker.describe(TargetSpec(url=url, model=model, **more))


def first(endpoint: Endpoint, **more: Any) -> Prepared:
    ((found, *_),), _ = inputs.prepare(endpoint, [RequestPlan("a", **more)], seed=1)
    return found


def body(request: Prepared) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.data.partition(b"\r\n\r\n")[2])
    return found


def test_it_is_recognised_and_says_what_its_model_takes() -> None:
    with tensorflow_serving() as server:
        with Asker(server.url) as asker:
            found = asker.describe(TargetSpec(url=server.url, model="two"))
            assert "TensorFlow Serving" in asker.known_by
        flat = described(server.url, "flat")
    assert (found.protocol, found.batched, found.model) == ("tensorflow", True, "two")
    assert found.inputs == (Tensor("text", "BYTES", ()), Tensor("x", "FP32", (3,)))
    assert found.outputs == (Tensor("n", "INT64", ()), Tensor("y", "FP32", (3,)))
    assert not flat.batched
    assert flat.inputs == (Tensor("x", "FP32", (2, 2)),)


def test_what_cannot_be_found_out_is_said() -> None:
    with tensorflow_serving() as server:
        with pytest.raises(SpecError, match="is TensorFlow Serving, which does not tell"):
            described(server.url, "")
        with pytest.raises(SpecError, match="Could not find any versions"):
            described(server.url, "none")
        with pytest.raises(SpecError, match="no signature 'long'") as caught:
            described(server.url, "two", signature="long")
    assert "serving_default, short" in caught.value.hint
    loading = {"/v1/models/halves": json.dumps({"model_version_status": [{"state": "LOADING"}]})}
    odd = {"/v1/models/halves/metadata": '{"metadata": 3}'}
    for answers in (loading, odd):
        with tensorflow_serving(answers) as server, pytest.raises(TargetError):
            described(server.url, "halves")


def test_the_path_of_a_model_in_its_address_is_refused() -> None:
    """That it would be asked at its own is luck: the URL may name one, `target.model` another."""
    with tensorflow_serving() as server:
        assert described(f"{server.url}/v1", "halves").model == "halves"
        with pytest.raises(SpecError, match=f"no use: {server.url} is asked at /v1$"):
            described(f"{server.url}/v1/models/two:predict", "halves")


@pytest.mark.parametrize("layout", ["rows", "columns"])
@pytest.mark.parametrize(("model", "rows"), [("halves", 1), ("halves", 4), ("two", 3), ("flat", 1)])
def test_its_answers_are_good_and_read(layout: str, model: str, rows: int) -> None:
    with tensorflow_serving() as server:
        endpoint = described(server.url, model, layout=layout)
        request = first(endpoint, rows=rows)
        with Asker(server.url) as asker:
            answer = asker.exchange(request)
    assert answer.status == 200, answer.body
    request.check(answer.headers, answer.body)
    by_rows = layout == "rows" and model != "flat"
    assert ("instances" in body(request)) is by_rows
    found = speech(endpoint).read(answer.headers, answer.body)
    assert set(found) == {tensor.name for tensor in endpoint.outputs}
    shape = (2, 2) if model == "flat" else (rows, 3)
    assert found["y"].shape == shape
    asked = body(request)["instances" if by_rows else "inputs"]
    if model != "two":
        given = np.array(asked if by_rows else asked["x"], np.float32)
        np.testing.assert_allclose(found["y"], given / 2 + 3, rtol=1e-6)


def test_another_signature_is_asked_by_its_name() -> None:
    with tensorflow_serving() as server:
        endpoint = described(server.url, "two", signature="short")
        assert body(first(endpoint))["signature_name"] == "short"
        assert "signature_name" not in body(first(described(server.url, "two")))


ONE = Endpoint(
    host="h", port=1, protocol="tensorflow", model="m", outputs=(Tensor("y", "FP32", (2,)),),
    signature=tensorflow.USUAL,
)  # fmt: skip
TWO = replace(ONE, outputs=(Tensor("n", "INT64", ()), Tensor("s", "BYTES", ())))


@pytest.mark.parametrize(
    ("endpoint", "text", "words"),
    [
        (ONE, "{}", "not a prediction by rows"),
        (ONE, "[1]", "not a prediction"),
        (ONE, '{"outputs": [[1, 2]]}', "not a prediction by rows"),
        (ONE, '{"predictions": [[1, 2]', "not JSON"),
        (ONE, "[" * 100_000, "not JSON"),
        (ONE, "\xff", "not JSON"),
        (ONE, '{"predictions": [[1, 2]]}', r"shape \[1, 2\] instead of \[2, 2\]"),
        (ONE, '{"predictions": [[1, 2], [1]]}', "different lengths"),
        (ONE, '{"predictions": [[1, 2], [1, "2"]]}', "no FP32"),
        (ONE, '{"predictions": [[1, 2], [1, true]]}', "no FP32"),
        (ONE, '{"predictions": 3}', r"shape \[\]"),
        (TWO, '{"predictions": [1, 2]}', "are no objects"),
        (TWO, '{"predictions": [{"n": 1, "s": "a"}, {"n": 1}]}', "differ in their outputs"),
        (TWO, '{"predictions": [{"n": 1}, {"n": 1}]}', "outputs n instead of n, s"),
        (TWO, '{"predictions": [{"n": 1.5, "s": "a"}, {"n": 1, "s": "b"}]}', "no INT64"),
    ],
)
def test_what_is_no_answer_is_told(endpoint: Endpoint, text: str, words: str) -> None:
    check = tensorflow.checker(endpoint, rows=2)
    with pytest.raises(BadAnswer, match=words):
        check({}, text.encode("latin-1"))


def test_its_own_words_are_understood() -> None:
    """NaN and infinities, which JSON has not; bytes."""
    good = b'{\n    "predictions": [[NaN, 1.0], [-Infinity, 2]\n    ]\n}'
    tensorflow.checker(ONE, 2)({}, good)
    found = tensorflow.read(ONE, good)["y"]
    assert math.isnan(found[0, 0])
    assert found[1, 0] == -math.inf
    told = b'{"predictions": [{"n": 1, "s": {"b64": "YQ=="}}, {"n": 2, "s": "b"}]}'
    tensorflow.checker(TWO, 2)({}, told)
    assert tensorflow.read(TWO, told)["s"].tolist() == [b"a", b"b"]


RECORDED = json.loads((Path(__file__).parent / "data" / "tensorflow" / "rest.json").read_text())


@pytest.mark.parametrize("exchange", RECORDED, ids=lambda exchange: exchange["asked"])
def test_the_server_of_these_tests_says_what_the_real_one_says(exchange: dict[str, Any]) -> None:
    """What is recorded is in TensorFlow Serving's documentation (api_rest.md), of its own model."""
    method, path = exchange["asked"].split()
    with tensorflow_serving() as server:
        answer = httpx.request(method, server.url + path, json=exchange.get("body"))
    assert (answer.status_code, answer.json()) == (exchange["status"], exchange["answer"])


def test_what_the_real_one_says_is_understood() -> None:
    status, predicted, missing = RECORDED
    model = "saved_model_half_plus_three"
    with tensorflow_serving({status["asked"].split()[1]: json.dumps(status["answer"])}) as server:
        endpoint = described(server.url, model)
    assert endpoint.inputs == (Tensor("x", "FP32", ()),)
    said = json.dumps(predicted["answer"]).encode()
    tensorflow.checker(endpoint, rows=3)({}, said)
    assert tensorflow.read(endpoint, said)["y"].tolist() == predicted["answer"]["predictions"]
    with pytest.raises(BadAnswer, match=r"no prediction|not a prediction"):
        tensorflow.checker(endpoint, rows=2)({}, json.dumps(missing["answer"]).encode())


@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_a_run_and_what_the_server_counts(tmp_path: Path, layout: str) -> None:
    """Requests that it answered are those that the log has, and its page tells of them."""
    path = tmp_path / "own.toml"
    with tensorflow_serving() as server:
        path.write_text(
            f'[target]\nurl = "{server.url}"\nmodel = "halves"\nlayout = "{layout}"\n'
            '[load]\narrivals = "constant"\nwarmup = "1s"\nphases = [{ rate = 50, for = "2s" }]\n'
        )
        found = summary(path, cwd=tmp_path)
        answered = server.answered
    assert found["failed"] == {}
    assert found["done"] == found["asked"] == 100
    (run,) = runlog.runs(tmp_path / "results")
    windows = [one for one in runlog.read(run) if isinstance(one, Window)]
    assert answered == sum(one.sent + one.tail_sent for one in windows)
    assert found["server"]["requests"] == pytest.approx(100, abs=10)  # it is asked once a second
    assert found["server"]["source"] == "metrics of TensorFlow Serving"
