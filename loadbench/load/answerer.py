"""`python -m loadbench.load.answerer`: a server that answers at once, for `doctor --load` to
measure the generator against. KServe over HTTP on loopback, one output, always the same.

It prints its port; a line on its stdin is answered with the CPU time it has used (ns); it exits
when its stdin closes. It only suits our own load: each request, being small and alone on its
connection, is one piece of data, and each piece gets the answer, unread.
"""

import os
import select
import socket
import time
from collections.abc import Callable

_BODY = (
    b'{"model_name":"m","outputs":'
    b'[{"name":"y","datatype":"FP32","shape":[1,3],"data":[0.25,-1.5,3.0]}]}'
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(_BODY),
    _BODY,
)
_STDIN, _STDOUT = 0, 1
_BACKLOG = 4096

Ends = tuple[socket.socket, Callable[[int], bytes], Callable[[bytes], int]]


def main() -> None:
    """Serves until stdin closes."""
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as listener:
        listener.setblocking(False)
        os.write(_STDOUT, b"%d\n" % listener.getsockname()[1])
        _serve(listener)


def _serve(listener: socket.socket) -> None:
    poll = select.epoll()
    clients: dict[int, Ends] = {}
    for fd in (_STDIN, listener.fileno()):
        poll.register(fd, select.EPOLLIN)
    while True:
        for fd, _ in poll.poll():
            ends = clients.get(fd)
            if ends is not None:
                try:
                    data = ends[1](65_536)
                    if data:
                        ends[2](ANSWER)
                        continue
                except OSError:
                    pass  # reset, or it takes nothing more: of no more use, as one that has ended
                ends[0].close()
                del clients[fd]
            elif fd == _STDIN:
                if not os.read(_STDIN, 4096):
                    return
                os.write(_STDOUT, b"%d\n" % time.process_time_ns())
            else:
                client, _ = listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()] = (client, client.recv, client.send)
                poll.register(client.fileno(), select.EPOLLIN)


if __name__ == "__main__":
    main()
