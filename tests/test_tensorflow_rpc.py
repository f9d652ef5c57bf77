"""TensorFlow Serving over gRPC: recognised, described, asked, its answers held to its signature."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadbench import runlog
from loadbench.errors import SpecError
from loadbench.model import Tensor, Window
from loadbench.plan import Endpoint, RequestPlan
from loadbench.targets import inputs, messages, predict
from loadbench.targets.ask import Asker
from loadbench.targets.messages import message
from loadbench.targets.speech import speech
from loadbench.targets.wire import BadAnswer, Prepared
from loadbench.targetspec import TargetSpec
from tests.rpc_client import serving_rpc
from tests.running import loadbench, summary
from tests.served import settings
from tests.tfserving_rpc import Serving, tensorflow_serving_rpc


def described(server: Serving, model: str, **more: Any) -> Endpoint:
    with Asker(server.url) as asker:
        return asker.describe(TargetSpec(url=server.url, model=model, **more))


def first(endpoint: Endpoint, **more: Any) -> Prepared:
    ((found, *_),), _ = inputs.prepare(endpoint, [RequestPlan("a", **more)], seed=1)
    return found


def test_it_is_recognised_and_says_what_its_model_takes() -> None:
    with tensorflow_serving_rpc() as server:
        with Asker(server.url) as asker:
            found = asker.describe(TargetSpec(url=server.url, model="two"))
            assert "TensorFlow Serving" in asker.known_by
        flat = described(server, "flat")
    assert (found.protocol, found.batched, found.model) == ("predict", True, "two")
    assert found.inputs == (Tensor("text", "BYTES", ()), Tensor("x", "FP32", (3,)))
    assert found.outputs == (Tensor("n", "INT64", ()), Tensor("y", "FP32", (3,)))
    assert not flat.batched
    assert flat.inputs == (Tensor("x", "FP32", (2, 2)),)


def test_one_that_speaks_kserve_is_still_told_from_it() -> None:
    with serving_rpc(*settings("fake.a=1 ms")) as (_, client):
        port = int(client.channel._channel.target().decode().rpartition(":")[2])
        with Asker(f"grpc://127.0.0.1:{port}") as asker:
            found = asker.describe(TargetSpec(url=asker.url))
        assert found.protocol == "grpc"
        assert "KServe" in asker.known_by


def test_streams_are_not_of_it() -> None:
    with (
        tensorflow_serving_rpc() as server,
        pytest.raises(SpecError, match=r"target\.stream is of KServe v2"),
    ):
        described(server, "two", stream=True)


def test_what_cannot_be_found_out_is_said() -> None:
    with tensorflow_serving_rpc() as server:
        with pytest.raises(SpecError, match="is TensorFlow Serving, which does not tell"):
            described(server, "")
        with pytest.raises(SpecError, match="Could not find any versions"):
            described(server, "none")
        with pytest.raises(SpecError, match="no signature 'long'"):
            described(server, "two", signature="long")


@pytest.mark.parametrize(("model", "rows"), [("halves", 1), ("halves", 4), ("two", 3), ("flat", 1)])
def test_its_answers_are_good_and_read(model: str, rows: int) -> None:
    with tensorflow_serving_rpc() as server:
        endpoint = described(server, model)
        request = first(endpoint, rows=rows)
        with Asker(server.url) as asker:
            answer = asker.exchange(request)
        (asked,) = server.asked
    assert answer.status == 200, answer.body
    request.check(answer.headers, answer.body)
    found = speech(endpoint).read(answer.headers, answer.body)
    assert set(found) == {tensor.name for tensor in endpoint.outputs}
    given = np.frombuffer(asked.inputs["x"].tensor_content, np.float32)
    assert found["y"].shape == ((2, 2) if model == "flat" else (rows, 3))
    np.testing.assert_allclose(found["y"].ravel(), given / 2 + 3, rtol=1e-6)
    assert asked.model_spec.signature_name == "serving_default"


def shaped(tensor: Any, *sizes: int) -> None:
    del tensor.tensor_shape.dim[:]
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)


def other_name(answer: Any) -> None:
    answer.outputs["z"].CopyFrom(answer.outputs["y"])


def other_type(answer: Any) -> None:
    answer.outputs["y"].dtype = 2


def other_shape(answer: Any) -> None:
    shaped(answer.outputs["y"], 2, 3)


def too_short(answer: Any) -> None:
    answer.outputs["y"].tensor_content = b"1234"


def no_values(answer: Any) -> None:
    answer.outputs["y"].ClearField("tensor_content")


def too_many(answer: Any) -> None:
    answer.outputs["y"].ClearField("tensor_content")
    answer.outputs["y"].float_val.extend([1.0] * 4)


def no_shape(answer: Any) -> None:
    shaped(answer.outputs["y"], 1, -3)


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [
        (other_name, "outputs y, z instead of y"),
        (other_type, "y is FP64 instead of FP32"),
        (other_shape, r"shape \[2, 3\] instead of \[1, 3\]"),
        (too_short, "4 bytes do not hold 3 FP32"),
        (no_values, "0 values instead of 3"),
        (too_many, "4 values instead of 3"),
        (no_shape, r"shape \[1, -3\]"),
    ],
)
def test_what_is_no_answer_is_told(spoiled: Any, words: str) -> None:
    with tensorflow_serving_rpc() as server:
        request = first(described(server, "halves"))
        server.spoiled = spoiled
        with Asker(server.url) as asker:
            answer = asker.exchange(request)
    with pytest.raises(BadAnswer, match=words):
        request.check(answer.headers, answer.body)
    with pytest.raises(BadAnswer, match="not a PredictResponse"):
        request.check(answer.headers, b"\x0a\xff")


def test_values_that_are_all_the_same_at_the_end_may_be_left_out() -> None:
    answer = message("tensorflow.serving.PredictResponse")()
    tensor = answer.outputs["y"]
    tensor.dtype = 1
    shaped(tensor, 2, 3)
    tensor.float_val.extend([1.0, 2.0])
    where = Endpoint("h", 1, "predict", outputs=(Tensor("y", "FP32", (3,)),))
    body = answer.SerializeToString()
    predict.checker(where, 2)({}, body)
    assert predict.read({}, body)["y"].tolist() == [[1, 2, 2], [2, 2, 2]]


def test_a_whole_run_is_counted_alike_on_both_sides(tmp_path: Path) -> None:
    with tensorflow_serving_rpc() as server:
        path = tmp_path / "own.toml"
        load = 'arrivals = "constant"\nphases = [{ rate = 60, for = "2s" }]'
        path.write_text(f'[target]\nurl = "{server.url}"\nmodel = "two"\n[load]\n{load}\n')
        found = summary(path, cwd=tmp_path)
        assert found["failed"] == {}
        assert found["done"] == 120
        log = runlog.read(runlog.find("last", tmp_path / "results"))
        windows = [one for one in log if isinstance(one, Window)]
        assert len(server.asked) == sum(one.sent + one.tail_sent for one in windows)
        dry = loadbench("run", path, "--dry-run", cwd=tmp_path)
        assert "Predict two" in dry.stdout
        assert "y FP32 [1, 3]" in dry.stdout


def test_the_descriptors_are_those_of_the_proto_files() -> None:
    """Every message, field and number of the text is in what was made of it, and no other."""
    folder = Path(messages.__file__).parent / "protos"
    known: set[tuple[str, str]] = set()

    def collect(kind: Any) -> None:
        known.update((field.name, str(field.number)) for field in kind.fields)
        for enum in kind.enum_types:
            known.update((value.name, str(value.number)) for value in enum.values)
        for nested in kind.nested_types:
            if not nested.GetOptions().map_entry:
                collect(nested)

    said: set[tuple[str, str]] = set()
    for path in folder.glob("*.proto"):
        text = re.sub(r"//.*", "", path.read_text())
        said |= set(re.findall(r"(\w+) = (\d+);", text))
        package = re.findall(r"^package ([\w.]+);", text, re.M)[0]
        for name in re.findall(r"^message (\w+)", text, re.M):
            collect(message(f"{package}.{name}").DESCRIPTOR)
    types = message("tensorflow.TensorProto").DESCRIPTOR.fields_by_name["dtype"].enum_type
    known.update((value.name, str(value.number)) for value in types.values)
    assert said == known
