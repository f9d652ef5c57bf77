"""The names by which servers of others tell of themselves in Prometheus's format.

How an expression is written, `exposition` says; which figures are read by it, `figures`.
"""

from collections.abc import Mapping
from typing import NamedTuple

from loadbench.model import Note


class Vocabulary(NamedTuple):
    """The names that one kind of server uses; `sign` is how those of no other begin: before the
    first request some tell of little. What is `better` stands in for a figure where the page has a
    histogram or summary of that name, the first of several; `doubts` are for figures without one:
    the first that holds is told, else of `remarks`, for those with one. What is `shared` counts for
    all models of a server at once, and says nothing of one of them."""

    server: str
    sign: str
    figures: Mapping[str, str]
    better: Mapping[str, tuple[str, ...]] = {}
    doubts: Mapping[str, Note] = {}
    remarks: Mapping[str, Note] = {}
    shared: tuple[str, ...] = ()

    def speaks(self, name: str) -> bool:
        """Whether the name is one of this server's."""
        return name.startswith(self.sign)


# As gauges, by default, they are of the last batch alone, which is no mean of a second's requests.
_HANDLERS = ("PredictionTime in ms", "HandlerTime in ms")  # all handlers have the first
_QUEUED = "ts_queue_latency_microseconds"
_UNCOUNTED = Note(
    "queue-untold",
    "TorchServe counts requests as they arrive, refused ones too, and the time in its queue as it"
    " answers: over how many answers that is it does not say, so no queue is told",
    "it does, with one model alone, where its metrics_config has QueueTime among ts_metrics as a"
    " histogram; its compute is told where PredictionTime or HandlerTime is one in model_metrics",
)
_DERIVED = Note(
    "compute-derived",
    "TorchServe tells no mean of its handlers' time: compute is its inference latency without the"
    " queue, the way to its worker and back included",
    "it does where its metrics_config has PredictionTime or HandlerTime among model_metrics as a"
    " histogram; as a gauge it is of the last batch alone",
)
_HANDLED = Note(
    "compute-handler",
    "TorchServe's compute is its handler's time alone: the way from its front end to the worker and"
    " back is neither that nor queue, and so is in network",
)
_PREDICTED = Note(
    "compute-whole",
    "MLServer tells of all its model's time as one: compute is from when the model was asked until"
    " it answered, the wait for a batch of its adaptive batching included, and no queue is told",
    "target.metrics.compute takes a histogram of the model's own, such as mlserver.log makes",
)
_WHOLE = Note(
    "compute-whole",
    "BentoML tells of all its time as one: compute is its service's request duration, the wait for"
    " a batch included, and no queue is told",
    "target.metrics.compute takes a histogram of the model's own, such as bentoml.metrics makes",
)

VOCABULARIES = (
    Vocabulary("Triton", "nv_inference_", {
        "requests": "nv_inference_request_success",
        "failed": "nv_inference_request_failure",
        "queue": "nv_inference_queue_duration_us",
        "compute": "nv_inference_compute_input_duration_us + nv_inference_compute_infer_duration_us"
                   " + nv_inference_compute_output_duration_us",
        "compute_input": "nv_inference_compute_input_duration_us",
        "compute_output": "nv_inference_compute_output_duration_us",
        "cached": "nv_cache_num_hits_per_model",
        "cache_misses": "nv_cache_num_misses_per_model",
        "waiting": "nv_inference_pending_request_count",
    }),
    Vocabulary("vLLM", "vllm:", {
        # those that their client gave up, or that broke, are among them
        "requests": 'vllm:request_success{finished_reason!="abort",finished_reason!="error"}',
        "queue": "vllm:request_queue_time_seconds",
        "compute": "vllm:request_inference_time_seconds",
        "waiting": "vllm:num_requests_waiting",
    }),
    Vocabulary("llama.cpp", "llamacpp:", {
        "waiting": "llamacpp:requests_deferred",
    }),
    Vocabulary("TensorFlow Serving", ":tensorflow:serving:", {
        "requests": ':tensorflow:serving:request_count{status="OK"}',
        "failed": ':tensorflow:serving:request_count{status!="OK"}',
        "queue": ":tensorflow:serving:batching_session:queuing_latency in us",
        "compute": ":tensorflow:serving:runtime_latency in us",
        "batch": ":tensorflow:serving:batching_session:processed_batch_size",
    }),
    Vocabulary("TorchServe", "ts_inference_", {
        "queue": _QUEUED,
        "compute": f"ts_inference_latency_microseconds - {_QUEUED}",
    },
        better={"requests": ("QueueTime",), "compute": _HANDLERS},
        doubts={"requests": _UNCOUNTED, "compute": _DERIVED},
        remarks={"compute": _HANDLED},
        shared=("requests",)),
    Vocabulary("MLServer", "model_infer_request_", {
        "requests": "model_infer_request_success",
        "failed": "model_infer_request_failure",
        "compute": "model_infer_request_duration in s",
    }, doubts={"compute": _PREDICTED}),
    Vocabulary("mosec", "mosec_service_", {
        "requests": 'mosec_service_throughput{code="200"}',
        "failed": 'mosec_service_throughput{code!="200"}',
        "compute": 'mosec_service_process_duration_second{stage!="total"}',
        "whole": 'mosec_service_process_duration_second{stage="total"}',
        "batch": "mosec_service_batch_size",
        "waiting": "mosec_service_remaining_task",
    }),
    Vocabulary("BentoML", "bentoml_service_", {
        "requests": 'bentoml_service_request{http_response_code="200"}',
        "failed": 'bentoml_service_request{http_response_code!="200"}',
        "compute": "bentoml_service_request_duration_seconds",
        "batch": "bentoml_service_adaptive_batch_size",
        "waiting": "bentoml_service_request_in_progress",
    }, doubts={"compute": _WHOLE}),
)  # fmt: skip
