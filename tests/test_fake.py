"""The known-answer engine does what its settings say: times, stalls, and what it does wrong."""

import re
import statistics
import subprocess
import time
from collections import Counter

import numpy as np
import pytest

from loadbench.engine.backends.fake import open_fake
from loadbench.engine.faults import Faults
from loadbench.spec import EngineSpec, FakeSpec
from tests.served import Answer, Engine, read_answer, request_binary, rows, serving, settings, whole


def fake(**given: object) -> EngineSpec:
    return EngineSpec.model_validate({"fake": given})


def taken_ms(spec: EngineSpec, batch: int, times: int) -> list[float]:
    model = open_fake(spec)
    found = []
    for _ in range(times):
        begun = time.monotonic_ns()
        model.run({"x": rows(batch)})
        found.append((time.monotonic_ns() - begun) / 1e6)
    return found


@pytest.mark.alone
@pytest.mark.parametrize("busy", [False, True])
def test_a_batch_takes_a_plus_c_times_its_rows(busy: bool) -> None:
    found = taken_ms(fake(a="2 ms", c="0.5 ms", busy=busy), 6, 9)
    assert min(found) >= 5.0
    assert statistics.median(found) < 6.0


def test_without_a_and_c_it_returns_at_once() -> None:
    assert min(taken_ms(fake(a="0 ms"), 32, 9)) < 0.1


@pytest.mark.parametrize(
    ("service", "cv"), [("exponential", 1.0), ("lognormal(0.5)", 0.5), ("constant", 0.0)]
)
def test_drawn_times_have_the_asked_mean_and_spread(service: str, cv: float) -> None:
    model = open_fake(fake(service=service))
    draws = np.array([model._draw(4_000_000) for _ in range(20_000)])
    assert draws.mean() == pytest.approx(4e6, rel=0.04)
    assert draws.std() / draws.mean() == pytest.approx(cv, abs=0.04)
    again = open_fake(fake(service=service))
    assert [again._draw(4_000_000) for _ in range(9)] == draws[:9].tolist()


def test_faults_come_in_the_asked_shares_and_the_same_again_from_the_same_seed() -> None:
    spec = FakeSpec.model_validate({"errors": "10 %", "wrong": "20 %", "hangups": "5 %"})
    faults, again = Faults(spec), Faults(spec)
    drawn = [faults.draw() for _ in range(10_000)]
    counts = Counter(drawn)
    for name, share in (("error", 0.1), ("shape", 0.1), ("short", 0.1), ("hangup", 0.05)):
        assert counts[name] == pytest.approx(10_000 * share, rel=0.15)  # type: ignore[index]
    assert [again.draw() for _ in range(10_000)] == drawn


def test_spoiled_answers_are_of_the_announced_kinds_and_are_counted() -> None:
    body, headers = request_binary(rows(1))
    message = whole(body, int(headers["Inference_Header_Content_Length"]))
    spec = {"errors": "20 %", "wrong": "20 %", "hangups": "10 %", "seed": 3, "a": "0 ms"}
    drawn = Faults(FakeSpec.model_validate(spec))
    expected = Counter(drawn.draw() for _ in range(300))
    pairs = [f"fake.{key}={value}" for key, value in spec.items()]
    seen: Counter[str] = Counter()
    with serving("fake", *settings(*pairs)) as engine:
        connection = engine.connect()
        stream = connection.makefile("rb")
        for _ in range(300):
            connection.sendall(message)
            try:
                seen[kind(read_answer(stream))] += 1
            except (EOFError, ConnectionError):
                seen["hangup"] += 1
                stream.close()
                connection.close()
                connection = engine.connect()
                stream = connection.makefile("rb")
        stream.close()
        connection.close()
        stats = engine.stats()
    assert seen == expected
    assert stats["inference_stats"]["success"]["count"] == expected[""]
    assert stats["inference_stats"]["fail"]["count"] == 300 - expected[""]
    assert stats["loadbench"]["failed"] == 300 - expected[""]


def kind(answer: Answer) -> str:
    if answer.status == 500:
        return "error"
    assert answer.status == 200
    output = answer.json["outputs"][0]
    if output["shape"] != [1, 16]:
        return "shape"
    if output["parameters"]["binary_data_size"] != len(answer.tail):
        return "short"
    assert answer.tail == rows(1).tobytes()
    return ""


def test_a_slow_body_comes_in_two_parts() -> None:
    body, headers = request_binary(rows(1))
    with (
        serving("fake", *settings("fake.a=0 ms", "fake.slow_body=200 ms")) as engine,
        engine.connect() as connection,
    ):
        connection.sendall(whole(body, int(headers["Inference_Header_Content_Length"])))
        first = connection.recv(65_536)
        begun = time.monotonic()
        with connection.makefile("rb") as stream:
            rest = stream.read(1)
            assert time.monotonic() - begun > 0.15
            head, _, part = first.partition(b"\r\n\r\n")
            length = re.search(rb"\nContent-Length: (\d+)\r\n", head + b"\r\n")
            assert length is not None
            left = int(length[1]) - len(part) - 1
            assert left > 0
            rest += stream.read(left)
    assert (part + rest).endswith(rows(1).tobytes())


def test_a_stall_freezes_the_whole_server_when_it_says_so() -> None:
    """Answers come at all times but in the stalls, which the engine tells on stderr."""
    answered: list[int] = []
    with serving("fake", *settings("fake.a=0 ms", "fake.stall=300 ms every 1 s")) as engine:
        stop = time.monotonic() + 3.2
        with engine.connect() as connection, connection.makefile("rb") as stream:
            while time.monotonic() < stop:
                connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                assert read_answer(stream).status == 200
                answered.append(time.monotonic_ns())
        assert engine.stop() == 0
        assert engine.process.stderr is not None
        told = re.findall(r"^stall (\d+) (\d+)$", engine.process.stderr.read(), re.MULTILINE)
    stalls = [(int(begun), int(ended)) for begun, ended in told]
    assert len(stalls) in (3, 4)
    times = np.array(answered)
    for begun, ended in stalls[:3]:
        assert ended - begun == pytest.approx(300e6, abs=30e6)
        assert not ((times > begun + 5e6) & (times < ended)).any()
    assert np.diff([begun for begun, _ in stalls[:3]]) == pytest.approx(1e9, abs=50e6)
    gaps = np.diff(times)
    assert (gaps > 200e6).sum() == len([1 for begun, _ in stalls if begun < times[-1]])


def test_the_engine_ends_with_its_stdin_even_in_a_stall() -> None:
    options = settings("fake.a=0 ms", "fake.stall=2 s every 2.1 s")
    with serving("fake", *options, "--follow-stdin", stdin=subprocess.PIPE) as engine:
        time.sleep(2.4)  # a stall lasts from 2.1 to 4.1 s after the start
        with engine.connect() as connection:
            connection.settimeout(0.3)
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(1)
        close_stdin(engine)


def test_the_engine_ends_with_its_stdin_even_in_a_batch() -> None:
    options = settings("fake.a=3 s", "max_batch=1")
    body, headers = request_binary(rows(1))
    with (
        serving("fake", *options, "--follow-stdin", stdin=subprocess.PIPE) as engine,
        engine.connect() as connection,
    ):
        connection.sendall(whole(body, int(headers["Inference_Header_Content_Length"])))
        time.sleep(0.2)
        close_stdin(engine)


def close_stdin(engine: Engine) -> None:
    """The engine must be gone within a second."""
    assert engine.process.stdin is not None
    engine.process.stdin.close()
    assert engine.process.wait(1) == 0
