"""Takes much and computes nothing: what remains is how the tensor comes."""

import triton_python_backend_utils as backend


class TritonPythonModel:
    def execute(self, requests):
        inputs = (backend.get_input_tensor_by_name(each, "x").as_numpy() for each in requests)
        return [backend.InferenceResponse([backend.Tensor("first", x[:1])]) for x in inputs]
