"""TensorFlow Serving's gRPC services, half_plus_three behind them: y = x / 2 + 3.

    python tensorflow_app.py GRPC_PORT

Only what the model does is written here. The messages, and which service takes and gives which, are
those that the client of OpenVINO's model server was built with, from TensorFlow's own definitions.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from counting import count
from ovmsclient.tfs_compat.grpc.tensors import make_ndarray, make_tensor_proto
from ovmsclient.tfs_compat.protos.tensorflow.core.framework import types_pb2
from ovmsclient.tfs_compat.protos.tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

MODEL, WIDTH = "half_plus_three", 4


class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    def Predict(self, asked, context):
        count()
        if asked.model_spec.name != MODEL or set(asked.inputs) != {"x"}:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{MODEL} takes x")
        x = make_ndarray(asked.inputs["x"])
        answer = predict_pb2.PredictResponse()
        answer.outputs["y"].CopyFrom(make_tensor_proto(x / np.float32(2) + np.float32(3)))
        return answer

    def GetModelMetadata(self, asked, context):
        known(asked, context)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        signature = signatures.signature_def["serving_default"]
        for tensor in (signature.inputs["x"], signature.outputs["y"]):
            tensor.dtype = types_pb2.DT_FLOAT
            for size in (-1, WIDTH):
                tensor.tensor_shape.dim.add(size=size)
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        packed = answer.metadata["signature_def"]
        packed.type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
        packed.value = signatures.SerializeToString()
        return answer


class Models(model_service_pb2_grpc.ModelServiceServicer):
    def GetModelStatus(self, asked, context):
        known(asked, context)
        answer = get_model_status_pb2.GetModelStatusResponse()
        available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        answer.model_version_status.add(version=1, state=available)
        return answer


def known(asked, context):
    if asked.model_spec.name != MODEL:
        name = asked.model_spec.name
        context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Predictions(), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
    if server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}") == 0:
        sys.exit(f"port {sys.argv[1]} is taken")
    server.start()
    server.wait_for_termination()
