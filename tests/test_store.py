"""Model repositories on disk, their configurations, and what a load asks of the machine."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from loadbench.engine import device
from loadbench.engine.assembly import Wanted
from loadbench.engine.device.seam import Memory
from loadbench.engine.loader import _free, require_room
from loadbench.engine.modelconfig import _OURS, Versions, configured
from loadbench.engine.store import Store, stamp
from loadbench.errors import RunError, SpecError
from loadbench.simspec import SimSpec
from loadbench.spec import EngineSpec, checked
from loadbench.units import MS
from tests.batching import Gate
from tests.shelf import adding, repository
from tests.test_device import Cards


def test_folders_files_and_names_give_models(tmp_path: Path) -> None:
    repository(tmp_path / "many", 1, 10, 9)
    single = adding(tmp_path / "my model.onnx", 1)
    store = Store([str(tmp_path / "many"), "mlp", f"mine={single}", str(single)])
    assert store.names() == ["mlp", "mine", "my-model", "adder"]
    found = store.source("adder")
    assert found is not None
    assert Versions().of([*found.versions()]) == ["10"]  # by number, not by letters
    assert store.source("nothing") is None


def test_a_folder_of_versions_is_one_model(tmp_path: Path) -> None:
    repository(tmp_path, 1, 2)
    for argument, name in ((str(tmp_path / "adder"), "adder"), (f"a={tmp_path}/adder", "a")):
        store = Store([argument])
        assert store.names() == [name]
        found = store.source(name)
        assert found is not None
        assert [*found.versions()] == ["1", "2"]


def test_what_is_no_version_is_left_alone(tmp_path: Path) -> None:
    repository(tmp_path, 1)
    for name in ("01", "new", ".2", "-1"):
        (tmp_path / "adder" / name).mkdir()
    found = Store([str(tmp_path)]).source("adder")
    assert found is not None
    assert [*found.versions()] == ["1"]


def test_a_version_has_one_model_file(tmp_path: Path) -> None:
    repository(tmp_path, 1)
    (tmp_path / "adder" / "1" / "model.pt").write_bytes(b"")
    found = Store([str(tmp_path)]).source("adder")
    assert found is not None
    with pytest.raises(SpecError, match="2 model files"):
        found.versions()


def test_two_models_of_one_name_are_an_error() -> None:
    with pytest.raises(SpecError, match="two models are named 'mlp'"):
        Store(["mlp", "mlp"])


def test_links_do_not_lead_out(tmp_path: Path) -> None:
    repository(tmp_path / "in", 1)
    repository(tmp_path / "out", 1, name="other")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "out" / "other")
    (tmp_path / "in" / "adder" / "2").symlink_to(tmp_path / "out" / "other" / "1")
    (tmp_path / "in" / "adder" / "config.json").symlink_to(tmp_path / "out")
    store = Store([str(tmp_path / "in")])
    assert store.names() == ["adder"]
    assert store.source("linked") is None
    assert store.source("../out/other") is None
    found = store.source("adder")
    assert found is not None
    assert [*found.versions()] == ["1"]
    with pytest.raises(SpecError, match="leads out"):
        found.config()


def test_a_change_of_any_file_of_a_version_is_seen(tmp_path: Path) -> None:
    repository(tmp_path, 1)
    model = tmp_path / "adder" / "1" / "model.onnx"
    before = stamp(str(model))
    (model.parent / "weights.bin").write_bytes(b"1")
    assert stamp(str(model)) != before
    assert stamp("mlp") == ()


def test_tritons_configuration_becomes_our_settings() -> None:
    given = {
        "name": "m", "platform": "onnxruntime_onnx", "max_batch_size": 8,
        "instance_group": [{"count": 2}, {"kind": "KIND_CPU"}],
        "dynamic_batching": {"preferred_batch_size": [4, 8], "max_queue_delay_microseconds": 100},
        "version_policy": {"specific": {"versions": [3, 1]}},
        "parameters": {"precision": {"string_value": "fp32"}, "slo": "20 ms", "threads": 1},
    }  # fmt: skip
    settings, versions = configured(given, EngineSpec(seed=5), "config")
    assert (settings.max_batch, settings.instances, settings.policy) == (8, 3, "fixed")
    assert (settings.max_wait, settings.preferred) == (MS // 10, (4, 8))
    assert (settings.precision, settings.slo, settings.threads) == ("fp32", 20 * MS, 1)
    assert settings.seed == 5
    assert versions == Versions(None, ("3", "1"))
    assert versions.of(["1", "2", "3"]) == ["1", "3"]


def test_tritons_queue_policies_and_priorities() -> None:
    policy = {"timeout_action": "DELAY", "default_timeout_microseconds": 500, "max_queue_size": 9}
    batching = {"priority_levels": 3, "default_priority_level": 2,
                "priority_queue_policy": {"1": policy}}  # fmt: skip
    settings, _ = configured({"dynamic_batching": batching}, EngineSpec(), "config")
    assert (settings.policy, settings.max_wait) == ("fixed", 0)
    assert (settings.priorities, settings.default_priority) == (3, 2)
    level = settings.level[1]
    assert (level.timeout, level.action, level.requests) == (MS // 2, "delay", 9)
    assert configured({"dynamic_batching": {}}, EngineSpec(), "config").settings == EngineSpec()


def test_what_a_configuration_may_set_is_a_setting() -> None:
    assert set(_OURS) <= EngineSpec.model_fields.keys()
    for given, graphs in (({"string_value": "false"}, False), (True, True), ("auto", "auto")):
        found = configured({"parameters": {"graphs": given}}, EngineSpec(), "config")
        assert found.settings.graphs is graphs or found.settings.graphs == graphs == "auto"


def test_what_the_engine_was_started_with_stays() -> None:
    raw = {
        "slo": "30 ms", "canary": "5 %", "cache": "1 MB", "fake": {"a": "3 ms", "errors": "1 %"},
        "preprocess": [{"use": "prep:scale", "options": {"mean": 0.5}}], "buckets": [1, 8],
    }  # fmt: skip
    before = checked(EngineSpec, raw, "test")
    after = configured({"parameters": {"fake.c": "1 ms"}}, before, "config").settings
    assert after.fake == before.fake.model_copy(update={"c": MS})
    assert after.model_copy(update={"fake": before.fake}) == before
    assert "max_batch" not in after.model_fields_set  # nobody asked for a size


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_batch_size": "many"}, "max_batch"),
        ({"instance_group": [{"count": "two"}]}, "whole number"),
        ({"parameters": []}, "no object"),
        ({"parameters": {"nonsense": "1"}}, "unknown parameter 'nonsense'"),
        ({"parameters": {"factory": "os:system"}}, "is code"),
        ({"parameters": {"preprocess": "os:system"}}, "unknown parameter"),
        ({"parameters": {"calibration": "/etc/passwd"}}, "unknown parameter"),
        ({"dynamic_batching": {"priority_queue_policy": {"7": {}}}}, "7"),
        ({"version_policy": {"latest": {}}}, "version_policy"),
        ({"version_policy": {"specific": {"versions": []}}}, "version_policy"),
    ],
)
def test_a_wrong_configuration_is_an_error(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        configured(given, EngineSpec(), "config")


def test_a_config_that_is_no_json_is_an_error(tmp_path: Path) -> None:
    repository(tmp_path, 1)
    for text in ("{", "[]", json.dumps({"parameters": 1})):
        (tmp_path / "adder" / "config.json").write_text(text)
        found = Store([str(tmp_path)]).source("adder")
        assert found is not None
        with pytest.raises(SpecError):
            configured(found.config(), EngineSpec(), "config")


def test_a_version_that_will_not_fit_is_not_opened(tmp_path: Path) -> None:
    model = adding(tmp_path / "1" / "model.onnx", 1)
    (model.parent / "weights.bin").write_bytes(bytes(10_000))
    wanted = Wanted("adder", "1", str(model), EngineSpec(instances=2), False)
    asked: list[str] = []

    def free(where: str) -> int:
        asked.append(where)
        return 30_000

    with pytest.raises(RunError, match=r"adder needs about .* GB, and .* GB are free on cpu"):
        require_room(wanted, None, free)  # 1.5 × 2 × more than 10,000
    require_room(wanted, Gate(), lambda where: 40_000)
    assert asked == ["cpu"]


class Large(Gate):
    def memory(self) -> dict[str, int]:
        return {"GPU": 10_000}


def test_each_card_needs_room_for_its_own_instances_only() -> None:
    def room(copies: int) -> list[str]:
        given = {"device": "sim", "instances": copies, "sim": {"cards": 2, "seed": 4714}}
        wanted = Wanted("fake", "2", "fake", EngineSpec.model_validate(given), False)
        asked: list[str] = []

        def free(where: str) -> int:
            asked.append(where)
            return 20_000

        require_room(wanted, Large(), free)  # 15,000 for each
        return asked

    assert room(1) == ["sim:0"]
    assert room(2) == ["sim:0", "sim:1"]
    with pytest.raises(RunError, match="free on sim:0"):
        room(3)


def test_a_model_that_is_new_needs_room_where_it_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adding(tmp_path / "1" / "model.onnx", 1)
    monkeypatch.setattr(device, "Nvml", lambda: Cards(3, 9))
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    asked: list[str] = []

    def free(where: str) -> int:
        asked.append(where)
        return 1 << 30

    for chosen in ("auto", "cuda", "cuda:0", "cpu"):
        given = EngineSpec.model_validate({"device": chosen})
        require_room(Wanted("adder", "1", str(model), given, False), None, free)
    assert asked == ["cuda:1", "cuda:1", "cuda:0", "cpu"]


def where_room_is_looked_for(name: str, **given: object) -> list[str]:
    asked: list[str] = []

    def free(where: str) -> int:
        asked.append(where)
        return 1 << 30

    require_room(Wanted("m", "1", name, EngineSpec.model_validate(given), False), Large(), free)
    return asked


@pytest.mark.parametrize(
    ("name", "given", "where"),
    [
        ("m.pt", {"provider": "cpu", "device": "cuda:0"}, ["cuda:0"]),
        ("m.pt", {"provider": "cpu"}, ["cuda:1"]),
        ("m.pt", {"precision": "int8"}, ["cuda:1"]),
        ("mlp", {"provider": "cpu"}, ["cpu"]),
        ("mlp", {"precision": "int8", "backend": "torchscript"}, ["cuda:1"]),
        ("m.onnx", {"provider": "cpu"}, ["cpu"]),
        ("m.pt", {"device": "sim"}, []),  # opening says what is wrong
        ("m.toml", {"device": "sim"}, []),
    ],
)
def test_room_is_looked_for_where_the_file_s_own_backend_runs_it(
    name: str, given: dict[str, object], where: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cards_of", lambda _: Cards(3, 9))
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    assert where_room_is_looked_for(name, **given) == where


def test_cards_are_numbered_before_room_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    numbered: list[str | None] = []

    def cards(_: object) -> Cards:
        numbered.append(os.environ.get("CUDA_DEVICE_ORDER"))
        return Cards(3, 9)

    monkeypatch.setenv("CUDA_DEVICE_ORDER", "")  # to be put back
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setattr(device, "cards_of", cards)
    assert where_room_is_looked_for("m.pt") == ["cuda:1"]
    assert set(numbered) == {"PCI_BUS_ID"}


def test_what_torch_holds_of_a_card_and_does_not_use_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Card:
        def memory(self) -> Memory:
            return Memory(free=100, total=1000, held=700, used=400)

    monkeypatch.setattr(device, "open_device", lambda *_: Card())
    assert _free(SimSpec(), "cuda:0") == 400
