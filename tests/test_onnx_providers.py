"""Execution providers: the right one or an error; IOBinding and graphs, with a stand-in for the
card where this machine has none."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from loadbench.engine import device
from loadbench.engine.backends import onnx_file, onnx_providers
from loadbench.engine.backends.onnx_bound import Bound
from loadbench.engine.backends.onnx_providers import Placed, Wanted, listed, place
from loadbench.engine.backends.onnx_run import OnnxModel
from loadbench.engine.models import open_model
from loadbench.errors import SpecError
from loadbench.spec import EngineSpec

F32 = TensorProto.FLOAT
BUILT = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


class Cards:
    """NVML's edge: cards with so many bytes free, each of 1000."""

    def __init__(self, *free: int) -> None:
        self.free = free

    def is_available(self) -> bool:
        return bool(self.free)

    def device_count(self) -> int:
        return len(self.free)

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return self.free[index], 1000

    def get_device_name(self, index: int) -> str:
        return f"card {index}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """`y` = 2 `x`, rows of 3; `n` is INT64 and its square."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"]), helper.make_node("Mul", ["n", "n"], ["m"])],
        "g",
        [helper.make_tensor_value_info("x", F32, ["b", 3]),
         helper.make_tensor_value_info("n", TensorProto.INT64, ["b"])],
        [helper.make_tensor_value_info("y", F32, ["b", 3]),
         helper.make_tensor_value_info("m", TensorProto.INT64, ["b"])],
        [numpy_helper.from_array(np.array(2, np.float32), "two")],
    )  # fmt: skip
    found = tmp_path / "a.onnx"
    opsets = [helper.make_opsetid("", 17)]
    found.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    )
    return found


@pytest.mark.parametrize(
    ("asked", "built", "free", "found"),
    [
        ({}, BUILT, (), Placed("cpu", "cpu")),
        ({}, BUILT, (5, 9), Placed("cuda", "cuda:1")),
        ({}, BUILT[2:], (9,), Placed("cpu", "cpu")),
        ({"device": "cpu"}, BUILT, (9,), Placed("cpu", "cpu")),
        ({"provider": "cpu"}, BUILT, (9,), Placed("cpu", "cpu")),
        ({"device": "cuda:0"}, BUILT, (5, 9), Placed("cuda", "cuda:0")),
        ({"provider": "cuda"}, BUILT, (5, 9), Placed("cuda", "cuda:1")),
        ({"provider": "tensorrt"}, BUILT, (9,), Placed("tensorrt", "cuda:0")),
        ({"provider": "tensorrt", "device": "cuda:1"}, BUILT, (9, 5),
         Placed("tensorrt", "cuda:1")),
    ],
)  # fmt: skip
def test_auto_takes_cuda_where_there_is_a_card(
    asked: dict[str, str], built: list[str], free: tuple[int, ...], found: Placed
) -> None:
    assert place(EngineSpec.model_validate(asked), built, Cards(*free)) == found


@pytest.mark.parametrize(
    ("asked", "built", "free", "word"),
    [
        ({"provider": "cuda"}, BUILT, (), "no CUDA device"),
        ({"provider": "tensorrt"}, BUILT, (), "no CUDA device"),
        ({"device": "cuda:0"}, BUILT[2:], (9,), "built without CUDA"),
        ({"provider": "tensorrt"}, BUILT[1:], (9,), "built without TensorRT"),
        ({"provider": "cuda", "device": "cpu"}, BUILT, (9,), "does not run on"),
        ({"provider": "cpu", "device": "cuda"}, BUILT, (9,), "does not run on"),
    ],
)
def test_what_is_asked_for_and_missing_is_an_error(
    asked: dict[str, str], built: list[str], free: tuple[int, ...], word: str
) -> None:
    with pytest.raises(SpecError, match=word) as caught:
        place(EngineSpec.model_validate(asked), built, Cards(*free))
    assert caught.value.hint


def test_the_options_of_cuda_and_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert listed(Placed("cpu", "cpu"), Wanted()) == ["CPUExecutionProvider"]
    (name, options), last = listed(Placed("cuda", "cuda:1"), Wanted("fp16", 500, True))
    assert (name, last) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options == {
        "device_id": 1, "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC", "prefer_nhwc": 1, "use_tf32": 0,
        "gpu_mem_limit": 500, "enable_cuda_graph": 1,
    }  # fmt: skip
    shapes = tuple({"x": (rows, 3), "n": (rows,)} for rows in (1, 8, 8))
    wanted = Wanted("fp16", profile=shapes, cache="abc")  # type: ignore[arg-type]
    (name, options), (spare, _), _ = listed(Placed("tensorrt", "cuda:0"), wanted)
    assert (name, spare) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
    assert options["trt_fp16_enable"] is True
    assert options["trt_bf16_enable"] is options["trt_int8_enable"] is False
    assert options["trt_profile_min_shapes"] == "x:1x3,n:1"
    assert options["trt_profile_max_shapes"] == "x:8x3,n:8"
    assert options["trt_engine_cache_prefix"] == "abc"
    folder = Path(options["trt_engine_cache_path"])
    assert folder == tmp_path / "loadbench" / "tensorrt"
    assert folder.stat().st_mode & 0o077 == 0


def test_profiles_and_caches_are_made_of_the_file(path: Path) -> None:
    proto = onnx.load(path)
    least, usual, most = onnx_file.profile(proto, 8, {}, ()) or ({}, {}, {})
    assert (least["x"], usual["x"], most["x"]) == ((1, 3), (8, 3), (8, 3))
    assert onnx_file.profile(proto, 8, {}, ("x:FP32:2,3", "n:INT64:2")) is None
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "width"
    least, usual, most = onnx_file.profile(proto, 8, {"x": (100,)}, ()) or ({}, {}, {})
    assert (least["x"], usual["x"], most["x"]) == ((1, 25), (8, 100), (8, 200))
    before = onnx_providers.cache_of(path, [])
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array(3, np.float32), "two"))
    onnx.save(proto, path)  # the same names, other weights
    assert onnx_providers.cache_of(path, []) != before


@pytest.mark.parametrize(
    ("asked", "title"),
    [({"provider": "cuda"}, "CUDA"), ({"device": "cuda"}, "CUDA"),
     ({"provider": "tensorrt"}, "TensorRT")],
)  # fmt: skip
def test_a_provider_that_cannot_be_loaded_is_no_quiet_fallback(
    path: Path, asked: dict[str, str], title: str, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """ONNX Runtime itself, told that there is a card: it lists the provider and cannot load it."""
    if title == "CUDA" and "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("an ONNX Runtime without CUDA")
    if device.Nvml().is_available():
        pytest.skip("there is a card, and CUDA may work")
    monkeypatch.setattr(device, "Nvml", lambda: Cards(9))
    monkeypatch.setenv("XDG_CACHE_HOME", str(path.parent))
    with pytest.raises(SpecError, match=f"cannot load {title}") as caught:
        open_model(str(path), EngineSpec.model_validate({"threads": 1} | asked))
    assert "pip install" in caught.value.hint
    assert 'engine.provider = "cpu"' in caught.value.hint
    model = open_model(str(path), EngineSpec(threads=1))  # nobody asked: the CPU, and it is said
    assert (model.device, model.batched) == ("cpu", True)
    assert "cpu · fp32 · 1 thread · dynamic batch; cuda:0 is not used" in model.notes[0].text
    assert capfd.readouterr().out == ""


def test_what_a_card_leaves_to_the_cpu_is_told(path: Path) -> None:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    assert onnx_providers.strays(session) == "2 of 2 operations run on the CPU (Mul)"
    assert onnx_providers.strays(object()) == ""


def test_graphs_need_a_card(path: Path) -> None:
    with pytest.raises(SpecError, match=r"engine\.graphs"):
        open_model(str(path), EngineSpec(threads=1, graphs=True, device="cpu"))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("CUDA failure 2: out of memory ; GPU=0", MemoryError),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0", MemoryError),
        ("Failed to allocate memory for requested buffer of size 1", MemoryError),
        ("CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED ; GPU=0", ort_errors.Fail),
        ("Got invalid dimensions for input: x", SpecError),
    ],
)
def test_what_a_card_says_is_understood(path: Path, said: str, kind: type[Exception]) -> None:
    model = open_model(str(path), EngineSpec(threads=1, device="cpu"))
    assert isinstance(model, OnnxModel)

    def fail(*_: Any) -> Any:
        raise ort_errors.Fail(f"[ONNXRuntimeError] : 1 : FAIL : {said}")

    model._call = fail
    with pytest.raises(kind):
        model.run(feed(2))


class Recorded:
    """ONNX Runtime, remembering which graph each run was to use."""

    OrtValue = ort.OrtValue

    def __init__(self) -> None:
        self.graphs: list[int] = []

    def RunOptions(self) -> Any:
        """As ort.RunOptions."""
        options, graphs = ort.RunOptions(), self.graphs

        class Options:
            @staticmethod
            def add_run_config_entry(name: str, value: str) -> None:
                assert name == "gpu_graph_id"
                graphs.append(int(value))
                options.add_run_config_entry(name, value)

            inner = options

        return Options()


class Session:
    """A session that takes such options."""

    def __init__(self, path: Path) -> None:
        self.inner = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.rows: list[int] = []

    def io_binding(self) -> Any:
        return self.inner.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self.inner.run_with_iobinding(binding, options and options.inner)
        self.rows.append(len(binding.get_outputs()[0].numpy()))


def feed(rows: int) -> dict[str, Any]:
    x = np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32)
    return {"x": x, "n": np.arange(rows)}


def check(bound: Bound, rows: int) -> None:
    given = feed(rows)
    y, m = bound(["y", "m"], given)
    np.testing.assert_array_equal(y, given["x"] * 2)
    np.testing.assert_array_equal(m, given["n"] ** 2)


def test_bound_inputs_and_outputs_give_the_same_answers(path: Path) -> None:
    bound = Bound(Session(path), "cpu")
    for rows in (1, 3, 8, 3):
        check(bound, rows)


def test_each_bucket_has_its_graph_and_is_filled_up(path: Path) -> None:
    session, library = Session(path), Recorded()
    bound = Bound(session, "cpu", graphs=True, library=library)
    check(bound, 3)  # not recorded yet: it must say so
    assert (library.graphs, session.rows) == ([-1], [3])
    bound.record((1, 2, 4, 8), batched=True)
    for rows in (3, 4, 1, 2, 4, 8, 3, 5):
        check(bound, rows)
    # A bucket's first run is preceded by one that finds out the shapes of its outputs.
    assert session.rows[1:] == [4, 4, 4, 1, 1, 2, 2, 4, 8, 8, 4, 8]
    assert library.graphs[1:] == [-1, 1, -1, 2, -1, 3, -1, 4]
    check(bound, 9)  # beyond the largest
    assert (library.graphs[-1], session.rows[-1]) == (-1, 9)


def test_a_model_without_batch_has_a_graph_for_each_shape(path: Path) -> None:
    session, library = Session(path), Recorded()
    bound = Bound(session, "cpu", graphs=True, library=library)
    bound.record((1,), batched=False)
    for rows in [*range(1, 41), 5]:
        check(bound, rows)
    assert max(library.graphs) == 32  # no more: each keeps its memory
    assert session.rows[-1] == 5
