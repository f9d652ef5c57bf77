"""The MLP as a model of Triton's Python backend: what `servers` compares with.

Its weights lie beside it; the parameter `packages` says where torch is.
"""

import json
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as backend


class TritonPythonModel:
    """Rows of 256 FP32 in, rows of 10 out."""

    def initialize(self, args):
        sys.path.append(json.loads(args["model_config"])["parameters"]["packages"]["string_value"])
        import torch

        self.torch = torch
        torch.set_num_threads(1)
        weights = np.load(Path(__file__).parent / "weights.npz")
        tensors = [torch.from_numpy(weights[name]) for name in weights]
        self.layers = list(zip(tensors[::2], tensors[1::2], strict=True))

    def execute(self, requests):
        torch = self.torch
        inputs = [backend.get_input_tensor_by_name(each, "input").as_numpy() for each in requests]
        with torch.inference_mode():
            x = torch.from_numpy(np.concatenate(inputs))
            for number, (weight, bias) in enumerate(self.layers):
                x = torch.nn.functional.linear(torch.relu(x) if number else x, weight, bias)
        outputs = x.numpy()
        responses = []
        at = 0
        for rows in map(len, inputs):
            tensor = backend.Tensor("logits", outputs[at : at + rows])
            responses.append(backend.InferenceResponse([tensor]))
            at += rows
        return responses
