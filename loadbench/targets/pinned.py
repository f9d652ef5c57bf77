"""How an HTTP client reaches a server that is measured: at the one address of its name that is held
on to, for no longer than was said, however slowly it answers, and for no more than was expected,
however much it packs into its answer."""

import ssl
import time
from collections.abc import Iterator

import httpx

from loadbench.targets.places import Pin
from loadbench.targets.wire import MOST, BadAnswer, decoded

WHOLE_S = "loadbench_whole_s"  # an extension of a request: until all of its answer is here
PLAIN = {"Accept-Encoding": "identity"}  # as the load asks; packing takes time that is measured
_MOST = 64 << 20  # bytes of such an answer, packed or not
_FRAMING = (b"content-encoding", b"content-length", b"transfer-encoding")


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
        most = MOST if whole_s is None else _MOST
        assert isinstance(answer.stream, httpx.SyncByteStream)
        answer.stream = _Bounded(answer.stream, whole_s, most)
        return _unpacked(answer, most) if "content-encoding" in answer.headers else answer


def _unpacked(answer: httpx.Response, most: int) -> httpx.Response:
    """httpx itself would unpack all that comes, however large it becomes. Raises httpx.HTTPError
    for more bytes than `most`, and for what cannot be unpacked."""
    assert isinstance(answer.stream, httpx.SyncByteStream)
    try:
        body = b"".join(answer.stream)
        # a refusal may say how it would have been packed, and have no body
        body = decoded(dict(_lowered(answer)), body, most) if body else body
    except BadAnswer as error:
        raise httpx.DecodingError(str(error)) from error
    finally:
        answer.stream.close()
    kept = [(name, value) for name, value in _lowered(answer) if name not in _FRAMING]
    return httpx.Response(
        answer.status_code, headers=kept, content=body, extensions=answer.extensions
    )


def _lowered(answer: httpx.Response) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in answer.headers.raw]


class _Bounded(httpx.SyncByteStream):
    """A body that has an end: httpx only bounds the wait for the next piece of it."""

    def __init__(self, stream: httpx.SyncByteStream, whole_s: float | None, most: int) -> None:
        self._stream = stream
        self._whole_s, self._most = whole_s, most

    def __iter__(self) -> Iterator[bytes]:
        begun, size = time.monotonic(), 0
        for piece in self._stream:
            yield piece
            size += len(piece)
            if size > self._most:
                raise httpx.ReadError(f"more than {self._most >> 20} MB")
            if self._whole_s is not None and time.monotonic() - begun > self._whole_s:
                raise httpx.ReadTimeout(f"the answer did not end in {self._whole_s:.0f} s")

    def close(self) -> None:
        self._stream.close()
