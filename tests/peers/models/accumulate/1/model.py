"""A stateful model: the sum of all that has come in a sequence. What belongs to no sequence that
has begun is an error."""

import numpy as np
import triton_python_backend_utils as backend


class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x, start, end, number = (
            backend.get_input_tensor_by_name(request, name).as_numpy().ravel()[0]
            for name in ("x", "START", "END", "CORRID")
        )
        if start:
            self.sums[number] = 0.0
        if number not in self.sums:
            error = backend.TritonError(f"sequence {number} has not begun")
            return backend.InferenceResponse(error=error)
        self.sums[number] += x
        y = np.array([[self.sums[number]]], np.float32)
        if end:
            del self.sums[number]
        return backend.InferenceResponse([backend.Tensor("y", y)])
