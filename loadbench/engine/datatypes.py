"""KServe's datatype names in the words of torch and ONNX; numpy's are `targets.datatypes`."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from loadbench.targets.datatypes import DTYPES
from loadbench.targets.datatypes import wide as wide

if TYPE_CHECKING:  # torch takes a second to import, and the ONNX backend has no use for it
    import torch

NUMPY = DTYPES
TORCH = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP32": "float32",
    "FP64": "float64",
}  # torch has no strings
ONNX = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}  # onnxruntime's Python interface cannot exchange bfloat16 with numpy


def of_torch(dtype: "torch.dtype") -> str | None:
    """KServe's name of a torch dtype; None for what the protocol cannot carry (complex, fp8)."""
    word = str(dtype).removeprefix("torch.")
    return next((name for name, found in TORCH.items() if found == word), None)


def to_torch(array: NDArray[Any], datatype: str) -> "torch.Tensor":
    """A tensor over the array's own memory where it may be written to, else over a copy."""
    import torch

    if not array.flags.c_contiguous or not array.flags.writeable:
        array = np.array(array, order="C")  # keeps 0-d, which ascontiguousarray does not
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if datatype == "BF16" else tensor


def from_torch(tensor: "torch.Tensor", datatype: str) -> NDArray[Any]:
    """The tensor on the host, in the numpy form of `datatype`."""
    import torch

    tensor = tensor.detach().to("cpu", getattr(torch, TORCH[datatype])).contiguous()
    found: NDArray[Any] = (tensor.view(torch.uint16) if datatype == "BF16" else tensor).numpy()
    return found
