import sys
import time

import ray
from counting import summed
from ray import serve


@serve.deployment
class Sum:
    async def __call__(self, request):
        return summed(await request.json())


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Sum.bind())
    while True:
        time.sleep(1)
