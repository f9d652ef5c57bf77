import sys

import litserve
from counting import summed


class Api(litserve.LitAPI):
    def setup(self, device):
        pass

    def predict(self, asked):
        return summed(asked)


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
