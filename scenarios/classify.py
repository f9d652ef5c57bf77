"""People who classify: mostly one sample, now and then eight, and a look at the server's health.

    loadbench serve mlp
    locust -f scenarios/classify.py --host http://127.0.0.1:8477

Each user waits for an answer before the next request, so a slow server slows its own load: how many
users it bears is what this shows. For a fixed rate whatever the server does, see lane.py.
"""

import math
import random
from typing import Any

from locust import FastHttpUser, between, task


class Classifier(FastHttpUser):
    """Sends random numbers to the first model of a KServe v2 server."""

    wait_time = between(0.05, 0.2)

    def on_start(self) -> None:
        models = self.client.post("/v2/repository/index", json={}, name="index").json()
        self.path = f"/v2/models/{models[0]['name']}"
        metadata = self.client.get(self.path, name="metadata").json()
        self.tensor = metadata["inputs"][0]

    @task(8)
    def one_sample(self) -> None:
        self.classify("one sample", rows=1)

    @task(2)
    def eight_samples(self) -> None:
        self.classify("eight samples", rows=8)

    @task(1)
    def health(self) -> None:
        self.client.get("/v2/health/ready", name="health")

    def classify(self, name: str, rows: int) -> None:
        _, *open_dims = self.tensor["shape"]  # the first is the batch; -1 is any
        shape = [rows, *(32 if dim == -1 else dim for dim in open_dims)]
        values = [round(random.gauss(0, 1), 3) for _ in range(math.prod(shape))]
        body = {"inputs": [{**self.tensor, "shape": shape, "data": values}]}
        with self.client.post(
            f"{self.path}/infer", json=body, name=name, catch_response=True
        ) as answer:
            outputs: Any = answer.json() if answer.status_code == 200 else {}
            if answer.status_code == 200 and outputs["outputs"][0]["shape"][0] != rows:
                answer.failure("not as many rows as were asked")
