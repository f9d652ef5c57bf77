"""The gRPC front: grpcio as its client, over real sockets; wire forms that clients may choose."""

import asyncio
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from loadbench.engine.http import IN_FLIGHT, Limits
from loadbench.engine.rpc import messages
from loadbench.engine.rpc.messages import HEALTH, INFERENCE, message
from loadbench.engine.rpc.server import start
from loadbench.engine.rpc.wire import MOST_FIELDS, Question, Translator, take_apart
from loadbench.engine.tensors import Refused
from tests.rpc_client import WAIT_S, Client, outputs, request, serving_rpc
from tests.served import Engine, rows, settings
from tests.test_serve_http import Nobody

Code = grpc.StatusCode
Served = tuple[Engine, Client]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving_rpc(*settings("fake.a=1 ms", "max_batch=8")) as found:
        yield found


@pytest.fixture
def client(served: Served) -> Client:
    return served[1]


# ---- calls


def test_health_and_metadata_are_what_http_tells(served: Served) -> None:
    engine, client = served
    assert client.ask("ServerLive").live
    assert client.ask("ServerReady").ready
    assert client.ask("ModelReady", name="fake", version="1").ready
    assert not client.ask("ModelReady", name="nothing").ready
    server = client.ask("ServerMetadata")
    assert list(server.extensions) == engine.call("/v2").json["extensions"]
    told = engine.call("/v2/models/fake").json
    found = client.ask("ModelMetadata", name="fake")
    assert (found.name, list(found.versions), found.platform) == ("fake", ["1"], "fake")
    assert [list(each.shape) for each in found.inputs] == [told["inputs"][0]["shape"]]
    config = client.ask("ModelConfig", name="fake").config
    assert config.max_batch_size == 8
    assert config.input[0].data_type == 11  # TYPE_FP32
    assert list(config.input[0].dims) == [16]
    assert config.HasField("dynamic_batching")
    assert not config.model_transaction_policy.decoupled
    index = client.ask("RepositoryIndex", ready=True).models
    assert [(each.name, each.state) for each in index] == [("fake", "READY")]


def test_statistics_are_the_same_over_both_fronts(served: Served) -> None:
    engine, client = served
    client.call("ModelInfer")(request(rows(3)), timeout=WAIT_S)
    (found,) = client.ask("ModelStatistics", name="fake", version="1").model_stats
    told = engine.stats()
    assert found.inference_count == told["inference_count"] >= 3
    assert found.inference_stats.success.ns == told["inference_stats"]["success"]["ns"] > 0
    assert [each.batch_size for each in found.batch_stats] == [
        each["batch_size"] for each in told["batch_stats"]
    ]
    assert client.ask("ModelStatistics").model_stats[0].name == "fake"


def test_models_are_unloaded_and_loaded() -> None:
    with serving_rpc(*settings("fake.a=0 ms", "max_batch=8")) as (engine, client):
        client.ask("RepositoryModelUnload", model_name="fake")
        assert not client.ask("ModelReady", name="fake").ready
        with pytest.raises(grpc.RpcError) as caught:
            client.call("ModelInfer")(request(rows(1)), timeout=WAIT_S)
        assert caught.value.code() in (Code.NOT_FOUND, Code.UNAVAILABLE)
        load = message("inference.RepositoryModelLoadRequest")(model_name="fake")
        load.parameters["config"].string_param = '{"max_batch_size": 4}'
        client.call("RepositoryModelLoad")(load, timeout=WAIT_S)
        assert client.ask("ModelConfig", name="fake").config.max_batch_size == 4
        found = client.call("ModelInfer")(request(rows(2)), timeout=WAIT_S)
        assert outputs(found).tobytes() == rows(2).tobytes()
        refused = client.refused("RepositoryModelLoad", model_name="nothing")
        assert refused.code() in (Code.NOT_FOUND, Code.INVALID_ARGUMENT)
        assert "nothing" in refused.details()
        assert engine.call("/v2/models/fake/ready").status == 200


def test_settings_are_told_and_cannot_be_changed(client: Client) -> None:
    trace = client.ask("TraceSetting").settings
    assert list(trace["trace_level"].value) == ["OFF"]
    assert client.ask("LogSettings").settings["log_info"].bool_param
    wish = message("inference.TraceSettingRequest")()
    wish.settings["trace_level"].value.append("TIMESTAMPS")
    with pytest.raises(grpc.RpcError) as caught:
        client.call("TraceSetting")(wish, timeout=WAIT_S)
    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert "trace_level" in caught.value.details()


def test_grpc_health(client: Client) -> None:
    ask = client.channel.unary_unary(
        f"/{HEALTH}/Check",
        request_serializer=message("grpc.health.v1.HealthCheckRequest").SerializeToString,
        response_deserializer=message("grpc.health.v1.HealthCheckResponse").FromString,
    )
    for service in ("", INFERENCE):
        asked = message("grpc.health.v1.HealthCheckRequest")(service=service)
        assert ask(asked, timeout=WAIT_S).status == 1
    with pytest.raises(grpc.RpcError) as caught:
        ask(message("grpc.health.v1.HealthCheckRequest")(service="no.such"), timeout=WAIT_S)
    assert caught.value.code() is Code.NOT_FOUND


# ---- infer


def test_each_request_gets_its_own_rows_and_its_own_id(client: Client) -> None:
    infer = client.call("ModelInfer")

    def ask(number: int) -> None:
        x = rows(1 + number % 3, number)
        found = infer(request(x, id=f"r{number}" if number % 2 else ""), timeout=WAIT_S)
        assert outputs(found).tobytes() == x.tobytes()
        assert found.id == (f"r{number}" if number % 2 else "")
        assert (found.model_name, found.model_version) == ("fake", "1")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(200)))


def test_numbers_may_be_typed(client: Client) -> None:
    asked = message("inference.ModelInferRequest")(model_name="fake", model_version="1")
    tensor = asked.inputs.add(name="x", datatype="FP32", shape=[2, 16])
    tensor.contents.fp32_contents.extend(rows(2).ravel().tolist())
    found = client.call("ModelInfer")(asked, timeout=WAIT_S)
    assert outputs(found).tobytes() == rows(2).tobytes()
    asked.raw_input_contents.append(rows(2).tobytes())
    with pytest.raises(grpc.RpcError, match="beside raw_input_contents"):
        client.call("ModelInfer")(asked, timeout=WAIT_S)


def test_a_request_of_many_batches_is_answered_whole(client: Client) -> None:
    found = client.call("ModelInfer")(request(rows(30)), timeout=WAIT_S)
    assert outputs(found).tobytes() == rows(30).tobytes()


WRONG: dict[str, tuple[Any, Any, str]] = {
    "model": (request(rows(1)).__class__(model_name="nothing"), Code.NOT_FOUND, "nothing"),
    "version": (request(rows(1), model_version="9"), Code.NOT_FOUND, "9"),
    "rows": (request(rows(129)), Code.INVALID_ARGUMENT, "128"),
    "bytes": (request(rows(1)[:, :8]), Code.INVALID_ARGUMENT, "shape"),
    "no input": (message("inference.ModelInferRequest")(model_name="fake"),
                 Code.INVALID_ARGUMENT, "missing input 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_with_the_right_code(client: Client, name: str) -> None:
    asked, code, said = WRONG[name]
    with pytest.raises(grpc.RpcError) as caught:
        client.call("ModelInfer")(asked, timeout=WAIT_S)
    assert caught.value.code() is code
    assert said in caught.value.details()


def test_an_error_is_short_whatever_was_asked(client: Client) -> None:
    long = request(rows(1))
    long.inputs[0].shape[:] = [1] * 10_000
    with pytest.raises(grpc.RpcError) as caught:
        client.call("ModelInfer")(long, timeout=WAIT_S)
    assert caught.value.code() is Code.INVALID_ARGUMENT
    assert "has shape [1, 1" in caught.value.details()


def test_more_or_fewer_tensors_than_inputs_are_refused(client: Client) -> None:
    asked = request(rows(1))
    asked.raw_input_contents.append(b"1234")
    with pytest.raises(grpc.RpcError, match="raw_input_contents") as caught:
        client.call("ModelInfer")(asked, timeout=WAIT_S)
    assert caught.value.code() is Code.INVALID_ARGUMENT
    short = request(rows(1))
    short.raw_input_contents[0] = b"1234"
    with pytest.raises(grpc.RpcError, match="has 4 bytes"):
        client.call("ModelInfer")(short, timeout=WAIT_S)


def test_bytes_that_are_no_message_are_refused_and_hurt_nobody(client: Client) -> None:
    raw = client.channel.unary_unary(f"/{INFERENCE}/ModelInfer")
    random = np.random.default_rng(3)
    good = request(rows(1)).SerializeToString()
    for number in range(200):
        broken = bytearray(good)
        broken[random.integers(len(good))] = random.integers(256)
        cut = bytes(broken[: len(good) - int(random.integers(2)) * int(random.integers(len(good)))])
        try:
            raw(cut if number % 2 else random.bytes(40), timeout=WAIT_S)
        except grpc.RpcError as error:
            assert error.code() in (Code.INVALID_ARGUMENT, Code.NOT_FOUND), error  # noqa: PT017
    assert outputs(client.call("ModelInfer")(request(rows(1)), timeout=WAIT_S)).shape == (1, 16)


def test_a_message_that_is_too_large_is_refused(client: Client) -> None:
    asked = request(rows(1))
    asked.raw_input_contents[0] = bytes(Limits().body + (2 << 20))
    with pytest.raises(grpc.RpcError) as caught:
        client.call("ModelInfer")(asked, timeout=WAIT_S)
    assert caught.value.code() is Code.RESOURCE_EXHAUSTED


def test_a_message_that_unpacks_to_too_much_is_refused(client: Client) -> None:
    asked = request(rows(1))
    asked.raw_input_contents[0] = bytes(Limits().body + (2 << 20))
    with pytest.raises(grpc.RpcError) as caught:
        client.call("ModelInfer")(asked, timeout=WAIT_S, compression=grpc.Compression.Gzip)
    assert caught.value.code() is Code.RESOURCE_EXHAUSTED


# ---- streams


def test_a_stream_answers_each_request_in_order_and_an_error_ends_only_its_own(
    client: Client,
) -> None:
    def asked() -> Iterator[Any]:
        for number in range(2 * IN_FLIGHT):
            yield request(rows(1, number), id=str(number))
        wrong = request(rows(1), id="wrong")
        wrong.model_name = "nothing"
        yield wrong
        yield request(rows(1, 7), id="last")

    found = list(client.call("ModelStreamInfer")(asked(), timeout=WAIT_S))
    assert [each.infer_response.id for each in found] == [
        *map(str, range(2 * IN_FLIGHT)), "wrong", "last",
    ]  # fmt: skip
    for number, each in enumerate(found[: 2 * IN_FLIGHT]):
        assert outputs(each.infer_response).tobytes() == rows(1, number).tobytes()
    assert "nothing" in found[-2].error_message
    assert not found[-1].error_message


def test_an_id_that_is_no_text_is_refused_and_ends_only_its_own_request(client: Client) -> None:
    good, bad = (request(rows(1), id="é").SerializeToString() for _ in range(2))
    bad = bad.replace("é".encode(), b"\xff\xfe")
    raw = client.channel.unary_unary(f"/{INFERENCE}/ModelInfer")
    with pytest.raises(grpc.RpcError, match="id is no UTF-8") as caught:
        raw(bad, timeout=WAIT_S)
    assert caught.value.code() is Code.INVALID_ARGUMENT
    read = message("inference.ModelStreamInferResponse").FromString
    stream = client.channel.stream_stream(
        f"/{INFERENCE}/ModelStreamInfer", response_deserializer=read
    )
    found = list(stream(iter([good, bad, good]), timeout=WAIT_S))
    assert [each.infer_response.id for each in found] == ["é", "", "é"]
    assert [each.error_message for each in found] == [
        "", "the request's id is no UTF-8: invalid start byte", "",
    ]  # fmt: skip


# ---- load, time, end


def test_a_full_queue_a_deadline_and_a_client_that_goes() -> None:
    with serving_rpc(*settings("fake.a=200 ms", "max_batch=1", "queue=2")) as (engine, client):
        infer = client.call("ModelInfer")
        running = infer.future(request(rows(1)), timeout=WAIT_S)
        until(engine, open_=1, waiting=0)
        waits = infer.future(request(rows(1)), timeout=WAIT_S)
        hopeless = infer.future(request(rows(1)), timeout=WAIT_S)
        until(engine, open_=3, waiting=2)
        with pytest.raises(grpc.RpcError) as caught:
            infer(request(rows(1)), timeout=WAIT_S)
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        assert "queue full" in caught.value.details()
        assert "grpc-retry-pushback-ms" in dict(caught.value.trailing_metadata())
        hopeless.cancel()  # and its place is free
        until(engine, open_=2, waiting=1)
        late = request(rows(1))
        late.parameters["timeout"].int64_param = 150_000  # µs; two batches of 200 ms come first
        with pytest.raises(grpc.RpcError) as caught:
            infer(late, timeout=WAIT_S)
        assert caught.value.code() is Code.DEADLINE_EXCEEDED
        assert "given up before it ran" in caught.value.details()
        assert running.result() is not None
        assert waits.result() is not None
        assert engine.stats()["loadbench"]["shed"]["cancelled"] == 1


@pytest.mark.parametrize("canary", [False, True])
def test_a_client_that_goes_just_after_its_answer_wastes_nothing(canary: bool) -> None:
    """Its answer is made, and takes a while to be sent."""
    with serving_rpc(*settings("fake.a=0 ms", "fake.slow_body=400 ms")) as (engine, client):
        if canary:
            asked = {"parameters": {"version": "2", "canary": 1.0}}
            assert engine.call("/v2/repository/models/fake/load", asked).status == 200
        call = client.call("ModelInfer").future(request(rows(1)), timeout=WAIT_S)
        end = time.monotonic() + WAIT_S
        while not any(found["inference_count"] for found in versions(engine)):
            assert time.monotonic() < end
            time.sleep(0.005)
        call.cancel()
        time.sleep(0.2)
        assert not any(found["loadbench"].get("wasted_rows") for found in versions(engine))
        assert engine.stop() == 0
        assert engine.process.stderr is not None
        assert "Error" not in engine.process.stderr.read()


def versions(engine: Engine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = engine.call("/v2/models/fake/stats").json["model_stats"]
    return found


def test_the_calls_own_deadline_is_the_requests() -> None:
    """A batch takes 0.4 s: what is to end within 0.3 s is given up at once, where a client would
    only stop to wait."""
    with serving_rpc(*settings("fake.a=400 ms", "max_batch=1")) as (engine, client):
        infer = client.call("ModelInfer")
        assert infer(request(rows(1)), timeout=WAIT_S) is not None
        with pytest.raises(grpc.RpcError) as caught:
            infer(request(rows(1)), timeout=0.3)
        assert caught.value.code() is Code.DEADLINE_EXCEEDED
        assert "given up before it ran" in caught.value.details()
        assert engine.stats()["inference_count"] == 1


def until(engine: Engine, open_: int, waiting: int) -> None:
    """Waits for so many requests in the engine."""
    end = time.monotonic() + WAIT_S
    while True:
        told = engine.call("/health").json
        if (told["open"], told["waiting"]) == (open_, waiting):
            return
        assert time.monotonic() < end, told
        time.sleep(0.005)


def test_a_stop_finishes_what_was_taken_and_refuses_the_rest() -> None:
    with serving_rpc(*settings("fake.a=250 ms", "max_batch=1")) as (engine, client):
        watch = client.channel.unary_stream(
            f"/{HEALTH}/Watch",
            request_serializer=message("grpc.health.v1.HealthCheckRequest").SerializeToString,
            response_deserializer=message("grpc.health.v1.HealthCheckResponse").FromString,
        )(message("grpc.health.v1.HealthCheckRequest")(), timeout=WAIT_S)
        assert next(watch).status == 1
        infer = client.call("ModelInfer")
        taken = [infer.future(request(rows(1, n)), timeout=WAIT_S) for n in range(3)]
        until(engine, open_=3, waiting=2)
        ended = threading.Thread(target=engine.stop)
        ended.start()
        assert next(watch).status == 2  # told before the process ends
        refused = client.refused("ModelInfer", model_name="fake")
        assert refused.code() in (Code.UNAVAILABLE, Code.INVALID_ARGUMENT)
        for number, each in enumerate(taken):
            assert outputs(each.result()).tobytes() == rows(1, number).tobytes()
        ended.join(WAIT_S)
        assert engine.process.returncode == 0


def test_a_grpc_port_in_use_is_said_before_the_model_is_loaded(served: Served) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "loadbench", "serve", "fake", "--port", "0"]
        done = subprocess.run(
            [*command, "--grpc-port", port], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 3
    assert port in done.stderr
    assert "--grpc-port" in done.stderr


# ---- the wire


@pytest.mark.parametrize("field", [b"\x3a\x00", b"\x2a\x00", b"\x3a\x80\x00", b"\xba\x80\x00\x00"])
def test_a_message_of_nothing_but_empty_fields_is_refused(field: bytes) -> None:
    """Two bytes of a message become an object of a hundred: 64 MiB of them would fill a machine."""
    with pytest.raises(Refused, match="fields"):
        take_apart(b"\x0a\x04fake" + field * (MOST_FIELDS + 1))


def test_requests_are_taken_apart_as_protobuf_does() -> None:
    asked = request(rows(40), id="x" * 300, model_version="1")
    asked.parameters["timeout"].int64_param = 5
    asked.outputs.add(name="y")
    parts = take_apart(asked.SerializeToString())
    assert (parts.model, parts.version, parts.id) == (b"fake", b"1", b"x" * 300)
    assert [bytes(raw) for raw in parts.raw] == list(asked.raw_input_contents)
    other = take_apart(request(rows(40), id="y", model_version="1").SerializeToString())
    assert other.header != parts.header
    asked.id = "z"
    assert take_apart(asked.SerializeToString()).header == parts.header
    # An unknown field that is no string of bytes: protobuf itself has to read it
    assert take_apart(asked.SerializeToString() + b"\xa8\x06\x01").raw == parts.raw
    with pytest.raises(Refused, match="not a ModelInferRequest"):
        take_apart(asked.SerializeToString()[:-1])


@pytest.mark.parametrize(
    ("datatype", "field", "values", "raw"),
    [
        ("BOOL", "bool_contents", [True, False], b"\1\0"),
        ("INT8", "int_contents", [-1, 127], b"\xff\x7f"),
        ("UINT16", "uint_contents", [1, 65_535], b"\1\0\xff\xff"),
        ("INT64", "int64_contents", [-1, 0], b"\xff" * 8 + bytes(8)),
        ("UINT64", "uint64_contents", [(1 << 64) - 1, 0], b"\xff" * 8 + bytes(8)),
        ("FP64", "fp64_contents", [1.0, 0.0], b"\0\0\0\0\0\0\xf0?" + bytes(8)),
        ("BYTES", "bytes_contents", [b"ab", b""], b"\2\0\0\0ab\0\0\0\0"),
    ],
)
def test_typed_contents_have_the_raw_form(
    datatype: str, field: str, values: list[Any], raw: bytes
) -> None:
    assert [bytes(each) for each in typed(datatype, field, values).raw] == [raw]


@pytest.mark.parametrize(
    ("datatype", "field", "values", "said"),
    [
        ("INT8", "int_contents", [128], "does not fit"),
        ("UINT8", "uint_contents", [256], "does not fit"),
        ("FP16", "fp32_contents", [1.0], "raw_input_contents"),
        ("FP7", "fp32_contents", [1.0], "no type"),
    ],
)
def test_typed_contents_that_have_none_are_refused(
    datatype: str, field: str, values: list[Any], said: str
) -> None:
    with pytest.raises(Refused, match=said):
        typed(datatype, field, values)


def typed(datatype: str, field: str, values: list[Any]) -> Question:
    asked = message("inference.ModelInferRequest")(model_name="m")
    tensor = asked.inputs.add(name="x", datatype=datatype, shape=[len(values)])
    getattr(tensor.contents, field).extend(values)
    return Translator().question(take_apart(asked.SerializeToString()))


def test_the_descriptors_are_those_of_the_proto_files() -> None:
    """Every message, field and number of the text is in what was made of it, and no other."""
    folder = Path(messages.__file__).parent
    text = re.sub(r"//.*", "", "".join(path.read_text() for path in folder.glob("*.proto")))
    said = set(re.findall(r"(\w+) = (\d+);", text))
    known: set[tuple[str, str]] = set()

    def collect(kind: Any) -> None:
        known.update((field.name, str(field.number)) for field in kind.fields)
        for enum in kind.enum_types:
            known.update((value.name, str(value.number)) for value in enum.values)
        for nested in kind.nested_types:
            if not nested.GetOptions().map_entry:
                collect(nested)

    names = re.findall(r"^message (\w+)", text, re.M)
    packages = {name: "grpc.health.v1" if name.startswith("Health") else "inference"
                for name in names}  # fmt: skip
    for name in names:
        collect(message(f"{packages[name]}.{name}").DESCRIPTOR)
    types = message("inference.ModelInput").DESCRIPTOR.fields_by_name["data_type"].enum_type
    known.update((value.name, str(value.number)) for value in types.values)
    assert said == known
    calls = {method.name for service in (INFERENCE, HEALTH) for method in messages.methods(service)}
    assert set(re.findall(r"rpc (\w+)\(", text)) == calls


def test_connections_are_bounded() -> None:
    async def opened() -> list[bytes]:
        rpc = await start("127.0.0.1:0", Nobody(), Limits(), most=2)
        found = [await asyncio.open_connection("127.0.0.1", rpc.port) for _ in range(3)]
        try:
            return [await asyncio.wait_for(reader.read(1), WAIT_S) for reader, _ in found]
        finally:
            for _, writer in found:
                writer.close()
            await rpc.stop(0)

    *taken, refused = asyncio.run(opened())
    assert (taken, refused) == ([b"\0", b"\0"], b"")  # a frame of settings, or the end
