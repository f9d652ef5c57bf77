"""Bodies packed by gzip or deflate: answers for clients that ask for it, requests that come so.

Many clients ask without wanting it, and packing is done where all requests are served; so what is
small is left alone, what is large too, and nobody waits for more than the quickest level.
"""

import re
import zlib

from loadbench.engine.tensors import Refused

LEAST = 1024  # bytes of a body that are worth it
MOST = 1 << 20  # some 20 ms in which nothing else is served
_LEVEL = 1
_WINDOW = {"gzip": 31, "deflate": 15}  # zlib's words for either envelope
_LENGTH = re.compile(rb"\r\nContent-Length: \d+")


def packed(answer: bytes, accepts: bytes) -> bytes:
    """A whole HTTP answer, packed if `accepts`, the value of Accept-Encoding, has a form for it."""
    end = answer.find(b"\r\n\r\n") + 4
    if not LEAST <= len(answer) - end <= MOST:
        return answer
    encoding = chosen(accepts)
    if encoding is None:
        return answer
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW[encoding])
    body = packer.compress(answer[end:]) + packer.flush()
    if len(body) >= len(answer) - end:
        return answer
    told = b"\r\nContent-Encoding: %b\r\nContent-Length: %d" % (encoding.encode(), len(body))
    return _LENGTH.sub(told, answer[: end - 4], count=1) + b"\r\n\r\n" + body


def chosen(accepts: bytes) -> str | None:
    """The form that the client likes best of those there are; None: none, or rather plain."""
    wishes: dict[str, float] = {}
    for wish in accepts.decode("latin-1").lower().split(","):
        name, *parameters = (part.strip() for part in wish.split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        try:
            wishes[name] = float(weight)
        except ValueError:
            return None
    found = [(wishes.get(name, wishes.get("*", 0.0)), name) for name in _WINDOW]
    best, form = max(found, key=lambda each: each[0])
    return form if best > 0 and best >= wishes.get("identity", 0.0) else None


def inflated(body: bytes, encoding: bytes, limit: int) -> bytes:
    """A compressed body, unpacked; Refused if it is broken or grows beyond the limit."""
    if encoding == b"identity":
        return body
    if encoding not in (b"gzip", b"x-gzip", b"deflate"):
        raise Refused(415, f"Content-Encoding {encoding.decode('latin-1')!r} is not known")
    # 47: gzip or zlib, told by the head. "deflate" without zlib's wrapper is sent by some: −15
    for window in (47, -15) if encoding == b"deflate" else (47,):
        unpacker = zlib.decompressobj(window)
        try:
            plain = unpacker.decompress(body, limit)
        except zlib.error:
            continue
        if unpacker.eof and not unpacker.unused_data:
            return plain
        if unpacker.unconsumed_tail:
            raise Refused(413, f"a body of more than {limit} bytes when unpacked")
    raise Refused(400, f"the body is not {encoding.decode()}")
