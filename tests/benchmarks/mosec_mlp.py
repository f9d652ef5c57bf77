"""The MLP behind mosec, bodies in binary: what `servers` compares with. Options are mosec's.

MLP_WEIGHTS names the weights and PACKAGES where torch is.
"""

import os
import sys

sys.path.append(os.environ["PACKAGES"])

import mosec
import numpy as np
import torch


class Mlp(mosec.Worker):
    """Rows of 256 FP32 in, rows of 10 out."""

    def __init__(self):
        torch.set_num_threads(1)
        weights = [torch.from_numpy(w) for w in np.load(os.environ["MLP_WEIGHTS"]).values()]
        self.layers = list(zip(weights[::2], weights[1::2], strict=True))

    def deserialize(self, data):
        return data

    def forward(self, data):
        rows = np.frombuffer(bytearray().join(data), np.float32).reshape(len(data), -1)
        with torch.inference_mode():
            x = torch.from_numpy(rows)
            for number, (weight, bias) in enumerate(self.layers):
                x = torch.nn.functional.linear(torch.relu(x) if number else x, weight, bias)
            return list(x.numpy())

    def serialize(self, data):
        return data.tobytes()


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(Mlp, num=1, max_batch_size=32, max_wait_time=5)
    server.run()
