"""How an HTTP client reaches a server that is measured: at the one address of its name that is held
on to, and for no longer than was said, however slowly it answers."""

import ssl
import time
from collections.abc import Iterator

import httpx

from loadbench.targets.places import Pin

WHOLE_S = "loadbench_whole_s"  # an extension of a request: until all of its answer is here
_MOST = 64 << 20  # bytes of such an answer


class Pinned(httpx.HTTPTransport):
    """What goes to other hosts is sent as ever."""

    def __init__(self, pin: Pin, verify: ssl.SSLContext | bool) -> None:
        super().__init__(verify=verify, trust_env=False)
        self._pin = pin

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == self._pin.host and self._pin.at:
            # the Host of the request is set already; its certificate is that of the name
            name = request.url.raw_host.decode("ascii")
            request.extensions = {**request.extensions, "sni_hostname": name}
            request.url = request.url.copy_with(host=self._pin.at)
        answer = super().handle_request(request)
        whole_s = request.extensions.get(WHOLE_S)
        if whole_s is not None:
            assert isinstance(answer.stream, httpx.SyncByteStream)
            answer.stream = _Bounded(answer.stream, whole_s)
        return answer


class _Bounded(httpx.SyncByteStream):
    """A body that has an end: httpx only bounds the wait for the next piece of it."""

    def __init__(self, stream: httpx.SyncByteStream, whole_s: float) -> None:
        self._stream = stream
        self._whole_s = whole_s

    def __iter__(self) -> Iterator[bytes]:
        end, size = time.monotonic() + self._whole_s, 0
        for piece in self._stream:
            yield piece
            size += len(piece)
            if size > _MOST:
                raise httpx.ReadError(f"more than {_MOST >> 20} MB")
            if time.monotonic() > end:
                raise httpx.ReadTimeout(f"the answer did not end in {self._whole_s:.0f} s")

    def close(self) -> None:
        self._stream.close()
