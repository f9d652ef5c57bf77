"""Users that come and go: Locust's LoadTestShape, here as steps up and a sudden crowd.

    loadbench serve mlp
    locust -f scenarios/shape.py --headless --host http://127.0.0.1:8477

The test ends by itself when the last stage is over. Put your own User class in place of Visitor.
"""

from locust import FastHttpUser, LoadTestShape, constant_throughput, task

# (until this second, users, users started or stopped per second)
STAGES = ((2, 5, 5), (3, 10, 5), (5, 40, 40), (6, 10, 40))


class Visitor(FastHttpUser):
    """Asks ten times a second whether the server is ready, if it answers fast enough."""

    wait_time = constant_throughput(10)

    @task
    def look(self) -> None:
        self.client.get("/v2/health/ready")


class Steps(LoadTestShape):
    """Walks through STAGES."""

    def tick(self) -> tuple[int, float] | None:
        passed = self.get_run_time()
        for until, users, rate in STAGES:
            if passed < until:
                return users, rate
        return None
