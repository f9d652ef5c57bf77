"""A decoupled model: three answers to each request, on a timetable. y = x times the number of the
answer."""

import threading
import time

import triton_python_backend_utils as backend

ANSWERS, SECONDS_APART = 3, 0.01


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.answer, args=(request,)).start()

    def answer(self, request):
        begun, sender = time.perf_counter(), request.get_response_sender()
        x = backend.get_input_tensor_by_name(request, "x").as_numpy()
        for number in range(1, ANSWERS + 1):
            time.sleep(max(0.0, begun + number * SECONDS_APART - time.perf_counter()))
            sender.send(backend.InferenceResponse([backend.Tensor("y", number * x)]))
        sender.send(flags=backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
