"""The response cache: what hits, what does not, what it holds, and that it never lies."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from loadbench.engine.cache import ENTRY_BYTES, ResponseCache
from loadbench.engine.job import Job, Served
from loadbench.engine.statistics import Account
from loadbench.engine.tensors import Refused
from loadbench.merge import servers
from loadbench.targets.between import difference
from loadbench.targets.statistics import Reading, read
from tests.served import Engine, request_binary, request_json, rows, serving, settings


class Asked:
    """A cache, and a model behind it that doubles."""

    def __init__(self, limit: int = 1 << 20, title: str = "m 1") -> None:
        self.account = Account()
        self.cache = ResponseCache(limit, title, ["x", "t"])
        self.ran = 0

    def ask(self, x: Any, text: bytes = b"", fail: bool = False) -> Served | Refused:
        answers: list[Served | Refused] = []

        def reply(result: Served | Refused) -> bool:
            answers.append(result)
            return isinstance(result, Served)

        arrays = {"t": np.array([[text]], object), "x": np.asarray(x)}
        job = Job(arrays, 1, ((1,),), reply)
        if not self.cache.answered(job, self.account):
            self.ran += 1
            whole = np.concatenate([arrays["x"].ravel() * 2, np.zeros(1000)])
            served = Served({"y": whole[: arrays["x"].size]}, 1, 2, 3, 4)
            job.reply(Refused(500, "no") if fail else served)
        (answer,) = answers
        return answer


def test_the_same_inputs_get_the_same_answer_once_computed() -> None:
    asked = Asked()
    first = asked.ask([1.5, 2.0], b"a")
    again = asked.ask([1.5, 2.0], b"a")
    assert asked.ran == 1
    assert isinstance(first, Served)
    assert isinstance(again, Served)
    assert (first.cached, again.cached) == (False, True)
    assert again.outputs["y"].tolist() == [3.0, 4.0]
    assert again.outputs["y"].base is None  # no view that keeps a whole batch
    assert (asked.account.hits, asked.account.misses) == (1, 1)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        ([1.5, 2.5], b"a"),
        ([[1.5, 2.0]], b"a"),  # of another shape
        ([1.5, 2.0], b"b"),
        ([1.5, 2.0], b"a\0"),
        ([1.5], b"a"),
    ],
)
def test_anything_else_is_computed(x: Any, text: bytes) -> None:
    asked = Asked()
    asked.ask([1.5, 2.0], b"a")
    asked.ask(x, text)
    assert asked.ran == 2


def test_another_version_has_other_keys() -> None:
    arrays = {"x": np.ones(1), "t": np.array([b""], object)}
    first, second = (Asked(title=f"m {n}").cache._key(arrays) for n in (1, 2))
    assert first != second


def test_a_fault_is_not_kept() -> None:
    asked = Asked()
    assert isinstance(asked.ask([1.0], fail=True), Refused)
    assert isinstance(asked.ask([1.0]), Served)
    assert asked.ran == 2


def test_it_holds_no_more_than_it_may_and_gives_up_what_was_used_least_recently() -> None:
    each = ENTRY_BYTES + 10 * 8
    asked = Asked(limit=3 * each)
    for number in (1, 2, 3):
        asked.ask(np.full(10, float(number)))
    asked.ask(np.full(10, 1.0))  # a hit: 2 is the oldest now
    asked.ask(np.full(10, 4.0))
    assert asked.ran == 4
    told = asked.cache.told(asked.account)
    assert (told.entries, told.held_bytes, told.limit_bytes) == (3, 3 * each, 3 * each)
    for number in (1, 3, 4):
        asked.ask(np.full(10, float(number)))
    assert asked.ran == 4
    asked.ask(np.full(10, 2.0))
    assert asked.ran == 5
    asked.ask(np.zeros(10_000))  # more than it may hold at all
    assert asked.cache.told(asked.account).entries == 3


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with serving("fake", *settings("fake.a=1 ms", 'cache="1 MB"')) as found:
        yield found


def test_a_hit_skips_the_batcher_and_says_so(engine: Engine) -> None:
    path = "/v2/models/fake/infer"
    before = engine.stats()
    body, headers = request_binary(rows(2, 7))
    first = engine.call(path, body, **headers)
    again = engine.call(path, body, **headers)
    assert "cache" not in first.headers["server-timing"]
    assert again.headers["server-timing"].startswith("cache;desc=hit, queue;dur=0.000")
    assert again.tail == first.tail == rows(2, 7).tobytes()
    json = engine.call(path, request_json(rows(2, 7), id="x"))  # in another form, with an id
    assert json.headers["server-timing"].startswith("cache;desc=hit")
    assert (json.json["id"], json.json["outputs"][0]["data"]) == ("x", rows(2, 7).ravel().tolist())
    after = engine.stats()
    done, was = after["inference_stats"], before["inference_stats"]
    counts = {name: done[name]["count"] - was[name]["count"] for name in done}
    assert counts == {
        "success": 3, "fail": 0, "queue": 3, "compute_input": 1, "compute_infer": 1,
        "compute_output": 1, "cache_hit": 2, "cache_miss": 1,
    }  # fmt: skip
    assert after["execution_count"] - before["execution_count"] == 1
    assert after["inference_count"] - before["inference_count"] == 2
    assert after["loadbench"]["cache"]["hits"] == done["cache_hit"]["count"]
    assert engine.call("/v2/models/fake/config").json["response_cache"] == {"enable": True}
    metrics = engine.call("/metrics").body.decode()
    hits = done["cache_hit"]["count"]
    assert f'nv_cache_num_hits_per_model{{model="fake",version="1"}} {hits}\n' in metrics


def test_what_was_refused_is_asked_again(engine: Engine) -> None:
    wrong = request_json(rows(1, 50)) | {"outputs": [{"name": "z"}]}
    assert engine.call("/v2/models/fake/infer", wrong).status == 400
    fine = engine.call("/v2/models/fake/infer", request_json(rows(1, 50)))
    assert "cache" not in fine.headers["server-timing"]


def test_without_the_setting_nothing_is_kept() -> None:
    with serving("fake", *settings("fake.a=0 ms")) as engine:
        for _ in range(2):
            engine.call("/v2/models/fake/infer", request_json(rows(1)))
        told = engine.stats()
        assert "cache" not in told["loadbench"]
        assert told["inference_stats"]["cache_hit"]["count"] == 0
        assert told["execution_count"] == 2
        assert "response_cache" not in engine.call("/v2/models/fake/config").json
        assert "nv_cache" not in engine.call("/metrics").body.decode()


def test_whoever_reads_the_statistics_learns_of_hits_and_parts() -> None:
    chosen = settings("fake.a=1 ms", 'cache="1 MB"', "preprocess=tests.test_cache:as_it_is")
    with serving("fake", *chosen) as engine:

        def reading() -> Reading:
            return read(engine.call("/v2/models/fake/stats").body)

        readings = [reading()]
        for first in (0, 0, 0, 100, 100):
            engine.call("/v2/models/fake/infer", request_json(rows(1, first)))
            readings.append(reading())
    found = servers([difference(a, b) for a, b in itertools.pairwise(readings)])
    assert found is not None
    assert (found.requests, found.cached, found.batches) == (5, 3, 2)
    assert {name: part.count for name, part in found.parts.items()} == {
        "preprocess tests.test_cache:as_it_is": 2, "model": 2,
    }  # fmt: skip
    assert found.parts_ms["model"] >= 1.0


def as_it_is(arrays: dict[str, Any]) -> dict[str, Any]:
    """A plugin that does nothing."""
    return arrays


def scaled(folder: Path, version: int) -> None:
    """A version of the model `m`, which multiplies by its number."""
    node = helper.make_node("Mul", ["x", "by"], ["y"])
    info, kind = helper.make_tensor_value_info, TensorProto.FLOAT
    graph = helper.make_graph(
        [node], "g", [info("x", kind, ["b", 2])], [info("y", kind, ["b", 2])],
        [helper.make_tensor("by", kind, [1], [float(version)])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    (folder / "m" / str(version)).mkdir(parents=True)
    (folder / "m" / str(version) / "model.onnx").write_bytes(proto.SerializeToString())


def test_another_version_is_not_answered_for(tmp_path: Path) -> None:
    scaled(tmp_path, 1)
    with serving(f"m={tmp_path / 'm'}", *settings('cache="1 MB"')) as served:

        def ask(path: str = "") -> tuple[list[float], bool]:
            answer = served.call(f"/v2/models/m/{path}infer", request_json(np.ones((1, 2))))
            return answer.json["outputs"][0]["data"], "cache" in answer.headers["server-timing"]

        assert (ask(), ask()) == (([1, 1], False), ([1, 1], True))
        assert ask("versions/1/") == ([1, 1], True)
        scaled(tmp_path, 2)
        assert served.call("/v2/repository/models/m/load", {}).status == 200
        assert (ask(), ask()) == (([2, 2], False), ([2, 2], True))
