"""Models that torch.ao or torchao quantised: served as they are, or refused for a reason."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from loadbench.engine.backends import Model
from loadbench.engine.models import open_model
from loadbench.errors import SpecError
from loadbench.spec import EngineSpec

pytestmark = [
    pytest.mark.long,  # a minute and more
    # What people's files were made with is deprecated, and their files stay.
    pytest.mark.filterwarnings("ignore:.*(torch.ao.quantization|torch.quantize_per).*"),
    pytest.mark.filterwarnings("ignore:.*(TypedStorage|_pytree|register_constant).*"),
]
WIDTH = 64


def plain() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(), nn.Linear(32, 8)).eval()


def packed() -> nn.Module:
    quantize: Any = torch.ao.quantization.quantize_dynamic
    found: nn.Module = quantize(plain(), {nn.Linear})
    return found


def opened(path: Path, factory: str = "", trust: bool = False, **changed: Any) -> Model:
    inputs = () if path.suffix == ".pt2" else (f"x:FP32:-1,{WIDTH}",)
    whole = f"{__name__}:{factory}" if factory else ""
    settings = {"threads": 1, "factory": whole, "inputs": inputs} | changed
    return open_model(str(path), EngineSpec.model_validate(settings), trust=trust)


def refused(path: Path, factory: str = "", trust: bool = False, **changed: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        opened(path, factory, trust, **changed)
    return caught.value


def same(model: Model, right: nn.Module) -> None:
    """It answers as its author's module does, each batch for itself, and says what it is."""
    assert (model.precision, model.batched) == ("int8", True)
    assert " · cpu · int8 · 1 thread · dynamic batch" in model.notes[0].text
    assert model.notes[-1].text == "int8: as the weights of the file are"
    (name,) = [tensor.name for tensor in model.inputs]
    for rows in (1, 3, 32):
        x = np.random.default_rng(rows).standard_normal((rows, WIDTH)).astype(np.float32)
        with torch.no_grad():
            expected = right(torch.from_numpy(x)).numpy()
        (found,) = model.run({name: x}).values()
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_a_state_dict_of_torch_ao_needs_a_factory_of_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"state_dict": packed().state_dict()}, path)
    model = opened(path, "packed")
    same(model, packed())
    assert model.memory() == {"CPU": (WIDTH * 32 + 32 * 8) + 4 * (32 + 8)}
    error = refused(path, "plain")
    assert "torch.ao quantised" in error.message
    assert "quantize_dynamic" in error.hint
    assert "quantised to int8, not bf16" in refused(path, "packed", precision="bf16").message


def test_a_whole_module_of_torch_ao_needs_trust(tmp_path: Path) -> None:
    torch.save(packed(), tmp_path / "a.pt")
    assert "would run code of the file" in refused(tmp_path / "a.pt").message
    same(opened(tmp_path / "a.pt", trust=True), packed())


def test_torchscript_of_torch_ao(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(packed()), tmp_path / "a.pt")
    model = opened(tmp_path / "a.pt", trust=True)
    same(model, packed())
    assert model.memory()["CPU"] > WIDTH * 32
    assert [note.code for note in model.notes] == ["backend", "rounded", "precision"]


def torchao() -> Any:
    from loadbench.engine.backends import quantized

    quantized.require("torchao", "this test")  # without its remarks
    return sys.modules["torchao"].quantization


@pytest.mark.parametrize("kind", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_weights_and_programs_of_torchao(tmp_path: Path, kind: str) -> None:
    library = torchao()
    module = plain()
    library.quantize_(module, getattr(library, kind)())
    torch.save(module.state_dict(), tmp_path / "a.pt")
    model = opened(tmp_path / "a.pt", "plain")
    same(model, module)
    assert model.memory()["CPU"] < 4 * (WIDTH * 32 + 32 * 8)
    rows = ({0: torch.export.Dim("rows")},)
    program = torch.export.export(module, (torch.ones(2, WIDTH),), dynamic_shapes=rows)
    torch.export.save(program, tmp_path / "a.pt2")
    same(opened(tmp_path / "a.pt2", trust=True), module)


def test_a_program_quantised_by_pt2e(tmp_path: Path) -> None:
    torchao()
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    rows = ({0: torch.export.Dim("rows")},)
    example = (torch.ones(2, WIDTH),)
    exported = torch.export.export(plain(), example, dynamic_shapes=rows).module()
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(exported, quantizer)
    prepared(torch.randn(16, WIDTH))
    converted = convert_pt2e(prepared)
    program = torch.export.export(converted, example, dynamic_shapes=rows)
    torch.export.save(program, tmp_path / "a.pt2")
    same(opened(tmp_path / "a.pt2", trust=True), converted)


def test_what_torchao_made_says_that_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = torchao()
    module = plain()
    library.quantize_(module, library.Int8WeightOnlyConfig())
    program = torch.export.export(module, (torch.ones(2, WIDTH),))
    torch.export.save(program, tmp_path / "a.pt2")
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchao", None)
    error = refused(tmp_path / "a.pt2", trust=True)
    assert "quantised with torchao, which is not installed" in error.message
    assert error.hint == "pip install 'loadbench[torchao]'"
