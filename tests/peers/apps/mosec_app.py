import mosec
from counting import summed


class Sum(mosec.Worker):
    def forward(self, many):
        return [summed(asked) for asked in many]


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(Sum, num=1, max_batch_size=8, max_wait_time=2)
    server.run()
