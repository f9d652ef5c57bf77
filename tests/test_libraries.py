"""Libraries of custom operators, compiled here: loaded with trust, and only then."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from loadbench.engine import open_model
from loadbench.errors import SpecError
from tests.served import serving

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler to make a library")

# An operator that doubles. ONNX Runtime's C API is a table of functions whose first ones never
# change place; its header is not among what pip installs.
OF_ONNX = r"""
#include <stddef.h>
#include <stdint.h>

enum { NEW_DOMAIN = 26, ADD_OPERATOR = 27, ADD_DOMAIN = 28, DATA = 51, RANK = 61, DIMS = 62,
       NUMBER = 64, SHAPE = 65, INPUT = 90, OUTPUT = 91, RELEASE_SHAPE = 99 };
typedef void *(*Call)();
typedef struct { void *(*api)(uint32_t); } Base;
static Call *api;

static void *make(const void *op, const void *table, const void *info) { return (void *)1; }
static const char *name(const void *op) { return "Double"; }
static const char *provider(const void *op) { return NULL; }
static int type(const void *op, size_t index) { return 1; }  /* float */
static size_t one(const void *op) { return 1; }
static void destroy(void *kernel) {}
static int required(const void *op, size_t index) { return 0; }

static void compute(void *kernel, void *context) {
    void *in, *out, *shape;
    float *from, *to;
    int64_t dims[8];
    size_t rank, number;
    api[INPUT](context, (size_t)0, &in);
    api[SHAPE](in, &shape);
    api[RANK](shape, &rank);
    api[DIMS](shape, dims, rank);
    api[NUMBER](shape, &number);
    api[RELEASE_SHAPE](shape);
    api[OUTPUT](context, (size_t)0, dims, rank, &out);
    api[DATA](in, &from);
    api[DATA](out, &to);
    for (size_t i = 0; i < number; i++) to[i] = 2 * from[i];
}

static struct { uint32_t version; void *calls[40]; } operator_ = {
    8, { make, name, provider, type, one, type, one, compute, destroy, required, required } };

void *RegisterCustomOps(void *options, const Base *base) {
    void *domain, *fault;
    api = base->api(1);
    if ((fault = api[NEW_DOMAIN]("test.ops", &domain))) return fault;
    if ((fault = api[ADD_OPERATOR](domain, &operator_))) return fault;
    return api[ADD_DOMAIN](options, domain);
}
"""

# An operator that gives its tensor back, through torch's stable C interface.
OF_TORCH = r"""
#include <stdint.h>

typedef void *Library;
int aoti_torch_library_init_def(const char *space, const char *file, uint32_t line, Library *made);
int aoti_torch_library_def(Library library, const char *schema);
int aoti_torch_library_init_impl(
    const char *space, const char *key, const char *file, uint32_t line, Library *made);
int aoti_torch_library_impl(
    Library library, const char *name, void (*kernel)(uint64_t *, uint64_t, uint64_t));

static void same(uint64_t *stack, uint64_t inputs, uint64_t outputs) {}

__attribute__((constructor)) static void load(void) {
    Library made;
    aoti_torch_library_init_def("testops", __FILE__, __LINE__, &made);
    aoti_torch_library_def(made, "same(Tensor x) -> Tensor");
    aoti_torch_library_init_impl(
        "testops", "CompositeExplicitAutograd", __FILE__, __LINE__, &made);
    aoti_torch_library_impl(made, "same", same);
}
"""


def compiled(folder: Path, source: str, *options: str) -> str:
    (folder / "ops.c").write_text(source)
    library = folder / "libops.so"
    command = ["cc", "-shared", "-fPIC", "-w", "-std=gnu11", "-o", str(library)]
    subprocess.run([*command, str(folder / "ops.c"), *options], check=True)
    return str(library)


def doubling(folder: Path) -> str:
    """A model of one node: the operator that only the library has."""
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Double", ["x"], ["y"], domain="test.ops")],
        "g",
        [info("x", TensorProto.FLOAT, ["b", 3])],
        [info("y", TensorProto.FLOAT, ["b", 3])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("test.ops", 1)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    (folder / "doubling.onnx").write_bytes(proto.SerializeToString())
    return str(folder / "doubling.onnx")


def test_onnx_runtime_runs_an_operator_of_a_library(tmp_path: Path) -> None:
    library, path = compiled(tmp_path, OF_ONNX), doubling(tmp_path)
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    assert (open_model(path, libraries=library, trust=True).run(x)["y"] == 2 * x).all()
    with pytest.raises(SpecError, match="runs its code") as error:
        open_model(path, libraries=[library])
    assert "--trust" in error.value.hint
    with pytest.raises(SpecError, match=r"test\.ops\.Double from a custom library") as error:
        open_model(path, trust=True)
    assert "engine.libraries" in error.value.hint


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    path = doubling(tmp_path)
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(SpecError, match=r"text\.so cannot be loaded"):
        open_model(path, libraries=str(tmp_path / "text.so"), trust=True)
    with pytest.raises(SpecError, match=r"gone\.so is not a file"):
        open_model(path, libraries="gone.so", trust=True)
    with pytest.raises(SpecError, match="mlp is made by loadbench"):
        open_model("mlp", libraries="gone.so", trust=True)


SCRIPT = """
import sys, torch
torch.ops.load_library(sys.argv[1])

class Net(torch.nn.Module):
    def forward(self, x):
        return torch.ops.testops.same(x) + 1

torch.jit.script(Net()).save(sys.argv[2])
"""


def test_torch_runs_an_operator_of_a_library(tmp_path: Path) -> None:
    import torch

    where = f"-L{Path(torch.__file__).parent / 'lib'}"
    library = compiled(tmp_path, OF_TORCH, where, "-ltorch_cpu", "-Wl,--allow-shlib-undefined")
    path = tmp_path / "net.pt"
    (tmp_path / "make.py").write_text(SCRIPT)
    command = [sys.executable, "-W", "ignore", str(tmp_path / "make.py"), library, str(path)]
    subprocess.run(command, check=True)
    chosen = ["--set", f"engine.libraries={library}", "--input", "x:FP32:-1,3", "--trust"]
    with serving(str(path), *chosen) as engine:
        entry = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
        answer = engine.call("/v2/models/net/infer", {"inputs": [entry]}).json
        assert answer["outputs"][0]["data"] == [2, 3, 4]
    with pytest.raises(SpecError, match="testops"):
        open_model(str(path), inputs=["x:FP32:-1,3"], trust=True)
