"""A model for Triton's Python backend whose answers and time per batch are known.

y = x @ W with W[i, j] = ((i + 2 j) mod 7) − 3, and total = the sum of y. A batch takes 2 ms
whatever its size, slept rather than computed so that the load beside it has the cores.
"""

import time

import numpy as np
import triton_python_backend_utils as backend

SIZE = 64
SECONDS_PER_BATCH = 0.002


class TritonPythonModel:
    def initialize(self, args):
        rows, columns = np.indices((SIZE, SIZE))
        self.weights = ((rows + 2 * columns) % 7 - 3).astype(np.float32)

    def execute(self, requests):
        end = time.perf_counter() + SECONDS_PER_BATCH
        inputs = [backend.get_input_tensor_by_name(each, "x").as_numpy() for each in requests]
        outputs = np.concatenate(inputs) @ self.weights
        responses = []
        for x in inputs:
            y, outputs = outputs[: len(x)], outputs[len(x) :]
            tensors = [
                backend.Tensor("y", y),
                backend.Tensor("total", y.sum(axis=1, keepdims=True)),
            ]
            responses.append(backend.InferenceResponse(tensors))
        time.sleep(max(0.0, end - time.perf_counter()))
        return responses
