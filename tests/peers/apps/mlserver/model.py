import numpy as np
from counting import summed
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Sum(MLModel):
    async def predict(self, payload):
        rows = NumpyCodec.decode_input(payload.inputs[0])
        sums = [summed({"x": row})["y"] for row in rows.tolist()]
        output = NumpyCodec.encode_output("y", np.array(sums, np.float32).reshape(-1, 1))
        return InferenceResponse(model_name=self.name, outputs=[output])
